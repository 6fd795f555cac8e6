"""A model of runs on more machines than there are: measured parts, put together by a simulation of events.

Every worker searches one chunk at a time and has two more waiting. One process hands out chunks, takes their results
and writes them; each chunk takes a piece of its time. Images differ: a chunk's time is drawn around the mean with the
spread that was measured.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vj.cluster.detection import AHEAD

CHUNKS = (16, 64, 256, 1024, 4096)
WORKERS = (1, 2, 10, 100, 1000)
BILLION = 10**9
STORE_BYTES = 1.25e9
"""Bytes a second of an object store as one network link of 10 Gbit/s gives them; assumed, not measured."""


@dataclass(frozen=True)
class Parts:
    """What was measured: seconds and bytes.

    Parameters
    ----------
    read, detect, encode : float
        Seconds of a worker for each image.
    spread : float
        Standard deviation of the time of an image, as a share of its mean.
    schedule, write : float
        Seconds of the process that hands out chunks, for each chunk: its own and the scheduler's, and writing.
    image_bytes, row_bytes : float
        Bytes of an image's file and of its row.
    """

    read: float
    detect: float
    encode: float
    spread: float
    schedule: float
    write: float
    image_bytes: float
    row_bytes: float

    @property
    def image(self) -> float:
        """Seconds of a worker for an image."""
        return self.read + self.detect + self.encode

    @property
    def chunk(self) -> float:
        """Seconds that a chunk takes of the process that hands them out."""
        return self.schedule + self.write


def simulate(parts: Parts, workers: int, size: int, images: int, seed: int = 0) -> float:
    """Return the seconds that a run takes.

    Parameters
    ----------
    parts : Parts
    workers, size, images : int
        Workers of one thread each, images in a chunk, images in all.
    seed : int
    """
    rng = np.random.default_rng(seed)
    sizes = [size] * (images // size) + ([images % size] if images % size else [])
    draws = rng.normal(1.0, parts.spread / math.sqrt(size), len(sizes))
    work = [max(0.1, float(draw)) * parts.image * n for draw, n in zip(draws, sizes, strict=True)]
    free = [0.0] * workers
    heapq.heapify(free)
    # Chunks come back in another order than they went out; each makes room for one more.
    back: list[float] = []
    server, last = 0.0, 0.0
    for number, took in enumerate(work):
        if number >= AHEAD * workers:
            server = max(server, heapq.heappop(back)) + parts.chunk
        else:
            server += parts.schedule
        begun = max(heapq.heappop(free), server)
        heapq.heappush(free, begun + took)
        heapq.heappush(back, begun + took)
    while back:
        server = last = max(server, heapq.heappop(back)) + parts.write
    return last


def rate(parts: Parts, workers: int, size: int, each: int = 40) -> float:
    """Return the images a second of a long run, `each` chunks for every worker."""
    images = size * max(each * workers, 1000)
    return images / simulate(parts, workers, size, images)


def best_chunk(rates: dict[int, float]) -> int:
    """Return the smallest chunk with 97 % of the best rate: small chunks lose less to a death and at the end."""
    return next(size for size in sorted(rates) if rates[size] >= 0.97 * max(rates.values()))


def projection(parts: Parts, single: dict[str, float]) -> dict[str, Any]:
    """Return what the model says of clusters that were not measured.

    Parameters
    ----------
    parts : Parts
    single : dict of str to float
        Seconds of one thread that decodes an image and searches it, for each detector.
    """
    rows = []
    for workers in WORKERS:
        rates = {size: rate(parts, workers, size) for size in CHUNKS}
        size = best_chunk(rates)
        found = rates[size]
        rows.append(
            {
                "workers": workers,
                "chunk": size,
                "images_a_second": found,
                "share_of_linear": found * parts.image / workers,
                "by_chunk": {str(one): found for one, found in rates.items()},
                "store_bytes_a_second": found * parts.image_bytes,
                "row_bytes_a_second": found * parts.row_bytes,
            }
        )
    hours = {name: (seconds + parts.read + parts.encode) * BILLION / 3600 for name, seconds in single.items()}
    return {
        "parts": asdict(parts),
        "rows": rows,
        "core_hours_of_a_billion": hours,
        "workers_at_which_the_scheduler_is_full": {str(size): size * parts.image / parts.chunk for size in CHUNKS},
        "workers_at_which_the_store_is_full": STORE_BYTES / parts.image_bytes * parts.image,
        "store_bytes_assumed": STORE_BYTES,
    }
