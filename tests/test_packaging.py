"""The wheel that pip installs: exactly `vj`, with everything it names."""

import hashlib
import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.packaging


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_top_level_is_vj_alone(wheel):
    top = {name.split("/")[0] for name in wheel.namelist()}
    (dist_info,) = [name for name in top if name.endswith(".dist-info")]
    assert top == {"vj", dist_info}


def test_holds_every_module_type_stub_and_model_of_the_tree(wheel):
    tree = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "vj").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in wheel.namelist() if name.startswith("vj/")}
    assert packed == tree
    assert "vj/py.typed" in packed


def test_licence_is_packed(wheel):
    assert any(name.endswith("/LICENSE") for name in wheel.namelist())


def test_the_chart_library_is_packed_unchanged_with_its_licence(wheel):
    """The files as npm has them in uplot-1.6.32.tgz."""
    digests = {
        "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
        "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
        "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    }
    for name, digest in digests.items():
        assert hashlib.sha256(wheel.read(f"vj/html/assets/{name}")).hexdigest() == digest
    assert any(name.endswith("/uPlot.LICENSE") and ".dist-info/" in name for name in wheel.namelist())


def test_every_entry_point_names_a_function():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for target in scripts.values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_every_public_name_imports():
    import vj

    assert vj.__all__
    for name in vj.__all__:
        assert getattr(vj, name) is not None


def test_import_is_light():
    """`import vj` and the command line's modules must not pull the compiler: `--help` answers at once."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    modules = ["vj", *(target.split(":")[0] for target in scripts.values())]
    heavy = "numba cv2 matplotlib skimage scipy"
    code = f"import sys, {', '.join(modules)}; print(*[m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
