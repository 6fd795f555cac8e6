"""Equality with OpenCV's detector, for every cascade this machine has: `python -m benchmarks.parity`.

Raw hits, groups, counts and weights, in OpenCV's single-thread order, over photos of scikit-image and made-up images
(colour and grey, tiny, odd sizes, flat, one pixel, wider than 4,000) with several settings each. Both read the file
itself; then cv2 reads what we write of it. Prints a table, writes `results/parity.json` and exits with 1 on any
difference. Needs opencv-python 4.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import vj
from benchmarks import _runner
from vj.cascade import stock
from vj.cascade.opencv_xml import load, save
from vj.errors import InputError

SETTINGS: list[tuple[float, int, tuple[int, int], tuple[int, int]]] = [
    (1.1, 0, (0, 0), (0, 0)),
    (1.05, 3, (30, 30), (90, 0)),
    (1.3, 1, (0, 40), (100, 80)),
    (2.0, 6, (0, 0), (0, 0)),
    (1.2, 2, (30, 50), (0, 90)),
    (1.4, 4, (0, 0), (200, 200)),
    (1.6, 5, (24, 24), (0, 0)),
    (1.2, 0, (500, 500), (40, 40)),
    (1.1, 1, (80, 20), (60, 300)),
]
"""Scale factor, min_neighbors, smallest and largest object; the last two's sizes contradict each other."""


def photos() -> dict[str, Any]:
    """Return the images by name."""
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
    for folder in stock.folders():
        for path in sorted(folder.glob("*.xml")) if folder.is_dir() else []:
            found.setdefault(path.name, path)
    return list(found.values())


def differs(ours: vj.CascadeClassifier, theirs: Any, image: Any, setting: tuple[Any, ...]) -> tuple[bool, int]:
    """Return whether anything differs, and how many boxes OpenCV reports."""
    factor, neighbors, least, most = setting
    with_counts, with_sums = (
        [c.detectMultiScale2(image, factor, neighbors, 0, least, most) for c in (ours, theirs)],
        [c.detectMultiScale3(image, factor, neighbors, 0, least, most, True) for c in (ours, theirs)],
    )
    pairs = [*zip(*with_counts, strict=True), *zip(*with_sums, strict=True)]
    same = all(np.asarray(a).dtype == np.asarray(b).dtype and np.array_equal(a, b) for a, b in pairs)
    return not same, len(with_sums[1][0])


def compare(path: Path, shown: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Compare one cascade on all images; `folder` is for scratch files."""
    cascade = load(path)
    readable, written, short = (folder / f"{name}-{path.name}" for name in ("readable", "written", "short"))
    # scikit-image's file misspells a tag for which OpenCV refuses it.
    readable.write_bytes(path.read_bytes().replace(b"featuhreParams", b"featureParams"))
    save(cascade, written)
    # Few windows pass a whole cascade; its first stages pass many.
    save(cascade.truncated(min(4, cascade.n_stages)), short)
    small = [image for image in shown.values() if image.size < 300_000]
    row: dict[str, Any] = {"cascade": path.stem, "kind": cascade.kind, "runs": 0, "boxes": 0}
    row["reads back"] = load(written) == cascade
    for name, ours, theirs, images, settings in (
        ("different", path, readable, shown.values(), SETTINGS),
        ("written", path, written, shown.values(), SETTINGS[:2]),
        ("short", short, short, shown.values(), [(1.1, 0, (0, 0), (0, 0))]),
        # OpenCV's grouping takes time that grows with the square of the hits.
        ("short groups", short, short, small, [(1.3, 2, (0, 0), (0, 0)), (1.5, 1, (0, 0), (0, 0))]),
    ):
        pair = vj.CascadeClassifier(ours), cv2.CascadeClassifier(str(theirs))
        found = [differs(*pair, image, setting) for image in images for setting in settings]
        row["runs"] += len(found)
        row["boxes"] += sum(boxes for _, boxes in found)
        row[name] = sum(bad for bad, _ in found)
    return row


def run(paths: list[Path]) -> list[dict[str, Any]]:
    """Compare every cascade; one row of figures for each."""
    cv2.setNumThreads(1)
    rows = []
    shown = photos()
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            row = compare(path, shown, Path(folder))
            rows.append(row)
            print(f"{path.stem}: {different(row)} of {row['runs']} differ", file=sys.stderr)
    return rows


def different(row: dict[str, Any]) -> int:
    """Return how many runs of a cascade differ; at least one if what we write is not read back as it was."""
    return sum(row[name] for name in ("different", "written", "short", "short groups")) + (not row["reads back"])


def table(figures: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    rows = [[r["cascade"], r["kind"], r["runs"], f"{r['boxes']:,}", different(r)] for r in figures["cascades"]]
    return _runner.table(["cascade", "kind", "runs", "boxes", "runs that differ"], rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__.split("\n\n")[0])
    parser.add_argument("--cascade", action="append", metavar="NAME", help="file or known name; may be given again")
    parser.add_argument("--output", type=Path, default=_runner.RESULTS, help="folder for the result file")
    args = parser.parse_args(argv)
    if not hasattr(cv2, "CascadeClassifier"):
        print("needs the CascadeClassifier of opencv-python 4", file=sys.stderr)
        return 2
    try:
        paths = [p if (p := Path(c)).is_file() else stock.find(c) for c in args.cascade] if args.cascade else cascades()
    except InputError as error:
        print(f"benchmarks.parity: {error}", file=sys.stderr)
        return 2
    figures = {"settings": SETTINGS, "cascades": run(paths)}
    shown = photos()
    data = {"name": "scikit-image's photos", "pictures": len(shown), "sha256": _runner.array_hash(shown.values())}
    print(table(figures))
    print(_runner.write_result("parity", figures, data=data, folder=Path(args.output)))
    return int(any(different(row) for row in figures["cascades"]))


if __name__ == "__main__":
    sys.exit(main())
