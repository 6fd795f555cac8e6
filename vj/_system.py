"""What the machine gives this process."""

import os
from collections.abc import Callable

on_compile: list[Callable[[], None]] = []
"""Called, each once, when a kernel is about to be compiled because no cache holds it."""


def processors() -> int:
    """Return the number of processors this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
