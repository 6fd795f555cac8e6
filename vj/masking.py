"""Hiding what was found: blurred, pixelated or filled boxes."""

from __future__ import annotations

import math
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from vj.detections import Detections
from vj.errors import InputError

Mask = Literal["blur", "pixelate", "fill"]

MASKS: tuple[str, ...] = get_args(Mask)

CELLS = 6
"""Cells along the longer side of a masked area: what is left of an object of any size."""

LEAST_CELL = 4
"""Pixels of a cell's side at least, where an area is small or cut by the border."""


def anonymize(
    image: npt.NDArray[np.uint8],
    detections: Detections | npt.ArrayLike,
    mask: Mask = "blur",
    margin: float = 0.2,
) -> npt.NDArray[np.uint8]:
    """Return a copy of an image with the detections made unrecognizable.

    Each box and a margin around it is reduced to six cells along its longer side, whatever its size. "pixelate" shows
    the cells, "blur" smooths them, "fill" paints the area grey and leaves nothing of it. Choose "fill" where somebody
    might take pains to undo the mask, and for videos of the same face over many frames.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w), (h, w, 3) or (h, w, 4)
        Grey, BGR or BGRA. Of BGRA the hidden colours are masked too; the alpha channel stays as it is.
    detections : Detections, or array of numbers, shape (n, 4)
        Boxes as x, y, width, height; they may reach beyond the image.
    mask : "blur", "pixelate" or "fill"
    margin : float
        Added on each side, as a share of the box's width or height; 0 or more.

    Returns
    -------
    ndarray of uint8, shape of the image

    Raises
    ------
    InputError
        If the image is not of such a shape or type, a box is not finite, the mask is unknown, or the margin is
        negative.

    Examples
    --------
    >>> import numpy as np, vj
    >>> image = np.arange(10000, dtype=np.uint8).reshape(100, 100)
    >>> masked = vj.anonymize(image, [[20, 20, 40, 40]], "fill", margin=0)
    >>> np.unique(masked[20:60, 20:60]).tolist()
    [127]
    """
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InputError(
            "expected an image as uint8 of shape (h, w), (h, w, 3) or (h, w, 4), "
            f"got {array.dtype} of shape {array.shape}"
        )
    if mask not in MASKS:
        raise InputError(f"expected a mask out of {', '.join(MASKS)}, got {mask!r}")
    out = np.ascontiguousarray(array).copy()
    for x0, y0, x1, y1 in areas(detections, array.shape[:2], margin):
        part = out[y0:y1, x0:x1]
        colours = part if part.ndim == 2 else part[:, :, :3]
        colours[:] = 127 if mask == "fill" else _coarse(colours, smooth=mask == "blur")
    return out


def areas(
    detections: Detections | npt.ArrayLike, shape: tuple[int, ...], margin: float
) -> list[tuple[int, int, int, int]]:
    """Return what `anonymize` masks in an image of this shape (height, width): left, top, right, bottom of each area.

    Rounded outwards and cut at the borders; areas outside the image are left out.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise InputError(f"expected a margin of 0 or more, got {margin}")
    given = detections.boxes if isinstance(detections, Detections) else detections
    boxes = np.asarray(given, dtype=np.float64)
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise InputError(f"expected boxes of shape (n, 4) with finite numbers, got shape {boxes.shape}")
    extra = margin * boxes[:, 2:]
    low = np.maximum(np.floor(boxes[:, :2] - extra), 0)
    high = np.minimum(np.ceil(boxes[:, :2] + boxes[:, 2:] + extra), (shape[1], shape[0]))
    edges = np.concatenate([low, high], axis=1).astype(np.int64)
    inside = (edges[:, 2] > edges[:, 0]) & (edges[:, 3] > edges[:, 1])
    return [cast(tuple[int, int, int, int], tuple(row)) for row in edges[inside].tolist()]


def _coarse(part: npt.NDArray[np.uint8], *, smooth: bool) -> Any:
    """Return an area made of its cells' means, enlarged as squares or smoothly."""
    import cv2

    height, width = part.shape[:2]
    cell = max(height / CELLS, width / CELLS, LEAST_CELL)
    size = (max(1, round(width / cell)), max(1, round(height / cell)))
    # Means over whole cells: nothing finer is left, neither in the squares nor in the blur made of them.
    cells = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    squares = cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST)
    return cv2.GaussianBlur(squares, (0, 0), cell / 2, borderType=cv2.BORDER_REPLICATE) if smooth else squares
