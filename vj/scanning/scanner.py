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

from vj._types import Floats
from vj.cascade.model import Cascade
from vj.scanning import _kernels as kernels
from vj.scanning.planes import Layout, Planes, integral_planes, layout, resampling_axis
from vj.scanning.tables import (
    LaneTables,
    lane_order,
    lane_tables,
    merge_corners,
    offsets,
    plain_corners,
    plain_tables,
)

# Windows integrated at a time: 10 MB of planes at 24x24.
_CHUNK = 4096

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


class _Grid(NamedTuple):
    rows: int
    columns: int
    row_step: int
    corners: tuple[int, int, int, int]


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
    """

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade
        self._plain = plain_tables(cascade)
        merged = merge_corners(cascade)
        order = lane_order(cascade, merged.kinds)
        self._lanes = lane_tables(cascade, merged, order)
        self._plain_corners = plain_corners(cascade)
        self._lane_corners = merged.corners[cascade.node_features[order]]
        self._offsets: dict[Layout, tuple[Any, LaneTables, tuple[int, int, int, int]]] = {}

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
        grid, plain, _ = self._tables(planes, rows, columns)
        depth = np.empty((rows, columns), dtype=np.int16)
        sums, limits = np.empty((rows, columns)), np.empty((rows, columns))
        kernels.depths_plain(planes.sums, planes.squares, grid, self._plain, plain, depth, sums, limits)
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
            grid, plain, _ = self._tables(planes, rows, 1)
            grid = grid._replace(row_step=shape.row_stride * height)
            results = out[first : first + rows]
            kernels.part_sums_plain(planes.sums, planes.squares, grid, self._plain, plain, results)
        return out

    def _run(
        self, planes: Planes, rows: int, columns: int, skip: bool, *, count: bool = False, plain: bool = False
    ) -> _Result:
        """Run one of the two scans; features are counted if asked for."""
        grid, plain_offsets, lanes = self._tables(planes, rows, columns)
        hits = np.empty((rows * columns, 2), dtype=np.int32)
        sums = np.empty(rows * columns, dtype=np.float64)
        n_stages = self.cascade.n_stages
        # Bounds checking does not see the loads of the lane scan; the plain one gives the same answer.
        plain = plain or bool(config.BOUNDSCHECK)  # type: ignore[attr-defined]
        counts = np.zeros(n_stages, dtype=np.int64), np.zeros(n_stages if count or plain else 0, dtype=np.int64)
        image, results = (planes.sums, planes.squares, grid), (hits, sums, counts)
        if plain:
            found, windows = kernels.scan_plain(*image, self._plain, plain_offsets, skip, *results)
        else:
            found, windows = kernels.scan_lanes(*image, lanes, self._plain, plain_offsets, skip, *results)
        return _Result(hits[:found], sums[:found], windows, *counts)

    def _tables(self, planes: Planes, rows: int, columns: int) -> tuple[_Grid, Any, LaneTables]:
        shape = planes.layout
        known = self._offsets.get(shape)
        if known is None:
            plain = offsets(self._plain_corners, shape)
            records, walk = self._lanes.records.copy(), self._lanes.walk.copy()
            records[:, : self._lane_corners.shape[1]] = offsets(self._lane_corners, shape)
            if len(walk):
                walk[:, : plain.shape[1]] = plain[self.cascade.node_features]
            width, height = self.cascade.window
            inner = np.array([[1, 1, 0], [1, width - 1, 0], [height - 1, 1, 0], [height - 1, width - 1, 0]])
            a, b, c, d = offsets(inner, shape).tolist()
            known = (plain, self._lanes._replace(records=records, walk=walk), (a, b, c, d))
            if len(self._offsets) > 16:
                self._offsets.clear()
            self._offsets[shape] = known
        grid = _Grid(rows, columns, shape.row_stride * shape.stride, known[2])
        return grid, known[0], known[1]
