"""Equality with OpenCV's detector, for every cascade this machine has: `python -m benchmarks.parity`.

Raw hits, groups, counts and weights, in OpenCV's single-thread order, over photos of scikit-image and made-up pictures
(colour and grey, tiny, odd sizes, flat, one pixel, wider than 4,000) with several settings each. Prints a table, writes
`results/parity.json` and exits with 1 on any difference. Needs opencv-python 4.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import _runner
from vj import models
from vj.cascade import Cascade
from vj.detector import Detector
from vj.opencv_xml import load, save

SETTINGS: list[tuple[float, int, tuple[int, int], tuple[int, int]]] = [
    (1.1, 0, (0, 0), (0, 0)),
    (1.05, 3, (30, 30), (90, 0)),
    (1.3, 1, (0, 40), (100, 80)),
    (2.0, 6, (0, 0), (0, 0)),
    (1.2, 0, (500, 500), (40, 40)),
]
"""Scale factor, min_neighbors, smallest and largest object; the last one's sizes contradict each other."""


def pictures() -> dict[str, Any]:
    """Return the pictures by name."""
    from skimage import data

    found: dict[str, Any] = {}
    for name in ("astronaut", "camera", "chelsea", "coffee", "coins", "rocket", "text"):
        image = getattr(data, name)()
        found[name] = np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image)
    astronaut = found["astronaut"]
    found["bgra"] = np.dstack([astronaut[:200, 100:350], np.zeros((200, 250), np.uint8)])
    found["odd size"] = cv2.resize(astronaut, (331, 277), interpolation=cv2.INTER_AREA)
    found["tiny"] = astronaut[80:111, 200:233].copy()
    found["noise"] = np.random.default_rng(0).integers(0, 256, (180, 210), dtype=np.uint8)
    found["flat"] = np.full((70, 80), 77, np.uint8)
    found["one pixel"] = np.full((1, 1), 200, np.uint8)
    found["wide"] = cv2.resize(astronaut[50:170], (4100, 90), interpolation=cv2.INTER_AREA)
    return found


def cascades() -> list[Path]:
    """Return every cascade in the folders where this machine keeps them, each file name once."""
    found: dict[str, Path] = {}
    for folder in models.folders():
        for path in sorted(folder.glob("*.xml")) if folder.is_dir() else []:
            found.setdefault(path.name, path)
    return list(found.values())


def differs(cascade: Cascade, peer: Any, image: Any, setting: tuple[Any, ...]) -> tuple[bool, int]:
    """Return whether anything differs, and how many boxes OpenCV reports."""
    factor, neighbors, least, most = setting
    boxes, _, sums = peer.detectMultiScale3(image, factor, neighbors, 0, least, most, outputRejectLevels=True)
    _, counts = peer.detectMultiScale2(image, factor, neighbors, 0, least, most)
    detector = Detector(cascade, scale_factor=factor, min_neighbors=neighbors, min_size=least, max_size=most)
    ours = detector.detect(image)
    limit = float(cascade.stage_thresholds[-1] - np.float32(1e-5))
    same = (
        np.array_equal(ours.boxes, np.array(boxes).reshape(-1, 4))
        and np.array_equal(ours.neighbors, np.array(counts).reshape(-1))
        and np.array_equal(ours.scores, np.log2(ours.neighbors) + np.tanh(np.array(sums).reshape(-1) - limit))
    )
    return not same, len(boxes)


def run() -> list[dict[str, Any]]:
    """Compare every cascade; one row of figures for each."""
    cv2.setNumThreads(1)
    rows = []
    shown = pictures()
    with tempfile.TemporaryDirectory() as folder:
        for path in cascades():
            cascade = load(path)
            # Read back from what we write: OpenCV refuses scikit-image's file for its misspelt tag.
            written = Path(folder) / path.name
            save(cascade, written)
            row = {"cascade": path.stem, "kind": cascade.kind, "runs": 0, "boxes": 0, "different": 0}
            files = [written] if "opencv" in path.stem else [written, path]
            for peer in (cv2.CascadeClassifier(str(file)) for file in files):
                for image in shown.values():
                    for setting in SETTINGS:
                        bad, boxes = differs(cascade, peer, image, setting)
                        row["runs"] += 1
                        row["boxes"] += boxes
                        row["different"] += bad
            rows.append(row)
            print(f"{path.stem}: {row['different']} of {row['runs']} differ", file=sys.stderr)
    return rows


def table(figures: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    rows = [[r["cascade"], r["kind"], r["runs"], r["boxes"], r["different"]] for r in figures["cascades"]]
    return _runner.table(["cascade", "kind", "runs", "boxes", "different"], rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=_runner.RESULTS, help="folder for the result file")
    args = parser.parse_args(argv)
    if not hasattr(cv2, "CascadeClassifier"):
        print("needs the CascadeClassifier of opencv-python 4", file=sys.stderr)
        return 2
    figures = {"cascades": run()}
    shown = pictures()
    data = {"name": "scikit-image's photos", "pictures": len(shown), "sha256": _runner.array_hash(shown.values())}
    print(table(figures))
    print(_runner.write_result("parity", figures, data=data, folder=Path(args.output)))
    return int(any(row["different"] for row in figures["cascades"]))


if __name__ == "__main__":
    sys.exit(main())
