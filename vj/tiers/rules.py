"""Deferral rules, played on recorded outcomes: when is the next tier asked, and which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vj._types import Bools, Floats, Ints
from vj.tiers.beliefs import Beliefs, State, Step, joined, steps_of

RULES = ("single", "chow", "gain", "price")


@dataclass(frozen=True)
class Plan:
    """How tiers are asked, but for the threshold.

    Parameters
    ----------
    rule : {"single", "chow", "gain", "price"}
        Only the base tier; the second one where the probability so far is below the threshold (Chow 1970); where asking
        it is expected to add more than the threshold to that probability; or whichever adds most, less the threshold
        (a price: probability per unit of cost) times its cost, again and again as long as that is positive.
    order : tuple of int
        The base tier, then those that may be asked. Two for "chow" and "gain".
    pooled : bool
        Whether a later answer is pooled with those before; else it replaces them.
    most : int
        Tiers asked at most.
    """

    rule: str
    order: tuple[int, ...]
    pooled: bool = True
    most: int = 4

    @property
    def steps(self) -> list[Step]:
        """Steps whose curves the rule needs; for "chow" one that only names the pool."""
        return [] if self.rule == "single" else steps_of(self.order, self.most, self.pooled)


@dataclass(frozen=True, eq=False)
class Played:
    """What a plan does with each row.

    Parameters
    ----------
    pick : ndarray of int64, shape (n,)
        Tier whose answer stands.
    probability : ndarray of float64, shape (n,)
    asked : ndarray of bool, shape (n, k)
    """

    pick: Ints
    probability: Floats
    asked: Bools


def play(beliefs: Beliefs, plan: Plan, threshold: float) -> Played:
    """Return what the plan does at a threshold."""
    base = plan.order[0]
    n, k = beliefs.outcomes.labels.shape
    first, stated = beliefs.stand((base,))
    pick, p = first.copy(), stated.copy()
    asked = np.zeros((n, k), dtype=bool)
    asked[:, base] = True
    waiting: list[tuple[State, Ints]] = [] if plan.rule == "single" else [((base,), np.arange(n))]
    while waiting:
        state, rows = waiting.pop()
        chosen = _next(beliefs, plan, state, threshold)
        if chosen is None:
            continue
        for j in plan.order[1:]:
            more = rows[chosen[rows] == j]
            if not len(more):
                continue
            asked[more, j] = True
            reached = joined(state, j) if plan.pooled else (j,)
            new_pick, new_p = beliefs.stand(reached)
            pick[more], p[more] = new_pick[more], new_p[more]
            if plan.pooled and plan.rule == "price":
                waiting.append((reached, more))
    return Played(pick, p, asked)


def _next(beliefs: Beliefs, plan: Plan, state: State, threshold: float) -> Ints | None:
    """Return the tier that each row asks next, -1 for none; None if the plan ends in this state."""
    p = beliefs.stand(state)[1]
    if plan.rule == "chow":
        return np.where(p < threshold, plan.order[1], -1)
    steps = [step for step in plan.steps if step[0] == state]
    if not steps:
        return None
    worth = np.column_stack(
        [wanted(beliefs.after(s) - p, beliefs.outcomes.costs[s[1]], plan.rule, threshold) for s in steps]
    )
    best = worth.argmax(axis=1)
    index = np.array([step[1] for step in steps])
    return np.where(worth[np.arange(len(p)), best] > 0, index[best], -1)


def wanted(gain: Floats, cost: float, rule: str, threshold: float) -> Floats:
    """Return by how much asking a tier is worth more than it must be; asked if positive."""
    return gain - (threshold * cost if rule == "price" else threshold)


def thresholds(beliefs: Beliefs, plan: Plan, count: int) -> npt.NDArray[np.float64]:
    """Return thresholds from which about equal shares of the rows ask a second tier, in rising order of that share."""
    if plan.rule == "single":
        return np.array([0.0])
    state = (plan.order[0],)
    p = beliefs.stand(state)[1]
    levels = np.linspace(0, 1, count)
    if plan.rule == "chow":
        # Below 0 nobody is unsure enough, above 1 everybody.
        return np.unique(np.concatenate([[0.0], np.quantile(p, levels), [1.1]]))
    costs = beliefs.outcomes.costs
    floor = 1e-6 * float(costs.max()) or 1.0
    steps = [step for step in plan.steps if step[0] == state]
    gains = [beliefs.after(s) - p for s in steps]
    if plan.rule == "price":
        gains = [gain / max(float(costs[s[1]]), floor) for s, gain in zip(steps, gains, strict=True)]
    highest = np.column_stack(gains).max(axis=1)
    found = np.concatenate([[highest.max() * 1.01 + 1e-12], np.quantile(highest, 1 - levels), [0.0]])
    # A negative one would pay for answers that are expected to be worse.
    return np.unique(np.maximum(found, 0.0))[::-1]


def first_asked(beliefs: Beliefs, plan: Plan, values: npt.NDArray[np.float64]) -> Ints:
    """Return for each row the first of `thresholds` at which a plan of two tiers asks the second; their number if none.

    Parameters
    ----------
    beliefs : Beliefs
    plan : Plan
        Of at most two tiers.
    values : ndarray of float64
        As `thresholds` returned them.
    """
    state = (plan.order[0],)
    p = beliefs.stand(state)[1]
    if plan.rule == "single":
        return np.ones(len(p), dtype=np.int64)
    if plan.rule == "chow":
        return np.searchsorted(values, p, side="right").astype(np.int64)
    gain = beliefs.after((state, plan.order[1], plan.pooled)) - p
    # The thresholds fall: count those that the gain does not exceed.
    return (len(values) - np.searchsorted(values[::-1], gain, side="left")).astype(np.int64)
