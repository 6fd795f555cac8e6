"""Calibration: from a model's own confidence to the probability that it is right.

Isotonic regression (pool adjacent violators: Ayer et al. 1955, Zadrozny and Elkan 2002) for each predicted label,
shrunk to that of all labels together; or Platt's sigmoid (Platt 1999). Measured by the expected calibration error
(Naeini et al. 2015, Guo et al. 2017) and the Brier score (1950).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._types import Floats
from vj.errors import InputError

METHODS = ("isotonic", "platt")
_PASSES = 12
SHRINK = 50.0
"""A label seen n times weighs n / (n + SHRINK) against all labels together."""


@dataclass(frozen=True)
class Curve:
    """A non-decreasing function of a score: straight between its knots, flat beyond them.

    Parameters
    ----------
    scores : tuple of float
        Strictly increasing, at least one.
    probabilities : tuple of float
        As many, non-decreasing, 0 to 1.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        x, y = np.asarray(self.scores, np.float64), np.asarray(self.probabilities, np.float64)
        if x.ndim != 1 or x.shape != y.shape or not len(x) or not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise InputError("expected a calibration curve of as many finite probabilities as scores, got another")
        if (np.diff(x) <= 0).any() or (np.diff(y) < 0).any() or y[0] < 0 or y[-1] > 1:
            raise InputError("expected a calibration curve with rising scores and probabilities 0 to 1, got another")

    def __call__(self, scores: Floats) -> Floats:
        """Return the probability at each score."""
        return np.interp(scores, self.scores, self.probabilities)

    def at(self, score: float) -> float:
        """Return the probability at one score: as `__call__`, without the arrays (0.3 us rather than 5)."""
        x, y = self.scores, self.probabilities
        k = bisect_right(x, score)
        if k == 0:
            return y[0]
        if k == len(x):
            return y[-1]
        return y[k - 1] + (y[k] - y[k - 1]) * (score - x[k - 1]) / (x[k] - x[k - 1])


@dataclass(frozen=True)
class Sigmoid:
    """Platt's curve, 1 / (1 + exp(-(slope * score + offset)))."""

    slope: float
    offset: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.offset)):
            raise InputError(f"expected a finite sigmoid, got slope {self.slope} and offset {self.offset}")

    def __call__(self, scores: Floats) -> Floats:
        """Return the probability at each score."""
        return _logistic(self.slope * np.asarray(scores, np.float64) + self.offset)

    def at(self, score: float) -> float:
        """Return the probability at one score."""
        # Beyond 700 exp overflows; the probability is 0 or 1 to the last digit long before.
        return 1.0 / (1.0 + math.exp(-min(700.0, max(-700.0, self.slope * score + self.offset))))


@dataclass(frozen=True)
class Calibration:
    """The probability that an answer is right, from its confidence and, where known, its label.

    Parameters
    ----------
    whole : Curve or Sigmoid
        For all answers together; it alone decides about labels never seen.
    by_label : mapping of str to (Curve or Sigmoid, float)
        The curve of each label and its weight, 0 to 1, against `whole`.
    rows : int
        Answers it was fitted on.
    share : float, optional
        Of those, how many were right, 0 to 1.
    """

    whole: Curve | Sigmoid
    by_label: Mapping[str, tuple[Curve | Sigmoid, float]]
    rows: int
    share: float | None = None

    @classmethod
    def fit(
        cls,
        confidences: npt.ArrayLike,
        correct: npt.ArrayLike,
        labels: Sequence[Any] | npt.NDArray[Any] | None = None,
        *,
        method: str = "isotonic",
        shrink: float = SHRINK,
    ) -> Calibration:
        """Learn from answers that are known to be right or wrong.

        Parameters
        ----------
        confidences : array_like of float, shape (n,)
            Or any score that rises with being right: a margin, a log-probability.
        correct : array_like of bool, shape (n,)
        labels : sequence, length n, optional
            What was answered, compared as text; each label then gets a curve of its own.
        method : {"isotonic", "platt"}
        shrink : float
            See `SHRINK`.

        Raises
        ------
        InputError
            No rows, unequal lengths, scores that are not finite, or an unknown method.
        """
        scores, right = checked_pairs(confidences, correct)
        if method not in METHODS:
            raise InputError(f"expected a method of {' or '.join(METHODS)}, got {method!r}")
        if not shrink >= 0:
            raise InputError(f"expected shrink of at least 0, got {shrink}")
        fit = isotonic if method == "isotonic" else platt
        whole = fit(scores, right)
        curves: dict[str, tuple[Curve | Sigmoid, float]] = {}
        if labels is not None:
            names = as_text(labels)
            if names.shape != scores.shape:
                raise InputError(f"expected a label for each of {len(scores)} confidences, got {len(names)}")
            for name in np.unique(names):
                rows = np.flatnonzero(names == name)
                curves[str(name)] = (fit(scores[rows], right[rows]), len(rows) / (len(rows) + shrink))
        return cls(whole, curves, len(scores), float(right.mean()))

    def predict(self, confidences: npt.ArrayLike, labels: Sequence[Any] | npt.NDArray[Any] | None = None) -> Floats:
        """Return the probability that each answer is right; float64, shape (n,)."""
        scores = np.asarray(confidences, dtype=np.float64)
        out = np.asarray(self.whole(scores), dtype=np.float64)
        if labels is not None and self.by_label:
            names = as_text(labels)
            for name, (curve, weight) in self.by_label.items():
                rows = np.flatnonzero(names == name)
                if len(rows):
                    out[rows] = (1.0 - weight) * out[rows] + weight * curve(scores[rows])
        return out

    def at(self, confidence: float, label: str | None = None) -> float:
        """Return the probability that one answer is right: as `predict`, without the arrays."""
        p = self.whole.at(confidence)
        found = self.by_label.get(label) if label is not None else None
        if found is None:
            return p
        curve, weight = found
        return (1.0 - weight) * p + weight * curve.at(confidence)

    def shrunk(self, trust: float) -> Calibration:
        """Return one whose probabilities lie closer to `share`: at `trust`, 0 to 1, of their distance from it.

        Raises
        ------
        InputError
            The share is not known, or a curve is Platt's.
        """
        curves = [self.whole, *(curve for curve, _ in self.by_label.values())]
        if self.share is None or not all(isinstance(curve, Curve) for curve in curves):
            raise InputError("expected isotonic curves that know how many answers were right, got others")
        share = self.share

        def moved(curve: Any) -> Curve:
            return Curve(curve.scores, tuple(share + trust * (p - share) for p in curve.probabilities))

        by_label = {name: (moved(curve), weight) for name, (curve, weight) in self.by_label.items()}
        return Calibration(moved(self.whole), by_label, self.rows, share)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain lists and numbers, for JSON."""
        by_label = {name: {"weight": weight} | _plain(curve) for name, (curve, weight) in self.by_label.items()}
        known = {} if self.share is None else {"share": self.share}
        return {"rows": self.rows} | known | _plain(self.whole) | ({"by_label": by_label} if by_label else {})

    @classmethod
    def from_dict(cls, plain: Any) -> Calibration:
        """Read back what `to_dict` returned.

        Raises
        ------
        InputError
            A key is missing, or a curve does not rise.
        """
        try:
            rows = plain["rows"]
            if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
                raise InputError(f"expected a calibration's rows as a number, got {rows!r}")
            by_label = {}
            for name, one in plain.get("by_label", {}).items():
                weight = float(one["weight"])
                if not 0.0 <= weight <= 1.0:
                    raise InputError(f"expected a weight from 0 to 1 for label {name!r}, got {weight}")
                by_label[str(name)] = (_curve(one), weight)
            share = None if plain.get("share") is None else float(plain["share"])
            if share is not None and not 0.0 <= share <= 1.0:
                raise InputError(f"expected a calibration's share from 0 to 1, got {share}")
            return cls(_curve(plain), by_label, rows, share)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"expected a calibration, got one that cannot be read: {error!r}") from None


def _plain(curve: Curve | Sigmoid) -> dict[str, Any]:
    if isinstance(curve, Sigmoid):
        return {"slope": curve.slope, "offset": curve.offset}
    return {"scores": list(curve.scores), "probabilities": list(curve.probabilities)}


def _curve(plain: Mapping[str, Any]) -> Curve | Sigmoid:
    if "slope" in plain:
        return Sigmoid(float(plain["slope"]), float(plain["offset"]))
    return Curve(tuple(map(float, plain["scores"])), tuple(map(float, plain["probabilities"])))


# Fitting one curve.


def isotonic(scores: Floats, right: Floats) -> Curve:
    """Fit the non-decreasing curve with the least squared error, by pooling adjacent violators.

    Equal scores are one point. Each pooled block becomes two knots, at its first and its last score.

    Parameters
    ----------
    scores, right : ndarray of float64, shape (n,)
        n at least 1; `right` is 0 or 1.
    """
    x, first = np.unique(scores, return_inverse=True)
    weights = np.bincount(first).astype(np.float64)
    means = np.bincount(first, weights=right) / weights
    starts, values = pool_adjacent_violators(means, weights)
    ends = [*starts[1:], len(x)]
    knots, heights = [], []
    for start, end, value in zip(starts, ends, values, strict=True):
        for k in {start, end - 1}:
            knots.append(float(x[k]))
            heights.append(value)
    order = np.argsort(knots, kind="stable")
    return Curve(tuple(knots[k] for k in order), tuple(heights[k] for k in order))


def pool_adjacent_violators(means: Floats, weights: Floats) -> tuple[list[int], list[float]]:
    """Return the first index and the value of each block of the closest non-decreasing sequence.

    Parameters
    ----------
    means, weights : ndarray of float64, shape (n,)
        n at least 1, weights positive.
    """
    means, weights, first = _pooled_runs(means, weights)
    starts: list[int] = []
    values: list[float] = []
    masses: list[float] = []
    for start, value, mass in zip(first.tolist(), means.tolist(), weights.tolist(), strict=True):
        # Equal neighbours are pooled as well: fewer knots, the same curve.
        while values and values[-1] >= value:
            total = masses[-1] + mass
            value = (values[-1] * masses[-1] + value * mass) / total
            mass, start = total, starts[-1]
            starts.pop(), values.pop(), masses.pop()
        starts.append(start)
        # Rounding may leave the range of the means by one unit in the last place.
        values.append(min(1.0, max(0.0, value)))
        masses.append(mass)
    return starts, values


def _pooled_runs(means: Floats, weights: Floats) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Pool whole falling runs at once, several times; return what is left, and where each block begins.

    All of a falling run ends up in one block whatever is pooled first. On 7,000 scores this leaves a few hundred to the
    loop and saves four fifths of the time.
    """
    first = np.arange(len(means), dtype=np.int64)
    for _ in range(_PASSES):
        starts = np.flatnonzero(np.concatenate([[True], means[1:] > means[:-1]]))
        if len(starts) == len(means):
            break
        total = np.add.reduceat(weights, starts)
        means = np.add.reduceat(means * weights, starts) / total
        weights, first = total, first[starts]
    return means, weights, first


def platt(scores: Floats, right: Floats, rounds: int = 100) -> Sigmoid:
    """Fit Platt's sigmoid by Newton's method, with his smoothed targets (n+ + 1) / (n+ + 2) and 1 / (n- + 2).

    Parameters
    ----------
    scores, right : ndarray of float64, shape (n,)
        n at least 1; `right` is 0 or 1.
    rounds : int
        Maximum number of Newton steps.
    """
    positives = float(right.sum())
    negatives = len(right) - positives
    targets = np.where(right > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    design = np.column_stack([(scores - centre) / spread, np.ones(len(scores))])
    weights = np.array([0.0, math.log((positives + 1) / (negatives + 1))])

    def loss(w: Floats) -> float:
        z = design @ w
        return float(np.logaddexp(0.0, z).sum() - targets @ z)

    value = loss(weights)
    for _ in range(rounds):
        p = _logistic(design @ weights)
        gradient = design.T @ (p - targets)
        # The ridge keeps the matrix regular where all scores are equal; it does not move the minimum otherwise.
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-8 and loss(weights - size * step) > value:
            size /= 2
        weights = weights - size * step
        old, value = value, loss(weights)
        if old - value <= 1e-12 * (1 + abs(value)):
            break
    slope = float(weights[0]) / spread
    return Sigmoid(slope, float(weights[1]) - slope * centre)


def _logistic(z: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(z, -700.0, 700.0))), dtype=np.float64)


# Measuring.


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often answers of about the same probability were right; a row for each bin that holds any.

    Parameters
    ----------
    probability : ndarray of float64, shape (bins,)
        Mean of the stated probabilities.
    frequency : ndarray of float64, shape (bins,)
        Share that was right.
    counts : ndarray of int64, shape (bins,)
    """

    probability: Floats
    frequency: Floats
    counts: npt.NDArray[np.int64]


def reliability(probabilities: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> Reliability:
    """Sort answers into bins of equal width over 0 to 1 and compare what was stated with what was found.

    Parameters
    ----------
    probabilities : array_like of float, shape (n,)
        0 to 1.
    correct : array_like of bool, shape (n,)
    bins : int
        15 as in Guo et al. (2017), section 2.

    Raises
    ------
    InputError
    """
    stated, right = checked_pairs(probabilities, correct)
    if stated.min() < 0 or stated.max() > 1:
        raise InputError(f"expected probabilities from 0 to 1, got {stated.min():g} to {stated.max():g}")
    if bins < 1:
        raise InputError(f"expected at least one bin, got {bins}")
    where = np.minimum((stated * bins).astype(np.int64), bins - 1)
    count = np.bincount(where, minlength=bins)
    held = np.flatnonzero(count)
    mean = np.bincount(where, weights=stated, minlength=bins)[held] / count[held]
    found = np.bincount(where, weights=right, minlength=bins)[held] / count[held]
    return Reliability(mean, found, count[held].astype(np.int64))


def expected_calibration_error(probabilities: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> float:
    """Mean distance between stated probability and frequency over bins of equal width, weighted by their counts.

    Even a perfect predictor shows about 0.8 sqrt(bins p (1 - p) / n) on n answers. See `reliability` for arguments.
    """
    found = reliability(probabilities, correct, bins)
    return float(found.counts @ np.abs(found.probability - found.frequency) / found.counts.sum())


def brier_score(probabilities: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """Mean squared distance between stated probability and outcome: 0 is perfect, 0.25 what a constant 1/2 gets."""
    stated, right = checked_pairs(probabilities, correct)
    return float(((stated - right) ** 2).mean())


def checked_pairs(scores: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return scores and outcomes as float64 arrays of one length.

    Raises
    ------
    InputError
        Nothing in them, unequal lengths, scores that are not finite, or outcomes other than 0 and 1.
    """
    try:
        x, y = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("expected scores and outcomes as numbers, got something else") from None
    if x.ndim != 1 or x.shape != y.shape:
        raise InputError(f"expected as many outcomes as scores, got shapes {x.shape} and {y.shape}")
    if not len(x):
        raise InputError("expected at least one row to calibrate or measure by, got none")
    if not np.isfinite(x).all():
        raise InputError(f"expected finite scores, got {x[~np.isfinite(x)][0]} in row {np.argmin(np.isfinite(x))}")
    if not np.isin(y, (0.0, 1.0)).all():
        raise InputError("expected outcomes of 0 or 1, got something else")
    return x, y


def as_text(labels: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    """Return labels as an array of text, shape (n,)."""
    found = np.asarray(labels)
    return found if found.dtype.kind == "U" else np.array([str(one) for one in found.tolist()], dtype=np.str_)
