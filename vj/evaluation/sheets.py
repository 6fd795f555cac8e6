"""Contact sheets of a detector's errors, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vj.errors import InputError
from vj.evaluation.errors import false_positives, misses
from vj.evaluation.measure import Evaluation
from vj.images import draw_boxes, read_bgr

_TILE = 112
"""Side of a tile of the sheet, in pixels; a line of text stands below it."""
_LINE = 16
_COLUMNS = 10


def error_sheets(result: Evaluation, paths: Sequence[Path], limit: int = 60) -> dict[str, npt.NDArray[np.uint8] | None]:
    """Return a sheet of each kind of errors.

    Parameters
    ----------
    result : Evaluation
    paths : sequence of Path
        Of the images, in the order of the evaluation.
    limit : int
        Most tiles of a sheet.

    Returns
    -------
    dict of str to ndarray of uint8, shape (h, w, 3), or None
        BGR; None if there are no such errors. ``false-positives``: strongest first, with the score and the overlap with
        the nearest object; ``missed``: largest first, with the size and the best overlap of any detection.
    """
    wrong = [(one, f"{one.score:.3g}") for one in false_positives(result, paths)]
    missed = [(one, f"{one.box[2]:.0f}x{one.box[3]:.0f}") for one in misses(result, paths)]
    missed.sort(key=lambda row: -row[0].box[3])
    return {
        kind: _sheet([(one.path, one.box, f"{words} iou {one.overlap:.2f}") for one, words in rows[:limit]])
        for kind, rows in (("false-positives", wrong), ("missed", missed))
    }


def _sheet(rows: Sequence[tuple[Path, npt.NDArray[np.float64], str]]) -> npt.NDArray[np.uint8] | None:
    import cv2

    if not rows:
        return None
    lines = -(-len(rows) // _COLUMNS)
    height = _TILE + _LINE
    sheet = np.full((lines * height, _COLUMNS * _TILE, 3), 255, dtype=np.uint8)
    for k, (path, box, text) in enumerate(rows):
        top, left = k // _COLUMNS * height, k % _COLUMNS * _TILE
        sheet[top : top + _TILE, left : left + _TILE] = tile(path, box)
        cv2.putText(
            sheet, text, (left + 2, top + _TILE + 11), cv2.FONT_HERSHEY_SIMPLEX, 0.33, (0, 0, 0), 1, cv2.LINE_AA
        )
    return sheet


def tile(path: Path, box: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Cut out a box with a border of 0.4 of its longer side, and outline it; beyond the image the tile is grey."""
    import cv2

    try:
        image = read_bgr(path)
    except InputError:
        return np.full((_TILE, _TILE, 3), 128, dtype=np.uint8)
    side = 1.8 * max(float(box[2]), float(box[3]), 4.0)
    centre = box[:2] + box[2:] / 2
    scale = _TILE / side
    # From image to tile. Images that shrink are averaged first, because warping does not average.
    if scale < 0.5:
        shrink = 2.0 * scale
        if shrink * min(image.shape[:2]) < 1:
            # The box is so large that nothing of the image would be left to see.
            return np.full((_TILE, _TILE, 3), 128, dtype=np.uint8)
        image = np.asarray(cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), np.uint8)
        centre, scale = centre * shrink, scale / shrink
        box = box * shrink
    move = np.array([[scale, 0, _TILE / 2 - scale * centre[0]], [0, scale, _TILE / 2 - scale * centre[1]]])
    tile = cv2.warpAffine(image, move, (_TILE, _TILE), borderMode=cv2.BORDER_CONSTANT, borderValue=(128, 128, 128))
    first, last = ((v * scale + move[:, 2]).round().astype(np.int64) for v in (box[:2], box[:2] + box[2:]))
    outline = np.concatenate([first, last - first + 1])[None]
    return draw_boxes(np.asarray(tile, dtype=np.uint8), outline, (0, 200, 255), thickness=1)
