"""FDDB: ``FDDB-fold-NN-ellipseList.txt``; boxes are those around the ellipses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from vj._types import Floats
from vj.datasets.labelled import LabelledImage
from vj.datasets.reading import array, existing, inside, located, root
from vj.datasets.wider import read_blocks


def read(source: Path, images: Path | None = None) -> list[LabelledImage]:
    """Read a list of ellipses; names of images come without their ending, which is ``.jpg``."""
    blocks = [(name if Path(name).suffix else f"{name}.jpg", rows) for name, rows in read_blocks(source, 5)]
    folder = root(source.parent, images, [name for name, _ in blocks])
    found = []
    for name, rows in blocks:
        ellipses = array(rows, 5)
        with located(source, name[:60]):
            path = existing(inside(folder, name))
            found.append(LabelledImage(path, ellipse_boxes(ellipses), ellipses=ellipses))
    return found


def ellipse_boxes(ellipses: npt.ArrayLike) -> Floats:
    """Return the boxes (n, 4) around ellipses (n, 5): major and minor radius, angle in radians, centre x, centre y."""
    major, minor, angle, x, y = np.asarray(ellipses, dtype=np.float64).reshape(-1, 5).T
    half_w = np.hypot(major * np.cos(angle), minor * np.sin(angle))
    half_h = np.hypot(major * np.sin(angle), minor * np.cos(angle))
    return np.stack([x - half_w, y - half_h, 2 * half_w, 2 * half_h], axis=1)
