"""The cascade compiled into arrays: what the kernels read, for both ways of scanning.

`scan_plain` reads a cascade as it is. `scan_lanes` reads it with each stage's nodes sorted by depth and kind, equal
corners of a feature merged, and leaves rounded to integers.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vj._types import Floats
from vj.cascade.haar import HaarFeatures
from vj.cascade.lbp import SUBSET_WORDS
from vj.cascade.model import Cascade
from vj.scanning import _kernels as kernels
from vj.scanning._kernels import LaneTables
from vj.scanning.planes import Layout

_Ints = npt.NDArray[np.int64]


class Grid(NamedTuple):
    """Where the windows of a band are: `corners` are the offsets of the corners of the norm's rectangle."""

    rows: int
    columns: int
    row_step: int
    corners: tuple[int, int, int, int]


class PlainTables(NamedTuple):
    """The cascade as `scan_plain` reads it; see `Cascade` for the arrays.

    A stage is run in parts. Part k sums the trees ``part_starts[k]`` to ``part_starts[k + 1]`` and ends with a
    comparison with ``part_limits[k]``; `first_parts` says where a stage begins, and `restarts` where a sum does.
    """

    lbp: bool
    window: tuple[int, int]
    area: float
    limits: Any
    stage_starts: Any
    part_starts: Any
    part_limits: Any
    first_parts: Any
    restarts: Any
    tree_starts: Any
    node_features: Any
    node_children: Any
    node_thresholds: Any
    node_subsets: Any
    leaves: Any
    weights: Any


def offsets(corners: npt.NDArray[Any], shape: Layout) -> npt.NDArray[np.int64]:
    """Turn corners (..., 3) of row, column and tilted into entries of a plane."""
    row, column, tilted = (corners[..., k].astype(np.int64) for k in range(3))
    across = column if shape.stride == 1 else (column >> 1) + (column & 1) * shape.odd
    return row * shape.row_stride + across + tilted * shape.tilted


def plain_corners(cascade: Cascade) -> npt.NDArray[np.int64]:
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


def unchained(cascade: Cascade) -> tuple[Cascade, _Ints]:
    """Return the cascade without what its stages carry, and the weak classifier with which each stage's sum begins.

    See `Cascade.carried`: sums go on from one stage to the next. The weak classifiers of one sum follow each other.
    """
    carried = cascade.carried
    starts, trees = cascade.stage_starts, np.ones(cascade.n_trees, dtype=np.bool_)
    for first, size in zip(starts[:-1].tolist(), carried.tolist(), strict=True):
        trees[first : first + size] = False
    sizes = np.diff(cascade.tree_starts)
    nodes = np.repeat(trees, sizes)
    reduced = cascade
    if carried.any():
        reduced = replace(
            cascade,
            stage_starts=np.append(0, np.cumsum(np.diff(starts) - carried)),
            tree_starts=np.append(0, np.cumsum(sizes[trees])),
            node_features=cascade.node_features[nodes],
            node_children=cascade.node_children[nodes],
            node_thresholds=cascade.node_thresholds[nodes],
            node_subsets=cascade.node_subsets[nodes] if cascade.kind == "lbp" else cascade.node_subsets,
            leaves=cascade.leaves[np.repeat(trees, sizes + 1)],
        )
    heads = np.maximum.accumulate(np.where(carried > 0, 0, reduced.stage_starts[:-1]))
    return reduced, heads.astype(np.int64)


class Parts(NamedTuple):
    """Where stages are divided: see `PlainTables`.

    `stages` and `heads` (n_parts,) are the stage of each part, and the weak classifier with which its sum begins.
    """

    starts: npt.NDArray[np.int32]
    limits: npt.NDArray[np.float64]
    firsts: npt.NDArray[np.bool_]
    stages: _Ints
    heads: _Ints


def parts_of(cascade: Cascade, heads: _Ints) -> Parts:
    """Divide the stages of a cascade, from `unchained`, after the weak classifiers that have soft thresholds."""
    ends, limits = cascade.stage_starts[1:], cascade.stage_limits
    if cascade.soft is not None:
        ends = np.concatenate([ends, cascade.soft.trees + 1])
        limits = np.concatenate([limits, cascade.soft.sums.astype(np.float64)])
        order = np.argsort(ends)
        ends, limits = ends[order], limits[order]
    starts = np.concatenate([[0], ends]).astype(np.int32)
    stages = np.searchsorted(cascade.stage_starts, starts[:-1], side="right") - 1
    firsts = np.isin(starts[:-1], cascade.stage_starts)
    return Parts(starts, np.ascontiguousarray(limits), firsts, stages, heads[stages])


def plain_tables(cascade: Cascade, parts: Parts) -> PlainTables:
    """Return the cascade as `scan_plain` reads it."""
    lbp = cascade.kind == "lbp"
    width, height = cascade.window
    weights = np.zeros((0, 3), np.float32) if lbp else np.array(cascade.features.weights)  # type: ignore[union-attr]
    return PlainTables(
        lbp=lbp,
        window=(width, height),
        area=float((width - 2) * (height - 2)),
        limits=cascade.stage_limits,
        stage_starts=np.array(cascade.stage_starts),
        part_starts=parts.starts,
        part_limits=parts.limits,
        first_parts=parts.firsts,
        restarts=parts.starts[:-1] == parts.heads,
        tree_starts=np.array(cascade.tree_starts),
        node_features=np.array(cascade.node_features),
        node_children=np.array(cascade.node_children),
        node_thresholds=np.array(cascade.node_thresholds),
        node_subsets=np.array(cascade.node_subsets),
        leaves=np.array(cascade.leaves),
        weights=weights,
    )


class _Merged(NamedTuple):
    """Look-ups of each feature with equal corners merged: (n, 12 or 16, 3), and how to combine them.

    LBP features, all of one kind, are of kind 0.
    """

    corners: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int32]
    multipliers: npt.NDArray[np.int32]


def merge_corners(cascade: Cascade) -> _Merged:
    """Return the look-ups of every feature, with equal corners merged where its weights are whole numbers."""
    corners = plain_corners(cascade)
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
        short = largest_values(features) < 2**15
        for i in np.flatnonzero(whole):
            merged = _merge(corners[i], features.weights[i], bool(short[i]))
            if merged is not None:
                kinds[i], multipliers[i], order = merged
                corners[i, : len(order)] = order
    return _Merged(corners, kinds, multipliers)


def largest_values(features: HaarFeatures) -> npt.NDArray[np.float64]:
    """Return a bound of the absolute value of each feature over all images.

    Where the later rectangles lie inside the first and do not overlap, which is what every usual feature is, it is what
    pixels of 0 and 255 can reach: weights meet on the same pixels and partly cancel. Elsewhere the weights of either
    sign are taken apart.
    """
    x, y, w, h = (features.rects[:, :, k].astype(np.int64) for k in range(4))
    # Turned by 45 degrees, where x + y and y - x are the axes, a tilted rectangle is an upright one of twice the sides.
    turned = features.tilted[:, None]
    x, y = np.where(turned, x + y, x), np.where(turned, y - x, y)
    w, h = np.where(turned, 2 * w, w), np.where(turned, 2 * h, h)
    area = np.where(turned, w * h / 2, w * h)
    weights = features.weights.astype(np.float64)
    used = weights != 0

    def inside(k: int) -> npt.NDArray[np.bool_]:
        across = (x[:, 0] <= x[:, k]) & (x[:, k] + w[:, k] <= x[:, 0] + w[:, 0])
        down = (y[:, 0] <= y[:, k]) & (y[:, k] + h[:, k] <= y[:, 0] + h[:, 0])
        return np.asarray(~used[:, k] | (across & down))

    apart = (x[:, 1] + w[:, 1] <= x[:, 2]) | (x[:, 2] + w[:, 2] <= x[:, 1])
    apart |= (y[:, 1] + h[:, 1] <= y[:, 2]) | (y[:, 2] + h[:, 2] <= y[:, 1]) | ~used[:, 1] | ~used[:, 2]
    nested = used[:, 0] & inside(1) & inside(2) & apart
    parts = np.where(used, area, 0.0)
    rest = parts[:, 0] - parts[:, 1] - parts[:, 2]
    met = np.where(nested[:, None], weights + np.array([0.0, 1.0, 1.0]) * weights[:, :1], weights)
    terms = met * np.where(nested[:, None], np.column_stack([rest, parts[:, 1], parts[:, 2]]), parts)
    bound: npt.NDArray[np.float64] = 255 * np.maximum(
        np.maximum(terms, 0).sum(axis=1), np.maximum(-terms, 0).sum(axis=1)
    )
    return bound


def _merge(
    corners: npt.NDArray[np.int64], weights: npt.NDArray[np.float32], short: bool
) -> tuple[int, int, list[Any]] | None:
    """Return kind, multiplier and ordered corners of a feature with integer weights, or None if it fits no kind.

    `short`: its value fits 16 bits.
    """
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
        ones, plus, minus = by_factor[1] + by_factor[-1], by_factor[2], by_factor[-2]
        # In 32 bits as a line, with a corner that cancels.
        return (kernels.EDGE, 0, ones + plus + minus) if short else (kernels.WIDE, 2, ones + plus + minus + minus * 2)
    if short and shape == {1: 4, -2: 4, 4: 1}:
        return kernels.CHECKER, 1, by_factor[1] + by_factor[-2] + by_factor[4]
    if short and shape == {-1: 4, 2: 4, -4: 1}:
        return kernels.CHECKER, -1, by_factor[-1] + by_factor[2] + by_factor[-4]
    other = max(shape, default=0)
    if other > 1 and shape == {1: 2, -1: 2, other: 2, -other: 2}:
        ordered = by_factor[1] + by_factor[-1] + by_factor[other] + by_factor[-other]
        return kernels.LINE if short else kernels.WIDE, other, ordered
    return None


def lane_tables(cascade: Cascade, parts: Parts, merged: _Merged, order: _Ints) -> LaneTables:
    """Return the cascade as `scan_lanes` reads it, nodes in the order of `lane_order`.

    Units are powers of two, so that no leaf is changed by taking it in units.
    """
    lbp, n = cascade.kind == "lbp", len(cascade.node_features)
    features = cascade.node_features[order]
    sizes = np.diff(cascade.tree_starts)
    sums, sum_of_part = np.unique(parts.heads, return_inverse=True)
    sum_of_tree = np.repeat(sum_of_part, np.diff(parts.starts))
    leaves = cascade.leaves.astype(np.float64)
    scale = units(np.bincount(sum_of_tree, weights=largest_leaves(cascade)).astype(np.float64))
    limit = parts.limits * scale[sum_of_part]
    # Half a unit for each leaf of the sum so far, and two for the rest: float64 rounding is far below.
    error = (parts.starts[1:] - parts.heads) * 0.5 + 2
    exact = leaves * scale[np.repeat(sum_of_tree, sizes + 1)]
    rounded = np.rint(exact)
    deltas, base = _votes(cascade, rounded.astype(np.int32))
    again = np.arange(cascade.n_trees) >= sums[-1]
    rest, steps = _rest(exact - rounded, np.repeat(again, sizes + 1), int(again.sum()))
    more_deltas, more_base = _votes(cascade, rest)
    bases = np.append(np.add.reduceat(base, parts.starts[:-1]), more_base[again].sum()).astype(np.int32)
    first = np.append(_first_nodes(cascade, parts), len(order))
    segments, ends = _segments(first, cascade.node_depths[order], merged.kinds[features])
    width, height = cascade.window
    most = 2**31 - 1
    return LaneTables(
        lbp=lbp,
        n_stages=cascade.n_stages,
        n_parts=len(parts.limits),
        first_stage=int((parts.stages == 0).sum()),
        scratch=2 * int(np.diff(first).max()) + 1,
        area=(width - 2) * (height - 2),
        segments=segments,
        ends=np.ascontiguousarray(ends),
        bases=bases,
        low=np.append(np.clip(np.floor(limit - error), -most, most), 0).astype(np.int32),
        high=np.append(np.clip(np.ceil(limit + error), -most, most), 0).astype(np.int32),
        records=_records(cascade, merged, order, np.concatenate([deltas[order[:n]], more_deltas[order[n:]]]), first),
        weights=np.zeros((1, 3), np.float32) if lbp else cascade.features.weights[features],  # type: ignore[union-attr]
        parts=np.column_stack([parts.starts[:-1], parts.starts[1:], parts.heads, parts.firsts]).astype(np.int32),
        limits=parts.limits,
        walk=_walk(cascade, merged),
        links=_links(cascade),
        leaves=cascade.leaves,
        roots=cascade.tree_starts,
        units=np.array([1.0, 1.0 / steps if rest.any() else 0.0]) / scale[-1] if steps else np.zeros(2),
    )


def largest_leaves(cascade: Cascade) -> Floats:
    """Return the largest absolute value of each weak classifier's leaves."""
    leaves = np.abs(cascade.leaves.astype(np.float64))
    return np.asarray(np.maximum.reduceat(leaves, cascade.tree_starts[:-1] + np.arange(cascade.n_trees)))


def units(bounds: Floats) -> Floats:
    """Return in how many units 1 is divided in a sum that is at most `bounds`: a power of two.

    The largest sum is at most 2**30 units, so that sums stay inside 32 bits, rounded ones too.
    """
    known = bounds > 0
    return np.where(known, 2.0 ** np.floor(np.log2(2.0**30 / np.where(known, bounds, 1))), 1.0)


def _rest(rest: Floats, chosen: npt.NDArray[np.bool_], trees: int) -> tuple[npt.NDArray[np.int32], float]:
    """Return what rounding took from the leaves chosen in smaller steps, and how many steps are a unit; 0: no number.

    So many halves of a unit are below 2**31 steps; 2**30 units are at most 2**52, and exact as float64.
    """
    steps = 2.0 ** min(22, 32 - int(trees).bit_length())
    found = np.where(chosen, rest * steps, 0.0)
    exact = bool((found == np.rint(found)).all())
    return (found if exact else np.zeros_like(found)).astype(np.int32), steps if exact else 0.0


def _walk(cascade: Cascade, merged: _Merged) -> npt.NDArray[np.int32]:
    """Return `LaneTables.walk` without the corners, which depend on the layout."""
    features, n = cascade.features, len(cascade.node_features)
    if not isinstance(features, HaarFeatures):
        walk = np.zeros((n, int(kernels.LBP_RECORD)), dtype=np.int32)
        walk[:, kernels.LBP_SUBSET : kernels.LBP_SUBSET + SUBSET_WORDS] = cascade.node_subsets
        return walk
    walk = np.zeros((n, int(kernels.RECORD)), dtype=np.int32)
    walk[:, kernels.THRESHOLD] = cascade.node_thresholds.view(np.int32)
    walk[:, int(kernels.WEIGHT) :] = features.weights[cascade.node_features].view(np.int32)
    lines = as_lines(merged)[cascade.node_features]
    weights = np.where(merged.kinds == kernels.EDGE, 2, merged.multipliers)[cascade.node_features]
    walk[lines, kernels.WEIGHT] = weights[lines]
    return walk


def as_lines(merged: _Merged) -> npt.NDArray[np.bool_]:
    """Return which features are read like lines when they are summed exactly: edges too, with a corner that cancels."""
    return np.isin(merged.kinds, (kernels.EDGE, kernels.LINE, kernels.WIDE))


def walk_corners(plain: _Ints, lanes: _Ints, merged: _Merged) -> _Ints:
    """Return the corners in each feature's row of `LaneTables.walk`; shape (n, 12).

    Parameters
    ----------
    plain, lanes : ndarray of int64, shape (n, 12)
        Offsets of the features' corners, as they are and merged.
    merged : _Merged
    """
    found = plain.copy()
    lines = as_lines(merged)
    found[lines, :8] = lanes[lines, :8]
    edges = merged.kinds == kernels.EDGE
    found[edges, 6:8] = lanes[edges, 5:6]
    found[lines, kernels.FORM] = -1
    return found


def _links(cascade: Cascade) -> npt.NDArray[np.int32]:
    """Return the node that follows each node on either side, or ``~leaf``; shape (n_nodes, 2)."""
    children = cascade.node_children.astype(np.int64)
    roots = cascade.node_roots[:, None]
    trees = np.repeat(np.arange(cascade.n_trees), np.diff(cascade.tree_starts))[:, None]
    return np.where(children > 0, roots + children, ~(roots + trees - children)).astype(np.int32)


def _first_nodes(cascade: Cascade, parts: Parts) -> _Ints:
    """Return each part's first node, and the number of nodes; shape (n_parts + 1,)."""
    return cascade.tree_starts[parts.starts].astype(np.int64)


def _votes(cascade: Cascade, leaves: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return what each node adds if it goes left, and what each tree's sum starts from; see `kernels._tree_bits`."""
    roots = cascade.node_roots
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


class _Branches(NamedTuple):
    """The branch that leads to each node: from which node, or -1, and to which side; whether several lead to one."""

    parents: _Ints
    sides: _Ints
    shared: bool


def branches(cascade: Cascade) -> _Branches:
    """Return which branch leads to each node. A file may lead to a node along several branches, or along none."""
    parents = np.full(len(cascade.node_children), -1, dtype=np.int64)
    sides, several = np.zeros_like(parents), np.zeros_like(parents)
    for side in (0, 1):
        nodes = np.flatnonzero(cascade.node_children[:, side] > 0)
        children = cascade.node_roots[nodes] + cascade.node_children[nodes, side]
        parents[children], sides[children] = nodes, side
        np.add.at(several, children, 1)
    return _Branches(parents, sides, bool((several > 1).any()))


def _places(cascade: Cascade, order: _Ints, first: _Ints) -> npt.NDArray[np.int32]:
    """Return the word of the scratch space that says which lanes reach each node in `order`; see `kernels._branch`."""
    parents, sides, _ = branches(cascade)
    position, found = np.empty(len(parents), dtype=np.int64), []
    for begin, end in itertools.pairwise(first.tolist()):
        # Within its part; the last one has nodes of another again.
        nodes = order[begin:end]
        position[nodes] = np.arange(len(nodes))
        found.append(np.where(parents[nodes] >= 0, 2 * position[parents[nodes]] + sides[nodes] + 1, 0))
    return np.concatenate(found).astype(np.int32)


def _segments(
    first: _Ints, depth: _Ints, kinds: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return `segments` and `ends` of `LaneTables` for nodes in the order of `lane_order`."""
    part = np.repeat(np.arange(len(first) - 1), np.diff(first))
    change = (np.diff(part) != 0) | (np.diff(depth) != 0)
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    segments = np.searchsorted(part[starts], np.arange(len(first)))
    number = np.concatenate([[0], np.cumsum(change)])
    counts = np.bincount(number * kernels.KINDS + kinds, minlength=kernels.KINDS * len(starts))
    counts = counts.reshape(-1, kernels.KINDS)
    ends = np.cumsum(np.column_stack([starts, counts]), axis=1)
    return segments.astype(np.int32), ends.astype(np.int32)


def _records(
    cascade: Cascade, merged: _Merged, order: _Ints, deltas: npt.NDArray[np.int32], first: _Ints
) -> npt.NDArray[np.int32]:
    """Return the rows of the nodes in `order`, whose votes are given, without the corners, which the layout decides."""
    lbp = cascade.kind == "lbp"
    places = _places(cascade, order, first)
    records = np.zeros((len(order), int(kernels.LBP_RECORD if lbp else kernels.RECORD)), dtype=np.int32)
    if lbp:
        records[:, kernels.LBP_SUBSET : kernels.LBP_SUBSET + SUBSET_WORDS] = cascade.node_subsets[order]
        records[:, kernels.LBP_DELTA] = deltas
        records[:, kernels.LBP_PLACE] = places
    else:
        records[:, kernels.THRESHOLD] = cascade.node_thresholds[order].view(np.int32)
        records[:, kernels.DELTA] = deltas
        records[:, kernels.PLACE] = places
        records[:, kernels.MULTIPLIER] = merged.multipliers[cascade.node_features[order]]
    return records


def lane_order(cascade: Cascade, parts: Parts, kinds: npt.NDArray[np.int32]) -> _Ints:
    """Return the order in which the lane scan takes the nodes: by part, depth and kind, with a loop for each.

    The nodes of the last sum come once more at the end, see `LaneTables`.
    """
    kinds = kinds[cascade.node_features]
    first = _first_nodes(cascade, parts)
    part = np.repeat(np.arange(len(first) - 1), np.diff(first))
    last = np.arange(cascade.tree_starts[parts.heads[-1]], len(kinds))
    again = last[np.lexsort((kinds[last], cascade.node_depths[last]))]
    return np.concatenate([np.lexsort((kinds, cascade.node_depths, part)), again])
