"""Exact search for the best split over all features, by weighted histograms of 8-bit bins.

Weights are integers, so that the order in which samples are added does not matter; features are independent and ties go
to the lowest index. Results therefore do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vj.boosting import _search_kernels as kernels
from vj.boosting.feature_values import BINS, Binning, FeatureTable, feature_values, fill_bins, make_binning
from vj.boosting.samples import TILE, Samples
from vj.boosting.workers import Workers

WEIGHT_SUM = 1 << 30
"""Approximate sum of the quantised weights, so that a 32-bit histogram cell can hold all of them."""

_BLOCK = 1024
LEAST_BLOCK = 64
"""Fewest features that a thread bins again at a time, where memory is short."""

Indices = npt.NDArray[np.int64]
Bins = tuple[npt.NDArray[np.uint8], ...]
Weights = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]
Evaluate = Callable[[Indices], tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]]
Candidates = Callable[[Evaluate], tuple[Indices, npt.NDArray[np.float64], npt.NDArray[np.int32]]]


@dataclass(frozen=True)
class Split:
    """A split of one feature.

    Parameters
    ----------
    feature : int
    threshold : numpy.float32
        Haar: a value below it goes left.
    subset : ndarray of int32, shape (8,)
        LBP: the codes that go left, as bits; all zero for Haar.
    loss : float
    """

    feature: int
    threshold: np.float32
    subset: npt.NDArray[np.int32]
    loss: float


class Arena:
    """Memory for bins, reused from stage to stage.

    Fresh memory is slow: filling 487 MB of bins took 1.3 s, most of it page faults, and 0.4 s the second time.
    """

    def __init__(self) -> None:
        self._bytes = np.empty(0, dtype=np.uint8)

    @property
    def size(self) -> int:
        """Bytes held."""
        return len(self._bytes)

    def take(self, rows: int, widths: tuple[int, ...]) -> tuple[npt.NDArray[np.uint8], ...]:
        """Return one array (rows, width) for each width; arrays taken earlier are overwritten."""
        size = rows * sum(widths)
        if size > len(self._bytes):
            # The old block is freed first, so that the two are never held together.
            self._bytes = np.empty(0, dtype=np.uint8)
            self._bytes = np.empty(size, dtype=np.uint8)
        starts = np.concatenate([[0], np.cumsum(widths)]) * rows
        return tuple(
            self._bytes[first:last].reshape(rows, width)
            for first, last, width in zip(starts[:-1], starts[1:], widths, strict=True)
        )


class Search:
    """The features of a pool, binned on the samples of a stage.

    Parameters
    ----------
    table : FeatureTable
    groups : (Samples, Samples)
        Positives and negatives.
    workers : Workers
    memory : int
        Bytes that bins may take; features beyond that are binned again for every search, with the same result.
    arena : Arena, optional
        Holds the bins.
    """

    def __init__(
        self,
        table: FeatureTable,
        groups: tuple[Samples, Samples],
        workers: Workers,
        memory: int,
        arena: Arena | None = None,
    ) -> None:
        self.table, self.groups, self.workers = table, groups, workers
        self.binning: Binning = make_binning(table, list(groups), workers.spread)
        self._widths = tuple(group.tiles.shape[0] * TILE for group in groups)
        # A feature is binned when a search first looks at it, into the next free row: memory grows with use, which
        # matters because fresh memory is slow.
        self.capacity, self._block = _shares(int(memory // sum(self._widths)), len(table), workers.threads)
        self._bins = (arena or Arena()).take(self.capacity, self._widths)
        self._row = np.full(len(table), -1, dtype=np.int64)
        self._used = 0

    def evaluate(
        self, features: Indices, weights: Weights, criterion: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
        """Find the best cut of each feature.

        Parameters
        ----------
        features : ndarray of int64, shape (n,)
            Each once.
        weights : (ndarray of int32, ndarray of int32)
            Weights of positives and negatives, as long as the rows of their bins: zero after the last sample.
        criterion : int
            `REGRESSION`, `ERROR` or `PARTITION`.

        Returns
        -------
        losses : ndarray of float64, shape (n,)
            Infinite for a feature that separates no samples.
        edges : ndarray of int32, shape (n,)
            Haar: the first bin that goes right. LBP: how many codes go left, in order of their share of positives.
        """
        losses, edges = np.full(len(features), np.inf), np.zeros(len(features), dtype=np.int32)
        parts = _weighted(weights[0]), _weighted(weights[1])
        some = tuple(part[0] for part in parts), tuple(part[1] for part in parts)
        self._remember(features)
        rows = self._row[features]
        block = int(np.clip(len(features) // (4 * self.workers.threads), 16, _BLOCK))
        for kept in (True, False):
            index = np.flatnonzero((rows >= 0) == kept)

            def work(first: int, last: int, index: Indices = index, kept: bool = kept) -> None:
                part = index[first:last]
                bins, at = (self._bins, rows[part]) if kept else self._temporary(features[part])
                loss, edge = np.empty(len(part)), np.empty(len(part), dtype=np.int32)
                kernels.search(bins[0], bins[1], at, some, criterion, self.table.lbp, loss, edge)
                losses[part], edges[part] = loss, edge

            self.workers.spread(work, len(index), block if kept else min(block, self._block))
        return losses, edges

    def best(self, weights: Weights, criterion: int, candidates: Candidates | None = None) -> Split | None:
        """Find the split with the smallest loss; among equals the lowest feature, then the lowest threshold.

        Parameters
        ----------
        weights : (ndarray of int32, ndarray of int32)
            Quantised weights of positives and negatives; see `WEIGHT_SUM`.
        criterion : int
            `REGRESSION`, `ERROR` or `PARTITION`.
        candidates : callable, optional
            Chooses the features to look at; see `vj.boosting.fast_search`. By default all of them.

        Returns
        -------
        Split or None
            None if no feature separates the samples.
        """
        padded = self.padded(weights)
        if candidates is None:
            features = np.arange(len(self.table))
            losses, edges = self.evaluate(features, padded, criterion)
        else:
            features, losses, edges = candidates(lambda chosen: self.evaluate(chosen, padded, criterion))
        ties = np.flatnonzero(losses == losses.min())
        at = int(ties[np.argmin(features[ties])])
        if not np.isfinite(losses[at]):
            return None
        return self._split(int(features[at]), int(edges[at]), float(losses[at]), padded)

    def _remember(self, features: Indices) -> None:
        """Bin features not seen before and keep the bins as long as there is room."""
        new = features[self._row[features] < 0][: self.capacity - self._used]
        rows = np.arange(self._used, self._used + len(new))
        self._row[new] = rows
        self._used += len(new)

        def fill(first: int, last: int) -> None:
            for samples, bins in zip(self.groups, self._bins, strict=True):
                fill_bins(self.table, samples, self.binning, new[first:last], bins, rows[first:last])

        self.workers.spread(fill, len(new), _BLOCK)

    def _temporary(self, features: Indices) -> tuple[Bins, Indices]:
        """Return the bins of features that are not kept, on both groups, and their rows."""
        rows = np.arange(len(features))
        blocks = tuple(np.empty((len(features), width), dtype=np.uint8) for width in self._widths)
        for samples, out in zip(self.groups, blocks, strict=True):
            fill_bins(self.table, samples, self.binning, features, out, rows)
        return blocks, rows

    def padded(self, weights: Weights) -> Weights:
        """Return the weights as long as the rows of bins, which are whole tiles."""
        first, second = (np.pad(one, (0, width - len(one))) for one, width in zip(weights, self._widths, strict=True))
        return first, second

    def _split(self, feature: int, edge: int, loss: float, padded: Weights) -> Split:
        subset = np.zeros(8, dtype=np.int32)
        if not self.table.lbp:
            return Split(feature, self.binning.threshold(feature, edge), subset, loss)
        (a, b), _ = self._temporary(np.array([feature]))
        order = np.zeros(BINS, dtype=np.int32)
        kernels.code_order(a, b, padded, order)
        words = subset.view(np.uint32)
        for code in order[:edge]:
            words[code >> 5] |= np.uint32(1 << (int(code) & 31))
        return Split(feature, np.float32(0), subset, loss)


# Where more samples than this share have a weight, indices cost more than they save: an update takes 0.39 ns instead of
# 0.31, but of 90,000 samples a quarter is added up 2.6 times as fast as all of them.
_SPARSE = 0.75


def _weighted(weights: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the weights to add up, and the indices of their samples: none if they are those of all samples.

    Most samples have no weight in the child of a tree's node, and in a round that trims weights.
    """
    at = np.flatnonzero(weights)
    if 0 < len(at) <= _SPARSE * len(weights):
        return weights[at], at.astype(np.int32)
    return weights, np.zeros(0, dtype=np.int32)


def _shares(rows: int, features: int, threads: int) -> tuple[int, int]:
    """Divide rows of memory between features whose bins are kept and blocks of features that are binned again.

    Returns the number of features kept and the block. Small blocks are slow, since each passes over the integral images
    of all samples: with 400,000 of 24x24 that is 1 GB for each block.
    """
    if rows >= features:
        return features, _BLOCK
    block = min(max(rows // (4 * threads), LEAST_BLOCK), _BLOCK)
    return max(rows - block * threads, 0), block


def goes_left(table: FeatureTable, split: Split, samples: Samples) -> npt.NDArray[np.bool_]:
    """Return whether each sample goes left at a split, exactly as the detector decides."""
    value = feature_values(table.take(np.array([split.feature])), samples)[0]
    if not table.lbp:
        return np.asarray(value < split.threshold)
    code = value.astype(np.int64)
    bits = split.subset.view(np.uint32)[code >> 5] >> (code & 31).astype(np.uint32)
    return np.asarray(bits & 1, dtype=np.bool_)
