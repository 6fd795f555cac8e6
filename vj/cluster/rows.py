"""Rows of a chunk: one for each image, found or failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from vj.cluster.sources import Chunk, Entry, entries
from vj.errors import InputError
from vj.rows import Search, row

Row = dict[str, Any]


def rows_of(
    search: Search,
    chunk: Chunk,
    times: dict[str, float] | None = None,
    *,
    skip: int = 0,
    before: Callable[[str], None] | None = None,
) -> Iterator[Row]:
    """Yield the row of each image of a chunk; a shard that ends too early has a row that says so.

    Parameters
    ----------
    search : Search
    chunk : Chunk
    times : dict, optional
        Seconds under ``read`` and ``detect``, which are added to.
    skip : int
        How many images to leave out at the beginning.
    before : callable, optional
        Called with the name of each image before it is read.

    Yields
    ------
    dict
        See `vj.rows.row` and `failure`.
    """
    times = {"read": 0.0, "detect": 0.0} if times is None else times
    images = entries(chunk)
    while True:
        start = time.perf_counter()
        try:
            entry = next(images, None)
        except InputError as error:
            yield failure(chunk.names[0], str(error))
            return
        if entry is None:
            return
        if skip:
            skip -= 1
            continue
        if before is not None:
            before(entry.name)
        yield _row(search, entry, times, start)


def warm_up(search: Search) -> None:
    """Search an image of noise, so that no kernel is loaded or compiled while an image is timed."""
    sides = np.max([one.window for one in search.detector.cascades], axis=0) + 24
    noise = np.random.default_rng(0).integers(0, 256, (sides[1], sides[0], 3), dtype=np.uint8)
    # What is wrong will be said of an image.
    with suppress(Exception):
        search.find(noise)


def _row(search: Search, entry: Entry, times: dict[str, float], start: float) -> Row:
    try:
        data = entry.read()
        now = time.perf_counter()
        times["read"] += now - start
        image = search.decode(data, entry.name)
        found = search.find(image)
        times["detect"] += time.perf_counter() - now
    except InputError as error:
        return failure(entry.name, str(error))
    except Exception as error:  # one image never ends a run
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return failure(entry.name, f"{entry.name}: expected an image that can be searched, got {text}")
    return row(entry.name, (image.shape[1], image.shape[0]), found)


def failure(name: str, text: str) -> Row:
    """Return the row of an image that could not be searched: its name and the error, on one line."""
    return {"image": name, "error": " ".join(text.split())}
