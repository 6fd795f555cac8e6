"""Speculative cascades over the frames of a video: a cheap model answers, a heavy one corrects it at times.

Every frame is drafted and shown at once; every k-th is verified in a thread while the next are drafted. What the heavy
tier found to be wrong is put right in that frame, in those shown since, and in those to come, for as long as the draft
makes the same mistake.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vj.detector import Detections
from vj.errors import InputError
from vj.tiers.model import Tier
from vj.tiers.speculative import Drafted, Settled, checked_count, checked_timeout, one_line, start

Boxes = npt.NDArray[np.int32]

_SAME_OBJECT = 0.3
"""Least overlap, intersection over union, of two boxes that show one object: those of two detectors seldom agree well,
and an object moves within a few frames."""


def correct(now: Any, drafted: Any, verified: Any) -> Any:
    """Carry what the heavy tier found in an earlier frame over to a draft of now.

    Parameters
    ----------
    now : object
        What the draft tier answers to this frame.
    drafted, verified : object
        What the draft and the heavy tier answered to the frame that was verified.

    Returns
    -------
    object
        For `Detections`: `now` without the boxes that the heavy tier did not confirm, and with those that the draft
        had missed and still misses. For anything else: `verified` while `now` equals `drafted`, then `now`.

    Notes
    -----
    Two boxes show the same object if their intersection is at least 0.3 of their union.
    """
    if not (isinstance(now, Detections) and isinstance(drafted, Detections) and isinstance(verified, Detections)):
        return verified if _equal(now, drafted) else now
    partner = _partners(drafted.boxes, verified.boxes)
    same = _partners(now.boxes, drafted.boxes)
    # A box now that is one of the draft's then which nothing confirmed.
    refuted = (same >= 0) & (np.append(partner, 0)[same] < 0)
    missed = np.setdiff1d(np.arange(len(verified)), partner)
    # What the draft sees by now needs no help.
    seen = _partners(verified.boxes[missed], now.boxes[~refuted]) >= 0
    return _joined(now, np.flatnonzero(~refuted), verified, missed[~seen])


def agree(drafted: Any, verified: Any) -> bool:
    """Whether two answers to one frame come to the same: for `Detections`, whether each object has a box in both."""
    if isinstance(drafted, Detections) and isinstance(verified, Detections):
        paired = int((_partners(drafted.boxes, verified.boxes) >= 0).sum())
        return len(drafted) == len(verified) == paired
    return _equal(drafted, verified)


class _Shown(NamedTuple):
    draft: Any
    value: Any


@dataclass
class _Check:
    """A frame under verification, and what was shown from there on."""

    position: int
    future: Future[Any]
    started: float
    since: list[_Shown] = field(default_factory=list)


@dataclass(frozen=True)
class SpeculativeFrames:
    """Answers every frame of a video with a cheap model and corrects it with a heavy one.

    Parameters
    ----------
    draft, heavy : callable or Tier
        Take a frame and return what is in it, such as `Detections`; of a tier it is the answer's value. `heavy` is
        called in another thread, one frame at a time, so it must not share state with `draft` that is not safe for
        threads.
    every : int
        Verify every so many frames.
    live : bool
        For a camera: never wait for the heavy tier. What it found is put in as soon as it is there, and the next frame
        is verified when it is free again, which may be later than `every` frames. By default, for a file, the answer
        is waited for before the next frame that is due, so that the same file gives the same output.
    timeout : float, optional
        Seconds after which the heavy tier's answer is given up and the draft stands. By default there is no end.
    correct : callable
        Takes the draft of now, the draft and the heavy tier's answer of the verified frame, and returns what to show
        now. See `correct`.
    agree : callable
        Takes the draft and the heavy tier's answer to one frame; if they agree nothing is corrected. See `agree`.

    Raises
    ------
    InputError
        A setting out of its range.

    Notes
    -----
    If the heavy tier raises or takes too long, the frame's `Settled` says so and what was shown stands; so does the
    correction made before. It is asked again at the next frame that is due, unless it is still busy. A draft tier that
    raises ends the run.

    Examples
    --------
    >>> from vj.tiers import SpeculativeFrames, collect
    >>> pair = SpeculativeFrames(draft=lambda frame: "cat", heavy=lambda frame: "dog", every=2)
    >>> collect(pair.run(range(5))).values
    ('dog', 'dog', 'dog', 'dog', 'dog')
    """

    draft: Callable[[Any], Any] | Tier
    heavy: Callable[[Any], Any] | Tier
    every: int = 10
    live: bool = False
    timeout: float | None = None
    correct: Callable[[Any, Any, Any], Any] = correct
    agree: Callable[[Any, Any], bool] = agree

    def __post_init__(self) -> None:
        for name in ("draft", "heavy", "correct", "agree"):
            given = getattr(self, name)
            if not callable(given) and not (name in ("draft", "heavy") and isinstance(given, Tier)):
                raise InputError(f"expected {name} to be callable, got {type(given).__name__}")
        checked_count("every", self.every)
        checked_timeout(self.timeout)

    def run(self, frames: Iterable[Any]) -> Iterator[Drafted | Settled]:
        """Answer frames one by one: each as `Drafted`, to be shown at once; each that was verified as `Settled`.

        The values of a `Settled` are those of the frame verified and of all that were shown since.
        """
        check: _Check | None = None
        late: Future[Any] | None = None
        known: tuple[Any, Any] | None = None
        due = 0
        answer, verify = _asked(self.draft), _asked(self.heavy)
        for position, frame in enumerate(frames):
            if check is not None and self._is_over(check, position):
                settled, known = self._settled(check, known)
                yield settled
                late, check = check.future, None
            draft = answer(frame)
            value = draft if known is None else self.correct(draft, *known)
            yield Drafted(position, value)
            if check is None and position >= due:
                due = position + self.every
                if late is None or late.done():
                    check = _Check(position, start(verify, frame), time.monotonic())
                else:
                    yield Settled(position, (value,), 1, 0, "the heavy tier is still busy with an earlier frame")
            if check is not None:
                check.since.append(_Shown(draft, value))
        if check is not None:
            yield self._settled(check, known)[0]

    def _is_over(self, check: _Check, position: int) -> bool:
        """Whether to settle a frame now: the answer is there, or has to be waited for, or is given up."""
        if not self.live:
            return position >= check.position + self.every
        gone = time.monotonic() - check.started
        return check.future.done() or (self.timeout is not None and gone > self.timeout)

    def _settled(self, check: _Check, known: tuple[Any, Any] | None) -> tuple[Settled, tuple[Any, Any] | None]:
        """Return what stands from the verified frame on, and what is known for the frames to come."""
        shown = [one.value for one in check.since]
        left = None if self.timeout is None else max(0.0, self.timeout - (time.monotonic() - check.started))
        if not wait([check.future], left).done:
            note = f"the heavy tier did not answer within {self.timeout:g} s"
            return Settled(check.position, tuple(shown), len(shown), 1, note), known
        if error := check.future.exception():
            note = f"the heavy tier failed: {one_line(error)}"
            return Settled(check.position, tuple(shown), len(shown), 1, note), known
        drafts = [one.draft for one in check.since]
        verified = check.future.result()
        if self.agree(drafts[0], verified):
            values, known = drafts, None
        else:
            known = (drafts[0], verified)
            values = [verified, *(self.correct(one, *known) for one in drafts[1:])]
        changed = (k for k, (old, new) in enumerate(zip(shown, values, strict=True)) if not _equal(old, new))
        return Settled(check.position, tuple(values), next(changed, len(values)), 1), known


def _asked(tier: Callable[[Any], Any] | Tier) -> Callable[[Any], Any]:
    return (lambda frame: tier.ask(frame).answer.value) if isinstance(tier, Tier) else tier


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, Detections) and isinstance(other, Detections):
        return np.array_equal(one.boxes, other.boxes) and np.array_equal(one.scores, other.scores)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    try:
        return bool(one == other)
    except ValueError:
        kind = type(one).__name__
        raise InputError(f"expected answers that == can compare, got {kind}: give `agree` and `correct`") from None


def _partners(one: Boxes, other: Boxes) -> npt.NDArray[np.intp]:
    """For each box of the first the one of the second that shows the same object, or -1; best overlaps first."""
    partner = np.full(len(one), -1, dtype=np.intp)
    if not len(one) or not len(other):
        return partner
    a, b = one[:, None].astype(np.float64), other[None].astype(np.float64)
    sides = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.maximum(sides, 0).prod(-1)
    overlap = shared / np.maximum(a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - shared, 1e-9)
    while overlap.max() >= _SAME_OBJECT:
        k, m = np.unravel_index(overlap.argmax(), overlap.shape)
        partner[k] = m
        overlap[k], overlap[:, m] = -1, -1
    return partner


def _joined(one: Detections, rows: npt.NDArray[np.intp], other: Detections, more: npt.NDArray[np.intp]) -> Detections:
    """Join some rows of one and some of another; what only one of them has, such as probabilities, is left out."""
    parts: dict[str, Any] = {}
    for name in (part.name for part in fields(Detections)):
        first, second = getattr(one, name), getattr(other, name)
        parts[name] = None if first is None or second is None else np.concatenate([first[rows], second[more]])
    return Detections(**parts)
