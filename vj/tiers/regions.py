"""A detector made of two: a cheap one flags regions, a heavy one looks at these alone.

Regions are padded, merged where that is cheaper, and rescaled so that the object in them has the size that the heavy
detector likes. Viola and Jones (2001) do the same with windows; here it is whole detectors.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vj.detector import Detections
from vj.errors import InputError
from vj.evaluation.matching import TRUE, Found, Truth, fit_alignment, match, overlaps
from vj.tiers.detectors import FallbackWarning, Framing, Image, ImageDetector, as_detector, asked, own_probabilities

Floats = npt.NDArray[np.float64]

SAME_OBJECT = 0.3
"""Overlap from which two boxes of different detectors are taken for the same object."""
MERGED_SIZES = 1.5
"""Objects in one region differ in size by at most this factor: one rescaling has to suit all of them."""


@dataclass(frozen=True)
class Fusion:
    """Probability of a proposal from its score and the heavy detector's answer: a logistic model.

    Parameters
    ----------
    offset, score, found, answer : float
        Weights: constant, the proposal's score (up to `score_limit`), whether the heavy detector found it, and the
        heavy one's score then.
    score_limit : float
    rows : int
        Proposals it was fitted on.
    """

    offset: float
    score: float
    found: float
    answer: float
    score_limit: float
    rows: int

    @classmethod
    def fit(cls, scores: npt.ArrayLike, answers: npt.ArrayLike, true: npt.ArrayLike) -> Fusion:
        """Learn from proposals that are known to be objects or not.

        Parameters
        ----------
        scores : array_like of float, shape (n,)
            Of the proposals.
        answers : array_like of float, shape (n,)
            The heavy detector's score for each; NaN where it found nothing.
        true : array_like of bool, shape (n,)

        Raises
        ------
        InputError
            If there are no true or no false ones.
        """
        s, a, y = (np.asarray(v, dtype=np.float64) for v in (scores, answers, true))
        if not 0 < y.sum() < len(y) or not s.shape == a.shape == y.shape:
            raise InputError(f"expected true and false proposals to fit with, got {int(y.sum())} true of {len(y)}")
        # Beyond the largest score of a false proposal the score says nothing more.
        limit = float(s[y == 0].max())
        table = _design(np.minimum(s, limit), a)
        weights = np.zeros(4)
        for _ in range(50):
            p = 1 / (1 + np.exp(-np.clip(table @ weights, -30, 30)))
            # The ridge keeps weights finite where the heavy detector is never wrong.
            gradient = table.T @ (p - y) + 0.01 * weights
            weights = weights - np.linalg.solve((table * (p * (1 - p))[:, None]).T @ table + 0.01 * np.eye(4), gradient)
        offset, score, found, answer = (float(w) for w in weights)
        return cls(offset, score, found, answer, limit, len(y))

    def __call__(self, scores: Floats, answers: Floats) -> Floats:
        """Return the probability of each proposal; arguments as for `fit`."""
        weights = np.array([self.offset, self.score, self.found, self.answer])
        z = _design(np.minimum(scores, self.score_limit), answers) @ weights
        return np.asarray(1 / (1 + np.exp(-np.clip(z, -30, 30))), dtype=np.float64)


def _design(scores: Floats, answers: Floats) -> Floats:
    found = ~np.isnan(answers)
    return np.column_stack([np.ones(len(scores)), scores, found, np.where(found, answers, 0.0)])


class Chip(NamedTuple):
    """A region as the heavy detector sees it: a part of the image, rescaled.

    Parameters
    ----------
    x, y, width, height : int
        In the image.
    zoom : float
    proposals : tuple of int
        The proposals in it, by index.
    """

    x: int
    y: int
    width: int
    height: int
    zoom: float
    proposals: tuple[int, ...]

    @property
    def pixels(self) -> float:
        """What the heavy detector has to look at."""
        return self.width * self.height * self.zoom**2


class Examined(NamedTuple):
    """An answer of `Regions`, and what it took.

    Parameters
    ----------
    detections : Detections
    proposals : Detections
        Of the cheap detector.
    answers : ndarray of float64, shape (n_proposals,)
        Score the heavy detector gave each proposal that it was asked about; NaN where it found none.
    asked : ndarray of bool, shape (n_proposals,)
        Proposals that were in a region the heavy detector answered.
    chips : int
        Regions that the heavy detector was asked about.
    pixels : int
        Pixels in them.
    failures : tuple of str
        One line for each region for which it gave no answer.
    """

    detections: Detections
    proposals: Detections
    answers: Floats
    asked: npt.NDArray[np.bool_]
    chips: int
    pixels: int
    failures: tuple[str, ...]


class Regions:
    """A detector that lets a heavy detector look at the regions which a cheap one proposes.

    Without `fusion` the heavy detector decides: its own boxes and scores are reported, and proposals that it does not
    confirm are dropped. With `fusion` the proposals keep their boxes and get a probability from both answers. Where the
    heavy detector gives no answer for a region (it raises, or returns what are no detections), the proposals in it
    stand as they are, with a `FallbackWarning`.

    Parameters
    ----------
    propose, verify : ImageDetector
        The cheap one, with high recall, and the heavy one; or what `vj.tiers.as_detector` makes one of. Either may be
        a `Regions` itself.
    framing : Framing, optional
        By default the heavy detector's own, if it has an attribute `framing` as `vj.tiers.Dlib` does.
    band : (float, float), optional
        Proposals less likely than the first number are dropped, ones more likely than the second accepted, both
        unasked. Needs detections with probabilities. By default all are asked about.
    fusion : Fusion, optional
        See `fit_fusion`.

    Raises
    ------
    InputError
        If the band is none.
    """

    def __init__(
        self,
        propose: ImageDetector,
        verify: ImageDetector,
        *,
        framing: Framing | None = None,
        band: tuple[float, float] | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        if band is not None and not 0 <= band[0] <= band[1] <= 1:
            raise InputError(f"expected a band of two probabilities, the lower first, got {band}")
        self.propose, self.verify, self.band, self.fusion = as_detector(propose), as_detector(verify), band, fusion
        self.framing: Framing = framing or getattr(self.verify, "framing", None) or Framing()

    def detect(self, image: Image) -> Detections:
        """Find objects in an image (h, w, 3) BGR or (h, w) grey."""
        return self.examine(image).detections

    def examine(self, image: Image) -> Examined:
        """Find objects and report what was asked; see `Examined`."""
        proposals = self.propose.detect(image)
        n = len(proposals)
        sure, wanted = np.zeros(n, dtype=np.bool_), np.ones(n, dtype=np.bool_)
        if self.band is not None:
            p = own_probabilities(proposals)
            sure, wanted = p > self.band[1], (p >= self.band[0]) & (p <= self.band[1])
        cut = chips(proposals.boxes, np.flatnonzero(wanted), image.shape, self.framing)
        answers, reached = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
        found: list[Detections] = []
        failures = []
        for chip in cut:
            answer, failure = asked(self.verify, _cut(image, chip))
            if answer is None:
                failures.append(failure)
                continue
            placed = _place(answer, chip, image.shape)
            members = np.array(chip.proposals)
            reached[members] = True
            answers[members] = _answers(proposals.boxes[members], placed)
            found.append(placed)
        if failures:
            warnings.warn(
                f"{len(failures)} of {len(cut)} regions got no answer: {failures[0]}", FallbackWarning, stacklevel=2
            )
        standing = sure | (wanted & ~reached)
        if self.fusion is not None:
            fused = self._fused(proposals, answers, standing, reached)
        else:
            fused = _either(proposals, standing, found)
        pixels = round(sum(chip.pixels for chip in cut))
        return Examined(fused, proposals, answers, reached, len(cut), pixels, tuple(failures))

    def _fused(
        self, proposals: Detections, answers: Floats, standing: npt.NDArray[np.bool_], reached: npt.NDArray[np.bool_]
    ) -> Detections:
        assert self.fusion is not None
        p = np.zeros(len(proposals))
        p[reached] = self.fusion(proposals.scores[reached], answers[reached])
        if standing.any():
            p[standing] = own_probabilities(proposals)[standing]
        keep = np.flatnonzero(standing | reached)
        # Scores order what is equally probable: sure proposals have a probability of one.
        scores = p[keep] + 1e-6 * np.tanh(proposals.scores[keep] / 50)
        return Detections(proposals.boxes[keep], scores, proposals.neighbors[keep], p[keep])


def chips(
    boxes: npt.NDArray[np.int32], wanted: Sequence[int] | npt.NDArray[np.intp], shape: tuple[int, ...], framing: Framing
) -> list[Chip]:
    """Return the regions around proposals, clipped to the image, and merged where one costs less than two.

    Parameters
    ----------
    boxes : ndarray of int32, shape (n, 4)
    wanted : sequence of int
        Those that regions are made for.
    shape : (int, int, ...)
        Of the image: height, width.
    framing : Framing
    """
    height, width = shape[:2]
    out: list[Chip] = []
    # From large to small, so that what is merged has sizes close to each other.
    for k in sorted(wanted, key=lambda k: -int(boxes[k, 2:].max())):
        x, y, w, h = (float(v) for v in boxes[k])
        side = max(w, h)
        reach = side * framing.context / 2
        left, top = max(0, round(x + w / 2 - reach)), max(0, round(y + h / 2 - reach))
        right, bottom = min(width, round(x + w / 2 + reach)), min(height, round(y + h / 2 + reach))
        if right <= left or bottom <= top:
            continue
        zoom = 1.0 if framing.object_side is None else min(framing.max_zoom, framing.object_side / side)
        new = Chip(left, top, right - left, bottom - top, zoom, (int(k),))
        for i, old in enumerate(out):
            both = _merged(old, new)
            # The first of a region is its largest.
            alike = framing.object_side is None or boxes[old.proposals[0], 2:].max() <= MERGED_SIZES * side
            if alike and both.pixels <= old.pixels + new.pixels:
                out[i] = both
                break
        else:
            out.append(new)
    return out


def _merged(a: Chip, b: Chip) -> Chip:
    x, y = min(a.x, b.x), min(a.y, b.y)
    right, bottom = max(a.x + a.width, b.x + b.width), max(a.y + a.height, b.y + b.height)
    return Chip(x, y, right - x, bottom - y, max(a.zoom, b.zoom), a.proposals + b.proposals)


def _cut(image: Image, chip: Chip) -> Image:
    import cv2

    part = np.ascontiguousarray(image[chip.y : chip.y + chip.height, chip.x : chip.x + chip.width])
    size = (max(1, round(chip.width * chip.zoom)), max(1, round(chip.height * chip.zoom)))
    if size == (chip.width, chip.height):
        return part
    way = cv2.INTER_AREA if chip.zoom < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, size, interpolation=way), dtype=np.uint8)


def _place(found: Detections, chip: Chip, shape: tuple[int, ...]) -> Detections:
    """Bring detections in a region into the image; what lies outside of it entirely is left out."""
    corners = np.concatenate([found.boxes[:, :2], found.boxes[:, :2] + found.boxes[:, 2:].astype(np.float64)], axis=1)
    corners = np.rint(corners / chip.zoom + np.array([chip.x, chip.y] * 2))
    limits = np.array([shape[1], shape[0]])
    kept = (corners[:, 2:] > corners[:, :2]).all(axis=1) & (corners[:, 2:] > 0).all(axis=1)
    kept &= (corners[:, :2] < limits).all(axis=1)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)[kept].astype(np.int32)
    p = None if found.probabilities is None else found.probabilities[kept]
    return Detections(boxes, found.scores[kept], found.neighbors[kept], p)


def _answers(boxes: npt.NDArray[np.int32], found: Detections) -> Floats:
    """For each proposal the score of the detection that overlaps it most, each detection given once; NaN for none."""
    out = np.full(len(boxes), np.nan)
    shares = overlaps(boxes.astype(np.float64), found.boxes.astype(np.float64))
    while shares.size and shares.max() >= SAME_OBJECT:
        i, j = np.unravel_index(int(shares.argmax()), shares.shape)
        out[i] = found.scores[j]
        shares[i], shares[:, j] = 0, 0
    return out


def _either(proposals: Detections, standing: npt.NDArray[np.bool_], found: list[Detections]) -> Detections:
    """Join what the heavy detector found with the proposals that stand, the best of those that overlap."""
    n = int(standing.sum())
    parts = [*found, *([_only(proposals, standing)] if n else [])]
    if not parts:
        return _only(proposals, standing)
    comparable = all(part.probabilities is not None for part in parts)
    boxes = np.concatenate([part.boxes for part in parts])
    p = np.concatenate([own for part in parts if (own := part.probabilities) is not None]) if comparable else None
    scores = np.concatenate([part.scores for part in parts]) if p is None or len(parts) == len(found) else p
    counts = np.concatenate([part.neighbors for part in parts])
    shares = overlaps(boxes.astype(np.float64), boxes.astype(np.float64))
    # Confirmed ones first: the scores of two detectors have different units if there are no probabilities.
    confirmed = np.arange(len(boxes)) < len(boxes) - n
    keep: list[int] = []
    for k in np.lexsort((-scores, ~confirmed)):
        if not keep or shares[k, keep].max() < SAME_OBJECT:
            keep.append(int(k))
    return Detections(boxes[keep], scores[keep], counts[keep], None if p is None else p[keep])


def _only(found: Detections, keep: npt.NDArray[np.bool_]) -> Detections:
    p = None if found.probabilities is None else found.probabilities[keep]
    return Detections(found.boxes[keep], found.scores[keep], found.neighbors[keep], p)


def fit_fusion(examined: Sequence[Examined], truth: Sequence[Truth], iou_threshold: float = 0.5) -> Fusion:
    """Fit the fusion of both answers on labelled images.

    Parameters
    ----------
    examined : sequence of Examined
        What `Regions.examine` returned for each image.
    truth : sequence of Truth
        The objects of each image.
    iou_threshold : float
        Overlap that makes a proposal true, after one shift and scale for all were fitted.

    Raises
    ------
    InputError
        If no true or no false proposals were asked about.
    """
    found = [Found(e.proposals.boxes.astype(np.float64), e.proposals.scores) for e in examined]
    place = fit_alignment(found, truth, iou_threshold)
    rows: list[tuple[Any, Any, Any]] = []
    for e, f, t in zip(examined, found, truth, strict=True):
        outcome = match(Found(place.apply(f.boxes), f.scores), t, iou_threshold).outcome
        use = e.asked & (outcome >= 0)
        rows.append((f.scores[use], e.answers[use], outcome[use] == TRUE))
    return Fusion.fit(*(np.concatenate([np.zeros(0), *(row[k] for row in rows)]) for k in range(3)))
