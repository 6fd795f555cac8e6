"""Checkpoints: what a run needs to resume after any interruption as if there had been none.

Everything random in the trainer is drawn from a seed made of the recipe's seed and the place in the run, so that no
generator's state has to be kept. A checkpoint is one JSON file and one array of windows next to it; the JSON names the
array and is replaced in one step, so that a kill at any moment leaves the last complete checkpoint.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import secrets
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vj._files import read_bounded, replacing, sweep, sync_folder, write_text
from vj.boosting.mining import MAX_PASSES, Harvest
from vj.boosting.progress import StageReport
from vj.boosting.recipe import TrainingConfig
from vj.boosting.restoring import (
    Limits,
    header,
    integer,
    items,
    number,
    read_reports,
    read_stages,
    read_trees,
    read_windows,
)
from vj.boosting.samples import Windows
from vj.boosting.stage import Stage
from vj.boosting.trees import WeakTree
from vj.errors import InputError

VERSION = 3

# A stage of 1,000 trees of depth 2 takes 0.5 MB.
_STATE_BYTES = 1 << 28

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


class _Other(Exception):
    """The checkpoint of another run."""


class Checkpoint:
    """The checkpoint of a run.

    Parameters
    ----------
    folder : path
        Made when first saved to; `clear` removes it.
    config : TrainingConfig
    data : dict of str to str
        Fingerprints of positives and backgrounds.
    features, backgrounds : int
        Numbers of features in the pool and of backgrounds.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: TrainingConfig,
        data: dict[str, str],
        *,
        features: int,
        backgrounds: int,
    ) -> None:
        self.folder, self.config, self.data = Path(folder), config, data
        self.limits = Limits(config, features, backgrounds)
        self._file = self.folder / "state.json"

    def save(self, state: State) -> None:
        """Write the state in one step."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # A random name: process ids recur in containers, and the array that the state names must never be overwritten.
        name = f"negatives-{secrets.token_hex(8)}.npy"
        # Header and windows one after the other: joined, they would be two copies more.
        windows = np.ascontiguousarray(state.harvest.windows)
        data = header(windows.shape), windows.data
        digest = hashlib.sha256()
        with replacing(self.folder / name) as temporary, temporary.open("wb") as file:
            for part in data:
                digest.update(part)
                file.write(part)
        sync_folder(self.folder)
        write_text(self._file, json.dumps({**self._table(state, name), "sha256": digest.hexdigest()}))
        # Before the old array goes, the new state must be there to stay.
        sync_folder(self.folder)
        self._sweep(name)

    def load(self) -> State | None:
        """Return the state saved, or None if there is none.

        Raises
        ------
        InputError
            If it is of another recipe or of other data, cannot be read, or is nothing that the trainer wrote.
        """
        if not os.path.lexists(self._file):
            return None
        try:
            table = json.loads(read_bounded(self._file, _STATE_BYTES, "checkpoint"))
            if table["version"] != VERSION:
                raise ValueError(f"version {str(table['version'])[:20]} (expected {VERSION})")
            self._compare(TrainingConfig.from_mapping(tomllib.loads(table["recipe"])), table["data"])
            if re.fullmatch(r"negatives-[0-9a-f]{16}\.npy", table["negatives"]) is None:
                raise ValueError(f"negatives in {table['negatives'][:60]!r}")
            data = read_bounded(self.folder / table["negatives"], self.limits.array_bytes, "array of negatives")
            if hashlib.sha256(data).hexdigest() != table["sha256"]:
                raise ValueError(f"another array of negatives than its own in {table['negatives']}")
            return _state(table, read_windows(data, self.config.window), self.limits)
        except _Other as error:
            raise InputError(f"{self.folder}: {error}") from None
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, MemoryError, InputError) as error:
            text = " ".join(str(error).split())[:300]
            kind = "" if type(error) in (ValueError, InputError) else f"{type(error).__name__}: "
            raise InputError(
                f"{self._file}: expected a checkpoint that can be resumed, got {kind}{text}; "
                f"start again with --restart, or remove {self.folder}"
            ) from None

    def _compare(self, before: TrainingConfig, data: dict[str, str]) -> None:
        # Other settings make other windows of the same images.
        found = self.config.differences(before) or [
            f"{key}: other images" for key, value in self.data.items() if data.get(key) != value
        ]
        if found:
            raise _Other(
                f"expected the recipe and images of the run begun there, got {'; '.join(found)} "
                f"(finish that run, or train into another folder or with --restart)"
            )

    def _table(self, state: State, negatives: str) -> dict[str, Any]:
        return {
            "version": VERSION,
            "recipe": self.config.to_toml(),
            "data": self.data,
            "negatives": negatives,
            "phase": state.phase,
            "kept": state.harvest.kept,
            "stages": [
                {"threshold": float(stage.threshold), "trees": [_tree_table(tree) for tree in stage.added]}
                for stage in state.stages
            ],
            "reports": [dataclasses.asdict(report) for report in state.reports],
            "trees": [_tree_table(tree) for tree in state.trees],
            "unreadable": list(state.harvest.unreadable.items()),
            "mining_seconds": state.harvest.seconds,
            "seconds": state.seconds,
            **{name: getattr(state.harvest, name) for name in _COUNTS},
        }

    def _sweep(self, keep: str) -> None:
        """Remove the windows of earlier checkpoints, and what a killed run was writing."""
        sweep(self.folder)
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


_COUNTS = ("visits", "first_visit", "scanned", "hits")


def _state(table: dict[str, Any], negatives: Windows, limits: Limits) -> State:
    if table["phase"] not in (MINING, BOOSTING, FINISHED):
        raise ValueError(f"phase {str(table['phase'])[:60]!r}")
    stages = read_stages(table["stages"], limits)
    unreadable = items(table["unreadable"], limits.backgrounds, "unreadable backgrounds")
    harvest = Harvest(
        negatives,
        kept=integer(table["kept"], 0, len(negatives), "kept negatives"),
        visits=integer(table["visits"], 0, 2**62, "visits"),
        first_visit=integer(table["first_visit"], 0, table["visits"], "first visit"),
        scanned=integer(table["scanned"], 0, 2**62, "windows scanned"),
        hits=integer(table["hits"], 0, table["scanned"], "hits"),
        seconds=number(table["mining_seconds"], "seconds of mining", 0.0),
        unreadable={integer(k, 0, limits.backgrounds - 1, "background"): str(text) for k, text in unreadable},
    )
    state = State(
        harvest,
        phase=table["phase"],
        stages=stages,
        reports=read_reports(table["reports"], stages),
        trees=read_trees(table["trees"], limits, len(stages)),
        seconds=number(table["seconds"], "seconds", 0.0),
    )
    _check_counts(state, limits)
    return state


def _check_counts(state: State, limits: Limits) -> None:
    """Refuse a number of negatives that no run can have had at that point."""
    harvest = state.harvest
    wanted, kept, n = limits.config.negatives_per_stage, harvest.kept, harvest.kept + harvest.found
    last = state.reports[-1] if state.reports else None
    passed = round(last.false_alarm_rate * last.negatives) if last else 0
    # Pruning and loosening change the last stage, its report and what it lets through.
    changed = state.phase == FINISHED and (limits.config.pruning > 0 or bool(np.any(limits.config.loosening)))
    if n > wanted or (kept != passed and not changed) or harvest.found > harvest.hits:
        raise ValueError(
            f"{n} negatives, {kept} of them kept, {passed} of which passed the last stage, "
            f"{harvest.hits} hits since, {wanted} wanted"
        )
    # Boosting begins with as many as were asked for, or when every pass over the backgrounds has been made.
    used_up = harvest.visits - harvest.first_visit == MAX_PASSES * limits.backgrounds
    if state.phase == BOOSTING and n < wanted and not used_up:
        raise ValueError(f"{n} of {wanted} negatives, with backgrounds left")


def _tree_table(tree: WeakTree) -> dict[str, Any]:
    """Return a tree as plain values; Python writes every float so that it reads back as it was."""
    return {
        "splits": [[s.feature, float(s.threshold), s.subset.tolist(), s.loss] for s in tree.splits],
        "children": tree.children.tolist(),
        "leaves": [float(value) for value in tree.leaves],
    }
