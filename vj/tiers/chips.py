"""Regions as a heavy detector sees them: cut out, rescaled, and its answers brought back into the image.

All on plain numbers: an image has a handful of regions, for which a numpy call each costs more than the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vj._types import Image
from vj.detector import Detections
from vj.tiers.detectors import Framing

Box = Sequence[int]
"""x, y, width, height."""

SAME_OBJECT = 0.3
"""Overlap from which two boxes of different detectors are taken for the same object."""
MERGED_SIZES = 1.5
"""Objects in one region differ in size by at most this factor: one rescaling has to suit all of them."""


class Chip(NamedTuple):
    """A region as the heavy detector sees it: a part of the image, rescaled.

    Parameters
    ----------
    x, y, width, height : int
        In the image.
    zoom : float
    proposals : tuple of int
        The proposals in it, by index.
    """

    x: int
    y: int
    width: int
    height: int
    zoom: float
    proposals: tuple[int, ...]

    @property
    def pixels(self) -> float:
        """What the heavy detector has to look at."""
        return self.width * self.height * self.zoom**2


class Placed(NamedTuple):
    """A detection of the heavy detector, in the image.

    Parameters
    ----------
    box : (int, int, int, int)
        x, y, width, height.
    score : float
    neighbors : int
    probability : float or None
    """

    box: tuple[int, int, int, int]
    score: float
    neighbors: int
    probability: float | None


def chips(
    boxes: Sequence[Box] | npt.NDArray[np.int32], wanted: Sequence[int], shape: tuple[int, ...], framing: Framing
) -> list[Chip]:
    """Return the regions around proposals, clipped to the image, and merged where one costs less than two.

    Parameters
    ----------
    boxes : sequence of (x, y, width, height), or ndarray of int32, shape (n, 4)
    wanted : sequence of int
        Those that regions are made for.
    shape : (int, int, ...)
        Of the image: height, width.
    framing : Framing
    """
    plain = boxes.tolist() if isinstance(boxes, np.ndarray) else boxes
    height, width = shape[:2]
    wish = framing.object_side
    out: list[Chip] = []
    # From large to small, so that what is merged has sizes close to each other.
    for k in sorted(wanted, key=lambda k: -max(plain[k][2:])):
        x, y, w, h = plain[k]
        side = max(w, h)
        reach = side * framing.context / 2
        left, top = max(0, round(x + w / 2 - reach)), max(0, round(y + h / 2 - reach))
        right, bottom = min(width, round(x + w / 2 + reach)), min(height, round(y + h / 2 + reach))
        if right <= left or bottom <= top:
            continue
        zoom = 1.0 if wish is None else min(framing.max_zoom, wish / side)
        new = Chip(left, top, right - left, bottom - top, zoom, (k,))
        for i, old in enumerate(out):
            # One region around two with a gap between them is larger than both.
            if left > old.x + old.width or right < old.x or top > old.y + old.height or bottom < old.y:
                continue
            # The first of a region is its largest.
            alike = wish is None or max(plain[old.proposals[0]][2:]) <= MERGED_SIZES * side
            if alike and (both := _merged(old, new)).pixels <= old.pixels + new.pixels:
                out[i] = both
                break
        else:
            out.append(new)
    return out


def _merged(a: Chip, b: Chip) -> Chip:
    x, y = min(a.x, b.x), min(a.y, b.y)
    right, bottom = max(a.x + a.width, b.x + b.width), max(a.y + a.height, b.y + b.height)
    return Chip(x, y, right - x, bottom - y, max(a.zoom, b.zoom), a.proposals + b.proposals)


def cut_out(image: Image, chip: Chip) -> Image:
    """Return the part of an image, rescaled; C-contiguous."""
    part = np.ascontiguousarray(image[chip.y : chip.y + chip.height, chip.x : chip.x + chip.width])
    size = (max(1, round(chip.width * chip.zoom)), max(1, round(chip.height * chip.zoom)))
    if size == (chip.width, chip.height):
        return part
    import cv2

    way = cv2.INTER_AREA if chip.zoom < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, size, interpolation=way), dtype=np.uint8)


def place(found: Detections, chip: Chip, shape: tuple[int, ...]) -> list[Placed]:
    """Bring detections in a region into the image; what lies outside of it entirely is left out."""
    out: list[Placed] = []
    if not len(found):
        return out
    probabilities = [None] * len(found) if found.probabilities is None else found.probabilities.tolist()
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.neighbors.tolist(), probabilities, strict=True)
    for (x, y, w, h), score, neighbors, p in rows:
        left, top = round(x / chip.zoom + chip.x), round(y / chip.zoom + chip.y)
        right, bottom = round((x + w) / chip.zoom + chip.x), round((y + h) / chip.zoom + chip.y)
        if right > max(left, 0) and bottom > max(top, 0) and left < shape[1] and top < shape[0]:
            out.append(Placed((left, top, right - left, bottom - top), score, neighbors, p))
    return out


def overlap(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes with areas, as `vj.evaluation.matching.overlaps` does."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    if across <= 0:
        return 0.0
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if down <= 0:
        return 0.0
    both = across * down
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def scores_of(boxes: Sequence[Box], found: Sequence[Placed]) -> list[float]:
    """For each proposal the score of the detection that overlaps it most, each detection given once; NaN for none.

    The pair with the largest overlap first, then the largest of the others, and so on.
    """
    out = [math.nan] * len(boxes)
    if len(boxes) == len(found) == 1:
        # The usual case: 3 us less for each region.
        return [found[0].score] if overlap(boxes[0], found[0].box) >= SAME_OBJECT else out
    pairs = [(-overlap(box, one.box), i, j) for i, box in enumerate(boxes) for j, one in enumerate(found)]
    given: set[int] = set()
    for _, i, j in sorted(pair for pair in pairs if pair[0] <= -SAME_OBJECT):
        if math.isnan(out[i]) and j not in given:
            out[i] = found[j].score
            given.add(j)
    return out


def joined(proposals: Detections, standing: Sequence[bool], found: Sequence[Placed]) -> Detections:
    """Join what the heavy detector found with the proposals that stand, the best of those that overlap."""
    kept = [k for k, one in enumerate(standing) if one]
    if not found:
        return proposals if all(standing) else proposals[np.array(kept, dtype=np.intp)]
    rows = [*found, *_as_placed(proposals, kept)]
    comparable = all(one.probability is not None for one in rows)
    # The scores of two detectors have different units; probabilities do not.
    scores = [one.probability if comparable and kept and one.probability is not None else one.score for one in rows]
    # Confirmed ones first.
    order = sorted(range(len(rows)), key=lambda k: (k >= len(found), -scores[k]))
    best: list[int] = []
    for k in order:
        if all(overlap(rows[k].box, rows[j].box) < SAME_OBJECT for j in best):
            best.append(k)
    return Detections(
        np.array([rows[k].box for k in best], dtype=np.int32),
        np.array([scores[k] for k in best], dtype=np.float64),
        np.array([rows[k].neighbors for k in best], dtype=np.int32),
        np.array([rows[k].probability for k in best], dtype=np.float64) if comparable else None,
    )


def _as_placed(found: Detections, keep: Sequence[int]) -> list[Placed]:
    p = found.probabilities
    return [
        Placed(
            tuple(found.boxes[k].tolist()),
            float(found.scores[k]),
            int(found.neighbors[k]),
            None if p is None else float(p[k]),
        )
        for k in keep
    ]
