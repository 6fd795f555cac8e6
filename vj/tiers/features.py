"""Features of a query that a router chooses by: words and length of a text, statistics of an image's thumbnail."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._types import Floats
from vj.errors import InputError

KINDS = ("text", "image")
BUCKETS = 1 << 16
"""Number of buckets that words and their pairs and triples are hashed into: 10,000 questions fill about half."""
THUMBNAIL = 32
"""Side of the thumbnail, in pixels."""
_MAX_TEXT = 20_000
"""Characters of a text that are read: length counts in full, the words of a book need not."""
_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")


@dataclass(frozen=True, eq=False)
class Rows:
    """Features of n queries: sparse ones by row, and dense ones.

    Parameters
    ----------
    starts : ndarray of int64, shape (n + 1,)
        Where each row's sparse features begin in the next two.
    buckets : ndarray of int64
    values : ndarray of float64
    dense : ndarray of float64, shape (n, d)
    """

    starts: npt.NDArray[np.int64]
    buckets: npt.NDArray[np.int64]
    values: Floats
    dense: Floats

    def __len__(self) -> int:
        return len(self.dense)

    @cached_property
    def place(self) -> npt.NDArray[np.int64]:
        """Row of each sparse feature."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def take(self, index: npt.NDArray[np.int64]) -> Rows:
        """Return some of the rows."""
        size = np.diff(self.starts)[index]
        starts = np.concatenate([[0], np.cumsum(size)])
        where = np.arange(starts[-1]) + np.repeat(self.starts[index] - starts[:-1], size)
        return Rows(starts, self.buckets[where], self.values[where], self.dense[index])


def features(queries: Sequence[Any], kind: str) -> Rows:
    """Return the features of queries.

    Parameters
    ----------
    queries : sequence of str or of ndarray
        Texts; or images, uint8, shape (height, width) or (height, width, 3).
    kind : {"text", "image"}

    Raises
    ------
    InputError
        Another kind, or a query that is not of it.
    """
    if kind not in KINDS:
        raise InputError(f"expected features of kind {' or '.join(KINDS)}, got {kind!r}")
    if kind == "image":
        empty = np.zeros(0, dtype=np.int64)
        dense = np.array([image_statistics(query) for query in queries]).reshape(len(queries), -1)
        return Rows(np.zeros(len(queries) + 1, dtype=np.int64), empty, np.zeros(0), dense)
    starts, buckets, values, dense_rows = [0], [], [], []
    for query in queries:
        if not isinstance(query, str):
            raise InputError(f"expected queries as text, got a {type(query).__name__}")
        words = _WORD.findall(query[:_MAX_TEXT].lower())
        counts = _hashed(words)
        weights = 1.0 + np.log(np.array(list(counts.values()), dtype=np.float64))
        # Unit length: the number of words is a feature of its own.
        values.append(weights / max(1e-12, float(np.linalg.norm(weights))))
        buckets.append(np.array(list(counts), dtype=np.int64))
        starts.append(starts[-1] + len(counts))
        dense_rows.append(_lengths(query, words))
    return Rows(
        np.array(starts, dtype=np.int64),
        np.concatenate(buckets) if buckets else np.zeros(0, dtype=np.int64),
        np.concatenate(values) if values else np.zeros(0),
        np.array(dense_rows).reshape(len(queries), -1),
    )


def _hashed(words: list[str]) -> dict[int, int]:
    """Count words, pairs and triples by bucket; every number counts as the same word."""
    plain = ["#" if word.isdigit() else word for word in words]
    counts: dict[int, int] = {}
    for size in (1, 2, 3):
        for k in range(len(plain) - size + 1):
            bucket = zlib.crc32(" ".join(plain[k : k + size]).encode()) % BUCKETS
            counts[bucket] = counts.get(bucket, 0) + 1
    return counts


def _lengths(text: str, words: list[str]) -> list[float]:
    size = max(1, len(text))
    numbers = [word for word in words if word.isdigit()]
    counts = (
        len(text),
        len(words),
        len(set(words)),
        len(numbers),
        sum(map(len, numbers)),
        text.count("\n"),
        sum(word in ".!?" for word in words),
        sum(not word[0].isalnum() for word in words),
        len(text.split("\n", 1)[0]),
    )
    letters = sum(map(len, words)) / max(1, len(words))
    return [*np.log1p(counts).tolist(), letters, sum(map(str.isupper, text[:_MAX_TEXT])) / size]


def image_statistics(image: npt.NDArray[Any]) -> Floats:
    """Return what a thumbnail says about an image: brightness, contrast, sharpness, colour, size; shape (32,).

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width) or (height, width, 3)

    Raises
    ------
    InputError
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(
            f"expected images of uint8, (height, width) or (height, width, 3), got {image.dtype} {image.shape}"
        )
    height, width = image.shape[:2]
    if not height or not width:
        raise InputError(f"expected images of at least one pixel, got shape {image.shape}")
    small = _thumbnail(image) / 255.0
    grey = small.mean(axis=2) if small.ndim == 3 else small
    spread = small.max(axis=2) - small.min(axis=2) if small.ndim == 3 else np.zeros_like(grey)
    across, down = np.diff(grey, axis=1), np.diff(grey, axis=0)
    bend = grey[1:-1, 1:-1] * 4 - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    side = THUMBNAIL // 4
    grid = grey.reshape(4, side, 4, side).mean(axis=(1, 3))
    whole = [grey.mean(), grey.std(), *np.quantile(grey, (0.02, 0.25, 0.5, 0.75, 0.98))]
    edges = [np.log(1e-3 + np.abs(one).mean()) for one in (across, down, bend)]
    shape = [np.log(height * width), np.log(width / height)]
    middle = grid[1:3, 1:3].mean() - grid.mean()
    colour = [spread.mean(), spread.std()]
    # The place of light and dark, apart from how bright the whole is.
    return np.array([*whole, *edges, *shape, *colour, middle, *(grid - grid.mean()).ravel(), grid.std()])


def _thumbnail(image: npt.NDArray[Any]) -> Floats:
    """Mean over the pixels of each cell; cells of small images repeat pixels."""
    values = image.astype(np.float64)
    for axis in (0, 1):
        n = values.shape[axis]
        edges = np.arange(THUMBNAIL) * n // THUMBNAIL
        if n < THUMBNAIL:
            values = np.take(values, edges, axis=axis)
            continue
        size = np.diff(np.append(edges, n)).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
        values = np.add.reduceat(values, edges, axis=axis) / size
    return values
