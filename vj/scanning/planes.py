"""Integral images, and the resampling that feeds them: everything compiled that touches pixels.

Entry (Y, X) of an integral image is the sum of the pixels above row Y and left of column X, so a rectangle of any size
costs four look-ups. `integral_planes` makes what the scan reads at one scale, in one pass over the source image: the
resampled rows, their sums and their sums of squares.

References
----------
P. Viola and M. Jones, "Rapid object detection using a boosted cascade of simple features", CVPR 2001, section 2.1.
R. Lienhart and J. Maydt, "An extended set of Haar-like features for rapid object detection", ICIP 2002 (tilted sums).
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

from vj._compile import njit
from vj._types import Gray
from vj.errors import InputError

SLACK = 64
"""Entries kept readable after every row and plane: the scan loads whole vectors of neighbouring windows."""


class Axis(NamedTuple):
    """How one axis is resampled: target i is source ``first[i] + w1[i] / 256``, linearly between its neighbours."""

    first: npt.NDArray[np.int32]
    w1: npt.NDArray[np.int32]


class Layout(NamedTuple):
    """Where the entries of `Planes` are; the same for all levels of an image, so that tables can be kept.

    Row Y starts at ``Y * row_stride``. With a window stride of 1, column X is entry X of the row; with 2, the even
    columns come first and the odd ones start at entry ``odd``, so that neighbouring windows are neighbouring entries.
    The tilted integral image, where there is one, follows the upright one in every row, starting at entry ``tilted``.

    Parameters
    ----------
    stride : int
        1 or 2: pixels between neighbouring windows.
    odd, tilted, row_stride : int
        Entries to the odd columns (0 with stride 1), to the tilted sums (0 without), to the next row.
    """

    stride: int
    odd: int
    tilted: int
    row_stride: int


class Planes(NamedTuple):
    """Integral images of one horizontal band of one scale, in the layout that the scan reads.

    Parameters
    ----------
    image : ndarray of uint8, shape (rows, width)
        The resampled pixels.
    sums : ndarray of int32, shape (n,)
        Integral image.
    squares : ndarray of uint32, shape (n,)
        Integral image of the squares, modulo 2**32.
    low : ndarray of int16, shape (n,)
        Integral image modulo 2**16: enough for a value that fits 16 bits.
    layout : Layout
        Where the entries are.
    """

    image: npt.NDArray[np.uint8]
    sums: npt.NDArray[np.int32]
    squares: npt.NDArray[np.uint32]
    low: npt.NDArray[np.int16]
    layout: Layout


@lru_cache(maxsize=256)
def resampling_axis(source: int, target: int) -> Axis:
    """Return the weights of OpenCV's bit-exact bilinear resampling from `source` to `target` pixels.

    The arithmetic is that of ``cv2.INTER_LINEAR_EXACT``: float64 positions from the two integer sizes, weights rounded
    to 1/256, and only the border pixel beyond the border.
    """
    first, w1 = np.empty(target, np.int32), np.empty(target, np.int32)
    _fill_axis(source, first, w1)
    return Axis(first, w1)


@njit(cache=True, nogil=True)
def axes(size, levels):
    """Return what `resampling_axis` does for the columns and rows of all levels of an image; see `Bands`.

    Compiled, all at once: as arrays the axes took a tenth of the time of a small image of a new size.

    Parameters
    ----------
    size : (int, int)
    levels : ndarray of int64, shape (n_levels, 3 or more)
        Width, height and stride of each.

    Returns
    -------
    measures : ndarray of int64, shape (n_levels, 5)
    first, w1 : ndarray of int32
    """
    measures, end = np.empty((len(levels), 5), np.int64), 0
    for k in range(len(levels)):
        measures[k, 0], measures[k, 1], measures[k, 2] = levels[k, 0], levels[k, 1], levels[k, 2]
        measures[k, 3], measures[k, 4] = end, end + levels[k, 0]
        end += levels[k, 0] + levels[k, 1]
    first, w1 = np.empty(end, np.int32), np.empty(end, np.int32)
    for k in range(len(levels)):
        for side in range(2):
            begin = measures[k, 3 + side]
            _fill_axis(size[side], first[begin : begin + levels[k, side]], w1[begin : begin + levels[k, side]])
    return measures, first, w1


@njit(cache=True, nogil=True)
def _fill_axis(source, first, w1):
    scale = 1.0 / (np.float64(len(first)) / source)
    for d in range(len(first)):
        position = scale * (d + 0.5) - 0.5
        below = np.floor(position)
        first[d] = np.int32(min(max(below, 0.0), max(source - 2.0, 0.0)))
        if below < 0 or source == 1:
            w1[d] = 0
        elif below >= source - 1:
            w1[d] = 256
        else:
            w1[d] = np.int32(np.rint((position - below) * 256))


# Numba vectorises neither a look-up by index nor a running sum, so both are written as LLVM vectors, eight pixels at a
# time; every processor supports them. NUMBA_BOUNDSCHECK does not see their loads: `_PLAIN` below selects the plain
# loops, which give the same numbers.

_LANES = 8
_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
_VECTOR = ir.VectorType(_I32, _LANES)
_PLAIN = bool(config.BOUNDSCHECK)  # type: ignore[attr-defined]


def _indices(*values: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I32, len(values)), list(values))


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_VECTOR, [value] * _LANES)


def _at(builder, array, index, kind):
    """Return a pointer to entry `index` (uintp) of an array's data, as a pointer to `kind`."""
    return builder.bitcast(builder.gep(array.data, [index]), kind.as_pointer())


@intrinsic
def _resample_eight(typing, blended, first, w1, out, x):
    """Do what the loop of `_resample_row` does, for targets x to x + 7."""

    def generate(context, builder, signature, args):
        arrays = [
            context.make_array(kind)(context, builder, arg)
            for kind, arg in zip(signature.args[:4], args[:4], strict=True)
        ]
        source, places, weights, target = arrays
        pairs = ir.Constant(_VECTOR, ir.Undefined)
        for lane in range(_LANES):
            place = builder.load(_at(builder, places, builder.add(args[4], args[4].type(lane)), _I32))
            pair = builder.load(_at(builder, source, builder.zext(place, args[4].type), _I32))
            pair.align = 2
            pairs = builder.insert_element(pairs, pair, _I32(lane))
        low, high = builder.and_(pairs, _constant(0xFFFF)), builder.lshr(pairs, _constant(16))
        a, b = (low, high) if sys.byteorder == "little" else (high, low)
        weight = builder.load(_at(builder, weights, args[4], _VECTOR))
        weight.align = 4
        value = builder.add(builder.shl(a, _constant(8)), builder.mul(weight, builder.sub(b, a)))
        value = builder.lshr(builder.add(value, _constant(32768)), _constant(16))
        narrow = ir.VectorType(_I8, _LANES)
        builder.store(builder.trunc(value, narrow), _at(builder, target, args[4], narrow)).align = 1
        return context.get_dummy_value()

    return types.none(blended, first, w1, out, x), generate


def _running_sum(builder, vector):
    """Turn (a, b, c, ...) into (a, a + b, a + b + c, ...), in three steps of doubling reach."""
    for reach in (1, 2, 4):
        moved = _indices(*(_LANES + lane - reach if lane >= reach else 0 for lane in range(_LANES)))
        vector = builder.add(vector, builder.shuffle_vector(_constant(0), vector, moved))
    return vector


def _make_integrate(split):
    """Make the intrinsic that does what the loop of `_integrate_row` does, for 16 pixels of a row.

    `split` says whether even and odd columns are stored apart. Arguments: row of pixels, x of the first; the planes;
    entries of the first pixel's odd (or only) and even columns on this row, and the distance to the row above; the
    row's sums so far. Returns the new sums.
    """

    def integrate(typing, row, x, sums, squares, low, place, even, above, total, square):
        def generate(context, builder, signature, args):
            arrays = [context.make_array(signature.args[k])(context, builder, args[k]) for k in (0, 2, 3, 4)]
            pixels = []
            for half in range(2):
                start = builder.add(args[1], args[1].type(half * _LANES))
                loaded = builder.load(_at(builder, arrays[0], start, ir.VectorType(_I8, _LANES)))
                loaded.align = 1
                pixels.append(builder.zext(loaded, _VECTOR))
            carried = []
            for plane, carry, power in ((arrays[1], args[8], 1), (arrays[2], args[9], 2)):
                halves = []
                for vector in pixels:
                    vector = _running_sum(builder, builder.mul(vector, vector) if power == 2 else vector)
                    start = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), carry, _I32(0))
                    start = builder.shuffle_vector(start, start, _indices(*[0] * _LANES))
                    vector = builder.add(vector, start)
                    carry = builder.extract_element(vector, _I32(_LANES - 1))
                    halves.append(vector)
                carried.append(carry)
                if split:
                    ones = builder.shuffle_vector(*halves, _indices(*range(0, 2 * _LANES, 2)))
                    twos = builder.shuffle_vector(*halves, _indices(*range(1, 2 * _LANES, 2)))
                    parts = [(args[5], ones), (args[6], twos)]
                else:
                    parts = [(args[5], halves[0]), (builder.add(args[5], args[5].type(_LANES)), halves[1])]
                for entry, vector in parts:
                    before = builder.load(_at(builder, plane, builder.sub(entry, args[7]), _VECTOR))
                    before.align = 4
                    vector = builder.add(vector, before)
                    builder.store(vector, _at(builder, plane, entry, _VECTOR)).align = 4
                    if power == 1:
                        half = ir.VectorType(_I16, _LANES)
                        builder.store(builder.trunc(vector, half), _at(builder, arrays[3], entry, half)).align = 2
            return context.make_tuple(builder, signature.return_type, carried)

        result = types.Tuple((types.int32, types.uint32))
        return result(row, x, sums, squares, low, place, even, above, total, square), generate

    return intrinsic(integrate)


_integrate_sixteen = _make_integrate(split=False)
_integrate_sixteen_split = _make_integrate(split=True)


@njit(cache=True, inner=True)
def _blend_rows(gray, y, w1, out):
    """Blend source rows y and y + 1 into `out` (8.8 fixed point); exact, so that it may precede the horizontal pass."""
    width = gray.shape[1]
    if w1 == 0:
        for x in range(width):
            out[x] = np.uint16(np.uint16(gray[y, x]) << np.uint16(8))
    else:
        a, b = np.uint16(256 - w1), np.uint16(w1)
        for x in range(width):
            out[x] = np.uint16(np.uint16(gray[y, x]) * a + np.uint16(gray[y + 1, x]) * b)


@njit(cache=True, inner=True)
def _resample_row(blended, first, w1, out):
    """Resample one blended row to eight bits."""
    width = len(first)
    start = 0
    if not _PLAIN:
        for x in range(0, width - _LANES + 1, _LANES):
            _resample_eight(blended, first, w1, out, np.uintp(x))  # type: ignore[call-arg]
        start = width // _LANES * _LANES
    for x in range(start, width):
        i = np.uintp(first[x])
        a, b = np.int32(blended[i]), np.int32(blended[i + np.uintp(1)])
        out[x] = np.uint8(((a << 8) + w1[x] * (b - a) + 32768) >> 16)


@njit(cache=True, inner=True)
def _integrate_row(row, sums, squares, low, here, above, odd):
    """Fill the row of planes that starts at `here`, from a row of pixels and the row of planes `above` entries before.

    `odd` is where a row's odd columns start, or 0 if columns are not split.
    """
    width = len(row)
    total, square = np.int32(0), np.uint32(0)
    for plane in (here, here + odd):
        sums[plane] = 0
        squares[plane] = 0
        low[plane] = 0
    start = 0
    if not _PLAIN:
        start = width // 16 * 16
        for x in range(0, start, 16):
            # Pixel x completes column x + 1.
            if odd:
                place, even = np.uintp(here + odd + x // 2), np.uintp(here + x // 2 + 1)
                total, square = _integrate_sixteen_split(
                    row, np.uintp(x), sums, squares, low, place, even, np.uintp(above), total, square
                )
            else:
                place = np.uintp(here + x + 1)
                total, square = _integrate_sixteen(
                    row, np.uintp(x), sums, squares, low, place, place, np.uintp(above), total, square
                )
    for x in range(start, width):
        p = np.int32(row[x])
        total = np.int32(total + p)
        square = np.uint32(square + np.uint32(p * p))
        column = x + 1
        place = here + (column if odd == 0 else (column >> 1) + (column & 1) * odd)
        sums[place] = np.int32(sums[place - above] + total)
        squares[place] = np.uint32(squares[place - above] + square)
        low[place] = np.int16(sums[place])


@njit(cache=True, nogil=True)
def _resample_band(gray, columns, rows, top, image):
    """Resample the target rows that start at `top` into `image`, shape (n, width)."""
    blended = np.zeros(gray.shape[1] + 2, np.uint16)
    for r in range(image.shape[0]):
        _blend_rows(gray, rows.first[top + r], rows.w1[top + r], blended)
        _resample_row(blended, columns.first, columns.w1, image[r])


@njit(cache=True, nogil=True)
def _integrate(image, sums, squares, low):
    """Fill planes whose columns are in order and have no slack; their first row is zero already."""
    row_stride = image.shape[1] + 1
    for r in range(image.shape[0]):
        _integrate_row(image[r], sums, squares, low, (r + 1) * row_stride, row_stride, 0)


@njit(cache=True, nogil=True)
def _integrate_tilted(image, out):
    """Fill the tilted integral image, shape (h + 1, w + 1), as `tilted_integral` defines it.

    One row of the recursion T(Y, X) = T(Y-1, X-1) + T(Y-1, X+1) - T(Y-2, X) + I(Y-1, X-1) + I(Y-2, X-1) needs columns
    beyond both borders; they are carried in rows that are wider by the image's height on each side.
    """
    height, width = image.shape
    margin = height + 1
    before = np.zeros(width + 1 + 2 * margin, np.int32)
    last = np.zeros_like(before)
    new = np.zeros_like(before)
    out[0, :] = 0
    for y in range(1, height + 1):
        # On this row, columns more than y beyond a border are still zero.
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


@njit(cache=True, inner=True)
def _split_columns(table, row_stride, odd, out, low):
    """Copy an (h + 1, w + 1) integral image into the layout of Planes."""
    height, width = table.shape
    for y in range(height):
        for x in range(width):
            k = x if odd == 0 else (x >> 1) + (x & 1) * odd
            out[y * row_stride + k] = table[y, x]
            low[y * row_stride + k] = np.int16(table[y, x])


@njit(cache=True, nogil=True)
def fill_planes(gray, columns, rows, top, planes):
    """Resample the target rows that start at `top` into the image of some planes, and integrate them; see `Planes`."""
    image, sums, squares, low, layout = planes
    height, width = image.shape
    blended = np.zeros(gray.shape[1] + 2, np.uint16)
    first, weights = columns.first, columns.w1
    row_stride, odd = layout.row_stride, layout.odd
    used = width + 1 if odd == 0 else odd + (width + 1) // 2 + 1
    sums[:used] = 0
    squares[:used] = 0
    low[:used] = 0
    for r in range(height):
        _blend_rows(gray, rows.first[top + r], rows.w1[top + r], blended)
        row = image[r]
        _resample_row(blended, first, weights, row)
        _integrate_row(row, sums, squares, low, (r + 1) * row_stride, row_stride, odd)
    if layout.tilted:
        table = np.empty((height + 1, width + 1), np.int32)
        _integrate_tilted(image, table)
        _split_columns(table, row_stride, odd, sums[layout.tilted :], low[layout.tilted :])


def layout(width: int, stride: int, tilted: bool) -> Layout:
    """Return the layout for levels up to `width` pixels wide."""
    columns = (width + 1 if stride == 1 else (width + 2) // 2) + SLACK
    # An odd number of cache lines to the next row: powers of two would map a window's rows to the same cache sets.
    row = (-(-columns // 16) | 1) * 16
    across = row * stride
    return Layout(stride, row if stride == 2 else 0, across if tilted else 0, across * (2 if tilted else 1))


def layout_entries(shape: Layout, height: int) -> int:
    """Return the length of the planes of a band of this many rows of pixels."""
    return (height + 1) * shape.row_stride + SLACK


class Workspace:
    """Memory that the planes of band after band are written to; for one thread at a time.

    New memory is mapped page by page when it is first written, which took as long as the work itself.
    """

    def __init__(self) -> None:
        self._image = np.empty(0, dtype=np.uint8)
        self._sums = np.empty(0, dtype=np.int32)
        self._squares = np.empty(0, dtype=np.uint32)
        self._low = np.empty(0, dtype=np.int16)

    def take(
        self, pixels: int, entries: int
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], npt.NDArray[np.uint32], npt.NDArray[np.int16]]:
        """Return flat arrays for at least this many pixels and plane entries; those returned before are used again."""
        if len(self._image) < pixels:
            self._image = np.empty(pixels, dtype=np.uint8)
        if len(self._sums) < entries:
            self._sums = np.empty(entries, dtype=np.int32)
            self._squares = np.empty(entries, dtype=np.uint32)
            self._low = np.empty(entries, dtype=np.int16)
        return self._image, self._sums, self._squares, self._low


def integral_planes(
    gray: Gray, axes: tuple[Axis, Axis], band: tuple[int, int], shape: Layout, space: Workspace | None = None
) -> Planes:
    """Resample a band of an image and integrate it.

    Parameters
    ----------
    gray : ndarray of uint8, shape (h, w)
        The full-size image.
    axes : (Axis, Axis)
        From `resampling_axis`, for the width and the height.
    band : (int, int)
        Target rows to make, ``band[0] <= y < band[1]``.
    shape : Layout
        From `layout`, for a width of at least the target's.
    space : Workspace, optional
        Memory to use; by default new memory.

    Returns
    -------
    Planes
    """
    columns, rows = axes
    top, bottom = band
    height, width = bottom - top, len(columns.first)
    entries = layout_entries(shape, height)
    pixels, sums, squares, low = (space or Workspace()).take(height * width, entries)
    planes = Planes(
        pixels[: height * width].reshape(height, width), sums[:entries], squares[:entries], low[:entries], shape
    )
    fill_planes(gray, columns, rows, top, planes)
    return planes


def resize(gray: Gray, size: tuple[int, int]) -> Gray:
    """Resample an image exactly as ``cv2.resize(..., interpolation=cv2.INTER_LINEAR_EXACT)`` does.

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
    """Return the integral image of an image and that of its squares.

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
    _integrate(np.ascontiguousarray(gray), sums, squares, np.empty(len(sums), dtype=np.int16))
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
        raise InputError(f"expected a grey image as uint8 of shape (h, w), got {gray.dtype} of shape {gray.shape}")
