"""``vj-tiers``: model cascades from recorded outcomes: fit a policy, replay it, draw its curve."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vj._files import write_text
from vj.cli import _common

if TYPE_CHECKING:
    from vj.tiers.outcomes import Outcomes
    from vj.tiers.policy import Policy

PROGRAM = "vj-tiers"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `_common.run`."""
    return _common.run(PROGRAM, _tiers, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Decide from recorded answers which model to ask first and when to ask a costlier one. FILE.csv "
        "(or .csv.gz) has the columns truth, then TIER.label and TIER.confidence (0 to 1) for each tier.",
    )
    _common.add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    fit = commands.add_parser("fit", help="choose base tier, order and thresholds; write a policy")
    _inputs(fit)
    goal = fit.add_mutually_exclusive_group(required=True)
    goal.add_argument(
        "--loss",
        type=float,
        metavar="SHARE",
        help="cheapest policy that loses at most this accuracy against the best single tier: 0.005 is half a point",
    )
    goal.add_argument("--accuracy", type=float, metavar="SHARE", help="cheapest policy of at least this accuracy")
    goal.add_argument("--budget", type=float, metavar="COST", help="most accurate policy of at most this cost a query")
    fit.add_argument(
        "--confidence",
        type=float,
        default=0.9,
        metavar="SHARE",
        help="with which --loss or --accuracy is to hold on other queries (default: 0.9); less saves more",
    )
    fit.add_argument("--output", required=True, metavar="FILE", help="policy to write (JSON)")
    replay = commands.add_parser("replay", help="evaluate a policy on other outcomes; prints one JSON object")
    replay.add_argument("outcomes", metavar="FILE.csv", help="recorded outcomes")
    replay.add_argument("policy", metavar="POLICY.json", help="a policy that fit wrote")
    _costs(replay, "costs to use instead of the policy's")
    replay.add_argument("--threshold", type=float, metavar="T", help="use this threshold instead of the policy's")
    curve = commands.add_parser("curve", help="table and plot of accuracy against cost, measured on held-out rows")
    _inputs(curve)
    curve.add_argument("--plot", metavar="FILE", help="plot to write (default: FILE.curve.png in the current folder)")
    curve.add_argument("--json", metavar="FILE", help="also write all points to this file")
    return parser


def _inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("outcomes", metavar="FILE.csv", help="recorded outcomes")
    _costs(parser, "cost of a query for each tier")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random folds (default: 0)")


def _costs(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--costs",
        nargs="+",
        action="extend",
        default=[],
        metavar="COSTS",
        help=f"{text}: TIER=COST or a JSON file; repeatable",
    )


def _tiers(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    return {"fit": _fit, "replay": _replay, "curve": _curve}[args.command](args)


def _read(args: argparse.Namespace) -> Outcomes:
    from vj.tiers.outcomes import Outcomes, read_costs

    return Outcomes.read(args.outcomes, read_costs(args.costs))


def _fit(args: argparse.Namespace) -> int:
    from vj.tiers.policy import Policy

    goal = {name: getattr(args, name) for name in ("loss", "accuracy", "budget")}
    policy = Policy.fit(_read(args), **goal, confidence=args.confidence, seed=args.seed)
    policy.save(args.output)
    print(_described(policy))
    print(f"wrote {args.output}")
    return _common.OK


def _described(policy: Policy) -> str:
    report, rule = policy.fit_report, policy.plan.rule
    first, *rest = policy.asked_tiers
    if rule == "single":
        text = f"ask {first} alone"
    elif rule == "price":
        text = f"ask {first}; then of {', '.join(rest)} whichever gains more than {policy.threshold:.4g} x its cost"
    elif rule == "chow":
        text = f"ask {first}; where it is right with a probability below {policy.threshold:.4f}, ask {rest[0]}"
    else:
        text = f"ask {first}; where {rest[0]} adds more than {policy.threshold:.4f} to the probability, ask it"
    left_out = [name for name in policy.tiers if name not in policy.asked_tiers]
    saved = f", saves {100 * report['saved']:.1f} %" if report["saved"] is not None else ""
    lines = [
        text + (f"; leave out {', '.join(left_out)}" if left_out else ""),
        f"expected: accuracy {report['accuracy']:.4f} at {report['cost']:.4g} a query{saved}; "
        f"{report['best_tier']} alone: {report['best_accuracy']:.4f} at {report['best_cost']:.4g}",
        report["note"],
    ]
    return "\n".join(lines)


def _replay(args: argparse.Namespace) -> int:
    from vj.tiers.outcomes import Outcomes, read_costs
    from vj.tiers.policy import Policy

    policy = Policy.load(args.policy)
    if args.threshold is not None:
        policy = policy.at(threshold=args.threshold)
    costs = dict(zip(policy.tiers, policy.costs, strict=True)) | read_costs(args.costs)
    outcomes = Outcomes.read(args.outcomes, costs, only=policy.tiers)
    print(json.dumps(policy.replay(outcomes), ensure_ascii=False))
    return _common.OK


def _curve(args: argparse.Namespace) -> int:
    from pathlib import Path

    from vj.plotting import plot_deferral
    from vj.tiers.curves import deferral_curves

    curves = deferral_curves(_read(args), args.seed)
    print(f"{'tier alone':28} {'accuracy':>9} {'cost':>10}")
    for name, (accuracy, cost) in curves.singles.items():
        print(f"{name:28} {accuracy:>9.4f} {cost:>10.4g}")
    names = list(curves.lines)
    print(f"\naccuracy at a mean cost ({curves.base} first)\n{'cost':>10}" + "".join(f" {n[:22]:>22}" for n in names))
    for cost, values in curves.rows():
        print(f"{cost:>10.4g}" + "".join(f" {v:>22.4f}" for v in values))
    print(f"\n{curves.verdict()}")
    stem = Path(args.outcomes).name.removesuffix(".gz").removesuffix(".csv")
    plot = args.plot or f"{stem}.curve.png"
    plot_deferral(plot, curves)
    if args.json:
        write_text(args.json, json.dumps(curves.to_dict(), indent=1) + "\n")
    print(f"wrote {plot}")
    return _common.OK


if __name__ == "__main__":
    sys.exit(main())
