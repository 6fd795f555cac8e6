"""How much memory a run may take."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vj.boosting.search import LEAST_BLOCK


def memory_budget(limit_mb: int = 0) -> int:
    """Return the bytes to stay within: `limit_mb` MiB or, if 0, half of what is free (2 GiB if unknown)."""
    if limit_mb:
        return limit_mb << 20
    free = _free()
    return free // 2 if free else 2 << 30


# What a stage takes once its bins are made: tables of the fast search, images, plots at the end.
_RESERVE = 64 << 20
_LEAST = 16 << 20
# Sums, weights and what is made of them, for each sample.
_EACH = 128


def memory_for_bins(budget: int, held: int, samples: int = 0) -> int:
    """Return the bytes that bins may take of a budget for the whole process.

    Parameters
    ----------
    budget : int
        Bytes that the process should stay within.
    held : int
        Bytes that it holds for bins already.
    samples : int
        Number of samples, whose sums and weights are still to be made.

    Returns
    -------
    int
        At most half of the budget, and no more than what the rest of the process leaves of it; but always enough to
        continue: interpreter, compiler and samples alone take some 250 MB.
    """
    others = max(_resident() - held, 0)
    return max(min(budget // 2, budget - others - _RESERVE - _EACH * samples), _LEAST)


# What a run takes besides data from when its feature pool is made: compiler, compiled code, tables of the fast search.
# Measured at 24x24: 130 MB (LBP) to 150 MB with kernels from the cache, 265 MB when they are compiled.
_PROGRAM = 270 << 20


@dataclass(frozen=True)
class SampleCounts:
    """Numbers of samples that decide how much memory a run takes.

    Parameters
    ----------
    negatives : int
        Of a stage.
    positives : int
        Of a stage, with those held out.
    """

    negatives: int
    positives: int


def least_memory(counts: SampleCounts, window: tuple[int, int], *, tilted: bool, threads: int) -> int:
    """Return the bytes that a run cannot do without, the process as it is now included.

    Parameters
    ----------
    counts : SampleCounts
    window : (int, int)
        Width and height.
    tilted : bool
        Whether samples have a tilted sum, too.
    threads : int
    """
    pixels = window[0] * window[1]
    entries = (window[0] + 1) * (window[1] + 1) * (2 if tilted else 1)
    n = counts.negatives + counts.positives
    # Positives are cut out of the pool's windows. Negatives are held three times while those found are joined, which is
    # less than their integral images take afterwards.
    return _resident() + _PROGRAM + n * (pixels + 4 * entries + _EACH) + max(_LEAST, threads * LEAST_BLOCK * n)


def _resident() -> int:
    """Bytes of memory that this process has now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


def _free() -> int:
    """Bytes that Linux says are available, and no more than the control group allows; 0 if unknown."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) << 10)
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii").strip()
        if limit != "max":
            found.append(max(int(limit) - int(used), 0))
    except (OSError, ValueError, IndexError):
        pass
    return min(found, default=0)
