"""Compiling where the usual places for compiled code cannot be used; tests may run as root, so no mode bits alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vj

PACKAGE = Path(vj.__file__).resolve().parent

KERNEL = """
from vj._compile import njit
@njit(cache=True, nogil=True)
def double(x):
    return 2 * x
"""
RUN = """
import kernel
result, stats = kernel.double(21), kernel.double.stats
print(result, sum(stats.cache_hits.values()), stats.cache_path)"""

# What numba tries a folder with; root may write anywhere.
CLOSED = """
import tempfile
opened = tempfile.TemporaryFile
def closed(*given, dir=None, **more):
    if str(dir).endswith("__pycache__"):
        raise PermissionError(dir)
    return opened(*given, dir=dir, **more)
tempfile.TemporaryFile = closed
"""


@pytest.fixture
def place(tmp_path):
    """A module of one kernel whose `__pycache__` is a file, and nowhere else to keep its compiled code."""
    (tmp_path / "kernel.py").write_text(KERNEL)
    (tmp_path / "__pycache__").write_text("")
    (tmp_path / "temporary").mkdir()
    return tmp_path


def start(place, code=RUN, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    environment |= {"HOME": "/dev/null", "TMPDIR": str(place / "temporary"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(place), str(PACKAGE.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    result, hits, where = done.stdout.strip().split(maxsplit=2)
    assert result == "42"
    return int(hits), Path(where), done.stderr


def test_falls_back_to_a_folder_of_its_own_and_says_so_when_it_makes_it(place):
    hits, where, said = start(place)
    own = place / "temporary" / f"vj-compiled-{os.geteuid()}"
    assert (hits, where.parent) == (0, own)
    assert own.stat().st_mode & 0o777 == 0o700
    assert said.count("CacheWarning: compiled code is kept in") == 1
    assert start(place) == (1, where, "")


def test_another_users_folder_is_not_read(place):
    start(place)
    own = place / "temporary" / f"vj-compiled-{os.geteuid()}"
    own.chmod(0o777)
    hits, where, said = start(place)
    assert (hits, where) == (0, place / "__pycache__")
    assert said.count("CacheWarning: compiled code cannot be kept") == 1
    own.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(own, 12345, 12345)
        assert start(place)[0] == 0


def test_nowhere_to_write_compiles_in_memory(place):
    (place / "temporary" / f"vj-compiled-{os.geteuid()}").write_text("")
    hits, _, said = start(place)
    assert hits == 0
    assert said.count("CacheWarning") == 1


def test_code_compiled_when_it_was_installed_is_used(place):
    (place / "__pycache__").unlink()
    assert start(place)[0] == 0
    hits, where, _ = start(place, CLOSED + RUN)
    assert (hits, where.parent.parent) == (1, place / "temporary")
    shutil.rmtree(where.parent)
    where.parent.write_text("")
    assert start(place, CLOSED + RUN) == (1, place / "__pycache__", "")


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
def test_full_disk_compiles_in_memory(place):
    (place / "__pycache__").unlink()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
    hits, where, said = start(place, limit + RUN)
    assert (hits, where) == (0, place / "__pycache__")
    assert said.count("CacheWarning: compiled code cannot be kept") == 1
    assert not list(where.glob("*.nbi")), "an index that names code that was not written"
    assert start(place)[0] == 0
    assert start(place)[0] == 1


def test_corrupt_cache_is_compiled_again(place):
    (place / "__pycache__").unlink()
    _, where, _ = start(place)
    for file in where.glob("*.nb?"):
        file.write_bytes(file.read_bytes()[:-20] + b"corrupt")
    assert start(place)[0] == 0
    assert start(place) == (1, where, "")


def test_a_change_in_a_file_that_kernels_come_from_is_noticed(place):
    """By itself numba looks only at the file that a kernel is in."""
    folder = place / "package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    helper = "from vj._compile import njit\n@njit(cache=True)\ndef twice(x):\n    return "
    (folder / "helper.py").write_text(f"{helper}2 * x\n")
    code = KERNEL.replace("return 2 * x", "return twice(x)").replace("@njit", "from package.helper import twice\n@njit")
    (folder / "kernel.py").write_text(code)
    run = RUN.replace("import kernel", "from package import kernel")
    assert [start(place, run)[0] for _ in range(2)] == [0, 1]
    (folder / "helper.py").write_text(f"{helper}x + x + 0\n")
    assert [start(place, run)[0] for _ in range(2)] == [0, 1]


INTERRUPTED = """
import os, signal, threading, time
from typing import NamedTuple
import numpy as np
from vj._compile import njit

class Found(NamedTuple):
    sums: np.ndarray

@njit(nogil=True)
def busy(n):
    sums = np.zeros(3)
    for i in range(n):
        sums[i % 3] += np.sin(i)
    return Found(sums)

busy(1)
caught = 0
for _ in range(8):
    timer = threading.Timer(0.02, os.kill, [os.getpid(), signal.SIGINT])
    try:
        timer.start()
        busy(5_000_000)
        time.sleep(10)
    except KeyboardInterrupt:
        caught += 1
    timer.join()
print(caught)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process there")
def test_ctrl_c_during_a_kernel_is_an_interrupt_and_not_a_crash():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr
