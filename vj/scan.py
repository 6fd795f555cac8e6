"""The scan: how deep each window gets into a cascade, and with what sum.

Everything that looks at pictures through a cascade reads this one answer: a detection is a window that passed all
stages, a hard negative is such a window of a background, a rejection rate is the share of windows that end at a stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba.core import config

from vj import _scan_kernels as kernels
from vj.cascade import Cascade
from vj.errors import InputError
from vj.haar import HaarFeatures
from vj.integral import Layout, Planes, integral_planes, layout, resampling_axis
from vj.lbp import SUBSET_WORDS

FLAT = -1
"""Depth of a window dropped before the first stage: its standard deviation is at most 10 grey levels (Haar only)."""

_Ints = npt.NDArray[np.int64]

_RING = (0, 1, 2, 6, 10, 9, 8, 4)


@dataclass(frozen=True, eq=False)
class LevelScan:
    """What a scan of one level found.

    Parameters
    ----------
    xs, ys : ndarray of int32, shape (n,)
        Top left corners, in pixels of the level, of the windows that passed all stages; by row, then column.
    sums : ndarray of float64, shape (n,)
        Each one's sum of the last stage.
    windows : int
        Windows visited, flat ones included.
    entered : ndarray of int64, shape (n_stages,)
        Windows that entered each stage.
    evaluated : ndarray of int64, shape (n_stages,)
        Weak classifiers evaluated in each stage.
    """

    xs: npt.NDArray[np.int32]
    ys: npt.NDArray[np.int32]
    sums: npt.NDArray[np.float64]
    windows: int
    entered: npt.NDArray[np.int64]
    evaluated: npt.NDArray[np.int64]


class _Grid(NamedTuple):
    rows: int
    columns: int
    row_step: int
    corners: tuple[int, int, int, int]


class _PlainTables(NamedTuple):
    """The cascade as `scan_plain` reads it; see `Cascade` for the arrays."""

    lbp: bool
    area: float
    limits: Any
    stage_starts: Any
    tree_starts: Any
    node_features: Any
    node_children: Any
    node_thresholds: Any
    node_subsets: Any
    leaves: Any
    weights: Any
    ring: Any


class _LaneTables(NamedTuple):
    """The cascade as `scan_lanes` reads it.

    A stage has a segment for each depth of its trees, one if they are stumps: `segments` (n_stages + 1,) says which. A
    segment's nodes are sorted by kind; `ends` (n_segments, 5) holds the first one and those behind the last of each
    kind. `records` has a row of 32-bit numbers for each node, see `_scan_kernels.RECORD`, and `children` the places of
    both children in their stage, or the last one of the scratch space. Leaves are in units of their stage; `bases` is
    what a sum starts from, `high` and `low` are the sums from which on a window surely and perhaps passes.
    """

    lbp: bool
    scratch: int
    segments: Any
    ends: Any
    bases: Any
    low: Any
    high: Any
    records: Any
    weights: Any
    children: Any


class Scanner:
    """A cascade made ready to scan; may be used by many threads at once.

    Parameters
    ----------
    cascade : Cascade
    """

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade
        self._plain = _plain_tables(cascade)
        merged = _merge_corners(cascade)
        depth = _depths(cascade)
        order = _lane_order(cascade, merged.kinds, depth)
        self._lanes = _lane_tables(cascade, merged, order, depth)
        self._plain_corners = _plain_corners(cascade)
        self._lane_corners = merged.corners[cascade.node_features[order]]
        self._offsets: dict[Layout, tuple[Any, Any, tuple[int, int, int, int]]] = {}

    def scan(self, image: npt.NDArray[np.uint8], stride: int = 1, skip: bool = False) -> LevelScan:
        """Scan every window of a grey picture at the picture's own scale.

        Parameters
        ----------
        image : ndarray of uint8, shape (h, w)
        stride : int
            1 or 2: pixels between neighbouring windows.
        skip : bool
            Leave out, as OpenCV does, the right neighbour of a window that the first stage rejected.

        Returns
        -------
        LevelScan
        """
        planes, rows, columns = self._whole(image, stride)
        return self.scan_planes(planes, rows, columns, skip)

    def scan_planes(self, planes: Planes, rows: int, columns: int, skip: bool) -> LevelScan:
        """Scan the first `rows` by `columns` windows of integral images; see `scan`."""
        grid, plain, lanes = self._tables(planes, rows, columns)
        hits = np.empty((rows * columns, 2), dtype=np.int32)
        hit_sums = np.empty(rows * columns, dtype=np.float64)
        entered = np.zeros(self.cascade.n_stages, dtype=np.int64)
        args = (self._plain, plain, skip, hits, hit_sums, entered)
        # Bounds checking does not see the loads of the lane scan; the plain one gives the same answer.
        if config.BOUNDSCHECK:  # type: ignore[attr-defined]
            found, windows = kernels.scan_plain(planes.sums, planes.squares, grid, *args)
        else:
            found, windows = kernels.scan_lanes(planes.sums, planes.squares, grid, lanes, *args)
        found_at = hits[:found] * np.int32(planes.stride)
        return LevelScan(
            xs=found_at[:, 1].copy(),
            ys=found_at[:, 0].copy(),
            sums=hit_sums[:found].copy(),
            windows=windows,
            entered=entered,
            evaluated=entered * self.cascade.stage_sizes,
        )

    def depths(
        self, image: npt.NDArray[np.uint8], stride: int = 1
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float64]]:
        """Return how deep every window of a grey picture gets, at the picture's own scale.

        Parameters
        ----------
        image : ndarray of uint8, shape (h, w)
        stride : int
            1 or 2: pixels between neighbouring windows.

        Returns
        -------
        depth : ndarray of int16, shape (rows, columns)
            Stages passed; `FLAT` for a window dropped before the first.
        sums : ndarray of float64, shape (rows, columns)
            Sum of the last stage reached.
        """
        return self.depths_planes(*self._whole(image, stride))

    def depths_planes(
        self, planes: Planes, rows: int, columns: int
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float64]]:
        """Return how deep the first `rows` by `columns` windows of integral images get; see `depths`."""
        grid, plain, _ = self._tables(planes, rows, columns)
        depth = np.empty((rows, columns), dtype=np.int16)
        sums = np.empty((rows, columns), dtype=np.float64)
        kernels.depths_plain(planes.sums, planes.squares, grid, self._plain, plain, depth, sums)
        return depth, sums

    def _whole(self, image: npt.NDArray[np.uint8], stride: int) -> tuple[Planes, int, int]:
        if image.dtype != np.uint8 or image.ndim != 2:
            raise InputError(f"expected a grey picture as uint8 (h, w), got {image.dtype} of shape {image.shape}")
        if stride not in (1, 2):
            raise InputError(f"expected a stride of 1 or 2, got {stride}")
        height, width = image.shape
        rows = max(0, (height - self.cascade.window[1]) // stride + 1)
        columns = max(0, (width - self.cascade.window[0]) // stride + 1)
        if rows == 0 or columns == 0:
            image, height, width = np.zeros(self.cascade.window[::-1], dtype=np.uint8), *self.cascade.window[::-1]
            rows = columns = 0
        axes = resampling_axis(width, width), resampling_axis(height, height)
        shape = layout(width, stride, self.cascade.has_tilted)
        return integral_planes(np.ascontiguousarray(image), axes, (0, height), shape), rows, columns

    def _tables(self, planes: Planes, rows: int, columns: int) -> tuple[_Grid, Any, _LaneTables]:
        shape = Layout(planes.stride, planes.odd, planes.tilted, planes.row_stride)
        known = self._offsets.get(shape)
        if known is None:
            plain = _place(self._plain_corners, shape)
            lanes = self._lanes.records.copy()
            lanes[:, : self._lane_corners.shape[1]] = _place(self._lane_corners, shape)
            width, height = self.cascade.window
            inner = np.array([[1, 1, 0], [1, width - 1, 0], [height - 1, 1, 0], [height - 1, width - 1, 0]])
            a, b, c, d = _place(inner, shape).tolist()
            known = (plain, lanes, (a, b, c, d))
            if len(self._offsets) > 16:
                self._offsets.clear()
            self._offsets[shape] = known
        grid = _Grid(rows, columns, planes.row_stride * planes.stride, known[2])
        return grid, known[0], self._lanes._replace(records=known[1])


def _place(corners: npt.NDArray[Any], shape: Layout) -> npt.NDArray[np.int64]:
    """Turn corners (..., 3) of row, column and tilted into entries of a plane."""
    row, column, tilted = (corners[..., k].astype(np.int64) for k in range(3))
    across = column if shape.stride == 1 else (column >> 1) + (column & 1) * shape.odd
    return row * shape.row_stride + across + tilted * shape.tilted


def _plain_corners(cascade: Cascade) -> npt.NDArray[np.int64]:
    """Corners of every feature: (n, 12, 3) for the three rectangles of a Haar feature, (n, 16, 3) for LBP."""
    features = cascade.features
    if not isinstance(features, HaarFeatures):
        x, y, w, h = (features.rects[:, k, None].astype(np.int64) for k in range(4))
        step_x, step_y = np.tile(np.arange(4), 4), np.repeat(np.arange(4), 4)
        column, row = x + step_x * w, y + step_y * h
        return np.stack([row, column, np.zeros_like(row)], axis=2)
    x, y, w, h = (features.rects[:, :, k].astype(np.int64) for k in range(4))
    upright = np.stack([y, x, y, x + w, y + h, x, y + h, x + w], axis=2)
    tilted = np.stack([y, x, y + h, x - h, y + w, x + w, y + w + h, x + w - h], axis=2)
    corners = np.where(features.tilted[:, None, None], tilted, upright).reshape(len(features), 12, 2)
    # The corner (y, x) of a rectangle that is not used stands for all four, so that its sum is zero.
    flag = np.broadcast_to(features.tilted[:, None, None], (len(features), 12, 1))
    return np.concatenate([corners, flag], axis=2)


def _plain_tables(cascade: Cascade) -> _PlainTables:
    lbp = cascade.kind == "lbp"
    width, height = cascade.window
    weights = np.zeros((0, 3), np.float32) if lbp else np.array(cascade.features.weights)  # type: ignore[union-attr]
    # Both numbers are float32, and so is their difference: OpenCV subtracts when it loads.
    limits = (cascade.stage_thresholds - np.float32(1e-5)).astype(np.float64)
    return _PlainTables(
        lbp=lbp,
        area=float((width - 2) * (height - 2)),
        limits=limits,
        stage_starts=np.array(cascade.stage_starts),
        tree_starts=np.array(cascade.tree_starts),
        node_features=np.array(cascade.node_features),
        node_children=np.array(cascade.node_children),
        node_thresholds=np.array(cascade.node_thresholds),
        node_subsets=np.array(cascade.node_subsets),
        leaves=np.array(cascade.leaves),
        weights=weights,
        ring=np.array(_RING, dtype=np.int64),
    )


class _Merged(NamedTuple):
    """Look-ups of each feature with equal corners merged: (n, 12 or 16, 3), and how to combine them.

    LBP features, all of one kind, are of kind 0.
    """

    corners: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int32]
    multipliers: npt.NDArray[np.int32]


def _merge_corners(cascade: Cascade) -> _Merged:
    corners = _plain_corners(cascade)
    n = len(corners)
    kinds = np.full(n, kernels.GENERAL if cascade.kind == "haar" else kernels.EDGE, dtype=np.int32)
    multipliers = np.zeros(n, dtype=np.int32)
    features = cascade.features
    if isinstance(features, HaarFeatures):
        corners = corners.copy()
        area = features.rects[:, :, 2].astype(np.int64) * features.rects[:, :, 3]
        # A tilted rectangle of w x h covers 2 * w * h pixels. Below 2**24 float32 holds every value exactly.
        bound = (np.abs(features.weights) * area).sum(axis=1) * np.where(features.tilted, 2, 1) * 255
        whole = (features.weights == np.rint(features.weights)).all(axis=1) & (bound < 2**24)
        for i in np.flatnonzero(whole):
            merged = _merge(corners[i], features.weights[i])
            if merged is not None:
                kinds[i], multipliers[i], order = merged
                corners[i, : len(order)] = order
    return _Merged(corners, kinds, multipliers)


def _merge(corners: npt.NDArray[np.int64], weights: npt.NDArray[np.float32]) -> tuple[int, int, list[Any]] | None:
    """Return kind, multiplier and ordered corners of a feature with integer weights, or None if it fits no kind."""
    factors: dict[tuple[int, ...], int] = {}
    for k, sign in enumerate((1, -1, -1, 1) * 3):
        weight = int(weights[k // 4])
        if weight:
            corner = tuple(corners[k].tolist())
            factors[corner] = factors.get(corner, 0) + sign * weight
    by_factor: dict[int, list[Any]] = {}
    for corner, factor in factors.items():
        by_factor.setdefault(factor, []).append(corner)
    by_factor.pop(0, None)
    shape = {factor: len(found) for factor, found in by_factor.items()}
    if shape == {1: 2, -1: 2, 2: 1, -2: 1}:
        return kernels.EDGE, 0, by_factor[1] + by_factor[-1] + by_factor[2] + by_factor[-2]
    if shape == {1: 4, -2: 4, 4: 1}:
        return kernels.CHECKER, 1, by_factor[1] + by_factor[-2] + by_factor[4]
    if shape == {-1: 4, 2: 4, -4: 1}:
        return kernels.CHECKER, -1, by_factor[-1] + by_factor[2] + by_factor[-4]
    other = max(shape, default=0)
    if other > 1 and shape == {1: 2, -1: 2, other: 2, -other: 2}:
        return kernels.LINE, other, by_factor[1] + by_factor[-1] + by_factor[other] + by_factor[-other]
    return None


def _lane_tables(cascade: Cascade, merged: _Merged, order: npt.NDArray[np.int64], depth: _Ints) -> _LaneTables:
    lbp = cascade.kind == "lbp"
    features = cascade.node_features[order]
    sizes = np.diff(cascade.tree_starts)
    stage_of_tree = np.repeat(np.arange(cascade.n_stages), cascade.stage_sizes)
    stage_of_leaf = np.repeat(stage_of_tree, sizes + 1)
    leaves = cascade.leaves.astype(np.float64)
    # Units: the largest possible sum of a stage is 2**29, so that sums and limits stay inside 32 bits.
    largest = np.maximum.reduceat(np.abs(leaves), cascade.tree_starts[:-1] + np.arange(cascade.n_trees))
    bound = np.bincount(stage_of_tree, weights=largest)
    scale = np.where(bound > 0, 2.0**29 / np.where(bound > 0, bound, 1), 1.0)
    limit = (cascade.stage_thresholds - np.float32(1e-5)).astype(np.float64) * scale
    # Half a unit per leaf, and one for the rest: float64 rounding is far below.
    margin = cascade.stage_sizes * 0.5 + 2
    deltas, base = _votes(cascade, np.rint(leaves * scale[stage_of_leaf]).astype(np.int32))
    bases = np.zeros(cascade.n_stages, dtype=np.int32)
    np.add.at(bases, stage_of_tree, base)
    segments, ends = _segments(cascade, depth[order], merged.kinds[features])
    scratch = int(np.diff(_first_nodes(cascade)).max()) + 1
    return _LaneTables(
        lbp=lbp,
        scratch=scratch,
        segments=segments,
        ends=ends,
        bases=bases,
        low=np.clip(np.floor(limit - margin), -(2**30), 2**30).astype(np.int32),
        high=np.clip(np.ceil(limit + margin), -(2**30), 2**30).astype(np.int32),
        records=_records(cascade, merged, order, deltas),
        weights=np.zeros((1, 3), np.float32) if lbp else cascade.features.weights[features],  # type: ignore[union-attr]
        children=_child_places(cascade, scratch - 1)[order],
    )


def _first_nodes(cascade: Cascade) -> _Ints:
    """Return each stage's first node, and the number of nodes; shape (n_stages + 1,)."""
    return cascade.tree_starts[cascade.stage_starts].astype(np.int64)


def _roots(cascade: Cascade) -> _Ints:
    """Return the root of every node's tree."""
    return np.repeat(cascade.tree_starts[:-1].astype(np.int64), np.diff(cascade.tree_starts))


def _depths(cascade: Cascade) -> _Ints:
    """Return how many branches lie at most between each node and its root; at least one if it is not the root."""
    roots = _roots(cascade)
    depth = (np.arange(len(roots)) > roots).astype(np.int64)
    if not cascade.is_stumps:
        children = np.where(cascade.node_children > 0, cascade.node_children + roots[:, None], 0).tolist()
        found = depth.tolist()
        # Children come after their parents.
        for node, pair in enumerate(children):
            for child in pair:
                if child:
                    found[child] = max(found[child], found[node] + 1)
        depth = np.array(found, dtype=np.int64)
    return depth


def _votes(cascade: Cascade, leaves: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return what each node adds where it goes left, and what each tree's sum starts from; see `kernels._tree_bits`."""
    roots = _roots(cascade)
    trees = np.repeat(np.arange(cascade.n_trees), np.diff(cascade.tree_starts))
    children = cascade.node_children.astype(np.int64)
    inner = children > 0
    values = np.where(inner, 0, leaves[np.where(inner, 0, (roots + trees)[:, None] - children)]).astype(np.int64)
    if not cascade.is_stumps:
        inner_nodes = np.flatnonzero(inner.any(axis=1))
        for node in inner_nodes[::-1].tolist():
            for side in (0, 1):
                if inner[node, side]:
                    values[node, side] = values[roots[node] + children[node, side], 1]
    return (values[:, 0] - values[:, 1]).astype(np.int32), values[cascade.tree_starts[:-1], 1].astype(np.int32)


def _child_places(cascade: Cascade, nowhere: int) -> npt.NDArray[np.int32]:
    """Return the place in its stage of each node's left and right child, `nowhere` for leaves; shape (n_nodes, 2)."""
    first = _first_nodes(cascade)
    inside = _roots(cascade) - np.repeat(first[:-1], np.diff(first))
    return np.where(cascade.node_children > 0, cascade.node_children + inside[:, None], nowhere).astype(np.int32)


def _segments(
    cascade: Cascade, depth: _Ints, kinds: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return `segments` and `ends` of `_LaneTables` for nodes in the order of `_lane_order`."""
    stage = np.repeat(np.arange(cascade.n_stages), np.diff(_first_nodes(cascade)))
    change = (np.diff(stage) != 0) | (np.diff(depth) != 0)
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    segments = np.searchsorted(stage[starts], np.arange(cascade.n_stages + 1))
    number = np.concatenate([[0], np.cumsum(change)])
    counts = np.bincount(number * 4 + kinds, minlength=4 * len(starts)).reshape(-1, 4)
    ends = np.cumsum(np.column_stack([starts, counts]), axis=1)
    return segments.astype(np.int32), ends.astype(np.int32)


def _records(
    cascade: Cascade, merged: _Merged, order: npt.NDArray[np.int64], deltas: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Return the rows of the nodes in `order`, but for the corners, which depend on the layout."""
    lbp = cascade.kind == "lbp"
    first = _first_nodes(cascade)
    places = (order - np.repeat(first[:-1], np.diff(first))).astype(np.int32)
    records = np.zeros((len(order), int(kernels.LBP_RECORD if lbp else kernels.RECORD)), dtype=np.int32)
    if lbp:
        records[:, kernels.LBP_SUBSET : kernels.LBP_SUBSET + SUBSET_WORDS] = cascade.node_subsets[order]
        records[:, kernels.LBP_DELTA] = deltas[order]
        records[:, kernels.LBP_PLACE] = places
    else:
        records[:, kernels.THRESHOLD] = cascade.node_thresholds[order].view(np.int32)
        records[:, kernels.DELTA] = deltas[order]
        records[:, kernels.PLACE] = places
        records[:, kernels.MULTIPLIER] = merged.multipliers[cascade.node_features[order]]
    return records


def _lane_order(cascade: Cascade, kinds: npt.NDArray[np.int32], depth: _Ints) -> _Ints:
    """Return the order in which the lane scan takes the nodes: those of a stage by depth, then kind; a loop each."""
    stage = np.repeat(np.arange(cascade.n_stages), np.diff(_first_nodes(cascade)))
    return np.lexsort((kinds[cascade.node_features], depth, stage))
