"""`python -m vj` lists every command that the package installs, and runs them."""

import subprocess
import sys
import tomllib
from pathlib import Path

from vj.cli import commands

ROOT = Path(__file__).resolve().parent.parent


def test_every_installed_command_is_listed_with_its_purpose(capsys):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {f"vj-{name}": f"{path}:main" for name, (path, _) in commands.found().items()} == scripts
    assert commands.main([]) == 0
    shown = capsys.readouterr().out
    for name, (_, purpose) in commands.found().items():
        assert f"vj-{name}" in shown and purpose in shown


def test_runs_a_command_and_refuses_others():
    run = [sys.executable, "-m", "vj"]
    done = subprocess.run([*run, "detect", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: vj-detect")
    done = subprocess.run([*run, "fly"], capture_output=True, text=True)
    assert done.returncode == 2 and "fly" in done.stderr
