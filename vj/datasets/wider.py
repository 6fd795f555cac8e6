"""WIDER FACE: ``wider_face_val_bbx_gt.txt`` with its attributes; the layout of name, count and lines in general."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vj.datasets.labelled import ATTRIBUTES, LabelledImage
from vj.datasets.reading import array, count, existing, inside, located, number, numbers, read_lines, root
from vj.errors import InputError

_COLUMNS = 4 + len(ATTRIBUTES)


def read(source: Path, images: Path | None = None) -> list[LabelledImage]:
    """Read WIDER FACE's list of boxes."""
    blocks = list(read_blocks(source, _COLUMNS, empty_line=True))
    folder = root(source.parent, images, [name for name, _ in blocks])
    found = []
    for name, rows in blocks:
        table = array(rows, _COLUMNS)
        # An image without faces still has one line of zeros.
        table = table[(table[:, 2] > 0) | (table[:, 3] > 0) | (len(table) > 1)]
        codes = {key: table[:, 4 + k].astype(np.int64) for k, key in enumerate(ATTRIBUTES)}
        with located(source, name[:60]):
            found.append(LabelledImage(existing(inside(folder, name)), table[:, :4], attributes=codes))
    return found


def read_blocks(source: Path, columns: int, *, empty_line: bool = False) -> Iterator[tuple[str, list[list[float]]]]:
    """Yield the blocks of a list: a name, a count, and that many lines of numbers.

    Parameters
    ----------
    source : Path
    columns : int
        Numbers of a line; more are left out.
    empty_line : bool
        Whether a count of 0 may be followed by a line of numbers all the same.

    Raises
    ------
    InputError
        For anything else; the message names file and block.
    """
    lines = [line for _, line in read_lines(source)]
    at = 0
    while at < len(lines):
        name = lines[at]
        said = lines[at + 1] if at + 1 < len(lines) else ""
        n = count(said)
        if n is None or n > len(lines):
            raise InputError(f"{source}: {name[:60]}: expected a number of faces, got {said[:40]!r}")
        follows = lines[at + 2] if at + 2 < len(lines) else ""
        if n == 0 and empty_line and len(follows.split()) == columns:
            n = 1
        block = lines[at + 2 : at + 2 + n]
        if len(block) < n:
            raise InputError(
                f"{source}: {name[:60]}: expected {n} lines of faces, got {len(block)}: is the file cut off?"
            )
        with located(source, name[:60]):
            rows = [numbers([number(v) for v in row.split()[:columns]], columns, "a face") for row in block]
        yield name, rows
        at += 2 + n
