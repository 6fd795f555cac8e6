"""The files of OpenCV's ``opencv_createsamples``: ``info.dat`` with boxes, and ``.vec`` with ready samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from vj.datasets.objects import Annotation
from vj.errors import InputError

_HEADER = 12


def read_info(path: Path) -> list[Annotation]:
    """Read ``path n x y w h [x y w h ...]``, one picture a line; names are relative to the file and may hold spaces.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of Annotation

    Raises
    ------
    InputError
        If the file cannot be read or a line is none of these.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a readable list of boxes, got {error}") from None
    found: list[Annotation] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        parsed = _parse(words)
        if parsed is None:
            raise InputError(f"{path}: expected 'file n x y w h ...' in line {number}, got {line.strip()[:60]!r}")
        name, values = parsed
        boxes = np.array(values, dtype=np.float64).reshape(-1, 4)
        found += [Annotation(path.parent / name, (x, y, w, h)) for x, y, w, h in boxes.tolist()]
    if not found:
        raise InputError(f"{path}: expected boxes, got none")
    return found


def _parse(words: list[str]) -> tuple[str, list[int]] | None:
    """Split a line into the name, which may hold spaces, and the numbers of its boxes."""
    for at in range(1, len(words)):
        rest = words[at + 1 :]
        if words[at].isdecimal() and len(rest) == 4 * int(words[at]):
            try:
                return " ".join(words[:at]), [int(word) for word in rest]
            except ValueError:
                continue
    return None


def read_vec(path: Path, window: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Read the samples of a ``.vec`` file.

    The file does not say how wide its samples are: they have the window's shape, or are square.

    Parameters
    ----------
    path : Path
    window : (int, int)
        Width and height.

    Returns
    -------
    ndarray of uint8, shape (n, height, width)
        As many as the file holds, whatever its header says: createsamples writes there how many were asked for.

    Raises
    ------
    InputError
        If the file cannot be read or holds other data.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected a readable .vec file, got {error.strerror or error}") from None
    size = int(np.frombuffer(data[4:8], dtype="<i4")[0]) if len(data) >= _HEADER else 0
    if not 1 <= size <= 1 << 20:
        raise InputError(f"{path}: expected a .vec file, got {len(data)} bytes with samples of {size} pixels")
    width, height = window if window[0] * window[1] == size else (round(size**0.5), round(size**0.5))
    if width * height != size:
        raise InputError(f"{path}: expected samples of {window[0]}x{window[1]} or square ones, got {size} pixels each")
    sample = np.dtype([("zero", "u1"), ("pixels", "<i2", (height, width))])
    count = (len(data) - _HEADER) // sample.itemsize
    if count < 1:
        raise InputError(f"{path}: expected samples, got {len(data)} bytes")
    pixels = np.frombuffer(data, dtype=sample, count=count, offset=_HEADER)["pixels"]
    return np.asarray(np.clip(pixels, 0, 255), dtype=np.uint8)
