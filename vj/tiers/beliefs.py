"""Beliefs: what is held to be the answer, and how probably, once some of the tiers have been asked.

A state is the set of tiers asked so far. For each state the learned parts say which answer stands and with what
probability, and for each tier not asked yet how probable a right answer would be after asking it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from vj._types import Bools, Floats, Ints
from vj.tiers import pooling
from vj.tiers.calibration import Calibration
from vj.tiers.outcomes import Outcomes
from vj.tiers.pooling import LabelTables

State = tuple[int, ...]
"""Tiers asked, in rising order of index."""
Step = tuple[State, int, bool]
"""State, the tier asked next, and whether its answer is pooled with those before (else it replaces them)."""

FOLDS = 10
_GRID = 1000
"""Probabilities so far are rounded to this before a curve is fitted on them: a thousandth is far below their error."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What is learned from outcomes, by index of tier.

    Parameters
    ----------
    calibrations : mapping of int to Calibration
    tables : LabelTables
    weights : mapping of State to ndarray of float64
        Of the pool of each state of two tiers or more; the last one is the prior's.
    after : mapping of Step to Calibration
        From the probability so far, by the label so far, to that of being right after the step.
    """

    calibrations: Mapping[int, Calibration]
    tables: LabelTables
    weights: Mapping[State, Floats]
    after: Mapping[Step, Calibration]

    def shrunk(self, k: int, trust: float) -> Learned:
        """Return it with less trust in what asking tier `k` changes; see `Calibration.shrunk`."""
        after = {step: curve.shrunk(trust) if step[1] == k else curve for step, curve in self.after.items()}
        return replace(self, after=after)


class Beliefs:
    """Beliefs about recorded outcomes, computed when first asked for; arrays of shape (n,).

    Parameters
    ----------
    outcomes : Outcomes
    learned : Learned
    """

    def __init__(self, outcomes: Outcomes, learned: Learned) -> None:
        self.outcomes = outcomes
        self.learned = learned
        self._stand: dict[State, tuple[Ints, Floats]] = {}
        self._after: dict[Step, Floats] = {}

    def stand(self, state: State) -> tuple[Ints, Floats]:
        """Return the tier whose answer stands, and the probability that it is right."""
        if state not in self._stand:
            self._stand[state] = self._pool(state)
        return self._stand[state]

    def after(self, step: Step) -> Floats:
        """Return the probability of being right after a step."""
        if step not in self._after:
            pick, p = self.stand(step[0])
            self._after[step] = self.learned.after[step].predict(p, self.labels(pick))
        return self._after[step]

    def labels(self, pick: Ints) -> npt.NDArray[np.str_]:
        """Return the answer of one tier for each row."""
        return np.asarray(self.outcomes.labels[np.arange(len(pick)), pick])

    def correct(self, state: State) -> Bools:
        """Whether the answer that stands is right."""
        pick = self.stand(state)[0]
        return np.asarray(self.outcomes.correct[np.arange(len(pick)), pick])

    def single(self, k: int) -> Floats:
        """Return the calibrated probability of one tier's answers; a query without an answer has none."""
        labels = self.outcomes.labels[:, k]
        p = self.learned.calibrations[k].predict(self.outcomes.confidences[:, k], labels)
        return np.where(labels == "", 0.0, p)

    def _pool(self, state: State) -> tuple[Ints, Floats]:
        if len(state) == 1:
            return np.full(len(self.outcomes), state[0]), self.single(state[0])
        p = np.column_stack([self.stand((k,))[1] for k in state])
        labels = self.outcomes.labels[:, list(state)]
        logs, counted = pooling.features(self.learned.tables, state, labels, p)
        where = pooling.places(self.learned.tables, labels)
        pick, found = pooling.pooled(logs, counted, self.learned.weights[state], where)
        return np.array(state)[pick], found


class FoldedBeliefs(Beliefs):
    """Beliefs about the very outcomes that they are learned from: of each row as learned from the other folds.

    The pools' few weights are the exception: they are learned from all rows, on out-of-fold probabilities.

    Parameters
    ----------
    outcomes : Outcomes
    fold : ndarray of int64, shape (n,)
        0 to `FOLDS` - 1.
    """

    def __init__(self, outcomes: Outcomes, fold: Ints) -> None:
        self.fold = fold
        self.known = pooling.known_labels(outcomes.truth, outcomes.labels)
        self.weights: dict[State, Floats] = {}
        everything = LabelTables.fit(outcomes.truth, outcomes.labels, self.known)
        super().__init__(outcomes, Learned({}, everything, self.weights, {}))
        self._tables = [
            LabelTables.fit(outcomes.truth[rest], outcomes.labels[rest], self.known) for _, rest in self._folds()
        ]

    def _folds(self) -> Iterator[tuple[Bools, Bools]]:
        for k in range(FOLDS):
            yield self.fold == k, self.fold != k

    def single(self, k: int) -> Floats:
        """Return the calibrated probability of one tier's answers, out of fold."""
        given = (self.outcomes.confidences[:, k], self.outcomes.correct[:, k], self.outcomes.labels[:, k])
        return np.where(self.outcomes.labels[:, k] == "", 0.0, self._folded(*given))

    def after(self, step: Step) -> Floats:
        """Return the probability of being right after a step, out of fold."""
        if step not in self._after:
            pick, p = self.stand(step[0])
            self._after[step] = self._folded(_rounded(p), self._right_after(step), self.labels(pick))
        return self._after[step]

    def _folded(self, scores: Floats, right: Bools, labels: npt.NDArray[np.str_]) -> Floats:
        out = np.empty(len(scores))
        for held, rest in self._folds():
            if held.any():
                curve = Calibration.fit(scores[rest], right[rest], labels[rest])
                out[held] = curve.predict(scores[held], labels[held])
        return out

    def _right_after(self, step: Step) -> Bools:
        state, j, pooled = step
        return self.correct(joined(state, j)) if pooled else self.outcomes.correct[:, j]

    def _pool(self, state: State) -> tuple[Ints, Floats]:
        if len(state) == 1:
            return super()._pool(state)
        p = np.column_stack([self.stand((k,))[1] for k in state])
        labels = self.outcomes.labels[:, list(state)]
        size = len(self.known) + 1 + len(state)
        logs = np.empty((len(p), size, len(state) + 1))
        counted = np.empty((len(p), size), dtype=bool)
        for (held, _), tables in zip(self._folds(), self._tables, strict=True):
            logs[held], counted[held] = pooling.features(tables, state, labels[held], p[held])
        tables = self.learned.tables
        self.weights[state] = pooling.fit_weights(
            logs, counted, pooling.truth_places(tables, labels, self.outcomes.truth)
        )
        pick, found = pooling.pooled(logs, counted, self.weights[state], pooling.places(tables, labels))
        return np.array(state)[pick], found

    def learn(self, order: Sequence[int], steps: Sequence[Step]) -> Learned:
        """Learn from all rows what the given tiers and steps need."""
        outcomes = self.outcomes
        calibrations = {
            k: Calibration.fit(outcomes.confidences[:, k], outcomes.correct[:, k], outcomes.labels[:, k]) for k in order
        }
        states = {joined(state, j) for state, j, pooled in steps if pooled}
        for state in states:
            self.stand(state)
        after = {}
        for step in steps:
            pick, p = self.stand(step[0])
            after[step] = Calibration.fit(_rounded(p), self._right_after(step), self.labels(pick))
        return Learned(calibrations, self.learned.tables, {s: self.weights[s] for s in states}, after)


def joined(state: State, j: int) -> State:
    """Return the state after asking tier `j` too."""
    return tuple(sorted((*state, j)))


def steps_of(order: Sequence[int], most: int, pooled: bool) -> list[Step]:
    """Return every step that may be taken.

    Parameters
    ----------
    order : sequence of int
        The base tier, then those that may be asked after it.
    most : int
        Tiers asked at most.
    pooled : bool
        See `Step`; if not, only the first step is there.
    """
    base, *rest = order
    if not pooled:
        return [((base,), j, False) for j in rest]
    return [
        (tuple(sorted((base, *others))), j, True)
        for size in range(min(most, len(order)) - 1)
        for others in combinations(rest, size)
        for j in rest
        if j not in others
    ]


def folds(n: int, seed: int) -> Ints:
    """Return a fold for each row, at random and of equal size."""
    return np.asarray(np.random.default_rng(seed).permutation(n) % FOLDS, dtype=np.int64)


def _rounded(p: Floats) -> Floats:
    return np.round(p * _GRID) / _GRID
