"""The detector: from an image to objects."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from vj._system import processors
from vj._types import Boxes, Counts, Floats, Gray, Size
from vj.cascade.model import Cascade
from vj.detections import Detections as Detections
from vj.errors import InputError
from vj.images import to_gray
from vj.scanning.grouping import group_rectangles, suppress_groups
from vj.scanning.planes import Planes, Workspace, layout
from vj.scanning.pyramid import Level, levels
from vj.scanning.scanner import Scanner

T = TypeVar("T")

BAND_PIXELS = 1 << 19
"""Pixels of a level that are resampled, integrated and scanned together; a band's planes then stay near the core."""


class Hits(NamedTuple):
    """Hits: the windows that passed all stages, before grouping.

    Parameters
    ----------
    boxes : ndarray of int32, shape (n, 4)
        x, y, width, height in pixels of the image; by scale, then row, then column.
    sums : ndarray of float64, shape (n,)
        Sum of the last stage.
    """

    boxes: Boxes
    sums: Floats


@dataclass(frozen=True, eq=False)
class Cost:
    """What was spent on one image.

    Parameters
    ----------
    scales : ndarray of float64, shape (n_levels,)
    windows, hits : ndarray of int64, shape (n_levels,)
        Windows visited at each scale, and those that passed all stages.
    entered, weak_classifiers, features : ndarray of int64, shape (n_levels, n_stages)
        Windows that entered each stage at each scale; weak classifiers and features evaluated there. A tree evaluates
        as many features as it has nodes on the path taken, a stump one.
    """

    scales: Floats
    windows: Counts
    hits: Counts
    entered: Counts
    weak_classifiers: Counts
    features: Counts


class WindowMap(NamedTuple):
    """Every window of one scale.

    Parameters
    ----------
    scale : float
        Factor from this scale's pixels to those of the image.
    stride : int
        Window (row, column) starts at ``column * stride * scale`` across the image, and likewise down.
    window : (int, int)
        Width and height of a window, in pixels of this scale.
    depth : ndarray of int16, shape (rows, columns)
        Stages passed; -1 for a window dropped as flat.
    margin : ndarray of float64, shape (rows, columns)
        Sum of the last stage reached minus that stage's limit, or minus the soft threshold that rejected the window
        inside the stage: negative if it was rejected there. Zero if flat.
    """

    scale: float
    stride: int
    window: Size
    depth: npt.NDArray[np.int16]
    margin: Floats


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a `Detector`.

    Parameters
    ----------
    scale_factor : float
        Ratio of one scale to the next, above 1.
    min_neighbors : int
        A box is reported if more than this many hits were merged into it; 0 reports the hits themselves.
    min_size, max_size : int or (int, int), optional
        Smallest and largest object: side, or width and height, in pixels. By default, and where a side is 0, there is
        no bound.
    stride : int, optional
        Pixels between neighbouring windows, at each scale: 1 visits every window. By default OpenCV's rule: 2 below
        scale 2, else 1, and the right neighbour of a window that the first stage rejected is left out.
    suppression : float, optional
        Replaces OpenCV's rules for which groups are kept: hits are averaged with the weight ``exp(margin)``, and of
        groups that overlap by more than this intersection over union the one with the best score is kept. It finds the
        most with `min_neighbors` 0: groups of one hit are kept, and their scores rank them low.
    threads : int, optional
        Threads that share an image; by default one for each processor. Results do not depend on it.
    exact : bool
        Find what OpenCV finds, at its cost: soft thresholds of the cascade are ignored.

    Raises
    ------
    InputError
        If a setting is out of range.
    """

    scale_factor: float = 1.1
    min_neighbors: int = 3
    min_size: int | Size | None = None
    max_size: int | Size | None = None
    stride: int | None = None
    suppression: float | None = None
    threads: int | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale_factor) and self.scale_factor > 1):
            raise InputError(f"expected a scale_factor above 1, got {self.scale_factor}")
        if self.min_neighbors < 0:
            raise InputError(f"expected min_neighbors of 0 or more, got {self.min_neighbors}")
        if self.stride not in (None, 1, 2):
            raise InputError(f"expected a stride of 1 or 2, got {self.stride}")
        if self.suppression is not None and not 0 <= self.suppression < 1:
            raise InputError(f"expected suppression of 0 or more and below 1, got {self.suppression}")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"expected threads of 1 or more, got {self.threads}")
        for name in ("min_size", "max_size"):
            object.__setattr__(self, name, _size(name, getattr(self, name)))


@dataclass(frozen=True)
class Detector(Settings):
    """Finds objects of any size in an image.

    With the default stride, `detect` returns the boxes of OpenCV's ``CascadeClassifier.detectMultiScale`` for the same
    cascade and settings, if the cascade has no soft thresholds or `exact` is set. A detection's score is the logarithm of the sum of ``exp(margin)`` over the hits merged into
    it, where a hit's margin is its sum of the last stage minus that stage's limit: one hit scores its margin, n equal
    ones log(n) more. One detector may be used by many threads at once.

    Parameters
    ----------
    cascade : Cascade
    scale_factor, min_neighbors, min_size, max_size, stride, suppression, threads, exact
        See `Settings`.

    Raises
    ------
    InputError
        If a setting is out of range.
    """

    cascade: Cascade = field(repr=False)
    _scanners: dict[bool, Scanner] = field(init=False, repr=False, default_factory=dict)
    """Made when first used, with and without soft thresholds; shared by detectors that `replace` returns."""
    _spaces: list[Workspace] = field(init=False, repr=False, default_factory=list)
    """Memory that no thread is using now: taking and putting back are atomic."""

    # Unlike settings, detectors are equal only to themselves.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __post_init__(self) -> None:
        super().__post_init__()
        # Made now: a cascade that cannot be scanned fails here.
        _ = self._scanner

    @property
    def _scanner(self) -> Scanner:
        exact = self.exact or self.cascade.soft is None
        found = self._scanners.get(exact)
        return found or self._scanners.setdefault(exact, Scanner(self.cascade.exact() if exact else self.cascade))

    def replace(self, **settings: Any) -> Detector:
        """Return a detector of the same cascade with some settings changed, at no cost.

        Parameters
        ----------
        **settings
            Those of `Settings`.

        Raises
        ------
        InputError
            If a setting is out of range.
        """
        names = [one.name for one in fields(Settings)]
        unknown = sorted(set(settings) - set(names))
        if unknown:
            raise InputError(f"expected settings among {', '.join(names)}, got {', '.join(unknown)}")
        checked = Settings(**{name: settings.get(name, getattr(self, name)) for name in names})
        other = copy.copy(self)
        for name in names:
            object.__setattr__(other, name, getattr(checked, name))
        return other

    def detect(self, image: npt.NDArray[Any]) -> Detections:
        """Find objects in an image.

        Parameters
        ----------
        image : ndarray of uint8, shape (h, w), (h, w, 3) BGR or (h, w, 4) BGRA

        Returns
        -------
        Detections

        Raises
        ------
        InputError
            If the image has another dtype or shape.
        """
        return self.detect_with_sums(image)[0]

    def detect_with_sums(self, image: npt.NDArray[Any]) -> tuple[Detections, Floats]:
        """Like `detect`; also return OpenCV's level weights: the largest sum of the last stage merged into each box."""
        gray = to_gray(image)
        return self.group(self._hits(gray), gray.shape)

    def group(self, found: Hits, shape: tuple[int, ...]) -> tuple[Detections, Floats]:
        """Group hits as `detect_with_sums` does: to try several settings of grouping on one scan.

        Parameters
        ----------
        found : Hits
            What `hits` returned.
        shape : (int, int)
            Height and width of the image.
        """
        limit = float(self.cascade.stage_limits[-1])
        if self.suppression is None:
            groups = group_rectangles(found.boxes, self.min_neighbors, sums=found.sums, limit=limit)
        else:
            groups = suppress_groups(found.boxes, self.min_neighbors, self.suppression, found.sums, limit=limit)
        boxes, kept = clip_boxes(groups.boxes, shape)
        scores, calibration = groups.evidence[kept], self.cascade.calibration
        probabilities = None if calibration is None else calibration(scores)
        return Detections(boxes, scores, groups.counts[kept], probabilities), groups.sums[kept]

    def hits(self, image: npt.NDArray[Any]) -> Hits:
        """Return the hits in an image, before they are grouped; see `detect`."""
        return self._hits(to_gray(image))

    def cost(self, image: npt.NDArray[Any], *, every: bool = False) -> Cost:
        """Return what scanning an image costs, by scale and by stage.

        Parameters
        ----------
        image : ndarray of uint8
            As for `detect`.
        every : bool
            Count every window of the grid, those that OpenCV's rule leaves out included.

        Returns
        -------
        Cost
        """

        def count(planes: Planes, rows: int, columns: int) -> Any:
            return self._scanner.count(planes, rows, columns, self.stride is None and not every)

        found = [(level, [one for _, one in parts]) for level, parts in self._run(to_gray(image), count)]
        shape = (len(found), self.cascade.n_stages)

        def total(name: str) -> Counts:
            return np.array([sum(getattr(one, name) for one in parts) for _, parts in found], dtype=np.int64)

        entered = total("entered").reshape(shape)
        return Cost(
            scales=np.array([level.scale for level, _ in found], dtype=np.float64),
            windows=total("windows"),
            hits=total("hits"),
            entered=entered,
            weak_classifiers=entered * self.cascade.stage_sizes,
            features=total("features").reshape(shape),
        )

    def windows(self, image: npt.NDArray[Any]) -> Iterator[WindowMap]:
        """Yield, for each scale, how deep every window of the grid gets and with what margin; see `detect`."""
        gray = to_gray(image)
        for level in self._levels(gray):
            shape = layout(level.size[0], level.stride, self.cascade.has_tilted)
            planes = level.planes(gray, (0, level.rows), shape)
            depth, sums, limits = self._scanner.depths(planes, level.rows, level.columns)
            yield WindowMap(level.scale, level.stride, level.window, depth, sums - limits)

    def _levels(self, gray: Gray) -> list[Level]:
        height, width = gray.shape
        least, most = _size("min_size", self.min_size), _size("max_size", self.max_size)
        found = levels((width, height), self.cascade.window, self.scale_factor, least, most, self.stride)
        return [level for level in found if level.rows > 0 and level.columns > 0]

    def _hits(self, gray: Gray) -> Hits:
        def scan(planes: Planes, rows: int, columns: int) -> Any:
            return self._scanner.scan(planes, rows, columns, self.stride is None)

        boxes: list[Boxes] = [np.zeros((0, 4), dtype=np.int32)]
        sums: list[Floats] = [np.zeros(0)]
        for level, parts in self._run(gray, scan):
            scale = np.float32(level.scale)
            side = np.rint(np.array(self.cascade.window, dtype=np.float32) * scale)
            for first, found in parts:
                ys = found.ys + np.int32(first * level.stride)
                corner = np.rint(np.column_stack([found.xs, ys]).astype(np.float32) * scale)
                boxes.append(np.column_stack([corner, np.broadcast_to(side, corner.shape)]).astype(np.int32))
                sums.append(found.sums)
        return Hits(np.concatenate(boxes), np.concatenate(sums))

    def _run(self, gray: Gray, work: Callable[[Planes, int, int], T]) -> Iterator[tuple[Level, list[tuple[int, T]]]]:
        """Do `work` on all levels, in bands of rows spread over the threads.

        Yields, in the order of the levels, each band's first row of windows and result.
        """
        found = self._levels(gray)
        widest = {s: max((lv.size[0] for lv in found if lv.stride == s), default=0) for s in (1, 2)}
        shapes = {s: layout(width, s, self.cascade.has_tilted) for s, width in widest.items()}

        def run(level: Level, first: int, last: int) -> tuple[int, T]:
            try:
                space = self._spaces.pop()
            except IndexError:
                space = Workspace()
            planes = level.planes(gray, (first, last), shapes[level.stride], space)
            result = work(planes, last - first, level.columns)
            self._spaces.append(space)
            return first, result

        tasks = [(level, list(bands(level))) for level in found]
        threads = self.threads or processors()
        if threads == 1 or sum(len(parts) for _, parts in tasks) < 2:
            for level, parts in tasks:
                yield level, [run(level, *band) for band in parts]
            return
        pool = ThreadPoolExecutor(threads)
        try:
            running = [(level, [pool.submit(run, level, *band) for band in parts]) for level, parts in tasks]
            for level, futures in running:
                yield level, [future.result() for future in futures]
        finally:
            # After Ctrl-C, what has not begun is left out.
            pool.shutdown(cancel_futures=True)


def bands(level: Level) -> Iterator[tuple[int, int]]:
    """Split a level's rows of windows so that a band has about `BAND_PIXELS` pixels, at least a window's height."""
    height = max(BAND_PIXELS // level.size[0], 4 * level.window[1])
    rows = max(1, height // level.stride)
    for first in range(0, level.rows, rows):
        yield first, min(first + rows, level.rows)


def _size(name: str, size: int | Size | None) -> Size:
    if size is None:
        return (0, 0)
    pair = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if len(pair) != 2 or any(side < 0 for side in pair):
        raise InputError(f"expected {name} as a side or (width, height) of 0 or more, got {size}")
    return (int(pair[0]), int(pair[1]))


def clip_boxes(boxes: Boxes, shape: tuple[int, ...]) -> tuple[Boxes, npt.NDArray[np.bool_]]:
    """Intersect boxes with the image.

    Parameters
    ----------
    boxes : ndarray of int32, shape (n, 4)
    shape : (int, int)
        Height and width of the image.

    Returns
    -------
    boxes : ndarray of int32, shape (m, 4)
        Those that are not empty.
    kept : ndarray of bool, shape (n,)
        Which ones these are.
    """
    start = np.maximum(boxes[:, :2], 0)
    end = np.minimum(boxes[:, :2] + boxes[:, 2:], np.array(shape[1::-1], dtype=np.int32))
    kept = (end > start).all(axis=1)
    return np.concatenate([start, end - start], axis=1)[kept].astype(np.int32), kept
