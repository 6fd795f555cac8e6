"""The detector: from an image to objects."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from vj._system import processors
from vj._types import Boxes, Counts, Floats, Gray, Size
from vj.cascade.model import Cascade
from vj.detections import Detections as Detections
from vj.errors import InputError
from vj.images import to_gray
from vj.scanning.grouping import group_rectangles, non_max_suppression, suppress_groups
from vj.scanning.planes import Planes, Workspace, layout
from vj.scanning.pyramid import Level, levels
from vj.scanning.scanner import Scanner

T = TypeVar("T")

MERGE_OVERLAP = 0.3
"""Intersection over union above which boxes that different cascades found are one object, unless suppression is set."""

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
    cascade and settings, if the cascade has no soft thresholds or `exact` is set. A detection's score is the logarithm
    of the sum of ``exp(margin)`` over the hits merged into it, where a hit's margin is its sum of the last stage minus
    that stage's limit: one hit scores its margin, n equal ones log(n) more. One detector may be used by many threads at
    once.

    Several cascades, whose windows may differ in size, share the image pyramid. Of boxes that overlap, the most
    probable one is kept; if a cascade has no calibration, the one with the best score, although scores of different
    cascades are not comparable. Detections come best first and say which cascade found them.

    Parameters
    ----------
    cascade : Cascade or sequence of Cascade
    scale_factor, min_neighbors, min_size, max_size, stride, suppression, threads, exact
        See `Settings`.

    Attributes
    ----------
    cascades : tuple of Cascade
        All of them; `cascade` is the first.

    Raises
    ------
    InputError
        If a setting is out of range, or there is no cascade.
    """

    cascade: Cascade = field(repr=False)
    cascades: tuple[Cascade, ...] = field(init=False, repr=False)
    _scanners: dict[tuple[int, bool], Scanner] = field(init=False, repr=False, default_factory=dict)
    """Made when first used, with and without soft thresholds; shared by detectors that `replace` returns."""
    _spaces: list[Workspace] = field(init=False, repr=False, default_factory=list)
    """Memory that no thread is using now: taking and putting back are atomic."""

    # Unlike settings, detectors are equal only to themselves.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    if TYPE_CHECKING:
        # One argument may be more than the attribute of its name, which dataclasses cannot say.
        def __init__(self, cascade: Cascade | Sequence[Cascade], **settings: Any) -> None: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.cascade
        cascades = (given,) if isinstance(given, Cascade) else tuple(given)
        if not cascades or not all(isinstance(one, Cascade) for one in cascades):
            kinds = ", ".join(type(one).__name__ for one in cascades) or "none"
            raise InputError(f"expected a cascade or a sequence of them, got {kinds}")
        object.__setattr__(self, "cascades", cascades)
        object.__setattr__(self, "cascade", cascades[0])
        for k in range(len(cascades)):
            # Made now: a cascade that cannot be scanned fails here.
            self._scanner(k)

    def _scanner(self, k: int = 0) -> Scanner:
        cascade = self.cascades[k]
        exact = self.exact or cascade.soft is None
        found = self._scanners.get((k, exact))
        return found or self._scanners.setdefault((k, exact), Scanner(cascade.exact() if exact else cascade))

    def _only(self) -> Scanner:
        """Return the scanner of a single cascade."""
        if len(self.cascades) > 1:
            raise InputError(f"expected a detector of one cascade, got one of {len(self.cascades)}")
        return self._scanner()

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
        parts = [self._grouped(k, found, gray.shape) for k, found in enumerate(self._hits(gray))]
        return parts[0] if len(parts) == 1 else self._merged(parts)

    def _grouped(self, k: int, found: Hits, shape: tuple[int, ...]) -> tuple[Detections, Floats]:
        """Group the hits of a cascade; return also the largest sum of each group."""
        limit, calibration = float(self.cascades[k].stage_limits[-1]), self.cascades[k].calibration
        if self.suppression is None:
            groups = group_rectangles(found.boxes, self.min_neighbors, sums=found.sums, limit=limit)
        else:
            groups = suppress_groups(found.boxes, self.min_neighbors, self.suppression, found.sums, limit=limit)
        boxes, kept = clip_boxes(groups.boxes, shape)
        scores = groups.evidence[kept]
        probabilities = None if calibration is None else calibration(scores)
        return Detections(boxes, scores, groups.counts[kept], probabilities), groups.sums[kept]

    def _merged(self, parts: list[tuple[Detections, Floats]]) -> tuple[Detections, Floats]:
        """Join what several cascades found, of boxes that overlap the best."""
        found = [part for part, _ in parts]
        scores = np.concatenate([one.scores for one in found])
        calibrated = [one.probabilities for one in found if one.probabilities is not None]
        probabilities = np.concatenate(calibrated) if len(calibrated) == len(found) else None
        together = Detections(
            np.concatenate([one.boxes for one in found]),
            scores,
            np.concatenate([one.neighbors for one in found]),
            probabilities,
            np.repeat(np.arange(len(found)), [len(one) for one in found]),
        )
        overlap = MERGE_OVERLAP if self.suppression is None else self.suppression
        # Of equal probabilities, which calibrations have many of, the higher score.
        order = np.lexsort((-scores, -(scores if probabilities is None else probabilities)))
        rank = np.empty(len(order))
        rank[order] = -np.arange(len(order))
        kept = non_max_suppression(together.boxes, rank, overlap)
        return together[kept], np.concatenate([sums for _, sums in parts])[kept]

    def hits(self, image: npt.NDArray[Any]) -> Hits:
        """Return the hits in an image, before they are grouped, by a single cascade; see `detect`."""
        self._only()
        return self._hits(to_gray(image))[0]

    def cost(self, image: npt.NDArray[Any], *, every: bool = False) -> Cost:
        """Return what scanning an image with a single cascade costs, by scale and by stage.

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
        scanner = self._only()

        def count(_: int, planes: Planes, rows: int, columns: int) -> Any:
            return scanner.count(planes, rows, columns, self.stride is None and not every)

        found = [(level, [one for _, one in parts]) for _, level, parts in self._run(to_gray(image), count)]
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
        """Yield, for each scale, how deep every window of the grid gets in a single cascade and with what margin."""
        scanner, gray = self._only(), to_gray(image)
        for level in self._levels(gray):
            shape = layout(level.size[0], level.stride, self.cascade.has_tilted)
            planes = level.planes(gray, (0, level.rows), shape)
            depth, sums, limits = scanner.depths(planes, level.rows, level.columns)
            yield WindowMap(level.scale, level.stride, level.window, depth, sums - limits)

    def _levels(self, gray: Gray, k: int = 0) -> list[Level]:
        """Return the levels that a cascade scans."""
        height, width = gray.shape
        least, most = _size("min_size", self.min_size), _size("max_size", self.max_size)
        found = levels((width, height), self.cascades[k].window, self.scale_factor, least, most, self.stride)
        return [level for level in found if level.rows > 0 and level.columns > 0]

    def _hits(self, gray: Gray) -> list[Hits]:
        """Return the hits of each cascade."""

        def scan(k: int, planes: Planes, rows: int, columns: int) -> Any:
            return self._scanner(k).scan(planes, rows, columns, self.stride is None)

        boxes: list[list[Boxes]] = [[np.zeros((0, 4), dtype=np.int32)] for _ in self.cascades]
        sums: list[list[Floats]] = [[np.zeros(0)] for _ in self.cascades]
        for k, level, parts in self._run(gray, scan):
            scale = np.float32(level.scale)
            side = np.rint(np.array(level.window, dtype=np.float32) * scale)
            for first, found in parts:
                ys = found.ys + np.int32(first * level.stride)
                corner = np.rint(np.column_stack([found.xs, ys]).astype(np.float32) * scale)
                boxes[k].append(np.column_stack([corner, np.broadcast_to(side, corner.shape)]).astype(np.int32))
                sums[k].append(found.sums)
        return [Hits(np.concatenate(b), np.concatenate(s)) for b, s in zip(boxes, sums, strict=True)]

    def _run(
        self, gray: Gray, work: Callable[[int, Planes, int, int], T]
    ) -> Iterator[tuple[int, Level, list[tuple[int, T]]]]:
        """Do `work` on all levels of all cascades, in bands of rows spread over the threads.

        Yields, in the order of the levels, a cascade's number, its level, and each band's first row of windows and
        result.
        """
        shared: dict[float, dict[int, Level]] = {}
        for k in range(len(self.cascades)):
            for level in self._levels(gray, k):
                shared.setdefault(level.scale, {})[k] = level
        found = [shared[scale] for scale in sorted(shared)]
        tilted = any(one.has_tilted for one in self.cascades)
        every = [level for here in found for level in here.values()]
        widest = {s: max((lv.size[0] for lv in every if lv.stride == s), default=0) for s in (1, 2)}
        shapes = {s: layout(width, s, tilted) for s, width in widest.items()}

        def run(here: dict[int, Level], first: int, last: int) -> dict[int, tuple[int, T]]:
            try:
                space = self._spaces.pop()
            except IndexError:
                space = Workspace()
            # The planes of the cascade whose windows reach down furthest serve all of them.
            inside = {k: (level, min(last, level.rows)) for k, level in here.items() if level.rows > first}
            deepest, end = max(inside.values(), key=lambda one: (one[1] - 1) * one[0].stride + one[0].window[1])
            planes = deepest.planes(gray, (first, end), shapes[deepest.stride], space)
            result = {k: (first, work(k, planes, end - first, level.columns)) for k, (level, end) in inside.items()}
            self._spaces.append(space)
            return result

        def gathered(here: dict[int, Level], parts: list[Any]) -> Iterator[Any]:
            for k, level in here.items():
                yield k, level, [part[k] for part in parts if k in part]

        tasks = [(here, list(bands(max(here.values(), key=lambda level: level.rows)))) for here in found]
        threads = self.threads or processors()
        if threads == 1 or sum(len(parts) for _, parts in tasks) < 2:
            for here, parts in tasks:
                yield from gathered(here, [run(here, *band) for band in parts])
            return
        pool = ThreadPoolExecutor(threads)
        try:
            running = [(here, [pool.submit(run, here, *band) for band in parts]) for here, parts in tasks]
            for here, futures in running:
                yield from gathered(here, [future.result() for future in futures])
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
