"""Kills at injected points: a run that is killed between any two operations on files resumes to the same bytes.

Each run trains in a forked process whose process id reads the same every time, as it does in containers. Its `n`-th
operation on the file system (a file made, written to the disk, renamed, removed) is not done; the process is killed in
its place, or half of the data is written first.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import vj.boosting.run
from benchmarks import _attack_runs
from vj.cascade.opencv_xml import to_xml

PID = 7
"""What every run takes for its process id."""

CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"pruning": 0.2, "stages": 3},
    {"features": "lbp"},
    {"max_depth": 2, "boosting": "real"},
)
"""Recipes that are killed in turn."""


def result(folder: Path, changes: dict[str, Any], kill_at: int = 0, spoil: bool = False) -> tuple[bytes | None, int]:
    """Train in a process of its own.

    Parameters
    ----------
    folder : Path
        The checkpoint's.
    changes : dict
        Of the recipe `_attack_runs.TINY`.
    kill_at : int
        Operation at which it is killed; 0 for none.
    spoil : bool
        Write half of what that operation would write before.

    Returns
    -------
    bytes or None
        The cascade and what the reports count, or None if the process was killed.
    int
        Operations on files it made, if it was not killed.
    """
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(out)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            counted = _inject(kill_at, spoil)
            data = _train(folder, changes)
            with os.fdopen(into, "wb") as file:
                file.write(counted().to_bytes(4, "big") + data)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(3)
    os.close(into)
    with os.fdopen(out, "rb") as file:
        data = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGKILL:
        return None, 0
    if status:
        raise RuntimeError(f"expected a run that ends or is killed, got exit code {status}")
    return data[4:], int.from_bytes(data[:4], "big")


def _train(folder: Path, changes: dict[str, Any]) -> bytes:
    vj.boosting.run.CHECKPOINT_SECONDS = 0.0
    run = _attack_runs.training(folder, **changes)
    list(run)
    reports = [{k: v for k, v in vars(r).items() if not k.endswith("seconds")} for r in run.reports]
    return b"\n".join([to_xml(run.cascade).encode(), repr(reports).encode(), run.negatives.tobytes()])


def _inject(kill_at: int, spoil: bool) -> Callable[[], int]:
    """Put a counter in front of the operations on files; return what reads it."""
    os.getpid = lambda: PID
    count = 0

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == kill_at:
                if spoil and name == "fsync":
                    # What was written has not reached the disk.
                    os.truncate(given[0], os.fstat(given[0]).st_size // 2)
                elif spoil:
                    real(*given, **more)
                os.kill(_REAL_PID(), signal.SIGKILL)
            return real(*given, **more)

        return call

    for name in ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir"):
        setattr(os, name, wrapped(name, getattr(os, name)))
    opened = os.open

    def opening(path: Any, flags: int, *given: Any, **more: Any) -> int:
        if flags & os.O_CREAT:
            return int(wrapped("open", opened)(path, flags, *given, **more))
        return opened(path, flags, *given, **more)

    os.open = opening
    return lambda: count


_REAL_PID = os.getpid


def kills(count: int, seed: int, note: Callable[[str], None]) -> dict[str, int]:
    """Kill runs at points drawn at random, every fifth of them twice, and resume them; return how that went.

    It happens in a new process: one with threads, as OpenCV starts them, must not be forked.
    """
    command = [sys.executable, "-m", "benchmarks._kills", str(count), str(seed)]
    root = str(Path(__file__).resolve().parent.parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"expected a table of kills, got exit code {done.returncode}: {done.stderr[-2000:]}")
    for line in done.stderr.splitlines():
        note(line)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def main(count: int, seed: int) -> dict[str, int]:
    """Do what `kills` does, in this process."""
    rng = np.random.default_rng([seed, 5])
    whole: list[tuple[bytes, int]] = []
    with tempfile.TemporaryDirectory() as place:
        for k, changes in enumerate(CHANGES[:count]):
            data, operations = result(Path(place) / f"whole{k}", changes)
            assert data is not None
            whole.append((data, operations))
        found = {"kills": 0, "resumed to the same bytes": 0, "points": sum(n for _, n in whole)}
        attempts = 0
        while found["kills"] < count:
            k = found["kills"] % len(whole)
            changes, (expected, operations) = CHANGES[k], whole[k]
            attempts += 1
            folder, points, killed = Path(place) / f"run{attempts}", [], False
            for _ in range(1 + (found["kills"] % 5 == 4)):
                points.append((int(rng.integers(1, operations + 1)), bool(rng.random() < 0.5)))
                # A run may end before the point: how often it saves depends on the time it takes.
                killed |= result(folder, changes, *points[-1])[0] is None
            if not killed:
                continue
            found["kills"] += 1
            data, _ = result(folder, changes)
            if data == expected:
                found["resumed to the same bytes"] += 1
            else:
                print(f"kill at {points} of {changes}: another result", file=sys.stderr)
    return found


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
