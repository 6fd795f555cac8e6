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
from vj.scanning._kernels import LANES, Visit, scan_lanes, scan_plain
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
    stages : ndarray of int64, shape (n_cascades, 3)
        Stages, and the window's height and width.
    corners : ndarray of int64, shape (n_cascades, 2, 4)
        Of the norm's rectangle, see `Grid`.
    words : ndarray of uintp, shape (n_cascades, 2, n_words)
        See `lane_words`.
    """

    stages: Any
    corners: Any
    words: Any


class Marks(NamedTuple):
    """Windows to be visited where not all are: those near windows of coarse scales that get far enough.

    Parameters
    ----------
    fine : bool
        Whether the bands are of the scales between, where only marked windows are visited; else those that pass are
        marked.
    stages : int
        Stages that a window passes to be marked.
    marks : ndarray of uint8, shape (n,)
        A bit for each window, eight neighbours to a byte.
    places : ndarray of int64, shape (n_cascades, n_levels)
        Where the marks of each cascade and level begin.
    """

    fine: bool
    stages: int
    marks: Any
    places: Any


class Found(NamedTuple):
    """What one call of `scan_bands` found.

    Parameters
    ----------
    hits : ndarray of int32, shape (n, 2)
        Row and column of windows in what was scanned of their band, in the order in which the bands were taken.
    sums : ndarray of float64, shape (n,)
        Sum of the last stage.
    taken : ndarray of int64, shape (n_taken, 5)
        What was scanned, once for each cascade that has windows there: level, first row and column of windows, the
        cascade, and the number of hits after it.
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


@njit(cache=True, inner=True)
def _marked_part(marks, grids, level, first, last):
    """Return the rows and columns of a band's windows that hold all marks: first, last, left, right.

    `left` is a multiple of `LANES`. First and last are the same if there are none.
    """
    low, high, left, right = last, first, np.int64(1 << 40), np.int64(0)
    for c in range(len(grids)):
        width = (grids[c, 1] + LANES - 1) // LANES
        for r in range(first, min(last, grids[c, 0])):
            start = marks.places[c, level] + r * width
            for g in range(width):
                if marks.marks[start + g]:
                    low, high = min(low, r), max(high, r + 1)
                    left, right = min(left, np.int64(g * LANES)), max(right, np.int64((g + 1) * LANES))
    return low, max(low, high), left, right


@njit(cache=True, nogil=True)
def spread(marks, places, grids, levels, windows, steps):
    """Mark the windows of fine scales near those that are marked in the coarse ones next to them.

    A window is near if its centre is within a window's step of the other's, rounded, across and down.

    Parameters
    ----------
    marks, places
        See `Marks`.
    grids : ndarray of int64, shape (n_levels, n_cascades, 2)
        Rows and columns of windows.
    levels : ndarray of float64, shape (n_levels, 2)
        Scale and stride.
    windows : ndarray of int64, shape (n_cascades, 2)
        Height and width.
    steps : ndarray of int64, shape (n, 3)
        Cascade, coarse level, and a fine level next to it.
    """
    for s in range(len(steps)):
        c, near, level = steps[s, 0], steps[s, 1], steps[s, 2]
        rows, columns = grids[level, c, 0], grids[level, c, 1]
        here, there = (columns + 7) // 8, (grids[near, c, 1] + 7) // 8
        ratio = levels[near, 0] / levels[level, 0]
        for r in range(grids[near, c, 0]):
            y = ((r * levels[near, 1] + windows[c, 0] / 2) * ratio - windows[c, 0] / 2) / levels[level, 1]
            row = min(max(np.int64(np.floor(y + 0.5)), 0), rows - 1)
            for g in range(there):
                bits = marks[places[c, near] + r * there + g]
                for lane in range(8):
                    if bits >> lane & 1:
                        across = (8 * g + lane) * levels[near, 1] + windows[c, 1] / 2
                        x = (across * ratio - windows[c, 1] / 2) / levels[level, 1]
                        column = min(max(np.int64(np.floor(x + 0.5)), 0), columns - 1)
                        for q in range(max(row - 1, 0), min(row + 2, rows)):
                            for p in range(max(column - 1, 0), min(column + 2, columns)):
                                marks[places[c, level] + q * here + p // 8] |= np.uint8(1 << p % 8)


@njit(cache=True, nogil=True)
def scan_bands(gray, todo, counter, space, shapes, cascades, plain, marks, options, count):
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
    marks : Marks or None
        None: visit all windows.
    options : (bool, int)
        Whether windows are left out, see `scan_plain`; pixels to do.
    count : True or None
        Whether to count features. Arguments are None, not False, where what they need is not to be compiled.

    Returns
    -------
    Found
    """
    skip, budget = options
    n_levels, n_cascades, n_stages = len(todo.levels), len(cascades.stages), 0
    for c in range(n_cascades):
        n_stages = max(n_stages, cascades.stages[c, 0])
    hits, sums = np.empty((64, 2), np.int32), np.empty(64, np.float64)
    taken = np.empty((len(todo.bands) * n_cascades, 5), np.int64)
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
        shape = shapes[stride - 1]
        left, right = np.int64(0), np.int64(1 << 40)
        if marks is not None and marks.fine:
            first, last, left, right = _marked_part(marks, todo.grids[level], level, first, last)
            if first == last:
                continue
        top, tall, wide = first * stride, 0, 0
        for c in range(n_cascades):
            here, there = min(last, todo.grids[level, c, 0]) - first, min(right, todo.grids[level, c, 1]) - left
            if here > 0 and there > 0:
                tall = max(tall, (here - 1) * stride + cascades.stages[c, 1])
                wide = max(wide, (there - 1) * stride + cascades.stages[c, 2])
        if marks is None or not marks.fine:
            wide = width
        across += left * stride
        width = wide
        columns = Axis(todo.first[across : across + width], todo.w1[across : across + width])
        rows = Axis(todo.first[down : down + height], todo.w1[down : down + height])
        image = space[0][: tall * width].reshape(tall, width)
        planes = Planes(image, space[1], space[2], space[3], shape)
        fill_planes(gray, columns, rows, top, planes)
        for c in range(n_cascades):
            here, there = min(last, todo.grids[level, c, 0]) - first, min(right, todo.grids[level, c, 1]) - left
            if here <= 0 or there <= 0:
                continue
            visit = None
            if marks is not None:
                across = (todo.grids[level, c, 1] + LANES - 1) // LANES
                begin = marks.places[c, level] + first * across + left // LANES
                visit = Visit(marks.fine, marks.stages, marks.marks, begin, across)
            at = cascades.corners[c, stride - 1]
            corners = (at[0], at[1], at[2], at[3])
            grid = Grid(here, there, shape.row_stride * stride, corners)
            results, entries = (hits, sums, found), entered[c, level]
            if plain is not None:
                tables, offsets = plain[c]
                counts = (entries, features[c, level])
                hits, sums, found, seen = scan_plain(
                    planes, grid, tables, offsets[stride - 1], skip, visit, results, counts
                )
            else:
                words, counted = cascades.words[c, stride - 1], None if count is None else features[c, level]
                hits, sums, found, seen = scan_lanes(planes, grid, words, skip, visit, results, entries, counted)
            windows[c, level] += seen
            # One by one: an assignment of a tuple compiles all that it takes to say that shapes differ.
            taken[n, 0] = level
            taken[n, 1] = first
            taken[n, 2] = left
            taken[n, 3] = c
            taken[n, 4] = found
            n += 1
        done += tall * width
    return Found(hits[:found], sums[:found], taken[:n], windows, entered, features)
