"""Multi-block local binary patterns: the features of LBP cascades.

A feature is a 3x3 grid of equal cells; its value is an 8-bit code that says which of the eight outer cells are at
least as bright as the centre.

References
----------
S. Liao, X. Zhu, Z. Lei, L. Zhang and S. Z. Li, "Learning multi-scale block local binary patterns for face
recognition", ICB 2007.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vj.errors import InputError

RING = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
"""Row and column of the outer cells, in the order of the code's bits, highest first: clockwise from the top left."""

SUBSET_WORDS = 8
"""A set of the 256 codes is held in eight 32-bit words."""


@dataclass(frozen=True, eq=False)
class LbpFeatures:
    """A table of multi-block LBP features.

    Parameters
    ----------
    rects : ndarray of int32, shape (n, 4)
        x, y of the top left cell, then the width and height of one cell, in pixels of the window.
    """

    rects: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        rects = np.array(self.rects, dtype=np.int32, order="C")
        if rects.ndim != 2 or rects.shape[1] != 4:
            raise InputError(f"expected rects of shape (n, 4), got {rects.shape}")
        rects.setflags(write=False)
        object.__setattr__(self, "rects", rects)

    def __len__(self) -> int:
        return len(self.rects)

    def take(self, indices: npt.ArrayLike) -> LbpFeatures:
        """Return the features at `indices` (integers or a boolean mask), in that order."""
        return LbpFeatures(self.rects[np.asarray(indices)])

    def mirrored(self, width: int) -> LbpFeatures:
        """Return the features as they lie in a mirrored window of this width; see `mirrored_subsets` for their codes."""
        x, y, w, h = self.rects.T
        return LbpFeatures(np.stack([width - x - 3 * w, y, w, h], axis=1))

    def check(self, window: tuple[int, int]) -> None:
        """Raise `InputError` unless every 3x3 grid of cells lies inside a window of (width, height)."""
        width, height = window
        x, y, w, h = self.rects.astype(np.int64).T
        bad = ~((x >= 0) & (y >= 0) & (w > 0) & (h > 0) & (x + 3 * w <= width) & (y + 3 * h <= height))
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"expected every 3x3 grid of cells inside the {width}x{height} window, "
                f"got cell {self.rects[index].tolist()} in feature {index}"
            )


def mirrored_subsets(subsets: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return the sets of codes of mirrored features: they hold the mirror image of a code where `subsets` hold the code.

    Parameters
    ----------
    subsets : ndarray of int32, shape (n, 8)

    Returns
    -------
    ndarray of int32, shape (n, 8)
    """
    codes = np.arange(256)
    mirror = np.zeros(256, dtype=np.int64)
    for k, (row, column) in enumerate(RING):
        mirror |= (codes >> (7 - k) & 1) << (7 - RING.index((row, 2 - column)))
    held = np.unpackbits(np.ascontiguousarray(subsets, dtype="<i4").view(np.uint8), axis=1, bitorder="little")
    packed = np.packbits(held[:, mirror], axis=1, bitorder="little")
    return np.ascontiguousarray(packed).view("<i4").astype(np.int32)


def lbp_pool(window: tuple[int, int]) -> LbpFeatures:
    """Enumerate every multi-block LBP feature that fits a window (8,464 at 24x24).

    Parameters
    ----------
    window : (int, int)
        Width and height of the window in pixels, each at least 3 and at most 128.

    Returns
    -------
    LbpFeatures
        Ordered by x, y, cell width, cell height.
    """
    width, height = window
    if not (3 <= width <= 128 and 3 <= height <= 128):
        raise InputError(f"expected a window of 3 to 128 pixels a side, got {width}x{height}")
    x, y, w, h = np.meshgrid(
        np.arange(width), np.arange(height), np.arange(1, width // 3 + 1), np.arange(1, height // 3 + 1), indexing="ij"
    )
    keep = (x + 3 * w <= width) & (y + 3 * h <= height)
    return LbpFeatures(np.stack([x[keep], y[keep], w[keep], h[keep]], axis=1))
