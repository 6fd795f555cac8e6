"""Labelled pictures as values, the project's own file of them, and which faces a measurement asks for.

``annotations.json`` is a list of objects with ``file`` (relative to the json), ``width``, ``height`` and ``faces``; a
face has ``bbox`` [x, y, width, height] and, where the set has them, ``ellipse`` [major radius, minor radius, angle in
radians, centre x, centre y] and whole-number attributes such as ``blur``, ``occlusion``, ``pose`` and ``invalid``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._files import write_text
from vj.errors import InputError

ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
"""Attributes a face may have: the codes of WIDER FACE. 0 is clear, typical, valid."""

MAX_BYTES = 1 << 30
"""Largest annotation file read."""


@dataclass(frozen=True, eq=False)
class LabelledPicture:
    """One picture and the faces in it.

    Parameters
    ----------
    path : Path
        Where the picture lies.
    boxes : ndarray of float64, shape (n, 4)
        x, y, width, height in pixels; may reach beyond the picture.
    attributes : dict of str to ndarray of int64, shape (n,)
        Codes of each face, by name; see `ATTRIBUTES`. Absent names are unknown.
    ellipses : ndarray of float64, shape (n, 5), or None
        Major radius, minor radius, angle in radians, centre x, centre y.
    ignored : ndarray of bool, shape (n,), or None
        Faces the set itself marks as not to be counted; None for none.
    """

    path: Path
    boxes: npt.NDArray[np.float64]
    attributes: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    ellipses: npt.NDArray[np.float64] | None = None
    ignored: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, dtype=np.float64).reshape(-1, 4)
        if not np.isfinite(boxes).all() or (boxes[:, 2:] < 0).any():
            raise InputError(f"{self.path}: expected boxes of finite numbers with sizes of 0 or more, got others")
        ignored = np.zeros(len(boxes), dtype=np.bool_) if self.ignored is None else np.asarray(self.ignored, np.bool_)
        for name, array in (*self.attributes.items(), ("ellipses", self.ellipses), ("ignored", ignored)):
            if array is not None and len(array) != len(boxes):
                raise InputError(f"{self.path}: expected {name} of {len(boxes)} faces, got {len(array)}")
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "ignored", ignored)


@dataclass(frozen=True)
class Wanted:
    """Which faces a measurement asks for; all others are ignored: neither wanted nor counted as false.

    A limit on an attribute that a set does not have lets every face through.

    Parameters
    ----------
    min_height : float
        Least height of the box in pixels.
    max_blur, max_occlusion, max_pose, max_invalid : int
        Highest code still wanted.
    """

    min_height: float = 0.0
    max_blur: int = 2
    max_occlusion: int = 2
    max_pose: int = 1
    max_invalid: int = 0

    def ignored(self, picture: LabelledPicture) -> npt.NDArray[np.bool_]:
        """Return which faces of a picture are not asked for; shape (n,)."""
        out = np.asarray(picture.ignored) | (picture.boxes[:, 3] < self.min_height)
        out |= (picture.boxes[:, 2:] <= 0).any(axis=1)
        for name in ("blur", "occlusion", "pose", "invalid"):
            if name in picture.attributes:
                out |= picture.attributes[name] > getattr(self, f"max_{name}")
        return out


FRONTAL = Wanted(min_height=30, max_blur=1, max_occlusion=1, max_pose=0)
"""The frontal part of WIDER FACE: faces of at least 30 pixels, at most slightly blurred or occluded, typical pose."""


def read_annotations(path: str | os.PathLike[str]) -> list[LabelledPicture]:
    """Read the project's own ``annotations.json``, or the one inside a folder.

    Parameters
    ----------
    path : str or path
        The file, or the folder that holds it.

    Returns
    -------
    list of LabelledPicture
        In file order; the pictures themselves are not opened.

    Raises
    ------
    InputError
        If the file cannot be read, is not of this form, or names a picture outside its own folder.
    """
    source = Path(path)
    if source.is_dir():
        source = source / "annotations.json"
    rows = read_json(source)
    if not isinstance(rows, list):
        raise InputError(f"{source}: expected a list of pictures, got {type(rows).__name__}")
    return [_picture(source, k, row) for k, row in enumerate(rows)]


def write_annotations(path: str | os.PathLike[str], pictures: Iterable[LabelledPicture]) -> None:
    """Write ``annotations.json``, whole or not at all; the pictures must lie below its folder.

    Parameters
    ----------
    path : str or path
        The file to write.
    pictures : iterable of LabelledPicture
    """
    target = Path(path)
    rows = []
    for picture in pictures:
        faces = [_face_row(picture, k) for k in range(len(picture.boxes))]
        try:
            name = picture.path.resolve().relative_to(target.parent.resolve()).as_posix()
        except ValueError:
            raise InputError(f"expected pictures below {target.parent}, got {picture.path}") from None
        rows.append({"file": name, "faces": faces})
    write_text(target, json.dumps(rows, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of bounded size; every fault is an `InputError` that names the file."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{path}: expected annotations of at most {MAX_BYTES} bytes, got {size}")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: expected a readable annotation file, got {error.strerror or error}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, got {' '.join(str(error).split())}") from None


def inside(folder: Path, name: str) -> Path:
    """Return `folder / name`, which must not lead out of `folder`.

    Raises
    ------
    InputError
        For an absolute name or one that climbs out.
    """
    parts = Path(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\0" in name:
        raise InputError(f"expected a picture below {folder}, got {name!r}")
    return folder / parts


def numbers(values: object, count: int, what: str) -> list[float]:
    """Return a list of exactly `count` finite numbers, or raise an `InputError` that says what was expected."""
    if (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in values)
    ):
        return [float(v) for v in values]
    raise InputError(f"expected {what} as {count} numbers, got {str(values)[:80]!r}")


def _picture(source: Path, index: int, row: object) -> LabelledPicture:
    try:
        if not isinstance(row, dict) or not isinstance(row.get("file"), str) or not isinstance(row.get("faces"), list):
            raise InputError(f"expected an object with 'file' and 'faces', got {str(row)[:80]!r}")
        faces = row["faces"]
        if not all(isinstance(face, dict) for face in faces):
            raise InputError("expected faces that are objects, got others")
        boxes = [numbers(face.get("bbox"), 4, "bbox") for face in faces]
        attributes = {}
        for name in ATTRIBUTES:
            if faces and all(name in face for face in faces):
                codes = [numbers([face[name]], 1, name)[0] for face in faces]
                attributes[name] = np.array(codes, dtype=np.int64)
        ellipses = None
        if faces and all("ellipse" in face for face in faces):
            ellipses = np.array([numbers(face["ellipse"], 5, "ellipse") for face in faces])
        ignored = np.array([bool(face.get("ignored", False)) for face in faces], dtype=np.bool_)
        return LabelledPicture(inside(source.parent, row["file"]), np.array(boxes), attributes, ellipses, ignored)
    except InputError as error:
        raise InputError(f"{source}: picture {index}: {error}") from None


def _face_row(picture: LabelledPicture, k: int) -> dict[str, object]:
    row: dict[str, object] = {"bbox": [round(float(v), 3) for v in picture.boxes[k]]}
    row |= {name: int(codes[k]) for name, codes in picture.attributes.items()}
    if picture.ellipses is not None:
        row["ellipse"] = [float(v) for v in picture.ellipses[k]]
    if picture.ignored is not None and picture.ignored[k]:
        row["ignored"] = True
    return row
