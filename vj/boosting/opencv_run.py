"""The folder of an ``opencv_traincascade`` run: ``params.xml`` and ``stageN.xml``, written, read and continued.

A stage's file refers to features by their number in the pool, which is enumerated here in OpenCV's order; so each
program can continue what the other began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._files import read_bounded, write_text
from vj.boosting.build import build_cascade, pool
from vj.boosting.feature_values import feature_table
from vj.boosting.progress import StageReport
from vj.boosting.recipe import TrainingConfig
from vj.boosting.run import Training
from vj.boosting.samples import Windows, prepare
from vj.boosting.search import Split
from vj.boosting.stage import Stage, same_stage, stage_limit
from vj.boosting.trees import WeakTree
from vj.cascade.file_storage import read_tree
from vj.cascade.haar import HaarFeatures, pool_keys, pool_step
from vj.cascade.lbp import SUBSET_WORDS, LbpFeatures
from vj.cascade.model import Cascade
from vj.cascade.new_xml import stage_lines
from vj.cascade.opencv_xml import read_stages
from vj.cascade.storage_node import MAX_BYTES, Node
from vj.errors import InputError

BOOSTINGS = {"DAB": "discrete", "RAB": "real", "LB": "gentle", "GAB": "gentle"}
"""OpenCV's names of the boosting algorithms, and ours. LogitBoost, LB, fits regression trees as gentle AdaBoost does.
It was no better: 0.85 +- 0.17 times gentle's held-out false alarms with stumps, 1.19 +- 0.20 with trees of depth 2."""

Numbers = npt.NDArray[np.int64]

_PARAMS = "params.xml"
_RATES = {
    "minHitRate": "min_hit_rate",
    "maxFalseAlarm": "max_false_alarm_rate",
    "weightTrimRate": "weight_trim_rate",
}
_COUNTS = {"maxDepth": "max_depth", "maxWeakCount": "max_weak_count"}


@lru_cache(maxsize=1)
def _pool(window: tuple[int, int], kind: str, step: int) -> tuple[HaarFeatures | LbpFeatures, Numbers | None]:
    """Return the features of a run and, if it has only some, their numbers in OpenCV's pool.

    Looked up after every stage.
    """
    features = pool(window, kind, step)
    if kind == "lbp" or (step or pool_step(window, kind)) == 1:  # type: ignore[arg-type]
        return features, None
    keys, every = (pool_keys(window, kind, s) for s in (step or pool_step(window, kind), 1))  # type: ignore[arg-type]
    return features, np.searchsorted(every, keys)


def _pool_of(config: TrainingConfig) -> tuple[HaarFeatures | LbpFeatures, Numbers | None]:
    return _pool(config.window, config.features, config.feature_step)


# --- reading -----------------------------------------------------------------------------------------------------


def read_params(folder: Path) -> dict[str, Any]:
    """Read the settings of a run.

    Returns
    -------
    dict
        Fields of `TrainingConfig`; empty if the folder has no ``params.xml``.

    Raises
    ------
    InputError
        If the file cannot be read, or is of features that no detector knows.
    """
    path = folder / _PARAMS
    if not path.exists():
        return {}
    node = _first(path)
    kind, mode = _text(node, "featureType", path), node.find("featureParams")
    if kind not in ("HAAR", "LBP"):
        raise InputError(f"{path}: expected featureType HAAR or LBP, got {kind[:40]!r}")
    name = "lbp" if kind == "LBP" else (_text(mode, "mode", path) if mode is not None else "BASIC").lower()
    stage = node.find("stageParams")
    if stage is None:
        raise InputError(f"{path}: expected <stageParams>, got none")
    boosting = _text(stage, "boostType", path)
    if boosting not in BOOSTINGS:
        raise InputError(f"{path}: expected boostType as one of {', '.join(BOOSTINGS)}, got {boosting[:40]!r}")
    return {
        "window": (int(_number(node, "width", path)), int(_number(node, "height", path))),
        "features": name,
        "boosting": BOOSTINGS[boosting],
        **{ours: _number(stage, theirs, path) for theirs, ours in _RATES.items()},
        **{ours: int(_number(stage, theirs, path)) for theirs, ours in _COUNTS.items()},
    }


def read_run(folder: Path, config: TrainingConfig) -> list[Stage]:
    """Read the stages of a run, ``stage0.xml`` and so on up to the first that is missing, at most ``config.stages``.

    Where OpenCV's trainer made them, for a window whose pool is thinned here, `config` needs `feature_step` 1.

    Raises
    ------
    InputError
        If a file is not a stage of these features.
    """
    nodes = []
    for path in (folder / f"stage{s}.xml" for s in range(config.stages)):
        if not path.exists():
            break
        nodes.append(_first(path))
    if not nodes:
        return []
    try:
        features, numbers = _pool_of(config)
        return _stages(read_stages(nodes, config.window, features, numbers))
    except InputError as error:
        raise InputError(f"{folder}: expected the stages of {config.features} features, got {error}") from None


def searching_all(folder: Path, config: TrainingConfig) -> TrainingConfig:
    """Return the configuration that can continue the stages in a folder.

    OpenCV's trainer chooses from every feature. Where the pool is thinned here, a run that it began needs all of them.
    """
    try:
        read_run(folder, config)
    except InputError:
        whole = replace(config, feature_step=1)
        if len(_pool_of(whole)[0]) > len(_pool_of(config)[0]):
            return whole
    return config


def _first(path: Path) -> Node:
    root = read_tree(read_bounded(path, MAX_BYTES, "file of OpenCV's trainer"), place=str(path))
    if not len(root):
        raise InputError(f"{path}: expected a file of OpenCV's trainer, got an empty one")
    return root[0]


def _text(node: Node, tag: str, path: Path) -> str:
    child = node.find(tag)
    if child is None:
        raise InputError(f"{path}: expected <{tag}>, got none")
    return child.text.strip().strip('"')


def _number(node: Node, tag: str, path: Path) -> float:
    text = _text(node, tag, path)
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not abs(value) < 1e6:
        raise InputError(f"{path}: expected a number in <{tag}>, got {text[:40]!r}")
    return value


def _stages(cascade: Cascade) -> list[Stage]:
    """Return a cascade's stages as the trainer holds them."""
    none = np.zeros((len(cascade.node_features), SUBSET_WORDS), dtype=np.int32)
    subsets = cascade.node_subsets if len(cascade.node_subsets) else none
    stages = []
    for s in range(cascade.n_stages):
        trees = []
        for t in range(int(cascade.stage_starts[s]), int(cascade.stage_starts[s + 1])):
            first, last = int(cascade.tree_starts[t]), int(cascade.tree_starts[t + 1])
            splits = tuple(
                Split(int(cascade.node_features[n]), cascade.node_thresholds[n], subsets[n], 0.0)
                for n in range(first, last)
            )
            trees.append(WeakTree(splits, cascade.node_children[first:last], cascade.leaves[first + t : last + t + 1]))
        stages.append(Stage(tuple(trees), cascade.stage_thresholds[s]))
    return stages


# --- continuing --------------------------------------------------------------------------------------------------


def continue_run(training: Training, stages: Sequence[Stage]) -> bool:
    """Let a run begin after the stages whose files are in its folder.

    Parameters
    ----------
    training : Training
        Not yet begun.
    stages : sequence of Stage
        As `read_run` returns them; may be empty.

    Returns
    -------
    bool
        Whether the run continues from the files, not from its own checkpoint.
    """
    return training._start_after(stages, _reports(training.config, stages, training.positives.windows))


def _reports(config: TrainingConfig, stages: Sequence[Stage], windows: Windows) -> list[StageReport]:
    """Report stages that another run trained: hit rates are of today's positives, false alarm rates those asked for."""
    features, _ = _pool_of(config)
    table = feature_table(features, config.window)
    samples = prepare(windows, tilted=isinstance(features, HaarFeatures) and bool(features.tilted.any()))
    reports = []
    for index, stage in enumerate(stages):
        passed = float((stage.sums(table, samples) >= stage_limit(stage.threshold)).mean())
        reports.append(
            StageReport(
                index=index,
                weak_classifiers=len(stage.trees),
                threshold=float(stage.threshold),
                hit_rate=passed,
                training_hit_rate=passed,
                false_alarm_rate=config.of_stage(index).max_false_alarm_rate,
                positives=len(windows),
                held_out=0,
                negatives=0,
                windows_scanned=0,
                # A guess, and a low one: mining searches parts of images that are larger the less it expects there.
                acceptance_ratio=0.1 * config.of_stage(index).max_false_alarm_rate ** index,
                mining_seconds=0.0,
                seconds=0.0,
            )
        )
    return reports


def cascade_of(config: TrainingConfig, stages: Sequence[Stage]) -> Cascade:
    """Return the cascade of stages that were read."""
    return build_cascade(config.window, _pool_of(config)[0], stages, {})


# --- writing -----------------------------------------------------------------------------------------------------


def write_params(folder: Path, config: TrainingConfig) -> None:
    """Write ``params.xml`` as OpenCV's trainer does."""
    lbp = config.features == "lbp"
    stage = config.of_stage(0)
    names = {ours: theirs for theirs, ours in BOOSTINGS.items()}
    lines = [
        '<?xml version="1.0"?>',
        "<opencv_storage>",
        "<params>",
        "  <stageType>BOOST</stageType>",
        f"  <featureType>{'LBP' if lbp else 'HAAR'}</featureType>",
        f"  <height>{config.window[1]}</height>",
        f"  <width>{config.window[0]}</width>",
        "  <stageParams>",
        f"    <boostType>{names[config.boosting]}</boostType>",
        *(f"    <{theirs}>{getattr(stage, ours)!r}</{theirs}>" for theirs, ours in {**_RATES, **_COUNTS}.items()),
        "  </stageParams>",
        "  <featureParams>",
        f"    <maxCatCount>{256 if lbp else 0}</maxCatCount>",
        "    <featSize>1</featSize>",
        *([] if lbp else [f"    <mode>{config.features.upper()}</mode>"]),
        "  </featureParams>",
        "</params>",
        "</opencv_storage>",
        "",
    ]
    write_text(folder / _PARAMS, "\n".join(lines))


def write_stages(folder: Path, cascade: Cascade, config: TrainingConfig) -> None:
    """Write ``stageN.xml`` for every stage of a cascade; files that hold the same stage are left alone."""
    features, numbers = _pool_of(config)
    whole = _numbered(cascade, features)
    stages = _stages(whole)
    for s, stage in enumerate(stages):
        path = folder / f"stage{s}.xml"
        if path.exists() and _holds(path, stage, config):
            continue
        lines = ['<?xml version="1.0"?>', "<opencv_storage>", f"<{path.stem}>", *stage_lines(whole, s, numbers)]
        write_text(path, "\n".join([*lines, f"</{path.stem}>", "</opencv_storage>", ""]))


def _holds(path: Path, stage: Stage, config: TrainingConfig) -> bool:
    features, numbers = _pool_of(config)
    try:
        return same_stage(_stages(read_stages([_first(path)], config.window, features, numbers))[0], stage)
    except InputError:
        return False


def _numbered(cascade: Cascade, features: HaarFeatures | LbpFeatures) -> Cascade:
    """Return the cascade with the whole pool in place of the features that it uses."""
    mine = _hashes(cascade.features)
    order = np.argsort(mine)
    every = _hashes(features)
    # Looked up the other way round: the pool has millions of features for a large window, the cascade hundreds.
    at = np.minimum(np.searchsorted(mine[order], every), len(mine) - 1)
    hits = np.flatnonzero(mine[order][at] == every)
    index = np.full(len(mine), -1, dtype=np.int64)
    index[order[at[hits]]] = hits
    if (index < 0).any() or not _equal(features.take(index), cascade.features):
        raise InputError("expected a cascade of features of the pool, got another feature")
    return replace(cascade, features=features, node_features=index[cascade.node_features].astype(np.int32))


def _hashes(features: HaarFeatures | LbpFeatures) -> npt.NDArray[np.uint64]:
    """Return a number for each feature: a polynomial of its rectangles, weights and tilt, modulo 2**64."""
    total = np.zeros(len(features), dtype=np.uint64)
    columns = [features.rects.reshape(len(features), -1)]
    if isinstance(features, HaarFeatures):
        columns += [features.weights.astype(np.int32), features.tilted[:, None].astype(np.int32)]
    for block in columns:
        for column in block.T:
            total = total * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.uint64)
    return total


def _equal(a: Any, b: Any) -> bool:
    same = np.array_equal(a.rects, b.rects)
    if isinstance(a, HaarFeatures):
        same = same and np.array_equal(a.weights, b.weights) and np.array_equal(a.tilted, b.tilted)
    return bool(same)
