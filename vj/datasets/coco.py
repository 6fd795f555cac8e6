"""COCO: one JSON with ``images``, ``annotations`` and ``categories``; crowds are ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vj.datasets.labelled import LabelledImage
from vj.datasets.reading import array, inside, located, numbers, read_json, root
from vj.errors import InputError

_Note = tuple[list[float], bool, str]


def read(source: Path, images: Path | None = None) -> list[LabelledImage]:
    """Read a COCO file; a class is the name of its category or, without a name, the category's number."""
    table = read_json(source)
    rows = table.get("images") if isinstance(table, dict) else None
    notes = table.get("annotations") if isinstance(table, dict) else None
    if not isinstance(rows, list) or not isinstance(notes, list):
        raise InputError(f"{source}: expected 'images' and 'annotations', got {str(table)[:60]!r}")
    if not all(isinstance(r, dict) and isinstance(r.get("file_name"), str) and _is_id(r.get("id")) for r in rows):
        raise InputError(f"{source}: expected images with a file_name and an id (a number or a text), got others")
    names = _category_names(table.get("categories"))
    found: dict[Any, list[_Note]] = {}
    for k, note in enumerate(notes):
        with located(source, f"annotation {k}"):
            if not isinstance(note, dict) or not _is_id(note.get("image_id")):
                raise InputError(f"expected an object with an image_id, got {str(note)[:60]!r}")
            found.setdefault(note["image_id"], []).append(_note(note, names))
    folder = root(source.parent, images, [row["file_name"] for row in rows])
    with located(source, "images"):
        return [_image(inside(folder, row["file_name"]), found.get(row["id"], [])) for row in rows]


def _note(note: dict[str, Any], names: dict[Any, str]) -> _Note:
    category = note.get("category_id")
    if category is not None and not _is_id(category):
        raise InputError(f"expected a category_id that is a number or a text, got {str(category)[:60]!r}")
    name = "" if category is None else names.get(category, str(category)[:200])
    return numbers(note.get("bbox"), 4, "bbox"), bool(note.get("iscrowd")) or bool(note.get("ignore")), name


def _image(path: Path, notes: list[_Note]) -> LabelledImage:
    classes = tuple(name for _, _, name in notes)
    return LabelledImage(
        path,
        array([box for box, _, _ in notes]),
        classes=classes if any(classes) else (),
        ignored=np.array([ignored for _, ignored, _ in notes], dtype=np.bool_),
    )


def _is_id(value: object) -> bool:
    """Whether this can name an image or a category: lists and objects cannot be looked up."""
    return isinstance(value, int | str)


def _category_names(rows: object) -> dict[Any, str]:
    table = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {row["id"]: str(row["name"])[:200] for row in table if _is_id(row.get("id")) and row.get("name")}
