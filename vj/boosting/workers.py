"""Threads for compiled code that releases the global interpreter lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from vj._system import processors

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """A pool of threads; results do not depend on their number.

    Threads are started when there is work, also after `close`.

    Parameters
    ----------
    threads : int
        0: one for each core that this process may use.
    """

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or processors()
        self._running: ThreadPoolExecutor | None = None

    @property
    def _pool(self) -> ThreadPoolExecutor:
        if self._running is None:
            self._running = ThreadPoolExecutor(self.threads)
        return self._running

    def spread(self, work: Callable[[int, int], Any], n: int, block: int = 1024) -> None:
        """Call ``work(first, last)`` on ranges of at most `block` that together cover ``range(n)``."""
        for future in [self._pool.submit(work, a, min(a + block, n)) for a in range(0, n, block)]:
            future.result()

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
        """Yield ``work(item)`` in the order of `items`, computing only a few items ahead of the consumer."""
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(work, item))
                if len(waiting) > 2 * self.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """Stop the threads; work that has not started is dropped."""
        if self._running is not None:
            self._running.shutdown(wait=True, cancel_futures=True)
            self._running = None
