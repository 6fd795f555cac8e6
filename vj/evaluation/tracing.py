"""The way of single windows through a cascade: every feature's value, every vote, every sum.

The scan answers how deep a window gets; this says why. It is computed from the window's own pixels, in the steps of
single precision that the scan takes, so that depth and margin are equal to those of `vj.Detector.windows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vj._types import Floats, Gray
from vj.cascade.haar import MIN_DEVIATION, HaarFeatures
from vj.cascade.lbp import RING
from vj.cascade.model import Cascade
from vj.detector import WindowMap
from vj.errors import InputError
from vj.scanning.planes import integral_images, resize, tilted_integral


@dataclass(frozen=True, eq=False)
class Trace:
    """The way of one window through a cascade.

    Parameters
    ----------
    depth : int
        Stages passed; -1 for a window dropped as flat.
    margin : float
        Sum of the last stage reached minus that stage's limit, or minus the soft threshold that rejected the window
        inside it; 0 if flat.
    nodes : ndarray of int32, shape (n,)
        Nodes evaluated, in order: one for each weak classifier if they are stumps.
    values : ndarray of float32, shape (n,)
        Of their features: normalised for Haar, the code for LBP.
    left : ndarray of bool, shape (n,)
        Whether the left branch was taken.
    sums : ndarray of float64, shape (n_weak_classifiers,)
        Sum of the stage so far, after each weak classifier evaluated.
    """

    depth: int
    margin: float
    nodes: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    left: npt.NDArray[np.bool_]
    sums: Floats


class Place(NamedTuple):
    """One window of an image.

    Parameters
    ----------
    level, row, column : int
        The map it is in, and where.
    """

    level: int
    row: int
    column: int


def trace(cascade: Cascade, pixels: Gray) -> Trace:
    """Follow one window through a cascade.

    Parameters
    ----------
    cascade : Cascade
    pixels : ndarray of uint8, shape (h, w)
        Of the size of the cascade's window.

    Returns
    -------
    Trace

    Raises
    ------
    InputError
        If the pixels have another size.
    """
    width, height = cascade.window
    if pixels.shape != (height, width):
        raise InputError(f"expected a window of {width}x{height} pixels, got shape {pixels.shape}")
    norm = _norm(pixels) if cascade.kind == "haar" else np.float32(1)
    if norm is None:
        none = np.zeros(0)
        return Trace(-1, 0.0, none.astype(np.int32), none.astype(np.float32), none.astype(np.bool_), none)
    tables = _integrals(cascade, pixels)
    nodes: list[npt.NDArray[np.int32]] = []
    values: list[npt.NDArray[np.float32]] = []
    lefts: list[npt.NDArray[np.bool_]] = []
    sums: list[Floats] = []
    depth, limits, margin = 0, cascade.stage_limits, 0.0
    for stage in range(cascade.n_stages):
        trees = np.arange(cascade.stage_starts[stage], cascade.stage_starts[stage + 1])
        inside = np.arange(cascade.tree_starts[trees[0]], cascade.tree_starts[trees[-1] + 1])
        value = _values(cascade, inside, tables) * norm
        left = _left(cascade, inside, value)
        visited, ends, leaves = _walk(cascade, trees, left, int(inside[0]))
        # One after the other, as the scan adds them: another order may round differently.
        total = np.cumsum(cascade.leaves[leaves].astype(np.float64))
        last, limit = _rejected_within(cascade, trees, total) or (len(trees) - 1, float(limits[stage]))
        visited = visited[: ends[last]]
        nodes.append(inside[visited].astype(np.int32))
        values.append(value[visited])
        lefts.append(left[visited])
        sums.append(total[: last + 1])
        margin = float(total[last] - limit)
        if margin < 0:
            break
        depth += 1
    return Trace(depth, margin, *(np.concatenate(parts) for parts in (nodes, values, lefts, sums)))  # type: ignore[arg-type]


def window_pixels(gray: Gray, one: WindowMap, places: Sequence[tuple[int, int]]) -> list[Gray]:
    """Return the pixels of windows of one scale, as the scan sees them.

    Parameters
    ----------
    gray : ndarray of uint8, shape (h, w)
        The image.
    one : WindowMap
    places : sequence of (int, int)
        Row and column of each window in the map.
    """
    scale = np.float32(one.scale)
    level = resize(
        gray, (int(np.rint(np.float32(gray.shape[1]) / scale)), int(np.rint(np.float32(gray.shape[0]) / scale)))
    )
    width, height = one.window
    corners = [(row * one.stride, column * one.stride) for row, column in places]
    return [np.ascontiguousarray(level[y : y + height, x : x + width]) for y, x in corners]


def deepest_in_cells(shape: tuple[int, ...], maps: Sequence[WindowMap], grid: tuple[int, int]) -> list[Place | None]:
    """Divide an image into cells and find, of the windows centred in each, the one that gets deepest.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image.
    maps : sequence of WindowMap
    grid : (int, int)
        Columns and rows of cells.

    Returns
    -------
    list of Place or None
        Cell by cell, row by row: of the deepest windows the one with the largest margin; None if there is none.
    """
    columns, rows = grid
    best = np.full((columns * rows, 2), -np.inf)
    places: list[Place | None] = [None] * (columns * rows)
    for level, one in enumerate(maps):
        row, column = (index.ravel() for index in np.indices(one.depth.shape))
        x = (column * one.stride + one.window[0] / 2) * one.scale * columns / shape[1]
        y = (row * one.stride + one.window[1] / 2) * one.scale * rows / shape[0]
        cell = np.minimum(y.astype(int), rows - 1) * columns + np.minimum(x.astype(int), columns - 1)
        depth, margin = one.depth.ravel(), one.margin.ravel()
        order = np.lexsort((margin, depth, cell))
        # The last of each cell in this order.
        last = order[np.append(np.flatnonzero(np.diff(cell[order])), len(order) - 1)] if len(order) else order
        for k in last.tolist():
            if (depth[k], margin[k]) > tuple(best[cell[k]]):
                best[cell[k]] = depth[k], margin[k]
                places[cell[k]] = Place(level, int(row[k]), int(column[k]))
    return places


def _norm(pixels: Gray) -> np.float32 | None:
    """Return what feature values are multiplied by; None for a window that is too flat to be scanned."""
    inner = pixels[1:-1, 1:-1].astype(np.int64)
    variance = inner.size * float((inner**2).sum()) - float(inner.sum()) ** 2
    if variance <= 0:
        return None
    norm = np.float32(1 / np.sqrt(variance))
    return norm if inner.size * float(norm) < 1 / MIN_DEVIATION else None


def _integrals(cascade: Cascade, pixels: Gray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None]:
    tilted = tilted_integral(pixels).astype(np.int64) if cascade.has_tilted else None
    return integral_images(pixels)[0].astype(np.int64), tilted


def _values(
    cascade: Cascade, nodes: npt.NDArray[np.int64], tables: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None]
) -> npt.NDArray[np.float32]:
    """Return the value of each node's feature before normalisation, or its code."""
    upright, cones = tables
    features, index = cascade.features, cascade.node_features[nodes]
    if not isinstance(features, HaarFeatures):
        x, y, w, h = features.rects[index].T.astype(np.int64)
        cells = [[_box(upright, x + c * w, y + r * h, w, h) for c in range(3)] for r in range(3)]
        codes = sum((cells[r][c] >= cells[1][1]) * (128 >> k) for k, (r, c) in enumerate(RING))
        return np.asarray(codes, dtype=np.float32)
    x, y, w, h = features.rects[index].transpose(2, 0, 1).astype(np.int64)
    total = _box(upright, *(np.where(features.tilted[index][:, None], 0, v) for v in (x, y, w, h)))
    if cones is not None:
        # Corners of a tilted rectangle: top, right, left, bottom.
        t = features.tilted[index]
        x, y, w, h = (v[t] for v in (x, y, w, h))
        total[t] = cones[y, x] - cones[y + w, x + w] - cones[y + h, x - h] + cones[y + w + h, x + w - h]
    parts = features.weights[index] * total.astype(np.float32)
    # In this order, in single precision, as the scan adds them.
    return np.asarray((parts[:, 0] + parts[:, 1]) + parts[:, 2], dtype=np.float32)


def _box(
    table: npt.NDArray[np.int64], x: npt.ArrayLike, y: npt.ArrayLike, w: npt.ArrayLike, h: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    x, y, w, h = (np.asarray(v) for v in (x, y, w, h))
    return np.asarray(table[y, x] - table[y, x + w] - table[y + h, x] + table[y + h, x + w])


def _left(cascade: Cascade, nodes: npt.NDArray[np.int64], values: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    if cascade.kind == "haar":
        return np.asarray(values < cascade.node_thresholds[nodes])
    codes = values.astype(np.int64)
    words = cascade.node_subsets[nodes, codes >> 5].astype(np.int64)
    return np.asarray((words >> (codes & 31)) & 1, dtype=np.bool_)


def _rejected_within(cascade: Cascade, trees: npt.NDArray[np.int64], total: Floats) -> tuple[int, float] | None:
    """Return the first weak classifier of a stage whose soft threshold the sum so far misses, and that threshold."""
    if cascade.soft is None:
        return None
    here = np.isin(cascade.soft.trees, trees)
    at = cascade.soft.trees[here].astype(np.int64) - int(trees[0])
    limits = cascade.soft.sums[here].astype(np.float64)
    missed = np.flatnonzero(total[at] < limits)
    return (int(at[missed[0]]), float(limits[missed[0]])) if len(missed) else None


def _walk(
    cascade: Cascade, trees: npt.NDArray[np.int64], left: npt.NDArray[np.bool_], first: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the nodes on the way through the trees, counted from `first`; their number after each; each one's leaf."""
    roots = cascade.tree_starts[trees].astype(np.int64)
    if cascade.is_stumps:
        nodes = np.arange(len(roots))
        child = np.where(left, cascade.node_children[roots, 0], cascade.node_children[roots, 1]).astype(np.int64)
        return nodes, nodes + 1, roots + trees - child
    nodes_seen, ends, leaves = [], [], []
    for tree, root in zip(trees.tolist(), roots.tolist(), strict=True):
        node = root
        while True:
            nodes_seen.append(node - first)
            child = int(cascade.node_children[node, 0 if left[node - first] else 1])
            if child <= 0:
                break
            node = root + child
        ends.append(len(nodes_seen))
        leaves.append(root + tree - child)
    return tuple(np.array(found, dtype=np.int64) for found in (nodes_seen, ends, leaves))  # type: ignore[return-value]
