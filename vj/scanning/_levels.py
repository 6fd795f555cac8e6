"""The scan of a whole image, compiled: band after band is resampled, integrated and scanned without Python in between.

A round trip through Python for each level and band cost 40 to 60 us, a third of the time where objects are large.
Threads share an image by calling `scan_bands` at the same time; each takes the next band that nobody has taken yet.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic

from vj._compile import njit
from vj.scanning._kernels import scan_lanes, scan_plain
from vj.scanning.planes import Axis, Planes, fill_planes
from vj.scanning.tables import Grid


class Bands(NamedTuple):
    """What there is to scan.

    Parameters
    ----------
    bands : ndarray of int64, shape (n, 3)
        Level, first row of windows, and the one after the last.
    levels : ndarray of int64, shape (n_levels, 5)
        Width, height and stride of each level; where its columns' and its rows' weights start in `first` and `w1`.
    grids : ndarray of int64, shape (n_levels, n_cascades, 2)
        Rows and columns of windows that each cascade has on each level; none where it is not run.
    first, w1 : ndarray of int32
        Resampling weights of all levels, see `Axis`.
    """

    bands: Any
    levels: Any
    grids: Any
    first: Any
    w1: Any


class Cascades(NamedTuple):
    """What `scan_bands` reads of each cascade, for strides of 1 and 2: of the same types for any number of them.

    Parameters
    ----------
    stages : ndarray of int64, shape (n_cascades, 2)
        Stages, and the window's height.
    corners : ndarray of int64, shape (n_cascades, 2, 4)
        Of the norm's rectangle, see `Grid`.
    words : ndarray of uintp, shape (n_cascades, 2, n_words)
        See `lane_words`.
    """

    stages: Any
    corners: Any
    words: Any


class Found(NamedTuple):
    """What one call of `scan_bands` found.

    Parameters
    ----------
    hits : ndarray of int32, shape (n, 2)
        Row and column of windows in their band, in the order in which the bands were taken.
    sums : ndarray of float64, shape (n,)
        Sum of the last stage.
    taken : ndarray of int64, shape (n_taken, 3)
        Each band taken, once for each cascade that has windows there, the cascade, and the number of hits after it.
    windows : ndarray of int64, shape (n_cascades, n_levels)
        Windows visited.
    entered, features : ndarray of int64, shape (n_cascades, n_levels, n_stages)
        Windows that entered each stage; features evaluated, without columns unless they were to be counted. As many
        stages as the longest cascade has.
    """

    hits: Any
    sums: Any
    taken: Any
    windows: Any
    entered: Any
    features: Any


@intrinsic
def _take(typing, counter):
    """Return an int64 array's first entry and add one to it, as one step among threads."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, data.type.pointee(1), "monotonic")

    return types.int64(counter), generate


@njit(cache=True, nogil=True)
def scan_bands(gray, todo, counter, space, shapes, cascades, plain, options, coarse, count):
    """Scan bands until all are taken or the pixels of those done reach a budget.

    Parameters
    ----------
    gray : ndarray of uint8, shape (h, w)
    todo : Bands
    counter : ndarray of int64, shape (1,)
        Number of bands taken by all threads.
    space : tuple of arrays
        Flat memory for the image, its sums, squares and low sums: enough for any band.
    shapes : pair of Layout
        For strides of 1 and 2.
    cascades : Cascades
        They share what is made of a band.
    plain : tuple of (PlainTables, pair of ndarray), or None
        Each cascade and its offsets for both layouts, to scan window by window; None: scan in vectors.
    options : (bool, int)
        Whether windows are left out, see `scan_plain`; pixels to do.
    coarse : int or None
        Stages to pass for the rows between to be visited, see `scan_plain`; None: visit all rows.
    count : True or None
        Whether to count features. Arguments are None, not False or 0, where what they need is not to be compiled.

    Returns
    -------
    Found
    """
    skip, budget = options
    n_levels, n_cascades, n_stages = len(todo.levels), len(cascades.stages), 0
    for c in range(n_cascades):
        n_stages = max(n_stages, cascades.stages[c, 0])
    hits, sums = np.empty((64, 2), np.int32), np.empty(64, np.float64)
    taken = np.empty((len(todo.bands) * n_cascades, 3), np.int64)
    windows = np.zeros((n_cascades, n_levels), np.int64)
    entered = np.zeros((n_cascades, n_levels, n_stages), np.int64)
    features = np.zeros((n_cascades, n_levels, n_stages if count is not None else 0), np.int64)
    # Not a literal 0, for which all that it is passed to would be compiled as well: half of the compiling.
    found = np.int64(0)
    n, done = 0, 0
    while done < budget:
        k = _take(counter)  # type: ignore[call-arg, var-annotated]
        if k >= len(todo.bands):
            break
        level, first, last = todo.bands[k, 0], todo.bands[k, 1], todo.bands[k, 2]
        width, height, stride = todo.levels[level, 0], todo.levels[level, 1], todo.levels[level, 2]
        across, down = todo.levels[level, 3], todo.levels[level, 4]
        columns = Axis(todo.first[across : across + width], todo.w1[across : across + width])
        rows = Axis(todo.first[down : down + height], todo.w1[down : down + height])
        shape = shapes[stride - 1]
        top, tall = first * stride, 0
        for c in range(n_cascades):
            here = min(last, todo.grids[level, c, 0]) - first
            if here > 0:
                tall = max(tall, (here - 1) * stride + cascades.stages[c, 1])
        image = space[0][: tall * width].reshape(tall, width)
        planes = Planes(image, space[1], space[2], space[3], shape)
        fill_planes(gray, columns, rows, top, planes)
        for c in range(n_cascades):
            here = min(last, todo.grids[level, c, 0]) - first
            if here <= 0:
                continue
            at = cascades.corners[c, stride - 1]
            corners = (at[0], at[1], at[2], at[3])
            grid = Grid(here, todo.grids[level, c, 1], shape.row_stride * stride, corners)
            results, entries = (hits, sums, found), entered[c, level]
            if plain is not None:
                tables, offsets = plain[c]
                rule, counts = (skip, 0 if coarse is None else coarse), (entries, features[c, level])
                hits, sums, found, seen = scan_plain(planes, grid, tables, offsets[stride - 1], rule, results, counts)
            else:
                words, counted = cascades.words[c, stride - 1], None if count is None else features[c, level]
                hits, sums, found, seen = scan_lanes(planes, grid, words, skip, coarse, results, entries, counted)
            windows[c, level] += seen
            # One by one: an assignment of a tuple compiles all that it takes to say that shapes differ.
            taken[n, 0] = k
            taken[n, 1] = c
            taken[n, 2] = found
            n += 1
        done += tall * width
    return Found(hits[:found], sums[:found], taken[:n], windows, entered, features)
