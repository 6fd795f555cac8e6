"""Fitting a policy: every plan is played out of fold, and the goal chooses among them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vj.errors import InputError
from vj.tiers.beliefs import FOLDS, FoldedBeliefs, Learned, folds
from vj.tiers.calibration import Calibration, Floats
from vj.tiers.outcomes import Outcomes
from vj.tiers.pooling import LabelTables
from vj.tiers.rules import Plan, play, thresholds

MIN_ROWS = 100
"""With fewer the accuracy of a policy is known to about 10 points: nothing can be told."""
POINTS = 80
"""Thresholds tried for each plan."""
_STORED_POINTS = 40


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

    def choose(self, accuracy: Floats, cost: Floats, best: float, margin: float = 0.0) -> int:
        """Return the index of the point that serves the goal best.

        Parameters
        ----------
        accuracy, cost : ndarray of float64, shape (points,)
        best : float
            Accuracy of the best single tier.
        margin : float
            Accuracy asked for above what the goal says.

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
        fine = accuracy >= wanted + margin - 1e-12
        if not fine.any():
            if margin > 0 and accuracy.max() >= wanted - 1e-12:
                fine = accuracy == accuracy.max()
            else:
                raise InputError(
                    f"expected an accuracy of at most {accuracy.max():.4f}, got {wanted:.4f}: no policy reaches it"
                )
        index = np.flatnonzero(fine)
        return int(index[np.lexsort((-accuracy[index], cost[index]))[0]])


class Found(NamedTuple):
    """What a search comes to."""

    plan: Plan
    threshold: float
    learned: Learned
    curve: tuple[tuple[float, float, float], ...]
    report: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Points:
    """Every plan at every threshold, with sums for each fold.

    Parameters
    ----------
    plans : list of Plan
    thresholds : list of float
    right, cost : ndarray of float64, shape (points, FOLDS)
        Queries answered rightly, and spent, in each fold.
    """

    plans: list[Plan]
    thresholds: list[float]
    right: Floats
    cost: Floats


def plans(outcomes: Outcomes) -> list[Plan]:
    """Return every plan that is tried: single tiers, all pairs, and the price rule from each base tier."""
    k = len(outcomes.tiers)
    # So many pools that fitting stays a matter of seconds: 11 for four tiers, 35 for six, 45 for ten.
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
    outcomes, fold = beliefs.outcomes, beliefs.fold
    rows = np.arange(len(outcomes))
    names: list[Plan] = []
    values: list[float] = []
    right: list[npt.NDArray[Any]] = []
    cost: list[npt.NDArray[Any]] = []
    for plan in which:
        for threshold in thresholds(beliefs, plan, count).tolist():
            played = play(beliefs, plan, threshold)
            names.append(plan)
            values.append(threshold)
            correct = outcomes.correct[rows, played.pick].astype(np.float64)
            right.append(np.bincount(fold, weights=correct, minlength=FOLDS))
            cost.append(np.bincount(fold, weights=played.asked @ outcomes.costs, minlength=FOLDS))
    return Points(names, values, np.array(right), np.array(cost))


def optimism(points: Points, goal: Goal, best: Floats, count: Floats) -> float:
    """Return by how much a choice looks better on the rows that made it than on others.

    The choice is repeated without each fold in turn and measured on that fold. Where it is stable the differences
    cancel; what is left is the winner's curse.
    """
    gaps = []
    for f in range(FOLDS):
        rest = np.arange(FOLDS) != f
        n, m = count[rest].sum(), count[f]
        if not m or not n:
            continue
        accuracy = points.right[:, rest].sum(axis=1) / n
        alone = best[rest].sum() / n
        chosen = goal.choose(accuracy, points.cost[:, rest].sum(axis=1) / n, alone)
        against = (alone, best[f] / m) if goal.kind == "loss" else (0.0, 0.0)
        gaps.append((accuracy[chosen] - against[0]) - (points.right[chosen, f] / m - against[1]))
    return max(0.0, float(np.mean(gaps)))


def search(outcomes: Outcomes, goal: Goal, seed: int) -> Found:
    """Choose plan and threshold; see `Policy.fit`."""
    n = len(outcomes)
    best = outcomes.best
    if n < MIN_ROWS:
        return _too_few(outcomes, goal)
    beliefs = FoldedBeliefs(outcomes, folds(n, seed))
    points = tried(beliefs, plans(outcomes))
    accuracy, cost = points.right.sum(axis=1) / n, points.cost.sum(axis=1) / n
    alone = np.bincount(beliefs.fold, weights=outcomes.correct[:, best], minlength=FOLDS).astype(np.float64)
    count = np.bincount(beliefs.fold, minlength=FOLDS).astype(np.float64)
    margin = optimism(points, goal, alone, count) if goal.kind != "budget" else 0.0
    chosen = goal.choose(accuracy, cost, float(alone.sum() / n), margin)
    plan, threshold = points.plans[chosen], points.thresholds[chosen]
    same = [i for i, one in enumerate(points.plans) if one == plan]
    keep = {same[round(i)] for i in np.linspace(0, len(same) - 1, min(len(same), _STORED_POINTS))} | {chosen}
    curve = tuple((points.thresholds[i], float(accuracy[i]), float(cost[i])) for i in sorted(keep))
    steps = [] if plan.rule == "single" else plan.steps
    learned = beliefs.learn(plan.order, steps)
    return Found(plan, threshold, learned, curve, _report(beliefs, plan, threshold, goal, margin))


def _report(beliefs: FoldedBeliefs, plan: Plan, threshold: float, goal: Goal, margin: float) -> dict[str, Any]:
    outcomes = beliefs.outcomes
    played = play(beliefs, plan, threshold)
    right = outcomes.correct[np.arange(len(outcomes)), played.pick].astype(np.float64)
    best = outcomes.best
    difference = right - outcomes.correct[:, best]
    n = len(right)
    cost = float((played.asked @ outcomes.costs).mean())
    half = 1.96 * float(difference.std()) / math.sqrt(n)
    mean = float(difference.mean())
    best_cost = float(outcomes.costs[best])
    return {
        "rows": n,
        "goal": {goal.kind: goal.value},
        "best_tier": outcomes.tiers[best],
        "best_accuracy": float(outcomes.accuracies[best]),
        "best_cost": best_cost,
        "accuracy": float(right.mean()),
        "cost": cost,
        "saved": 1 - cost / best_cost if best_cost > 0 else None,
        "gained": mean,
        "gained_interval": [mean - half, mean + half],
        "margin": margin,
        "note": _note(n, mean, half, goal),
    }


def _note(n: int, mean: float, half: float, goal: Goal) -> str:
    low, high = 100 * (mean - half), 100 * (mean + half)
    text = f"{n} rows: accuracy against the best single tier {low:+.1f} to {high:+.1f} points (95 %, out of fold)"
    allowed = 100 * goal.value if goal.kind == "loss" else 0.0
    if goal.kind == "loss" and low < -allowed < high:
        text += f"; too few rows to tell whether it stays within {allowed:g}"
    return text


def _too_few(outcomes: Outcomes, goal: Goal) -> Found:
    """Return the best single tier that the goal allows, with a note that nothing else can be told."""
    n = len(outcomes)
    index = [int(j) for j in np.argsort(outcomes.costs, kind="stable")]
    accuracy, cost = outcomes.accuracies[index], outcomes.costs[index]
    # Nothing cheaper is known to be as good: the loss that is allowed is not used up.
    strict = Goal("loss", 0.0) if goal.kind == "loss" else goal
    chosen = index[strict.choose(accuracy, cost, float(accuracy.max()))]
    plan = Plan("single", (chosen,))
    learned = _alone(outcomes, chosen)
    share = float(outcomes.accuracies[chosen])
    half = 1.96 * math.sqrt(max(share * (1 - share), 0.25 / n) / n)
    report = {
        "rows": n,
        "goal": {goal.kind: goal.value},
        "best_tier": outcomes.tiers[outcomes.best],
        "best_accuracy": float(outcomes.accuracies[outcomes.best]),
        "best_cost": float(outcomes.costs[outcomes.best]),
        "accuracy": share,
        "cost": float(outcomes.costs[chosen]),
        "saved": None,
        "gained": share - float(outcomes.accuracies[outcomes.best]),
        "gained_interval": [-2 * half, 2 * half],
        "margin": 0.0,
        "note": f"{n} rows are too few to tell (at least {MIN_ROWS}): the best single tier alone is asked",
    }
    return Found(plan, 0.0, learned, ((0.0, share, float(outcomes.costs[chosen])),), report)


def _alone(outcomes: Outcomes, k: int) -> Learned:
    one = Calibration.fit(outcomes.confidences[:, k], outcomes.correct[:, k], outcomes.labels[:, k])
    return Learned({k: one}, LabelTables.none(len(outcomes.tiers)), {}, {})
