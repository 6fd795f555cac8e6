"""MIT+CMU: a line for each face with its image and six landmarks; the box is the square made from four of them.

``filename left-eye right-eye nose left-corner-mouth center-mouth right-corner-mouth``, x and y of each; lines that
begin with ``#`` are comments, and the lists as published begin with one. The images are ``.gif`` files there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vj.datasets.crops import region_of_landmarks
from vj.datasets.labelled import LabelledImage
from vj.datasets.reading import existing, inside, located, number, numbers, read_lines, root

_USED = (0, 1, 3, 5)
"""Eyes and corners of the mouth among the six."""


def read(source: Path, images: Path | None = None) -> list[LabelledImage]:
    """Read a list of landmarks."""
    faces: dict[str, list[list[list[float]]]] = {}
    for k, line in read_lines(source):
        name, *values = line.split()
        with located(source, f"line {k}"):
            points = np.array(numbers([number(v) for v in values], 12, "six landmarks")).reshape(6, 2)
        faces.setdefault(name, []).append(points[[*_USED]].tolist())
    folder = root(source.parent, images, list(faces))
    found = []
    for name, rows in faces.items():
        landmarks = np.array(rows, dtype=np.float64)
        boxes = np.array([region_of_landmarks(points, (1, 1)).box for points in landmarks])
        with located(source, name[:60]):
            found.append(LabelledImage(existing(inside(folder, name)), boxes, landmarks=landmarks))
    return found
