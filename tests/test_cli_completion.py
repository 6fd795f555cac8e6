"""Completion scripts: bash itself completes every command's options, and files where an argument is one."""

import shutil
import subprocess
import sys

import pytest

from vj.cli import _completion, commands

shtab = pytest.importorskip("shtab")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script for bash, as a user would write it to a file."""
    done = subprocess.run([sys.executable, "-m", "vj", "completion", "bash"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path_factory.mktemp("completion") / "vj.bash"
    path.write_text(done.stdout)
    return path


def complete(script, folder, line):
    """What bash offers at the end of a command line."""
    words = line.split(" ")
    code = f'source "$1"; COMP_WORDS=("${{@:2}}"); COMP_CWORD={len(words) - 1}; '
    code += '$(complete -p "$2" | sed "s/.*-F \\([^ ]*\\).*/\\1/"); printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", code, "-", script, *words], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="there is no bash")
def test_bash_completes_options_choices_and_files(script, tmp_path):
    (tmp_path / "photo.jpg").touch()
    (tmp_path / "phases").mkdir()
    assert complete(script, tmp_path, "vj-detect --min-") == {"--min-neighbors", "--min-size", "--min-score"}
    assert complete(script, tmp_path, "vj-detect ph") == {"photo.jpg", "phases"}
    assert complete(script, tmp_path, "vj-evaluate --json ph") == {"photo.jpg", "phases"}
    assert complete(script, tmp_path, "vj-evaluate --errors ph") == {"phases"}
    assert complete(script, tmp_path, "vj-cascades in") == {"install"}
    assert complete(script, tmp_path, "vj-cascades install --wh") == {"--wheel"}
    assert complete(script, tmp_path, "vj-train --search f") == {"fast"}
    assert complete(script, tmp_path, "vj-traincascade -maxW") == {"-maxWeakCount"}
    for name in commands.found():
        assert "--version" in complete(script, tmp_path, f"vj-{name} --v"), name


@pytest.mark.parametrize("shell", _completion.SHELLS)
def test_each_shell_gets_a_script_for_the_commands_named(shell, capsys):
    assert commands.main(["completion", shell, "tiers", "vj-watch"]) == 0
    shown = capsys.readouterr().out
    assert "vj-tiers" in shown and "vj-watch" in shown and "vj-detect" not in shown
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=shown, text=True).returncode == 0


def test_wrong_use_is_one_line(monkeypatch, capsys):
    assert commands.main(["completion", "bash", "fly"]) == 2
    assert "got fly" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert commands.main(["completion", "bash"]) == 2
    error = capsys.readouterr().err
    assert 'pip install "vj[completion]"' in error and error.count("\n") == 1
