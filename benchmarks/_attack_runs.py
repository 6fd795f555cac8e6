"""Spoilt checkpoints and command lines, and what is done with one."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data

from benchmarks import _mutants as mutants
from benchmarks._attack_cascades import cascades, images
from benchmarks._attack_labels import labels
from benchmarks._cases import Case, Wrong, pick
from vj.boosting import run as runs
from vj.boosting.checkpoint import Checkpoint
from vj.boosting.recipe import TrainingConfig
from vj.boosting.run import Training
from vj.errors import InputError

TINY = {
    "window": "8x8",
    "stages": 2,
    "positives_per_stage": 40,
    "negatives_per_stage": 50,
    "max_false_alarm_rate": 0.4,
    "max_weak_count": 3,
    "features": "basic",
    "threads": 1,
}
"""A recipe that trains in a fraction of a second."""


@cache
def samples() -> tuple[Any, list[Any]]:
    """Return faces of 8x8 and backgrounds for `TINY`."""
    faces = np.rint(skimage.data.lfw_subset()[:60] * 255).astype(np.uint8)
    small = np.stack([cv2.resize(face, (8, 8), interpolation=cv2.INTER_AREA) for face in faces])
    return small, [np.ascontiguousarray(skimage.data.gravel()[:60, :60]), skimage.data.coffee()[:80, :80, 0].copy()]


def training(folder: Path, progress: Callable[[Any], None] | None = None, **more: Any) -> Training:
    """Return a run of `TINY` with its output in a folder, but for the plots at the end, which take a second."""
    faces, backgrounds = samples()
    config = TrainingConfig.from_mapping({**TINY, **more, "output": str(folder)})
    run = Training(config, positives=faces, backgrounds=backgrounds, progress=progress)
    run._output.finish = lambda *given: None  # type: ignore[method-assign]
    return run


@cache
def checkpoints() -> tuple[dict[str, bytes], ...]:
    """Return what a run leaves in its checkpoint after each of its saves.

    The times in it differ from one campaign to the next, and some cases with them; failing ones are kept as they are.
    """
    found: list[dict[str, bytes]] = []
    save, seconds = Checkpoint.save, runs.CHECKPOINT_SECONDS

    def kept(self: Checkpoint, state: Any) -> None:
        save(self, state)
        (array,) = self.folder.glob("*.npy")
        state_file = (self.folder / "state.json").read_bytes()
        # The array's name is drawn at random.
        found.append(
            {
                "negatives-0123456789abcdef.npy": array.read_bytes(),
                "state.json": state_file.replace(array.name.encode(), b"negatives-0123456789abcdef.npy"),
            }
        )

    with tempfile.TemporaryDirectory() as place:
        Checkpoint.save = kept  # type: ignore[method-assign]
        runs.CHECKPOINT_SECONDS = 0.0
        try:
            list(training(Path(place)))
        finally:
            Checkpoint.save = save  # type: ignore[method-assign]
            runs.CHECKPOINT_SECONDS = seconds
    return tuple(found)


def make_checkpoint(rng: mutants.Rng) -> Case:
    files = dict(pick(rng, checkpoints()))
    array = next((name for name in files if name.endswith(".npy")), None)
    kind, state = rng.random(), files["state.json"]
    if kind < 0.1 and array:
        files[array] = mutants.spoil_bytes(rng, files[array])
    elif kind < 0.2 and array:
        # As a partner in crime would: the hash agrees.
        import hashlib

        data = mutants.spoil_bytes(rng, files[array][:128]) + files[array][128:]
        before = hashlib.sha256(files[array]).hexdigest().encode()
        files[array] = data
        files["state.json"] = state.replace(before, hashlib.sha256(data).hexdigest().encode())
    elif kind < 0.4:
        files["state.json"] = mutants.spoil_bytes(rng, state)
    elif kind < 0.6:
        files["state.json"] = mutants.spoil_numbers(rng, state)
    else:
        files["state.json"] = mutants.spoil_json(rng, state)
    return Case(files)


def try_checkpoint(case: Case, folder: Path) -> None:
    """Resume from it; four of five only up to the first step of training, which costs a tenth of a second."""
    whole = zlib.crc32(case.files["state.json"]) % 5 == 0

    def step(progress: Any) -> None:
        if not whole and progress.kind not in ("positives", "note", "backgrounds"):
            raise _EnoughError

    (folder / "checkpoint").mkdir()
    for name in case.files:
        (folder / name).rename(folder / "checkpoint" / name)
    with contextlib.suppress(_EnoughError):
        list(training(folder, step))


class _EnoughError(Exception):
    """Stops a run that was resumed."""


# --- command lines ----------------------------------------------------------------------------------------------------

ODD_WORDS = (
    *("", " ", "-", "--", "-1", "0", "1", "1.0", "1.1", "1.5", "2", "3", "nan", "inf", "-inf", "1e9", "1e400", "x"),
    *("24", "24x24", "0x0", "1x", "-5x5", "99999999999x1", "\0", "\udcff", "ä", "%s", "{}", "a" * 300, "../..", "."),
    *("a.png", "b.png", "none.png", "model.xml", "labels.json", "outcomes.csv", "policy.json", "out", "out/x.json"),
    *("/dev/null", "/dev/zero", "yunet:x.onnx", "a:b=c", "a=1", "fast=1", "slow=10", "=", "--help", "--version"),
)


@cache
def parsers() -> dict[str, tuple[Callable[..., int], tuple[str, ...], tuple[tuple[str, ...], ...]]]:
    """Return each command: its main, its options, and good command lines to start from."""
    from vj.cli import calibrate, detect, evaluate, inspect, tiers, train

    # Training needs a path that is there; without one nothing is trained, whatever the options are.
    lines: dict[Any, tuple[tuple[str, ...], ...]] = {
        detect: (
            ("a.png", "--cascade", "model.xml", "--annotate", "out"),
            ("a.png", "b.png", "--cascade", "model.xml"),
        ),
        calibrate: (("model.xml", "--dataset", "labels.json", "--output", "out.xml"),),
        evaluate: (("model.xml", "--dataset", "labels.json", "--json", "out/x.json"), ("--dataset", "labels.json")),
        inspect: (("model.xml", "a.png", "--json", "out/x.json"), ("model.xml",)),
        tiers: (
            ("fit", "outcomes.csv", "--costs", "fast=1", "slow=10", "--loss", "0.01", "--output", "policy.json"),
            ("replay", "outcomes.csv", "policy.json"),
        ),
        train: (("--positives", "none", "--backgrounds", "none", "--output", "out"), ("recipe.toml", "--data", "none")),
    }
    return {
        module.__name__.rpartition(".")[2]: (module.main, tuple(_options(module._parser())), good)
        for module, good in lines.items()
    }


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """Return all options of a parser and of its commands; a training that starts would take its time."""
    found = []
    for action in parser._actions:
        found += [name for name in action.option_strings if name.startswith("--") and name != "--demo"]
        if isinstance(action.choices, dict):
            for inner in action.choices.values():
                found += _options(inner)
    return found


@cache
def command_files() -> dict[str, bytes]:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 60)
    rows = ["truth,fast.label,fast.confidence,slow.label,slow.confidence"]
    for t in truth:
        fast, slow = (int(t if rng.random() < p else (t + 1) % 3) for p in (0.7, 0.9))
        rows.append(f"{t},{fast},{rng.uniform(0.4, 1):.3f},{slow},{rng.uniform(0.6, 1):.3f}")
    return {
        "a.png": images()[0][1],
        "b.png": b"no image",
        "model.xml": cascades()[0][0],
        "labels.json": labels()["coco"]["labels.json"],
        "outcomes.csv": "\n".join(rows).encode(),
        "recipe.toml": b'positives = [{ path = "none" }]\nbackgrounds = ["none"]\noutput = "out"\n',
    }


def make_command(rng: mutants.Rng) -> Case:
    name = pick(rng, list(parsers()))
    _, options, good = parsers()[name]
    words = list(pick(rng, good))
    for _ in range(int(rng.choice([1, 1, 2, 3, 5]))):
        at = int(rng.integers(len(words) + 1))
        match int(rng.integers(5)):
            case 0 if words:
                del words[min(at, len(words) - 1)]
            case 1 if words:
                words[min(at, len(words) - 1)] = pick(rng, ODD_WORDS)
            case 2:
                words.insert(at, pick(rng, ODD_WORDS))
            case 3:
                words += [pick(rng, options), pick(rng, ODD_WORDS)]
            case _:
                words.append(f"{pick(rng, options)}={pick(rng, ODD_WORDS)}")
    return Case(command_files(), (name, *words))


def try_command(case: Case, folder: Path) -> None:
    name, *words = case.arguments
    main = parsers()[name][0]
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status: Any = main(words)
            except SystemExit as left:
                status = left.code
    finally:
        os.chdir(before)
    said = err.getvalue()
    if status not in (0, 1, 2) or "Traceback" in said:
        raise Wrong(f"exit {status}: {said[-300:]}")
    if status and not re.search(rf"^vj-{name}( \w+)?: |\[ *\d", said, re.M):
        raise Wrong(f"exit {status} without a word: {said[-300:]!r}")
    if status == 2:
        raise InputError("exit 2")
