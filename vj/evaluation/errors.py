"""A detector's errors one by one: false positives and missed objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vj._types import Floats
from vj.evaluation.matching import FALSE, TRUE, overlaps
from vj.evaluation.measure import Evaluation


@dataclass(frozen=True, eq=False)
class Error:
    """One error.

    Parameters
    ----------
    path : Path
        The image.
    box : ndarray of float64, shape (4,)
        x, y, width, height of the detection, or of the missed object.
    score : float
        Of the detection; of a missed object: of the best detection that overlaps it by half of what a match needs or
        more, nan if there is none.
    overlap : float
        Intersection over union with the nearest object; of a missed object: with the nearest detection.
    """

    path: Path
    box: Floats
    score: float
    overlap: float


def false_positives(result: Evaluation, paths: Sequence[Path]) -> list[Error]:
    """Return the detections that found no object, the most confident first.

    Parameters
    ----------
    result : Evaluation
    paths : sequence of Path
        Of the images, in the order of the evaluation.
    """
    rows = [
        Error(paths[k], found.boxes[i], float(found.scores[i]), float(matches.overlap[i]))
        for k, (found, matches) in enumerate(zip(result.found, result.matches, strict=True))
        for i in np.flatnonzero(matches.outcome == FALSE)
    ]
    return sorted(rows, key=lambda row: -row.score)


def misses(result: Evaluation, paths: Sequence[Path]) -> list[Error]:
    """Return the wanted objects that no detection found, first those without any, then by the score of the nearest.

    Parameters are those of `false_positives`.
    """
    rows = []
    for k, (found, truth) in enumerate(zip(result.found, result.truth, strict=True)):
        table = overlaps(truth.boxes, found.boxes)
        free = result.matches[k].outcome != TRUE
        for i in result.missed(k):
            near = (table[i] > 0.25) & free
            score = float(found.scores[near].max()) if near.any() else float("nan")
            rows.append(Error(paths[k], truth.boxes[i], score, float(table[i].max(initial=0.0))))
    return sorted(rows, key=lambda row: (not np.isnan(row.score), row.score, -row.box[3]))
