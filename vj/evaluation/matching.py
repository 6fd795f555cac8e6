"""Which detection is which object: overlap, one-to-one matching by score, and a detector's own box convention.

References
----------
M. Everingham et al., "The PASCAL Visual Object Classes (VOC) challenge", IJCV 2010, section 4.2: detections are taken
in order of score, each matches at most one object, and objects set aside count neither way.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vj._types import Bools, Floats
from vj.errors import InputError

TRUE, FALSE, NEITHER = 1, 0, -1
"""What became of a detection: it found an object, it found none, or it fell on an object that is not asked for."""


@dataclass(frozen=True, eq=False)
class Truth:
    """The objects of one image.

    Parameters
    ----------
    boxes : ndarray of float64, shape (n, 4)
        x, y, width, height in pixels.
    ignored : ndarray of bool, shape (n,)
        Faces that count neither when found nor when missed.
    """

    boxes: Floats
    ignored: Bools

    def __post_init__(self) -> None:
        boxes = _boxes(self.boxes)
        ignored = np.asarray(self.ignored, dtype=np.bool_)
        if ignored.shape != (len(boxes),):
            raise InputError(f"expected one ignore mark for each of {len(boxes)} objects, got {ignored.shape}")
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "ignored", ignored)

    @property
    def n_wanted(self) -> int:
        """Number of objects that should be found."""
        return int((~self.ignored).sum())


@dataclass(frozen=True, eq=False)
class Found:
    """The detections of one image.

    Parameters
    ----------
    boxes : ndarray of float64, shape (n, 4)
        x, y, width, height in pixels.
    scores : ndarray of float64, shape (n,)
        Higher is more confident.
    """

    boxes: Floats
    scores: Floats

    def __post_init__(self) -> None:
        boxes = _boxes(self.boxes)
        scores = np.asarray(self.scores, dtype=np.float64)
        if scores.shape != (len(boxes),) or not np.isfinite(scores).all():
            raise InputError(f"expected one finite score for each of {len(boxes)} boxes, got {scores.shape}")
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "scores", scores)


@dataclass(frozen=True, eq=False)
class Matches:
    """What became of the detections of one image, and of its objects.

    Parameters
    ----------
    outcome : ndarray of int8, shape (n_detections,)
        `TRUE`, `FALSE` or `NEITHER`.
    face : ndarray of int64, shape (n_detections,)
        The object a true detection found; -1 for the others.
    overlap : ndarray of float64, shape (n_detections,)
        Overlap with that object, or the largest with any wanted object.
    """

    outcome: npt.NDArray[np.int8]
    face: npt.NDArray[np.int64]
    overlap: Floats


def overlaps(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Intersection over union of every box of `a` with every box of `b`; shape (len(a), len(b)).

    Boxes are x, y, width, height of continuous extent: two boxes that only touch do not overlap. A box without area
    overlaps nothing.
    """
    a, b = _boxes(a), _boxes(b)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    union = a[:, 2:].prod(axis=1)[:, None] + b[:, 2:].prod(axis=1)[None, :] - both
    share: Floats = np.zeros_like(both)
    np.divide(both, union, out=share, where=union > 0)
    return share


def match(found: Found, truth: Truth, iou_threshold: float = 0.5) -> Matches:
    """Match the detections of one image to its objects.

    In descending order of score (equal scores: in the order given) a detection takes the free wanted object it overlaps
    most, if by `iou_threshold` or more. One that takes none but overlaps an ignored object as much counts neither way,
    however many others already fell there; what remains is false, second hits on an object included.

    Parameters
    ----------
    found : Found
    truth : Truth
    iou_threshold : float
        Above 0, at most 1.

    Returns
    -------
    Matches
        In the order of `found`.
    """
    if not 0 < iou_threshold <= 1:
        raise InputError(f"expected an IoU threshold above 0 and at most 1, got {iou_threshold}")
    n = len(found.scores)
    table = overlaps(found.boxes, truth.boxes)
    wanted = np.where(truth.ignored[None, :], 0.0, table)
    on_ignored = (np.where(truth.ignored[None, :], table, 0.0) >= iou_threshold).any(axis=1)
    outcome = np.where(on_ignored, NEITHER, FALSE).astype(np.int8)
    face = np.full(n, -1, dtype=np.int64)
    overlap = wanted.max(axis=1, initial=0.0)
    free = ~truth.ignored
    for k in np.argsort(-found.scores, kind="stable"):
        candidates = np.where(free, wanted[k], 0.0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= iou_threshold:
            free[best] = False
            outcome[k], face[k], overlap[k] = TRUE, best, candidates[best]
    return Matches(outcome, face, overlap)


@dataclass(frozen=True)
class Alignment:
    """A detector's box convention against the labels': one constant shift and one scale.

    Parameters
    ----------
    dx, dy : float
        Shift of the centre, in widths and heights of the detection.
    scale : float
        Factor on width and height.
    """

    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0

    def apply(self, boxes: Floats) -> Floats:
        """Return the boxes (n, 4) as the labels would draw them."""
        boxes = _boxes(boxes)
        centre = boxes[:, :2] + boxes[:, 2:] * (0.5 + np.array([self.dx, self.dy]))
        size = boxes[:, 2:] * self.scale
        return np.column_stack([centre - size / 2, size])


_LOOSE = 0.3
"""Overlap from which a detection and an object are taken for a pair when the box convention is fitted."""


def fit_alignment(found: Sequence[Found], truth: Sequence[Truth], iou_threshold: float = 0.5) -> Alignment:
    """Fit the `Alignment` of a detector on a set of images.

    Pairs detections and objects loosely and takes the shift and scale under which most pairs overlap by the threshold;
    among equals, those with the largest mean overlap. Searched to 0.01 around the medians over the pairs.

    Parameters
    ----------
    found, truth : sequence
        One for each image, in the same order.
    iou_threshold : float
        The overlap that a match will need.

    Returns
    -------
    Alignment
        The neutral one if nothing matches.
    """
    best = Alignment()
    for _ in range(2):
        pairs = [_pairs(f, t, best) for f, t in zip(found, truth, strict=True)]
        ours, theirs = (np.concatenate([np.zeros((0, 4)), *(pair[side] for pair in pairs)]) for side in (0, 1))
        if not len(ours):
            return best
        shift = np.median((theirs[:, :2] + theirs[:, 2:] / 2 - ours[:, :2] - ours[:, 2:] / 2) / ours[:, 2:], axis=0)
        scale = np.median(np.sqrt(theirs[:, 2:].prod(axis=1) / ours[:, 2:].prod(axis=1)))
        best = Alignment(*(round(float(v), 2) for v in (*shift, scale)))
    for step in (0.04, 0.02, 0.01):
        best = _best_near(best, step, ours, theirs, iou_threshold)
    return best


def _best_near(start: Alignment, step: float, ours: Floats, theirs: Floats, iou_threshold: float) -> Alignment:
    """Best of the alignments up to four steps of shift and scale from `start`."""
    steps = [k * step for k in (0, -1, 1, -2, 2, -3, 3, -4, 4)]
    best, best_worth = start, (-1, -1.0)
    for ds, dy, dx in itertools.product(steps, steps, steps):
        if start.scale + ds <= 0:
            continue
        trial = Alignment(*(round(v, 2) for v in (start.dx + dx, start.dy + dy, start.scale + ds)))
        shares = _paired_overlaps(trial.apply(ours), theirs)
        worth = (int((shares >= iou_threshold).sum()), float(shares.mean()))
        if worth > best_worth:
            best, best_worth = trial, worth
    return best


def _paired_overlaps(a: Floats, b: Floats) -> Floats:
    """Intersection over union of box k of `a` with box k of `b`; shape (n,)."""
    sides = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    both = np.clip(sides, 0, None).prod(axis=1)
    return np.asarray(both / (a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - both))


def _pairs(found: Found, truth: Truth, alignment: Alignment) -> tuple[Floats, Floats]:
    """Boxes as detected and as labelled of the loose matches that the alignment so far gives."""
    matches = match(Found(alignment.apply(found.boxes), found.scores), truth, _LOOSE)
    true = matches.outcome == TRUE
    return found.boxes[true], truth.boxes[matches.face[true]]


def _boxes(boxes: npt.ArrayLike) -> Floats:
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all() or (array[:, 2:] < 0).any():
        raise InputError(f"expected boxes (n, 4) of finite numbers with sizes of 0 or more, got {array.shape}")
    return array
