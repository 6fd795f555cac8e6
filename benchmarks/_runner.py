"""What every benchmark shares: where it ran and on what, written next to the figures.

A benchmark builds a plain dict of figures and hands it to `write_result`; the file itself then says which versions,
processor, data and date the figures belong to.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from vj._files import write_text

RESULTS = Path(__file__).resolve().parent / "results"
_PACKAGES = ("vj", "numpy", "numba", "opencv-python", "scikit-image")


def processor() -> str:
    """Name of the processor as the system reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name == "vj":
                from vj import __version__

                found[name] = __version__
    return found


def commit() -> str:
    """Commit of the clone, marked `+changes` where the tracked files differ from it; empty outside a clone."""
    try:
        root = Path(__file__).resolve().parent.parent
        command = ["git", "-C", str(root), "describe", "--always", "--dirty=+changes", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def data_hash(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and bytes of files, in order of name: the same data, wherever it lies."""
    total = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        total.update(path.name.encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def array_hash(arrays: Iterable[Any]) -> str:
    """SHA-256 over the shape and bytes of arrays, in order: for images that come with a package."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.shape} {array.dtype}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def environment() -> dict[str, Any]:
    """Where and when: to be stored with every figure."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
        "commit": commit(),
    }


def write_result(name: str, figures: dict[str, Any], *, data: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write `<folder>/<name>.json` whole: the environment, what `data` was measured on, and the figures.

    Parameters
    ----------
    name : str
        File name without suffix.
    figures : dict
        The measurement; anything `json` can hold.
    data : dict
        What it was measured on: name, number of images, `data_hash`.
    folder : Path
        Where; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    text = json.dumps({"benchmark": name, "environment": environment(), "data": data, "figures": figures}, indent=1)
    write_text(path, text + "\n")
    return path


def read_result(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Read back what `write_result` wrote."""
    result: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return result


def run(name: str, benchmark: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a benchmark and return its exit code: 2, after one line on stderr, for bad input."""
    from vj.errors import InputError

    try:
        return benchmark(args)
    except InputError as error:
        print(f"benchmarks.{name}: {error}", file=sys.stderr)
        return 2


def available(names: Iterable[str]) -> list[str]:
    """Return those cascades of a default list that this machine has, and say which it has not."""
    from vj.cascade import stock
    from vj.errors import InputError

    found = []
    for name in names:
        try:
            stock.find(name.rpartition(":")[2])
            found.append(name)
        except InputError:
            print(f"left out, not on this machine: {name}")
    return found


def median_seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of `call` in seconds over `repeats` runs, after one run that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def alternating_seconds(calls: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Wall times of several calls made in turn, so that what disturbs the machine disturbs all; the first is left out.

    Returns
    -------
    list of list of float
        For each call its `repeats` times in seconds.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats + 1):
        for call, found in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return [found[1:] for found in times]


def table(header: list[str], rows: Iterable[Iterable[object]]) -> str:
    """Markdown table, first column to the left and the others to the right; floats as they come formatted."""
    lines = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(3, *(len(line[k]) for line in lines)) for k in range(len(header))]

    def render(line: list[str]) -> str:
        cells = [
            cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"

    rule = ["-" * w if k == 0 else "-" * (w - 1) + ":" for k, w in enumerate(widths)]
    return "\n".join([render(lines[0]), "| " + " | ".join(rule) + " |", *(render(line) for line in lines[1:])])
