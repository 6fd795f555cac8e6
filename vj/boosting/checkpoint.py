"""Checkpoints: what a run needs to go on, after any interruption, as if there had been none.

Everything random in the trainer is drawn from a seed made of the recipe's seed and the place in the run, so that no
generator's state has to be kept. A checkpoint is one JSON file and one array of windows beside it; the JSON names the
array and is replaced in one step, so that a kill at any moment leaves the last complete checkpoint.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import secrets
import tomllib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._files import write_bytes, write_text
from vj.boosting.mining import Harvest
from vj.boosting.progress import StageReport
from vj.boosting.recipe import TrainingConfig
from vj.boosting.search import Split
from vj.boosting.stage import Stage
from vj.boosting.trees import WeakTree
from vj.errors import InputError

VERSION = 3

MINING, BOOSTING, FINISHED = "mining", "boosting", "finished"
"""What a run was doing."""


@dataclass
class State:
    """Where a run stands.

    Parameters
    ----------
    harvest : Harvest
        Negatives of the stage at hand, as many as have been found, and what mining has counted.
    phase : str
        `MINING`, `BOOSTING` or `FINISHED`.
    stages : list of Stage
        Finished stages.
    reports : list of StageReport
    trees : tuple of WeakTree
        Weak classifiers of the stage at hand.
    seconds : float
        Time spent on this stage so far.
    """

    harvest: Harvest
    phase: str = MINING
    stages: list[Stage] = field(default_factory=list)
    reports: list[StageReport] = field(default_factory=list)
    trees: tuple[WeakTree, ...] = ()
    seconds: float = 0.0


class Checkpoint:
    """The checkpoint of a run.

    Parameters
    ----------
    folder : path
        Made when first saved to; `clear` removes it.
    config : TrainingConfig
    data : dict of str to int
        Fingerprints of positives and backgrounds.
    """

    def __init__(self, folder: str | os.PathLike[str], config: TrainingConfig, data: dict[str, int]) -> None:
        self.folder, self.config, self.data = Path(folder), config, data
        self._file = self.folder / "state.json"

    def save(self, state: State) -> None:
        """Write the state in one step."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # A random name: process ids recur in containers, and the array that the state names must never be overwritten.
        name = f"negatives-{secrets.token_hex(8)}.npy"
        file = io.BytesIO()
        np.save(file, state.harvest.windows)
        data = file.getvalue()
        write_bytes(self.folder / name, data)
        table = {**self._table(state, name), "sha256": hashlib.sha256(data).hexdigest()}
        write_text(self._file, json.dumps(table))
        self._sweep(name)

    def load(self) -> State | None:
        """Return the state saved, or None if there is none.

        Raises
        ------
        InputError
            If it is of another recipe or of other data, or cannot be read.
        """
        try:
            table = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self._file}: expected a checkpoint, got {' '.join(str(error).split())}") from None
        try:
            if table["version"] != VERSION:
                raise InputError(f"{self._file}: expected a checkpoint of version {VERSION}, got {table['version']}")
            before = TrainingConfig.from_mapping(tomllib.loads(table["recipe"]))
            self._compare(before, table["data"])
            data = (self.folder / table["negatives"]).read_bytes()
            if hashlib.sha256(data).hexdigest() != table["sha256"]:
                raise InputError(f"{self.folder}: expected the checkpoint's own array of negatives, got another one")
            return _state(table, np.load(io.BytesIO(data), allow_pickle=False))
        except (KeyError, TypeError, ValueError, IndexError, EOFError, OSError) as error:
            if isinstance(error, InputError):
                raise
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(f"{self._file}: expected a checkpoint, got {text}") from None

    def _compare(self, before: TrainingConfig, data: dict[str, int]) -> None:
        found = self.config.differences(before)
        found += [f"{key}: other pictures" for key, value in self.data.items() if data.get(key) != value]
        if found:
            raise InputError(
                f"{self.folder}: expected the recipe and pictures of the run begun there, got {'; '.join(found)} "
                f"(finish that run, or train into another folder or with --restart)"
            )

    def _table(self, state: State, negatives: str) -> dict[str, Any]:
        return {
            "version": VERSION,
            "recipe": self.config.to_toml(),
            "data": self.data,
            "negatives": negatives,
            "phase": state.phase,
            "kept": len(state.harvest.kept),
            "stages": [
                {"threshold": float(stage.threshold), "trees": [_tree_table(tree) for tree in stage.trees]}
                for stage in state.stages
            ],
            "reports": [dataclasses.asdict(report) for report in state.reports],
            "trees": [_tree_table(tree) for tree in state.trees],
            "unreadable": list(state.harvest.unreadable.items()),
            "seconds": state.seconds,
            "mining": {name: getattr(state.harvest, name) for name in _COUNTS},
        }

    def _sweep(self, keep: str) -> None:
        """Remove the windows of earlier checkpoints."""
        for path in self.folder.glob("negatives-*.npy"):
            if path.name != keep:
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the checkpoint, and the folder if nothing else is in it."""
        self._file.unlink(missing_ok=True)
        self._sweep("")
        for folder in (self.folder, self.folder.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


_COUNTS = ("visits", "first_visit", "scanned", "hits", "seconds")


def fingerprint(parts: Sequence[npt.NDArray[Any] | str | os.PathLike[str]]) -> int:
    """Return a number that changes when arrays or paths do."""
    total = 0
    for part in parts:
        data = np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else os.fsencode(part)
        total = zlib.crc32(data, total)
    return total


def _state(table: dict[str, Any], windows: npt.NDArray[Any]) -> State:
    if windows.dtype != np.uint8 or windows.ndim != 3:
        raise ValueError(f"negatives of {windows.dtype}, shape {windows.shape}")
    if table["phase"] not in (MINING, BOOSTING, FINISHED):
        raise ValueError(f"phase {table['phase']!r}")
    stages = [
        Stage(tuple(_tree(tree) for tree in stage["trees"]), np.float32(stage["threshold"]))
        for stage in table["stages"]
    ]
    harvest = Harvest(
        windows[: table["kept"]],
        [windows[table["kept"] :]],
        unreadable={int(key): str(text) for key, text in table["unreadable"]},
        **{name: table["mining"][name] for name in _COUNTS},
    )
    return State(
        harvest,
        phase=table["phase"],
        stages=stages,
        reports=[StageReport(**report) for report in table["reports"]],
        trees=tuple(_tree(tree) for tree in table["trees"]),
        seconds=table["seconds"],
    )


def _tree_table(tree: WeakTree) -> dict[str, Any]:
    """Return a tree as plain values; Python writes every float so that it reads back as it was."""
    return {
        "splits": [[s.feature, float(s.threshold), s.subset.tolist(), s.loss] for s in tree.splits],
        "children": tree.children.tolist(),
        "leaves": [float(value) for value in tree.leaves],
    }


def _tree(table: dict[str, Any]) -> WeakTree:
    splits = tuple(
        Split(int(feature), np.float32(threshold), np.array(subset, dtype=np.int32), float(loss))
        for feature, threshold, subset, loss in table["splits"]
    )
    children = np.array(table["children"], dtype=np.int32).reshape(-1, 2)
    return WeakTree(splits, children, np.array(table["leaves"], dtype=np.float32))
