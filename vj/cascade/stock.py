"""The cascades that come with the package, and where other cascades are found by name.

A name stands for a file of this package, or for one of OpenCV's stock cascades wherever they already are: the wheels of
opencv-python 4 carry Haar cascades, the packages of Debian, conda and Homebrew Haar and LBP ones, scikit-image has one
LBP cascade. ``vj-cascades install`` puts them into the user's data folder.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from vj._files import is_file
from vj.errors import InputError

DEFAULT = "frontalface"
"""Name of the packaged face cascade: what `load` and every command use when none is given."""

_MODELS = Path(__file__).parent.parent / "models"
_PREFIXES = ("", "haarcascade_", "lbpcascade_")
# Debian and other distributions, Homebrew on both kinds of Mac.
_SHARES = ("/usr/share", "/usr/local/share", "/opt/homebrew/share")
_BELOW = tuple(f"{name}/{kind}" for name in ("opencv4", "opencv") for kind in ("haarcascades", "lbpcascades"))
# What OpenCV's own files are called.
_STOCK = re.compile(r"(haar|lbp)cascade_\w+\.xml")

HINT = "vj-cascades install puts OpenCV's own where they are found"


def user_folder() -> Path:
    """Return the user's folder for cascades, where ``vj-cascades install`` puts them."""
    import platformdirs

    return Path(platformdirs.user_data_dir("vj", appauthor=False)) / "cascades"


def folders() -> Iterator[Path]:
    """Yield the folders that may hold cascades, in the order in which they are searched."""
    for folder in os.environ.get("VJ_CASCADES", "").split(os.pathsep):
        if folder:
            yield Path(folder)
    yield _MODELS
    yield user_folder()
    # Found without importing them: only their files are wanted, and OpenCV 5 has no cv2.data.
    for package, below in (("cv2", "data"), ("skimage", "data")):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent / below
    # conda's OpenCV, whether its environment is active or only its Python runs; on Windows it has a folder of its own.
    prefixes = dict.fromkeys(filter(None, (os.environ.get("CONDA_PREFIX"), sys.prefix)))
    for prefix in prefixes:
        for below in _BELOW:
            yield Path(prefix, "share", below)
        for kind in ("haarcascades", "lbpcascades"):
            yield Path(prefix, "Library", "etc", kind)
    for share in _SHARES:
        for below in _BELOW:
            yield Path(share, below)


def find(name: str) -> Path:
    """Return the file of a cascade known by name.

    Parameters
    ----------
    name : str
        For instance ``frontalface``, ``frontalface_alt2`` or ``haarcascade_eye``.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If there is none; the message says how to get it.
    """
    for folder in folders():
        for prefix in _PREFIXES:
            path = folder / f"{prefix}{name}.xml"
            if is_file(path):
                return path
    raise InputError(
        f"expected a cascade file or a known name, got {name!r}: {HINT}; a folder of others can be named in VJ_CASCADES"
    )


def find_elsewhere(path: Path) -> Path | None:
    """Return the stock cascade of a file's name, for a path at which there is nothing; None if there is none.

    Programs name ``cv2.data.haarcascades + "haarcascade_eye.xml"``, a folder that is empty in OpenCV 5, or a folder of
    the machine that they were written on. The packaged models are left out: no other program uses their names.
    """
    for folder in folders():
        if folder != _MODELS and path.name and is_file(folder / path.name):
            return folder / path.name
    return None


def missing(path: Path) -> str:
    """Return what to add to the error about a path at which there is nothing."""
    match = _STOCK.fullmatch(path.name)
    if match is None:
        return ""
    return (
        f" ({HINT})"
        if match[1] == "haar"
        else " (OpenCV's LBP cascades come with Debian's opencv-data and conda's opencv)"
    )


def known() -> Iterator[Path]:
    """Yield every cascade file in the folders, each name once, where it would be found first."""
    seen = set()
    for folder in folders():
        for path in sorted(folder.glob("*.xml")) if folder.is_dir() else ():
            if path.name not in seen:
                seen.add(path.name)
                yield path
