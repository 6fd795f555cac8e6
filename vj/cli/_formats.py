"""The forms in which rows of detections are printed: JSON Lines, CSV, COCO results."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any, Protocol

FORMATS = ("jsonl", "csv", "coco")

CSV_COLUMNS = ("file", "frame", "seconds", "x", "y", "w", "h", "score", "neighbors", "probability", "source")


class Rows(Protocol):
    """Prints rows as they come."""

    def write(self, row: dict[str, Any]) -> None:
        """Print the row of an image or frame; see `vj.rows.row`."""

    def skip(self) -> None:
        """Leave out an image that could not be used."""

    def close(self) -> None:
        """Print what ends the output."""


def rows_as(form: str, say: Callable[[str], None]) -> Rows:
    """Return what prints rows in one of `FORMATS`, line by line."""
    kinds: dict[str, Callable[[Callable[[str], None]], Rows]] = {"jsonl": JsonLines, "csv": Csv, "coco": CocoResults}
    return kinds[form](say)


class JsonLines:
    """A line of JSON for each image or frame."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def write(self, row: dict[str, Any]) -> None:
        """Print the row."""
        self._say(json.dumps(row))

    def skip(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Csv:
    """A table with a line for each detection, and one without numbers for an image without any: a data set to read."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._line(CSV_COLUMNS)

    def _line(self, cells: Any) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(cells)
        self._say(text.getvalue())

    def write(self, row: dict[str, Any]) -> None:
        """Print a line for each detection."""
        place = [row["image"], row.get("frame"), row.get("seconds")]
        for one in row["detections"] or [{"box": [None] * 4}]:
            rest = [one.get(name) for name in ("score", "neighbors", "probability", "source")]
            self._line([*place, *one["box"], *rest])

    def skip(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class CocoResults:
    """One JSON list, as COCO's results are: an entry for each detection.

    Images count from 1 in the order of the inputs, those that could not be used too, and each frame of a video.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._image = 0
        self._open = False

    def write(self, row: dict[str, Any]) -> None:
        """Print the entries."""
        self._image += 1
        place = {"file_name": row["image"]} | ({"frame": row["frame"]} if "frame" in row else {})
        for one in row["detections"]:
            entry = {"image_id": self._image, "category_id": one.get("source", 0) + 1, "bbox": one["box"]}
            entry |= {"score": one["score"]} | place
            self._say((", " if self._open else "[ ") + json.dumps(entry))
            self._open = True

    def skip(self) -> None:
        """Count the image."""
        self._image += 1

    def close(self) -> None:
        """Print the end of the list."""
        self._say("]" if self._open else "[]")
