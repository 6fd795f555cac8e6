"""Detection on a cluster: chunks of images go out, parts of rows come back.

This process keeps only a few chunks for each worker on their way, so that neither it nor the scheduler grows with the
number of images. It alone writes: a part is there whole or not at all, and each chunk has one.

When a worker dies, the scheduler gives its chunk to another. A chunk at which workers died again is searched image by
image in a process apart, which says what it was at; see `vj.cluster._isolation`. If workers die of even that, each of
its images becomes a job of its own.
"""

from __future__ import annotations

import os
import queue
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from distributed import Client, Future, KilledWorker
from distributed.client import ClosedClientError

from vj._version import __version__
from vj.cluster.connection import check
from vj.cluster.encoding import KINDS, encode
from vj.cluster.ordered import give, gone
from vj.cluster.parts import Parts, digest
from vj.cluster.rows import Row, failure
from vj.cluster.sources import Chunk, chunks, is_shard, listed, refusal
from vj.cluster.tasks import Job, Result, Setup, run_chunk
from vj.detector import Detector
from vj.errors import InputError
from vj.rows import Search

LEAST_CHUNK, MOST_CHUNK = 16, 1024
"""Images in a chunk, where the number is left to us: few enough to share out, enough for a job to be worth its cost."""

_SHARES = 200
"""Chunks that a run is divided into before they grow beyond `LEAST_CHUNK`."""

AHEAD = 3
"""Chunks under way for each thread of the cluster: one at work, one waiting there, one on its way."""

_PROBES, _PROBED_SOURCES = 3, 20
_NO_WORKERS_SECONDS = 300.0
_TRIES_ALONE = 2
_MOST_REGATHERED = 100


@dataclass(frozen=True)
class Summary:
    """What a run came to.

    Parameters
    ----------
    images : int
        Rows written by this call.
    failed : int
        How many of them say that an image failed.
    set_aside : tuple of str
        Images at which workers died.
    chunks : int
        Parts of the whole run.
    before : int
        Parts that earlier calls had written.
    seconds : dict of str to float
        Time that workers spent reading, detecting and encoding, and this process writing.
    """

    images: int
    failed: int
    set_aside: tuple[str, ...]
    chunks: int
    before: int
    seconds: dict[str, float] = field(default_factory=dict)


class _Piece(NamedTuple):
    """What a job searches: a chunk, or a part of one, for the how manieth time and how carefully."""

    chunk: Chunk
    first: int = 0
    last: int | None = None
    careful: bool = False
    tries: int = 0


def detect(
    client: Client,
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    detector: Detector | Search,
    *,
    output: str | os.PathLike[str],
    parts: str = "jsonl",
    chunk: int | None = None,
    seconds: float = 120.0,
    progress: Callable[[int, int, int], None] | None = None,
) -> Summary:
    """Search the images of sources on a cluster; write their rows in parts.

    A call that was stopped goes on where it was when it is repeated, on whatever cluster. An image that fails has a row
    with ``image`` and ``error``; an image at which workers died is set aside after a few tries, with such a row.

    Parameters
    ----------
    client : distributed.Client
        See `vj.cluster.connect`.
    sources : path, str, or a sequence of them
        Images, folders, patterns, lists, tar shards, and URLs of these; see `vj.cluster.sources.find`.
    detector : Detector or Search
    output : path
        Folder for the parts and ``manifest.json``; made if missing.
    parts : str
        ``jsonl``, or ``parquet``, which needs pyarrow on the workers.
    chunk : int, optional
        Images in a part; by default 16 to 1,024, growing with their number. A tar shard is one part.
    seconds : float
        An image that takes longer has hung.
    progress : callable, optional
        Called after each part with the number of parts there are, of all parts, and of rows written by this call.

    Returns
    -------
    Summary

    Raises
    ------
    InputError
        If a source cannot be read here or on the workers, the output belongs to another run or cannot be written to,
        workers lack packages or have other versions, or the scheduler goes away.
    """
    search = detector if isinstance(detector, Search) else Search(detector)
    if parts not in KINDS:
        raise InputError(f"expected parts as {' or '.join(KINDS)}, got {parts!r}")
    if chunk is not None and chunk < 1:
        raise InputError(f"expected a chunk of 1 or more images, got {chunk}")
    groups = listed(sources)
    names = list(dict.fromkeys(name for group in groups for name in group))
    size = chunk or chunk_size(len(names))
    todo = list(chunks(names, size))
    run = {"sources": digest(names), "detector": _fingerprint(search), "chunk size": size, "version": __version__}
    place = Parts(output, run, parts, len(todo))
    packages = ("pyarrow",) if parts == "parquet" else ()
    # Before anything is written: what cannot work leaves nothing behind.
    if len(place.there()) < len(todo):
        check(client, packages=packages)
        _probe(client, groups, todo[0].base)
    with place.open() as done:
        waiting = [one for one in todo if one.number not in done]
        alone = replace(search, detector=search.detector.replace(threads=1))
        runner = Runner(client, Setup(secrets.token_hex(6), Job(alone, parts, seconds), packages))
        images = failed = 0
        aside: list[str] = []
        times: dict[str, float] = {"read": 0.0, "detect": 0.0, "encode": 0.0, "write": 0.0}
        before = len(done)
        for number, result in runner.results(waiting):
            start = time.perf_counter()
            place.write(number, result.data)
            times["write"] += time.perf_counter() - start
            images, failed = images + result.images, failed + result.failed
            aside += result.set_aside
            for name, took in result.seconds.items():
                times[name] += took
            done.add(number)
            if progress is not None:
                progress(len(done), len(todo), images)
        place.finish({} if before else {"images": images, "failed": failed, "set_aside": aside})
    return Summary(images, failed, tuple(aside), len(todo), before, times)


def chunk_size(images: int) -> int:
    """Return how many images a chunk holds, where it is left to us."""
    return int(np.clip(-(-images // _SHARES), LEAST_CHUNK, MOST_CHUNK))


def _fingerprint(search: Search) -> str:
    # The number of threads changes no row.
    return digest(replace(search, detector=search.detector.replace(threads=1)))


def _probe(client: Client, listed: list[list[str]], base: str) -> None:
    """Refuse sources that workers may not read, or that this process sees and they do not.

    Raises
    ------
    InputError
    """
    groups = [group[:_PROBES] for group in listed[:_PROBED_SOURCES]]
    every = list(dict.fromkeys(name for group in groups for name in group))
    here = {name: refusal(name, base) for name in every}
    answers = client.run(_refusals, every, base, on_error="return")
    for where, found in answers.items():
        if not isinstance(found, dict):
            raise InputError(f"{where}: expected a worker that can read images, got {type(found).__name__}: {found}")
        for group in groups:
            # One of them may be spoilt, which is for its row to say.
            if all(found[name].startswith("no permission") for name in group):
                raise InputError(f"{group[0]}: expected a source that workers may read, got {found[group[0]]}")
            unseen = [name for name in group if found[name] and not here[name]]
            if unseen and len(unseen) == len(group):
                raise InputError(
                    f"{unseen[0]}: expected a source that worker {where} can read as this process can, "
                    f"got {found[unseen[0]]}; shared storage or a URL serves both"
                )


def _refusals(names: list[str], base: str) -> dict[str, str]:
    return {name: refusal(name, base) for name in names}


class Found(NamedTuple):
    """The part of a chunk: its bytes, its counts, and the images set aside."""

    data: bytes
    images: int
    failed: int
    set_aside: list[str]
    seconds: dict[str, float]


class Runner:
    """Has chunks searched, whatever happens to workers.

    Parameters
    ----------
    client : distributed.Client
    setup : Setup
        Given to the workers while `results` runs.
    work : callable, optional
        Does a chunk's work in place of `run_chunk`, with the same arguments: for rehearsals without images.
    """

    def __init__(self, client: Client, setup: Setup, work: Callable[..., Result] = run_chunk) -> None:
        self._client, self._setup, self._work = client, setup, work
        self._waiting: deque[_Piece] = deque()
        self._flying: dict[str, tuple[Future, _Piece]] = {}
        self._ended: queue.Queue[str] = queue.Queue()
        self._parts: dict[int, dict[int, tuple[Row, ...]]] = {}
        self._threads, self._asked, self._idle_since = 0, 0.0, time.monotonic()
        self._count = self._regather = 0

    def results(self, todo: Sequence[Chunk]) -> Iterator[tuple[int, Found]]:
        """Yield the number and the part of each chunk, in the order in which they end.

        Raises
        ------
        InputError
            If the scheduler goes away, there are no workers for some minutes, or one cannot take part.
        """
        if not todo:
            return
        self._waiting.extend(_Piece(one) for one in todo)
        with self._prepared():
            while self._waiting or self._flying:
                self._submit()
                for piece, result in self._collect():
                    found = self._taken(piece, result)
                    if found is not None:
                        yield piece.chunk.number, found

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        give(self._client, self._setup)
        try:
            yield
        finally:
            if self._client.status == "running":
                self._client.cancel([future for future, _ in self._flying.values()], force=True)
                with suppress(Exception):
                    self._client.unregister_worker_plugin(self._setup.name)
            self._flying.clear()

    def _submit(self) -> None:
        """Keep `AHEAD` jobs under way for each thread of the cluster."""
        room = AHEAD * self._size() - len(self._flying)
        if room <= 0 or not self._waiting:
            return
        pieces = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        keys = []
        for piece in pieces:
            self._count += 1
            keys.append(f"{self._setup.name}-{piece.chunk.number}-{self._count}")
        columns = zip(*((self._setup.key, *piece[:4]) for piece in pieces), strict=True)
        try:
            futures = self._client.map(self._work, *columns, key=keys, pure=False)
        except ClosedClientError:
            raise gone() from None
        for key, future, piece in zip(keys, futures, pieces, strict=True):
            self._flying[key] = future, piece
            self._listen(future)

    def _size(self) -> int:
        """Return the threads of the cluster, asked for now and then."""
        now = time.monotonic()
        if now - self._asked > 5.0 or not self._threads:
            if self._client.status != "running":
                raise gone()
            try:
                self._threads = sum(self._client.nthreads().values())
            except Exception:
                raise gone() from None
            self._asked = now
            self._idle_since = now if self._threads else self._idle_since
            if now - self._idle_since > _NO_WORKERS_SECONDS:
                raise InputError(
                    f"expected a cluster with workers, got none for {_NO_WORKERS_SECONDS:g} s; "
                    f"the same command goes on where it was"
                )
        return self._threads

    def _collect(self) -> Iterator[tuple[_Piece, Result]]:
        """Yield the jobs that have ended well; put those that have not back, taken apart."""
        keys = self._next_keys()
        ended = [(key, *self._flying[key]) for key in keys if key in self._flying]
        good = [(key, future, piece) for key, future, piece in ended if future.status == "finished"]
        # Several at a time: each gathering is a round trip to the scheduler.
        try:
            results = self._client.gather([future for _, future, _ in good], errors="raise") if good else []
        except Exception as error:
            # A worker died with a result and did so again when its chunk was repeated: each on its own.
            self._regather += 1
            if self._regather > _MOST_REGATHERED:
                raise InputError(f"expected results from workers, got {type(error).__name__}: {error}") from None
            results, good = [], []
        for (key, future, piece), result in zip(good, results, strict=True):
            del self._flying[key]
            future.release()
            yield piece, result
        for key, future, piece in ended:
            if key not in self._flying:
                continue
            if future.status in ("pending", "lost", "finished"):
                # Its worker died with the result before that was fetched; the scheduler has it, or has had it, done
                # again: we are told at once if it has.
                self._listen(future)
                continue
            del self._flying[key]
            yield from self._failed(piece, future)

    def _listen(self, future: Future) -> None:
        future.add_done_callback(lambda one: self._ended.put(one.key))

    def _next_keys(self) -> list[str]:
        keys = []
        with suppress(queue.Empty):
            keys.append(self._ended.get(timeout=1.0))
            while True:
                keys.append(self._ended.get_nowait())
        if self._client.status != "running":
            raise gone()
        # Nothing for a second: whatever has ended without our being told.
        return keys or [key for key, (one, _) in self._flying.items() if one.status not in ("pending", "lost")]

    def _failed(self, piece: _Piece, future: Future) -> Iterator[tuple[_Piece, Result]]:
        """Try a job that did not end well in another way; yields the row of an image that has had its tries."""
        if future.status != "error":
            raise gone()
        error: Any = future.exception()
        if isinstance(error, InputError):
            raise error
        if not isinstance(error, KilledWorker):
            text = " ".join(str(error).split())[:200]
            raise InputError(f"expected workers that can search images, got {type(error).__name__}: {text}")
        alone = piece.last is not None
        if not piece.careful and not alone:
            self._waiting.append(piece._replace(careful=True))
        elif not alone and not piece.chunk.is_shard:
            self._waiting.extend(_Piece(piece.chunk, k, k + 1) for k in range(len(piece.chunk.names)))
        elif piece.tries + 1 < _TRIES_ALONE:
            self._waiting.append(piece._replace(tries=piece.tries + 1))
        else:
            name = piece.chunk.names[piece.first]
            what = "shard" if is_shard(name) else "image"
            text = f"{name}: set aside: expected an {what} that can be searched, got one at which workers died"
            row = failure(name, text) | {"set_aside": True}
            yield piece, Result(b"", (row,), 1, 1)

    def _taken(self, piece: _Piece, result: Result) -> Found | None:
        """Return a chunk's part once all of it is there."""
        if result.data or not result.rows:
            return Found(result.data, result.images, result.failed, list(result.set_aside), result.seconds)
        number = piece.chunk.number
        parts = self._parts.setdefault(number, {})
        parts[piece.first] = result.rows
        if not piece.chunk.is_shard and len(parts) < len(piece.chunk.names):
            return None
        rows = [row for k in sorted(parts) for row in parts[k]]
        del self._parts[number]
        aside, failed = [one["image"] for one in rows if "set_aside" in one], sum("error" in one for one in rows)
        return Found(encode(rows, self._setup.kind), len(rows), failed, aside, result.seconds)
