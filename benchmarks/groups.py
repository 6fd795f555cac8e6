"""Recall by age and skin group on UTKFace crops: a detector must not work better for some people than for others.

    python -m benchmarks.groups FOLDER [--files LIST] [CASCADE ...]

FOLDER has boxes.csv (file, x, y, w, h) and crops named as UTKFace names them: age_gender_race_date. Only measure on
crops that no cascade was trained on: --files takes a list of the names to use, one on each line, such as the
held_out.txt that vj-train leaves. The figures compare groups, not detectors: a crop is in UTKFace because some detector
found its face, and its repeated edge is no photo.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks import _runner
from vj.cascade.opencv_xml import load
from vj.datasets.formats import read_labelled
from vj.errors import InputError
from vj.evaluation.matching import TRUE, Found, Truth, fit_alignment, match
from vj.evaluation.measure import cascade_detector, measurable
from vj.images import read_bgr
from vj.tiers import YuNet

CASCADES = ("frontalface", "frontalface_default", "frontalface_alt2")
AGES = ((0, 3), (4, 12), (13, 19), (20, 39), (40, 59), (60, 79), (80, 120))
# UTKFace's codes, in its own words.
RACES = {"0": "White", "1": "Black", "2": "Asian", "3": "Indian", "4": "other"}
GENDERS = {"0": "male", "1": "female"}
BORDER = 36
"""Pixels of repeated edge around a crop, half of its usual 72: the crops are tighter than a detector's box."""


def groups_of(name: str) -> list[str]:
    """Return the groups that a file's name puts a face into; none if it is not named so."""
    parts = name.split("_")
    if len(parts) < 4 or not parts[0].isdecimal():
        return []
    age = next((f"age {a}-{b}" for a, b in AGES if a <= int(parts[0]) <= b), "")
    return [group for group in (age, RACES.get(parts[2], ""), GENDERS.get(parts[1], "")) if group]


def wilson(found: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927), which also holds near 0 and 1."""
    if n == 0:
        return 0.0, 1.0
    limits = binomtest(found, n).proportion_ci(method="wilson")
    return float(limits.low), float(limits.high)


def find_all(detect: Any, labelled: list[Any]) -> tuple[list[bool], int]:
    """Which faces are found, and how many detections hit none, after one shift and scale for the detector."""
    import cv2

    found, truth = [], []
    for one in labelled:
        image = read_bgr(one.path)
        found.append(detect(cv2.copyMakeBorder(image, *[BORDER] * 4, cv2.BORDER_REPLICATE)))
        truth.append(Truth(one.boxes[:1] + np.array([BORDER, BORDER, 0, 0]), np.zeros(1, dtype=np.bool_)))
    alignment = fit_alignment(found, truth)
    matches = [match(Found(alignment.apply(f.boxes), f.scores), t) for f, t in zip(found, truth, strict=True)]
    hit = [bool((m.outcome == TRUE).any()) for m in matches]
    return hit, sum(int((m.outcome != TRUE).sum()) for m in matches)


def by_group(names: list[str], hit: list[bool]) -> dict[str, dict[str, Any]]:
    """Faces, faces found and the interval of their share, for all and for each group."""
    members: dict[str, list[bool]] = {"all": list(hit)}
    for name, one in zip(names, hit, strict=True):
        for group in groups_of(name):
            members.setdefault(group, []).append(one)
    order = ["all", *(f"age {a}-{b}" for a, b in AGES), *RACES.values(), *GENDERS.values()]
    return {
        group: {
            "faces": len(members[group]),
            "found": sum(members[group]),
            "interval": wilson(sum(members[group]), len(members[group])),
        }
        for group in order
        if group in members
    }


def table(figures: dict[str, Any]) -> str:
    """Markdown table of a result file: a line for each group, a column for each detector."""
    detectors = figures["detectors"]
    rows = []
    for group, first in next(iter(detectors.values()))["groups"].items():
        cells = []
        for one in detectors.values():
            share = one["groups"][group]
            low, high = share["interval"]
            cells.append(f"{100 * share['found'] / share['faces']:.1f} ({100 * low:.1f}-{100 * high:.1f})")
        rows.append([group, first["faces"], *cells])
    return _runner.table(["faces found, % (95 %)", "faces", *detectors], rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.groups", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="crops with boxes.csv")
    parser.add_argument("cascades", nargs="*", help="files or names")
    parser.add_argument("--files", type=Path, metavar="LIST", help="names of the crops to use, one on each line")
    parser.add_argument("--yunet", metavar="MODEL.onnx", help="also measure this model")
    parser.add_argument("--min-neighbors", type=int, default=3, help="default 3, that of vj-detect")
    parser.add_argument("--output", type=Path, default=_runner.RESULTS, metavar="DIR", help="where the JSON goes")
    return _runner.run("groups", _run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> int:
    labelled = [p for p in read_labelled(args.folder / "boxes.csv") if groups_of(p.path.name) and len(p.boxes)]
    if args.files:
        wanted = {Path(line).name for line in args.files.read_text(encoding="utf-8").splitlines()}
        labelled = [p for p in labelled if p.path.name in wanted]
    if not labelled:
        raise InputError(f"{args.folder}: expected crops named age_gender_race_date, got none")
    detectors = {}
    for given in args.cascades or _runner.available(CASCADES):
        cascade = load(given)
        detect = cascade_detector(cascade, min_neighbors=args.min_neighbors, min_size=cascade.window, threads=1)
        detectors[cascade.name.removeprefix("haarcascade_")] = detect
    if args.yunet:
        detectors["YuNet"] = measurable(YuNet(args.yunet, score_threshold=0.6))
    results = {}
    for name, detect in detectors.items():
        hit, false = find_all(detect, labelled)
        results[name] = {"groups": by_group([p.path.name for p in labelled], hit), "other_detections": false}
        print(f"{name}: {sum(hit)} of {len(hit)} found", flush=True)
    paths = [p.path for p in labelled]
    data = {"name": args.folder.name, "pictures": len(paths), "sha256": _runner.data_hash(paths)}
    figures = {"min_neighbors": args.min_neighbors, "border": BORDER, "detectors": results}
    path = _runner.write_result("groups", figures, data=data, folder=args.output)
    print(f"\n{table(figures)}\n\nWritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
