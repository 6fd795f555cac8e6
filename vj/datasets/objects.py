"""Annotated objects: what the readers of all formats return."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vj.errors import InputError
from vj.images import list_images

Box = tuple[float, float, float, float]
Point = tuple[float, float]


@dataclass(frozen=True)
class Annotation:
    """One object in one picture.

    Parameters
    ----------
    path : Path
        The picture.
    box : (float, float, float, float), optional
        x, y, width, height in pixels; None for the whole picture.
    square : (float, float, float, float), optional
        A normalised square, if the format has one; it may overhang the picture.
    eyes, mouth : pairs of points, optional
        (x, y) of both eyes and both corners of the mouth.
    """

    path: Path
    box: Box | None = None
    square: Box | None = None
    eyes: tuple[Point, Point] | None = None
    mouth: tuple[Point, Point] | None = field(default=None)


def read_crops(folder: Path) -> list[Annotation]:
    """Return one object for each picture below a folder: the whole picture."""
    found = [Annotation(path) for path in list_images(folder)]
    if not found:
        raise InputError(f"{folder}: expected pictures, got a folder without any")
    return found


def read_csv(path: Path, where: Mapping[str, str]) -> list[Annotation]:
    """Read a table of boxes: columns file, x, y, w, h and, if there, sq_x, sq_y, sq_size and landmarks.

    Parameters
    ----------
    path : Path
        Files in it are relative to its folder.
    where : mapping
        Columns and the values that a row must have to be kept; ``"-0.5..0.5"`` is a range of numbers.

    Returns
    -------
    list of Annotation

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column, or holds what is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            missing = [name for name in ("file", "x", "y", "w", "h", *where) if name not in columns]
            if missing:
                raise InputError(f"{path}: expected columns file, x, y, w and h, got no column {missing[0]!r}")
            rows = [(reader.line_num, row) for row in reader if _wanted(row, where)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a readable CSV file, got {error}") from None
    if not rows:
        raise InputError(f"{path}: expected rows{' with ' + str(dict(where)) if where else ''}, got none")
    found = []
    for line, row in rows:
        try:
            found.append(_from_row(path.parent, row))
        except (TypeError, ValueError):
            raise InputError(f"{path}: expected numbers in line {line}, got {list(row.values())[:5]}") from None
    return found


def _wanted(row: Mapping[str, str], where: Mapping[str, str]) -> bool:
    for key, value in where.items():
        low, dots, high = value.partition("..")
        try:
            if not float(low) <= float(row[key]) <= float(high) if dots else row[key] != value:
                return False
        except ValueError:
            # No number on either side: a text that happens to hold two dots.
            if row[key] != value:
                return False
    return True


def _from_row(folder: Path, row: dict[str, str]) -> Annotation:
    square = eyes = mouth = None
    if row.get("sq_size"):
        square = (float(row["sq_x"]), float(row["sq_y"]), float(row["sq_size"]), float(row["sq_size"]))
    if row.get("leye_x"):
        eyes = (_point(row, "leye"), _point(row, "reye"))
    if row.get("lmouth_x"):
        mouth = (_point(row, "lmouth"), _point(row, "rmouth"))
    box = (float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"]))
    return Annotation(folder / row["file"], box, square, eyes, mouth)


def _point(row: dict[str, str], name: str) -> Point:
    return float(row[f"{name}_x"]), float(row[f"{name}_y"])
