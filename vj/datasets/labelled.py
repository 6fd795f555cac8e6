"""The one annotation type, and which of its objects a measurement asks for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vj._types import Bools, Floats
from vj.errors import InputError

ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
"""Attributes an object may have: the codes of WIDER FACE, in the order of its file. 0 is clear, typical, valid."""


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One image and the objects in it.

    Parameters
    ----------
    path : Path
        Where the image is.
    boxes : ndarray of float64, shape (n, 4)
        x, y, width, height in pixels; may reach beyond the image.
    classes : tuple of str, length n or 0
        Class of each object; empty if the annotations have no classes.
    ignored : ndarray of bool, shape (n,)
        Objects that the annotations mark as not to be counted; by default none.
    attributes : dict of str to ndarray of int64, shape (n,)
        Codes of each object, by name; see `ATTRIBUTES`. Absent names are unknown.
    ellipses : ndarray of float64, shape (n, 5), or None
        Major radius, minor radius, angle in radians, centre x, centre y.
    squares : ndarray of float64, shape (n, 4), or None
        A normalised square for each object, as x, y, width, height; it may overhang the image. nan if unknown.
    landmarks : ndarray of float64, shape (n, 4, 2), or None
        x, y of the left and right eye and the left and right corner of the mouth, as seen. nan if unknown.

    Raises
    ------
    InputError
        If boxes are not finite or have negative sizes, or if there are not as many of anything else as boxes.
    """

    path: Path
    boxes: Floats
    _: dataclasses.KW_ONLY
    classes: tuple[str, ...] = ()
    ignored: Bools = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    attributes: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    ellipses: Floats | None = None
    squares: Floats | None = None
    landmarks: Floats | None = None

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, dtype=np.float64).reshape(-1, 4)
        if not np.isfinite(boxes).all() or (boxes[:, 2:] < 0).any():
            raise InputError(f"{self.path}: expected boxes of finite numbers with sizes of 0 or more, got others")
        ignored = np.asarray(self.ignored, dtype=np.bool_)
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "ignored", ignored if len(ignored) else np.zeros(len(boxes), dtype=np.bool_))
        for name, values in self._columns().items():
            if len(values) != len(boxes):
                raise InputError(f"{self.path}: expected {name} of {len(boxes)} objects, got {len(values)}")

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.boxes)

    def select(self, keep: Bools) -> LabelledImage:
        """Return the image with some of its objects; `keep` has shape (n,)."""
        columns = ("ellipses", "squares", "landmarks")
        return LabelledImage(
            self.path,
            self.boxes[keep],
            classes=tuple(name for name, kept in zip(self.classes, keep, strict=False) if kept),
            ignored=self.ignored[keep],
            attributes={name: codes[keep] for name, codes in self.attributes.items()},
            **{name: None if (values := getattr(self, name)) is None else values[keep] for name in columns},
        )

    def _columns(self) -> dict[str, npt.NDArray[np.generic] | tuple[str, ...]]:
        """Everything there is for each object besides its box."""
        named = {name: getattr(self, name) for name in ("ignored", "ellipses", "squares", "landmarks")}
        columns = {name: values for name, values in named.items() if values is not None} | self.attributes
        return columns | ({"classes": self.classes} if self.classes else {})


@dataclass(frozen=True)
class Wanted:
    """Which objects a measurement asks for; all others are ignored: neither wanted nor counted as false.

    A limit on an attribute that a set does not have lets every object through; `require_attributes` refuses such a set.

    Parameters
    ----------
    min_height : float
        Smallest height of the box in pixels.
    max_blur, max_occlusion, max_pose, max_invalid : int
        Highest code still wanted.
    """

    min_height: float = 0.0
    max_blur: int = 2
    max_occlusion: int = 2
    max_pose: int = 1
    max_invalid: int = 0

    def ignored(self, image: LabelledImage) -> Bools:
        """Return which objects of an image are not asked for; shape (n,)."""
        out = image.ignored | (image.boxes[:, 3] < self.min_height)
        out |= (image.boxes[:, 2:] <= 0).any(axis=1)
        for name in ("blur", "occlusion", "pose", "invalid"):
            if name in image.attributes:
                out |= image.attributes[name] > getattr(self, f"max_{name}")
        return out


FRONTAL = Wanted(min_height=30, max_blur=1, max_occlusion=1, max_pose=0)
"""The frontal part of WIDER FACE: faces at least 30 px high, at most slightly blurred or occluded, typical pose."""


def require_attributes(images: list[LabelledImage], names: tuple[str, ...], option: str) -> None:
    """Refuse a filter that cannot apply: one by attributes of which these images have none.

    Raises
    ------
    InputError
        If no image has any of the attributes; `option` names the filter.
    """
    if not any(name in image.attributes for image in images for name in names):
        raise InputError(f"expected annotations with {' or '.join(names)} codes for {option}, got none")
