"""Weak classifiers: trees of splits with leaf values, and the sample weights of the AdaBoost variants.

References
----------
J. Friedman, T. Hastie and R. Tibshirani, "Additive logistic regression: a statistical view of boosting", Annals of
Statistics 28(2), 2000: discrete, real and gentle AdaBoost are its algorithms 1, 2 and 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._types import Floats
from vj.boosting._search_kernels import ERROR, PARTITION, REGRESSION
from vj.boosting.feature_values import FeatureTable
from vj.boosting.samples import Samples
from vj.boosting.search import WEIGHT_SUM, Candidates, Search, Split, goes_left

THRESHOLD_STEPS, LEAF_STEPS = 4096, 256
"""Steps of a unit in fixed point: what boards and cameras keep of a cascade's thresholds and leaves in 16 bits each. A
stage threshold is a sum of leaves, so it is a multiple of their step without being rounded."""

CRITERIA = {"gentle": REGRESSION, "discrete": ERROR, "real": PARTITION}


@dataclass(frozen=True)
class WeakTree:
    """A tree of splits; a stump has one.

    Parameters
    ----------
    splits : tuple of Split
    children : ndarray of int32, shape (n_splits, 2)
        As in `vj.Cascade`: above 0 the index of a split, otherwise minus the index of a leaf.
    leaves : ndarray of float32, shape (n_splits + 1,)
    """

    splits: tuple[Split, ...]
    children: npt.NDArray[np.int32]
    leaves: npt.NDArray[np.float32]

    def responses(self, table: FeatureTable, samples: Samples) -> npt.NDArray[np.float32]:
        """Return the value of the leaf that each sample reaches, as in the detector; shape (n_samples,)."""
        sides = [goes_left(table, split, samples) for split in self.splits]
        return self.leaves[self._leaf_of(sides, samples.count)]

    def _leaf_of(self, sides: list[npt.NDArray[np.bool_]], n: int) -> npt.NDArray[np.int64]:
        at, done = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.bool_)
        for node, left in enumerate(sides):
            here = ~done & (at == node)
            child = np.where(left, self.children[node, 0], self.children[node, 1])
            at[here] = child[here]
            done |= here & (at <= 0)
        return -at


@dataclass
class Weights:
    """Sample weights of one round, as integers for the histograms.

    Parameters
    ----------
    first, second : ndarray of int32
        Weights of positives and of negatives.
    criterion : int
    """

    first: npt.NDArray[np.int32]
    second: npt.NDArray[np.int32]
    criterion: int

    def within(self, mask: npt.NDArray[np.bool_], n_positives: int) -> Weights:
        """Return the weights with samples outside `mask` (positives first) set to zero."""
        return Weights(
            np.where(mask[:n_positives], self.first, 0), np.where(mask[n_positives:], self.second, 0), self.criterion
        )

    def sums(self) -> tuple[int, int]:
        """Return the sums of the weights of positives and of negatives."""
        return int(self.first.sum(dtype=np.int64)), int(self.second.sum(dtype=np.int64))


def sample_weights(boosting: str, positives: Floats, negatives: Floats, trim: float = 1.0) -> Weights:
    """Return the weights of samples from the sums of their responses so far.

    Each class starts with half of the weight, whatever its size.

    Parameters
    ----------
    boosting : str
    positives, negatives : ndarray of float64
        Sums of the responses so far.
    trim : float
        Share of the weight to keep; the lightest samples are left out of this round.

    Returns
    -------
    Weights
    """
    prior = np.concatenate(
        [np.full(len(positives), 0.5 / max(len(positives), 1)), np.full(len(negatives), 0.5 / max(len(negatives), 1))]
    )
    score = np.concatenate([positives, negatives])
    label = np.concatenate([np.ones(len(positives)), -np.ones(len(negatives))])
    weight = prior * np.exp(np.clip(-label * score, -500.0, 500.0))
    units = _rounded(trimmed(weight, trim) * (WEIGHT_SUM / weight.sum()))
    return Weights(units[: len(positives)], units[len(positives) :], CRITERIA[boosting])


def trimmed(weight: Floats, rate: float) -> Floats:
    """Set the lightest weights, which together are at most 1 - `rate` of the sum, to zero."""
    if rate >= 1.0:
        return weight
    order = np.argsort(weight, kind="stable")
    running = np.cumsum(weight[order])
    return np.where(weight >= weight[order[np.searchsorted(running, (1.0 - rate) * running[-1])]], weight, 0.0)


def _rounded(values: Floats) -> npt.NDArray[np.int32]:
    return np.rint(values).astype(np.int32)


Chooser = Callable[[int], Candidates | None]


def grow_tree(
    search: Search, weights: Weights, max_depth: int, chooser: Chooser | None = None, *, fixed_point: bool = False
) -> WeakTree | None:
    """Grow the tree of one round.

    Parameters
    ----------
    search : Search
    weights : Weights
    max_depth : int
    chooser : callable, optional
        Returns, for the number of a search within the tree, the candidates to look at; by default all features.
    fixed_point : bool
        Round thresholds of Haar features to multiples of 1 / `THRESHOLD_STEPS` and leaves to those of 1 / `LEAF_STEPS`.
        Samples go by the rounded threshold, so that leaves belong to the tree as it is stored.

    Returns
    -------
    WeakTree or None
        None if no feature separates the samples.
    """
    n_positives, n = search.groups[0].count, sum(group.count for group in search.groups)
    splits: list[Split] = []
    children: list[list[tuple[str, int]]] = []
    ends: list[npt.NDArray[np.bool_]] = []
    # Breadth first: a child comes after its parent, as a cascade requires.
    waiting: list[tuple[npt.NDArray[np.bool_], int, int, int]] = [(np.ones(n, dtype=np.bool_), 1, -1, 0)]
    searches = 0
    while waiting:
        mask, depth, parent, side = waiting.pop(0)
        inside = weights if depth == 1 else weights.within(mask, n_positives)
        split = None
        if depth <= max_depth:
            candidates = chooser(searches) if chooser is not None else None
            split = search.best((inside.first, inside.second), weights.criterion, candidates)
            searches += 1
        if split is None:
            if parent < 0:
                return None
            children[parent][side] = ("leaf", len(ends))
            ends.append(mask)
            continue
        if fixed_point:
            split = replace(split, threshold=fixed(split.threshold, THRESHOLD_STEPS))
        if parent >= 0:
            children[parent][side] = ("split", len(splits))
        splits.append(split)
        children.append([("leaf", -1), ("leaf", -1)])
        left = np.concatenate([goes_left(search.table, split, group) for group in search.groups])
        waiting.append((mask & left, depth + 1, len(splits) - 1, 0))
        waiting.append((mask & ~left, depth + 1, len(splits) - 1, 1))
    table = np.array([[k if kind == "split" else -k for kind, k in pair] for pair in children], dtype=np.int32)
    leaves = _leaves(weights, ends, n_positives)
    return WeakTree(tuple(splits), table, fixed(leaves, LEAF_STEPS) if fixed_point else leaves)


def fixed(values: Any, steps: int) -> Any:
    """Round to what a 16-bit integer holds of `steps` times the values."""
    return (np.clip(np.rint(values * np.float32(steps)), -(1 << 15), (1 << 15) - 1) / steps).astype(np.float32)


def _leaves(weights: Weights, ends: list[npt.NDArray[np.bool_]], n_positives: int) -> npt.NDArray[np.float32]:
    """Return leaf values from the integer sums of the weights in each leaf."""
    a, b = np.array([weights.within(mask, n_positives).sums() for mask in ends], dtype=np.float64).T
    if weights.criterion == REGRESSION:
        values = (a - b) / np.maximum(a + b, 1.0)
    elif weights.criterion == PARTITION:
        # A leaf without samples of one class would get an infinite value; a ten-thousandth of the weight smooths it.
        smooth = WEIGHT_SUM * 1e-4
        values = 0.5 * np.log((a + smooth) / (b + smooth))
    else:
        error = np.minimum(a, b).sum() / max(a.sum() + b.sum(), 1.0)
        error = min(max(error, 1e-6), 0.5)
        values = np.where(a >= b, 1.0, -1.0) * 0.5 * np.log((1.0 - error) / error)
    return np.asarray(values, dtype=np.float32)
