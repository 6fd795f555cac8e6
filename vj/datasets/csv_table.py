"""Tables of boxes as CSV, one object a row.

Columns, in any order and among any others: ``file`` or ``filename``; ``x``, ``y``, ``w``, ``h``, or the corners
``xmin``, ``ymin``, ``xmax``, ``ymax`` as TensorFlow has them (not counted as pixels: the width is xmax - xmin);
optionally ``class``; a normalised square ``sq_x``, ``sq_y``, ``sq_size``; landmarks ``leye_x``, ``leye_y``, ``reye_x``,
``reye_y``, ``lmouth_x``, ``lmouth_y``, ``rmouth_x``, ``rmouth_y``. A row without numbers is an image without objects.
Names are relative to the table's folder or absolute.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vj._types import Floats
from vj.datasets.labelled import LabelledImage
from vj.datasets.reading import array, existing, located, number, numbers, read_text, root
from vj.errors import InputError

_SIZES, _CORNERS = ("x", "y", "w", "h"), ("xmin", "ymin", "xmax", "ymax")
_SQUARE = ("sq_x", "sq_y", "sq_size")
_EYES, _MOUTH = ("leye_x", "leye_y", "reye_x", "reye_y"), ("lmouth_x", "lmouth_y", "rmouth_x", "rmouth_y")

_Row = Mapping[str, str | None]


def read(source: Path, images: Path | None = None, where: Mapping[str, str] | None = None) -> list[LabelledImage]:
    """Read a table of boxes.

    Parameters
    ----------
    source : Path
    images : Path, optional
        Folder that names are relative to.
    where : mapping, optional
        Columns and the values that a row must have; ``"-0.5..0.5"`` is a range of numbers. Objects of other rows are
        ignored, and images without any row that has them are left out.

    Returns
    -------
    list of LabelledImage
        In the order in which the files first appear.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column, holds no number where one belongs, or no row has the values wanted.
    """
    conditions = dict(where or {})
    reader = csv.DictReader(io.StringIO(read_text(source), newline=""))
    try:
        columns = list(reader.fieldnames or ())
        name, corners = _names_of_columns(source, columns, conditions)
        rows: dict[str, list[tuple[int, _Row, bool]]] = {}
        for row in reader:
            rows.setdefault(row[name] or "", []).append((reader.line_num, row, _matches(row, conditions)))
    except csv.Error as error:
        raise InputError(f"{source}: expected a CSV file, got {error} in line {reader.line_num}") from None
    kept = {file: lines for file, lines in rows.items() if any(fits for _, _, fits in lines)}
    if rows and not kept:
        wanted = " and ".join(f"{column}={value}" for column, value in conditions.items())
        raise InputError(f"{source}: expected rows with {wanted}, got none")
    folder = root(source.parent, images, list(kept))
    return [_image(source, folder, file, lines, corners) for file, lines in kept.items()]


def _names_of_columns(
    source: Path, columns: Sequence[str], where: Mapping[str, str]
) -> tuple[str, tuple[str, str, str, str]]:
    """Return the column of the file's name and those of the box."""
    name = next((column for column in ("file", "filename") if column in columns), None)
    box = next((four for four in (_SIZES, _CORNERS) if set(four) <= set(columns)), None)
    if name is None or box is None:
        shown = ", ".join(map(str, columns))[:120]
        raise InputError(
            f"{source}: expected the columns file, x, y, w, h or filename, xmin, ymin, xmax, ymax, got {shown!r}"
        )
    for column in where:
        if column not in columns:
            raise InputError(f"{source}: expected the column {column!r} to filter by, got {', '.join(columns)[:120]}")
    return name, box


def _matches(row: _Row, where: Mapping[str, str]) -> bool:
    for key, value in where.items():
        own = row[key]
        low, high = (number(end) for end in value.split("..", 1)) if ".." in value else (None, None)
        if low is None or high is None:
            # No range of numbers: a text that may happen to hold two dots.
            if own != value:
                return False
        else:
            here = number(own)
            if here is None or not low <= here <= high:
                return False
    return True


def _image(
    source: Path, folder: Path, file: str, lines: Sequence[tuple[int, _Row, bool]], box: tuple[str, str, str, str]
) -> LabelledImage:
    if not file or "\0" in file:
        raise InputError(f"{source}: line {lines[0][0]}: expected the name of an image, got {file[:60]!r}")
    boxes: list[list[float]] = []
    squares, landmarks, classes, ignored = [], [], [], []
    for line, row, fits in lines:
        if not any((row[column] or "").strip() for column in box):
            continue
        with located(source, f"line {line}"):
            boxes.append(_box(row, box))
            x, y, side = _optional(row, _SQUARE)
            squares.append([x, y, side, side])
            landmarks.append(_optional(row, _EYES) + _optional(row, _MOUTH))
        classes.append((row.get("class") or "").strip()[:200])
        ignored.append(not fits)
    return LabelledImage(
        existing(folder / file),
        array(boxes),
        classes=tuple(classes) if any(classes) else (),
        ignored=np.array(ignored, dtype=np.bool_),
        squares=_known(squares, (-1, 4)),
        landmarks=_known(landmarks, (-1, 4, 2)),
    )


def _box(row: _Row, columns: tuple[str, str, str, str]) -> list[float]:
    x, y, w, h = numbers([number(row[column]) for column in columns], 4, ", ".join(columns))
    if columns is _CORNERS:
        w, h = w - x, h - y
    if w < 0 or h < 0:
        raise InputError(f"expected a box with a size of 0 or more, got {w:g}x{h:g}")
    return [x, y, w, h]


def _optional(row: _Row, columns: Sequence[str]) -> list[float]:
    """Read numbers that may be missing all together."""
    values = [row.get(column) for column in columns]
    if not any((value or "").strip() for value in values):
        return [np.nan] * len(columns)
    return numbers([number(value) for value in values], len(columns), ", ".join(columns))


def _known(rows: list[list[float]], shape: tuple[int, ...]) -> Floats | None:
    """Return rows as an array, or None if nothing in them is known."""
    values = np.array(rows, dtype=np.float64)
    return None if np.isnan(values).all() else values.reshape(shape)
