"""Recall and precision of cascades on labelled images, with cv2's own detector and YuNet as yardsticks.

    python -m benchmarks.accuracy DATASET [--frontal] [--yunet MODEL.onnx] [CASCADE ...]

A name with `cv2:` in front is run by cv2's own CascadeClassifier; its score is the number of neighbours. One with
`suppressed:` in front is run as a score allows: groups of one hit are kept, and of those that overlap the best. With
`proposals:` in front one is run in coarser steps, to propose regions to a second detector: what counts is the share of
the faces that a proposal touches, and how many proposals an image has. With `coarse14:` one scans every second scale
first, then the windows near those that pass 14 stages; with `exact:` it ignores soft thresholds. These two may stand
before `suppressed:`. Names with commas, of which some may have `mirrored:` in front, share one scan.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _runner
from vj.cascade.opencv_xml import load
from vj.cli._detectors import named_cascades
from vj.datasets.formats import FORMATS, read_labelled
from vj.datasets.labelled import FRONTAL, Wanted
from vj.detector import Detector
from vj.errors import InputError
from vj.evaluation import report
from vj.evaluation.bootstrap import interval
from vj.evaluation.curves import VIOLA_JONES
from vj.evaluation.matching import Found, overlaps
from vj.evaluation.measure import (
    Detect,
    Evaluation,
    ImageRun,
    Rules,
    as_figures,
    cascade_detector,
    evaluate,
    measurable,
    run_detector,
)
from vj.images import read_bgr, to_gray
from vj.tiers import YuNet

CASCADES = (
    "suppressed:frontalface",
    "coarse14:suppressed:frontalface",
    "frontalface",
    "suppressed:frontalface,profileface,mirrored:profileface",
    "suppressed:frontalface_small",
    "frontalface_default",
    "frontalface_alt",
    "frontalface_alt2",
    "cv2:frontalface_alt2",
)

PROPOSING = ("proposals:frontalface_fast", "proposals:frontalface")

SUPPRESSED = {"min_neighbors": 0, "suppression": 0.3}
PROPOSALS = {"min_neighbors": 0, "suppression": 0.45, "scale_factor": 1.2, "stride": 2, "min_size": 24}
TOUCHED = 0.3
"""Intersection over union from which a proposal touches a face: whoever looks there with some margin sees it."""
BUDGETS = (15, 60)
"""Numbers of proposals per image, on average over the set: the best ones, whose touched faces are counted."""


def opencv_detector(given: str, scale_factor: float, min_neighbors: int) -> Detect:
    """cv2's own detector, with the cascade's own window as the smallest size."""
    import cv2

    from vj.cascade import stock

    if not hasattr(cv2, "CascadeClassifier"):
        raise InputError(f"expected opencv-python 4 to run {given}, got {cv2.__version__}")
    path = given if Path(given).is_file() else str(stock.find(given))
    peer = cv2.CascadeClassifier(path)

    def detect(image: Any) -> Found:
        size = peer.getOriginalWindowSize()
        boxes, counts = peer.detectMultiScale2(to_gray(image), scale_factor, min_neighbors, 0, size)
        return Found(np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(counts, np.float64).reshape(-1))

    return detect


def variant(given: str) -> tuple[list[str], dict[str, Any], str]:
    """Split off what stands before a cascade: its words for the table, and the settings it means."""
    words: list[str] = []
    settings: dict[str, Any] = {}
    while match := re.match(r"(suppressed|exact|coarse(\d+)):", given):
        if match[2]:
            words.append(f"coarse {match[2]}")
            settings["coarse"] = int(match[2])
        else:
            words.append(match[1])
            settings |= SUPPRESSED if match[1] == "suppressed" else {"exact": True}
        given = given[match.end() :]
    return words, settings, given


def measure(
    given: str, labelled: list[Any], rules: Rules, settings: dict[str, Any]
) -> tuple[Evaluation, dict[str, Any]]:
    """Measure one detector; return the evaluation, and its plain figures with 95 % intervals."""
    cost = None
    if given.startswith("yunet:"):
        name, detect = "YuNet", measurable(YuNet(given.removeprefix("yunet:")))
    elif given.startswith("cv2:"):
        name = f"{given.removeprefix('cv2:').removeprefix('haarcascade_')} in cv2"
        detect = opencv_detector(given.removeprefix("cv2:"), settings["scale_factor"], settings["min_neighbors"])
    else:
        words, changes, rest = variant(given)
        cascades = named_cascades(rest.split(","))
        names = dict.fromkeys(cascade.name.removeprefix("haarcascade_") for cascade in cascades)
        name = ", ".join([" + ".join(names), *words])
        own = settings | {"min_size": min(cascade.window for cascade in cascades)} | changes
        detector = Detector(cascades, **own)
        detect = measurable(detector)
        cost = detector.cost if len(cascades) == 1 else None
    result = evaluate(name, list(run_detector(detect, labelled, cost)), rules)
    figures = as_figures(result, false_positives=VIOLA_JONES)
    figures["interval"] = {
        "average_precision": interval(result, lambda c: c.average_precision),
        "10": interval(result, lambda c: c.recall_at(10)),
        "50": interval(result, lambda c: c.recall_at(50)),
    }
    return result, figures


def proposals(given: list[str], labelled: list[Any], rules: Rules, threads: int) -> list[dict[str, Any]]:
    """Measure how many faces the proposals of detectors touch, after one shift and scale for all those of one.

    The detectors take turns on each image, so that times compare.
    """
    names, detects = [], []
    for one in given:
        if one.startswith("yunet:"):
            names.append("YuNet")
            detects.append(measurable(YuNet(one.removeprefix("yunet:"))))
        else:
            cascade = load(one.removeprefix("proposals:"))
            names.append(cascade.name)
            detects.append(cascade_detector(cascade, **PROPOSALS, threads=threads))
    runs: list[list[ImageRun]] = [[] for _ in given]
    for image in labelled:
        pixels = read_bgr(image.path)
        for detect, own in zip(detects, runs, strict=True):
            if not own:
                # The first call may compile.
                detect(pixels)
            start = time.perf_counter()
            found = detect(pixels)
            own.append(ImageRun(image, found, time.perf_counter() - start))
    return [_touched(name, own, rules) for name, own in zip(names, runs, strict=True)]


def _touched(name: str, runs: list[ImageRun], rules: Rules) -> dict[str, Any]:
    """Return how many faces the proposals of a detector touch, and how many there are."""
    result = evaluate(name, runs, replace(rules, iou_threshold=TOUCHED))
    ordered = np.sort(np.concatenate([found.scores for found in result.found]))[::-1]

    def touched(score: float) -> float:
        """Share of the faces that proposals of this score or a higher one touch."""
        faces = [
            (overlaps(found.boxes[found.scores >= score], truth.boxes[~truth.ignored]) >= TOUCHED).any(axis=0).sum()
            for found, truth in zip(result.found, result.truth, strict=True)
        ]
        return round(int(sum(faces)) / result.curve.n_wanted, 5)

    budgets = {n: n * len(result.found) for n in BUDGETS}
    return {
        "name": name,
        "touched": touched(-np.inf),
        "touched_by_best": {str(n): touched(ordered[k - 1]) for n, k in budgets.items() if k <= len(ordered)},
        "proposals_per_image": round(len(ordered) / len(result.found), 3),
        "milliseconds_per_picture": round(result.milliseconds, 3),
    }


def proposals_table(figures: dict[str, Any]) -> str:
    """Markdown table of the proposals in a result file."""
    keys = ("proposals_per_image", "milliseconds_per_picture")
    best = [f"the best {n} per image" for n in BUDGETS]
    return _runner.table(
        ["faces touched, %, by", *best, "all", "proposals per image", "ms per image"],
        [
            [
                row["name"],
                # Where there are fewer proposals, all of them.
                *(f"{100 * row['touched_by_best'].get(str(n), row['touched']):.1f}" for n in BUDGETS),
                f"{100 * row['touched']:.1f}",
                *(f"{row[k]:.1f}" for k in keys),
            ]
            for row in figures["proposals"]
        ],
    )


def table(figures: dict[str, Any]) -> str:
    """Markdown table of a result file: a line for each detector."""
    columns = ("0", "10", "50", "95", "167", "422")
    rows = []
    for f in figures["detectors"]:
        low, high = f["interval"]["average_precision"]
        costs = (f.get("weak_classifiers_per_window"), f.get("features_per_window"))
        rows.append(
            [
                f["name"],
                f"{100 * f['average_precision']:.1f} ({100 * low:.1f}-{100 * high:.1f})",
                *(f"{100 * f['recall_at'][k]:.1f}" for k in columns),
                *("" if cost is None else f"{cost:.1f}" for cost in costs),
            ]
        )
    header = ["detector", "AP (95 %)", *(f"at {k}" for k in columns), "weak/window", "features/window"]
    shown = [_runner.table(header, rows), *([proposals_table(figures)] if "proposals" in figures else [])]
    return "\n\n".join(shown)


def summary(folder: Path = _runner.RESULTS) -> str:
    """Markdown table for the main README: ours, OpenCV's default cascade and YuNet on the development sets."""
    sets = {"FDDB": "accuracy-fddb283", "WIDER FACE, frontal": "accuracy-wider_dev"}
    results = {label: _runner.read_result(name, folder) for label, name in sets.items()}
    shown = {
        "frontalface, suppressed": "ours",
        "frontalface + profileface + profileface mirrored, suppressed": "ours, with profiles",
        "frontalface_default": "OpenCV's default cascade",
        "YuNet": "YuNet",
    }
    rows = []
    for name, label in shown.items():
        ones = [next(f for f in r["figures"]["detectors"] if f["name"] == name) for r in results.values()]
        precision = [f"{100 * one['average_precision']:.1f}" for one in ones]
        found = [f"{100 * one['recall_at']['10']:.1f} %" for one in ones]
        rows.append([label, *(cell for pair in zip(precision, found, strict=True) for cell in pair)])
    header = [cell for label in sets for cell in (f"AP, {label}", "found")]
    counts = "; ".join(
        f"{label}: {r['data']['pictures']} images, {r['data']['faces']} faces" for label, r in results.items()
    )
    note = f"AP: average precision, %. Found: share of the faces found with ten false positives in the set. {counts}."
    return f"{_runner.table(['detector', *header], rows)}\n\n<sub>{note}</sub>\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__.split("\n\n")[0])
    parser.add_argument("dataset", metavar="DATASET", help="labelled images; see vj-evaluate")
    parser.add_argument("cascades", nargs="*", help="files or names; cv2:NAME for cv2's own")
    parser.add_argument("--yunet", metavar="MODEL.onnx", help="also measure this model")
    parser.add_argument("--name", help="of the result file (default: the dataset's)")
    parser.add_argument("--format", choices=list(FORMATS))
    parser.add_argument("--frontal", action="store_true", help="ask for WIDER FACE's frontal part alone")
    parser.add_argument("--no-align", action="store_true", help="take boxes as they are")
    parser.add_argument("--scale-factor", type=float, default=1.1)
    parser.add_argument("--min-neighbors", type=int, default=1)
    parser.add_argument("--stride", type=int, choices=(1, 2))
    parser.add_argument("--suppression", type=float)
    parser.add_argument("--threads", type=int, default=1, help="for the times; default 1, as cv2 is set to")
    parser.add_argument("--output", metavar="DIR", default=str(_runner.RESULTS), help="where JSON and plot go")
    return _runner.run("accuracy", _run, parser.parse_intermixed_args(argv))


def _run(args: argparse.Namespace) -> int:
    import cv2

    from vj.plotting import plot_curves

    cv2.setNumThreads(args.threads)
    labelled = read_labelled(args.dataset, args.format)
    rules = Rules(FRONTAL if args.frontal else Wanted(), align=not args.no_align)
    settings = {k: getattr(args, k) for k in ("scale_factor", "min_neighbors", "stride", "suppression", "threads")}
    given = [
        *(args.cascades or [*_runner.available(CASCADES), *PROPOSING]),
        *([f"yunet:{args.yunet}"] if args.yunet else []),
    ]
    proposing = [one for one in given if one.startswith("proposals:")]
    if proposing and args.yunet:
        proposing.append(f"yunet:{args.yunet}")
    proposed = proposals(proposing, labelled, rules, args.threads)
    given = [one for one in given if not one.startswith("proposals:")]
    results, rows = [], []
    for one in given:
        result, figures = measure(one, labelled, rules, settings)
        results.append(result)
        rows.append(figures)
        print(f"{result.name}: average precision {100 * result.curve.average_precision:.1f}", flush=True)
    name = args.name or Path(args.dataset).stem
    data = {
        "name": name,
        "pictures": len(results[0].truth),
        "faces": results[0].curve.n_wanted,
        "ignored": sum(int(t.ignored.sum()) for t in results[0].truth),
        "sha256": _runner.data_hash([p.path for p in labelled if p.path.is_file()]),
    }
    folder = Path(args.output)
    figures = {"frontal": args.frontal, "aligned": not args.no_align, "settings": settings, "detectors": rows}
    if proposed:
        figures["proposals"] = proposed
    path = _runner.write_result(f"accuracy-{name}", figures, data=data, folder=folder)
    plot = folder / f"accuracy-{name}.png"
    plot_curves(plot, {result.name: result.curve for result in results})
    shown = [report.text_table(results), table(figures)]
    print("\n" + "\n\n".join([*shown, f"Written: {path} and {plot}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
