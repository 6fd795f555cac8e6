"""How much memory a run may take, and how much it took."""

from __future__ import annotations

import os
from pathlib import Path


def memory_budget(limit_mb: int = 0) -> int:
    """Return the bytes to stay within: `limit_mb` MiB or, if 0, half of what is free (2 GiB where nobody can tell)."""
    if limit_mb:
        return limit_mb << 20
    free = _free()
    return free // 2 if free else 2 << 30


# What a stage takes beside its bins once they are made: blocks that are not kept, pictures, plots at the end.
_RESERVE = 64 << 20
_LEAST = 16 << 20


def memory_for_bins(budget: int, held: int) -> int:
    """Return the bytes that bins may take of a budget for the whole process.

    Parameters
    ----------
    budget : int
        Bytes that the process should stay within.
    held : int
        Bytes that it holds for bins already.

    Returns
    -------
    int
        At most half of the budget, and no more than what the rest of the process leaves of it; but enough to go on with
        in any case: interpreter, compiler and samples alone take some 250 MB.
    """
    others = max(_resident() - held, 0)
    return max(min(budget // 2, budget - others - _RESERVE), _LEAST)


def _resident() -> int:
    """Bytes of memory that this process has now; 0 where the system does not tell."""
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
