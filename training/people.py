"""Backgrounds that show people: sheets of labelled face crops, in which every face has a box.

    python training/people.py DATA YUNET.onnx

Backgrounds without faces have no clothes, hands, hair and ears either, and no parts of faces: most false positives in
photos of people lie on those. DATA is the folder that frontalface.toml calls {data}. Its crops show other faces than
the labelled one, too, so a neural detector adds boxes for these. The sheets go to DATA/people, with boxes.csv.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vj.datasets.crops import region_of_landmarks

SOURCES = {
    "wider_train6": 1600,
    "genki": 1200,
    "lfpw": 600,
    "helen": 600,
    "wider": 500,
    "mask853": 100,
    "lfw_grey": 400,
    "utkface": 200,
}
"""How many crops of each source are taken, at most."""

TILE, ACROSS = 256, 4
"""Side of a crop in pixels, and how many crops a sheet has in either direction: about the size of a photo, so that a
sheet yields no more negatives of the first stages than a photo does."""

CONFIDENCE = 0.3
"""Least confidence of a face that is boxed: rather a box too many than a face among the negatives."""

LANDMARKS = ("leye", "reye", "lmouth", "rmouth")


def crops(data: Path, rng: np.random.Generator) -> Iterator[tuple[Path, npt.NDArray[np.float64]]]:
    """Yield some crops of each source, with the landmarks of the labelled face."""
    for folder in ("wider_train6", "positives-more", "lfw_grey", "utkface"):
        rows: dict[str, list[dict[str, str]]] = {}
        with (data / folder / "boxes.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                rows.setdefault(row.get("source") or folder, []).append(row)
        for source, found in rows.items():
            for k in rng.permutation(len(found))[: SOURCES.get(source, 0)]:
                points = [found[k][f"{name}_{axis}"] for name in LANDMARKS for axis in "xy"]
                if all(points):
                    yield data / folder / found[k]["file"], np.array(points, dtype=np.float64).reshape(4, 2)


def tile(path: Path, landmarks: npt.NDArray[np.float64], yunet: Any) -> tuple[Any, list[tuple[float, ...]]]:
    """Return a crop, enlarged to a tile's side and filled up with its edge, and the squares of all faces in it."""
    gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    zoom = TILE / max(gray.shape)
    method = cv2.INTER_LINEAR if zoom > 1 else cv2.INTER_AREA
    gray = cv2.resize(gray, (round(zoom * gray.shape[1]), round(zoom * gray.shape[0])), interpolation=method)
    yunet.setInputSize((gray.shape[1], gray.shape[0]))
    _, faces = yunet.detect(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))
    known = [landmarks * zoom]
    if faces is not None:
        # Two eyes, the nose and both corners of the mouth follow the box.
        known += [face[4:14].astype(np.float64).reshape(5, 2)[[0, 1, 3, 4]] for face in faces]
    squares = [region_of_landmarks(points, (1, 1)).box for points in known]
    edge = (0, TILE - gray.shape[0], 0, TILE - gray.shape[1])
    return cv2.copyMakeBorder(gray, *edge, cv2.BORDER_REPLICATE), squares


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("yunet", metavar="YUNET.onnx")
    given = parser.parse_args()
    out = given.data / "people"
    (out / "images").mkdir(parents=True, exist_ok=True)
    yunet = cv2.FaceDetectorYN.create(given.yunet, "", (TILE, TILE), CONFIDENCE)
    rng = np.random.default_rng(1)
    chosen = list(crops(given.data, rng))
    order, each = rng.permutation(len(chosen)), ACROSS * ACROSS
    boxes = []
    for sheet in range(len(chosen) // each):
        name = f"images/{sheet:03d}.png"
        image = np.empty((ACROSS * TILE, ACROSS * TILE), dtype=np.uint8)
        for k in range(each):
            y, x = TILE * (k // ACROSS), TILE * (k % ACROSS)
            image[y : y + TILE, x : x + TILE], squares = tile(*chosen[order[sheet * each + k]], yunet)
            boxes += [(name, *(round(v, 1) for v in (x + left, y + top, w, h))) for left, top, w, h in squares]
        cv2.imwrite(str(out / name), image)
    with (out / "boxes.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "x", "y", "w", "h"), *boxes])
    print(f"{sheet + 1} sheets, {len(boxes)} faces in {out}")


if __name__ == "__main__":
    main()
