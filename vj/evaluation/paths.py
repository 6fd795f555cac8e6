"""Which nodes of its trees a cascade evaluates on given windows.

The scan counts weak classifiers, and a tree is one however many of its features it looks at. To say what a cascade of
trees costs, its paths are followed here, all windows of a stage at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vj.cascade.haar import HaarFeatures
from vj.cascade.lbp import LbpFeatures
from vj.cascade.model import Cascade
from vj.scanning.planes import integral_images, tilted_integral

Ints = npt.NDArray[np.int64]
Rect = tuple[int, int, int, int] | list[int]

# Bits of the code, by row and column of the cell.
_RING = ((0, 0, 128), (0, 1, 64), (0, 2, 32), (1, 2, 16), (2, 2, 8), (2, 1, 4), (2, 0, 2), (1, 0, 1))


def nodes_evaluated(
    cascade: Cascade, image: npt.NDArray[np.uint8], corners: Ints, depth: npt.NDArray[np.int16]
) -> Ints:
    """Count the nodes evaluated in each stage.

    Parameters
    ----------
    cascade : Cascade
    image : ndarray of uint8, shape (h, w)
        A level of the pyramid.
    corners : ndarray of int64, shape (n, 2)
        x, y of windows inside the image that are not flat.
    depth : ndarray of int16, shape (n,)
        Stages that each window passed.

    Returns
    -------
    ndarray of int64, shape (n_stages,)
    """
    values = _Values(cascade, image)
    counts = np.zeros(cascade.n_stages, dtype=np.int64)
    for stage in range(cascade.n_stages):
        entering = np.flatnonzero(depth >= stage)
        if not len(entering):
            break
        windows = corners[entering]
        scales = values.scales(windows)
        for tree in range(int(cascade.stage_starts[stage]), int(cascade.stage_starts[stage + 1])):
            counts[stage] += _walk(cascade, values, tree, windows, scales)
    return counts


def _walk(cascade: Cascade, values: _Values, tree: int, windows: Ints, scales: npt.NDArray[np.float32]) -> int:
    """Nodes of one tree evaluated over all windows: a node's children come after it, so one pass in order will do."""
    first, last = int(cascade.tree_starts[tree]), int(cascade.tree_starts[tree + 1])
    at: list[Ints] = [np.zeros(0, dtype=np.int64) for _ in range(last - first)]
    at[0] = np.arange(len(windows))
    count = 0
    for node in range(last - first):
        here = at[node]
        count += len(here)
        children = cascade.node_children[first + node]
        if not len(here) or not (children > 0).any():
            continue
        left = values.goes_left(first + node, windows[here], scales[here])
        for side, child in ((left, int(children[0])), (~left, int(children[1]))):
            if child > 0:
                at[child] = np.concatenate([at[child], here[side]])
    return count


class _Values:
    """Feature values of one image."""

    def __init__(self, cascade: Cascade, image: npt.NDArray[np.uint8]) -> None:
        self._cascade = cascade
        sums, squares = integral_images(image)
        self._sums, self._squares = sums.astype(np.int64), squares.astype(np.int64)
        self._tilted = tilted_integral(image).astype(np.int64) if cascade.has_tilted else self._sums

    def scales(self, windows: Ints) -> npt.NDArray[np.float32]:
        """Return the factor on a feature's sum in each window: 1 for LBP, else one over area times deviation."""
        if self._cascade.kind == "lbp":
            return np.ones(len(windows), dtype=np.float32)
        width, height = self._cascade.window
        inner = (1, 1, width - 2, height - 2)
        area = float((width - 2) * (height - 2))
        total = _rectangle(self._sums, windows, inner).astype(np.float64)
        # The scan reads the squares modulo 2**32; a window of at most 256 pixels a side stays below.
        squares = (_rectangle(self._squares, windows, inner) & 0xFFFFFFFF).astype(np.float64)
        return np.asarray(1.0 / np.sqrt(area * squares - total * total), dtype=np.float32)

    def goes_left(self, node: int, windows: Ints, scales: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Whether each window takes the left branch of a node."""
        cascade, features = self._cascade, self._cascade.features
        index = int(cascade.node_features[node])
        if isinstance(features, HaarFeatures):
            value = self._haar(features, index, windows) * scales
            return np.asarray(value < cascade.node_thresholds[node])
        code = self._lbp(features, index, windows)
        words = cascade.node_subsets[node].view(np.uint32)[code >> 5]
        return np.asarray((words >> (code & 31).astype(np.uint32)) & 1 == 1)

    def _haar(self, features: HaarFeatures, index: int, windows: Ints) -> npt.NDArray[np.float32]:
        value = np.zeros(len(windows), dtype=np.float32)
        read, table = (_tilted_rectangle, self._tilted) if features.tilted[index] else (_rectangle, self._sums)
        for rect, weight in zip(features.rects[index].tolist(), features.weights[index], strict=True):
            if weight:
                value += weight * read(table, windows, rect).astype(np.float32)
        return value

    def _lbp(self, features: LbpFeatures, index: int, windows: Ints) -> Ints:
        x, y, w, h = features.rects[index].tolist()
        centre = _rectangle(self._sums, windows, (x + w, y + h, w, h))
        code = np.zeros(len(windows), dtype=np.int64)
        for row, column, bit in _RING:
            code += bit * (_rectangle(self._sums, windows, (x + column * w, y + row * h, w, h)) >= centre)
        return code


def _rectangle(table: Ints, windows: Ints, rect: Rect) -> Ints:
    """Sum over a rectangle in each window, from the integral image; shape (n,)."""
    x, y = windows[:, 0] + rect[0], windows[:, 1] + rect[1]
    right, bottom = x + rect[2], y + rect[3]
    return np.asarray(table[y, x] - table[y, right] - table[bottom, x] + table[bottom, right])


def _tilted_rectangle(table: Ints, windows: Ints, rect: Rect) -> Ints:
    """Sum over a rectangle rotated by 45 degrees, from the tilted integral image; shape (n,)."""
    w, h = rect[2:]
    x, y = windows[:, 0] + rect[0], windows[:, 1] + rect[1]
    return np.asarray(table[y, x] - table[y + h, x - h] - table[y + w, x + w] + table[y + w + h, x + w - h])
