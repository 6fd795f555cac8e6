"""Compiled loops of the search: weighted histograms of the bins, and the best cut of each histogram."""

from __future__ import annotations

from typing import Any

import numpy as np

from vj._compile import njit

# What a split minimises. With A and B the summed weights of positives and negatives on one side: the squared error of
# labels (gentle AdaBoost), the weighted error (discrete), the sum of sqrt(A B) (real).
REGRESSION, ERROR, PARTITION = 0, 1, 2


@njit(cache=True, nogil=True)
def _add(bins: Any, rows: Any, weights: Any, hist: Any) -> None:
    """Add weights to the histograms of four features at once.

    One load of a weight serves four cells, and the cell written last is rarely the one read next, so that loads do not
    wait for stores: 0.31 ns per update.
    """
    b0, b1, b2, b3 = bins[rows[0]], bins[rows[1]], bins[rows[2]], bins[rows[3]]
    h0, h1, h2, h3 = hist[0], hist[1], hist[2], hist[3]
    for s in range(weights.shape[0]):
        w = weights[s]
        h0[np.uintp(b0[s])] += w
        h1[np.uintp(b1[s])] += w
        h2[np.uintp(b2[s])] += w
        h3[np.uintp(b3[s])] += w


@njit(cache=True, nogil=True)
def _add_some(bins: Any, rows: Any, at: Any, weights: Any, hist: Any) -> None:
    """Like `_add`, for the samples at the indices `at` alone, whose weights these are."""
    b0, b1, b2, b3 = bins[rows[0]], bins[rows[1]], bins[rows[2]], bins[rows[3]]
    h0, h1, h2, h3 = hist[0], hist[1], hist[2], hist[3]
    for s in range(weights.shape[0]):
        w, i = weights[s], np.uintp(at[s])
        h0[np.uintp(b0[i])] += w
        h1[np.uintp(b1[i])] += w
        h2[np.uintp(b2[i])] += w
        h3[np.uintp(b3[i])] += w


@njit(cache=True, nogil=True)
def _losses(a: Any, b: Any, total_a: Any, total_b: Any, criterion: int, out: Any) -> None:
    """Compute the loss of every cut from the sums on its left; infinite where a side has no weight.

    A separate loop for each criterion, so that LLVM vectorises it.
    """
    if criterion == REGRESSION:
        for k in range(256):
            left, right = a[k] + b[k], (total_a - a[k]) + (total_b - b[k])
            left_moment, right_moment = a[k] - b[k], (total_a - a[k]) - (total_b - b[k])
            gain = (left_moment * left_moment * right + right_moment * right_moment * left) / max(left * right, 1.0)
            out[k] = left + right - gain if left * right > 0 else np.inf
    elif criterion == ERROR:
        for k in range(256):
            right_a, right_b = total_a - a[k], total_b - b[k]
            loss = min(a[k], b[k]) + min(right_a, right_b)
            out[k] = loss if (a[k] + b[k]) * (right_a + right_b) > 0 else np.inf
    else:
        for k in range(256):
            right_a, right_b = total_a - a[k], total_b - b[k]
            loss = np.sqrt(a[k] * b[k]) + np.sqrt(right_a * right_b)
            out[k] = loss if (a[k] + b[k]) * (right_a + right_b) > 0 else np.inf


@njit(cache=True, nogil=True)
def _best_edge(hist_a: Any, hist_b: Any, criterion: int, order: Any, sums: Any) -> tuple[float, int]:
    """Find the best cut of 256 cells in `order`; returns (loss, cells on the left), the lowest of equal ones."""
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


@njit(cache=True, nogil=True)
def _sort_codes(hist_a: Any, hist_b: Any, order: Any) -> None:
    """Order the codes of an LBP feature by their share of positives, then by code; unseen codes come last."""
    share = np.empty(256, dtype=np.float64)
    for k in range(256):
        a, b = np.float64(hist_a[k]), np.float64(hist_b[k])
        share[k] = a / (a + b) if a + b > 0 else np.inf
    order[:] = np.argsort(share, kind="mergesort")


@njit(cache=True, nogil=True)
def search(
    bins_a: Any, bins_b: Any, rows: Any, weights: Any, criterion: int, lbp: bool, losses: Any, edges: Any
) -> None:
    """Find the best cut of each feature whose bins are in `rows`.

    `weights` are those of the positives, whose bins are `bins_a`, and of the negatives, whose bins are `bins_b`, each
    with the indices of the samples that have them; no indices stand for all samples.
    """
    (weights_a, weights_b), (at_a, at_b) = weights
    hist_a = np.zeros((4, 256), dtype=np.int32)
    hist_b = np.zeros((4, 256), dtype=np.int32)
    order = np.arange(256).astype(np.int32)
    sums = np.empty((3, 256), dtype=np.float64)
    four = np.empty(4, dtype=np.int64)
    n = rows.shape[0]
    for first in range(0, n, 4):
        # The last four are padded with the last feature.
        for k in range(4):
            four[k] = rows[min(first + k, n - 1)]
        hist_a[:] = 0
        hist_b[:] = 0
        if at_a.shape[0]:
            _add_some(bins_a, four, at_a, weights_a, hist_a)
        else:
            _add(bins_a, four, weights_a, hist_a)
        if at_b.shape[0]:
            _add_some(bins_b, four, at_b, weights_b, hist_b)
        else:
            _add(bins_b, four, weights_b, hist_b)
        for f in range(first, min(first + 4, n)):
            if lbp:
                _sort_codes(hist_a[f - first], hist_b[f - first], order)
            losses[f], edges[f] = _best_edge(hist_a[f - first], hist_b[f - first], criterion, order, sums)


@njit(cache=True, nogil=True)
def code_order(bins_a: Any, bins_b: Any, weights: Any, order: Any) -> None:
    """Order the codes of one LBP feature as `search` did; bins (1, n)."""
    weights_a, weights_b = weights
    hist_a = np.zeros((4, 256), dtype=np.int32)
    hist_b = np.zeros((4, 256), dtype=np.int32)
    four = np.zeros(4, dtype=np.int64)
    _add(bins_a, four, weights_a, hist_a)
    _add(bins_b, four, weights_b, hist_b)
    _sort_codes(hist_a[0], hist_b[0], order)
