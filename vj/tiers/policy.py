"""Policies: which tier is asked first, which next and when, and which answer stands."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from vj._files import read_json, write_text
from vj._types import Floats
from vj.errors import InputError
from vj.tiers import fitting, pooling
from vj.tiers.beliefs import Beliefs, Learned, State, joined
from vj.tiers.calibration import Calibration
from vj.tiers.model import Answer, checked_cost
from vj.tiers.outcomes import Outcomes
from vj.tiers.rules import RULES, Plan, Played, play

FORMAT, VERSION = "vj tiers policy", 1
_MAX_BYTES = 1 << 26
TRUST = 0.5
"""Where one tier fails says half of where another does. On seven sets of recorded answers a rule fitted for one heavy
tier keeps 92 to 100 % of the gain of one fitted for the other; with full trust 82 to 100 %, with none 88 to 97 %."""
_CURVE = ("threshold", "accuracy", "cost", "margin")


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
            By the tiers' numbers, in the order in which they came.
        """
        if len(answers) == 1:
            ((only, answer),) = answers.items()
            return only, self.probability(only, answer)
        state = tuple(sorted(answers))
        if self.plan.pooled and state in self.learned.weights:
            members = [answers[k] for k in state]
            stated = [self.probability(k, answer) for k, answer in zip(state, members, strict=True)]
            pick, found = self._pool(state)([answer.label for answer in members], stated)
            return state[pick], found
        if self.plan.pooled:
            # A state that the plan does not know, after a failure: the most confident answer stands.
            each = {k: self.probability(k, answer) for k, answer in answers.items()}
            surest = max(each, key=lambda k: each[k])
            return surest, each[surest]
        last = list(answers)[-1]
        return last, self.probability(last, answers[last])

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
        for j, curve in self._from.get(state, ()):
            worth = curve.at(p, label) - p - self.threshold * (self.costs[j] if rule == "price" else 1.0)
            if worth > best and j not in without:
                best, chosen = worth, j
        return chosen

    def gains(
        self, state: State, label: str | None, p: float, without: Collection[int] = ()
    ) -> list[tuple[int, float]]:
        """Return the tiers that may be asked after `state`, and what each is expected to add to the probability.

        Arguments as for `next`; the threshold plays no part.
        """
        return [(j, curve.at(p, label) - p) for j, curve in self._from.get(state, ()) if j not in without]

    def _pool(self, state: State) -> pooling.OnePool:
        found = self._pools.get(state)
        if found is None:
            found = pooling.OnePool(self.learned.tables, state, self.learned.weights[state])
            self._pools[state] = found
        return found

    @cached_property
    def _pools(self) -> dict[State, pooling.OnePool]:
        return {}

    @cached_property
    def _from(self) -> dict[State, list[tuple[int, Calibration]]]:
        """Steps that may be taken from each state."""
        out: dict[State, list[tuple[int, Calibration]]] = {}
        for step in self.plan.steps:
            if step in self.learned.after:
                out.setdefault(step[0], []).append((step[1], self.learned.after[step]))
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
        names = self.tiers
        learned = self.learned
        used = sorted(self.plan.order)
        return {
            "format": FORMAT,
            "version": VERSION,
            "rule": self.plan.rule,
            "threshold": self.threshold,
            "order": list(self.asked_tiers),
            "left_out": [name for name in names if name not in self.asked_tiers],
            "pooled": self.plan.pooled,
            "most_asked": self.plan.most,
            "tiers": {name: {"cost": cost} for name, cost in zip(names, self.costs, strict=True)},
            "fit": dict(self.fit_report),
            "curve": [dict(zip(_CURVE, point, strict=True)) for point in self.curve],
            "calibrations": {names[k]: learned.calibrations[k].to_dict() for k in used},
            "labels": learned.tables.to_dict(names) if learned.weights else None,
            "pools": [
                {"asked": [names[k] for k in state], "weights": [float(w) for w in weights]}
                for state, weights in sorted(learned.weights.items())
            ],
            "after": [
                {"asked": [names[k] for k in step[0]], "next": names[step[1]]} | curve.to_dict()
                for step, curve in learned.after.items()
            ],
        }

    @classmethod
    def from_dict(cls, plain: Any) -> Policy:
        """Read back what `to_dict` returned.

        Raises
        ------
        InputError
            Another format or version, or a part that is missing or contradicts the rest.
        """
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            raise InputError(f"expected a policy with format {FORMAT!r}, got something else")
        if plain.get("version") != VERSION:
            raise InputError(f"expected a policy of version {VERSION}, got {plain.get('version')!r}")
        try:
            return cls._read(plain)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"expected a policy, got one that cannot be read: {error!r}") from None

    @classmethod
    def _read(cls, plain: Mapping[str, Any]) -> Policy:
        names = tuple(plain["tiers"])
        costs = tuple(checked_cost(name, plain["tiers"][name]["cost"]) for name in names)

        def number(name: str) -> int:
            if name not in names:
                raise InputError(f"expected tiers among {', '.join(names)}, got {name!r}")
            return names.index(name)

        order = tuple(number(name) for name in plain["order"])
        rule, pooled = plain["rule"], bool(plain["pooled"])
        if rule not in RULES:
            raise InputError(f"expected a rule among {', '.join(RULES)}, got {rule!r}")
        wanted = {"single": 1, "chow": 2, "gain": 2}.get(rule, len(order))
        if len(set(order)) != len(order) or len(order) != wanted or not order:
            raise InputError(
                f"expected {wanted or 'some'} different tiers in order for rule {rule}, got {list(plain['order'])}"
            )
        plan = Plan(rule, order, pooled, int(plain["most_asked"]))
        calibrations = {k: Calibration.from_dict(plain["calibrations"][names[k]]) for k in order}
        weights = {
            tuple(sorted(map(number, one["asked"]))): _weights(one["weights"], len(one["asked"]))
            for one in plain["pools"]
        }
        labels = plain["labels"]
        tables = (
            pooling.LabelTables.from_dict(labels, names) if labels is not None else pooling.LabelTables.none(len(names))
        )
        after = {
            (tuple(sorted(map(number, one["asked"]))), number(one["next"]), pooled): Calibration.from_dict(one)
            for one in plain["after"]
        }
        for state, j, together in plan.steps:
            if rule != "chow" and (state, j, together) not in after:
                raise InputError(
                    f"expected a curve for asking {names[j]} after {', '.join(names[k] for k in state)}, got none"
                )
            if together and joined(state, j) not in weights:
                raise InputError(
                    f"expected weights for the answers of {', '.join(names[k] for k in joined(state, j))}, got none"
                )
        curve = tuple(_point(point) for point in plain["curve"])
        return cls(
            names,
            costs,
            plan,
            float(plain["threshold"]),
            Learned(calibrations, tables, weights, after),
            curve,
            dict(plain["fit"]),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that a person can read, whole or not at all."""
        write_text(path, _readable(self.to_dict()) + "\n")

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


def _point(plain: Mapping[str, Any]) -> fitting.CurvePoint:
    threshold, accuracy, cost, margin = (float(plain[name]) for name in _CURVE)
    if not all(map(math.isfinite, (threshold, accuracy, cost, margin))):
        raise InputError(f"expected finite numbers in the curve, got {dict(plain)!r:.120}")
    return threshold, accuracy, cost, margin


def _weights(plain: Any, members: int) -> Floats:
    found = np.array(plain, dtype=np.float64)
    if found.shape != (members + 1,) or not np.isfinite(found).all():
        raise InputError(f"expected {members + 1} finite weights for {members} tiers, got {plain!r:.80}")
    return found


def _readable(value: Any, indent: int = 0) -> str:
    """JSON with a line for each entry, but lists of numbers and small objects on one line."""
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    plain = isinstance(value, list) and not any(isinstance(one, list | dict) for one in value)
    if plain or not isinstance(value, list | dict) or len(flat) + indent <= 118:
        return flat
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        inner = [f"{pad}{json.dumps(k, ensure_ascii=False)}: {_readable(v, indent + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(inner) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + _readable(one, indent + 1) for one in value) + "\n" + " " * indent + "]"
