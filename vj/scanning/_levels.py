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
from vj.scanning._kernels import (
    LANES,
    Listed,
    Visit,
    count_marked,
    list_marked,
    scan_lanes,
    scan_listed,
    scan_plain,
)
from vj.scanning.planes import SLACK, Axis, Planes, fill_planes
from vj.scanning.tables import Grid

LISTED = 128
"""Vectors of marked windows that are scanned together. Where each band is scanned by itself, late stages have one or
two vectors for a batch of four: two near faces take 5 % longer, faces from 80 pixels as long."""


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
        Windows that entered each stage, and features evaluated; without columns unless they were to be counted. As many
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
                if not bits:
                    continue
                for lane in range(8):
                    if bits >> lane & 1:
                        across = (8 * g + lane) * levels[near, 1] + windows[c, 1] / 2
                        x = (across * ratio - windows[c, 1] / 2) / levels[level, 1]
                        column = min(max(np.int64(np.floor(x + 0.5)), 0), columns - 1)
                        for q in range(max(row - 1, 0), min(row + 2, rows)):
                            for p in range(max(column - 1, 0), min(column + 2, columns)):
                                marks[places[c, level] + q * here + p // 8] |= np.uint8(1 << p % 8)


@njit(cache=True, inner=True)
def _part(todo, marks, cascades, k):
    """Return what of the k-th band is scanned: level, first row and the one after the last, first column, size.

    Rows and columns of windows; width and height in pixels of the level. All of the band, unless only marked windows
    are visited.
    """
    level, first, last = todo.bands[k, 0], todo.bands[k, 1], todo.bands[k, 2]
    stride, left, right = todo.levels[level, 2], np.int64(0), np.int64(1 << 40)
    if marks is not None and marks.fine:
        first, last, left, right = _marked_part(marks, todo.grids[level], level, first, last)
    tall, wide = np.int64(0), np.int64(0)
    for c in range(len(cascades.stages)):
        here, there = min(last, todo.grids[level, c, 0]) - first, min(right, todo.grids[level, c, 1]) - left
        if here > 0 and there > 0:
            tall = max(tall, (here - 1) * stride + cascades.stages[c, 1])
            wide = max(wide, (there - 1) * stride + cascades.stages[c, 2])
    if marks is None or not marks.fine:
        wide = todo.levels[level, 0]
    return level, first, last, left, (wide, tall)


@njit(cache=True, inner=True)
def _fill(gray, todo, part, space, at, shape):
    """Resample and integrate a part, see `_part`, into the planes that start at entry `at` of the space."""
    level, first, _, left, (width, height) = part
    stride = todo.levels[level, 2]
    across, down = todo.levels[level, 3] + left * stride, todo.levels[level, 4]
    columns = Axis(todo.first[across : across + width], todo.w1[across : across + width])
    rows = Axis(todo.first[down : down + todo.levels[level, 1]], todo.w1[down : down + todo.levels[level, 1]])
    image = space[0][: height * width].reshape(height, width)
    planes = Planes(image, space[1][at:], space[2][at:], space[3][at:], shape)
    fill_planes(gray, columns, rows, first * stride, planes)
    return planes


@njit(cache=True, inner=True)
def _windows(todo, cascades, part, c):
    """Return how many rows and columns of windows a cascade has in a part; none if either is not above 0."""
    level, first, last, left, (width, _) = part
    across = (width - cascades.stages[c, 2]) // todo.levels[level, 2] + 1
    return min(last, todo.grids[level, c, 0]) - first, min(todo.grids[level, c, 1] - left, across)


@njit(cache=True, inner=True)
def _visit(todo, marks, part, c):
    """Return how the windows of a part are visited by a cascade."""
    level, first, _, left, _ = part
    width = (todo.grids[level, c, 1] + LANES - 1) // LANES
    begin = marks.places[c, level] + first * width + left // LANES
    return Visit(marks.fine, marks.stages, marks.marks, begin, width)


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
        Each cascade and its offsets for both layouts, to scan window by window; None: scan in vectors, which for fine
        marks `scan_marked` does.
    marks : Marks or None
        None: visit all windows.
    options : (bool, int)
        Whether windows are left out, see `scan_plain`; pixels to do.
    count : True or None
        Whether to count. Arguments are None, not False, where what they need is not to be compiled.

    Returns
    -------
    Found
    """
    skip, budget = options
    n_levels, n_cascades, n_stages = len(todo.levels), len(cascades.stages), _longest(cascades)
    hits, sums = np.empty((64, 2), np.int32), np.empty(64, np.float64)
    taken = np.empty((len(todo.bands) * n_cascades, 5), np.int64)
    windows, entered, features = _counters(n_cascades, n_levels, n_stages, count)
    unused = np.zeros(n_stages, np.int64)
    # Not a literal 0, for which all that it is passed to would be compiled as well: half of the compiling.
    found = np.int64(0)
    n, done = 0, 0
    while done < budget:
        k = _take(counter)  # type: ignore[call-arg, var-annotated]
        if k >= len(todo.bands):
            break
        part = _part(todo, marks, cascades, k)
        level, first, last, left, (width, height) = part
        if first == last:
            continue
        stride = todo.levels[level, 2]
        shape = shapes[stride - 1]
        planes = _fill(gray, todo, part, space, 0, shape)
        for c in range(n_cascades):
            here, there = _windows(todo, cascades, part, c)
            if here <= 0 or there <= 0:
                continue
            visit = None if marks is None else _visit(todo, marks, part, c)
            at = cascades.corners[c, stride - 1]
            corners = (at[0], at[1], at[2], at[3])
            grid = Grid(here, there, shape.row_stride * stride, corners)
            results, entries = (hits, sums, found), unused if count is None else entered[c, level]
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
            _write_taken(taken, n, level, first, left, c, found)
            n += 1
        done += height * width
    return Found(hits[:found], sums[:found], taken[:n], windows, entered, features)


@njit(cache=True, inner=True)
def _longest(cascades):
    """Return the number of stages of the longest cascade."""
    n = 0
    for c in range(len(cascades.stages)):
        n = max(n, cascades.stages[c, 0])
    return n


@njit(cache=True, inner=True)
def _counters(n_cascades, n_levels, n_stages, count):
    """Return the arrays of `Found` that are added to."""
    windows = np.zeros((n_cascades, n_levels), np.int64)
    columns = n_stages if count is not None else 0
    entered = np.zeros((n_cascades, n_levels, columns), np.int64)
    return windows, entered, np.zeros((n_cascades, n_levels, columns), np.int64)


@njit(cache=True, inner=True)
def _write_taken(taken, n, level, first, left, c, found):
    """Write a row of `Found.taken`; an assignment of a tuple compiles all that it takes to say that shapes differ."""
    taken[n, 0] = level
    taken[n, 1] = first
    taken[n, 2] = left
    taken[n, 3] = c
    taken[n, 4] = found


class _Lists(NamedTuple):
    """Marked windows of the parts of some bands, for each cascade; see `Listed`.

    Parameters
    ----------
    parts : ndarray of int64, shape (n_bands, 3)
        Level, first row and first column of each.
    ends : ndarray of int64, shape (n_cascades, n_bands)
        Vectors up to the end of each part.
    bases, places, alive : ndarray, shapes (n_cascades, n), (n_cascades, n, 2) and (n_cascades, n)
    """

    parts: Any
    ends: Any
    bases: Any
    places: Any
    alive: Any


@njit(cache=True, nogil=True)
def scan_marked(gray, todo, counter, space, shapes, cascades, marks, budget, count):
    """Like `scan_bands` in vectors, for fine marks: windows of several bands are listed, then scanned together.

    The planes of these bands are one below the other in the space.
    """
    n_bands, n_levels, n_cascades = len(todo.bands), len(todo.levels), len(cascades.stages)
    hits, sums, found = np.empty((64, 2), np.int32), np.empty(64, np.float64), np.int64(0)
    taken = np.empty((n_bands * n_cascades, 5), np.int64)
    windows, entered, features = _counters(n_cascades, n_levels, _longest(cascades), count)
    counts = (entered, features)
    lists = _Lists(
        np.empty((n_bands, 3), np.int64),
        np.empty((n_cascades, n_bands), np.int64),
        np.empty((n_cascades, 2 * LISTED), np.uintp),
        np.empty((n_cascades, 2 * LISTED, 2), np.int64),
        np.empty((n_cascades, 2 * LISTED), np.uint32),
    )
    n, done, listed, used, stride = np.int64(0), 0, np.int64(0), np.int64(0), np.int64(1)
    while done < budget:
        k = _take(counter)  # type: ignore[call-arg, var-annotated]
        if k >= n_bands:
            break
        part = _part(todo, marks, cascades, k)
        level, first, last, left, (width, height) = part
        if first == last:
            continue
        step = todo.levels[level, 2]
        shape = shapes[step - 1]
        size = (height + 1) * shape.row_stride
        # What is counted is counted for one level at a time.
        full = count is not None or step != stride or used + size + SLACK > len(space[1])
        if listed and (full or lists.ends[:, listed - 1].max() >= LISTED):
            planes, results = _stacked(space, shapes[stride - 1]), (hits, sums, found, n)
            hits, sums, found, n = _scan_lists(planes, cascades, lists, listed, results, taken, counts, count)
            listed, used = np.int64(0), np.int64(0)
        stride = step
        _fill(gray, todo, part, space, used, shape)
        lists.parts[listed, 0], lists.parts[listed, 1], lists.parts[listed, 2] = level, first, left
        for c in range(n_cascades):
            before = lists.ends[c, listed - 1] if listed else np.int64(0)
            lists.ends[c, listed] = before
            here, there = _windows(todo, cascades, part, c)
            if here > 0 and there > 0:
                visit = _visit(todo, marks, part, c)
                lists = _with_room(lists, before + count_marked(visit, here, there))
                listed_here = Listed(lists.bases[c], lists.places[c], lists.alive[c])
                end, seen = list_marked(visit, here, there, used, shape.row_stride * stride, listed_here, before)
                lists.ends[c, listed] = end
                windows[c, level] += seen
        listed += 1
        used += size
        done += height * width
    if listed:
        planes, results = _stacked(space, shapes[stride - 1]), (hits, sums, found, n)
        hits, sums, found, n = _scan_lists(planes, cascades, lists, listed, results, taken, counts, count)
    return Found(hits[:found], sums[:found], taken[:n], windows, entered, features)


@njit(cache=True, inner=True)
def _stacked(space, shape):
    """Return the planes of all that is in the space."""
    return Planes(space[0][:0].reshape(0, 1), space[1], space[2], space[3], shape)


@njit(cache=True, inner=True)
def _scan_lists(planes, cascades, lists, listed, results, taken, counts, count):
    """Scan what is listed of `listed` parts; return the hits, their sums, how many they are, and rows of `taken`."""
    hits, sums, found, n = results
    entered, features = counts
    after, unused = np.empty(listed, np.int64), np.zeros(_longest(cascades), np.int64)
    stride = planes.layout.stride
    for c in range(len(cascades.stages)):
        if not lists.ends[c, listed - 1]:
            continue
        one = Listed(lists.bases[c], lists.places[c], lists.alive[c])
        level, at, words = lists.parts[0, 0], cascades.corners[c, stride - 1], cascades.words[c, stride - 1]
        corners = (at[0], at[1], at[2], at[3])
        entries, counted = unused if count is None else entered[c, level], None if count is None else features[c, level]
        hits, sums, found = scan_listed(
            planes, corners, words, one, lists.ends[c, :listed], after, (hits, sums, found), entries, counted
        )
        for p in range(listed):
            _write_taken(taken, n, lists.parts[p, 0], lists.parts[p, 1], lists.parts[p, 2], c, after[p])
            n += 1
    return hits, sums, found, n


@njit(cache=True, inner=True)
def _with_room(lists, size):
    """Return lists with room for so many vectors of each cascade: the same, or larger ones that begin with these."""
    n_cascades, old = lists.bases.shape
    if size <= old:
        return lists
    bases, places = np.empty((n_cascades, size), np.uintp), np.empty((n_cascades, size, 2), np.int64)
    alive = np.empty((n_cascades, size), np.uint32)
    for c in range(n_cascades):
        for k in range(old):
            bases[c, k], alive[c, k] = lists.bases[c, k], lists.alive[c, k]
            places[c, k, 0], places[c, k, 1] = lists.places[c, k, 0], lists.places[c, k, 1]
    return _Lists(lists.parts, lists.ends, bases, places, alive)


@njit(cache=True, nogil=True)
def hit_boxes(hits, sums, taken, c, levels, scales, window):
    """Return the boxes of one cascade's hits, in the order of levels and bands, their sums, and the hits of each level.

    Compiled: where few windows are scanned, a dozen calls of numpy took as long as a stage.

    Parameters
    ----------
    hits, sums, taken
        See `Found`, of one call or of several, one after the other.
    c : int
        The cascade.
    levels : ndarray of int64, shape (n_levels, 5)
        See `Bands`.
    scales : ndarray of float32, shape (n_levels,)
    window : (int, int)
        Width and height.

    Returns
    -------
    boxes : ndarray of int32, shape (n, 4)
    sums : ndarray of float64, shape (n,)
    counts : ndarray of int64, shape (n_levels,)
    """
    order, n, total = np.empty(len(taken), np.int64), 0, 0
    for k in range(len(taken)):
        begin = taken[k - 1, 4] if k else 0
        if taken[k, 3] != c or taken[k, 4] == begin:
            continue
        total += taken[k, 4] - begin
        b = n
        # Each call's are in order already.
        while b > 0:
            other = order[b - 1]
            if taken[other, 0] < taken[k, 0] or (taken[other, 0] == taken[k, 0] and taken[other, 1] <= taken[k, 1]):
                break
            order[b] = other
            b -= 1
        order[b] = k
        n += 1
    boxes, kept, counts = np.empty((total, 4), np.int32), np.empty(total, np.float64), np.zeros(len(levels), np.int64)
    found = 0
    for at in range(n):
        k = order[at]
        level = taken[k, 0]
        scale, stride = scales[level], levels[level, 2]
        # In float32 and rounded to even, as OpenCV does.
        width, height = np.rint(np.float32(window[0]) * scale), np.rint(np.float32(window[1]) * scale)
        for i in range(taken[k - 1, 4] if k else 0, taken[k, 4]):
            boxes[found, 0] = np.int32(np.rint(np.float32((hits[i, 1] + taken[k, 2]) * stride) * scale))
            boxes[found, 1] = np.int32(np.rint(np.float32((hits[i, 0] + taken[k, 1]) * stride) * scale))
            boxes[found, 2] = np.int32(width)
            boxes[found, 3] = np.int32(height)
            kept[found] = sums[i]
            counts[level] += 1
            found += 1
    return boxes, kept, counts
