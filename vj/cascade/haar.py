"""Haar-like features: the templates, and the pools of features to choose from.

A feature is a weighted sum of the pixels in one to three rectangles of the window. The pools below write them as
OpenCV's trainer does: the whole rectangle with weight -1 first, then the inner parts with positive weights.

References
----------
P. Viola and M. Jones, "Rapid object detection using a boosted cascade of simple features", CVPR 2001, section 2.
R. Lienhart and J. Maydt, "An extended set of Haar-like features for rapid object detection", ICIP 2002.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from vj.errors import InputError

PoolName = Literal["basic", "core", "all"]

MAX_RECTANGLES = 3

MIN_DEVIATION = 10.0
"""In grey levels: a window is scanned only if the standard deviation of its inner rectangle, all but a border of one
pixel, is above this. OpenCV's detector has this rule for Haar-like features; its trainer has not."""

# One template: pool it first appears in, tilted, the extent it needs in units of (dx, dy), and its rectangles as
# (x, y, width, height) coefficients of (dx, dy) plus a weight. For an upright template the extent is (columns, rows);
# a tilted rectangle of a x dx by b x dy reaches b x dy to the left of x, a x dx to its right, and both together down.
# The weights of the inner parts make every template sum to zero on a flat window, so that a feature does not respond
# to brightness (Lienhart and Maydt 2002, section 2; OpenCV's trainer leaves its upright three-part ones unbalanced).
_Template = tuple[PoolName, bool, tuple[int, int], tuple[tuple[tuple[int, int, int, int], int], ...]]


def _upright(pool: PoolName, columns: int, rows: int, *parts: tuple[tuple[int, int, int, int], int]) -> _Template:
    return (pool, False, (columns, rows), (((0, 0, columns, rows), -1), *parts))


_UPRIGHT: tuple[_Template, ...] = (
    _upright("basic", 2, 1, ((1, 0, 1, 1), 2)),
    _upright("basic", 1, 2, ((0, 1, 1, 1), 2)),
    _upright("basic", 3, 1, ((1, 0, 1, 1), 3)),
    _upright("basic", 1, 3, ((0, 1, 1, 1), 3)),
    _upright("core", 4, 1, ((1, 0, 2, 1), 2)),
    _upright("core", 1, 4, ((0, 1, 1, 2), 2)),
    _upright("basic", 2, 2, ((0, 0, 1, 1), 2), ((1, 1, 1, 1), 2)),
    _upright("core", 3, 3, ((1, 1, 1, 1), 9)),
)

# Tilted parts: the inner rectangle starts `along` steps of dx down the right-going edge (x + dx, y + dx) and `across`
# steps of dy down the left-going edge (x - dy, y + dy).
_TILTED: tuple[tuple[int, int, int, int, int, int, int], ...] = (
    # extent a, extent b, along, across, inner a, inner b, weight
    (2, 1, 0, 0, 1, 1, 2),
    (1, 2, 0, 0, 1, 1, 2),
    (3, 1, 1, 0, 1, 1, 3),
    (1, 3, 0, 1, 1, 1, 3),
    (4, 1, 1, 0, 2, 1, 2),
    (1, 4, 0, 1, 1, 2, 2),
)


@dataclass(frozen=True, eq=False)
class HaarFeatures:
    """A table of Haar-like features.

    Parameters
    ----------
    rects : ndarray of int32, shape (n, 3, 4)
        Rectangles as x, y, width, height in pixels of the window. For a tilted feature (x, y) is the topmost corner,
        the width runs down to the right and the height down to the left. Rectangles of weight 0 contribute nothing:
        they are stored last and all zero, wherever they lay.
    weights : ndarray of float32, shape (n, 3)
        Weight of each rectangle; 0 for an unused one.
    tilted : ndarray of bool, shape (n,)
        Whether the rectangles are rotated by 45 degrees.
    """

    rects: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    tilted: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        rects = np.array(self.rects, dtype=np.int32, order="C")
        weights = np.array(self.weights, dtype=np.float32, order="C")
        tilted = np.array(self.tilted, dtype=np.bool_, order="C")
        n = len(tilted)
        if rects.shape != (n, MAX_RECTANGLES, 4) or weights.shape != (n, MAX_RECTANGLES) or tilted.shape != (n,):
            raise InputError(
                f"expected rects (n, 3, 4), weights (n, 3) and tilted (n,), "
                f"got {rects.shape}, {weights.shape} and {tilted.shape}"
            )
        rects, weights = _unused_last(rects, weights)
        for name, array in (("rects", rects), ("weights", weights), ("tilted", tilted)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.tilted)

    def take(self, indices: npt.ArrayLike) -> HaarFeatures:
        """Return the features at `indices` (integers or a boolean mask), in that order."""
        index = np.asarray(indices)
        return HaarFeatures(self.rects[index], self.weights[index], self.tilted[index])

    def check(self, window: tuple[int, int]) -> None:
        """Raise `InputError` unless every rectangle lies inside a window of (width, height)."""
        width, height = window
        if not np.isfinite(self.weights).all():
            raise InputError(f"expected finite weights, got feature {_first(~np.isfinite(self.weights).all(axis=1))}")
        used = self.weights != 0
        if not used[:, 0].all():
            raise InputError(f"expected a rectangle with a weight, got feature {_first(~used[:, 0])} without")
        x, y, w, h = (self.rects[:, :, k].astype(np.int64) for k in range(4))
        tilted = self.tilted[:, None]
        left = np.where(tilted, x - h, x)
        bottom = np.where(tilted, y + w + h, y + h)
        inside = (w > 0) & (h > 0) & (left >= 0) & (y >= 0) & (x + w <= width) & (bottom <= height)
        # A tilted integral at row Y, column X covers pixels up to column X - 1; a corner on column 0 is legal.
        bad = used & ~inside
        if bad.any():
            index, part = np.argwhere(bad)[0]
            kind = "tilted rectangle" if self.tilted[index] else "rectangle"
            raise InputError(
                f"expected every rectangle inside the {width}x{height} window, "
                f"got {kind} {self.rects[index, part].tolist()} in feature {index}"
            )


def corners_of(rect: Sequence[int], tilted: bool) -> list[tuple[int, int]]:
    """Return the four corners of a feature's rectangle as x, y in pixels of the window, in order around it."""
    x, y, w, h = rect
    if tilted:
        return [(x, y), (x + w, y + w), (x + w - h, y + w + h), (x - h, y + h)]
    return [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]


def _unused_last(
    rects: npt.NDArray[np.int32], weights: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Move rectangles of weight 0 (or -0., or one that float32 rounds to 0) after the others and zero them.

    The kernels read the corners of all three rectangles, whatever their weights. OpenCV refuses a file in which such a
    rectangle lies outside the window; here it is ignored, which does not change the value of the feature. A file keeps
    only rectangles with a weight: without this order it would not read back as equal.
    """
    unused = weights == 0
    if unused.any():
        order = np.argsort(unused, axis=1, kind="stable")
        weights = np.where(unused, np.float32(0), weights)
        rects = np.where(unused[:, :, None], np.int32(0), rects)
        weights = np.take_along_axis(weights, order, axis=1)
        rects = np.take_along_axis(rects, order[:, :, None], axis=1)
    return np.ascontiguousarray(rects), np.ascontiguousarray(weights)


def _first(mask: npt.ArrayLike) -> int:
    return int(np.flatnonzero(mask)[0])


def _grid(columns: int, rows: int, width: int, height: int) -> npt.NDArray[np.int64]:
    """All (x, y, dx, dy) for which a template of columns * dx by rows * dy fits the window; shape (n, 4)."""
    x, y, dx, dy = np.meshgrid(
        np.arange(width), np.arange(height), np.arange(1, width + 1), np.arange(1, height + 1), indexing="ij"
    )
    keep = (x + columns * dx <= width) & (y + rows * dy <= height)
    return np.stack([x[keep], y[keep], dx[keep], dy[keep]], axis=1)


def _tilted_grid(a: int, b: int, width: int, height: int) -> npt.NDArray[np.int64]:
    """Like `_grid`, for a tilted template of a * dx by b * dy."""
    x, y, dx, dy = np.meshgrid(
        np.arange(width), np.arange(height), np.arange(1, width + 1), np.arange(1, height + 1), indexing="ij"
    )
    keep = (x + a * dx <= width) & (y + a * dx + b * dy <= height) & (x - b * dy >= 0)
    return np.stack([x[keep], y[keep], dx[keep], dy[keep]], axis=1)


def feature_pool(window: tuple[int, int], kind: PoolName = "basic") -> HaarFeatures:
    """Enumerate every feature of a pool that fits a window.

    Parameters
    ----------
    window : (int, int)
        Width and height of the window in pixels, each at least 3 and at most 128.
    kind : {'basic', 'core', 'all'}
        ``basic`` holds the five Viola-Jones templates (162,336 features at 24x24), ``core`` adds the four-part lines
        and the centre-surround (210,400), ``all`` adds six tilted templates (261,600).

    Returns
    -------
    HaarFeatures
        Ordered by x, y, dx, dy and template, as OpenCV's trainer enumerates them.

    Raises
    ------
    InputError
        If the window or the pool's name is out of range.
    """
    width, height = window
    if not (3 <= width <= 128 and 3 <= height <= 128):
        raise InputError(f"expected a window of 3 to 128 pixels a side, got {width}x{height}")
    if kind not in get_args(PoolName):
        raise InputError(f"expected a feature pool named basic, core or all, got {kind!r}")
    places, rects, weights, tilted = [], [], [], []
    for order, (pool, _, (columns, rows), parts) in enumerate(_UPRIGHT):
        if pool == "core" and kind == "basic":
            continue
        grid = _grid(columns, rows, width, height)
        r = np.zeros((len(grid), MAX_RECTANGLES, 4), dtype=np.int32)
        x, y, dx, dy = grid.T
        for k, ((ox, oy, w, h), _) in enumerate(parts):
            r[:, k] = np.stack([x + ox * dx, y + oy * dy, w * dx, h * dy], axis=1)
        places.append(np.column_stack([grid, np.full(len(grid), order)]))
        rects.append(r)
        weights.append(_weights([weight for _, weight in parts], len(grid)))
        tilted.append(np.zeros(len(grid), dtype=np.bool_))
    for order, (a, b, along, across, inner_a, inner_b, weight) in enumerate(_TILTED if kind == "all" else ()):
        grid = _tilted_grid(a, b, width, height)
        r = np.zeros((len(grid), MAX_RECTANGLES, 4), dtype=np.int32)
        x, y, dx, dy = grid.T
        r[:, 0] = np.stack([x, y, a * dx, b * dy], axis=1)
        shift_x, shift_y = along * dx - across * dy, along * dx + across * dy
        r[:, 1] = np.stack([x + shift_x, y + shift_y, inner_a * dx, inner_b * dy], axis=1)
        places.append(np.column_stack([grid, np.full(len(grid), len(_UPRIGHT) + order)]))
        rects.append(r)
        weights.append(_weights([-1, weight], len(grid)))
        tilted.append(np.ones(len(grid), dtype=np.bool_))
    place = np.concatenate(places)
    sort = np.lexsort(place.T[::-1])
    return HaarFeatures(np.concatenate(rects)[sort], np.concatenate(weights)[sort], np.concatenate(tilted)[sort])


def _weights(weights: list[int], n: int) -> npt.NDArray[np.float32]:
    row = np.zeros(MAX_RECTANGLES, dtype=np.float32)
    row[: len(weights)] = weights
    return np.tile(row, (n, 1))
