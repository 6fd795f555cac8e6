"""A whole image: all levels of its pyramid, scanned in bands of rows that threads share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vj._types import Boxes, Counts, Floats, Gray, Size
from vj.cascade.model import Cascade
from vj.scanning._geometry import level_table, room, split
from vj.scanning._kernels import LANES
from vj.scanning._levels import Bands, Found, Marks, hit_boxes, spread
from vj.scanning.planes import Layout, Workspace, axes, layout, layout_entries
from vj.scanning.pyramid import scale_list
from vj.scanning.scanner import Scanner
from vj.scanning.threads import share

BAND_PIXELS = 1 << 19
"""Pixels of a level that are resampled, integrated and scanned together; a band's planes then stay near the core."""

CALL_PIXELS = 1 << 22
"""Pixels after which a compiled call returns, some 50 ms: a signal such as Ctrl-C is seen between calls."""


COARSE_STEP = 1.22
"""Largest ratio of coarse scales to which those between are near enough: every second scale at a scale factor of 1.1.
Every third loses 0.6 points of average precision instead of none (6 stages to pass, FDDB)."""


class Geometry(NamedTuple):
    """What decides how images are scanned.

    Parameters
    ----------
    size, scale_factor, min_size, max_size, stride
        As for `levels`.
    windows : tuple of (int, int)
        Of each cascade.
    tilted : bool
        Whether any cascade has tilted features.
    """

    size: Size
    windows: tuple[Size, ...]
    scale_factor: float
    min_size: Size
    max_size: Size
    stride: int | None
    tilted: bool


class Plan(NamedTuple):
    """How images of one size are scanned.

    The scales of their levels, the bands in the order they are taken, layouts for strides of 1 and 2, and the memory
    for a band.
    """

    scales: npt.NDArray[np.float32]
    bands: Bands
    shapes: tuple[Layout, Layout]
    pixels: int
    entries: int


class CoarsePlan(NamedTuple):
    """How images of one size are scanned from coarse to fine.

    The bands of the coarse levels and of those between; where the marks of each cascade and level begin, and how many
    bytes all marks take; the other arguments of `spread`.
    """

    phases: tuple[Bands, Bands]
    places: npt.NDArray[np.int64]
    n_marks: int
    spacing: npt.NDArray[np.float64]
    windows: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int64]


class ImageScan(NamedTuple):
    """What the scan of an image found.

    Parameters
    ----------
    boxes : ndarray of int32, shape (n, 4)
        Hits in pixels of the image: by level, then row, then column.
    sums : ndarray of float64, shape (n,)
        Sum of the last stage.
    windows, hits : ndarray of int64, shape (n_levels,)
        Windows visited, flat ones included, and those that passed all stages.
    entered, features : ndarray of int64, shape (n_levels, n_stages)
        Windows that entered each stage, and features evaluated in it; without columns unless counted.
    """

    boxes: Boxes
    sums: Floats
    windows: Counts
    hits: Counts
    entered: Counts
    features: Counts


@lru_cache(maxsize=16)
def plan(geometry: Geometry) -> Plan:
    """Return how images of a size are scanned; kept, as the frames of a video are all of one size."""
    size, windows, stride = geometry.size, geometry.windows, geometry.stride or 0
    scales = [scale_list(size, window, *geometry[2:5]) for window in windows]
    every = scales[0] if len(scales) == 1 else np.unique(np.concatenate(scales))
    sizes, grids = np.zeros((len(every), 3), dtype=np.int64), np.zeros((len(every), len(windows), 2), dtype=np.int64)
    for c, (window, own) in enumerate(zip(windows, scales, strict=True)):
        table, at = level_table(size, window, own, stride), np.searchsorted(every, own)
        sizes[at], grids[at, c] = table[:, :3], table[:, 3:]
    scanned = grids[:, :, 0].any(axis=1)
    every, grids = every[scanned], grids[scanned]
    measures, first, w1 = axes(size, sizes[scanned])
    todo = _split(measures, grids, windows, BAND_PIXELS)
    pixels, wide, tall = room(todo, measures, max(height for _, height in windows))
    shapes = layout(wide[0], 1, geometry.tilted), layout(wide[1], 2, geometry.tilted)
    return Plan(
        scales=every,
        bands=Bands(todo, measures, grids, first, w1),
        shapes=shapes,
        pixels=pixels,
        entries=max(layout_entries(shape, height) for shape, height in zip(shapes, tall, strict=True)),
    )


def _split(
    measures: npt.NDArray[np.int64], grids: npt.NDArray[np.int64], windows: tuple[Size, ...], pixels: int
) -> npt.NDArray[np.int64]:
    """Split levels that several cascades may have: by the one with the most rows of windows."""
    heights, rows = np.array([height for _, height in windows]), grids[:, :, 0]
    found: npt.NDArray[np.int64] = split(measures, rows.max(axis=1), heights[rows.argmax(axis=1)], pixels)
    return found


@lru_cache(maxsize=16)
def coarse_plan(geometry: Geometry) -> CoarsePlan:
    """Return how images of a size are scanned from coarse to fine."""
    todo = plan(geometry)
    # Only what holds marks is made, so a band has to be small for that to be little.
    measures, grids = todo.bands.levels, todo.bands.grids
    small = _split(measures, grids, geometry.windows, 0)
    is_coarse, steps = _coarse_levels(grids, geometry.scale_factor)
    sizes = (grids[:, :, 0] * (-(-grids[:, :, 1] // LANES))).T
    return CoarsePlan(
        phases=(
            _phase(todo.bands, is_coarse, todo.bands.bands),
            _phase(todo.bands, ~is_coarse, small),
        ),
        places=np.ascontiguousarray((np.cumsum(sizes) - sizes.reshape(-1)).reshape(sizes.shape), dtype=np.int64),
        n_marks=int(sizes.sum()),
        spacing=np.column_stack([todo.scales.astype(np.float64), measures[:, 2]]),
        windows=np.array([window[::-1] for window in geometry.windows], dtype=np.int64),
        steps=steps,
    )


def _coarse_levels(
    grids: npt.NDArray[np.int64], scale_factor: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return which levels are coarse, by level and cascade, and the `CoarsePlan.steps` from them to the others."""
    step = max(1, int(np.log(COARSE_STEP) / np.log(scale_factor)))
    is_coarse: npt.NDArray[np.bool_] = np.zeros(grids.shape[:2], dtype=np.bool_)
    steps = [np.zeros((0, 3), dtype=np.int64)]
    for c in range(grids.shape[1]):
        own = np.flatnonzero(grids[:, c].all(axis=1))
        # Not the first level, which has most windows; a fine one at either end has one coarse neighbour.
        beyond = (np.arange(len(own)) - step // 2) % step
        chosen = beyond == 0
        if not chosen.any():
            chosen[:] = True
        is_coarse[own[chosen], c] = True
        fine = np.flatnonzero(~chosen)
        for near in (fine - beyond[fine], fine - beyond[fine] + step):
            there = (near >= 0) & (near < len(own))
            steps.append(np.column_stack([np.full(there.sum(), c), own[near[there]], own[fine[there]]]))
    return is_coarse, np.concatenate(steps)


def _phase(whole: Bands, chosen: npt.NDArray[np.bool_], parts: npt.NDArray[np.int64]) -> Bands:
    """Return those bands out of `parts` that have the levels and cascades chosen."""
    taken = np.asarray(chosen.any(axis=1))
    return whole._replace(bands=parts[taken[parts[:, 0]]], grids=whole.grids * chosen[:, :, None])


def scan_image(
    scanners: Sequence[Scanner],
    gray: Gray,
    todo: Plan,
    spaces: list[Workspace],
    *,
    threads: int,
    skip: bool,
    coarse: tuple[int, CoarsePlan] | None = None,
    count: bool = False,
) -> list[ImageScan]:
    """Scan an image; return what each scanner found.

    Parameters
    ----------
    scanners : sequence of Scanner
    gray : ndarray of uint8, shape (h, w), C-contiguous
    todo : Plan
        For this size and the scanners' windows.
    spaces : list of Workspace
        Memory that no thread is using; what is missing is added.
    threads : int
        Threads that share the image.
    skip : bool
        Leave out, as OpenCV does, the right neighbour of a window that the first stage rejected.
    coarse : (int, CoarsePlan), optional
        Visit coarse scales first, and of those between only the windows near ones that pass this many stages; by
        default all windows are visited.
    count : bool
        Count features, in up to twice the time.
    """
    if not gray.flags.writeable:
        # To numba a read-only array is another type, for which all would be compiled again.
        gray = gray.copy()
    options = (skip, CALL_PIXELS), count or None
    if coarse is not None and len(coarse[1].steps):
        stages, by = coarse
        marks = Marks(False, stages, np.zeros(by.n_marks, dtype=np.uint8), by.places)
        parts = _scan_bands(scanners, gray, (todo, by.phases[0]), spaces, threads, (marks, *options))
        spread(marks.marks, by.places, todo.bands.grids, by.spacing, by.windows, by.steps)
        marks = marks._replace(fine=True)
        parts += _scan_bands(scanners, gray, (todo, by.phases[1]), spaces, threads, (marks, *options))
    else:
        parts = _scan_bands(scanners, gray, (todo, todo.bands), spaces, threads, (None, *options))
    return [_join(todo, c, scanner.cascade, parts) for c, scanner in enumerate(scanners)]


def _scan_bands(
    scanners: Sequence[Scanner],
    gray: Gray,
    part: tuple[Plan, Bands],
    spaces: list[Workspace],
    threads: int,
    options: tuple[Marks | None, tuple[bool, int], bool | None],
) -> list[Found]:
    """Scan some bands of a plan on some threads; return what calls found."""
    todo, chosen = part
    counter, n = np.zeros(1, dtype=np.int64), len(chosen.bands)
    first, others = scanners[0], tuple(scanners[1:])

    def work() -> list[Found]:
        try:
            space = spaces.pop()
        except IndexError:
            space = Workspace()
        memory = space.take(todo.pixels, todo.entries)
        results: list[Found] = []
        while not results or counter[0] < n:
            results.append(first.scan_bands(gray, chosen, todo.shapes, counter, memory, options, others))
        spaces.append(space)
        return results

    def stop() -> None:
        counter[0] = n

    return [found for results in share(work, min(threads, n), stop) for found in results]


def _join(todo: Plan, c: int, cascade: Cascade, parts: list[Found]) -> ImageScan:
    """Select what calls found for one cascade, in the order of the bands."""
    first, n = parts[0], cascade.n_stages
    hits, sums, taken, windows, entered, features = first
    if len(parts) > 1:
        hits, sums = np.concatenate([p.hits for p in parts]), np.concatenate([p.sums for p in parts])
        taken = np.concatenate([p.taken for p in parts])
        begin, end = len(first.taken), len(first.hits)
        for p in parts[1:]:
            taken[begin : begin + len(p.taken), 4] += end
            begin, end = begin + len(p.taken), end + len(p.hits)
        windows = sum(p.windows for p in parts)
        if entered.size:
            entered, features = sum(p.entered for p in parts), sum(p.features for p in parts)
    boxes, kept, counts = hit_boxes(hits, sums, taken, c, todo.bands.levels, todo.scales, cascade.window)
    return ImageScan(boxes, kept, windows[c], counts, entered[c, :, :n], features[c, :, :n])
