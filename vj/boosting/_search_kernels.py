"""Compiled loops of the search: weighted histograms of bins, and the best cut of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from vj._compile import njit


@njit(cache=True, nogil=True)
def _add(bins: Any, rows: Any, weights: Any, hist: Any) -> None:
    """Add the weights of four features' bins at once.

    One load of a weight serves four cells, and a cell that one sample writes is seldom the next one read, so that loads
    do not wait for stores: 0.31 ns for an update.
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def search(
    bins_a: Any, bins_b: Any, rows: Any, weights: Any, criterion: int, lbp: bool, losses: Any, edges: Any
) -> None:
    """Find the best cut of each of the features whose bins are in `rows`.

    `weights` (2, n_a + n_b): row 0 goes to histogram A, row 1 to B; without `MOMENT` the other halves are zero.
    """
    width_a = bins_a.shape[1]
    hist_a = np.zeros((4, 256), dtype=np.int32)
    hist_b = np.zeros((4, 256), dtype=np.int32)
    order = np.arange(256).astype(np.int32)
    sums = np.empty((3, 256), dtype=np.float64)
    four = np.empty(4, dtype=np.int64)
    n = rows.shape[0]
    for first in range(0, n, 4):
        # A last group of fewer than four is filled up with its last member.
        for k in range(4):
            four[k] = rows[min(first + k, n - 1)]
        hist_a[:] = 0
        hist_b[:] = 0
        _add(bins_a, four, weights[0, :width_a], hist_a)
        _add(bins_b, four, weights[1, width_a:], hist_b)
        if criterion == 3:
            _add(bins_b, four, weights[0, width_a:], hist_a)
            _add(bins_a, four, weights[1, :width_a], hist_b)
        for f in range(first, min(first + 4, n)):
            if lbp:
                _sort_codes(hist_a[f - first], hist_b[f - first], criterion, order)
            losses[f], edges[f] = _best_edge(hist_a[f - first], hist_b[f - first], criterion, order, sums)


@njit(cache=True, nogil=True)
def code_order(bins_a: Any, bins_b: Any, weights: Any, criterion: int, order: Any) -> None:
    """Order of the codes of one LBP feature, as `search` found it; bins (1, n)."""
    width_a = bins_a.shape[1]
    hist_a = np.zeros((4, 256), dtype=np.int32)
    hist_b = np.zeros((4, 256), dtype=np.int32)
    four = np.zeros(4, dtype=np.int64)
    _add(bins_a, four, weights[0, :width_a], hist_a)
    _add(bins_b, four, weights[1, width_a:], hist_b)
    if criterion == 3:
        _add(bins_b, four, weights[0, width_a:], hist_a)
        _add(bins_a, four, weights[1, :width_a], hist_b)
    _sort_codes(hist_a[0], hist_b[0], criterion, order)
