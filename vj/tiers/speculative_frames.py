"""Speculative cascades over the frames of a video: a cheap model answers, a heavy one corrects it at times.

Every frame is drafted and shown at once; every k-th is verified in a thread while the next are drafted. What the heavy
tier found to be wrong is put right in that frame, in those shown since, and in those to come, for as long as the draft
makes the same mistake.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vj.errors import InputError
from vj.tiers.model import Tier
from vj.tiers.speculative import Drafted, Settled, checked_count, checked_timeout, one_line, start
from vj.tiers.speculative_corrections import Carry, Corrections, equal


class _Shown(NamedTuple):
    frame: Any
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
        Frames from one verification to the next.
    live : bool
        For a camera: never wait for the heavy tier. What it found is put in as soon as it is there, and the next frame
        is verified when it is free again, which may be later than `every` frames. By default, for a file, the answer
        is waited for before the next frame that is due, so that the same file gives the same output.
    timeout : float, optional
        Seconds after which the heavy tier's answer is given up and the draft stands. By default there is no end.
    corrections : Corrections
        How the heavy tier's answer to a frame bears on it and on the frames after it. `Carry` knows `Detections`, whose
        boxes it follows through images, and answers that can be compared, such as labels.

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
    corrections: Corrections = Carry()  # noqa: RUF009 - it has no state

    def __post_init__(self) -> None:
        for name in ("draft", "heavy"):
            given = getattr(self, name)
            if not callable(given) and not isinstance(given, Tier):
                raise InputError(f"expected {name} to be callable, got {type(given).__name__}")
        if not all(callable(getattr(self.corrections, name, None)) for name in ("learn", "follow", "apply")):
            kind = type(self.corrections).__name__
            raise InputError(f"expected corrections with learn, follow and apply, got {kind}")
        checked_count("every", self.every)
        checked_timeout(self.timeout)

    def run(self, frames: Iterable[Any]) -> Iterator[Drafted | Settled]:
        """Answer frames one by one: each as `Drafted`, to be shown at once; each that was verified as `Settled`.

        The values of a `Settled` are those of the frame verified and of all that were shown since.
        """
        check: _Check | None = None
        late: Future[Any] | None = None
        known: Any = None
        due = 0
        answer, verify = _asked(self.draft), _asked(self.heavy)
        for position, frame in enumerate(frames):
            if check is not None and self._is_over(check, position):
                settled, known = self._settled(check, known)
                yield settled
                late, check = check.future, None
            draft = answer(frame)
            if known is not None:
                known = self.corrections.follow(known, frame)
            value = draft if known is None else self.corrections.apply(known, draft)
            yield Drafted(position, value)
            if check is None and position >= due:
                due = position + self.every
                if late is None or late.done():
                    check = _Check(position, start(verify, frame), time.monotonic())
                else:
                    yield Settled(position, (value,), 1, 0, "the heavy tier is still busy with an earlier frame")
            if check is not None:
                check.since.append(_Shown(frame, draft, value))
        if check is not None:
            yield self._settled(check, known)[0]

    def _is_over(self, check: _Check, position: int) -> bool:
        """Whether to settle a frame now: the answer is there, or has to be waited for, or is given up."""
        if not self.live:
            return position >= check.position + self.every
        gone = time.monotonic() - check.started
        return check.future.done() or (self.timeout is not None and gone > self.timeout)

    def _settled(self, check: _Check, known: Any) -> tuple[Settled, Any]:
        """Return what stands from the verified frame on, and what is known for the frames to come."""
        shown = [one.value for one in check.since]
        left = None if self.timeout is None else max(0.0, self.timeout - (time.monotonic() - check.started))
        if not wait([check.future], left).done:
            note = f"the heavy tier did not answer within {self.timeout:g} s"
            return Settled(check.position, tuple(shown), len(shown), 1, note), known
        if error := check.future.exception():
            note = f"the heavy tier failed: {one_line(error)}"
            return Settled(check.position, tuple(shown), len(shown), 1, note), known
        first, *since = check.since
        stands, known = self.corrections.learn(first.draft, check.future.result(), first.frame)
        values = [stands]
        for one in since:
            if known is not None:
                known = self.corrections.follow(known, one.frame)
            values.append(one.draft if known is None else self.corrections.apply(known, one.draft))
        changed = (k for k, (old, new) in enumerate(zip(shown, values, strict=True)) if not equal(old, new))
        return Settled(check.position, tuple(values), next(changed, len(values)), 1), known


def _asked(tier: Callable[[Any], Any] | Tier) -> Callable[[Any], Any]:
    return (lambda frame: tier.ask(frame).answer.value) if isinstance(tier, Tier) else tier
