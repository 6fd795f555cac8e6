"""What drafting every frame and verifying every k-th brings over either detector alone, and over the k-th frames alone.

    python -m benchmarks.speculative_frames DATASET --yunet MODEL.onnx [--images N]

The shots are simulated: over each labelled photo a window of 3/4 of its size moves from corner to corner in 30 frames,
with sensor noise of its own in each, so that every frame's faces are known; a real video would need each frame
labelled. The heavy detector is YuNet at full size; drafts are YuNet at a quarter of it and the packaged cascade. *Held*
and *followed* need no draft at all: the heavy detector on every k-th frame, its boxes shown until the next, where they
were or where a patch of each is found again, as `vj.tiers.Carry` does it.

Every detector runs once over every frame; what is shown with each k is computed from its answers, in file mode, where
the heavy detector's answer is there k frames later. Cost is the processor time of a frame relative to the heavy one's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _runner
from vj.cascade.opencv_xml import load
from vj.datasets.formats import read_labelled
from vj.detector import Detections
from vj.errors import InputError
from vj.evaluation.matching import TRUE, Found, Truth, match
from vj.evaluation.measure import cascade_detector, measurable
from vj.images import read_bgr
from vj.tiers import Drafted, SpeculativeFrames, YuNet, collect

FRAMES, WINDOW, NOISE = 30, 0.75, 6.0
EVERY = (1, 2, 3, 5, 8, 15, 30)
OVERLAP = 0.3
"""Least overlap of a box with a face: detectors draw theirs unlike the labels, and where a face is matters here."""
SCORE = {"yunet": 0.6, "cascade": 1.0}

Detect = Callable[[Any], Found]


@dataclass(frozen=True)
class Shot:
    """Frames, and the faces in each."""

    frames: list[Any]
    truth: list[Truth]


def shots(labelled_images: Sequence[Any]) -> Iterator[Shot]:
    """Move a window over each image."""
    for number, one in enumerate(labelled_images):
        image = read_bgr(one.path)
        rng = np.random.default_rng(number)
        height, width = (int(WINDOW * side) for side in image.shape[:2])
        room = np.array([image.shape[1] - width, image.shape[0] - height])
        first = rng.integers(0, 2, 2)
        frames, truth = [], []
        for share in np.linspace(0, 1, FRAMES):
            x, y = np.rint(room * np.abs(first - share)).astype(int)
            frame = image[y : y + height, x : x + width] + rng.normal(0, NOISE, (height, width, 3))
            frames.append(np.clip(np.rint(frame), 0, 255).astype(np.uint8))
            boxes = one.boxes - [x, y, 0, 0]
            low, high = np.maximum(boxes[:, :2], 0), np.minimum(boxes[:, :2] + boxes[:, 2:], [width, height])
            visible = np.clip(high - low, 0, None).prod(1) / np.maximum(boxes[:, 2:].prod(1), 1)
            inside = visible > 0
            # A face that the border cuts counts neither way.
            truth.append(Truth(boxes[inside], visible[inside] < 0.8))
        yield Shot(frames, truth)


def detections(found: Found, least: float) -> Detections:
    keep = found.scores >= least
    boxes = np.rint(found.boxes[keep]).astype(np.int32)
    return Detections(boxes, found.scores[keep], np.ones(len(boxes), np.int32))


def answers(detect: Detect, least: float, all_shots: Sequence[Shot]) -> tuple[list[list[Detections]], float]:
    """Return what a detector finds in every frame, and its processor time for one in seconds."""
    out, spent, n = [], 0.0, 0
    for shot in all_shots:
        found = []
        for frame in shot.frames:
            start = time.process_time()
            found.append(detect(frame))
            spent += time.process_time() - start
            n += 1
        out.append([detections(one, least) for one in found])
    return out, spent / n


def score(shown: Sequence[Sequence[Detections]], all_shots: Sequence[Shot]) -> dict[str, float]:
    """Recall, precision and their harmonic mean over all frames of all shots."""
    true = wanted = false = 0
    for values, shot in zip(shown, all_shots, strict=True):
        for value, truth in zip(values, shot.truth, strict=True):
            outcome = match(Found(value.boxes.astype(float), value.scores), truth, OVERLAP).outcome
            true += int((outcome == TRUE).sum())
            false += int((outcome == 0).sum())
            wanted += truth.n_wanted
    recall, precision = true / max(1, wanted), true / max(1, true + false)
    return {"recall": recall, "precision": precision, "f1": 2 * true / max(1, true + false + wanted)}


def speculated(
    light: list[list[Detections]], heavy: list[list[Detections]], all_shots: Sequence[Shot], every: int
) -> tuple[Any, Any]:
    """Return what is shown at once in every frame, and what stands in the end."""
    shown, stands = [], []
    for cheap, costly, shot in zip(light, heavy, all_shots, strict=True):
        # Frames are images, which the corrections look into, so the answers go by identity.
        number = {id(frame): k for k, frame in enumerate(shot.frames)}
        draft, verify = (lambda f, n=number, c=cheap: c[n[id(f)]]), (lambda f, n=number, d=costly: d[n[id(f)]])
        events = list(SpeculativeFrames(draft, verify, every=every).run(shot.frames))
        shown.append([event.value for event in events if isinstance(event, Drafted)])
        stands.append(collect(events).values)
    return shown, stands


def measure(labelled_images: Sequence[Any], yunet: str) -> dict[str, Any]:
    all_shots = list(shots(labelled_images))
    full = measurable(YuNet(yunet, score_threshold=SCORE["yunet"]))
    detectors = {
        "YuNet": (full, SCORE["yunet"]),
        "YuNet at 1/4": (measurable(YuNet(yunet, scale=0.25, score_threshold=SCORE["yunet"])), SCORE["yunet"]),
        "frontalface": (cascade_detector(load("frontalface"), min_size=24, threads=1), SCORE["cascade"]),
    }
    found, seconds = {}, {}
    for name, (detect, least) in detectors.items():
        found[name], seconds[name] = answers(detect, least, all_shots)
        print(f"{name}: {1000 * seconds[name]:.2f} ms, {score(found[name], all_shots)}", flush=True)
    heavy = seconds["YuNet"]
    rows = []
    for name, one in found.items():
        rows.append(
            {"what": f"{name} alone", "every": 0, "cost": seconds[name] / heavy, "shown": score(one, all_shots)}
        )
    nothing = detections(Found(np.zeros((0, 4)), np.zeros(0)), 0.0)
    none = [[nothing] * FRAMES for _ in all_shots]
    for every in EVERY:
        ways = {
            "YuNet at 1/4 drafts": ("YuNet at 1/4", found["YuNet at 1/4"]),
            "frontalface drafts": ("frontalface", found["frontalface"]),
        }
        late = [
            [one[k // every * every - every] if k >= every else nothing for k in range(FRAMES)]
            for one in found["YuNet"]
        ]
        rows.append({"what": "held", "every": every, "cost": 1 / every, "shown": score(late, all_shots)})
        for label, (name, light) in {"followed": ("", none), **ways}.items():
            start = time.process_time()
            shown, stands = speculated(light, found["YuNet"], all_shots, every)
            layer = (time.process_time() - start) / (FRAMES * len(all_shots))
            cost = (seconds.get(name, 0.0) + layer) / heavy + 1 / every
            both = {"shown": score(shown, all_shots), "stands": score(stands, all_shots)}
            rows.append({"what": label, "every": every, "cost": cost, "layer_ms": 1000 * layer, **both})
            print(f"{label} {every}: {both}, layer {1000 * layer:.2f} ms", flush=True)
    return {"frames": sum(len(shot.frames) for shot in all_shots), "heavy_ms": 1000 * heavy, "rows": rows}


def table(figures: dict[str, Any]) -> str:
    """Markdown table of a result file: singles first, then by how often the heavy detector is asked."""
    lines = []
    for row in figures["rows"]:
        cells = [f"{100 * row['shown'][name]:.1f}" for name in ("recall", "precision", "f1")]
        stands = f"{100 * row['stands']['f1']:.1f}" if "stands" in row else ""
        lines.append([row["what"], row["every"] or "", f"{row['cost']:.2f}", *cells, stands])
    header = ["what is shown", "every", "cost", "recall", "precision", "F1 shown", "F1 in the end"]
    return _runner.table(header, lines)


def main(argv: list[str] | None = None) -> int:
    first = __doc__.split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speculative_frames", description=first)
    parser.add_argument("dataset", metavar="DATASET", help="labelled photos, as for vj-evaluate")
    parser.add_argument("--yunet", required=True, metavar="MODEL.onnx", help="the heavy detector")
    parser.add_argument("--images", type=int, default=80, metavar="N", help="most photos, evenly taken; default 80")
    parser.add_argument("--output", type=Path, default=_runner.RESULTS, metavar="DIR", help="where the JSON goes")
    return _runner.run("speculative_frames", _run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> int:
    import cv2

    cv2.setNumThreads(1)
    labelled = [one for one in read_labelled(args.dataset) if len(one.boxes)]
    if not labelled:
        raise InputError(f"{args.dataset}: expected labelled faces, got none")
    taken = sorted({int(k) for k in np.linspace(0, len(labelled) - 1, min(args.images, len(labelled)))})
    labelled_images = [labelled[k] for k in taken]
    figures = measure(labelled_images, args.yunet)
    paths = [one.path for one in labelled_images]
    name = f"shots over photos of {Path(args.dataset).name}"
    data = {"name": name, "pictures": len(paths), "sha256": _runner.data_hash(paths)}
    written = _runner.write_result("speculative_frames", figures, data=data, folder=args.output)
    print(f"\n{table(figures)}\n\nWritten: {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
