"""What runs on a worker: the images of a chunk are read and searched, and come back as rows.

What stays the same from chunk to chunk, the detector above all, reaches every worker once, also those that join later.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from vj.cluster._isolation import Limits, isolated_rows
from vj.cluster.connection import PACKAGES, disagreement, versions_here
from vj.cluster.encoding import encode
from vj.cluster.rows import Row, rows_of, warm_up
from vj.cluster.sources import Chunk
from vj.errors import InputError
from vj.rows import Search


@dataclass(frozen=True)
class Job:
    """What all chunks of a run share.

    Parameters
    ----------
    search : Search
        With a detector of one thread: a worker is given as many jobs as it has threads.
    kind : str
        Of the parts: see `vj.cluster.encoding.KINDS`.
    seconds : float
        An image that takes longer has hung.
    """

    search: Search
    kind: str
    seconds: float


@dataclass(frozen=True)
class Result:
    """What a chunk came to.

    Parameters
    ----------
    data : bytes
        The whole part, encoded; empty if `rows` are given.
    rows : tuple of dict
        The rows of a part of a chunk.
    images, failed : int
        Rows, and how many of them say that an image failed.
    set_aside : tuple of str
        Images at which processes died.
    seconds : dict
        Time spent reading, detecting and encoding.
    """

    data: bytes
    rows: tuple[Row, ...]
    images: int
    failed: int
    set_aside: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


_jobs: dict[str, Job | str] = {}
"""The runs that this process works for, by key, or what keeps it from doing so."""

_warm: set[str] = set()


class Setup(WorkerPlugin):  # type: ignore[misc]
    """Gives every worker of a cluster what a run's chunks share.

    Parameters
    ----------
    key : str
        Of the run.
    job : Job
    packages : sequence of str
        Whose versions must be those of the process that makes this.
    """

    idempotent = False

    def __init__(self, key: str, job: Job, packages: Sequence[str] = ()) -> None:
        self.name, self.key, self.kind = f"vj-{key}", key, job.kind
        self.payload = cloudpickle.dumps(job)
        self.versions = versions_here((*PACKAGES, *packages))

    def setup(self, worker: Any) -> None:
        """Unpack the job; a worker that joined with other versions says so in its first chunk."""
        text = disagreement(self.versions, versions_here([name for name in self.versions if name != "python"]))
        _jobs[self.key] = f"{worker.address}: {text}" if text else cloudpickle.loads(self.payload)

    def teardown(self, worker: Any) -> None:
        """Forget the job."""
        _jobs.pop(self.key, None)


def job_of(key: str) -> Job:
    """Return what the chunks of a run share.

    Raises
    ------
    InputError
        If this worker cannot take part in it.
    """
    job = _jobs.get(key)
    if isinstance(job, Job):
        return job
    raise InputError(job or "expected a worker that was set up for this run, got another one")


def run_chunk(key: str, chunk: Chunk, first: int, last: int | None, careful: bool) -> Result:
    """Search the images of a chunk.

    Parameters
    ----------
    key : str
        Of the run; see `Setup`.
    chunk : Chunk
    first, last : int, int or None
        Which of its images; if not all, rows come back instead of an encoded part.
    careful : bool
        Search in another process, which may die or hang: for images that may be what workers died of.
    """
    job = job_of(key)
    times = {"read": 0.0, "detect": 0.0, "encode": 0.0}
    part = chunk if last is None else Chunk(chunk.number, chunk.names[first:last], chunk.base)
    if careful:
        limits = Limits(job.seconds, _memory_limit())
        rows = list(isolated_rows(job.search, part, limits))
    else:
        if key not in _warm:
            warm_up(job.search)
            _warm.add(key)
        with _watched(job.seconds) as watch:
            rows = []
            for one in rows_of(job.search, part, times):
                rows.append(one)
                watch.started = time.monotonic()
    failed = sum("error" in one for one in rows)
    aside = tuple(one["image"] for one in rows if "set_aside" in one)
    if last is not None:
        return Result(b"", tuple(rows), len(rows), failed, aside, times)
    start = time.perf_counter()
    data = encode(rows, job.kind)
    times["encode"] = time.perf_counter() - start
    return Result(data, (), len(rows), failed, aside, times)


def _memory_limit() -> int:
    """Return the bytes that this worker may take, 0 if there is no limit."""
    with suppress(ValueError, AttributeError):
        return int(get_worker().memory_manager.memory_limit or 0)
    return 0


class _Watch:
    started = 0.0


@contextmanager
def _watched(seconds: float) -> Iterator[_Watch]:
    """End this worker if an image takes longer: its nanny starts another, and its chunk is taken apart elsewhere.

    A thread that hangs in compiled code cannot be stopped otherwise. A worker without a nanny is left alone.
    """
    watch, done = _Watch(), threading.Event()
    watch.started = time.monotonic()
    try:
        nanny = get_worker().nanny
    except (ValueError, AttributeError):
        nanny = None
    if nanny is None:
        yield watch
        return

    def look() -> None:
        while not done.wait(min(1.0, seconds / 4)):
            if time.monotonic() - watch.started > seconds:
                os.kill(os.getpid(), 9)

    threading.Thread(target=look, daemon=True).start()
    try:
        yield watch
    finally:
        done.set()
