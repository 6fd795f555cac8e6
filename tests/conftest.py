"""What every test runs under: a numba cache of its own, and the clone's tools within reach.

Imported before any test module, and so before numba is: a stale cache must not decide a test.
"""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Last, not first: where the package is installed, the installed one is what gets tested; benchmarks/ and data/, which
# no wheel holds, come from the clone.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

_own_cache = "NUMBA_CACHE_DIR" not in os.environ
if _own_cache:
    # Processes that tests start inherit it. Set the variable yourself to keep a cache between runs.
    os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="vj-numba-")
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "any_opencv: slow, and the same whatever OpenCV is installed")
    # A shell without job control starts background processes with Ctrl-C ignored, and whatever they start inherits it:
    # tests that send one would wait forever.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the peer where the peer is not, saying so, instead of failing on a missing attribute."""
    import cv2

    if hasattr(cv2, "CascadeClassifier"):
        return
    skip = pytest.mark.skip(reason="needs the CascadeClassifier of opencv-python 4")
    for item in items:
        if "opencv4" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _no_notice_of_compiling() -> None:
    """Which test compiles a kernel first is chance; the notice has a test of its own, in a process of its own."""
    from vj.cli import _common

    _common.announces = False


def pytest_unconfigure() -> None:
    if _own_cache:
        shutil.rmtree(os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)
