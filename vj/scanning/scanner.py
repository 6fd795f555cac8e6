"""The scan: how deep each window gets into a cascade, and with what sum.

Everything that looks at images through a cascade reads this one answer: a detection is a window that passed all stages,
a hard negative is such a window of a background, a rejection rate is the share of windows that end at a stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba.core import config

from vj._types import Floats, Gray
from vj.cascade.model import Cascade
from vj.scanning import _kernels as kernels
from vj.scanning._levels import Bands, Cascades, Found, Marks, scan_bands, scan_marked
from vj.scanning.planes import Layout, Planes, integral_planes, layout, resampling_axis
from vj.scanning.tables import (
    Grid,
    branches,
    lane_order,
    lane_tables,
    merge_corners,
    offsets,
    parts_of,
    plain_corners,
    plain_tables,
    unchained,
    walk_corners,
)

MOST_LAYOUTS = 16
"""Layouts, one for images of each width, for which tables are kept."""

# Windows integrated at a time: 10 MB of planes at 24x24.
_CHUNK = 4096


class _Placed(NamedTuple):
    """What depends on a layout: offsets for the plain scan, the corners of norms, and the tables of the lane scan.

    `words` stand for those, see `lane_words`, and are good as long as these are kept.
    """

    offsets: npt.NDArray[np.int64]
    corners: tuple[int, int, int, int]
    words: npt.NDArray[np.uintp]
    lanes: kernels.LaneTables


FLAT = -1
"""Depth of a window dropped before the first stage: its standard deviation is too low (Haar only)."""


@dataclass(frozen=True, eq=False)
class LevelScan:
    """What a scan of one level found.

    Parameters
    ----------
    xs, ys : ndarray of int32, shape (n,)
        Top left corners of the hits, in pixels of the level; by row, then column.
    sums : ndarray of float64, shape (n,)
        Each one's sum of the last stage.
    windows : int
        Windows visited, flat ones included.
    """

    xs: npt.NDArray[np.int32]
    ys: npt.NDArray[np.int32]
    sums: Floats
    windows: int


class LevelCount(NamedTuple):
    """What a scan of one level evaluates.

    Parameters
    ----------
    windows, hits : int
        Windows visited, flat ones included, and those that passed all stages.
    entered, features : ndarray of int64, shape (n_stages,)
        Windows that entered each stage, and features evaluated in it.
    """

    windows: int
    hits: int
    entered: npt.NDArray[np.int64]
    features: npt.NDArray[np.int64]


class _Result(NamedTuple):
    hits: npt.NDArray[np.int32]
    sums: Floats
    windows: int
    entered: npt.NDArray[np.int64]
    features: npt.NDArray[np.int64]


class Scanner:
    """A cascade made ready to scan; may be used by many threads at once.

    Parameters
    ----------
    cascade : Cascade

    Attributes
    ----------
    limit : float
        The last stage limit.
    """

    def __init__(self, cascade: Cascade) -> None:
        self.cascade, self.limit = cascade, float(cascade.stage_limits[-1])
        cascade, heads = unchained(cascade)
        parts = parts_of(cascade, heads)
        self._plain = plain_tables(cascade, parts)
        self._merged = merged = merge_corners(cascade)
        order = lane_order(cascade, parts, merged.kinds)
        self._lanes = lane_tables(cascade, parts, merged, order)
        # Bounds checking does not see the loads of the lane scan, and where several branches lead to one node, as they
        # may in a file, the lane scan has no place for it. The plain one gives the same answer.
        self._one_by_one = bool(config.BOUNDSCHECK) or branches(cascade).shared  # type: ignore[attr-defined]
        self._plain_corners = plain_corners(cascade)
        self._features, self._order = cascade.node_features, cascade.node_features[order]
        self._placed: dict[Layout, _Placed] = {}
        self._called: dict[tuple[tuple[Layout, Layout], tuple[Scanner, ...]], tuple[Cascades, Any, Any]] = {}

    def scan(self, planes: Planes, rows: int, columns: int, skip: bool) -> LevelScan:
        """Find the hits among the first `rows` by `columns` windows of integral images.

        Parameters
        ----------
        planes : Planes
        rows, columns : int
        skip : bool
            Leave out, as OpenCV does, the right neighbour of a window that the first stage rejected.

        Returns
        -------
        LevelScan
        """
        result = self._run(planes, rows, columns, skip)
        corners = result.hits * np.int32(planes.layout.stride)
        return LevelScan(corners[:, 1].copy(), corners[:, 0].copy(), result.sums.copy(), result.windows)

    def count(self, planes: Planes, rows: int, columns: int, skip: bool) -> LevelCount:
        """Count what `scan` evaluates, in up to twice its time."""
        result = self._run(planes, rows, columns, skip, count=True)
        return LevelCount(result.windows, len(result.hits), result.entered, result.features)

    def depths(self, planes: Planes, rows: int, columns: int) -> tuple[npt.NDArray[np.int16], Floats, Floats]:
        """Return how deep the first `rows` by `columns` windows of integral images get.

        Returns
        -------
        depth : ndarray of int16, shape (rows, columns)
            Stages passed; `FLAT` for a window dropped before the first.
        sums : ndarray of float64, shape (rows, columns)
            Sum of the last stage reached, as far as it was summed.
        limits : ndarray of float64, shape (rows, columns)
            What that sum had to reach: a soft threshold or the stage limit.
        """
        grid, placed = self._tables(planes, rows, columns)
        depth = np.empty((rows, columns), dtype=np.int16)
        sums, limits = np.empty((rows, columns)), np.empty((rows, columns))
        kernels.depths_plain(planes.sums, planes.squares, grid, self._plain, placed.offsets, depth, sums, limits)
        return depth, sums, limits

    def part_sums(self, windows: npt.NDArray[np.uint8]) -> Floats:
        """Return the sums of windows at the end of every part of the cascade: at soft thresholds and at stage limits.

        Parameters
        ----------
        windows : ndarray of uint8, shape (n, height, width)
            Of the cascade's window.

        Returns
        -------
        ndarray of float64, shape (n, n_parts)
            Minus infinity after the part that rejects the window.
        """
        n, height, width = windows.shape
        out = np.empty((n, len(self._plain.part_limits)))
        shape = layout(width, 1, self.cascade.has_tilted)
        for first in range(0, n, _CHUNK):
            # One above the other, as an image of one column of windows.
            part = np.ascontiguousarray(windows[first : first + _CHUNK]).reshape(-1, width)
            axes = resampling_axis(width, width), resampling_axis(len(part), len(part))
            planes = integral_planes(part, axes, (0, len(part)), shape)
            rows = len(part) // height
            grid, placed = self._tables(planes, rows, 1)
            grid = grid._replace(row_step=shape.row_stride * height)
            results = out[first : first + rows]
            kernels.part_sums_plain(planes.sums, planes.squares, grid, self._plain, placed.offsets, results)
        return out

    def _run(
        self,
        planes: Planes,
        rows: int,
        columns: int,
        skip: bool,
        *,
        visit: kernels.Visit | None = None,
        count: bool = False,
        plain: bool = False,
    ) -> _Result:
        """Run one of the two scans; features are counted if asked for."""
        grid, placed = self._tables(planes, rows, columns)
        results = np.empty((64, 2), dtype=np.int32), np.empty(64, dtype=np.float64), 0
        n_stages = self.cascade.n_stages
        counts = np.zeros(n_stages, dtype=np.int64), np.zeros(n_stages if count else 0, dtype=np.int64)
        if plain or self._one_by_one:
            hits, sums, found, windows = kernels.scan_plain(
                planes, grid, self._plain, placed.offsets, skip, visit, results, counts
            )
        elif visit is not None and visit.fine:
            hits, sums, found, windows = self._run_listed(planes, grid, placed, visit, results, counts, count)
        else:
            hits, sums, found, windows = kernels.scan_lanes(
                planes, grid, placed.words, skip, visit, results, counts[0], counts[1] if count else None
            )
        return _Result(hits[:found], sums[:found], windows, *counts)

    def _run_listed(
        self, planes: Planes, grid: Grid, placed: _Placed, visit: kernels.Visit, results: Any, counts: Any, count: bool
    ) -> Any:
        """Run the scan of listed windows over the marked ones of a grid."""
        room = kernels.count_marked(visit, grid.rows, grid.columns)
        listed = kernels.Listed(np.empty(room, np.uintp), np.empty((room, 2), np.int64), np.empty(room, np.uint32))
        n, windows = kernels.list_marked(visit, grid.rows, grid.columns, 0, grid.row_step, listed, 0)
        ends, after = np.array([n]), np.empty(1, dtype=np.int64)
        found = kernels.scan_listed(
            planes, grid.corners, placed.words, listed, ends, after, results, counts[0], counts[1] if count else None
        )
        return (*found, windows)

    def scan_bands(
        self,
        gray: Gray,
        todo: Bands,
        shapes: tuple[Layout, Layout],
        counter: npt.NDArray[np.int64],
        space: Any,
        options: tuple[Marks | None, tuple[bool, int], bool | None],
        others: tuple[Scanner, ...] = (),
    ) -> Found:
        """Scan bands of an image until none is left or enough is done; see `_levels.scan_bands`.

        Parameters
        ----------
        gray : ndarray of uint8, shape (h, w)
        todo : Bands
        shapes : (Layout, Layout)
            Of levels with strides of 1 and 2.
        counter : ndarray of int64, shape (1,)
            Number of bands taken, by all threads.
        space : tuple of arrays
            From `Workspace.take`.
        options : (Marks or None, (bool, int), True or None)
            Which windows are visited, None for all; whether to leave out windows as OpenCV does, and pixels to do
            before returning; whether to count features.
        others : tuple of Scanner
            That scan the same bands.
        """
        marks, within, count = options
        cascades, plain, _ = self._called.get((shapes, others)) or self._call(shapes, others)
        found: Found
        if marks is not None and marks.fine and plain is None:
            found = scan_marked(gray, todo, counter, space, shapes, cascades, marks, within[1], count)
        else:
            found = scan_bands(gray, todo, counter, space, shapes, cascades, plain, marks, within, count)
        return found

    def _call(self, shapes: tuple[Layout, Layout], others: tuple[Scanner, ...]) -> tuple[Cascades, Any, Any]:
        """Return what calls for these layouts and scanners read: made once, which took as long as a call itself.

        The last is what addresses among it are of.
        """
        scanners = (self, *others)
        placed = [[one._place(shape) for shape in shapes] for one in scanners]
        cascades = Cascades(
            np.array([(one.cascade.n_stages, *one.cascade.window[::-1]) for one in scanners], dtype=np.int64),
            np.array([[at.corners for at in pair] for pair in placed], dtype=np.int64),
            np.array([[at.words for at in pair] for pair in placed]),
        )
        plain = None
        if any(one._one_by_one for one in scanners):
            plain = tuple((one._plain, (a.offsets, b.offsets)) for one, (a, b) in zip(scanners, placed, strict=True))
        if len(self._called) > MOST_LAYOUTS:
            self._called.clear()
        return self._called.setdefault((shapes, others), (cascades, plain, placed))

    def _tables(self, planes: Planes, rows: int, columns: int) -> tuple[Grid, _Placed]:
        shape = planes.layout
        placed = self._place(shape)
        return Grid(rows, columns, shape.row_stride * shape.stride, placed.corners), placed

    def _place(self, shape: Layout) -> _Placed:
        """Return what depends on a layout, made once."""
        known = self._placed.get(shape)
        if known is None:
            plain = offsets(self._plain_corners, shape)
            records, walk = self._lanes.records.copy(), self._lanes.walk.copy()
            merged = offsets(self._merged.corners, shape)
            records[:, : merged.shape[1]] = merged[self._order]
            corners = plain if self.cascade.kind == "lbp" else walk_corners(plain, merged, self._merged)
            walk[:, : plain.shape[1]] = corners[self._features]
            lanes = self._lanes._replace(records=records, walk=walk)
            width, height = self.cascade.window
            inner = np.array([[1, 1, 0], [1, width - 1, 0], [height - 1, 1, 0], [height - 1, width - 1, 0]])
            a, b, c, d = offsets(inner, shape).tolist()
            known = _Placed(plain, (a, b, c, d), kernels.lane_words(lanes), lanes)
            if len(self._placed) > MOST_LAYOUTS:
                self._placed.clear()
            self._placed[shape] = known
        return known
