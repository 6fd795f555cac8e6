"""Detectors as tiers: calibration, escalation from half to full size, a heavy detector on regions of a light one.

    python -m benchmarks.tiers_vision FDDB WIDER --yunet MODEL.onnx [--dlib MODEL.dat --answers FILE]

FDDB and WIDER are labelled images (of the second the frontal part is asked for). dlib has to be importable: see
data/README.md. Its answers, 0.9 s an image on one core, are kept in the file `--answers` with the processor time they
took, so that a second run does not ask again. Whatever is fitted is fitted on half of the images and measured on the
others; figures are means over ten halves. Costs are processor time of one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _runner
from benchmarks._tiers_vision_tables import table
from vj.cascade.calibration import ScoreCalibration
from vj.cascade.opencv_xml import load
from vj.datasets.formats import read_labelled
from vj.datasets.labelled import FRONTAL, LabelledImage, Wanted
from vj.detector import Detections, Detector
from vj.evaluation.curves import curve
from vj.evaluation.matching import NEITHER, TRUE, Found, Matches, Truth, fit_alignment, match
from vj.evaluation.measure import Rules, cascade_detector, evaluate, run_detector
from vj.images import read_bgr
from vj.tiers.calibration import expected_calibration_error, isotonic
from vj.tiers.detectors import Dlib, Escalating, Framing, YuNet, uncertainty
from vj.tiers.regions import Examined, Fusion, Regions, fit_fusion
from vj.tiers.score_calibration import fit_scores, held_out, judged

SPLITS = 5
LOSS = 0.005
"""Average precision that an escalation may lose against the heavy tier alone."""
BAND = (0.02, 0.98)
SMALLER = Framing(1.0, 88)
"""Regions for dlib that cost less than its own framing. Both were chosen on every third image of WIDER, not on FDDB."""


class Measured:
    """A detector's answers to all images of a set, matched, and the processor seconds of each."""

    def __init__(self, found: Sequence[Detections], seconds: Sequence[float], truth: Sequence[Truth]) -> None:
        self.detections, self.seconds = list(found), np.array(seconds)
        plain = [Found(one.boxes.astype(np.float64), one.scores) for one in found]
        place = fit_alignment(plain, truth)
        self.scores = [one.scores for one in plain]
        self.matches = [match(Found(place.apply(f.boxes), f.scores), t) for f, t in zip(plain, truth, strict=True)]


def run(detector: Any, images: list[Any], truth: list[Truth], repeats: int = 3) -> Measured:
    """Ask a detector about all images; the least time of some tries counts, since others disturb it."""
    found, seconds = [], []
    for image in images:
        times = []
        for _ in range(repeats):
            start = time.thread_time()
            answer = detector.detect(image)
            times.append(time.thread_time() - start)
        found.append(answer)
        seconds.append(min(times))
    return Measured(found, seconds, truth)


def precision(scores: Sequence[Any], matches: Sequence[Matches], truth: Sequence[Truth], use: Any) -> float:
    """Average precision over the images `use`."""
    wanted = sum(truth[k].n_wanted for k in use)
    return curve([scores[k] for k in use], [matches[k] for k in use], wanted).average_precision


def halves(n: int) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    out = []
    for _ in range(SPLITS):
        order = rng.permutation(n)
        out += [(order[: n // 2], order[n // 2 :]), (order[n // 2 :], order[: n // 2])]
    return out


def calibrated(measured: Measured, use: Any) -> ScoreCalibration:
    """Isotonic calibration of a detector on some images."""
    scores = np.concatenate([measured.scores[k] for k in use])
    outcome = np.concatenate([measured.matches[k].outcome for k in use])
    keep = outcome != NEITHER
    fitted = isotonic(scores[keep], (outcome[keep] == TRUE).astype(np.float64))
    return ScoreCalibration(np.array(fitted.scores), np.array(fitted.probabilities), int(keep.sum()))


# Calibration.


def calibration(fddb: list[LabelledImage], wider: list[LabelledImage]) -> dict[str, Any]:
    """Calibration error of the packaged cascade: half to half, and from one set to the other."""
    cascade = load("frontalface")
    settings = {
        "every box": {"min_neighbors": 0, "suppression": 0.3},
        "three neighbours": {"min_neighbors": 3},
    }
    out: dict[str, Any] = {}
    fitted = None
    for name, own in settings.items():
        detect = cascade_detector(cascade, min_size=cascade.window, threads=1, **own)
        first = evaluate(name, list(run_detector(detect, fddb)), Rules(align=True))
        second = evaluate(name, list(run_detector(detect, wider)), Rules(FRONTAL, align=True))
        quality = held_out(first)
        fitted = fitted or fit_scores(first)
        other = judged(second)
        stated = fitted(other.scores)
        rng = np.random.default_rng(0)
        out[name] = {
            "half_to_half": quality.error,
            "half_to_half_perfect": quality.perfect,
            "to_wider": expected_calibration_error(stated, other.true),
            "to_wider_perfect": statistics.mean(
                expected_calibration_error(stated, rng.random(len(stated)) < stated) for _ in range(20)
            ),
            "detections": {"fddb": quality.true + quality.false, "wider": len(other.true)},
        }
    assert cascade.calibration is not None and fitted is not None
    out["packaged_is_this_fit"] = cascade.calibration.detections == fitted.detections
    return out


# Escalation between sizes.


def escalation(model: str, images: list[Any], truth: list[Truth]) -> dict[str, Any]:
    """YuNet at half size, and at full size where `uncertainty` is above a threshold."""
    tiers = {scale: run(YuNet(model, scale=scale), images, truth) for scale in (1.0, 0.75, 0.5, 0.25)}
    full, half = tiers[1.0], tiers[0.5]
    whole = full.seconds.sum()
    everything = range(len(images))
    single = {
        f"{scale:g}": {
            "ap": precision(one.scores, one.matches, truth, everything),
            "cost": float(one.seconds.sum() / whole),
        }
        for scale, one in tiers.items()
    }
    rows: dict[str, list[dict[str, float]]] = {"tuned": [], "least": [], "random": []}
    for fit, test in halves(len(images)):
        table = calibrated(half, fit)
        doubt = np.array([uncertainty(_with(d, table)) for d in half.detections])
        tuned = _least(doubt, half, full, truth, fit)
        rows["tuned"].append(_mixed(doubt > tuned, half, full, truth, test))
        rows["least"].append(_mixed(doubt > _least(doubt, half, full, truth, test), half, full, truth, test))
        drawn = np.random.default_rng(1).random(len(images))
        rows["random"].append(_mixed(drawn > _least(drawn, half, full, truth, test), half, full, truth, test))
    rows["curve"] = [_on_curve(half, full, truth, fit, test) for fit, test in halves(len(images))[::2]]
    means = {name: {key: statistics.mean(r[key] for r in got) for key in got[0]} for name, got in rows.items()}
    return {"single": single, "milliseconds": 1000 * whole / len(images), **means}


def _on_curve(half: Measured, full: Measured, truth: list[Truth], first: Any, second: Any) -> dict[str, float]:
    """Least cost that loses no more than `LOSS` on all images, each with probabilities fitted on the other half."""
    doubt = np.zeros(len(truth))
    for fit, test in ((first, second), (second, first)):
        table = calibrated(half, fit)
        doubt[test] = [uncertainty(_with(half.detections[k], table)) for k in test]
    every = np.arange(len(truth))
    points = [_mixed(doubt > limit, half, full, truth, every) for limit in np.unique(np.concatenate([[-1.0], doubt]))]
    return min((one for one in points if one["loss"] <= LOSS), key=lambda one: one["cost"])


def _with(found: Detections, table: ScoreCalibration) -> Detections:
    return Detections(found.boxes, found.scores, found.neighbors, table(found.scores))


def _mixed(ask: Any, light: Measured, heavy: Measured, truth: list[Truth], use: Any) -> dict[str, float]:
    """Average precision, cost in that of the heavy tier, and share asked, if the images `ask` go to the heavy one."""
    scores = [heavy.scores[k] if ask[k] else light.scores[k] for k in range(len(ask))]
    matches = [heavy.matches[k] if ask[k] else light.matches[k] for k in range(len(ask))]
    spent = light.seconds[use].sum() + heavy.seconds[use][ask[use]].sum()
    best = precision(heavy.scores, heavy.matches, truth, use)
    return {
        "ap": precision(scores, matches, truth, use),
        "loss": best - precision(scores, matches, truth, use),
        "cost": float(spent / heavy.seconds[use].sum()),
        "asked": float(ask[use].mean()),
    }


def _least(doubt: Any, light: Measured, heavy: Measured, truth: list[Truth], use: Any) -> float:
    """Highest threshold at which no more than `LOSS` is lost on the images `use`, and at no lower one either."""
    limit = -1.0
    for threshold in np.unique(np.concatenate([[-1.0], doubt[use]])):
        if _mixed(doubt > threshold, light, heavy, truth, use)["loss"] > LOSS:
            break
        limit = float(threshold)
    return limit


# Regions.


class Kept:
    """A detector whose answers are kept in a file, with the processor seconds each took."""

    def __init__(self, detector: Any, path: Path) -> None:
        self.detector, self.path, self.seconds = detector, path, 0.0
        self.known: dict[str, Any] = {}
        for line in path.read_text().splitlines() if path.is_file() else []:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off when a run was killed
            self.known[row["key"]] = row

    def detect(self, image: Any) -> Detections:
        """Repeat what was answered before, or ask."""
        key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()[:24]
        if key not in self.known:
            start = time.thread_time()
            found = self.detector.detect(image)
            seconds = round(time.thread_time() - start, 6)
            row = {"key": key, "boxes": found.boxes.tolist(), "scores": found.scores.tolist(), "seconds": seconds}
            self.known[key] = row
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        row = self.known[key]
        self.seconds += row["seconds"]
        boxes = np.array(row["boxes"], dtype=np.int32).reshape(-1, 4)
        return Detections(boxes, np.array(row["scores"], dtype=np.float64), np.ones(len(boxes)))


def regions(model: str, answers: Path, yunet: str, images: list[Any], truth: list[Truth]) -> dict[str, Any]:
    """Ours proposes, dlib's CNN looks at regions; next to either of them alone and to YuNet."""
    heavy = Kept(Dlib(model), answers)
    everything = range(len(images))
    whole, seconds = [], []
    for image in _shown(images, "dlib, whole images"):
        before = heavy.seconds
        whole.append(heavy.detect(image))
        seconds.append(heavy.seconds - before)
    alone = Measured(whole, seconds, truth)
    total = float(alone.seconds.sum())

    def row(one: Measured) -> dict[str, float]:
        return {"ap": precision(one.scores, one.matches, truth, everything), "cost": float(one.seconds.sum() / total)}

    out: dict[str, Any] = {"dlib": row(alone), "milliseconds": 1000 * total / len(images)}
    for scale in (1.0, 0.5):
        out[f"yunet {scale:g}"] = row(run(YuNet(yunet, scale=scale), images, truth))
    for stages in (15, 14):
        own = {"min_size": 20, "min_neighbors": 0, "suppression": 0.3, "threads": 1}
        light = Detector(load("frontalface").truncated(stages), **own)
        measured = run(light, images, truth)
        out[f"ours, {stages} stages"] = row(measured)
    out["regions"] = {
        "verified": _verified(light, heavy, measured, images, truth, total),
        "all fused": _fused(heavy, measured, images, truth, total, Dlib.framing),
        "all fused, smaller": _fused(heavy, measured, images, truth, total, SMALLER),
        "doubtful fused": _fused(heavy, measured, images, truth, total, SMALLER, BAND),
    }
    return out


def _verified(
    light: Detector, heavy: Kept, measured: Measured, images: list[Any], truth: list[Truth], total: float
) -> dict[str, float]:
    """Let the heavy detector decide about every proposal."""
    before = heavy.seconds
    regions = Regions(_Answered(images, measured.detections), heavy, framing=Dlib.framing)
    found = [regions.examine(image) for image in _shown(images, "dlib, regions")]
    one = Measured([e.detections for e in found], np.zeros(len(images)), truth)
    cost = (heavy.seconds - before + measured.seconds.sum()) / total
    return {
        "ap": precision(one.scores, one.matches, truth, range(len(images))),
        "cost": float(cost),
        "chips": statistics.mean(e.chips for e in found),
    }


class _Answered:
    """A detector that repeats what it found in these images, with or without probabilities."""

    def __init__(self, images: list[Any], found: Sequence[Detections]) -> None:
        self.by_id = {id(image): one for image, one in zip(images, found, strict=True)}

    def detect(self, image: Any) -> Detections:
        return self.by_id[id(image)]


def _fused(
    heavy: Kept,
    measured: Measured,
    images: list[Any],
    truth: list[Truth],
    total: float,
    framing: Framing,
    band: tuple[float, float] = (0.0, 1.0),
) -> dict[str, float]:
    """Both answers fused; calibration and fusion fitted on one half, measured on the other."""
    rows = []
    for fit, test in halves(len(images)):
        table = calibrated(measured, fit)
        proposals = _Answered(images, [_with(d, table) for d in measured.detections])

        def examine(use: Any, fusion: Fusion | None, proposals: Any = proposals) -> list[Examined]:
            both = Regions(proposals, heavy, framing=framing, band=band, fusion=fusion)
            return [both.examine(images[k]) for k in use]

        fusion = fit_fusion(examine(fit, None), [truth[k] for k in fit])
        before = heavy.seconds
        found = examine(test, fusion)
        spent = heavy.seconds - before + measured.seconds[test].sum()
        own = [truth[k] for k in test]
        one = Measured([e.detections for e in found], np.zeros(len(test)), own)
        light = precision(measured.scores, measured.matches, truth, test)
        ap = precision(one.scores, one.matches, own, range(len(test)))
        # Relative to the heavy tier on the same images, which a mean over both halves of a split makes the whole set.
        rows.append((ap, spent / total * len(images) / len(test), statistics.mean(e.chips for e in found), light))
    ap, cost, chips, light = (float(v) for v in np.mean(rows, axis=0))
    return {"ap": ap, "cost": cost, "chips": chips, "light_ap": light}


def _shown(items: list[Any], what: str) -> Any:
    from tqdm import tqdm

    return tqdm(items, what, leave=False, disable=not sys.stderr.isatty())


# The layer itself.


def overhead() -> dict[str, float]:
    """Microseconds of processor time that the layer adds to detectors which take no time, for each image."""
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    boxes = np.array([[100, 100, 50, 50], [300, 200, 60, 60], [500, 300, 40, 40]])
    found = Detections(boxes, np.array([0.9, 0.5, 0.4]), np.ones(3), np.array([0.9, 0.5, 0.4]))
    fixed = _Answered([image], [found])

    class Same:
        def __init__(self, answer: Detections) -> None:
            self.answer = answer

        def detect(self, image: Any) -> Detections:
            return self.answer

    def micros(call: Any) -> float:
        times = []
        for _ in range(9):
            start = time.thread_time()
            for _ in range(300):
                call()
            times.append((time.thread_time() - start) / 300)
        return 1e6 * statistics.median(times)

    kept, asked = Escalating(fixed, fixed, 9.0), Escalating(fixed, fixed, 0.0)
    one = Detections(np.array([[6, 6, 50, 50]]), np.array([0.9]), np.ones(1), np.array([0.9]))
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    both, neither = (Regions(fixed, Same(answer), framing=Framing(1.25)) for answer in (one, nothing))
    bare = micros(lambda: fixed.detect(image))
    return {
        "escalating, kept": micros(lambda: kept.detect(image)) - bare,
        "escalating, asked": micros(lambda: asked.detect(image)) - 2 * bare,
        "regions, three of them, nothing found": micros(lambda: neither.detect(image)) - bare,
        "regions, three of them, an object in each": micros(lambda: both.detect(image)) - bare,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiers_vision", description=__doc__.split("\n\n")[0])
    parser.add_argument("fddb", metavar="FDDB", help="labelled images: folder with annotations.json")
    parser.add_argument("wider", metavar="WIDER", help="the same, of WIDER FACE")
    parser.add_argument("--yunet", required=True, metavar="MODEL.onnx")
    parser.add_argument("--dlib", metavar="MODEL.dat", help="dlib's CNN; without it regions are left out")
    parser.add_argument("--answers", metavar="FILE", default="dlib-answers.jsonl", help="where dlib's answers are kept")
    parser.add_argument("--output", metavar="DIR", default=str(_runner.RESULTS))
    args = parser.parse_args(argv)
    return _runner.run("tiers_vision", _run, args)


def _run(args: argparse.Namespace) -> int:
    import cv2

    cv2.setNumThreads(1)
    sets = {"fddb283": (args.fddb, Wanted()), "wider_dev": (args.wider, FRONTAL)}
    labelled = {name: read_labelled(path) for name, (path, _) in sets.items()}
    figures: dict[str, Any] = {"calibration": calibration(*labelled.values()), "escalation": {}}
    for name, (_, wanted) in sets.items():
        images = [read_bgr(p.path) for p in labelled[name]]
        truth = [Truth(p.boxes, wanted.ignored(p)) for p in labelled[name]]
        figures["escalation"][name] = escalation(args.yunet, images, truth)
        print(f"{name}: escalation measured", flush=True)
        if name == "fddb283" and args.dlib:
            figures["regions"] = regions(args.dlib, Path(args.answers), args.yunet, images, truth)
            print("regions measured", flush=True)
    figures["overhead"] = overhead()
    paths = [p.path for one in labelled.values() for p in one]
    data = {"name": "fddb283 and wider_dev", "pictures": len(paths), "sha256": _runner.data_hash(paths)}
    path = _runner.write_result("tiers_vision", figures, data=data, folder=Path(args.output))
    print(f"\n{table(figures)}\n\nWritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
