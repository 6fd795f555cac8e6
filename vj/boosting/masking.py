"""Backgrounds that show labelled objects: where in them, at every scale, no window may lie."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vj._types import Floats, Gray, Size
from vj.scanning.planes import resize
from vj.scanning.pyramid import Level


@dataclass(frozen=True)
class MaskedImage:
    """A grey image and the boxes in it that no window may touch; most backgrounds have none.

    Parameters
    ----------
    gray : ndarray of uint8, shape (h, w)
    boxes : ndarray of float64, shape (n, 4)
        x, y, width, height in pixels of `gray`; may reach beyond it.
    overlap : float
        Largest intersection over union with a box that a window may have; 0: no window may touch one.
    """

    gray: Gray
    boxes: Floats
    overlap: float = 0.0

    def mirrored(self) -> MaskedImage:
        """Return the image with left and right exchanged."""
        boxes = self.boxes.copy()
        boxes[:, 0] = self.gray.shape[1] - boxes[:, 0] - boxes[:, 2]
        return replace(self, gray=np.ascontiguousarray(self.gray[:, ::-1]), boxes=boxes)

    def resized(self, size: Size) -> MaskedImage:
        """Return the image at another size (width, height)."""
        ratio = np.array([size[0] / self.gray.shape[1], size[1] / self.gray.shape[0]])
        return replace(self, gray=resize(self.gray, size), boxes=self.boxes * np.tile(ratio, 2))

    def part(self, x: int, y: int, width: int, height: int) -> MaskedImage:
        """Return a part of the image."""
        boxes = self.boxes - np.array([x, y, 0, 0])
        return replace(self, gray=np.ascontiguousarray(self.gray[y : y + height, x : x + width]), boxes=boxes)

    def forbidden(self, level: Level) -> npt.NDArray[np.bool_]:
        """Return which windows of a level touch a box, or overlap it too far; those of stride 1 are taken.

        Returns
        -------
        ndarray of bool, shape (rows, columns)
            By a window's first row and column. Edges are rounded so that a window that only might touch does.
        """
        out = np.zeros((level.rows, level.columns), dtype=np.bool_)
        ratio = np.array([level.size[0] / self.gray.shape[1], level.size[1] / self.gray.shape[0]])
        first = np.floor(self.boxes[:, :2] * ratio) - np.array(level.window) + 1
        last = np.ceil((self.boxes[:, :2] + self.boxes[:, 2:]) * ratio)
        limits = np.array([level.columns, level.rows])
        edges = np.hstack([np.clip(first, 0, limits), np.clip(last, 0, limits)]).astype(np.int64)
        for k, (left, top, right, bottom) in enumerate(edges.tolist()):
            part: npt.NDArray[np.bool_] | bool = True
            if self.overlap:
                x, y, w, h = self.boxes[k] * np.tile(ratio, 2)
                across = _shared(np.arange(left, right), level.window[0], x, w)
                shared = across * _shared(np.arange(top, bottom), level.window[1], y, h)[:, None]
                part = shared > self.overlap * (level.window[0] * level.window[1] + w * h - shared)
            out[top:bottom, left:right] |= part
        return out


def _shared(starts: npt.NDArray[np.int64], length: int, start: float, size: float) -> Floats:
    """Return how much of ``start`` to ``start + size`` lies in each of the intervals of a length."""
    ends = np.minimum(starts + length, start + size)
    return np.asarray(np.maximum(ends - np.maximum(starts, start), 0.0))
