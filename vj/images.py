"""Pictures in and out: the one place that opens them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._files import write_bytes
from vj._types import Gray
from vj.errors import InputError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of the files that a folder is searched for."""


def to_gray(image: npt.NDArray[Any]) -> Gray:
    """Return a picture as 8-bit grey, converted as OpenCV does for its detector.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)
        Grey, BGR or BGRA; any strides, read-only or not.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        C-contiguous; the input itself if it already is so.

    Raises
    ------
    InputError
        For another dtype or shape.
    """
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(
            f"expected a picture as uint8 of shape (h, w), (h, w, 3) BGR or (h, w, 4) BGRA, "
            f"got {array.dtype} of shape {array.shape}"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 2:
        return np.ascontiguousarray(array)
    if array.size == 0:
        return np.zeros(array.shape[:2], dtype=np.uint8)
    import cv2

    code = cv2.COLOR_BGR2GRAY if array.shape[2] == 3 else cv2.COLOR_BGRA2GRAY
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(array), code), dtype=np.uint8)


def read_bgr(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read a picture as BGR, upright as its EXIF orientation says.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)

    Raises
    ------
    InputError
        If the file cannot be opened or holds no picture.
    """
    import cv2

    return _read(path, cv2.IMREAD_COLOR)


def read_gray(path: str | os.PathLike[str]) -> Gray:
    """Read a picture as 8-bit grey; see `read_bgr`. Returns an array of shape (h, w)."""
    return to_gray(read_bgr(path))


def _read(path: str | os.PathLike[str], flags: int) -> npt.NDArray[np.uint8]:
    import cv2

    try:
        data = np.frombuffer(Path(path).read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise InputError(f"{os.fspath(path)}: expected a readable picture, got {error.strerror or error}") from None
    try:
        # Decoding from memory: OpenCV's own file reader prints warnings and cannot say why a file would not open.
        image = cv2.imdecode(data, flags) if len(data) else None
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{os.fspath(path)}: expected a picture, got {len(data)} bytes that OpenCV cannot decode")
    return np.asarray(image, dtype=np.uint8)


def write_image(path: str | os.PathLike[str], image: npt.NDArray[np.uint8]) -> None:
    """Write a grey or BGR picture in the format of the path's ending; the file appears whole or not at all.

    Parameters
    ----------
    path : str or path
    image : ndarray of uint8, shape (h, w) or (h, w, 3)

    Raises
    ------
    InputError
        If the ending is of no known format.
    OSError
        If the file cannot be written.
    """
    import cv2

    target = Path(path)
    try:
        done, data = cv2.imencode(target.suffix, image)
    except cv2.error:
        done = False
    if not done:
        raise InputError(f"{target}: expected a picture ending such as .png or .jpg, got {target.suffix!r}")
    write_bytes(target, data.tobytes())


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the pictures below a folder, sorted by path.

    Raises
    ------
    InputError
        If the folder does not exist.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder of pictures, got {'a file' if root.exists() else 'nothing there'}")
    return sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def draw_boxes(
    image: npt.NDArray[np.uint8], boxes: npt.NDArray[np.int32], color: tuple[int, int, int] = (0, 220, 0)
) -> npt.NDArray[np.uint8]:
    """Return a copy of a picture with boxes drawn on it.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
        BGR.
    boxes : ndarray of int32, shape (n, 4)
        x, y, width, height.
    color : (int, int, int)
        Blue, green, red.
    """
    import cv2

    out = np.ascontiguousarray(image).copy()
    # Lines of about 1/250 of the picture stay visible when it is shown smaller; a dark rim sets them off.
    thickness = max(2, round(max(out.shape[:2]) / 250))
    for x, y, w, h in np.asarray(boxes).tolist():
        for line, tone in ((thickness + 2, (0, 0, 0)), (thickness, color)):
            cv2.rectangle(out, (x, y), (x + w - 1, y + h - 1), tone, line)
    return out
