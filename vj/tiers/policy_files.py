"""A policy as plain values, and as JSON that a person can read and change."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vj._types import Floats
from vj.errors import InputError
from vj.tiers import pooling
from vj.tiers.beliefs import Learned, joined
from vj.tiers.calibration import Calibration
from vj.tiers.fitting import CurvePoint
from vj.tiers.model import checked_cost
from vj.tiers.rules import RULES, Plan

if TYPE_CHECKING:
    from vj.tiers.policy import Policy

FORMAT, VERSION = "vj tiers policy", 1
_CURVE = ("threshold", "accuracy", "cost", "margin")


def to_plain(policy: Policy) -> dict[str, Any]:
    """Return a policy as plain values; see `Policy.to_dict`."""
    names = policy.tiers
    learned = policy.learned
    used = sorted(policy.plan.order)
    return {
        "format": FORMAT,
        "version": VERSION,
        "rule": policy.plan.rule,
        "threshold": policy.threshold,
        "order": list(policy.asked_tiers),
        "left_out": [name for name in names if name not in policy.asked_tiers],
        "pooled": policy.plan.pooled,
        "most_asked": policy.plan.most,
        "tiers": {name: {"cost": cost} for name, cost in zip(names, policy.costs, strict=True)},
        "fit": dict(policy.fit_report),
        "curve": [dict(zip(_CURVE, point, strict=True)) for point in policy.curve],
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


def from_plain(plain: Any) -> dict[str, Any]:
    """Return the arguments of a policy that `to_plain` wrote; see `Policy.from_dict`."""
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise InputError(f"expected a policy with format {FORMAT!r}, got something else")
    if plain.get("version") != VERSION:
        raise InputError(f"expected a policy of version {VERSION}, got {plain.get('version')!r}")
    try:
        return _arguments(plain)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"expected a policy, got one that cannot be read: {error!r}") from None


def _arguments(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a policy from its plain values, checked against each other."""
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
        tuple(sorted(map(number, one["asked"]))): _weights(one["weights"], len(one["asked"])) for one in plain["pools"]
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
    return {
        "tiers": names,
        "costs": costs,
        "plan": plan,
        "threshold": float(plain["threshold"]),
        "learned": Learned(calibrations, tables, weights, after),
        "curve": tuple(_point(point) for point in plain["curve"]),
        "fit_report": dict(plain["fit"]),
    }


def _point(plain: Mapping[str, Any]) -> CurvePoint:
    threshold, accuracy, cost, margin = (float(plain[name]) for name in _CURVE)
    if not all(map(math.isfinite, (threshold, accuracy, cost, margin))):
        raise InputError(f"expected finite numbers in the curve, got {dict(plain)!r:.120}")
    return threshold, accuracy, cost, margin


def _weights(plain: Any, members: int) -> Floats:
    found = np.array(plain, dtype=np.float64)
    if found.shape != (members + 1,) or not np.isfinite(found).all():
        raise InputError(f"expected {members + 1} finite weights for {members} tiers, got {plain!r:.80}")
    return found


def readable(value: Any, indent: int = 0) -> str:
    """JSON with a line for each entry, but lists of numbers and small objects on one line."""
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    plain = isinstance(value, list) and not any(isinstance(one, list | dict) for one in value)
    if plain or not isinstance(value, list | dict) or len(flat) + indent <= 118:
        return flat
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        inner = [f"{pad}{json.dumps(k, ensure_ascii=False)}: {readable(v, indent + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(inner) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + readable(one, indent + 1) for one in value) + "\n" + " " * indent + "]"
