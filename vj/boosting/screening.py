"""Backgrounds that probably hold the object, found by a cascade that exists already, for a person to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vj._types import Floats, Gray
from vj.boosting.workers import Workers
from vj.cascade.model import Cascade
from vj.datasets.backgrounds import Backgrounds
from vj.detector import Detections, Detector
from vj.errors import InputError


@dataclass(frozen=True)
class Suspect:
    """A background in which a cascade finds its object.

    Parameters
    ----------
    index : int
        Of the picture.
    score : float
        Of the surest detection, see `vj.Detector`.
    box : (int, int, int, int)
        x, y, width, height of it.
    crop : ndarray of uint8, shape (h, w)
        The box cut out, with a quarter of its size around it.
    """

    index: int
    score: float
    box: tuple[int, int, int, int]
    crop: Gray


def screen(backgrounds: Backgrounds, cascade: Cascade, workers: Workers) -> Iterator[Suspect | None]:
    """Look for the object in every background.

    Parameters
    ----------
    backgrounds : Backgrounds
        Pictures that cannot be read are passed over: mining reports them.
    cascade : Cascade
    workers : Workers

    Yields
    ------
    Suspect or None
        For each picture in turn; None if nothing is found.
    """
    detector = Detector(cascade, threads=1)

    def look(index: int) -> Suspect | None:
        try:
            gray = backgrounds[index]
        except InputError:
            return None
        return _suspect(index, gray, detector.detect(gray), backgrounds.boxes(index))

    yield from workers.map(look, range(len(backgrounds)))


def _suspect(index: int, gray: Gray, found: Detections, objects: Floats) -> Suspect | None:
    free = np.flatnonzero(~_touching(found.boxes, objects))
    if not len(free):
        return None
    best = free[int(np.argmax(found.scores[free]))]
    x, y, w, h = found.boxes[best].tolist()
    return Suspect(index, float(found.scores[best]), (x, y, w, h), _around(gray, (x, y, w, h)))


def _touching(boxes: npt.NDArray[np.int32], objects: Floats) -> npt.NDArray[np.bool_]:
    """Whether each box touches an object that is masked anyway; shape (n,)."""
    first, last = boxes[:, None, :2], boxes[:, None, :2] + boxes[:, None, 2:]
    both = (first < objects[:, :2] + objects[:, 2:]) & (last > objects[:, :2])
    return np.asarray(np.any(np.all(both, axis=2), axis=1), dtype=np.bool_)


def _around(gray: Gray, box: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    x, y, w, h = box
    return gray[max(y - h // 4, 0) : y + h + h // 4, max(x - w // 4, 0) : x + w + w // 4].copy()
