"""Run the benchmarks that this machine has data for: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys

from benchmarks import _runner

# Need nothing but what comes with the packages.
ALWAYS = ("rejection", "parity", "speed")


def plan(args: argparse.Namespace) -> list[tuple[str, list[str], str]]:
    """Benchmarks in order: module, its arguments, and why it is left out (empty if it is run)."""
    output = ["--output", args.output]
    steps = [(name, output, "") for name in ALWAYS]
    if args.accuracy:
        yunet = ["--yunet", args.yunet] if args.yunet else []
        for given in args.accuracy:
            dataset, _, rule = given.partition(":")
            steps.append(("accuracy", [dataset, *output, *yunet, *(["--frontal"] if rule == "frontal" else [])], ""))
    else:
        steps.append(("accuracy", [], "needs labelled images: --accuracy DATASET"))
    faces = [given.partition(":")[0] for given in args.accuracy or []]
    steps.append(("anonymize", [*faces, *output] if faces else [], "" if faces else "needs --accuracy DATASET"))
    training = [args.training, *output] if args.training else []
    steps.append(("training", training, "" if training else "needs its workload: --training DIR"))
    outcomes = [args.outcomes, *output] if args.outcomes else []
    steps.append(("tiers", outcomes, "" if outcomes else "needs recorded answers: --outcomes FOLDER"))
    tiers, needs = [], "needs two sets of labelled images and a model: --tiers-vision FDDB WIDER --yunet MODEL.onnx"
    if args.tiers_vision and args.yunet:
        tiers, needs = [*args.tiers_vision, "--yunet", args.yunet, *output], ""
        tiers += ["--dlib", args.dlib] if args.dlib else []
    steps.append(("tiers_vision", tiers, needs))
    shots, needs = (
        [],
        "needs images with and without faces and a model: --accuracy DATASET --backgrounds DIR --yunet ...",
    )
    if args.accuracy and args.backgrounds and args.yunet:
        faces = args.accuracy[0].partition(":")[0]
        shots, needs = [faces, args.backgrounds, "--yunet", args.yunet, *output], ""
    steps.append(("wakeup", shots, needs))
    text = [args.text, *output] if args.text else []
    steps.append(("speculative", text, "" if text else "needs a long text: --text FILE"))
    pair = [args.accuracy[0].partition(":")[0], "--yunet", args.yunet, *output] if args.accuracy and args.yunet else []
    steps.append(("speculative_frames", pair, "" if pair else "needs --accuracy DATASET and --yunet MODEL.onnx"))
    found = [args.photos, "--backgrounds", args.backgrounds, *output] if args.photos and args.backgrounds else []
    found += ["--yunet", args.yunet] if found and args.yunet else []
    steps.append(("cluster", found, "" if found else "needs --photos DIR and --backgrounds DIR, and vj[cluster]"))
    attack = [args.robustness, *output] if args.robustness else []
    steps.append(("robustness", attack, "" if attack else "takes an hour: --robustness FOLDER for what it keeps"))
    missing = "is not in this clone"
    return [
        (name, argv, why or ("" if importlib.util.find_spec(f"benchmarks.{name}") else missing))
        for name, argv, why in steps
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--accuracy", action="append", metavar="DATASET[:frontal]", help="labelled images; may be given again"
    )
    parser.add_argument("--yunet", metavar="MODEL.onnx", help="neural yardstick for --accuracy, and a tier")
    parser.add_argument("--outcomes", metavar="FOLDER", help="recorded answers for model cascades")
    parser.add_argument("--tiers-vision", nargs=2, metavar=("FDDB", "WIDER"), help="labelled images for detector tiers")
    parser.add_argument("--backgrounds", metavar="DIR", help="images without faces, to wake up from")
    parser.add_argument("--dlib", metavar="MODEL.dat", help="dlib's CNN as the heavy tier, about 30 minutes")
    parser.add_argument("--training", metavar="DIR", help="workload of the training benchmark")
    parser.add_argument("--text", metavar="FILE", help="a book, for the language models of speculative cascades")
    parser.add_argument("--photos", metavar="DIR", help="some thousand images, to search on a cluster")
    parser.add_argument("--robustness", metavar="FOLDER", help="attack the readers; what fails is kept there")
    parser.add_argument("--output", default=str(_runner.RESULTS), metavar="DIR", help="where results go")
    parser.add_argument("--list", action="store_true", help="say what would run, and stop")
    args = parser.parse_args(argv)
    worst = 0
    for name, arguments, why in plan(args):
        print(f"== {name} {' '.join(arguments)}{f': left out, {why}' if why else ''}", flush=True)
        if not why and not args.list:
            worst = max(worst, importlib.import_module(f"benchmarks.{name}").main(arguments))
    return worst


if __name__ == "__main__":
    sys.exit(main())
