"""The detector: from a picture to objects."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vj._system import processors
from vj.cascade.model import Cascade
from vj.errors import InputError
from vj.images import to_gray
from vj.scanning.grouping import group_rectangles, suppress_groups
from vj.scanning.planes import Workspace, layout
from vj.scanning.pyramid import Level, levels
from vj.scanning.scanner import LevelScan, Scanner

Size = int | tuple[int, int]

BAND_PIXELS = 1 << 19
"""Pixels of a level that are resampled, integrated and scanned together; a band's planes then stay near the core."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in one picture.

    Parameters
    ----------
    boxes : ndarray of int32, shape (n, 4)
        x, y, width, height in pixels of the picture.
    scores : ndarray of float64, shape (n,)
        See `Detector`.
    neighbors : ndarray of int32, shape (n,)
        Raw hits that were merged into each box.
    probabilities : ndarray of float64, shape (n,), or None
        That each box is an object, by the cascade's calibration; None if it has none.
    """

    boxes: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float64]
    neighbors: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        for name, dtype, tail in (("boxes", np.int32, (4,)), ("scores", np.float64, ()), ("neighbors", np.int32, ())):
            array = np.array(getattr(self, name), dtype=dtype, order="C")
            if array.shape != (len(self.boxes), *tail):
                raise InputError(f"expected {name} of shape {(len(self.boxes), *tail)}, got {array.shape}")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.probabilities is not None:
            p = np.array(self.probabilities, dtype=np.float64, order="C")
            if p.shape != self.scores.shape or not ((p >= 0) & (p <= 1)).all():
                raise InputError(f"expected {len(self)} probabilities from 0 to 1, got others in shape {p.shape}")
            p.setflags(write=False)
            object.__setattr__(self, "probabilities", p)

    def __len__(self) -> int:
        return len(self.boxes)

    def at_least(self, probability: float) -> Detections:
        """Return those detections whose probability is at least this.

        Raises
        ------
        InputError
            If there are no probabilities to go by.
        """
        if self.probabilities is None:
            raise InputError("expected detections with probabilities, got a cascade without calibration")
        keep = self.probabilities >= probability
        return Detections(self.boxes[keep], self.scores[keep], self.neighbors[keep], self.probabilities[keep])


class Candidates(NamedTuple):
    """Raw hits: every window that passed all stages, before grouping.

    Parameters
    ----------
    boxes : ndarray of int32, shape (n, 4)
        x, y, width, height in pixels of the picture; by scale, then row, then column.
    sums : ndarray of float64, shape (n,)
        Sum of the last stage.
    """

    boxes: npt.NDArray[np.int32]
    sums: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cost:
    """What was spent on one picture.

    Parameters
    ----------
    scales : ndarray of float64, shape (n_levels,)
    windows : ndarray of int64, shape (n_levels,)
        Windows visited at each scale.
    entered, evaluated : ndarray of int64, shape (n_levels, n_stages)
        Windows that entered, and weak classifiers evaluated in, each stage at each scale.
    """

    scales: npt.NDArray[np.float64]
    windows: npt.NDArray[np.int64]
    entered: npt.NDArray[np.int64]
    evaluated: npt.NDArray[np.int64]


class WindowMap(NamedTuple):
    """Every window of one scale.

    Parameters
    ----------
    level : Level
        Window (row, column) covers the picture from ``column * level.stride * level.scale`` on, likewise down.
    depth : ndarray of int16, shape (rows, columns)
        Stages passed; -1 for a window dropped as flat.
    margin : ndarray of float64, shape (rows, columns)
        Sum of the last stage reached minus that stage's threshold: negative if it was rejected there. Zero if flat.
    """

    level: Level
    depth: npt.NDArray[np.int16]
    margin: npt.NDArray[np.float64]


class Detector:
    """Finds objects of any size in a picture.

    With the default stride, `detect` returns the boxes of OpenCV's ``CascadeClassifier.detectMultiScale`` for the same
    cascade and settings. A detection's score is the logarithm of the sum of ``exp(margin)`` over the raw hits merged
    into it, where a hit's margin is its sum of the last stage minus that stage's threshold: one hit scores its margin,
    n equal ones log(n) more. One detector may be used by many threads at once.

    Parameters
    ----------
    cascade : Cascade
    scale_factor : float
        Ratio of one scale to the next, above 1.
    min_neighbors : int
        A box is reported if more than this many raw hits were merged into it; 0 reports the raw hits.
    min_size, max_size : int or (int, int), optional
        Smallest and largest object: side, or width and height, in pixels.
    stride : int, optional
        Pixels between neighbouring windows, at each scale: 1 visits every window. By default OpenCV's rule: 2 below
        scale 2, else 1, and the right neighbour of a window that the first stage rejected is left out.
    suppression : float, optional
        In place of OpenCV's rules for what becomes of groups: raw hits are averaged with the weight ``exp(margin)``,
        and of groups that overlap by more than this intersection over union the best by score is kept. With
        `min_neighbors` 0 that finds the most: groups of one hit stay, and their scores rank them low.
    threads : int, optional
        Threads that share a picture; by default one for each processor. Results do not depend on it.

    Raises
    ------
    InputError
        If a setting is out of range.
    """

    def __init__(
        self,
        cascade: Cascade,
        *,
        scale_factor: float = 1.1,
        min_neighbors: int = 3,
        min_size: Size | None = None,
        max_size: Size | None = None,
        stride: int | None = None,
        suppression: float | None = None,
        threads: int | None = None,
    ) -> None:
        self.cascade = cascade
        self._scanner = Scanner(cascade)
        # Memory that no thread is using now: taking and putting back are atomic.
        self._spaces: list[Workspace] = []
        self._set(
            scale_factor=scale_factor,
            min_neighbors=min_neighbors,
            min_size=min_size,
            max_size=max_size,
            stride=stride,
            suppression=suppression,
            threads=threads,
        )

    def _set(
        self,
        *,
        scale_factor: float,
        min_neighbors: int,
        min_size: Size | None,
        max_size: Size | None,
        stride: int | None,
        suppression: float | None,
        threads: int | None,
    ) -> None:
        if not (np.isfinite(scale_factor) and scale_factor > 1):
            raise InputError(f"expected a scale_factor above 1, got {scale_factor}")
        if min_neighbors < 0:
            raise InputError(f"expected min_neighbors of 0 or more, got {min_neighbors}")
        if stride not in (None, 1, 2):
            raise InputError(f"expected a stride of 1 or 2, got {stride}")
        if suppression is not None and not 0 <= suppression < 1:
            raise InputError(f"expected suppression of 0 to 1, got {suppression}")
        if threads is not None and threads < 1:
            raise InputError(f"expected threads of 1 or more, got {threads}")
        self.scale_factor = float(scale_factor)
        self.min_neighbors = int(min_neighbors)
        self.min_size = _size("min_size", min_size)
        self.max_size = _size("max_size", max_size)
        self.stride = stride
        self.suppression = suppression
        self.threads = threads or processors()

    def replace(self, **settings: Any) -> Detector:
        """Return a detector of the same cascade with some settings changed, at no cost.

        Parameters
        ----------
        **settings
            Those of the constructor.

        Raises
        ------
        InputError
            If a setting is out of range.
        """
        other = copy.copy(self)
        names = ("scale_factor", "min_neighbors", "min_size", "max_size", "stride", "suppression", "threads")
        unknown = sorted(set(settings) - set(names))
        if unknown:
            raise InputError(f"expected settings among {', '.join(names)}, got {', '.join(unknown)}")
        other._set(**{name: settings.get(name, getattr(self, name)) for name in names})
        return other

    def detect(self, image: npt.NDArray[Any]) -> Detections:
        """Find objects in a picture.

        Parameters
        ----------
        image : ndarray of uint8, shape (h, w), (h, w, 3) BGR or (h, w, 4) BGRA

        Returns
        -------
        Detections

        Raises
        ------
        InputError
            If the picture has another dtype or shape.
        """
        gray = to_gray(image)
        found = self._candidates(gray)
        margins = found.sums - self._limit
        if self.suppression is None:
            groups = group_rectangles(found.boxes, self.min_neighbors, scores=margins)
        else:
            groups = suppress_groups(found.boxes, self.min_neighbors, self.suppression, margins)
        boxes, kept = clip_boxes(groups.boxes, gray.shape)
        scores, calibration = groups.evidence[kept], self.cascade.calibration
        return Detections(boxes, scores, groups.counts[kept], None if calibration is None else calibration(scores))

    def candidates(self, image: npt.NDArray[Any]) -> Candidates:
        """Return the raw hits in a picture, before they are grouped; see `detect`."""
        return self._candidates(to_gray(image))

    def cost(self, image: npt.NDArray[Any]) -> Cost:
        """Return what scanning a picture costs, by scale and by stage; see `detect`."""
        gray = to_gray(image)
        found = [(level, list(scans)) for level, scans in self._scan(gray)]
        shape = (len(found), self.cascade.n_stages)
        return Cost(
            scales=np.array([level.scale for level, _ in found], dtype=np.float64),
            windows=np.array([sum(s.windows for s in scans) for _, scans in found], dtype=np.int64),
            entered=np.array([sum(s.entered for s in scans) for _, scans in found], dtype=np.int64).reshape(shape),
            evaluated=np.array([sum(s.evaluated for s in scans) for _, scans in found], dtype=np.int64).reshape(shape),
        )

    def windows(self, image: npt.NDArray[Any]) -> Iterator[WindowMap]:
        """Yield, scale by scale, how deep every window of the grid gets and with what margin; see `detect`."""
        gray = to_gray(image)
        limits = (self.cascade.stage_thresholds - np.float32(1e-5)).astype(np.float64)
        for level in self._levels(gray):
            shape = layout(level.size[0], level.stride, self.cascade.has_tilted)
            planes = level.planes(gray, (0, level.rows), shape)
            depth, sums = self._scanner.depths_planes(planes, level.rows, level.columns)
            reached = np.clip(depth, 0, len(limits) - 1)
            yield WindowMap(level, depth, np.where(depth < 0, 0.0, sums - limits[reached]))

    @property
    def _limit(self) -> float:
        return float(self.cascade.stage_thresholds[-1] - np.float32(1e-5))

    def _levels(self, gray: npt.NDArray[np.uint8]) -> list[Level]:
        height, width = gray.shape
        found = levels(
            (width, height), self.cascade.window, self.scale_factor, self.min_size, self.max_size, self.stride
        )
        return [level for level in found if level.rows > 0 and level.columns > 0]

    def _candidates(self, gray: npt.NDArray[np.uint8]) -> Candidates:
        boxes: list[npt.NDArray[np.int32]] = [np.zeros((0, 4), dtype=np.int32)]
        sums: list[npt.NDArray[np.float64]] = [np.zeros(0)]
        for level, scans in self._scan(gray):
            scale = np.float32(level.scale)
            side = np.rint(np.array(self.cascade.window, dtype=np.float32) * scale)
            for scan in scans:
                place = np.rint(np.column_stack([scan.xs, scan.ys]).astype(np.float32) * scale)
                boxes.append(np.column_stack([place, np.broadcast_to(side, place.shape)]).astype(np.int32))
                sums.append(scan.sums)
        return Candidates(np.concatenate(boxes), np.concatenate(sums))

    def _scan(self, gray: npt.NDArray[np.uint8]) -> Iterator[tuple[Level, list[LevelScan]]]:
        """Scan all levels, in bands of rows spread over the threads; yield in the order of the levels."""
        found = self._levels(gray)
        widest = {s: max((lv.size[0] for lv in found if lv.stride == s), default=0) for s in (1, 2)}
        shapes = {s: layout(width, s, self.cascade.has_tilted) for s, width in widest.items()}
        skip = self.stride is None

        def run(task: tuple[Level, int, int]) -> LevelScan:
            level, first, last = task
            try:
                space = self._spaces.pop()
            except IndexError:
                space = Workspace()
            planes = level.planes(gray, (first, last), shapes[level.stride], space)
            scan = self._scanner.scan_planes(planes, last - first, level.columns, skip)
            self._spaces.append(space)
            return replace(scan, ys=scan.ys + np.int32(first * level.stride))

        tasks = [(level, list(bands(level))) for level in found]
        if self.threads == 1 or sum(len(parts) for _, parts in tasks) < 2:
            for level, parts in tasks:
                yield level, [run((level, *band)) for band in parts]
            return
        pool = ThreadPoolExecutor(self.threads)
        try:
            running = [(level, [pool.submit(run, (level, *band)) for band in parts]) for level, parts in tasks]
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


def _size(name: str, size: Size | None) -> tuple[int, int]:
    if size is None:
        return (0, 0)
    pair = (size, size) if isinstance(size, (int, np.integer)) else tuple(size)
    if len(pair) != 2 or any(side < 0 for side in pair):
        raise InputError(f"expected {name} as a side or (width, height) of 0 or more, got {size}")
    return (int(pair[0]), int(pair[1]))


def clip_boxes(
    boxes: npt.NDArray[np.int32], shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Intersect boxes with the picture.

    Parameters
    ----------
    boxes : ndarray of int32, shape (n, 4)
    shape : (int, int)
        Height and width of the picture.

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
