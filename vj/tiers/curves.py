"""The deferral curve: accuracy against cost, with random deferral, Chow's rule, the oracle and every single tier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._types import Floats
from vj.errors import InputError
from vj.tiers.beliefs import Beliefs, FoldedBeliefs, folds
from vj.tiers.fitting import MIN_ROWS, plans, tried
from vj.tiers.outcomes import Outcomes
from vj.tiers.rules import play

Line = tuple[Floats, Floats]
"""Costs in rising order, and the accuracy at each."""


@dataclass(frozen=True, eq=False)
class DeferralCurves:
    """Accuracy against mean cost, measured on rows that nothing was fitted on.

    Parameters
    ----------
    base, best : str
        The tier asked first by the two-tier rules, and the best single one.
    singles : mapping of str to (float, float)
        Accuracy and cost of each tier alone.
    lines : mapping of str to Line
        By the rule's name.
    rows_measured : int
    """

    base: str
    best: str
    singles: Mapping[str, tuple[float, float]]
    lines: Mapping[str, Line]
    rows_measured: int

    def rows(self, count: int = 11) -> Iterator[tuple[float, list[float]]]:
        """Yield costs from the base tier's to the best one's, with the accuracy of each line there."""
        low, high = self.singles[self.base][1], self.singles[self.best][1]
        for cost in np.linspace(low, max(low, high), count).tolist():
            yield cost, [float(np.interp(cost, *line)) for line in self.lines.values()]

    def verdict(self) -> str:
        """Return in one sentence whether deferral pays: the cost at which it matches the best single tier."""
        accuracy, cost = self.singles[self.best]
        x, y = self.lines["policy"]
        fine = np.flatnonzero(y >= accuracy)
        if cost > 0 and len(fine) and x[fine[0]] < 0.98 * cost:
            share = 100 * (1 - x[fine[0]] / cost)
            return f"The policy matches {self.best} at {x[fine[0]]:.4g} a query: {share:.0f} % cheaper."
        return f"Deferral does not pay here: nothing matches {self.best} for less than it costs."

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        lines = {name: {"cost": x.tolist(), "accuracy": y.tolist()} for name, (x, y) in self.lines.items()}
        singles = {name: {"accuracy": a, "cost": c} for name, (a, c) in self.singles.items()}
        return {"base": self.base, "best": self.best, "rows": self.rows_measured, "singles": singles, "lines": lines}


def deferral_curves(outcomes: Outcomes, seed: int = 0) -> DeferralCurves:
    """Fit on a random half of the rows and measure on the other.

    Parameters
    ----------
    outcomes : Outcomes
        At least two tiers and 2 `MIN_ROWS` rows.
    seed : int

    Raises
    ------
    InputError
    """
    n = len(outcomes)
    if len(outcomes.tiers) < 2 or n < 2 * MIN_ROWS:
        raise InputError(f"expected two tiers and {2 * MIN_ROWS} rows for a curve, got {len(outcomes.tiers)} and {n}")
    order = np.random.default_rng(seed).permutation(n)
    train, test = outcomes.rows(order[: n // 2]), outcomes.rows(order[n // 2 :])
    best = train.best
    cheapest = int(np.lexsort((-train.accuracies, train.costs))[0])
    others = [k for k in range(len(train.tiers)) if k != best]
    base = cheapest if cheapest != best else max(others, key=lambda k: float(train.accuracies[k]))
    before, after = test.correct[:, base], test.correct[:, best]
    low, high = float(test.costs[base]), float(test.costs[base] + test.costs[best])
    cost = np.linspace(low, high, len(test) + 1)
    lines: dict[str, Line] = {"policy": _best_policies(train, test, seed)}
    lines["Chow, raw confidence"] = (
        cost,
        deferred(np.argsort(test.confidences[:, base], kind="stable"), before, after),
    )
    lines["oracle of two tiers"] = (cost, deferred(np.argsort(-(after * 1.0 - before), kind="stable"), before, after))
    lines["random"] = (cost, np.linspace(before.mean(), after.mean(), len(test) + 1))
    singles = {name: (float(a), float(c)) for name, a, c in zip(test.tiers, test.accuracies, test.costs, strict=True)}
    return DeferralCurves(train.tiers[base], train.tiers[best], singles, lines, len(test))


def deferred(order: npt.NDArray[Any], before: npt.NDArray[Any], after: npt.NDArray[Any]) -> Floats:
    """Return the accuracy with the first 0, 1, ..., n rows of an order deferred.

    Parameters
    ----------
    order : ndarray of int, shape (n,)
    before, after : ndarray of bool, shape (n,)
        Whether a row is right without and with deferral.
    """
    change = after[order].astype(np.float64) - before[order]
    return np.asarray((before.sum() + np.concatenate([[0.0], np.cumsum(change)])) / len(before), dtype=np.float64)


def _best_policies(train: Outcomes, test: Outcomes, seed: int) -> Line:
    """Measure on `test` the plans and thresholds that are the best for their cost on `train`, out of fold."""
    beliefs = FoldedBeliefs(train, folds(len(train), seed))
    points = tried(beliefs, plans(train), count=30)
    accuracy, cost = points.right.sum(axis=1) / len(train), points.cost.sum(axis=1) / len(train)
    chosen, highest = [], -1.0
    for i in np.lexsort((-accuracy, cost)):
        if accuracy[i] > highest:
            chosen.append(int(i))
            highest = float(accuracy[i])
    # At most 60 of them: more cannot be seen.
    chosen = [chosen[round(i)] for i in np.linspace(0, len(chosen) - 1, min(60, len(chosen)))]
    every = {points.plans[i]: None for i in chosen}
    views = {p: Beliefs(test, beliefs.learn(p.order, p.steps)) for p in every}
    found = []
    for i in chosen:
        played = play(views[points.plans[i]], points.plans[i], points.thresholds[i])
        right = test.correct[np.arange(len(test)), played.pick]
        found.append((float((played.asked @ test.costs).mean()), float(right.mean())))
    found.sort()
    return np.array([x for x, _ in found]), np.array([y for _, y in found])
