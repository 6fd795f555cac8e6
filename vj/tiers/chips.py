"""Regions as a heavy detector sees them: cut out, rescaled, and its answers brought back into the image.

All on plain numbers: an image has a handful of regions, for which a numpy call each costs more than the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vj._types import Image
from vj.detections import Detections, unchecked
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
    height, width = shape[0], shape[1]
    wish, half = framing.object_side, framing.context / 2
    sides = [w if w > h else h for _, _, w, h in plain]
    out: list[Chip] = []
    # From large to small, so that what is merged has sizes close to each other.
    for k in sorted(wanted, key=sides.__getitem__, reverse=True):
        x, y, w, h = plain[k]
        side = sides[k]
        reach, middle_x, middle_y = side * half, x + w / 2, y + h / 2
        left, top = round(middle_x - reach), round(middle_y - reach)
        right, bottom = round(middle_x + reach), round(middle_y + reach)
        # Comparisons: max and min take 0.1 us each.
        left, top = left if left > 0 else 0, top if top > 0 else 0
        right, bottom = right if right < width else width, bottom if bottom < height else height
        if right <= left or bottom <= top:
            continue
        zoom = 1.0 if wish is None else min(framing.max_zoom, wish / side)
        new = Chip(left, top, right - left, bottom - top, zoom, (k,))
        for i, old in enumerate(out):
            x, y, w, h, _, members = old
            # One region around two with a gap between them is larger than both.
            if left > x + w or right < x or top > y + h or bottom < y:
                continue
            # The first of a region is its largest.
            alike = wish is None or sides[members[0]] <= MERGED_SIZES * side
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
    x, y, width, height, zoom, _ = chip
    part = np.ascontiguousarray(image[y : y + height, x : x + width])
    if zoom == 1:
        return part
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    if size == (width, height):
        return part
    import cv2

    way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, size, interpolation=way), dtype=np.uint8)


def place(found: Detections, chip: Chip, shape: tuple[int, ...]) -> list[Placed]:
    """Bring detections in a region into the image; leave out those that lie outside of it entirely."""
    out: list[Placed] = []
    boxes = found.boxes.tolist()
    if not boxes:
        return out
    across, down, _, _, zoom, _ = chip
    height, width = shape[0], shape[1]
    probabilities = [None] * len(boxes) if found.probabilities is None else found.probabilities.tolist()
    rows = zip(boxes, found.scores.tolist(), found.neighbors.tolist(), probabilities, strict=True)
    for (x, y, w, h), score, neighbors, p in rows:
        if zoom == 1:
            left, top, right, bottom = x + across, y + down, x + w + across, y + h + down
        else:
            left, top = round(x / zoom + across), round(y / zoom + down)
            right, bottom = round((x + w) / zoom + across), round((y + h) / zoom + down)
        if right > left and right > 0 and left < width and bottom > top and bottom > 0 and top < height:
            out.append(Placed((left, top, right - left, bottom - top), score, neighbors, p))
    return out


def overlap(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes with areas, as `vj.evaluation.matching.overlaps` does."""
    x, y, width, height = a
    left, top, across, down = b
    # Comparisons rather than max and min: 0.3 us rather than 1.
    inner = (x + width if x + width < left + across else left + across) - (x if x > left else left)
    if inner <= 0:
        return 0.0
    both = inner * ((y + height if y + height < top + down else top + down) - (y if y > top else top))
    return both / (width * height + across * down - both) if both > 0 else 0.0


def scores_of(boxes: Sequence[Box], found: Sequence[Placed]) -> list[float]:
    """For each proposal the score of the detection that overlaps it most, each detection given once; NaN for none.

    The pair with the largest overlap first, then the largest of the others, and so on.
    """
    out = [math.nan] * len(boxes)
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
        if len(kept) == len(proposals):
            return proposals
        # A slice takes half the time of an array of indices.
        return proposals[np.array(kept, dtype=np.intp)] if kept else proposals[:0]
    others = _as_placed(proposals, kept) if kept else []
    comparable = None not in [one.probability for one in found] and None not in [one.probability for one in others]
    # The scores of two detectors have different units; probabilities do not.
    value = attrgetter("probability" if comparable and kept else "score")
    # Confirmed ones first, each kind from the best to the worst.
    best: list[Placed] = []
    for one in [*sorted(found, key=value, reverse=True), *sorted(others, key=value, reverse=True)]:
        box = one.box
        for other in best:
            if overlap(box, other.box) >= SAME_OBJECT:
                break
        else:
            best.append(one)
    boxes, scores, neighbors, probabilities = zip(*best, strict=True)
    return unchecked(
        np.array(boxes, dtype=np.int32),
        np.array(probabilities if comparable and kept else scores, dtype=np.float64),
        np.array(neighbors, dtype=np.int32),
        np.array(probabilities, dtype=np.float64) if comparable else None,
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
