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
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from vj.errors import InputError

PoolName = Literal["basic", "core", "all"]

MAX_RECTANGLES = 3

MIN_DEVIATION = 10.0
"""In grey levels: a window is scanned only if the standard deviation of its inner rectangle, all but a border of one
pixel, is above this. OpenCV's detector has this rule for Haar-like features; its trainer does not."""

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

    def mirrored(self, width: int) -> HaarFeatures:
        """Return the features as they lie in a mirrored window of this width.

        Raises
        ------
        InputError
            If the mirror image of a tilted rectangle lies outside the window.
        """
        x, y, w, h = (self.rects[:, :, k] for k in range(4))
        tilted = self.tilted[:, None]
        # A tilted rectangle's topmost corner (x, y) is the right one of the two pixels at its top.
        across = np.where(tilted, width + 1 - x, width - x - w)
        rects = np.stack([across, y, np.where(tilted, h, w), np.where(tilted, w, h)], axis=2)
        rects[self.weights == 0] = 0
        outside = (tilted & (self.weights != 0) & (x - h < 1)).any(axis=1)
        if outside.any():
            raise InputError(
                f"expected tilted features that can be mirrored, got feature {_first(outside)} at the left edge"
            )
        return HaarFeatures(rects, self.weights, self.tilted)

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
    # Nothing to do for a pool, whose millions of rectangles would be copied several times.
    if (unused[:, :-1] & ~unused[:, 1:]).any() or np.signbit(weights[unused]).any() or rects[unused].any():
        order = np.argsort(unused, axis=1, kind="stable")
        weights = np.where(unused, np.float32(0), weights)
        rects = np.where(unused[:, :, None], np.int32(0), rects)
        weights = np.take_along_axis(weights, order, axis=1)
        rects = np.take_along_axis(rects, order[:, :, None], axis=1)
    return np.ascontiguousarray(rects), np.ascontiguousarray(weights)


def _first(mask: npt.ArrayLike) -> int:
    return int(np.flatnonzero(mask)[0])


MAX_POOL = 1_000_000
"""Features up to which a pool holds every one that fits: a 24x24 window has 162,336 (basic) to 261,600 (all)."""


def _pairs(extent: int, side: int, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All (position, size) along one axis for which ``position + extent * size <= side``, multiples of `step`."""
    position, size = np.meshgrid(np.arange(0, side, step), np.arange(step, side + 1, step), indexing="ij")
    keep = position + extent * size <= side
    return position[keep], size[keep]


def _upright_keys(columns: int, rows: int, window: tuple[int, int], step: int) -> npt.NDArray[np.int64]:
    """Keys, without the template, of every place of an upright template; see `pool_keys`."""
    x, dx = _pairs(columns, window[0], step)
    y, dy = _pairs(rows, window[1], step)
    across, down = _key((x, 0, dx, 0), window), _key((0, y, 0, dy), window)
    return (across[:, None] + down).reshape(-1)


def _tilted_keys(a: int, b: int, window: tuple[int, int], step: int) -> npt.NDArray[np.int64]:
    """Like `_upright_keys`, for a tilted template of a * dx by b * dy."""
    width, height = window
    x, y = np.meshgrid(np.arange(0, width, step), np.arange(0, height, step), indexing="ij")
    found = [np.zeros(0, dtype=np.int64)]
    for dx in range(step, height // a + 1, step):
        for dy in range(step, (height - a * dx) // b + 1, step):
            keep = (x + a * dx <= width) & (y + a * dx + b * dy <= height) & (x - b * dy >= 0)
            found.append(_key((x[keep], y[keep], dx, dy), window))
    return np.concatenate(found)


def _key(place: tuple[Any, Any, Any, Any], window: tuple[int, int]) -> npt.NDArray[np.int64]:
    x, y, dx, dy = place
    width, height = window[0] + 1, window[1] + 1
    return np.asarray((((x * height + y) * width + dx) * height + dy) * _TEMPLATES, dtype=np.int64)


_TEMPLATES = len(_UPRIGHT) + len(_TILTED)


def pool_keys(window: tuple[int, int], kind: PoolName = "basic", step: int = 1) -> npt.NDArray[np.int64]:
    """Return one number for each feature of a pool, ascending in the order of `feature_pool`.

    A number says x, y, dx, dy and template; 8 bytes a feature, where `HaarFeatures` takes 61.

    Parameters
    ----------
    window, kind, step
        As for `feature_pool`.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    width, height = window
    if not (3 <= width <= 128 and 3 <= height <= 128):
        raise InputError(f"expected a window of 3 to 128 pixels a side, got {width}x{height}")
    if kind not in get_args(PoolName):
        raise InputError(f"expected a feature pool named basic, core or all, got {kind!r}")
    keys = [
        _upright_keys(*extent, window, step) + order
        for order, (pool, _, extent, _) in enumerate(_UPRIGHT)
        if pool == "basic" or kind != "basic"
    ]
    if kind == "all":
        keys += [_tilted_keys(a, b, window, step) + len(_UPRIGHT) + k for k, (a, b, *_) in enumerate(_TILTED)]
    found = np.concatenate(keys)
    found.sort()
    return found


def pool_size(window: tuple[int, int], kind: PoolName, step: int = 1) -> int:
    """Return how many features a pool has, without making it."""
    width, height = window

    def along(extent: int, side: int) -> int:
        return sum((side - extent * size) // step + 1 for size in range(step, side // extent + 1, step))

    total = sum(
        along(columns, width) * along(rows, height)
        for pool, _, (columns, rows), _ in _UPRIGHT
        if pool == "basic" or kind != "basic"
    )
    for a, b, *_ in _TILTED if kind == "all" else ():
        for dx in range(step, height // a + 1, step):
            for dy in range(step, (height - a * dx) // b + 1, step):
                across = (width - a * dx) // step + -(b * dy) // step + 1
                total += max(across, 0) * ((height - a * dx - b * dy) // step + 1)
    return total


def pool_step(window: tuple[int, int], kind: PoolName) -> int:
    """Return the smallest step at which a pool has no more than `MAX_POOL` features.

    A window of 80x40 pixels has 7.8 million features of all kinds. They are so alike that those on every second pixel,
    a sixteenth, hold nearly the same; they still lie closer, measured by the object, than those of a 24x24 window.
    """
    step = 1
    while pool_size(window, kind, step) > MAX_POOL:
        step += 1
    return step


def feature_pool(window: tuple[int, int], kind: PoolName = "basic", step: int = 1) -> HaarFeatures:
    """Enumerate every feature of a pool that fits a window.

    Parameters
    ----------
    window : (int, int)
        Width and height of the window in pixels, each at least 3 and at most 128.
    kind : {'basic', 'core', 'all'}
        ``basic`` holds the five Viola-Jones templates (162,336 features at 24x24), ``core`` adds the four-part lines
        and the centre-surround (210,400), ``all`` adds six tilted templates (261,600).
    step : int
        Positions and cell sizes are multiples of it.

    Returns
    -------
    HaarFeatures
        Ordered by x, y, dx, dy and template, as OpenCV's trainer enumerates them.

    Raises
    ------
    InputError
        If the window or the pool's name is out of range.
    """
    keys = pool_keys(window, kind, step)
    place, order = np.divmod(keys, _TEMPLATES)
    place, dy = np.divmod(place, window[1] + 1)
    place, dx = np.divmod(place, window[0] + 1)
    x, y = np.divmod(place, window[1] + 1)
    x, y, dx, dy = (one.astype(np.int32) for one in (x, y, dx, dy))
    rects = np.zeros((len(keys), MAX_RECTANGLES, 4), dtype=np.int32)
    weights = np.zeros((len(keys), MAX_RECTANGLES), dtype=np.float32)
    for number, (_, _, _, parts) in enumerate(_UPRIGHT):
        at = np.flatnonzero(order == number)
        for k, ((ox, oy, w, h), weight) in enumerate(parts):
            rects[at, k] = np.stack([x[at] + ox * dx[at], y[at] + oy * dy[at], w * dx[at], h * dy[at]], axis=1)
            weights[at, k] = weight
    for number, (a, b, along, across, inner_a, inner_b, weight) in enumerate(_TILTED):
        at = np.flatnonzero(order == len(_UPRIGHT) + number)
        right, left = along * dx[at], across * dy[at]
        rects[at, 0] = np.stack([x[at], y[at], a * dx[at], b * dy[at]], axis=1)
        rects[at, 1] = np.stack(
            [x[at] + right - left, y[at] + right + left, inner_a * dx[at], inner_b * dy[at]], axis=1
        )
        weights[at, :2] = -1, weight
    return HaarFeatures(rects, weights, order >= len(_UPRIGHT))
