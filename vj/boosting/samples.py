"""Windows prepared for training: integral images and normalisation, as the detector computes them.

Integral images are stored in tiles of `TILE` samples, entry by entry: ``tiles[t, e, s]`` is entry e of sample
``t * TILE + s``. A feature is then an elementwise sum of a few rows, which vectorises, and one tile of 24x24 windows
(640 KB) stays in the second-level cache while all features are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._compile import njit
from vj.cascade.haar import MIN_DEVIATION

TILE = 256
"""Samples in a tile."""

Windows = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Samples:
    """Windows prepared for training.

    Parameters
    ----------
    tiles : ndarray of int32, shape (n_tiles, n_entries, TILE)
        Integral images: (height + 1) * (width + 1) entries of the upright sum, row by row, then as many of the tilted
        sum if there are tilted features. Zero after the last sample.
    norms : ndarray of float32, shape (n_tiles, TILE)
        1 / (area times standard deviation) of the window's inner rectangle, as the detector computes it; 0 for a flat
        window and after the last sample.
    count : int
        Number of samples.
    """

    tiles: npt.NDArray[np.int32]
    norms: npt.NDArray[np.float32]
    count: int


def prepare(windows: Windows, *, tilted: bool = False) -> Samples:
    """Compute the integral images and the normalisation of windows.

    Parameters
    ----------
    windows : ndarray of uint8, shape (n, height, width)
    tilted : bool
        Whether to compute the tilted sum, too.

    Returns
    -------
    Samples
    """
    n, height, width = windows.shape
    n_tiles = max(1, -(-n // TILE))
    entries = (height + 1) * (width + 1)
    tiles = np.zeros((n_tiles, entries * (2 if tilted else 1), TILE), dtype=np.int32)
    pixels = np.zeros((height * width, TILE), dtype=np.uint8)
    for t in range(n_tiles):
        part = windows[t * TILE : (t + 1) * TILE]
        pixels[:] = 0
        pixels[:, : len(part)] = part.reshape(len(part), -1).T
        _fill_upright(pixels, width, height, tiles[t])
        if tilted:
            tiles[t, entries:] = _tilted_entries(pixels.reshape(height, width, TILE)).reshape(entries, TILE)
    norms = np.zeros((n_tiles, TILE), dtype=np.float32)
    norms.reshape(-1)[:n] = window_norms(windows)
    return Samples(tiles, norms, n)


def window_norms(windows: Windows) -> npt.NDArray[np.float32]:
    """Return ``float32(1 / sqrt(area * Q - S * S))`` over the inner rectangle (1, 1, w - 2, h - 2); 0 if flat."""
    area = (windows.shape[1] - 2) * (windows.shape[2] - 2)
    total, squares = np.zeros(len(windows), dtype=np.float64), np.zeros(len(windows), dtype=np.float64)
    for first in range(0, len(windows), 4096):
        part = windows[first : first + 4096, 1:-1, 1:-1].reshape(-1, area).astype(np.int64)
        total[first : first + 4096] = part.sum(axis=1)
        squares[first : first + 4096] = np.einsum("ij,ij->i", part, part)
    spread = area * squares - total * total
    with np.errstate(divide="ignore"):
        return np.where(spread > 0, 1.0 / np.sqrt(spread), 0.0).astype(np.float32)


def has_contrast(windows: Windows) -> npt.NDArray[np.bool_]:
    """Return whether each window passes the detector's contrast gate, a standard deviation above 10 grey levels."""
    norms = window_norms(windows).astype(np.float64)
    area = (windows.shape[1] - 2) * (windows.shape[2] - 2)
    return np.asarray((norms > 0) & (area * norms < 1.0 / MIN_DEVIATION))


def _tilted_entries(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Tilted sums of (height, width, n) pixels: T(Y, X) = sum over y < Y, |x - X + 1| <= Y - y - 1."""
    height, width, n = pixels.shape
    # Columns outside the window are zero but needed: a cone that starts inside reaches beyond it.
    pad = height + 1
    image = np.zeros((height + 1, width + 2 * pad, n), dtype=np.int32)
    image[1:, pad : pad + width] = pixels
    out = np.zeros((height + 1, width + 1 + 2 * pad, n), dtype=np.int32)
    for row in range(1, height + 1):
        out[row, 1:-1] = out[row - 1, :-2] + out[row - 1, 2:] + image[row, : out.shape[1] - 2]
        if row > 1:
            out[row, 1:-1] += image[row - 1, : out.shape[1] - 2] - out[row - 2, 1:-1]
    return np.ascontiguousarray(out[:, pad : pad + width + 1])


@njit(cache=True, nogil=True)
def _fill_upright(pixels: Any, width: int, height: int, out: Any) -> None:
    """Fill integral images of one tile: pixels (height * width, TILE), out (entries, TILE), whose first row is 0."""
    line = np.zeros(TILE, dtype=np.int32)
    for y in range(height):
        line[:] = 0
        for x in range(width):
            here = (y + 1) * (width + 1) + x + 1
            above = y * (width + 1) + x + 1
            for s in range(TILE):
                line[s] += np.int32(pixels[y * width + x, s])
                out[here, s] = out[above, s] + line[s]
