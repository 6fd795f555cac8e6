"""Jobs done on workers in batches; what they come to arrives in the order of the jobs, whatever happens to workers."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from distributed import CancelledError, Client, Future, KilledWorker
from distributed.client import ClosedClientError

from vj.errors import InputError

T = TypeVar("T")

SECONDS = 0.25
"""What a batch should take: long against the few milliseconds of a job's way, short against a stage."""

AHEAD = 3
"""Batches under way for each thread of the cluster."""

_MOST = 256
_TRIES = 6


class _Batch(NamedTuple):
    jobs: list[Any]
    future: Future


class Batches:
    """Calls a function on workers.

    Parameters
    ----------
    client : distributed.Client
    work : callable
        Called on a worker with `arguments` and a list of jobs; returns the list of what they come to and the seconds
        that took. It must give the same whenever and wherever it is called.
    *arguments
    """

    def __init__(self, client: Client, work: Callable[..., tuple[list[Any], float]], *arguments: Any) -> None:
        self._client, self._work, self._arguments = client, work, arguments
        self._seconds = 0.0

    def run(self, jobs: Iterator[T], needed: Callable[[], float]) -> Generator[tuple[T, Any], None, None]:
        """Yield each job with what it comes to, in order.

        Parameters
        ----------
        jobs : iterator
        needed : callable
            Returns how many more jobs will probably be asked for; only so many are begun.

        Raises
        ------
        InputError
            If the scheduler goes away, or workers die of one job again and again.
        """
        flying: deque[_Batch] = deque()
        try:
            threads = self._threads()
            while True:
                while len(flying) < AHEAD * threads:
                    open_ = needed() - sum(len(one.jobs) for one in flying)
                    if flying and open_ <= 0:
                        break
                    batch = list(itertools.islice(jobs, self._size(open_, threads)))
                    if not batch:
                        break
                    flying.append(_Batch(batch, self._submit(batch)))
                if not flying:
                    return
                jobs_done, results = self._results(flying.popleft())
                yield from zip(jobs_done, results, strict=True)
        finally:
            with suppress(Exception):
                self._client.cancel([one.future for one in flying], force=True)

    def _size(self, open_: float, threads: int) -> int:
        """Return how many jobs the next batch holds: by the time they take, and few where few are left."""
        by_time = SECONDS / self._seconds if self._seconds else 1.0
        shared = open_ / (2 * threads) if math.isfinite(open_) else _MOST
        return int(max(1, min(by_time, shared, _MOST)))

    def _threads(self) -> int:
        try:
            return max(1, int(sum(self._client.nthreads().values())))
        except Exception:
            raise gone() from None

    def _submit(self, batch: list[Any]) -> Future:
        try:
            return self._client.submit(self._work, *self._arguments, batch, pure=False)
        except ClosedClientError:
            raise gone() from None

    def _results(self, batch: _Batch) -> tuple[list[Any], list[Any]]:
        try:
            return batch.jobs, self._result(batch.future, batch.jobs)
        except KilledWorker:
            # One by one, so that a job of which workers die costs only itself.
            return batch.jobs, [self._alone(job) for job in batch.jobs]

    def _alone(self, job: Any) -> Any:
        for _ in range(_TRIES):
            with suppress(KilledWorker):
                return self._result(self._submit([job]), [job])[0]
        raise InputError(f"expected workers that live, got {_TRIES} times one that died of the same job: {job}")

    def _result(self, future: Future, jobs: Sequence[Any]) -> list[Any]:
        try:
            results, seconds = future.result()
        except CancelledError:
            raise gone() from None
        self._seconds = max(seconds / len(jobs), 1e-6)
        return list(results)


def give(client: Client, plugin: Any) -> None:
    """Give a plugin to all workers there are and will be.

    Raises
    ------
    InputError
        If the scheduler is gone, or workers die whenever they are given it.
    """
    for _ in range(_TRIES):
        try:
            client.register_plugin(plugin)
            return
        except ClosedClientError:
            raise gone() from None
        except (OSError, TimeoutError) as error:
            # A worker died while it was told.
            if client.status != "running":
                raise gone() from None
            last = error
            time.sleep(0.5)
    raise InputError(f"expected workers that can be set up, got {type(last).__name__}: {last}")


def gone() -> InputError:
    """Return the error that says that there is no scheduler any more."""
    return InputError("expected a scheduler to the end, got none any more; the same command goes on where it was")
