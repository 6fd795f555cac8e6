"""A detector made of two: a cheap one flags regions, a heavy one looks at these alone.

Regions are padded, merged where that is cheaper, and rescaled so that the object in them has the size that the heavy
detector likes. Viola and Jones (2001) do the same with windows; here it is whole detectors.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vj._types import Floats, Image
from vj.detector import Detections
from vj.errors import InputError
from vj.evaluation.matching import TRUE, Found, Truth, fit_alignment, match
from vj.tiers.chips import SAME_OBJECT, Placed, chips, cut_out, joined, overlap, place, scores_of
from vj.tiers.detectors import FallbackWarning, Framing, ImageDetector, as_detector, asked, own_probabilities


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
    table = np.ones((len(scores), 4))
    table[:, 1], table[:, 2], table[:, 3] = scores, found, np.where(found, answers, 0.0)
    return table


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
        # Lists and plain numbers: for the few regions of an image, arrays took five times as long.
        boxes = proposals.boxes.tolist()
        n = len(boxes)
        wanted: Sequence[int] = range(n)
        # Without an answer for their region they stand.
        standing = [True] * n
        if self.band is not None:
            low, high = self.band
            p = own_probabilities(proposals).tolist()
            wanted = [k for k in wanted if low <= p[k] <= high]
            standing = [one >= low for one in p]
        shape = image.shape
        cut = chips(boxes, wanted, shape, self.framing)
        answers, reached = [math.nan] * n, [False] * n
        found: list[Placed] = []
        failures = []
        for chip in cut:
            answer, failure = asked(self.verify, cut_out(image, chip))
            if answer is None:
                failures.append(failure)
                continue
            placed, members = place(answer, chip, shape), chip.proposals
            for k in members:
                reached[k], standing[k] = True, False
            found += placed
            if len(placed) == len(members) == 1:
                # The usual case: 3 us less for each region.
                if overlap(boxes[members[0]], placed[0].box) >= SAME_OBJECT:
                    answers[members[0]] = placed[0].score
            elif placed:
                for k, score in zip(members, scores_of([boxes[k] for k in members], placed), strict=True):
                    answers[k] = score
        if failures:
            warnings.warn(
                f"{len(failures)} of {len(cut)} regions got no answer: {failures[0]}", FallbackWarning, stacklevel=2
            )
        given, there = np.array(answers, dtype=np.float64), np.array(reached, dtype=np.bool_)
        if self.fusion is not None:
            fused = self._fused(proposals, given, np.array(standing, dtype=np.bool_), there)
        else:
            fused = joined(proposals, standing, found)
        pixels = round(sum([chip.pixels for chip in cut]))
        return Examined(fused, proposals, given, there, len(cut), pixels, tuple(failures))

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
