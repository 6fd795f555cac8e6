"""Exact search for the best split over all features, by weighted histograms of 8-bit bins.

Weights are integers, so a histogram is the same whatever order samples are added in; features are independent and ties
go to the lowest index: the answer does not depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from vj.boosting.values import BINS, TILE, Binning, FeatureTable, Samples, feature_values, fill_bins, make_binning
from vj.boosting.workers import Workers

WEIGHT_SUM = 1 << 30
"""What quantised weights sum to, nearly: an unsigned 32-bit histogram cell holds them all."""

REGRESSION, ERROR, PARTITION, MOMENT = 0, 1, 2, 3
"""What a split minimises. With A and B the summed weights of positives and negatives on one side:
squared error of labels (gentle), weighted error (discrete), sum of sqrt(A B) (real). MOMENT (logit) takes in A the
weights of all samples and in B their weighted responses, and minimises the squared error of the responses."""

_BLOCK = 1024


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
    """Memory for bins that is used again from stage to stage.

    Fresh memory is slow: 487 MB of bins took 1.25 s to fill, most of it page faults, and 0.35 s the second time.
    """

    def __init__(self) -> None:
        self._bytes = np.empty(0, dtype=np.uint8)

    def take(self, rows: int, widths: tuple[int, ...]) -> tuple[npt.NDArray[np.uint8], ...]:
        """Return one array (rows, width) for each width; what was taken before is overwritten."""
        size = rows * sum(widths)
        if size > len(self._bytes):
            # The old block goes first, so that both are never held together.
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
        Bytes that bins may take; features beyond it are binned anew in every round, with the same result.
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
        self.resident = min(len(table), int(memory // sum(self._widths)) // _BLOCK * _BLOCK)
        self._bins = (arena or Arena()).take(self.resident, self._widths)
        workers.spread(self._fill, self.resident, _BLOCK)

    def _fill(self, first: int, last: int) -> None:
        for samples, bins in zip(self.groups, self._bins, strict=True):
            fill_bins(self.table, samples, self.binning, (first, last), bins[first:last])

    def best(self, weights: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]], criterion: int) -> Split | None:
        """Find the split with the smallest loss; among equals the lowest feature, then the lowest threshold.

        Parameters
        ----------
        weights : (ndarray of int32, ndarray of int32)
            Quantised weights of the first and second group; see `WEIGHT_SUM`. With `MOMENT` each covers both groups,
            positives first.
        criterion : int

        Returns
        -------
        Split or None
            None if no feature tells any samples apart.
        """
        n = len(self.table)
        losses, edges = np.full(n, np.inf), np.zeros(n, dtype=np.int32)
        padded = self._padded(weights, criterion)

        def work(first: int, last: int) -> None:
            a, b = self.block(first, last)
            _search(a, b, padded, criterion, self.table.lbp, losses[first:last], edges[first:last])

        self.workers.spread(work, n, _BLOCK)
        feature = int(np.argmin(losses))
        if not np.isfinite(losses[feature]):
            return None
        return self._split(feature, int(edges[feature]), float(losses[feature]), padded, criterion)

    def block(self, first: int, last: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return the bins of a block of features on both groups."""
        if last <= self.resident:
            return self._bins[0][first:last], self._bins[1][first:last]
        blocks = tuple(np.empty((last - first, width), dtype=np.uint8) for width in self._widths)
        for samples, out in zip(self.groups, blocks, strict=True):
            fill_bins(self.table, samples, self.binning, (first, last), out)
        return blocks[0], blocks[1]

    def _padded(self, weights: tuple[npt.NDArray[Any], npt.NDArray[Any]], criterion: int) -> npt.NDArray[np.int32]:
        """Weights laid out like the bins: row 0 for A, row 1 for B; columns are positives, then negatives."""
        (n_a, n_b), (width_a, width_b) = (group.count for group in self.groups), self._widths
        out = np.zeros((2, width_a + width_b), dtype=np.int32)
        if criterion == MOMENT:
            for row in range(2):
                out[row, :n_a] = weights[row][:n_a]
                out[row, width_a : width_a + n_b] = weights[row][n_a:]
        else:
            out[0, :n_a] = weights[0]
            out[1, width_a : width_a + n_b] = weights[1]
        return out

    def _split(self, feature: int, edge: int, loss: float, padded: npt.NDArray[np.int32], criterion: int) -> Split:
        subset = np.zeros(8, dtype=np.int32)
        if not self.table.lbp:
            return Split(feature, self.binning.threshold(feature, edge), subset, loss)
        a, b = self.block(feature, feature + 1)
        order = np.zeros(BINS, dtype=np.int32)
        _order_of(a[0], b[0], padded, criterion, order)
        words = subset.view(np.uint32)
        for code in order[:edge]:
            words[code >> 5] |= np.uint32(1 << (int(code) & 31))
        return Split(feature, np.float32(0), subset, loss)


def goes_left(table: FeatureTable, split: Split, samples: Samples) -> npt.NDArray[np.bool_]:
    """Whether each sample goes left at a split, decided exactly as the detector does."""
    value = feature_values(table.take(np.array([split.feature])), samples)[0]
    if not table.lbp:
        return np.asarray(value < split.threshold)
    code = value.astype(np.int64)
    bits = split.subset.view(np.uint32)[code >> 5] >> (code & 31).astype(np.uint32)
    return np.asarray(bits & 1, dtype=np.bool_)


@numba.njit(cache=True, nogil=True)
def _add(bins: Any, weights: Any, hist: Any) -> None:
    """Add the weights of four features' bins at once.

    One load of a weight serves four cells, and a cell that one sample writes is seldom the next one read, so that loads
    do not wait for stores.
    """
    b0, b1, b2, b3 = bins[0], bins[1], bins[2], bins[3]
    h0, h1, h2, h3 = hist[0], hist[1], hist[2], hist[3]
    for s in range(weights.shape[0]):
        w = weights[s]
        h0[np.uintp(b0[s])] += w
        h1[np.uintp(b1[s])] += w
        h2[np.uintp(b2[s])] += w
        h3[np.uintp(b3[s])] += w


@numba.njit(cache=True, nogil=True)
def _add_one(bins: Any, weights: Any, hist: Any) -> None:
    for s in range(weights.shape[0]):
        hist[np.uintp(bins[s])] += weights[s]


@numba.njit(cache=True, nogil=True)
def _losses(a: Any, b: Any, total_a: Any, total_b: Any, criterion: int, out: Any) -> None:
    """Loss of every cut from the sums left of it, see `REGRESSION`; infinite where one side has no weight.

    One plain loop for each criterion, which LLVM vectorises.
    """
    if criterion == 0:
        for k in range(256):
            left, right = a[k] + b[k], (total_a - a[k]) + (total_b - b[k])
            left_moment, right_moment = a[k] - b[k], (total_a - a[k]) - (total_b - b[k])
            gain = (left_moment * left_moment * right + right_moment * right_moment * left) / max(left * right, 1.0)
            out[k] = left + right - gain if left * right > 0 else np.inf
    elif criterion == 1:
        for k in range(256):
            right_a, right_b = total_a - a[k], total_b - b[k]
            loss = min(a[k], b[k]) + min(right_a, right_b)
            out[k] = loss if (a[k] + b[k]) * (right_a + right_b) > 0 else np.inf
    elif criterion == 2:
        for k in range(256):
            right_a, right_b = total_a - a[k], total_b - b[k]
            loss = np.sqrt(a[k] * b[k]) + np.sqrt(right_a * right_b)
            out[k] = loss if (a[k] + b[k]) * (right_a + right_b) > 0 else np.inf
    else:
        for k in range(256):
            right_a, right_b = total_a - a[k], total_b - b[k]
            gain = (b[k] * b[k] * right_a + right_b * right_b * a[k]) / max(a[k] * right_a, 1.0)
            out[k] = -gain if a[k] * right_a > 0 else np.inf


@numba.njit(cache=True, nogil=True)
def _best_edge(hist_a: Any, hist_b: Any, criterion: int, order: Any, sums: Any) -> tuple[float, int]:
    """Best cut of 256 cells taken in `order`: returns (loss, how many cells go left), the lowest cut among equals."""
    a, b, losses = sums[0], sums[1], sums[2]
    total_a, total_b = np.int64(0), np.int64(0)
    for k in range(256):
        cell = np.uintp(order[k])
        total_a += hist_a[cell]
        total_b += hist_b[cell]
        a[k] = np.float64(total_a)
        b[k] = np.float64(total_b)
    _losses(a, b, np.float64(total_a), np.float64(total_b), criterion, losses)
    best, edge = np.inf, 0
    for k in range(255):
        if losses[k] < best:
            best, edge = losses[k], k + 1
    return best, edge


@numba.njit(cache=True, nogil=True)
def _sort_codes(hist_a: Any, hist_b: Any, criterion: int, order: Any) -> None:
    """Order the codes of an LBP feature by their mean response, unseen codes last, equal ones by code."""
    response = np.empty(256, dtype=np.float64)
    for k in range(256):
        a, b = np.float64(hist_a[k]), np.float64(hist_b[k])
        if criterion == 3:
            response[k] = b / a if a > 0 else np.inf
        else:
            response[k] = a / (a + b) if a + b > 0 else np.inf
    order[:] = np.argsort(response, kind="mergesort")


@numba.njit(cache=True, nogil=True)
def _search(bins_a: Any, bins_b: Any, weights: Any, criterion: int, lbp: bool, losses: Any, edges: Any) -> None:
    width_a = bins_a.shape[1]
    hist_a = np.zeros((4, 256), dtype=np.int32)
    hist_b = np.zeros((4, 256), dtype=np.int32)
    order = np.arange(256).astype(np.int32)
    sums = np.empty((3, 256), dtype=np.float64)
    n = bins_a.shape[0]
    for first in range(0, n, 4):
        last = min(first + 4, n)
        hist_a[:] = 0
        hist_b[:] = 0
        if last - first == 4:
            _add(bins_a[first:last], weights[0, :width_a], hist_a)
            _add(bins_b[first:last], weights[1, width_a:], hist_b)
            if criterion == 3:
                _add(bins_b[first:last], weights[0, width_a:], hist_a)
                _add(bins_a[first:last], weights[1, :width_a], hist_b)
        else:
            for f in range(first, last):
                _add_one(bins_a[f], weights[0, :width_a], hist_a[f - first])
                _add_one(bins_b[f], weights[1, width_a:], hist_b[f - first])
                if criterion == 3:
                    _add_one(bins_b[f], weights[0, width_a:], hist_a[f - first])
                    _add_one(bins_a[f], weights[1, :width_a], hist_b[f - first])
        for f in range(first, last):
            if lbp:
                _sort_codes(hist_a[f - first], hist_b[f - first], criterion, order)
            losses[f], edges[f] = _best_edge(hist_a[f - first], hist_b[f - first], criterion, order, sums)


@numba.njit(cache=True, nogil=True)
def _order_of(bins_a: Any, bins_b: Any, weights: Any, criterion: int, order: Any) -> None:
    """Order of the codes of one LBP feature, as `_search` found it."""
    width_a = bins_a.shape[0]
    hist_a = np.zeros(256, dtype=np.int32)
    hist_b = np.zeros(256, dtype=np.int32)
    _add_one(bins_a, weights[0, :width_a], hist_a)
    _add_one(bins_b, weights[1, width_a:], hist_b)
    if criterion == 3:
        _add_one(bins_b, weights[0, width_a:], hist_a)
        _add_one(bins_a, weights[1, :width_a], hist_b)
    _sort_codes(hist_a, hist_b, criterion, order)
