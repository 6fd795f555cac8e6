"""The project's own ``annotations.json``.

A list of objects with ``file`` (relative to the json), ``width``, ``height`` and ``faces``, whatever the objects are. A
face has ``bbox`` [x, y, width, height] and, where the set has them, ``class``, ``ellipse`` [major radius, minor radius,
angle in radians, centre x, centre y], ``ignored`` and whole-number attributes such as ``blur``, ``occlusion``, ``pose``
and ``invalid``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vj._files import write_text
from vj.datasets.labelled import ATTRIBUTES, LabelledImage
from vj.datasets.reading import array, inside, located, numbers, read_json, root
from vj.errors import InputError

NAME = "annotations.json"


def read(source: Path, images: Path | None = None) -> list[LabelledImage]:
    """Read ``annotations.json``, or the one inside a folder.

    Raises
    ------
    InputError
        If the file cannot be read, is not of this form, or names an image outside its own folder.
    """
    source = source / NAME if source.is_dir() else source
    rows = read_json(source)
    if not isinstance(rows, list):
        raise InputError(f"{source}: expected a list of images, got {type(rows).__name__}")
    names = [row["file"] for row in rows if isinstance(row, dict) and isinstance(row.get("file"), str)]
    folder = root(source.parent, images, names) if images else source.parent
    found = []
    for k, row in enumerate(rows):
        with located(source, f"image {k}"):
            found.append(_image(folder, row))
    return found


def write_annotations(path: str | os.PathLike[str], images: Iterable[LabelledImage]) -> None:
    """Write ``annotations.json``, whole or not at all.

    Parameters
    ----------
    path : str or path
        The file to write.
    images : iterable of LabelledImage
        Must be below the file's folder.

    Raises
    ------
    InputError
        If an image is elsewhere.
    """
    target = Path(path)
    rows = []
    for image in images:
        faces = [_face_row(image, k) for k in range(len(image))]
        try:
            name = image.path.resolve().relative_to(target.parent.resolve()).as_posix()
        except ValueError:
            raise InputError(f"expected images below {target.parent}, got {image.path}") from None
        rows.append({"file": name, "faces": faces})
    write_text(target, json.dumps(rows, indent=1) + "\n")


def _image(folder: Path, row: Any) -> LabelledImage:
    if not isinstance(row, dict) or not isinstance(row.get("file"), str) or not isinstance(row.get("faces"), list):
        raise InputError(f"expected an object with 'file' and 'faces', got {str(row)[:80]!r}")
    faces = row["faces"]
    if not all(isinstance(face, dict) for face in faces):
        raise InputError("expected faces that are objects, got others")
    attributes = {}
    for name in ATTRIBUTES:
        if faces and all(name in face for face in faces):
            attributes[name] = np.array([numbers([face[name]], 1, name)[0] for face in faces], dtype=np.int64)
    ellipses = None
    if faces and all("ellipse" in face for face in faces):
        ellipses = np.array([numbers(face["ellipse"], 5, "ellipse") for face in faces])
    return LabelledImage(
        inside(folder, row["file"]),
        array([numbers(face.get("bbox"), 4, "bbox") for face in faces]),
        classes=tuple(str(face.get("class", ""))[:200] for face in faces) if any("class" in f for f in faces) else (),
        ignored=np.array([bool(face.get("ignored", False)) for face in faces], dtype=np.bool_),
        attributes=attributes,
        ellipses=ellipses,
    )


def _face_row(image: LabelledImage, k: int) -> dict[str, object]:
    row: dict[str, object] = {"bbox": [round(float(v), 3) for v in image.boxes[k]]}
    if image.classes:
        row["class"] = image.classes[k]
    row |= {name: int(codes[k]) for name, codes in image.attributes.items()}
    if image.ellipses is not None:
        row["ellipse"] = [float(v) for v in image.ellipses[k]]
    if image.ignored[k]:
        row["ignored"] = True
    return row
