"""Arguments as OpenCV's Python binding takes them: None for a default, sizes, images of any shape, ``FileNode``."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vj._types import Gray, Size
from vj.cascade.storage_node import Budget, Node, bounded
from vj.errors import InputError
from vj.images import to_gray

# More planes than this are no channels to OpenCV but a third dimension.
_MAX_CHANNELS = 512
_INT_MAX = 2**31 - 1


def gray_of(image: Any, window: Size) -> Gray | None:
    """Return an image as OpenCV would scan it; None if it is too small for the window to have a place.

    The order is OpenCV's: a small image of any shape, even of one dimension, holds nothing; a larger one must be grey,
    BGR or BGRA. A PIL image, which OpenCV refuses, is taken as the RGB that it is.

    Raises
    ------
    InputError
        If it is no image of 8 bits, or has another number of channels.
    """
    if image is None:
        warnings.warn("expected an image, got None: cv2.imread returns it for a file it cannot read", stacklevel=5)
        return None
    if isinstance(image, cv2.UMat):
        image = image.get()
    elif type(image).__module__.startswith("PIL.") and hasattr(image, "convert"):
        image = np.asarray(image.convert("RGB"))[:, :, ::-1] if image.mode != "L" else image
    array = np.asarray(image)
    if array.dtype != np.uint8 or (array.ndim == 3 and array.shape[2] == 0):
        raise InputError(
            f"expected an image as uint8 of shape (h, w), (h, w, 3) BGR or (h, w, 4) BGRA, "
            f"got {array.dtype} of shape {array.shape}"
        )
    height, width = (*array.shape, 1, 1)[:2]
    odd = array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] > _MAX_CHANNELS)
    if height < window[1] or width < window[0]:
        # A stack of images is taken for one that is a pixel high: better said.
        if odd or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
            warnings.warn(f"expected an image of shape (h, w) or (h, w, 3), got {array.shape}", stacklevel=5)
        return None
    return to_gray(array)


def scale_of(value: Any) -> float:
    """Return a scale factor; None is the default."""
    if value is None:
        return 1.1
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputError(f"expected scaleFactor as a number, got {value!r}")
    return float(value)


def integer_of(value: Any, name: str, default: int) -> int:
    """Return an integer of 32 bits; None is the default. A float that is whole is taken, which OpenCV refuses."""
    if value is None:
        return default
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    if isinstance(value, bool | np.bool_):
        raise InputError(f"expected {name} as an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"expected {name} as an integer, got {value!r}") from None
    if not -_INT_MAX - 1 <= number <= _INT_MAX:
        raise InputError(f"expected {name} as an integer of 32 bits, got {number}")
    return number


def size_of(value: Any, name: str) -> Size:
    """Return a size; None is no bound."""
    if value is None:
        return 0, 0
    if isinstance(value, str) or np.shape(value) != (2,):
        raise InputError(f"expected {name} as (width, height), got {value!r}")
    return integer_of(value[0], name, 0), integer_of(value[1], name, 0)


def bounds_of(smallest: Any, largest: Any) -> tuple[Size, Size]:
    """Return the smallest and the largest size as `vj.Detector` takes them.

    A negative minimum bounds nothing. A maximum with a zero bounds nothing, a negative one everything, and then OpenCV
    scans one scale only: so does the detector for a maximum of one pixel.
    """
    low, high = size_of(smallest, "minSize"), size_of(largest, "maxSize")
    if 0 in high:
        high = (0, 0)
    return (max(0, low[0]), max(0, low[1])), (
        high[0] if high[0] >= 0 else 1,
        high[1] if high[1] >= 0 else 1,
    )


def rectangles_of(value: Any) -> npt.NDArray[np.int32]:
    """Return rectangles as rows of four; None and anything empty is none."""
    boxes = np.asarray([] if value is None else value)
    if boxes.ndim == 0:
        raise InputError(f"expected rectangles as rows of x, y, width, height, got {value!r}")
    if not boxes.size:
        return np.zeros((0, 4), dtype=np.int32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"expected rectangles as rows of x, y, width, height, got shape {boxes.shape}")
    if boxes.dtype.kind == "O":
        boxes = np.array([[integer_of(item, "rectList", 0) for item in row] for row in boxes.tolist()])
    if boxes.dtype.kind not in "iu":
        raise InputError(f"expected rectangles of integers, got {boxes.dtype}")
    if boxes.min() < -_INT_MAX - 1 or boxes.max() > _INT_MAX:
        raise InputError("expected rectangles of integers of 32 bits, got a larger one")
    return boxes.astype(np.int32)


def tree_of(node: Any) -> Node:
    """Return a ``cv2.FileNode`` as the tree that the reader of cascades takes.

    Raises
    ------
    InputError
        If it exceeds the limits of the file storage.
    """
    try:
        return _branch(node, "cascade", Budget(), 1)
    except ValueError as error:
        raise InputError(f"FileNode: expected a cascade, got {error}") from None


def _branch(node: Any, tag: str, budget: Budget, depth: int) -> Node:
    branch = budget.node(tag, depth)
    if node.isMap():
        branch.children = [_branch(node.getNode(key), key, budget, depth + 1) for key in node.keys()]  # noqa: SIM118
    elif node.isSeq():
        items = [node.at(k) for k in range(node.size())]
        if any(item.isMap() or item.isSeq() for item in items):
            branch.children = [_branch(item, "_", budget, depth + 1) for item in items]
        else:
            branch.text = bounded(" ".join(map(_scalar, items)))
    else:
        branch.text = bounded(_scalar(node))
    return branch


def _scalar(node: Any) -> str:
    if node.isString():
        return str(node.string())
    number = float(node.real())
    return str(int(number)) if node.isInt() else repr(number)
