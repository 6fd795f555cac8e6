"""A coverage-guided fuzzer on one reader, in a process of its own.

Atheris traces which lines of the package an input reaches and keeps the inputs that reach new ones; they stay in the
folder for the next campaign. Needs ``pip install atheris``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

READERS = ("xml", "yaml", "vec")
TRACED = ["vj.cascade", "vj.datasets", "vj._files"]


def run(reader: str, folder: Path, count: int, seed: int) -> tuple[dict[str, Any], int]:
    """Fuzz a reader until `count` inputs were tried; return the tally and the lines and branches reached.

    A process that dies counts as a crash, and the next one carries on.
    """
    place = folder / "fuzz" / reader
    (place / "corpus").mkdir(parents=True, exist_ok=True)
    for k, data in enumerate(_seeds(reader)):
        (place / "corpus" / f"seed{k}").write_bytes(data)
    # Kept: a process that finds all inputs tried reports none.
    kept = place / "coverage"
    coverage = int(kept.read_text()) if kept.is_file() else 0
    while True:
        command = [sys.executable, "-m", "benchmarks._fuzz", reader, str(place), str(count), str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        words = done.stderr.split()
        coverage = max([coverage, *(int(words[k + 1]) for k in range(len(words) - 1) if words[k] == "cov:")])
        kept.write_text(str(coverage))
        tally: dict[str, Any] = json.loads((place / "tally.json").read_text())
        if done.returncode == 0:
            return tally, coverage
        tally["tried"] += 1
        tally["crashed"] += 1
        reason = f"crashed: exit code {done.returncode}"
        tally["reasons"][reason] = tally["reasons"].get(reason, 0) + 1
        (place / "tally.json").write_text(json.dumps(tally))
        (place / f"crash-{tally['crashed']}.txt").write_text(done.stderr[-20000:])
        if tally["crashed"] >= 20:
            return tally, coverage


def available() -> bool:
    """Whether atheris is installed."""
    import importlib.util

    return importlib.util.find_spec("atheris") is not None


def _seeds(reader: str) -> list[bytes]:
    from benchmarks import _attack_cascades, _attack_labels
    from vj.cascade.opencv_xml import parse, to_xml

    if reader == "xml":
        found = [
            to_xml(_attack_cascades.first_stages(parse(data), 1)).encode() for data in _attack_cascades.cascades()[1]
        ]
        return found + [data for data in _attack_cascades.cascades()[0] if data[:1] in (b"{", b"%")]
    if reader == "yaml":
        anchors = b"names: &a [face, dog]\nother: *a\nnc: 2\n"
        return [_attack_labels.labels()["yaml"]["data.yaml"], b"names:\n  - face\n  - 'dog'\n", anchors]
    return [_attack_labels.labels()["vec"]["samples.vec"]]


def main(reader: str, folder: Path, count: int, seed: int) -> None:
    import atheris

    with atheris.instrument_imports(include=TRACED):
        from vj.cascade.opencv_xml import parse
        from vj.datasets.opencv_samples import read_vec
        from vj.datasets.yolo import read_class_names
    from benchmarks import _campaign

    memory = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    file = Path(memory) / ("data.yaml" if reader == "yaml" else "samples.vec")
    record = folder / "tally.json"
    tally = _campaign.Tally(**json.loads(record.read_text())) if record.is_file() else _campaign.Tally()

    def read(data: bytes) -> None:
        if reader == "xml":
            parse(data)
            return
        file.write_bytes(data)
        if reader == "yaml":
            read_class_names(Path(memory))
        else:
            read_vec(file, (8, 8))

    def one(data: bytes) -> None:
        if tally.tried >= count:
            record.write_text(json.dumps(asdict(tally)))
            file.unlink(missing_ok=True)
            Path(memory).rmdir()
            os._exit(0)
        outcome = _campaign.watched(lambda: read(data))
        _campaign.add(tally, outcome)
        if outcome.faults:
            key = f"{outcome.faults[0]}-{tally.tried}"
            (folder / key).write_bytes(data)
        if tally.tried % 1000 == 0 or outcome.faults:
            record.write_text(json.dumps(asdict(tally)))

    record.write_text(json.dumps(asdict(tally)))
    artifacts = f"-artifact_prefix={folder}/"
    # Seconds and megabytes as a last resort; what counts is measured for each input.
    limits = ["-timeout=60", "-rss_limit_mb=4096", "-max_len=30000", "-verbosity=1", "-print_final_stats=0"]
    atheris.Setup([sys.argv[0], str(folder / "corpus"), f"-seed={seed + tally.tried}", artifacts, *limits], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
