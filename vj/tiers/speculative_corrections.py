"""What a heavy tier found in one frame, carried over to the next ones."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vj.detector import Detections
from vj.errors import InputError
from vj.evaluation.matching import overlaps

Rows = npt.NDArray[np.intp]
Patch = npt.NDArray[np.float32]

_SAME_OBJECT = 0.3
"""Least overlap, intersection over union, of two boxes that show one object: those of two detectors seldom agree well,
and an object moves within a few frames."""

_PATCH = 12
"""Pixels of a patch's longer side: what is followed is looked for in an image that small."""

_STILL_THERE = 0.7
"""Least correlation of a patch with the place it is followed to. Measured on 199 labelled faces of FDDB, moved by a few
pixels under sensor noise of 25 grey levels: 0.7 keeps 97.5 % of them and accepts a place next to the face in 11 %; 0.6
keeps 98 % and accepts 27 %, 0.75 keeps 97.5 % and accepts 5 %, but loses 7 % under noise of 50."""


class Corrections(Protocol):
    """What `SpeculativeFrames` needs to put drafts right; see `Carry` for the one that is used by default."""

    def learn(self, drafted: Any, verified: Any, frame: Any) -> tuple[Any, Any]:
        """Compare both answers to a frame; return what stands for it, and what to know about the frames that follow."""
        ...

    def follow(self, known: Any, frame: Any) -> Any:
        """Bring what is known to the next frame."""
        ...

    def apply(self, known: Any, draft: Any) -> Any:
        """Correct the draft of the frame that `known` was brought to."""
        ...


@dataclass(frozen=True, eq=False)
class _Seen:
    """Boxes to be added and boxes to be left out, where they are by now, and what they looked like when verified."""

    there: Detections
    refuted: Detections
    patches: tuple[Patch, ...]


@dataclass(frozen=True)
class Carry:
    """Carries the heavy tier's answer from frame to frame for as long as it holds.

    Of `Detections`, each box of the heavy tier is shown where the draft has none, and each box only the draft had
    is left out where the draft has it again. Both are followed: if frames are images, a patch of the verified frame
    is looked for near its last place (normalised cross-correlation over moves up to half the box), and a box is dropped
    once nothing there correlates well. Where frames are anything else, boxes stay where they were. Two boxes show the
    same object if their intersection is at least 0.3 of their union. A draft with the same objects stands as it is.

    Any other answer, such as a label, is replaced by the heavy tier's while the draft says what it said then.
    """

    def learn(self, drafted: Any, verified: Any, frame: Any) -> tuple[Any, Any]:
        """Compare both answers to a frame; return what stands for it, and what to know about the frames that follow."""
        if not (isinstance(drafted, Detections) and isinstance(verified, Detections)):
            return (drafted, None) if equal(drafted, verified) else (verified, (drafted, verified))
        shared = overlaps(drafted.boxes, verified.boxes) >= _SAME_OBJECT
        # A second box on an object that both see refutes nothing.
        refuted, missed = np.flatnonzero(~shared.any(1)), np.flatnonzero(~shared.any(0))
        stands = verified if len(refuted) or len(missed) else drafted
        wrong = drafted[refuted]
        patches = [patch(frame, box) for box in (*verified.boxes, *wrong.boxes)] if _is_image(frame) else []
        return stands, _Seen(verified, wrong, tuple(patches))

    def follow(self, known: Any, frame: Any) -> Any:
        """Bring what is known to the next frame."""
        if not isinstance(known, _Seen) or not known.patches or not _is_image(frame):
            return known
        boxes = np.concatenate([known.there.boxes, known.refuted.boxes])
        moved = [follow_box(frame, box, what) for box, what in zip(boxes, known.patches, strict=True)]
        n = len(known.there)
        alive = [k for k, box in enumerate(moved) if box is not None]
        there, refuted = [k for k in alive if k < n], [k for k in alive if k >= n]
        return _Seen(
            _placed(known.there, there, [moved[k] for k in there]),
            _placed(known.refuted, [k - n for k in refuted], [moved[k] for k in refuted]),
            tuple(known.patches[k] for k in alive),
        )

    def apply(self, known: Any, draft: Any) -> Any:
        """Correct the draft of the frame that `known` was brought to."""
        if not (isinstance(known, _Seen) and isinstance(draft, Detections)):
            return known[1] if isinstance(known, tuple) and equal(draft, known[0]) else draft
        right = ~(overlaps(draft.boxes, known.refuted.boxes) >= _SAME_OBJECT).any(1)
        seen = (overlaps(known.there.boxes, draft.boxes[right]) >= _SAME_OBJECT).any(1)
        if right.all() and seen.all():
            return draft
        return _joined(draft, np.flatnonzero(right), known.there, np.flatnonzero(~seen))


def equal(one: Any, other: Any) -> bool:
    """Whether two answers are the same.

    Raises
    ------
    InputError
        They cannot be compared.
    """
    if one is other:
        return True
    if isinstance(one, Detections) and isinstance(other, Detections):
        return np.array_equal(one.boxes, other.boxes) and np.array_equal(one.scores, other.scores)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    try:
        return bool(one == other)
    except ValueError:
        raise InputError(f"expected answers that == can compare, got {type(one).__name__} of arrays") from None


def patch(frame: npt.NDArray[Any], box: npt.NDArray[Any]) -> Patch:
    """Return what a box shows, about `_PATCH` pixels long, as grey with mean 0 and length 1."""
    x, y, width, height = (int(value) for value in box)
    step = _step(width, height)
    small = _reduced(frame, x, y, max(1, width // step), max(1, height // step), step)
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    out: Patch = small / length if length > 0 else small
    return out


def follow_box(frame: npt.NDArray[Any], box: npt.NDArray[Any], what: Patch) -> npt.NDArray[np.int32] | None:
    """Return the box where its patch is in this frame, or None if it is not near the old place or left the image."""
    x, y, width, height = (int(value) for value in box)
    step = _step(width, height)
    rows, columns = what.shape
    reach = max(rows, columns) // 2
    area = _reduced(frame, x - reach * step, y - reach * step, columns + 2 * reach, rows + 2 * reach, step)
    windows = np.lib.stride_tricks.sliding_window_view(area, what.shape).reshape(-1, rows * columns)
    spread = np.sqrt(np.maximum(windows.var(1) * windows.shape[1], 1e-6))
    # The patch has mean 0, so the windows need not.
    fit = windows @ what.ravel() / spread
    best = int(fit.argmax())
    if fit[best] < _STILL_THERE:
        return None
    down, right = divmod(best, 2 * reach + 1)
    x, y = x + (right - reach) * step, y + (down - reach) * step
    inside = 0 <= x + width // 2 < frame.shape[1] and 0 <= y + height // 2 < frame.shape[0]
    return np.array([x, y, width, height], dtype=np.int32) if inside else None


def _step(width: int, height: int) -> int:
    return max(1, max(width, height) // _PATCH)


def _reduced(frame: npt.NDArray[Any], x: int, y: int, width: int, height: int, step: int) -> Patch:
    """Cut out `width` x `height` means of `step` x `step` pixels, of the green channel."""
    # Half the pixels each way, from the step's middle, are enough for a mean and a quarter of the work.
    stride = max(1, step // 2)
    n = step // stride
    offsets = np.arange(n) * stride + stride // 2
    rows = np.clip((y + np.arange(height)[:, None] * step + offsets).ravel(), 0, frame.shape[0] - 1)
    columns = np.clip((x + np.arange(width)[:, None] * step + offsets).ravel(), 0, frame.shape[1] - 1)
    cut = frame[rows[:, None], columns]
    if cut.ndim == 3:
        cut = cut[..., min(1, cut.shape[2] - 1)]
    found: Patch = cut.reshape(height, n, width, n).mean((1, 3), dtype=np.float32)
    return found


def _is_image(frame: Any) -> bool:
    return isinstance(frame, np.ndarray) and frame.ndim in (2, 3) and frame.size > 0 and frame.dtype.kind in "uif"


def _placed(one: Detections, rows: list[int], boxes: list[Any]) -> Detections:
    at = np.array(boxes, dtype=np.int32).reshape(-1, 4)
    return replace(one[np.array(rows, dtype=np.intp)], boxes=at)


def _joined(one: Detections, rows: Rows, other: Detections, more: Rows) -> Detections:
    """Join some rows of one and some of another; what only one of them has, such as probabilities, is left out."""
    parts: dict[str, Any] = {}
    for name in (part.name for part in fields(Detections)):
        first, second = getattr(one, name), getattr(other, name)
        parts[name] = None if first is None or second is None else np.concatenate([first[rows], second[more]])
    return Detections(**parts)
