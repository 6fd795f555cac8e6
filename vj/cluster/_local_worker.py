"""Loaded by each worker of this machine when it starts."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that started the workers and ends them."""
    # Only the main thread may.
    with suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
