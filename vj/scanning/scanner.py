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

from vj.cascade.model import Cascade
from vj.errors import InputError
from vj.scanning import _kernels as kernels
from vj.scanning.planes import Layout, Planes, integral_planes, layout, resampling_axis
from vj.scanning.tables import (
    LaneTables,
    lane_order,
    lane_tables,
    merge_corners,
    node_depths,
    place,
    plain_corners,
    plain_tables,
)

FLAT = -1
"""Depth of a window dropped before the first stage: its standard deviation is at most 10 grey levels (Haar only)."""


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
        depth = node_depths(cascade)
        order = lane_order(cascade, merged.kinds, depth)
        self._lanes = lane_tables(cascade, merged, order, depth)
        self._plain_corners = plain_corners(cascade)
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

    def _tables(self, planes: Planes, rows: int, columns: int) -> tuple[_Grid, Any, LaneTables]:
        shape = Layout(planes.stride, planes.odd, planes.tilted, planes.row_stride)
        known = self._offsets.get(shape)
        if known is None:
            plain = place(self._plain_corners, shape)
            lanes = self._lanes.records.copy()
            lanes[:, : self._lane_corners.shape[1]] = place(self._lane_corners, shape)
            width, height = self.cascade.window
            inner = np.array([[1, 1, 0], [1, width - 1, 0], [height - 1, 1, 0], [height - 1, width - 1, 0]])
            a, b, c, d = place(inner, shape).tolist()
            known = (plain, lanes, (a, b, c, d))
            if len(self._offsets) > 16:
                self._offsets.clear()
            self._offsets[shape] = known
        grid = _Grid(rows, columns, planes.row_stride * planes.stride, known[2])
        return grid, known[0], self._lanes._replace(records=known[1])
