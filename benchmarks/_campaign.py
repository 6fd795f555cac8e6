"""Attempts in worker processes: a crash, a hang or a flood of memory is counted and survived.

Case `k` of a target follows from the campaign's seed, the target's name and `k` alone, so that any failure can be made
again, and a campaign that was stopped resumes where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import multiprocessing
import os
import resource
import shutil
import signal
import struct
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._cases import Case, Wrong
from benchmarks._targets import TARGETS
from vj._files import write_text
from vj.errors import InputError

HANG_SECONDS = 2.0
"""More processor time than this for one input is a fault."""
KILL_SECONDS = 10.0
"""A worker that has spent so much processor time on one input is ended."""
MEMORY_MB = 512
"""An input that takes more than this is a fault."""
CEILING_MB = 6000
"""Address space a worker may take beyond what it starts with, so that the machine survives."""
FORGET_MB = 100
MAX_MESSAGE = 5000
"""Characters of an error; it may hold the name of a file, which has at most 4096."""
BATCH = 50

REFUSED, LOADED, FOREIGN, WRONG, CRASHED = "refused", "loaded", "foreign", "wrong", "crashed"


@dataclass
class Tally:
    """Counts of one target; `seconds` is processor time and `peak_mb` memory of the worst input."""

    tried: int = 0
    refused: int = 0
    loaded: int = 0
    foreign: int = 0
    wrong: int = 0
    crashed: int = 0
    slow: int = 0
    heavy: int = 0
    seconds: float = 0.0
    peak_mb: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def faults(self) -> int:
        """Inputs that were not handled as they should be."""
        return self.foreign + self.wrong + self.crashed + self.slow + self.heavy


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    kind: str
    seconds: float
    peak_mb: float
    reason: str = ""

    @property
    def faults(self) -> list[str]:
        """What is wrong with it, in the words of `Tally`."""
        found = [self.kind] if self.kind in (FOREIGN, WRONG, CRASHED) else []
        return found + ["slow"] * (self.seconds > HANG_SECONDS) + ["heavy"] * (self.peak_mb > MEMORY_MB)


def make(target: str, seed: int, k: int) -> Case:
    """Return case `k` of a target."""
    return TARGETS[target].make(np.random.default_rng([seed, zlib.crc32(target.encode()), k]))


def attempt(target: str, case: Case, folder: Path) -> Outcome:
    """Write a case's files to a folder, and try it in this process."""
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    return watched(lambda: TARGETS[target].attempt(case, folder))


def watched(call: Callable[[], None]) -> Outcome:
    """Call what uses an input; return what came of it, with the processor time and the memory it took."""
    before, _ = _memory()
    start = time.process_time()
    kind, reason = LOADED, ""
    try:
        with warnings.catch_warnings():
            # A warning of numpy's is a number nobody checked.
            warnings.simplefilter("error", RuntimeWarning)
            call()
    except InputError as error:
        kind = REFUSED
        if "\n" in str(error) or len(str(error)) > MAX_MESSAGE:
            kind, reason = WRONG, f"message of {len(str(error))} characters"
    except Wrong as error:
        kind, reason = WRONG, str(error)
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}vj{os.sep}" in f.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        kind, reason = FOREIGN, f"{type(error).__name__} in {place}: {' '.join(str(error).split())[:150]}"
    seconds = time.process_time() - start
    return Outcome(kind, seconds, max(0.0, _memory()[1] - before), reason)


def _memory() -> tuple[float, float]:
    """Resident memory now and at most so far, in MB; zeros where the system does not say.

    The most is forgotten when it is far above what is used now, so that each large input is seen, at little cost.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        most, now = (int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmHWM", "VmRSS")))
        if most - now > FORGET_MB:
            Path("/proc/self/clear_refs").write_text("5")
    except (OSError, ValueError):
        return 0.0, 0.0
    return now, most


# --- the worker -------------------------------------------------------------------------------------------------------


def _work(target: str, seed: int, first: int, last: int, pipe: Any, place: mmap.mmap, scratch: Path) -> None:
    """Try cases in turn; `place` says which one and since when, `pipe` takes the outcomes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What C libraries print about corrupt images.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + CEILING_MB * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    done: list[tuple[int, Outcome]] = []
    parent = os.getppid()
    for k in range(first, last):
        if os.getppid() != parent:
            os._exit(0)
        folder = Path(tempfile.mkdtemp(dir=scratch))
        case = make(target, seed, k)
        place[:16] = struct.pack("<qd", k, time.process_time())
        outcome = attempt(target, case, folder)
        shutil.rmtree(folder, ignore_errors=True)
        done.append((k, outcome))
        if len(done) == BATCH or outcome.faults or k == last - 1:
            pipe.send(done)
            done = []
    pipe.close()
    os._exit(0)


def _cpu(pid: int) -> float:
    """Processor seconds of a process."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def outcomes(target: str, seed: int, first: int, last: int, scratch: Path) -> Iterator[tuple[int, Outcome]]:
    """Try the cases `first` to `last` in processes of their own, each replaced when it dies; yield in order."""
    context = multiprocessing.get_context("fork")
    while first < last:
        place = mmap.mmap(-1, 16)
        place[:16] = struct.pack("<qd", first, 0.0)
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(target, seed, first, last, theirs, place, scratch))
        worker.start()
        theirs.close()
        assert worker.pid is not None
        ended = ""
        try:
            while True:
                if ours.poll(0.2):
                    try:
                        batch = ours.recv()
                    except EOFError:
                        break
                    for k, outcome in batch:
                        yield k, outcome
                        first = k + 1
                    continue
                k, start = struct.unpack("<qd", place[:16])
                if start and _cpu(worker.pid) - start > KILL_SECONDS and k == struct.unpack("<q", place[:8])[0]:
                    ended = f"ended after {KILL_SECONDS:.0f} s"
                    worker.kill()
        finally:
            worker.join(30)
            if worker.is_alive():
                worker.kill()
                worker.join()
        if first < last:
            # The cases before the one that it died on went well, but were not sent yet: they are tried again.
            k, _ = struct.unpack("<qd", place[:16])
            if k > first:
                yield from _again(target, seed, first, k, scratch)
            if ended:
                yield k, Outcome(LOADED, KILL_SECONDS, 0.0, ended)
            else:
                yield k, Outcome(CRASHED, 0.0, 0.0, f"exit code {worker.exitcode}")
            first = k + 1


def _again(target: str, seed: int, first: int, last: int, scratch: Path) -> Iterator[tuple[int, Outcome]]:
    yield from outcomes(target, seed, first, last, scratch)


# --- the campaign -----------------------------------------------------------------------------------------------------


def run(target: str, seed: int, count: int, folder: Path, note: Callable[[str], None]) -> Tally:
    """Try `count` cases of a target, or those that an earlier call left; keep the tally and every failing input.

    Parameters
    ----------
    folder : Path
        Where the state and the failing inputs go.
    note : callable
        Called with each fault.
    """
    place = folder / "state" / f"{target.replace(' ', '-')}-{seed}.json"
    tally = Tally(**json.loads(place.read_text())) if place.is_file() else Tally()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as scratch:
        saved = tally.tried
        with contextlib.closing(outcomes(target, seed, tally.tried, count, Path(scratch))) as found:
            for k, outcome in found:
                add(tally, outcome)
                if outcome.faults:
                    note(f"{target} {k}: {', '.join(outcome.faults)}: {outcome.reason or f'{outcome.seconds:.1f} s'}")
                    keep(folder / "failing" / target.replace(" ", "-") / str(k), make(target, seed, k), outcome)
                if tally.tried - saved >= BATCH or outcome.faults:
                    write_text(place, json.dumps(asdict(tally)))
                    saved = tally.tried
        write_text(place, json.dumps(asdict(tally)))
    return tally


def _memory_folder() -> str | None:
    """Return a folder in memory, where there is one: a hundred thousand files need no disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def add(tally: Tally, outcome: Outcome) -> None:
    """Count an outcome."""
    tally.tried += 1
    setattr(tally, outcome.kind, getattr(tally, outcome.kind) + 1)
    for fault in outcome.faults:
        if fault in ("slow", "heavy"):
            setattr(tally, fault, getattr(tally, fault) + 1)
        key = f"{fault}: {outcome.reason.rpartition(':')[0] or outcome.reason}"
        tally.reasons[key] = tally.reasons.get(key, 0) + 1
    tally.seconds = max(tally.seconds, round(outcome.seconds, 2))
    tally.peak_mb = max(tally.peak_mb, round(outcome.peak_mb, 1))


def keep(folder: Path, case: Case, outcome: Outcome) -> None:
    """Keep the files of a case, its arguments and what became of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    text = json.dumps({"arguments": case.arguments, **asdict(outcome)}, indent=1)
    (folder / "outcome.json").write_text(text, encoding="utf-8", errors="surrogatepass")


def digest(case: Case) -> str:
    """Hash of a case, to say that two are the same."""
    total = hashlib.sha256("\0".join(case.arguments).encode("utf-8", "surrogatepass"))
    for name, data in sorted(case.files.items()):
        total.update(name.encode() + b"\0" + data)
    return total.hexdigest()
