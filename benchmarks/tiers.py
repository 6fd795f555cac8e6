"""Model cascades on recorded outcomes: what deferral saves, gains and costs, on rows that nothing was fitted on.

    python -m benchmarks.tiers FOLDER [--splits 5]

FOLDER holds NAME.csv.gz with NAME.costs.json for each set, as `python data/prepare.py outcomes` lays them out, and, if
there, prompts.csv.gz for the routers. Everything is fitted on a random half of the rows and measured on the other; the
figures are means over the splits. Overhead is processor time, since it is a few microseconds.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _runner
from vj.errors import InputError
from vj.tiers import (
    Answer,
    Calibration,
    Escalation,
    Outcomes,
    Policy,
    Router,
    Tier,
    average_gap_recovered,
    expected_calibration_error,
)
from vj.tiers.beliefs import Beliefs, FoldedBeliefs, folds
from vj.tiers.curves import deferred
from vj.tiers.outcomes import read_costs
from vj.tiers.policy import TRUST
from vj.tiers.rules import Plan

LOSS = 0.005
COSTS = {"small": 0.0, "middle": 1.0, "large": 4.0}
"""Of the made-up tiers that the overhead is timed with."""
ROUTES = (("MMLU", "mmlu", None), ("MMLU, 1,500 labels", "mmlu", 1500), ("GSM8K", "gsm8k", None))


def halves(n: int, seed: int) -> tuple[Any, Any]:
    order = np.random.default_rng(seed).permutation(n)
    return order[: n // 2], order[n // 2 :]


def needed(order: Any, before: Any, after: Any, target: float) -> float:
    """Share of the rows to defer, in that order, until the accuracy reaches the target; 1 if it never does."""
    fine = np.flatnonzero(deferred(order, before, after) >= target - 1e-12)
    return float(fine[0]) / len(before) if len(fine) else 1.0


def two_tiers(train: Outcomes, test: Outcomes) -> dict[str, float]:
    """Return the share of calls to the best tier that matches it, the cheapest first; training rows choose the rule."""
    best, cheap = train.best, int(np.argmin(train.costs))
    before, target = test.correct[:, cheap], float(test.accuracies[best])
    if best == cheap:
        return {"policy": 0.0, "chow": 0.0, "oracle": 0.0}
    folded, found = FoldedBeliefs(train, folds(len(train), 0)), {}
    for rule in ("chow", "gain"):
        plan = Plan(rule, (cheap, best), True)
        wanted = []
        for beliefs in (folded, Beliefs(test, folded.learn(plan.order, plan.steps))):
            p = beliefs.stand((cheap,))[1]
            key = p if rule == "chow" else p - beliefs.after(plan.steps[0])
            rows, after = beliefs.outcomes, beliefs.correct(tuple(sorted(plan.order)))
            order = np.lexsort((rows.confidences[:, cheap], p, key))
            wanted.append(needed(order, rows.correct[:, cheap], after, float(rows.accuracies[best])))
        found[wanted[0]] = wanted[1]
    raw = np.argsort(test.confidences[:, cheap], kind="stable")
    heavy = test.correct[:, best]
    knows = np.argsort(-(heavy * 1.0 - before), kind="stable")
    return {
        "policy": found[min(found)],
        "chow": needed(raw, before, heavy, target),
        "oracle": needed(knows, before, heavy, target),
    }


def carried(train: Outcomes, test: Outcomes) -> list[float]:
    """Gain kept by rules fitted for one heavy tier and used for another, for each ordered pair of heavy tiers.

    The gain of a rule is the area between its deferral curve and random deferral's, on the test rows; the cheapest tier
    comes first, the heavy tier's answer replaces its. Kept is the gain of the rule fitted with tier A, used for tier B,
    as a share of the gain of the rule fitted with B. The rule of A is carried over as `Policy.renamed` does it.
    """
    cheap = int(np.argmin(train.costs))
    better = [k for k in range(len(train.tiers)) if k != cheap and train.accuracies[k] > train.accuracies[cheap]]
    folded, own, lent = FoldedBeliefs(train, folds(len(train), 0)), {}, {}
    for k in better:
        plan = Plan("gain", (cheap, k), False)
        learned = folded.learn(plan.order, plan.steps)
        for rules, one in ((own, learned), (lent, learned.shrunk(k, TRUST))):
            beliefs = Beliefs(test, one)
            p = beliefs.stand((cheap,))[1]
            rules[k] = np.lexsort((p, p - beliefs.after(plan.steps[0])))
    before, kept = test.correct[:, cheap], []

    def area(order: Any, k: int) -> float:
        curve = deferred(order, before, test.correct[:, k])
        return float((curve - np.linspace(curve[0], curve[-1], len(curve))).mean())

    for a in better:
        kept += [area(lent[a], b) / area(own[b], b) for b in better if a != b and area(own[b], b) > 0]
    return kept


def calibration(train: Outcomes, test: Outcomes) -> list[tuple[float, float]]:
    """ECE of each tier before and after calibration by label, 15 bins."""
    found = []
    for k in range(len(train.tiers)):
        curve = Calibration.fit(train.confidences[:, k], train.correct[:, k], train.labels[:, k])
        after = curve.predict(test.confidences[:, k], test.labels[:, k])
        right = test.correct[:, k]
        found.append(
            (expected_calibration_error(test.confidences[:, k], right), expected_calibration_error(after, right))
        )
    return found


def one_split(outcomes: Outcomes, seed: int) -> dict[str, Any]:
    """Everything that is measured on one split."""
    a, b = halves(len(outcomes), seed)
    train, test = outcomes.rows(a), outcomes.rows(b)
    policy = Policy.fit(train, loss=LOSS)
    found = policy.replay(test)
    rich = Policy.fit(train, budget=float(train.costs[train.best])).replay(test)
    within = [k for k in range(len(test.tiers)) if test.costs[k] <= found["cost"] * (1 + 1e-9)]
    same = max(within, key=lambda k: float(test.accuracies[k])) if within else int(np.argmin(test.costs))
    errors = calibration(train, test)
    cheap = int(np.argmin(train.costs))
    return {
        "saved": found["saved"],
        "lost": found["best_accuracy"] - found["accuracy"],
        "accuracy": found["accuracy"],
        "cost": found["cost"],
        "light": float(test.accuracies[cheap]),
        "best": found["best_accuracy"],
        "best_cost": found["best_cost"],
        "same_cost": float(test.accuracies[same]),
        "gained": rich["accuracy"] - rich["best_accuracy"],
        "gained_cost": rich["cost"] / rich["best_cost"],
        "calls": two_tiers(train, test),
        "ece": errors[cheap],
        "ece_all": np.mean(errors, axis=0).tolist(),
        "carried": carried(train, test),
    }


def mean_of(splits: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean of each figure over the splits, and the worst loss of one split."""
    figures: dict[str, Any] = {"splits": len(splits), "lost_worst": max(one["lost"] for one in splits)}
    for name in ("saved", "lost", "accuracy", "cost", "light", "best", "best_cost", "same_cost", "gained"):
        figures[name] = float(np.mean([one[name] for one in splits]))
    figures["gained_cost"] = float(np.mean([one["gained_cost"] for one in splits]))
    figures["calls"] = {k: float(np.mean([one["calls"][k] for one in splits])) for k in splits[0]["calls"]}
    for name in ("ece", "ece_all"):
        figures[name] = np.mean([one[name] for one in splits], axis=0).tolist()
    kept = [share for one in splits for share in one["carried"]]
    figures["carried"] = {"mean": float(np.mean(kept)), "least": min(kept), "pairs": len(kept)} if kept else None
    return figures


def routers(path: Path, splits: int) -> dict[str, Any]:
    """APGR of a router, of the prompts' length alone, and of an oracle, on the other half."""
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figures = {}
    for title, name, limit in ROUTES:
        mine = [row for row in rows if row["set"] == name]
        texts = [row["prompt"] for row in mine]
        light, heavy = (np.array([float(row[key]) for row in mine]) for key in ("weak", "strong"))
        found = []
        for seed in range(splits):
            a, b = halves(len(mine), seed)
            a = a[:limit]
            router = Router.fit([texts[i] for i in a], light[a], heavy[a])
            test = [texts[i] for i in b]
            scores = (router.gains(test), np.array([len(text) for text in test]), heavy[b] - light[b])
            found.append([average_gap_recovered(one, light[b], heavy[b]) for one in scores])
            print(f"  {title}: {found[-1][0]:.3f}", flush=True)
        mean = np.mean(found, axis=0).tolist()
        ends = {"light": float(light.mean()), "heavy": float(heavy.mean())}
        figures[title] = dict(zip(("router", "length", "oracle"), mean, strict=True)) | ends
    return figures


def overhead() -> dict[str, float]:
    """Microseconds of processor time that the layer adds to one query, over tiers that answer at once."""
    rng = np.random.default_rng(0)
    truth = rng.choice(["a", "b", "c"], 1500)
    p = np.sort(rng.uniform(0.4, 1, (1500, 3)), axis=1)
    labels = np.where(rng.random((1500, 3)) < p, truth[:, None], "a")
    outcomes = Outcomes(tuple(COSTS), truth, labels, p, np.array(list(COSTS.values())))
    beliefs, found = FoldedBeliefs(outcomes, folds(1500, 0)), {}
    answers = [Answer("a", 0.7), Answer("b", 0.8), Answer("a", 0.9)]
    tiers = [Tier(n, lambda _, one=one: one, c) for n, one, c in zip(COSTS, answers, COSTS.values(), strict=True)]
    for plan in (Plan("gain", (0, 2)), Plan("price", (0, 1, 2))):
        learned = beliefs.learn(plan.order, plan.steps)
        for threshold in (2.0, 0.0):
            policy = Policy(tuple(COSTS), tuple(COSTS.values()), plan, threshold, learned)
            escalation = Escalation(tiers, policy)
            asked = len(escalation(0).asked)
            found[f"{plan.rule}, {asked} asked"] = microseconds(lambda e=escalation: e(0))
    return found


def microseconds(call: Callable[[], object], calls: int = 2000, repeats: int = 7) -> float:
    """Median processor time of one call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(calls):
            call()
        times.append((time.process_time() - start) / calls)
    return 1e6 * float(np.median(times))


def table(figures: dict[str, Any]) -> str:
    """Markdown tables of a result file."""
    sets = figures["sets"].items()
    points = [
        [
            name,
            f"{one['saved']:.3f}",
            f"{-100 * one['lost']:+.2f} ({-100 * one['lost_worst']:+.2f})",
            *(f"{100 * one[key]:.1f}" for key in ("accuracy", "light", "best", "same_cost")),
            f"{100 * one['gained']:+.2f}",
        ]
        for name, one in sets
    ]
    head = ["set", "cost saved", "points to best (worst split)", "accuracy", "light alone", "best alone"]
    parts = [_runner.table([*head, "best single at this cost", "points gained at best's cost"], points)]
    shares = []
    for name, one in sets:
        calls, kept = one["calls"], one["carried"]
        shares.append(
            [
                name,
                *(f"{calls[key]:.3f}" for key in ("policy", "chow", "oracle")),
                *(f"{before:.3f} → {after:.3f}" for before, after in (one["ece"], one["ece_all"])),
                f"{100 * kept['mean']:.0f} % ({100 * kept['least']:.0f})" if kept else "",
            ]
        )
    head = ["set", "calls to match", "Chow, raw", "oracle", "ECE, light", "ECE, mean", "kept for another tier (least)"]
    parts.append(_runner.table(head, shares))
    if figures["routers"]:
        rows = [
            [name, *(f"{one[key]:.3f}" for key in ("router", "length", "oracle")), "0.500",
             *(f"{100 * one[key]:.1f}" for key in ("light", "heavy"))]
            for name, one in figures["routers"].items()
        ]  # fmt: skip
        head = ["router, APGR", "words and length", "length alone", "oracle", "random", "light alone", "heavy alone"]
        parts.append(_runner.table(head, rows))
    rows = [[name, f"{us:.1f}"] for name, us in figures["overhead"].items()]
    parts.append(_runner.table(["overhead of a query", "us"], rows))
    return "\n\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiers", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="NAME.csv.gz and NAME.costs.json for each set")
    parser.add_argument("--splits", type=int, default=5, help="random half splits (default: 5)")
    parser.add_argument("--output", type=Path, default=_runner.RESULTS, metavar="DIR", help="where the JSON goes")
    return _runner.run("tiers", _run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> int:
    costs = sorted(args.folder.glob("*.costs.json"))
    if not costs:
        raise InputError(f"{args.folder}: expected NAME.csv.gz and NAME.costs.json, got none")
    sets, used, rows = {}, [], 0
    for path in costs:
        name = path.name.removesuffix(".costs.json")
        used += [path, path.with_name(f"{name}.csv.gz")]
        outcomes = Outcomes.read(used[-1], read_costs([str(path)]))
        splits = [one_split(outcomes, seed) for seed in range(args.splits)]
        sets[name] = {"rows": len(outcomes)} | mean_of(splits)
        rows += len(outcomes)
        print(f"{name}: saved {sets[name]['saved']:.3f}, lost {100 * sets[name]['lost']:.2f} points", flush=True)
    prompts = args.folder / "prompts.csv.gz"
    used += [prompts] if prompts.is_file() else []
    figures = {
        "loss": LOSS,
        "sets": sets,
        "routers": routers(prompts, args.splits) if prompts.is_file() else {},
        "overhead": overhead(),
    }
    data = {"name": "recorded outcomes", "rows": rows, "sha256": _runner.data_hash(used)}
    path = _runner.write_result("tiers", figures, data=data, folder=args.output)
    print(f"\n{table(figures)}\n\nWritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
