"""The scores of the FDDB benchmark: detections against ellipses, matched as well as one-to-one matching allows.

References
----------
V. Jain and E. Learned-Miller, "FDDB: A benchmark for face detection in unconstrained settings", UM-CS-2010-009,
section 6: at each threshold, detections and annotations of an image are matched one-to-one so that the overlaps sum
to the most; a pair scores 1 if it overlaps by more than half (discrete) or its overlap (continuous).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from vj._types import Floats
from vj.errors import InputError
from vj.evaluation.curves import Curve
from vj.evaluation.matching import Found

_CELLS = 64
"""Cells a side into which an ellipse's frame is cut to measure areas: overlaps are right to about 0.002."""


def ellipse_overlaps(boxes: Floats, ellipses: Floats) -> Floats:
    """Intersection over union of boxes (n, 4) with ellipses (m, 5); shape (n, m).

    The ellipse is cut into strips of equal width along x; of each strip the length inside the box is exact.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    ellipses = np.asarray(ellipses, dtype=np.float64).reshape(-1, 5)
    out = np.zeros((len(boxes), len(ellipses)))
    for j, (major, minor, angle, x, y) in enumerate(ellipses):
        if major <= 0 or minor <= 0:
            continue
        columns, low, high, width = _strips(major, minor, angle)
        inside_x = np.clip(
            np.minimum(columns + width / 2 + x, (boxes[:, 0] + boxes[:, 2])[:, None])
            - np.maximum(columns - width / 2 + x, boxes[:, 0][:, None]),
            0,
            None,
        )
        inside_y = np.clip(
            np.minimum(high + y, (boxes[:, 1] + boxes[:, 3])[:, None]) - np.maximum(low + y, boxes[:, 1][:, None]),
            0,
            None,
        )
        both = (inside_x * inside_y).sum(axis=1)
        out[:, j] = both / (boxes[:, 2] * boxes[:, 3] + np.pi * major * minor - both)
    return np.clip(out, 0.0, 1.0)


def _strips(major: float, minor: float, angle: float) -> tuple[Floats, Floats, Floats, float]:
    """Middle, lower end and upper end of the vertical strips of an ellipse about the origin, and their width."""
    half_w = np.hypot(major * np.cos(angle), minor * np.sin(angle))
    width = 2 * half_w / _CELLS
    x = -half_w + (np.arange(_CELLS) + 0.5) * width
    # Points of the ellipse at abscissa x: y = slope * x -+ reach * sqrt(1 - (x / half_w)^2).
    slope = (major**2 - minor**2) * np.sin(angle) * np.cos(angle) / half_w**2
    reach = major * minor / half_w * np.sqrt(np.clip(1 - (x / half_w) ** 2, 0, None))
    return x, slope * x - reach, slope * x + reach, float(width)


def fddb_curves(found: Sequence[Found], ellipses: Sequence[Floats]) -> tuple[Curve, Curve]:
    """Return the discrete and the continuous curve of a set of images.

    Parameters
    ----------
    found : sequence of Found
        Detections as boxes, aligned or not.
    ellipses : sequence of ndarray of float64, shape (n, 5)
        Annotations of each image, in the same order.

    Returns
    -------
    discrete, continuous : Curve
        Against the same false positives: detections without a pair that overlaps by more than half.

    Raises
    ------
    InputError
        If there is no annotation.
    """
    n_wanted = sum(len(e) for e in ellipses)
    if n_wanted < 1:
        raise InputError("expected at least one face to find, got none")
    steps: list[tuple[float, float, float, int]] = []
    for one, faces in zip(found, ellipses, strict=True):
        table = ellipse_overlaps(one.boxes, faces)
        before = (0.0, 0.0)
        for score in -np.unique(-one.scores):
            keep = one.scores >= score
            rows, columns = linear_sum_assignment(table[keep], maximize=True)
            pairs = table[keep][rows, columns]
            now = (float((pairs > 0.5).sum()), float(pairs.sum()))
            steps.append((float(score), now[0] - before[0], now[1] - before[1], int((one.scores == score).sum())))
            before = now
    table = np.array(steps, dtype=np.float64).reshape(-1, 4)
    distinct, index = np.unique(-table[:, 0], return_inverse=True)
    discrete, continuous, count = (np.bincount(index, table[:, k], len(distinct)).cumsum() for k in (1, 2, 3))
    false = count - discrete
    return (
        Curve(-distinct, discrete, false, n_wanted, len(found)),
        Curve(-distinct, continuous, false, n_wanted, len(found)),
    )
