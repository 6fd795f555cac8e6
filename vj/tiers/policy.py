"""Policies: which tier is asked first, which next and when, and which answer stands."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from vj._files import read_json, write_text
from vj.errors import InputError
from vj.tiers import fitting, policy_files, pooling
from vj.tiers.beliefs import Beliefs, Learned, State
from vj.tiers.calibration import Calibration
from vj.tiers.model import Answer, checked_cost
from vj.tiers.outcomes import Outcomes
from vj.tiers.rules import Plan, Played, play

_MAX_BYTES = 1 << 26
TRUST = 0.5
"""Where one tier fails says half of where another does. On seven sets of recorded answers a rule fitted for one heavy
tier keeps 92 to 100 % of the gain of one fitted for the other; with full trust 82 to 100 %, with none 88 to 97 %."""


@dataclass(frozen=True, eq=False)
class Policy:
    """A fitted deferral policy.

    Parameters
    ----------
    tiers : tuple of str
        Those it was fitted on, including those that it never asks.
    costs : tuple of float
        Of each.
    plan : Plan
    threshold : float
        See `Plan`. `at` changes it.
    learned : Learned
    curve : tuple of (float, float, float, float)
        Thresholds with the accuracy and the mean cost estimated out of fold, and the margin: what the accuracy must
        exceed a goal by for the goal to be met with the confidence asked for.
    fit : mapping
        What it was fitted for and on: rows, best single tier, expected accuracy and cost, intervals, a note.
    """

    tiers: tuple[str, ...]
    costs: tuple[float, ...]
    plan: Plan
    threshold: float
    learned: Learned
    curve: tuple[fitting.CurvePoint, ...] = ()
    fit_report: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold) or self.threshold < 0:
            raise InputError(f"expected a threshold of zero or more, got {self.threshold}")

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        *,
        loss: float | None = None,
        accuracy: float | None = None,
        budget: float | None = None,
        confidence: float = fitting.CONFIDENCE,
        seed: int = 0,
    ) -> Policy:
        """Choose base tier, tiers to leave out, rule and threshold by their out-of-fold accuracy and cost.

        Give one goal. With fewer rows than `fitting.MIN_ROWS` no policy can be judged: only the best single tier is
        asked, and `fit_report` says so.

        Goals of loss and accuracy are met with a one-sided confidence, see `fitting`: by the mean over unseen rows of
        the same kind, not by every sample of them. The budget is met by the mean cost out of fold.

        Parameters
        ----------
        outcomes : Outcomes
        loss : float
            Cheapest policy that loses at most this share of accuracy against the best single tier.
        accuracy : float
            Cheapest policy of at least this accuracy.
        budget : float
            Most accurate policy of at most this mean cost.
        confidence : float
            0.5 takes the estimates at their word: half of the policies then lose more than they should.
        seed : int
            Of the folds and the bootstrap.

        Raises
        ------
        InputError
            Not one goal, or one that no policy reaches.
        """
        goal = fitting.Goal.of(loss, accuracy, budget)
        found = fitting.search(outcomes, goal, seed, confidence)
        costs = tuple(map(float, outcomes.costs))
        return cls(outcomes.tiers, costs, found.plan, found.threshold, found.learned, found.curve, found.report)

    def at(
        self,
        *,
        threshold: float | None = None,
        budget: float | None = None,
        accuracy: float | None = None,
        loss: float | None = None,
    ) -> Policy:
        """Move along the curve without fitting again: the same tiers and rule at another threshold.

        Parameters
        ----------
        threshold, budget, accuracy, loss : float
            One of them; see `fit`.

        Raises
        ------
        InputError
            Not one of them, or one that the curve does not reach.
        """
        if threshold is None:
            goal = fitting.Goal.of(loss, accuracy, budget)
            if not self.curve:
                raise InputError("expected a policy with a curve to move along, got one without")
            points = np.array(self.curve, dtype=np.float64)
            best = float(self.fit_report.get("best_accuracy", math.nan))
            threshold = float(points[goal.choose(points[:, 1], points[:, 2], best, points[:, 3]), 0])
        elif not (loss is None and accuracy is None and budget is None):
            raise InputError("expected one of threshold, budget, accuracy and loss, got more")
        return replace(self, threshold=float(threshold))

    def renamed(self, old: str, new: str, cost: float, *, trust: float = TRUST) -> Policy:
        """Use the policy with another tier in the place of one: a new model, another service.

        What was learned about the old one's answers stands in for the new one's until there are outcomes to fit on.
        Which queries are deferred depends mostly on the tiers asked before; the probabilities stated after the new tier
        are the old one's. `curve` and `fit_report` no longer apply and are dropped.

        Parameters
        ----------
        old, new : str
        cost : float
            Of the new tier.
        trust : float
            How far the chances that the old one answers right hold for the new one as well, 0 to 1. At 1 the same
            queries are deferred as before; at 0 those that the tiers asked before are least sure of. See `TRUST`.

        Raises
        ------
        InputError
            The policy has no tier of the old name, or one of the new name already; or trust is out of range.
        """
        if not 0 <= trust <= 1:
            raise InputError(f"expected trust from 0 to 1, got {trust}")
        if old not in self.tiers:
            raise InputError(f"expected a tier among {', '.join(self.tiers)}, got {old!r}")
        if new in self.tiers:
            raise InputError(f"expected a name that the policy does not use, got {new!r}")
        tiers = tuple(new if name == old else name for name in self.tiers)
        paid = checked_cost(new, cost)
        costs = tuple(paid if name == old else one for name, one in zip(self.tiers, self.costs, strict=True))
        note = {"rows": 0, "note": f"fitted with {old}, used with {new}: accuracy and cost are not known"}
        learned = self.learned if trust == 1 else self.learned.shrunk(self.index[old], trust)
        return replace(self, tiers=tiers, costs=costs, learned=learned, curve=(), fit_report=note)

    # Deciding, one query at a time.

    @property
    def base(self) -> str:
        """The tier asked first."""
        return self.tiers[self.plan.order[0]]

    @property
    def asked_tiers(self) -> tuple[str, ...]:
        """Tiers that may be asked, the base tier first; the others are left out."""
        return tuple(self.tiers[k] for k in self.plan.order)

    @cached_property
    def index(self) -> dict[str, int]:
        """Number of each tier."""
        return {name: k for k, name in enumerate(self.tiers)}

    def probability(self, k: int, answer: Answer) -> float:
        """Return the calibrated probability that the answer of tier number `k` is right."""
        return self.learned.calibrations[k].at(answer.confidence, answer.label)

    def stand(self, answers: Mapping[int, Answer]) -> tuple[int, float]:
        """Return the tier whose answer stands, and the probability that it is right.

        Parameters
        ----------
        answers : mapping of int to Answer
            By the tiers' numbers, in the order in which they came; at least one.
        """
        stated = {k: self.probability(k, answer) for k, answer in answers.items()}
        return self.standing(tuple(sorted(answers)), answers, stated)

    def standing(self, state: State, answers: Mapping[int, Answer], stated: Mapping[int, float]) -> tuple[int, float]:
        """Return what `stand` does, given the tiers in rising order and the `probability` of each."""
        if len(state) == 1:
            return state[0], stated[state[0]]
        if not self.plan.pooled:
            last = list(answers)[-1]
            return last, stated[last]
        pool = self._pool(state)
        if pool is None:
            # A state that the plan does not know, after a failure: the most confident answer stands.
            surest = max(stated, key=stated.__getitem__)
            return surest, stated[surest]
        pick, p = pool([answers[k].label for k in state], [stated[k] for k in state])
        return state[pick], p

    def next(self, state: State, label: str | None, p: float, without: Collection[int] = ()) -> int | None:
        """Return the tier to ask next, or None.

        Parameters
        ----------
        state : State
            Tiers that have answered.
        label : str, optional
            Of the answer that stands.
        p : float
            Its probability.
        without : collection of int
            Tiers that cannot be asked.
        """
        rule, order = self.plan.rule, self.plan.order
        if rule == "single" or (len(state) > 1 and rule != "price"):
            return None
        if rule == "chow":
            return order[1] if p < self.threshold and order[1] not in without else None
        best, chosen = 0.0, None
        for j, curve, least in self._from.get(state, ()):
            worth = curve.at(p, label) - p - least
            if worth > best and j not in without:
                best, chosen = worth, j
        return chosen

    def gains(
        self, state: State, label: str | None, p: float, without: Collection[int] = ()
    ) -> list[tuple[int, float]]:
        """Return the tiers that may be asked after `state`, and what each is expected to add to the probability.

        Arguments as for `next`; the threshold plays no part.
        """
        return [(j, curve.at(p, label) - p) for j, curve, _ in self._from.get(state, ()) if j not in without]

    def _pool(self, state: State) -> pooling.OnePool | None:
        found = self._pools.get(state)
        if found is None and state in self.learned.weights:
            found = self._pools[state] = pooling.OnePool(self.learned.tables, state, self.learned.weights[state])
        return found

    @cached_property
    def _pools(self) -> dict[State, pooling.OnePool]:
        return {}

    @cached_property
    def _from(self) -> dict[State, list[tuple[int, Calibration, float]]]:
        """Steps that may be taken from each state: the tier, the curve, and what its gain has to exceed."""
        out: dict[State, list[tuple[int, Calibration, float]]] = {}
        for step in self.plan.steps:
            state, j, _ = step
            if step in self.learned.after:
                least = self.threshold * (self.costs[j] if self.plan.rule == "price" else 1.0)
                out.setdefault(state, []).append((j, self.learned.after[step], least))
        return out

    # Recorded outcomes.

    def play(self, outcomes: Outcomes) -> Played:
        """Return what the policy does with each recorded query.

        Raises
        ------
        InputError
            The outcomes lack one of its tiers.
        """
        for name in self.asked_tiers:
            if name not in outcomes.tiers:
                raise InputError(
                    f"expected outcomes of the policy's tiers {', '.join(self.asked_tiers)}, got none of {name}"
                )
        return play(Beliefs(self._aligned(outcomes), self.learned), self.plan, self.threshold)

    def _aligned(self, outcomes: Outcomes) -> Outcomes:
        """Return the policy's tiers in its order, at its costs; those it leaves out may be missing."""
        column = [outcomes.tiers.index(name) if name in outcomes.tiers else 0 for name in self.tiers]
        return Outcomes(
            self.tiers,
            outcomes.truth,
            outcomes.labels[:, column],
            outcomes.confidences[:, column],
            np.array(self.costs),
        )

    def replay(self, outcomes: Outcomes) -> dict[str, Any]:
        """Evaluate the policy on recorded queries, next to the best single tier there.

        Returns
        -------
        dict
            accuracy; cost, of a query; best_tier, best_accuracy, best_cost; saved, the share of the best one's cost
            (None if that is free); asked, the share of the queries that each tier was asked; rows.
        """
        played = self.play(outcomes)
        aligned = self._aligned(outcomes)
        costs = np.array(
            [float(outcomes.costs[outcomes.tiers.index(n)]) if n in outcomes.tiers else 0.0 for n in self.tiers]
        )
        right = aligned.correct[np.arange(len(aligned)), played.pick]
        shares = played.asked.mean(axis=0)
        cost, best = float(shares @ costs), outcomes.best
        best_cost = float(outcomes.costs[best])
        return {
            "accuracy": float(right.mean()),
            "cost": cost,
            "best_tier": outcomes.tiers[best],
            "best_accuracy": float(outcomes.accuracies[best]),
            "best_cost": best_cost,
            "saved": 1.0 - cost / best_cost if best_cost > 0 else None,
            "asked": {name: float(share) for name, share in zip(self.tiers, shares, strict=True)},
            "rows": len(outcomes),
        }

    # Files.

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON, the settings a person may change first."""
        return policy_files.to_plain(self)

    @classmethod
    def from_dict(cls, plain: Any) -> Policy:
        """Read back what `to_dict` returned.

        Raises
        ------
        InputError
            Another format or version, or a part that is missing or contradicts the rest.
        """
        return cls(**policy_files.from_plain(plain))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that a person can read, whole or not at all."""
        write_text(path, policy_files.readable(self.to_dict()) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """Read a file that `save` wrote.

        Raises
        ------
        InputError
            It is no such file.
        """
        plain = read_json(path, _MAX_BYTES, "policy")
        try:
            return cls.from_dict(plain)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
