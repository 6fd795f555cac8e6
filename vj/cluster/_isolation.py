"""Images that may be what workers died of are searched in a process of their own, which may die or hang.

The process says which image it is at before it touches it. If it ends, hangs or takes too much memory there, another
one goes on; after a few tries the image is set aside, with a row that says so.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any, NamedTuple

import cloudpickle
import psutil

from vj.cluster.sources import Chunk

TRIES = 2
"""How often an image may end the process that searches it before it is set aside."""

# Starting Python and loading the kernels, or compiling them, on a busy machine.
_START_SECONDS = 300.0


class Limits(NamedTuple):
    """What an image may take: seconds, and bytes of memory (0: no limit)."""

    seconds: float
    memory: int


class _Child:
    """The process, and what it has said."""

    def __init__(self, search: Any, chunk: Chunk, skipped: int) -> None:
        # Not a fork: the threads of this process would not be there, but their locks would.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vj.cluster._child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.write(cloudpickle.dumps((sys.path, cloudpickle.dumps((search, chunk, skipped)))))
            self._process.stdin.close()

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(b"")

    def says(self, limits: Limits, first: bool) -> dict[str, Any] | str:
        """Return what the process says next, or how it came to an end."""
        until = time.monotonic() + limits.seconds + (_START_SECONDS if first else 0)
        while True:
            try:
                line = self._lines.get(timeout=0.05)
                return dict(json.loads(line)) if line else self._end()
            except queue.Empty:
                if time.monotonic() > until:
                    return f"took longer than {limits.seconds:g} s"
                if limits.memory and self._memory() > limits.memory:
                    return f"took more than {limits.memory >> 20} MB of memory"

    def _memory(self) -> int:
        with suppress(psutil.Error):
            return int(psutil.Process(self._process.pid).memory_info().rss)
        return 0

    def _end(self) -> str:
        code = self._process.wait()
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def isolated_rows(search: Any, chunk: Chunk, limits: Limits, tries: int = TRIES) -> Iterator[dict[str, Any]]:
    """Yield the rows of a chunk, searched in a process that may end at any of them.

    Parameters
    ----------
    search : Search
    chunk : Chunk
    limits : Limits
    tries : int
        How often an image may end the process before it is set aside.

    Yields
    ------
    dict
        As `vj.cluster.tasks.rows_of` yields them; that of an image that was set aside has an error that says so.
    """
    done, deaths = 0, 0
    while True:
        child = _Child(search, chunk, done)
        try:
            at, first = "", True
            while True:
                said = child.says(limits, first)
                first = False
                if isinstance(said, str):
                    break
                if "end" in said:
                    return
                if "ready" in said:
                    continue
                if "at" in said:
                    at = said["at"]
                    continue
                yield said
                at, done, deaths = "", done + 1, 0
        finally:
            child.close()
        deaths += 1
        if deaths >= tries:
            name = at or chunk.names[min(done, len(chunk.names) - 1)]
            text = f"{name}: set aside after {tries} tries: expected an image that can be searched, got one at which "
            yield {"image": name, "error": f"{text}the process {said}", "set_aside": True}
            if chunk.is_shard and not at:
                return
            done, deaths = done + 1, 0
