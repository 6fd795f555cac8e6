"""Build a cascade from trained stages: flat, frozen, with only the features that it uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vj.boosting.stage import Stage
from vj.cascade.haar import HaarFeatures, feature_pool, pool_step
from vj.cascade.lbp import SUBSET_WORDS, LbpFeatures, lbp_pool
from vj.cascade.model import Cascade
from vj.scanning.tables import largest_leaves, units


def pool(window: tuple[int, int], features: str, step: int = 0) -> HaarFeatures | LbpFeatures:
    """Return all features of a run, in OpenCV's order.

    Parameters
    ----------
    window : (int, int)
        Width and height.
    features : str
        As in `TrainingConfig`.
    step : int
        As `feature_step` there; LBP has no use for it.
    """
    if features == "lbp":
        return lbp_pool(window)
    return feature_pool(window, features, step or pool_step(window, features))  # type: ignore[arg-type]


def build_cascade(
    window: tuple[int, int],
    features: HaarFeatures | LbpFeatures,
    stages: Sequence[Stage],
    provenance: dict[str, str],
) -> Cascade:
    """Flatten trained stages into a cascade.

    Parameters
    ----------
    window : (int, int)
        Width and height.
    features : HaarFeatures or LbpFeatures
        The whole pool; the cascade keeps those that are used.
    stages : sequence of Stage
        At least one.
    provenance : dict

    Returns
    -------
    Cascade
    """
    trees = [tree for stage in stages for tree in stage.trees]
    splits = [split for tree in trees for split in tree.splits]
    used, index = np.unique([split.feature for split in splits], return_inverse=True)
    lbp = isinstance(features, LbpFeatures)
    return Cascade(
        window=window,
        features=features.take(used),
        stage_starts=_starts([len(stage.trees) for stage in stages]),
        stage_thresholds=np.array([stage.threshold for stage in stages], dtype=np.float32),
        tree_starts=_starts([len(tree.splits) for tree in trees]),
        node_features=index.astype(np.int32),
        node_children=np.concatenate([tree.children for tree in trees]),
        node_thresholds=np.array([split.threshold for split in splits], dtype=np.float32),
        node_subsets=np.array([split.subset for split in splits if lbp], dtype=np.int32).reshape(-1, SUBSET_WORDS),
        leaves=np.concatenate([tree.leaves for tree in trees]),
        provenance=provenance,
    )


def scaled(cascade: Cascade, factor: float) -> Cascade:
    """Return the cascade with leaves and stage thresholds multiplied by a factor: it finds the same, scores differ."""
    leaves, thresholds = cascade.leaves * np.float32(factor), cascade.stage_thresholds * np.float32(factor)
    return replace(cascade, leaves=leaves, stage_thresholds=thresholds)


def short_leaves(cascade: Cascade) -> Cascade:
    """Return the cascade with leaves rounded so that one integer of the scan holds each sum.

    By 2**-21 at most where a thousand leaves reach 0.5. Else hits need a second integer, see `LaneTables`: a quarter of
    the time of a cascade of many hits.
    """
    bounds = np.add.reduceat(largest_leaves(cascade), cascade.stage_starts[:-1])
    # Stages that go on from each other's sums share their leaves; the last one has them all.
    chain = np.cumsum(cascade.carried == 0) - 1
    most = np.zeros(chain[-1] + 1)
    np.maximum.at(most, chain, bounds)
    # Half as many, for rounding may raise the bound.
    steps = np.repeat(units(most)[chain] / 2, cascade.stage_sizes)
    steps = np.repeat(steps, np.diff(cascade.tree_starts) + 1)
    return replace(cascade, leaves=(np.rint(cascade.leaves * steps) / steps).astype(np.float32))


def _starts(sizes: list[int]) -> npt.NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
