"""Fitting a policy: every plan is tried at every threshold out of fold, and the goal chooses among them.

The best of thousands of estimates looks better than it is, and each has an error of its own. So a goal of accuracy is
held by a lower confidence bound: the estimate, less the normal quantile times its standard error, less what the choice
itself flatters (Efron's bootstrap: the choice is repeated on resampled rows and measured on all of them). Accuracy
against the best single tier is compared row by row, where most of the noise cancels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vj._types import Floats
from vj.errors import InputError
from vj.tiers.beliefs import FoldedBeliefs, Learned, folds, joined
from vj.tiers.calibration import Calibration
from vj.tiers.outcomes import Outcomes
from vj.tiers.pooling import LabelTables
from vj.tiers.rules import Plan, first_asked, play, thresholds

MIN_ROWS = 100
"""With fewer the accuracy of a policy is known to about 10 points: nothing can be said about it."""
CONFIDENCE = 0.9
"""One-sided confidence at which a goal of accuracy is held by default."""
POINTS = 80
"""Thresholds tried for each plan."""
_STORED_POINTS = 40
_BLOCKS = 200
"""Random blocks in which rows are resampled: enough for a standard error, and little to keep for each point."""
_RESAMPLES = 300


class Goal(NamedTuple):
    """What a policy is chosen for: see `Policy.fit`."""

    kind: str
    value: float

    @classmethod
    def of(cls, loss: float | None, accuracy: float | None, budget: float | None) -> Goal:
        """Return the one goal that is given.

        Raises
        ------
        InputError
        """
        given = [(k, v) for k, v in (("loss", loss), ("accuracy", accuracy), ("budget", budget)) if v is not None]
        if len(given) != 1:
            raise InputError(f"expected one goal of loss, accuracy and budget, got {len(given)}")
        kind, value = given[0]
        limit = math.inf if kind == "budget" else 1.0
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not (0 <= value <= limit and math.isfinite(value))
        ):
            raise InputError(f"expected {kind} as a number from 0{' to 1' if limit == 1 else ''}, got {value!r}")
        return cls(kind, float(value))

    def choose(self, accuracy: Floats, cost: Floats, best: float, margin: Floats | float = 0.0) -> int:
        """Return the index of the point that serves the goal best.

        Parameters
        ----------
        accuracy, cost : ndarray of float64, shape (points,)
        best : float
            Accuracy of the best single tier.
        margin : float or ndarray of float64, shape (points,)
            What each point's accuracy must exceed the goal by. Where no point does, but some reach the goal, the one
            with the highest bound is chosen. A goal of cost has no use for it.

        Raises
        ------
        InputError
            None reaches it.
        """
        if self.kind == "budget":
            fine = cost <= self.value * (1 + 1e-9)
            if not fine.any():
                raise InputError(f"expected a budget of at least {cost.min():g} a query, got {self.value:g}")
            index = np.flatnonzero(fine)
            return int(index[np.lexsort((cost[index], -accuracy[index]))[0]])
        wanted = self.value if self.kind == "accuracy" else best - self.value
        bound = accuracy - margin
        index = np.flatnonzero(bound >= wanted - 1e-12)
        if len(index):
            return int(index[np.lexsort((-accuracy[index], cost[index]))[0]])
        if accuracy.max() < wanted - 1e-12:
            raise InputError(
                f"expected an accuracy of at most {accuracy.max():.4f}, got {wanted:.4f}: no policy reaches it"
            )
        return int(np.lexsort((cost, -bound))[0])

    def errors(self, points: Points) -> Floats:
        """Return the standard error of what the goal is about, for each point: accuracy, or its difference to the best.

        A single tier's difference to itself has none.
        """
        n = float(points.rows.sum())
        right = points.right.sum(axis=1) / n
        if self.kind != "loss":
            return np.asarray(np.sqrt(right * (1 - right) / n))
        gained = right - points.best.sum() / n
        return np.asarray(np.sqrt(np.maximum(points.differ / n - gained**2, 0.0) / n))


CurvePoint = tuple[float, float, float, float]
"""Threshold, accuracy, mean cost, margin: see `Policy`."""


class Found(NamedTuple):
    """Result of a search."""

    plan: Plan
    threshold: float
    learned: Learned
    curve: tuple[CurvePoint, ...]
    report: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Points:
    """Every plan at every threshold, with sums for each block of rows.

    Parameters
    ----------
    plans : list of Plan
    thresholds : list of float
    right, cost : ndarray of float64, shape (points, blocks)
        Queries answered correctly, and what was spent.
    differ : ndarray of float64, shape (points,)
        Queries on which either the point or the best single tier is right, but not both.
    best, rows : ndarray of float64, shape (blocks,)
        Queries that the best single tier answers correctly, and all of them.
    """

    plans: list[Plan]
    thresholds: list[float]
    right: Floats
    cost: Floats
    differ: Floats
    best: Floats
    rows: Floats

    @property
    def accuracy(self) -> Floats:
        """Of each point; shape (points,)."""
        return np.asarray(self.right.sum(axis=1) / self.rows.sum())

    @property
    def mean_cost(self) -> Floats:
        """Of a query at each point; shape (points,)."""
        return np.asarray(self.cost.sum(axis=1) / self.rows.sum())


def plans(outcomes: Outcomes) -> list[Plan]:
    """Return every plan that is tried: single tiers, all pairs, and the price rule from each base tier."""
    k = len(outcomes.tiers)
    # Few enough pools for fitting to take seconds: 11 for four tiers, 35 for six, 45 for ten.
    most = 4 if k <= 4 else 3 if k <= 6 else 2
    by_cost = [int(j) for j in np.argsort(outcomes.costs, kind="stable")]
    found = [Plan("single", (j,)) for j in by_cost]
    for base in by_cost:
        rest = [j for j in by_cost if j != base]
        found += [Plan(rule, (base, j), pooled) for j in rest for rule in ("chow", "gain") for pooled in (True, False)]
        if k > 2:
            found.append(Plan("price", (base, *rest), True, most))
    return found


def tried(beliefs: FoldedBeliefs, which: list[Plan], count: int = POINTS) -> Points:
    """Play every plan at every threshold."""
    outcomes = beliefs.outcomes
    rows, size = np.arange(len(outcomes)), min(_BLOCKS, len(outcomes))
    # The folds are random, so that dealing out the rows in their order makes random blocks.
    block = np.empty(len(outcomes), dtype=np.int64)
    block[np.argsort(beliefs.fold, kind="stable")] = rows % size
    best = outcomes.correct[:, outcomes.best]
    found = _Sums(block, size, best)
    names: list[Plan] = []
    values: list[float] = []
    for plan in which:
        tested = thresholds(beliefs, plan, count)
        names += [plan] * len(tested)
        values += tested.tolist()
        base = plan.order[0]
        if len(plan.order) <= 2:
            after = (
                beliefs.correct(joined((base,), plan.order[-1])) if plan.pooled else outcomes.correct[:, plan.order[-1]]
            )
            first = first_asked(beliefs, plan, tested)
            found.add_two(outcomes.correct[:, base], after, first, len(tested), outcomes.costs[list(plan.order)])
            continue
        for threshold in tested.tolist():
            played = play(beliefs, plan, threshold)
            found.add(outcomes.correct[rows, played.pick], played.asked @ outcomes.costs)
    every = np.bincount(block, minlength=size).astype(np.float64)
    right, cost, differ = (np.concatenate(one) for one in (found.right, found.cost, found.differ))
    return Points(names, values, right, cost, differ, found.sums(best), every)


class _Sums:
    """Sums by block, gathered for one point after the other."""

    def __init__(self, block: npt.NDArray[np.int64], size: int, best: npt.NDArray[np.bool_]) -> None:
        self.block, self.size, self.best = block, size, best
        self.right: list[Floats] = []
        self.cost: list[Floats] = []
        self.differ: list[Floats] = []

    def sums(self, values: npt.NDArray[Any]) -> Floats:
        found = np.bincount(self.block, weights=values.astype(np.float64), minlength=self.size)
        return np.asarray(found, dtype=np.float64)

    def add(self, correct: npt.NDArray[np.bool_], spent: Floats) -> None:
        self.right.append(self.sums(correct)[None])
        self.cost.append(self.sums(spent)[None])
        self.differ.append(np.array([float((correct != self.best).sum())]))

    def add_two(
        self,
        before: npt.NDArray[np.bool_],
        after: npt.NDArray[np.bool_],
        first: npt.NDArray[np.int64],
        points: int,
        costs: Floats,
    ) -> None:
        """Add all thresholds of two tiers at once, where `first` is the first of them that asks the second tier."""
        asked = self._running(np.ones(len(first)), first, points)
        change = self._running(after.astype(np.float64) - before, first, points)
        other = (after != self.best) * 1.0 - (before != self.best)
        self.right.append(self.sums(before) + change)
        self.cost.append(self.sums(np.full(len(first), costs[0])) + asked * costs[-1])
        self.differ.append(float((before != self.best).sum()) + self._running(other, first, points).sum(axis=1))

    def _running(self, values: Floats, first: npt.NDArray[np.int64], points: int) -> Floats:
        """Sum by block over the rows that have been asked at each point."""
        where = first * self.size + self.block
        found = np.bincount(where, weights=values, minlength=(points + 1) * self.size)
        return np.asarray(found.reshape(points + 1, self.size)[:-1].cumsum(axis=0), dtype=np.float64)


def optimism(points: Points, goal: Goal, margin: Floats, seed: int) -> float:
    """Return by how much a choice looks better on the rows that made it than it is: the winner's curse.

    The bootstrap's estimate (Efron 1983): the choice is repeated on resampled rows, and its accuracy there is
    compared with its accuracy on all rows; for a loss, the difference to the best single tier.
    """
    rng = np.random.default_rng(seed)
    blocks = len(points.rows)
    drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks), _RESAMPLES).T.astype(np.float64)
    n = points.rows @ drawn
    accuracy, cost, best = (points.right @ drawn) / n, (points.cost @ drawn) / n, (points.best @ drawn) / n
    against = best - points.best.sum() / points.rows.sum() if goal.kind == "loss" else np.zeros(len(n))
    gaps = []
    for b in range(_RESAMPLES):
        try:
            chosen = goal.choose(accuracy[:, b], cost[:, b], float(best[b]), margin)
        except InputError:
            # Out of reach on these rows.
            continue
        gaps.append(accuracy[chosen, b] - points.accuracy[chosen] - against[b])
    return max(0.0, float(np.mean(gaps))) if gaps else 0.0


def search(outcomes: Outcomes, goal: Goal, seed: int, confidence: float = CONFIDENCE) -> Found:
    """Choose plan and threshold; see `Policy.fit`."""
    if not 0.5 <= confidence < 1:
        raise InputError(f"expected a confidence from 0.5 to below 1, got {confidence}")
    n = len(outcomes)
    if n < MIN_ROWS:
        return _too_few(outcomes, goal, confidence)
    beliefs = FoldedBeliefs(outcomes, folds(n, seed))
    points = tried(beliefs, plans(outcomes))
    accuracy, cost, best = points.accuracy, points.mean_cost, float(points.best.sum() / n)
    margin = NormalDist().inv_cdf(confidence) * goal.errors(points)
    flattered = optimism(points, goal, margin, seed)
    # The best single tier, which a loss is measured against, is not chosen for its luck against itself.
    itself = [goal.kind == "loss" and plan == Plan("single", (outcomes.best,)) for plan in points.plans]
    margin = margin + np.where(itself, 0.0, flattered)
    chosen = goal.choose(accuracy, cost, best, margin)
    plan, threshold = points.plans[chosen], points.thresholds[chosen]
    same = [i for i, one in enumerate(points.plans) if one == plan]
    keep = {same[round(i)] for i in np.linspace(0, len(same) - 1, min(len(same), _STORED_POINTS))} | {chosen}
    curve = tuple((points.thresholds[i], float(accuracy[i]), float(cost[i]), float(margin[i])) for i in sorted(keep))
    learned = beliefs.learn(plan.order, plan.steps)
    hopeful = goal.choose(accuracy, cost, best)
    report = _report(outcomes, goal, confidence, points, chosen) | {
        "margin": float(margin[chosen]),
        "optimism": 0.0 if itself[chosen] else flattered,
    }
    report["note"] = _note(report, goal, float(cost[hopeful]))
    return Found(plan, threshold, learned, curve, report)


def _report(outcomes: Outcomes, goal: Goal, confidence: float, points: Points, chosen: int) -> dict[str, Any]:
    n, best = len(outcomes), outcomes.best
    share, cost = float(points.accuracy[chosen]), float(points.mean_cost[chosen])
    gained = share - float(outcomes.accuracies[best])
    half = NormalDist().inv_cdf(0.975) * float(Goal("loss", 0.0).errors(points)[chosen])
    best_cost = float(outcomes.costs[best])
    return {
        "rows": n,
        "goal": {goal.kind: goal.value},
        "confidence": confidence,
        "best_tier": outcomes.tiers[best],
        "best_accuracy": float(outcomes.accuracies[best]),
        "best_cost": best_cost,
        "accuracy": share,
        "cost": cost,
        "saved": 1 - cost / best_cost if best_cost > 0 else None,
        "gained": gained,
        "gained_interval": [gained - half, gained + half],
    }


def _note(report: dict[str, Any], goal: Goal, hoped: float) -> str:
    """Return in words what the rows allow to say; `hoped` is the cost that would do without any margin."""
    low, high = (100 * end for end in report["gained_interval"])
    text = f"{report['rows']} rows: accuracy against the best single tier {low:+.1f} to {high:+.1f} points (95 %)"
    if goal.kind == "budget":
        return text
    sure = f"{100 * report['confidence']:g} % confidence"
    wanted = goal.value if goal.kind == "accuracy" else report["best_accuracy"] - goal.value
    if report["accuracy"] - report["margin"] < wanted - 1e-12:
        return f"{text}; too few rows to tell whether the goal is met: no policy meets it with {sure}"
    if report["cost"] == report["best_cost"] and hoped < 0.98 * report["cost"]:
        return f"{text}; too few rows to tell whether less would do: {hoped:.4g} a query may, but not with {sure}"
    return f"{text}; the goal is met with {sure}"


def _too_few(outcomes: Outcomes, goal: Goal, confidence: float) -> Found:
    """Return the best single tier that the goal allows, with a note that no more can be said."""
    n, best = len(outcomes), outcomes.best
    index = [int(j) for j in np.argsort(outcomes.costs, kind="stable")]
    accuracy, cost = outcomes.accuracies[index], outcomes.costs[index]
    # Nothing cheaper is known to be as good: the loss that is allowed is not used up.
    strict = Goal("loss", 0.0) if goal.kind == "loss" else goal
    chosen = index[strict.choose(accuracy, cost, float(accuracy.max()))]
    share, spent, best_cost = float(outcomes.accuracies[chosen]), float(outcomes.costs[chosen]), outcomes.costs[best]
    half = NormalDist().inv_cdf(0.975) * math.sqrt(max(share * (1 - share), 0.25 / n) / n)
    report = {
        "rows": n,
        "goal": {goal.kind: goal.value},
        "confidence": confidence,
        "best_tier": outcomes.tiers[best],
        "best_accuracy": float(outcomes.accuracies[best]),
        "best_cost": float(best_cost),
        "accuracy": share,
        "cost": spent,
        "saved": 1 - spent / float(best_cost) if best_cost > 0 else None,
        "gained": share - float(outcomes.accuracies[best]),
        "gained_interval": [-2 * half, 2 * half],
        "margin": 2 * half,
        "optimism": 0.0,
        "note": f"{n} rows are too few to judge by (at least {MIN_ROWS}): a single tier is asked alone; "
        f"its accuracy is {100 * share:.0f} % +- {100 * half:.0f} (95 %)",
    }
    return Found(Plan("single", (chosen,)), 0.0, _alone(outcomes, chosen), ((0.0, share, spent, 2 * half),), report)


def _alone(outcomes: Outcomes, k: int) -> Learned:
    one = Calibration.fit(outcomes.confidences[:, k], outcomes.correct[:, k], outcomes.labels[:, k])
    return Learned({k: one}, LabelTables.none(len(outcomes.tiers)), {}, {})
