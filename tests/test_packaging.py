"""The wheel that pip installs: exactly `vj`, with everything it names."""

import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from vj._version import __version__

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.any_opencv


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def _built(folder, umask, environment):
    """Bytes of sdist and wheel, by name, of a copy of the sources in a folder."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "vj", folder / "vj", ignore=ignore)
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
        # From one second to the next, as on two machines that fetched the sources one after the other.
        os.utime(path, (1e9 + umask, 1e9 + umask))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
    before = os.umask(umask)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=folder, env={**os.environ, **environment}, check=False
        )
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name: path.read_bytes() for path in (folder / "dist").iterdir()}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize("epoch", [None, "1700000000"])
def test_what_is_built_depends_on_the_sources_alone(epoch, tmp_path):
    """Not on the files' times and modes; times inside are SOURCE_DATE_EPOCH where that is set."""
    environment = {} if epoch is None else {"SOURCE_DATE_EPOCH": epoch}
    one, two = tmp_path / "one", tmp_path / "two"
    first = _built(one, 0o022, environment)
    second = _built(two, 0o077, environment)
    assert [name.rpartition(".")[2] for name in sorted(first)] == ["whl", "gz"]
    assert first == second
    if epoch:
        (wheel,) = (one / "dist").glob("*.whl")
        moments = {one.date_time for one in zipfile.ZipFile(wheel).infolist()}
        assert moments == {time.gmtime(int(epoch))[:6]}


RELEASE = ROOT / ".github" / "workflows" / "release.yml"


def test_the_release_workflow_publishes_what_it_built_and_checked():
    """Each action is pinned to a commit, only the job that publishes may do so, and it builds nothing itself."""
    text = RELEASE.read_text()
    release = yaml.safe_load(text)
    # YAML 1.1 reads the key `on` as true.
    assert release[True] == {"push": {"tags": ["v*"]}}
    assert release["permissions"] == {"contents": "read"}
    for line in text.splitlines():
        if "uses:" in line:
            assert re.search(r"uses: [\w/.-]+@[0-9a-f]{40} # v\d", line), line
    build, publish = release["jobs"]["build"], release["jobs"]["publish"]
    assert "permissions" not in build
    assert publish["permissions"] == {"id-token": "write"} and publish["needs"] == "build"
    assert all("run" not in step for step in publish["steps"])


@pytest.mark.skipif(sys.platform == "win32", reason="releases are built on Linux")
def test_the_release_workflow_refuses_a_tag_that_is_not_the_version():
    """Its command, run as it stands."""
    steps = yaml.safe_load(RELEASE.read_text())["jobs"]["build"]["steps"]
    (check,) = [step["run"] for step in steps if step.get("name") == "the tag is the version"]
    for tag, fails in ((f"v{__version__}", False), ("v999", True)):
        environment = {**os.environ, "GITHUB_REF_NAME": tag}
        done = subprocess.run(["bash", "-ec", check], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr


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
