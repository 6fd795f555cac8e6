"""What the readers of all annotation formats share: bounded text, numbers, names of images, and where errors are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vj._files import is_file, read_bounded
from vj._types import Floats
from vj.errors import InputError

MAX_BYTES = 1 << 30
"""Largest annotation file read; the largest public one known, COCO's training boxes, has 0.45 GB."""

_FOLDERS = (".", "images", "JPEGImages", "../images", "../JPEGImages", "../WIDER_val/images", "../WIDER_train/images")
"""Where images are, relative to the annotations, in the layouts that the public sets come in."""

_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".pgm", ".ppm", ".bmp", ".tif", ".tiff", ".webp")
_UPPER = tuple(suffix.upper() for suffix in _SUFFIXES)
"""Endings tried in this order where an image of the name given does not exist."""


def read_bytes(path: Path) -> bytes:
    """Read an annotation file: a regular one of at most `MAX_BYTES`; every fault is an `InputError`."""
    return read_bounded(path, MAX_BYTES)


def read_text(path: Path) -> str:
    """Read an annotation file as UTF-8, with or without a byte order mark."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected annotations as UTF-8 text, got other bytes") from None


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return number and text of each line that is neither blank nor a comment (``#``), without outer spaces."""
    lines = ((number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), 1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(read_text(path))
    # ValueError: besides what is no JSON, an integer of more digits than Python converts.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, got {' '.join(str(error).split())}") from None


def number(text: str | None) -> float | None:
    """Return the number that a text says, or None."""
    try:
        return float(text or "")
    except ValueError:
        return None


def count(text: str) -> int | None:
    """Return the whole number that a text of at most nine digits says, or None."""
    return int(text) if text.isdecimal() and len(text) <= 9 else None


def numbers(values: object, n: int, what: str) -> list[float]:
    """Return a list of exactly `n` finite numbers below 1e9, or raise an `InputError` that says what was expected."""
    if (
        isinstance(values, list)
        and len(values) == n
        and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in values)
    ):
        return [float(v) for v in values]
    raise InputError(f"expected {what} as {n} numbers, got {str(values)[:80]!r}")


def array(rows: Sequence[Sequence[float]], columns: int = 4) -> Floats:
    """Return rows of numbers as an array (n, columns), which they may be too few to shape by themselves."""
    return np.array(rows, dtype=np.float64).reshape(-1, columns)


def inside(folder: Path, name: str) -> Path:
    """Return `folder / name`, which must not lead out of `folder`.

    Raises
    ------
    InputError
        For an absolute name or one that climbs out.
    """
    parts = Path(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\0" in name:
        raise InputError(f"expected an image below {folder}, got {name[:80]!r}")
    return folder / parts


def root(folder: Path, images: Path | None, names: Sequence[str]) -> Path:
    """Return the folder that image names are relative to: the one given, or the first usual one that has an image."""
    if images is not None:
        return images
    for place in _FOLDERS:
        for name in names[:3]:
            if "\0" not in name and is_file(existing(folder / place / name)):
                return folder / place
    return folder


def existing(path: Path) -> Path:
    """Return the image of this name or, if there is none, that of this name with another ending.

    Lists outlive their images' formats: those of MIT+CMU name ``.gif`` files, which many keep as ``.png``; FDDB's
    leave the ending out.
    """
    if is_file(path):
        return path
    stem = path.with_suffix("") if path.suffix.lower() in _SUFFIXES else path
    if not stem.name:
        return path
    # Strings: a list may name a hundred thousand images that are not there, and a Path takes ten times as long.
    text = os.fspath(stem)
    for suffix in _SUFFIXES + _UPPER:
        if os.path.isfile(text + suffix):  # noqa: PTH113
            return Path(text + suffix)
    return path


@contextmanager
def located(path: Path, where: str) -> Iterator[None]:
    """Put file and place in front of an `InputError`'s message."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {where}: {error}") from None
