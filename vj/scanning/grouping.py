"""From raw hits to objects: OpenCV's rectangle grouping and score-based non-maximum suppression."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vj._compile import njit
from vj._types import Boxes

EPSILON = 0.2
"""How far, relative to their size, rectangles of one group may lie apart."""


class Groups(NamedTuple):
    """Grouped rectangles.

    Parameters
    ----------
    boxes : ndarray of int32, shape (n, 4)
        x, y, width, height: the mean of each group.
    counts : ndarray of int32, shape (n,)
        Number of rectangles in each group.
    scores : ndarray of float64, shape (n,)
        The largest score of each group.
    evidence : ndarray of float64, shape (n,)
        What the scores of a group come to together: the logarithm of the sum of their exponentials.
    """

    boxes: Boxes
    counts: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float64]
    evidence: npt.NDArray[np.float64]


@njit(cache=True, nogil=True)
def _similar(a, b, eps):
    delta = eps * (min(a[2], b[2]) + min(a[3], b[3])) * 0.5
    return (
        abs(a[0] - b[0]) <= delta
        and abs(a[1] - b[1]) <= delta
        and abs(a[0] + a[2] - b[0] - b[2]) <= delta
        and abs(a[1] + a[3] - b[1] - b[3]) <= delta
    )


@njit(cache=True, nogil=True)
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _partition(boxes, order, eps):
    """Label the connected components of similarity, numbered by first appearance.

    `order` sorts the boxes by x: two similar boxes lie within eps * (w + h) / 2 of each other in x, so the inner loop
    ends early. The widest box bounds that distance.
    """
    n = len(boxes)
    parent = np.arange(n)
    reach = 0.0
    for i in range(n):
        reach = max(reach, eps * (boxes[i, 2] + boxes[i, 3]) * 0.5)
    for a in range(n):
        i = order[a]
        for b in range(a + 1, n):
            j = order[b]
            if boxes[j, 0] - boxes[i, 0] > reach:
                break
            if _similar(boxes[i], boxes[j], eps):
                parent[_root(parent, i)] = _root(parent, j)
    labels = np.full(n, -1, np.int64)
    of_root = np.full(n, -1, np.int64)
    count = 0
    for i in range(n):
        r = _root(parent, i)
        if of_root[r] < 0:
            of_root[r] = count
            count += 1
        labels[i] = of_root[r]
    return labels, count


def _label(boxes: npt.NDArray[np.int64], eps: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the group of each box, numbered by first appearance, and the size of each group."""
    labels, count = _partition(boxes, np.argsort(boxes[:, 0], kind="stable"), float(eps))
    return labels, np.bincount(labels, minlength=count)


def group_rectangles(
    boxes: Boxes, min_neighbors: int, eps: float = EPSILON, scores: npt.NDArray[np.float64] | None = None
) -> Groups:
    """Merge similar rectangles, as OpenCV's ``groupRectangles`` does.

    Parameters
    ----------
    boxes : ndarray of int32, shape (n, 4)
        x, y, width, height.
    min_neighbors : int
        Groups of no more than this many rectangles are dropped; 0 or less returns every rectangle as it is.
    eps : float
        Two rectangles are similar if no side differs by more than ``eps`` times the mean of the smaller width and the
        smaller height.
    scores : ndarray of float64, shape (n,), optional

    Returns
    -------
    Groups
        In order of each group's first rectangle.
    """
    boxes = np.ascontiguousarray(boxes, dtype=np.int32).reshape(-1, 4)
    n = len(boxes)
    score = np.zeros(n) if scores is None else np.asarray(scores, dtype=np.float64)
    if min_neighbors <= 0 or n == 0:
        return Groups(boxes, np.ones(n, dtype=np.int32), score, score)
    wide = boxes.astype(np.int64)
    labels, counts = _label(wide, eps)
    sums = np.zeros((len(counts), 4), dtype=np.int64)
    np.add.at(sums, labels, wide)
    best, evidence, _ = _pooled(labels, len(counts), score)
    # float32 throughout: the rounding of OpenCV's average.
    means = np.rint(sums.astype(np.float32) * (np.float32(1) / counts.astype(np.float32))[:, None]).astype(np.int64)
    keep = np.flatnonzero(counts > min_neighbors)
    keep = np.array([i for i in keep if not _swallowed(int(i), keep, means, counts, eps)], dtype=np.int64)
    return Groups(means[keep].astype(np.int32), counts[keep].astype(np.int32), best[keep], evidence[keep])


def suppress_groups(
    boxes: Boxes, min_neighbors: int, max_overlap: float, scores: npt.NDArray[np.float64], eps: float = EPSILON
) -> Groups:
    """Merge similar rectangles, weighted by their scores, and keep the best of the groups that overlap.

    Parameters
    ----------
    boxes : ndarray of int32, shape (n, 4)
        x, y, width, height.
    min_neighbors : int
        Groups of no more than this many rectangles are dropped; 0 keeps groups of one.
    max_overlap : float
        As for `non_max_suppression`; the evidence of a group is its score.
    scores : ndarray of float64, shape (n,)
        A rectangle weighs the exponential of its score in the mean of its group.
    eps : float
        As for `group_rectangles`.

    Returns
    -------
    Groups
        Best first.
    """
    wide = np.ascontiguousarray(boxes, dtype=np.int64).reshape(-1, 4)
    if not len(wide):
        return group_rectangles(boxes, 0, eps, scores)
    labels, counts = _label(wide, eps)
    best, evidence, weights = _pooled(labels, len(counts), np.asarray(scores, dtype=np.float64))
    means = np.stack([np.bincount(labels, weights * column, len(counts)) for column in wide.T], axis=1)
    merged = np.rint(means / np.bincount(labels, weights, len(counts))[:, None]).astype(np.int32)
    enough = np.flatnonzero(counts > min_neighbors)
    keep = enough[non_max_suppression(merged[enough], evidence[enough], max_overlap)]
    return Groups(merged[keep], counts[keep].astype(np.int32), best[keep], evidence[keep])


def _pooled(
    labels: npt.NDArray[np.int64], count: int, scores: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the largest score and the evidence of each group, and each member's weight relative to its best."""
    best = np.full(count, -np.inf)
    np.maximum.at(best, labels, scores)
    weights = np.exp(scores - best[labels])
    return best, best + np.log(np.bincount(labels, weights, count)), weights


def _swallowed(
    i: int,
    others: npt.NDArray[np.int64],
    means: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    eps: float,
) -> bool:
    """Whether group i lies inside a stronger group."""
    m = means[others]
    dx, dy = np.rint(m[:, 2] * eps), np.rint(m[:, 3] * eps)
    x, y, w, h = means[i]
    inside = (
        (x >= m[:, 0] - dx)
        & (y >= m[:, 1] - dy)
        & (x + w <= m[:, 0] + m[:, 2] + dx)
        & (y + h <= m[:, 1] + m[:, 3] + dy)
    )
    stronger = (counts[others] > max(3, int(counts[i]))) | (counts[i] < 3)
    return bool((inside & stronger & (others != i)).any())


def non_max_suppression(boxes: Boxes, scores: npt.NDArray[np.float64], max_overlap: float) -> npt.NDArray[np.int64]:
    """Keep the best of every set of overlapping boxes.

    Parameters
    ----------
    boxes : ndarray of int32, shape (n, 4)
        x, y, width, height.
    scores : ndarray of float64, shape (n,)
    max_overlap : float
        A box is dropped if its intersection over union with a kept box of a higher score exceeds this.

    Returns
    -------
    ndarray of int64, shape (m,)
        Indices of the kept boxes, best first; equal scores in the order given.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    x, y, w, h = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        across = np.minimum(x[best] + w[best], x[rest] + w[rest]) - np.maximum(x[best], x[rest])
        down = np.minimum(y[best] + h[best], y[rest] + h[rest]) - np.maximum(y[best], y[rest])
        shared = np.maximum(across, 0) * np.maximum(down, 0)
        order = rest[shared <= max_overlap * (w[best] * h[best] + w[rest] * h[rest] - shared)]
    return np.array(kept, dtype=np.int64)
