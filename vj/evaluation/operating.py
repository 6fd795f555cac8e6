"""What each setting of a detector buys: recall and false positives for every threshold, min_neighbors and time.

An image is scanned once; its hits are grouped for each `min_neighbors`, as the detector would.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from vj._types import Floats
from vj.cascade.calibration import ScoreCalibration
from vj.datasets.labelled import LabelledImage
from vj.detector import Detector
from vj.errors import InputError
from vj.evaluation.curves import Curve, pooled
from vj.evaluation.matching import NEITHER, TRUE, Alignment, Found, Truth, match
from vj.evaluation.measure import Rules
from vj.images import read_bgr

GROUPED = (1, 2, 3, 4, 5, 6, 8, 10)
"""Values of min_neighbors that are tried with grouping; with 0 nothing is grouped, and every hit is a detection."""

SUPPRESSED = (0, 1, 2, 3, 4, 6)
"""Those tried with suppression."""


class Threshold(NamedTuple):
    """What a detection must have at least.

    Parameters
    ----------
    kind : {'score', 'probability'}
    value : str
        A decimal number.
    """

    kind: Literal["score", "probability"]
    value: str


@dataclass(frozen=True, eq=False)
class OperatingCurve:
    """What a detector finds with one `min_neighbors`, as the threshold falls.

    Parameters
    ----------
    min_neighbors : int
    curve : Curve
    milliseconds : float
        Mean wall time of the scan and the grouping for an image.
    calibration : ScoreCalibration, optional
        That of the cascade.
    """

    min_neighbors: int
    curve: Curve
    milliseconds: float
    calibration: ScoreCalibration | None = None

    @property
    def useful(self) -> npt.NDArray[np.int64]:
        """Points at which more is found than at any higher threshold, and the last point, without a threshold.

        For each recall the one with the fewest false positives.
        """
        true = self.curve.true
        points = np.flatnonzero(np.diff(true, prepend=0.0) > 0)
        return points if not len(true) else np.union1d(points, len(true) - 1)

    def threshold(self, point: int) -> Threshold | None:
        """Return the threshold of the fewest digits that keeps exactly the detections of a point; None if all are kept.

        Parameters
        ----------
        point : int
            Index into `curve`.

        Returns
        -------
        Threshold
            On the probability if the cascade has a calibration and that tells these detections from the others; a
            calibration is flat in parts.
        """
        scores = self.curve.scores
        if point == len(scores) - 1:
            return None
        if self.calibration is not None:
            p = self.calibration(scores)
            low, high = float(p[point + 1 :].max()), float(p[: point + 1].min())
            if low < high:
                return Threshold("probability", shortest_between(low, high))
        return Threshold("score", shortest_between(float(scores[point + 1]), float(scores[point])))


def shortest_between(low: float, high: float) -> str:
    """Return the decimal number of the fewest digits above `low` and at most `high`, the largest of them."""
    for digits in range(40):
        text = str(Decimal(high).quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR))
        if float(text) > low:
            return f"{Decimal(text):f}"
    return repr(high)


def operating_curves(
    detector: Detector,
    images: Iterable[LabelledImage],
    rules: Rules,
    *,
    alignment: Alignment | None = None,
    min_neighbors: Sequence[int] = (),
) -> list[OperatingCurve]:
    """Measure a detector on labelled images with several values of `min_neighbors`.

    Parameters
    ----------
    detector : Detector
        Its own `min_neighbors` does not matter.
    images : iterable of LabelledImage
        Those that cannot be read are left out, with their objects.
    rules : Rules
        Its `align` does not matter.
    alignment : Alignment, optional
        Applied to the boxes before they are matched.
    min_neighbors : sequence of int
        By default `GROUPED`, or `SUPPRESSED` for a detector with suppression.

    Returns
    -------
    list of OperatingCurve
        One for each value.

    Raises
    ------
    InputError
        If no image could be read, or no object is asked for.
    """
    tried = list(min_neighbors) or list(GROUPED if detector.suppression is None else SUPPRESSED)
    grouping = [detector.replace(min_neighbors=n) for n in tried]
    alignment = alignment or Alignment()
    parts: list[list[tuple[Floats, npt.NDArray[np.int8]]]] = [[] for _ in tried]
    seconds: list[list[float]] = [[] for _ in tried]
    wanted = n_images = 0
    for image in images:
        try:
            pixels = read_bgr(image.path)
        except InputError:
            continue
        if n_images == 0:
            # The first scan may compile.
            detector.hits(pixels)
        truth = Truth(image.boxes, rules.wanted.ignored(image))
        wanted, n_images = wanted + truth.n_wanted, n_images + 1
        start = time.perf_counter()
        hits = detector.hits(pixels)
        scan = time.perf_counter() - start
        for k, one in enumerate(grouping):
            start = time.perf_counter()
            found = one.group(hits, pixels.shape)[0]
            seconds[k].append(scan + time.perf_counter() - start)
            boxes = alignment.apply(found.boxes.astype(np.float64))
            outcome = match(Found(boxes, found.scores), truth, rules.iou_threshold).outcome
            parts[k].append((found.scores, outcome))
    if not n_images:
        raise InputError("expected images that can be read, got none")
    if not wanted:
        raise InputError("expected at least one object to find, got none")
    return [
        OperatingCurve(n, _curve(rows, wanted), 1000 * float(np.mean(times)), detector.cascade.calibration)
        for n, rows, times in zip(tried, parts, seconds, strict=True)
    ]


def _curve(parts: list[tuple[Floats, npt.NDArray[np.int8]]], wanted: int) -> Curve:
    values, outcome = (np.concatenate(column) for column in zip(*parts, strict=True))
    counts = outcome != NEITHER
    return pooled(values[counts], (outcome[counts] == TRUE).astype(np.float64), wanted, len(parts))


def thinned(points: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """Return at most `most` of some points: the first, the last, and others evenly between them."""
    if len(points) <= most:
        return points
    return np.asarray(points[np.unique(np.rint(np.linspace(0, len(points) - 1, most)).astype(int))])
