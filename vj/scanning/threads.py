"""Threads that are kept from image to image, shared by all detectors of a process.

Starting two threads for every image cost 150 us and their first steps more. The caller always works too and never waits
for a thread that has not begun, so that any number of callers make progress, also where no thread can be started.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from vj._system import processors

T = TypeVar("T")

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def _forget() -> None:
    """Start again in a child process: the parent's threads are not there, and its lock may have been held."""
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _submit(work: Callable[[], T]) -> Future[T]:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(processors(), thread_name_prefix="vj")
        return _pool.submit(work)


def share(work: Callable[[], T], threads: int, stop: Callable[[], None]) -> list[T]:
    """Call `work` here and, at the same time, in other threads.

    Parameters
    ----------
    work : callable
        Takes what is left to do until nothing is.
    threads : int
        Most threads at work, the caller's included; beyond the number of processors there are no more.
    stop : callable
        Called if `work` raises here (as after Ctrl-C): makes it return soon in the others.

    Returns
    -------
    list
        What the calls returned; those that had not begun when the caller's ended are left out.
    """
    futures: list[Future[T]] = []
    # At the end of the process, and where the system grants no more threads, the caller works alone.
    with suppress(RuntimeError):
        futures += [_submit(work) for _ in range(min(threads, processors()) - 1)]
    try:
        results = [work()]
    except BaseException:
        stop()
        raise
    return results + [future.result() for future in futures if not future.cancel()]
