"""The image pyramid: which scales are scanned, and on which grid of windows.

The rules are those of OpenCV's detector, so that the same cascade with the same settings visits the same windows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vj._types import Gray, Size
from vj.errors import InputError
from vj.scanning._geometry import fitting_scales, level_table
from vj.scanning.planes import Axis, Layout, Planes, Workspace, integral_planes, resampling_axis, resize

__all__ = ["Level", "levels", "resize", "scale_list"]


class Level(NamedTuple):
    """One scale of the pyramid.

    Parameters
    ----------
    scale : float
        Factor from this level's pixels to the image's; a float32 value.
    source : (int, int)
        Width and height of the full-size image.
    size : (int, int)
        Width and height of the resampled image.
    window : (int, int)
        Width and height of the cascade's window.
    stride : int
        Pixels of this level between neighbouring windows, across and down.
    rows, columns : int
        Of windows; 0 of both if there are none.
    """

    scale: float
    source: Size
    size: Size
    window: Size
    stride: int
    rows: int
    columns: int

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """How columns and rows are resampled."""
        return (
            resampling_axis(self.source[0], self.size[0]),
            resampling_axis(self.source[1], self.size[1]),
        )

    def planes(self, gray: Gray, band: tuple[int, int], shape: Layout, space: Workspace | None = None) -> Planes:
        """Return what a scan of a band of rows of windows reads.

        Parameters
        ----------
        gray : ndarray of uint8, shape (h, w)
            The full-size image.
        band : (int, int)
            First row of windows, and the one after the last.
        shape : Layout
            For this level's stride, and a width of at least this level's.
        space : Workspace, optional
            Memory to use; by default new memory.
        """
        first, last = band
        top = first * self.stride
        bottom = (last - 1) * self.stride + self.window[1]
        return integral_planes(gray, self.axes, (top, bottom), shape, space)


def scale_list(
    size: Size, window: Size, scale_factor: float, min_size: Size = (0, 0), max_size: Size = (0, 0)
) -> npt.NDArray[np.float32]:
    """Return the scales at which an image is scanned, smallest window first.

    Parameters
    ----------
    size : (int, int)
        Width and height of the image.
    window : (int, int)
        Width and height of the cascade's window.
    scale_factor : float
        Ratio of one scale to the next, above 1.
    min_size, max_size : (int, int)
        Smallest and largest window, in pixels of the image; a maximum with a zero means the image's size. If no
        scale fits, the one nearest to `min_size` is kept, as OpenCV does.

    Returns
    -------
    ndarray of float32, shape (n,)

    Raises
    ------
    InputError
        If the scale factor is not above 1.
    """
    if not (np.isfinite(scale_factor) and scale_factor > 1):
        raise InputError(f"expected a scale_factor above 1, got {scale_factor}")
    # Squares of more would not fit 64 bits.
    sides = tuple(min(int(side), 1 << 30) for side in (*min_size, *max_size))
    found: npt.NDArray[np.float32] = fitting_scales(size, window, float(scale_factor), sides)
    return found


def levels(
    size: Size,
    window: Size,
    scale_factor: float,
    min_size: Size = (0, 0),
    max_size: Size = (0, 0),
    stride: int | None = None,
) -> list[Level]:
    """Return the levels of the pyramid.

    Parameters
    ----------
    size, window, scale_factor, min_size, max_size
        As for `scale_list`.
    stride : int, optional
        Pixels between neighbouring windows, 1 or 2. By default OpenCV's rule: 2 below scale 2, else 1, and the rows
        that its division into stripes visits.

    Returns
    -------
    list of Level
    """
    if stride not in (None, 1, 2):
        raise InputError(f"expected a stride of 1 or 2, got {stride}")
    scales = scale_list(size, window, scale_factor, min_size, max_size)
    rows = zip(scales.tolist(), level_table(size, window, scales, stride or 0).tolist(), strict=True)
    return [Level(scale, size, (row[0], row[1]), window, *row[2:]) for scale, row in rows]
