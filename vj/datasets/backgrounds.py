"""Backgrounds: images without the object, read one at a time and only when they are wanted."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._files import as_url, is_file, read_bounded, store
from vj._types import Floats, Gray
from vj.datasets.packaged import BACKGROUNDS, packaged_backgrounds
from vj.errors import InputError
from vj.images import SUFFIXES, list_images, read_gray, to_gray

# A list of a million images takes 100 MB.
_MAX_BYTES = 1 << 30

_NO_BOXES: Floats = np.zeros((0, 4))

Item = str | os.PathLike[str] | npt.NDArray[np.uint8]


class Backgrounds(Sequence[Gray]):
    """Images by number, as 8-bit grey.

    Parameters
    ----------
    items : sequence of path or ndarray of uint8
        Files are read when asked for and not kept.
    boxes : mapping of int to ndarray of float64, shape (n, 4), optional
        Objects in the images, by the image's number, as x, y, width, height: no window that touches one is background.
    """

    def __init__(self, items: Sequence[Item], boxes: Mapping[int, Floats] | None = None) -> None:
        self.items = list(items)
        self._boxes = dict(boxes or {})

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        """Return the image; raises `InputError` if it cannot be read."""
        item = self.items[index]
        return to_gray(item) if isinstance(item, np.ndarray) else read_gray(item)

    def boxes(self, index: int) -> Floats:
        """Return the objects in an image; shape (n, 4)."""
        return self._boxes.get(index, _NO_BOXES)

    @classmethod
    def joined(cls, parts: Sequence[Backgrounds]) -> Backgrounds:
        """Return the images of several, one after the other."""
        items: list[Item] = []
        boxes: dict[int, Floats] = {}
        for part in parts:
            boxes |= {len(items) + index: found for index, found in part._boxes.items()}
            items += part.items
        return cls(items, boxes)

    def name(self, index: int) -> str:
        """Return what to call an image in a message."""
        item = self.items[index]
        return f"image {index}" if isinstance(item, np.ndarray) else os.fspath(item)


def find_backgrounds(places: Sequence[str]) -> Backgrounds:
    """Find backgrounds.

    Parameters
    ----------
    places : sequence of str
        Each a folder (searched recursively), an image with one of the usual endings, a pattern with ``*``, or a text
        file of any name that lists images, one a line, relative to the list's folder or else to the working directory;
        ``#`` begins a comment.

    Returns
    -------
    Backgrounds
        In the order given, each folder sorted by path.

    Raises
    ------
    InputError
        If a place does not exist or holds no images.
    """
    paths: list[str | npt.NDArray[np.uint8]] = []
    for place in places:
        found = _expand(place)
        if not found:
            raise InputError(f"{place}: expected images as backgrounds, got none")
        paths += found
    return Backgrounds(paths)


def _expand(place: str) -> Sequence[str | npt.NDArray[np.uint8]]:
    if place == BACKGROUNDS:
        return packaged_backgrounds()
    if (url := as_url(place)) is not None:
        return store(url).find(url)
    path = Path(place)
    if path.is_dir():
        return [str(p) for p in list_images(path)]
    if path.is_file():
        return [place] if path.suffix.lower() in SUFFIXES else _read_list(path)
    if glob.has_magic(place):
        return sorted(glob.glob(place, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    raise InputError(f"{place}: expected a folder, a list or a pattern of backgrounds, got nothing there")


def _read_list(path: Path) -> list[str]:
    data = read_bounded(path, _MAX_BYTES, "list of images")
    if b"\0" in data:
        raise InputError(f"{path}: expected a list of images as text, got other bytes")
    # Names are whatever bytes the file system has.
    names = [line.strip() for line in data.decode("utf-8", "surrogateescape").split("\n")]
    found = []
    for name in names:
        if name and not name.startswith("#"):
            sibling = path.parent / name
            found.append(str(sibling if is_file(sibling) or not is_file(Path(name)) else Path(name)))
    return found
