"""The files of OpenCV's ``opencv_createsamples``: ``info.dat`` with boxes, and ``.vec`` with ready samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vj._files import read_bounded
from vj.datasets.labelled import LabelledImage
from vj.datasets.reading import array, count, existing, located, number, numbers, read_lines, root
from vj.errors import InputError

MAX_VEC_BYTES = 8 << 30
"""Largest .vec file read: seven million samples of 24x24."""

_HEADER = 12


def read_info(source: Path, images: Path | None = None) -> list[LabelledImage]:
    """Read ``path n x y w h [x y w h ...]``, one image a line; names are relative to the file and may hold spaces.

    Raises
    ------
    InputError
        If the file cannot be read or a line is none of these.
    """
    rows: dict[str, list[list[float]]] = {}
    for line, text in read_lines(source):
        parsed = parse_info_line(text.split())
        if parsed is None or "\0" in parsed[0]:
            raise InputError(f"{source}: expected 'file n x y w h ...' in line {line}, got {text[:60]!r}")
        name, words = parsed
        with located(source, f"line {line}"):
            values = np.array(numbers([number(word) for word in words], len(words), "boxes"))
            boxes = values.reshape(-1, 4)
            rows.setdefault(name, []).extend(boxes.tolist())
            if (boxes[:, 2:] < 0).any():
                raise InputError(f"expected boxes with a size of 0 or more, got {text[-60:]!r}")
    folder = root(source.parent, images, list(rows))
    return [LabelledImage(existing(folder / name), array(boxes)) for name, boxes in rows.items()]


def parse_info_line(words: Sequence[str]) -> tuple[str, Sequence[str]] | None:
    """Split a line into the name, which may hold spaces, and the numbers of its boxes; None if it is no such line."""
    # From the back: what follows the count are numbers, so that no word is looked at twice, however long the line is.
    first = len(words)
    while first > 1 and number(words[first - 1]) is not None:
        first -= 1
    for at in range(first, len(words)):
        if count(words[at]) == (len(words) - at - 1) / 4:
            return " ".join(words[:at]), words[at + 1 :]
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
    data = read_bounded(path, MAX_VEC_BYTES)
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
