"""The cascades that come with the package, and where other cascades are found by name.

A name stands for a file of this package, or for one of OpenCV's stock cascades wherever they already are: OpenCV's
wheels carry Haar cascades, Debian's ``opencv-data`` has Haar and LBP ones, scikit-image has one LBP cascade.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from vj._files import is_file
from vj.errors import InputError

DEFAULT = "frontalface"
"""Name of the packaged face cascade: what `load` and every command use when none is given."""

_PREFIXES = ("", "haarcascade_", "lbpcascade_")
_DEBIAN = (
    "/usr/share/opencv4/haarcascades",
    "/usr/share/opencv4/lbpcascades",
    "/usr/share/opencv/haarcascades",
    "/usr/share/opencv/lbpcascades",
)


def folders() -> Iterator[Path]:
    """Yield the folders that may hold cascades, in the order in which they are searched."""
    for folder in os.environ.get("VJ_CASCADES", "").split(os.pathsep):
        if folder:
            yield Path(folder)
    yield Path(__file__).parent.parent / "models"
    # Found without importing them: only their files are wanted, and OpenCV 5 has no cv2.data.
    for package, below in (("cv2", "data"), ("skimage", "data")):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent / below
    for place in _DEBIAN:
        yield Path(place)


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
        f"expected a cascade file or a known name, got {name!r}: OpenCV's own come with opencv-python 4 "
        f"(pip install 'opencv-python<5') or Debian's opencv-data; a folder of others can be named in VJ_CASCADES"
    )
