"""The detector: from an image to objects."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vj._system import processors
from vj._types import Boxes, Counts, Floats, Gray, Size
from vj.cascade.model import Cascade
from vj.detections import Detections as Detections
from vj.detections import unchecked
from vj.errors import InputError
from vj.images import to_gray
from vj.scanning.grouping import clip, group_rectangles, non_max_suppression, suppress_groups
from vj.scanning.planes import Workspace, layout
from vj.scanning.pyramid import Level, levels
from vj.scanning.scanner import Scanner
from vj.scanning.whole import Geometry, ImageScan, coarse_plan, plan, scan_image

MAX_STAGES = 1000
"""Most stages that a cascade's file may have."""

MERGE_OVERLAP = 0.3
"""Intersection over union above which boxes that different cascades found are one object, unless suppression is set."""


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
        groups that overlap by more than this intersection over union the one with the best score is kept, and what lies
        inside it is dropped. It finds the most with `min_neighbors` 0: groups of one hit are kept, and their scores
        rank them low.
    threads : int, optional
        Threads that share an image; by default one for each processor. Results do not depend on it.
    exact : bool
        Find what OpenCV finds: soft thresholds of the cascade and `coarse` are ignored.
    coarse : int
        Scan every few scales, about 1.2 apart, and on the scales in between only windows near one that passed this many
        stages; 0 scans every scale. More stages save more time and lose more detections: of the packaged cascade's 15,
        12 lose next to nothing, 14 a little, in about half of the time.

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
    coarse: int = 0

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
        if not 0 <= self.coarse <= MAX_STAGES:
            raise InputError(f"expected coarse as 0 to {MAX_STAGES} stages, got {self.coarse}")
        for name in ("min_size", "max_size"):
            object.__setattr__(self, name, _size(name, getattr(self, name)))


@dataclass(frozen=True)
class Detector(Settings):
    """Finds objects of any size in an image.

    With the default stride, `detect` returns the boxes of OpenCV's ``CascadeClassifier.detectMultiScale`` for the same
    cascade and settings, unless the cascade has soft thresholds or `coarse` is set; `exact` ignores both. The score of
    a detection is the logarithm of the sum of ``exp(margin)`` over the hits merged into it, where a hit's margin is its
    sum of the last stage minus that stage's limit: one hit scores its margin, n equal ones log(n) more. One detector
    may be used by many threads at once.

    Several cascades, whose windows may differ in size, share the image pyramid. Of boxes that overlap or lie in each
    other, the most probable one is kept; if a cascade has no calibration, the one with the best score, although scores
    of different cascades are not comparable. Detections come best first and say which cascade found them.

    Parameters
    ----------
    cascade : Cascade or sequence of Cascade
    scale_factor, min_neighbors, min_size, max_size, stride, suppression, threads, exact, coarse
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
    _windows: tuple[Size, ...] = field(init=False, repr=False)
    _tilted: bool = field(init=False, repr=False)
    _scanners: dict[tuple[int, bool], Scanner] = field(init=False, repr=False, default_factory=dict)
    """Made when first used, with and without soft thresholds; shared by detectors that `replace` returns."""
    _spaces: list[Workspace] = field(init=False, repr=False, default_factory=list)
    """Memory that no thread is using now: taking and putting back are atomic."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made when first used: a process that gets this detector makes its own."""
        return self.__dict__ | {"_scanners": {}, "_spaces": []}

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
        object.__setattr__(self, "_windows", tuple(one.window for one in cascades))
        object.__setattr__(self, "_tilted", any(one.has_tilted for one in cascades))
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
        parts = [self.group(found, gray.shape, k) for k, found in enumerate(self._hits(gray))]
        return parts[0] if len(parts) == 1 else self._merged(parts)

    def group(self, found: Hits, shape: tuple[int, ...], source: int = 0) -> tuple[Detections, Floats]:
        """Group the hits of a cascade as `detect_with_sums` does: to try several settings of grouping on one scan.

        Parameters
        ----------
        found : Hits
            What `hits` returned.
        shape : (int, int)
            Height and width of the image.
        source : int
            Number of the cascade.

        Returns
        -------
        Detections
        ndarray of float64, shape (n,)
            The largest sum of each group.
        """
        limit, calibration = self._scanner(source).limit, self.cascades[source].calibration
        if self.suppression is None:
            groups = group_rectangles(found.boxes, self.min_neighbors, sums=found.sums, limit=limit)
        else:
            groups = suppress_groups(found.boxes, self.min_neighbors, self.suppression, found.sums, limit=limit)
        boxes, kept = clip_boxes(groups.boxes, shape)
        scores = groups.evidence[kept]
        probabilities = None if calibration is None else calibration(scores)
        return unchecked(boxes, scores, groups.counts[kept], probabilities), groups.sums[kept]

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
            Count every window of the grid, those that OpenCV's rule and `coarse` leave out included.

        Returns
        -------
        Cost
        """
        self._only()
        (found,), scales = self._scan(to_gray(image), every=every, count=True)
        return Cost(
            scales=scales,
            windows=found.windows,
            hits=found.hits,
            entered=found.entered,
            weak_classifiers=found.entered * self.cascade.added,
            features=found.features,
        )

    def windows(self, image: npt.NDArray[Any]) -> Iterator[WindowMap]:
        """Yield, for each scale, how deep every window of the grid gets in a single cascade and with what margin."""
        scanner, gray = self._only(), to_gray(image)
        for level in self._levels(gray):
            shape = layout(level.size[0], level.stride, self.cascade.has_tilted)
            planes = level.planes(gray, (0, level.rows), shape)
            depth, sums, limits = scanner.depths(planes, level.rows, level.columns)
            yield WindowMap(level.scale, level.stride, level.window, depth, sums - limits)

    def _geometry(self, gray: Gray) -> Geometry:
        # Pairs, once settings are checked.
        least: Any = self.min_size
        most: Any = self.max_size
        size = gray.shape[1], gray.shape[0]
        return Geometry(size, self._windows, self.scale_factor, least, most, self.stride, self._tilted)

    def _levels(self, gray: Gray) -> list[Level]:
        geometry = self._geometry(gray)
        found = levels(geometry.size, geometry.windows[0], *geometry[2:6])
        return [level for level in found if level.rows]

    def _scan(self, gray: Gray, *, every: bool = False, count: bool = False) -> tuple[list[ImageScan], Floats]:
        """Scan an image; return what each cascade found, and the scales of the levels."""
        geometry = self._geometry(gray)
        todo = plan(geometry)
        stages = 0 if self.exact or every else self.coarse
        found = scan_image(
            [self._scanner(k) for k in range(len(self.cascades))],
            gray,
            todo,
            self._spaces,
            threads=self.threads or processors(),
            skip=self.stride is None and not every,
            coarse=(stages, coarse_plan(geometry)) if stages else None,
            count=count,
        )
        return found, todo.scales.astype(np.float64)

    def _hits(self, gray: Gray) -> list[Hits]:
        """Return the hits of each cascade."""
        return [Hits(found.boxes, found.sums) for found in self._scan(gray)[0]]


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
    return clip(np.ascontiguousarray(boxes, dtype=np.int32), int(shape[1]), int(shape[0]))  # type: ignore[no-any-return]
