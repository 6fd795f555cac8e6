"""Feature values of training samples, equal to the detector's to the bit, and their 8-bit bins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._compile import njit
from vj.boosting.samples import TILE, Samples
from vj.cascade.haar import HaarFeatures
from vj.cascade.lbp import RING, LbpFeatures

BINS = 256
"""Number of bins; an LBP code is its own bin."""


@dataclass(frozen=True)
class FeatureTable:
    """Features compiled for a window: the entries of the integral image that each one adds up.

    Parameters
    ----------
    corners : ndarray of int32, shape (n, 12) for Haar, (n, 16) for LBP
        Haar: four entries per rectangle (top left, top right, bottom left, bottom right, in the detector's order).
        LBP: the 4 by 4 grid of cell corners, row by row.
    weights : ndarray of float32, shape (n, 3)
        Weight of each rectangle; no rows for LBP.
    lbp : bool
    """

    corners: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    lbp: bool

    def __len__(self) -> int:
        return len(self.corners)

    def take(self, index: npt.NDArray[Any]) -> FeatureTable:
        """Return the features at `index`."""
        return FeatureTable(
            np.ascontiguousarray(self.corners[index]),
            self.weights if self.lbp else np.ascontiguousarray(self.weights[index]),
            self.lbp,
        )


def feature_table(features: HaarFeatures | LbpFeatures, window: tuple[int, int]) -> FeatureTable:
    """Compile features for samples of a window (width, height)."""
    width, height = window
    stride = width + 1
    if isinstance(features, LbpFeatures):
        x, y, w, h = (features.rects[:, k, None, None] for k in range(4))
        grid = (y + h * np.arange(4)[:, None]) * stride + x + w * np.arange(4)
        return FeatureTable(
            np.ascontiguousarray(grid.reshape(len(features), 16), dtype=np.int32), np.zeros((0, 3), np.float32), True
        )
    left, top, wide, high = (features.rects[:, :, k].astype(np.int64) for k in range(4))
    upright = np.stack(
        [
            top * stride + left,
            top * stride + left + wide,
            (top + high) * stride + left,
            (top + high) * stride + left + wide,
        ],
        axis=2,
    )
    # Corners of a tilted rectangle: the top, `high` steps down left, `wide` steps down right, and both.
    leaning = (height + 1) * stride + np.stack(
        [
            top * stride + left,
            (top + high) * stride + left - high,
            (top + wide) * stride + left + wide,
            (top + wide + high) * stride + left + wide - high,
        ],
        axis=2,
    )
    corners = np.where(features.tilted[:, None, None], leaning, upright)
    corners[features.weights == 0] = 0
    return FeatureTable(
        np.ascontiguousarray(corners.reshape(len(features), 12), dtype=np.int32),
        np.ascontiguousarray(features.weights),
        False,
    )


def feature_values(table: FeatureTable, samples: Samples) -> npt.NDArray[np.float32]:
    """Return the value of every feature on every sample, as the detector computes it.

    Returns
    -------
    ndarray of float32, shape (n_features, n_samples)
        Normalised values; for LBP the codes.
    """
    out = np.zeros((len(table), samples.tiles.shape[0] * TILE), dtype=np.float32)
    if table.lbp:
        codes = np.zeros(out.shape, dtype=np.uint8)
        every = np.arange(len(table))
        _lbp_codes(samples.tiles, table.corners, every, every, codes)
        out[:] = codes
    else:
        _haar_values(samples.tiles, samples.norms, table.corners, table.weights, out)
    return out[:, : samples.count]


@dataclass(frozen=True)
class Binning:
    """Assignment of feature values to `BINS` bins: bin = int(clip((value - low) * scale, 0, 255)).

    Every step is a rounded float32 operation and monotonic in the value, so that the edge of a bin is a float32
    threshold, see `threshold`.

    Parameters
    ----------
    low, scale : ndarray of float32, shape (n_features,)
        Not used by LBP.
    """

    low: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    def threshold(self, feature: int, edge: int) -> np.float32:
        """Return the float32 T for which ``value < T`` is equivalent to ``bin < edge``; `edge` is 1 to 255."""
        low, scale, one = self.low[feature], self.scale[feature], np.float32(edge)
        guess = np.float32(np.float64(low) + edge / np.float64(scale))
        down, up = np.float32(-np.inf), np.float32(np.inf)
        while (guess - low) * scale >= one:
            guess = np.nextafter(guess, down)
        while (guess - low) * scale < one:
            guess = np.nextafter(guess, up)
        return guess


# Bins cover this many standard deviations on either side of the mean; values beyond fall into the outer bins.
_SPAN = 3.5


def make_binning(table: FeatureTable, groups: list[Samples], spread: Spread) -> Binning:
    """Choose bins around the mean of each feature, wide enough for nearly all values.

    Parameters
    ----------
    table : FeatureTable
    groups : list of Samples
        The first two tiles of each group are used.
    spread : callable
        Runs a function over ranges of features on threads.

    Returns
    -------
    Binning
    """
    n = len(table)
    if table.lbp:
        return Binning(np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32))
    tiles = np.concatenate([group.tiles[:2] for group in groups])
    norms = np.concatenate([group.norms[:2] for group in groups])
    mean, deviation = np.zeros(n), np.zeros(n)
    spread(lambda a, b: _moments(tiles, norms, table.corners, table.weights, a, b, mean, deviation), n)
    half = np.maximum(_SPAN * deviation, 1e-6)
    return Binning((mean - half).astype(np.float32), (BINS / (2 * half)).astype(np.float32))


Spread = Callable[[Callable[[int, int], Any], int], None]


def fill_bins(
    table: FeatureTable,
    samples: Samples,
    binning: Binning,
    features: npt.NDArray[np.int64],
    out: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
) -> None:
    """Write the bins of features on all samples.

    Parameters
    ----------
    table, samples, binning
    features : ndarray of int64, shape (n,)
    out : ndarray of uint8, shape (any, n_tiles * TILE)
    rows : ndarray of int64, shape (n,)
        Where in `out` each feature goes.
    """
    if table.lbp:
        _lbp_codes(samples.tiles, table.corners, features, rows, out)
        return
    _haar_bins(
        (samples.tiles, samples.norms),
        (table.corners, table.weights),
        (binning.low, binning.scale),
        features,
        rows,
        out,
    )


# The loops below split one computation into steps that use at most five arrays each: with more, LLVM does not vectorise
# because of the aliasing checks it would need (measured: 0.9 ns per bin, against 3.1 ns in a single loop).


@njit(cache=True, nogil=True)
def _calc(tile: Any, corners: Any, weights: Any, out: Any) -> None:
    """Sum weight times rectangle on one tile, in the detector's order of float32 operations."""
    for k in range(3):
        weight = weights[k]
        if k == 2 and weight == 0:
            return
        a = tile[corners[4 * k]]
        b = tile[corners[4 * k + 1]]
        c = tile[corners[4 * k + 2]]
        d = tile[corners[4 * k + 3]]
        if k == 0:
            for s in range(TILE):
                out[s] = weight * np.float32(np.int32(a[s] - b[s] - c[s] + d[s]))
        else:
            for s in range(TILE):
                out[s] = out[s] + weight * np.float32(np.int32(a[s] - b[s] - c[s] + d[s]))


@njit(cache=True, nogil=True)
def _haar_values(tiles: Any, norms: Any, corners: Any, weights: Any, out: Any) -> None:
    calc = np.empty(TILE, dtype=np.float32)
    for t in range(tiles.shape[0]):
        for f in range(corners.shape[0]):
            _calc(tiles[t], corners[f], weights[f], calc)
            for s in range(TILE):
                out[f, t * TILE + s] = calc[s] * norms[t, s]


@njit(cache=True, nogil=True)
def _haar_bins(samples: Any, table: Any, binning: Any, features: Any, rows: Any, out: Any) -> None:
    tiles, norms = samples
    corners, weights = table
    low, scale = binning
    calc = np.empty(TILE, dtype=np.float32)
    top = np.float32(BINS - 1)
    zero = np.float32(0)
    for t in range(tiles.shape[0]):
        norm = norms[t]
        for i in range(features.shape[0]):
            f = features[i]
            _calc(tiles[t], corners[f], weights[f], calc)
            lo, sc = low[f], scale[f]
            row = out[rows[i], t * TILE : (t + 1) * TILE]
            for s in range(TILE):
                row[s] = np.uint8(np.int32(min(max((calc[s] * norm[s] - lo) * sc, zero), top)))


@njit(cache=True, nogil=True)
def _moments(
    tiles: Any, norms: Any, corners: Any, weights: Any, first: int, last: int, mean: Any, deviation: Any
) -> None:
    """Compute mean and standard deviation of each feature over all samples with contrast."""
    calc = np.empty(TILE, dtype=np.float32)
    for f in range(first, last):
        total, squares, n = 0.0, 0.0, 0
        for t in range(tiles.shape[0]):
            _calc(tiles[t], corners[f], weights[f], calc)
            for s in range(TILE):
                norm = norms[t, s]
                if norm > 0:
                    value = np.float64(calc[s] * norm)
                    total += value
                    squares += value * value
                    n += 1
        if n > 0:
            mean[f] = total / n
            deviation[f] = np.sqrt(max(squares / n - mean[f] * mean[f], 0.0))


# Top left corner of each outer cell among the 16 corners.
_RING = np.array([4 * row + column for row, column in RING])


@njit(cache=True, nogil=True)
def _lbp_codes(tiles: Any, corners: Any, features: Any, places: Any, out: Any) -> None:
    centre = np.empty(TILE, dtype=np.int32)
    code = np.empty(TILE, dtype=np.uint8)
    for t in range(tiles.shape[0]):
        for i in range(features.shape[0]):
            tile, corner = tiles[t], corners[features[i]]
            a, b, c, d = tile[corner[5]], tile[corner[6]], tile[corner[9]], tile[corner[10]]
            for s in range(TILE):
                centre[s] = a[s] - b[s] - c[s] + d[s]
                code[s] = 0
            for k in range(8):
                at = _RING[k]
                bit = np.uint8(128 >> k)
                a, b, c, d = tile[corner[at]], tile[corner[at + 1]], tile[corner[at + 4]], tile[corner[at + 5]]
                for s in range(TILE):
                    if np.int32(a[s] - b[s] - c[s] + d[s]) >= centre[s]:
                        code[s] |= bit
            out[places[i], t * TILE : (t + 1) * TILE] = code
