"""Integral images, and the resampling that feeds them: everything compiled that touches pixels.

Entry (Y, X) of an integral image is the sum of the pixels above row Y and left of column X, so a rectangle of any size
costs four look-ups. `integral_planes` makes, in one pass over the source picture, what the scan reads at one scale:
the resampled rows, their sums and their sums of squares.

References
----------
P. Viola and M. Jones, "Rapid object detection using a boosted cascade of simple features", CVPR 2001, section 2.1.
R. Lienhart and J. Maydt, "An extended set of Haar-like features for rapid object detection", ICIP 2002 (tilted sums).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from vj.errors import InputError

SLACK = 64
"""Entries kept readable behind every row and plane: the scan loads whole groups of neighbouring windows."""

Gray = npt.NDArray[np.uint8]


class Axis(NamedTuple):
    """How one axis is resampled: target i is ``(w0[i] * source[first[i]] + w1[i] * source[first[i] + 1]) / 256``."""

    first: npt.NDArray[np.int32]
    w0: npt.NDArray[np.int32]
    w1: npt.NDArray[np.int32]


class Planes(NamedTuple):
    """Integral images of one horizontal band of one scale, in the layout that the scan reads.

    Row Y starts at ``Y * row_stride``. With a window stride of 1, column X is entry X of the row; with 2, the even
    columns come first and the odd ones from ``odd`` on, so that neighbouring windows are neighbouring entries. The
    tilted integral image, where there is one, follows the upright one in every row, from entry ``tilted`` on.

    Parameters
    ----------
    image : ndarray of uint8, shape (rows, width)
        The resampled pixels.
    sums : ndarray of int32, shape (n,)
        Integral image.
    squares : ndarray of uint32, shape (n,)
        Integral image of the squares, modulo 2**32.
    row_stride, odd, tilted : int
        Entries to the next row, to the odd columns (0 with stride 1), to the tilted sums (0 without).
    stride : int
        1 or 2: pixels between neighbouring windows.
    """

    image: npt.NDArray[np.uint8]
    sums: npt.NDArray[np.int32]
    squares: npt.NDArray[np.uint32]
    row_stride: int
    odd: int
    tilted: int
    stride: int


def resampling_axis(source: int, target: int) -> Axis:
    """Return the weights of OpenCV's bit-exact bilinear resampling from `source` to `target` pixels.

    The arithmetic is that of ``cv2.INTER_LINEAR_EXACT``: float64 positions from the two integer sizes, weights rounded
    to 1/256, the border pixel alone beyond the border.
    """
    scale = 1.0 / (np.float64(target) / source)
    position = scale * (np.arange(target, dtype=np.float64) + 0.5) - 0.5
    first = np.floor(position)
    w1 = np.rint((position - first) * 256)
    low, high = first < 0, first >= source - 1
    first = np.clip(first, 0, max(source - 2, 0))
    w1 = np.where(low | (source == 1), 0, np.where(high, 256, w1))
    return Axis(first.astype(np.int32), (256 - w1).astype(np.int32), w1.astype(np.int32))


@njit(cache=True, nogil=True)
def _blend_rows(gray, y, w0, w1, out):
    """Blend source rows y and y + 1 into `out` (8.8 fixed point): exact, so it may come before the horizontal pass."""
    width = gray.shape[1]
    if w1 == 0:
        for x in range(width):
            out[x] = np.uint16(np.uint16(gray[y, x]) << np.uint16(8))
    else:
        a, b = np.uint16(w0), np.uint16(w1)
        for x in range(width):
            out[x] = np.uint16(np.uint16(gray[y, x]) * a + np.uint16(gray[y + 1, x]) * b)


@njit(cache=True, nogil=True)
def _resample_row(blended, first, w0, w1, out):
    for x in range(len(first)):
        i = np.uintp(first[x])
        value = np.uint32(w0[x]) * np.uint32(blended[i]) + np.uint32(w1[x]) * np.uint32(blended[i + np.uintp(1)])
        out[x] = np.uint8((value + np.uint32(32768)) >> np.uint32(16))


@njit(cache=True, nogil=True)
def _resample_band(gray, columns, rows, top, image):
    """Resample target rows `top` and on into `image`, shape (n, width)."""
    blended = np.zeros(gray.shape[1] + 1, np.uint16)
    for r in range(image.shape[0]):
        _blend_rows(gray, rows.first[top + r], rows.w0[top + r], rows.w1[top + r], blended)
        _resample_row(blended, columns.first, columns.w0, columns.w1, image[r])


@njit(cache=True, nogil=True)
def _integrate(image, sums, squares, row_stride, odd):
    """Fill the sum and square planes of Planes; `odd` is 0 where columns are not split."""
    height, width = image.shape
    for x in range(width + 1 if odd == 0 else odd + (width + 1) // 2 + 1):
        sums[x] = 0
        squares[x] = 0
    for y in range(height):
        above = np.uintp(y * row_stride)
        here = np.uintp((y + 1) * row_stride)
        total = np.int32(0)
        square = np.uint32(0)
        sums[here] = 0
        squares[here] = 0
        if odd == 0:
            for x in range(width):
                p = np.int32(image[y, x])
                total = np.int32(total + p)
                square = np.uint32(square + np.uint32(p * p))
                k = np.uintp(x + 1)
                sums[here + k] = np.int32(sums[above + k] + total)
                squares[here + k] = np.uint32(squares[above + k] + square)
        else:
            offset = np.uintp(odd)
            sums[here + offset] = 0
            squares[here + offset] = 0
            for j in range((width + 1) // 2):
                p = np.int32(image[y, 2 * j])
                total = np.int32(total + p)
                square = np.uint32(square + np.uint32(p * p))
                k = offset + np.uintp(j)
                sums[here + k] = np.int32(sums[above + k] + total)
                squares[here + k] = np.uint32(squares[above + k] + square)
                if 2 * j + 1 < width:
                    p = np.int32(image[y, 2 * j + 1])
                    total = np.int32(total + p)
                    square = np.uint32(square + np.uint32(p * p))
                    k = np.uintp(j + 1)
                    sums[here + k] = np.int32(sums[above + k] + total)
                    squares[here + k] = np.uint32(squares[above + k] + square)


@njit(cache=True, nogil=True)
def _integrate_tilted(image, out):
    """Fill the tilted integral image, shape (h + 1, w + 1), as `tilted_integral` defines it.

    One row of the recursion T(Y, X) = T(Y-1, X-1) + T(Y-1, X+1) - T(Y-2, X) + I(Y-1, X-1) + I(Y-2, X-1) needs columns
    beyond both borders; they are carried in rows that are wider by the picture's height on either side.
    """
    height, width = image.shape
    margin = height + 1
    before = np.zeros(width + 1 + 2 * margin, np.int32)
    last = np.zeros_like(before)
    new = np.zeros_like(before)
    out[0, :] = 0
    for y in range(1, height + 1):
        # Columns further out than y are still zero on this row.
        low, high = margin - y, margin + width + 1 + y
        for k in range(max(low, 1), min(high, len(before) - 1)):
            x = k - margin
            value = last[k - 1] + last[k + 1] - before[k]
            if 1 <= x <= width:
                value += np.int32(image[y - 1, x - 1])
                if y > 1:
                    value += np.int32(image[y - 2, x - 1])
            new[k] = np.int32(value)
        before, last, new = last, new, before
        for x in range(width + 1):
            out[y, x] = last[margin + x]


@njit(cache=True, nogil=True)
def _split_columns(table, row_stride, odd, out):
    """Copy an (h + 1, w + 1) integral image into the layout of Planes."""
    height, width = table.shape
    for y in range(height):
        for x in range(width):
            k = x if odd == 0 else (x >> 1) + (x & 1) * odd
            out[y * row_stride + k] = table[y, x]


class Layout(NamedTuple):
    """How rows of `Planes` are laid out; the same for all levels of a picture, so that tables can be kept.

    Parameters
    ----------
    stride : int
        1 or 2.
    odd, tilted, row_stride : int
        As in `Planes`.
    """

    stride: int
    odd: int
    tilted: int
    row_stride: int


def layout(width: int, stride: int, tilted: bool) -> Layout:
    """Return the layout for levels up to `width` pixels wide."""
    columns = (width + 1 if stride == 1 else (width + 2) // 2) + SLACK
    # An odd number of cache lines to the next row: powers of two would map a window's rows to the same cache sets.
    row = (-(-columns // 16) | 1) * 16
    across = row * stride
    return Layout(stride, row if stride == 2 else 0, across if tilted else 0, across * (2 if tilted else 1))


def integral_planes(gray: Gray, columns: Axis, rows: Axis, band: tuple[int, int], shape: Layout) -> Planes:
    """Resample a band of a picture and integrate it.

    Parameters
    ----------
    gray : ndarray of uint8, shape (h, w)
        The full-size picture.
    columns, rows : Axis
        From `resampling_axis`, for the width and the height.
    band : (int, int)
        Target rows to make, ``band[0] <= y < band[1]``.
    shape : Layout
        From `layout`, for a width of at least the target's.

    Returns
    -------
    Planes
    """
    top, bottom = band
    height, width = bottom - top, len(columns.first)
    image = np.empty((height, width), dtype=np.uint8)
    _resample_band(gray, columns, rows, top, image)
    entries = (height + 1) * shape.row_stride + SLACK
    sums = np.empty(entries, dtype=np.int32)
    squares = np.empty(entries, dtype=np.uint32)
    _integrate(image, sums, squares, shape.row_stride, shape.odd)
    if shape.tilted:
        table = np.empty((height + 1, width + 1), dtype=np.int32)
        _integrate_tilted(image, table)
        _split_columns(table, shape.row_stride, shape.odd, sums[shape.tilted :])
    return Planes(image, sums, squares, shape.row_stride, shape.odd, shape.tilted, shape.stride)


def resize(gray: Gray, size: tuple[int, int]) -> Gray:
    """Resample a picture exactly as ``cv2.resize(..., interpolation=cv2.INTER_LINEAR_EXACT)`` does.

    Parameters
    ----------
    gray : ndarray of uint8, shape (h, w)
    size : (int, int)
        Width and height of the result.

    Returns
    -------
    ndarray of uint8, shape (size[1], size[0])

    Raises
    ------
    InputError
        If either size is empty.
    """
    _check(gray)
    width, height = size
    if width < 1 or height < 1 or gray.size == 0:
        raise InputError(f"expected sizes of at least 1x1, got {gray.shape[1]}x{gray.shape[0]} to {width}x{height}")
    out = np.empty((height, width), dtype=np.uint8)
    columns, rows = resampling_axis(gray.shape[1], width), resampling_axis(gray.shape[0], height)
    _resample_band(np.ascontiguousarray(gray), columns, rows, 0, out)
    return out


def integral_images(gray: Gray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
    """Return the integral image of a picture and that of its squares.

    Parameters
    ----------
    gray : ndarray of uint8, shape (h, w)

    Returns
    -------
    sums : ndarray of int32, shape (h + 1, w + 1)
        Modulo 2**32; exact below 8 million pixels. The difference of four entries is exact wherever its value is.
    squares : ndarray of uint32, shape (h + 1, w + 1)
        Modulo 2**32.
    """
    _check(gray)
    height, width = gray.shape
    sums = np.zeros((height + 1) * (width + 1), dtype=np.int32)
    squares = np.zeros((height + 1) * (width + 1), dtype=np.uint32)
    _integrate(np.ascontiguousarray(gray), sums, squares, width + 1, 0)
    return sums.reshape(height + 1, width + 1), squares.reshape(height + 1, width + 1)


def tilted_integral(gray: Gray) -> npt.NDArray[np.int32]:
    """Return the integral image over 45-degree cones, as ``cv2.integral3`` does.

    Parameters
    ----------
    gray : ndarray of uint8, shape (h, w)

    Returns
    -------
    ndarray of int32, shape (h + 1, w + 1)
        Entry (Y, X) sums the pixels (x, y) with y < Y and |x - X + 1| <= Y - y - 1, modulo 2**32.
    """
    _check(gray)
    out = np.empty((gray.shape[0] + 1, gray.shape[1] + 1), dtype=np.int32)
    _integrate_tilted(np.ascontiguousarray(gray), out)
    return out


def _check(gray: Gray) -> None:
    if gray.dtype != np.uint8 or gray.ndim != 2:
        raise InputError(f"expected a grey picture as uint8 of shape (h, w), got {gray.dtype} of shape {gray.shape}")
