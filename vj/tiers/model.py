"""What a model cascade is made of: tiers that answer queries at a cost, and answers with a confidence.

A tier is any callable. A stage of a window cascade is one too: its margin is the confidence, its features the cost.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import numbers
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vj.errors import InputError


class TierError(RuntimeError):
    """Raised when a tier gave no answer that can be used: it raised, was too slow, or gave an invalid answer.

    The message is one line that begins with the tier's name. `Escalation` catches it and falls back.
    """


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tier says to one query.

    Parameters
    ----------
    value : object
        The answer itself: a text, a class, boxes. NaN and None are refused.
    confidence : float
        The tier's own, from 0 to 1; larger is surer. It need not be a probability: see `Calibration`.
    label : str, optional
        The class that the answer belongs to: calibration is by label, and two answers agree if their labels are equal.
        By default the text of `value` if that is a string, an integer or a boolean, else None.

    Raises
    ------
    InputError
        The confidence is not a number from 0 to 1, or the value is NaN or None.
    """

    value: Any
    confidence: float
    label: str | None = None

    def __post_init__(self) -> None:
        value, confidence, label = self.value, self.confidence, self.label
        if type(confidence) is not float:
            if not isinstance(confidence, numbers.Real):
                raise InputError(f"expected a confidence from 0 to 1, got {confidence!r}")
            confidence = float(confidence)
            object.__setattr__(self, "confidence", confidence)
        if not 0.0 <= confidence <= 1.0:
            raise InputError(f"expected a confidence from 0 to 1, got {confidence}")
        if value is None or (isinstance(value, numbers.Real) and math.isnan(value)):
            raise InputError(f"expected a value, got {value}")
        if label is None:
            if isinstance(value, str | numbers.Integral):
                object.__setattr__(self, "label", str(value))
        elif type(label) is not str:
            object.__setattr__(self, "label", str(label))


class Reply(NamedTuple):
    """An answer and what it took.

    Parameters
    ----------
    answer : Answer
    cost : float
        In the tier's unit: its fixed cost, or the seconds it took.
    seconds : float
        Wall time.
    """

    answer: Answer
    cost: float
    seconds: float


class Tier:
    """A model with a cost.

    Parameters
    ----------
    name : str
    run : callable
        Takes a query; returns an `Answer`, or a tuple (value, confidence) or (value, confidence, label). May be a
        coroutine function. None if `batch` is given.
    cost : float, optional
        What one query costs, in any unit that is the same for all tiers; zero for a free one. By default the cost is
        measured: the wall seconds of each query.
    batch : callable, optional
        Takes a list of queries; returns as many answers in the same order, with an exception in the place of an answer
        that failed.

    Raises
    ------
    InputError
        No name, nothing to call, or a cost that is negative or not finite.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Any], Any] | None,
        cost: float | None = None,
        *,
        batch: Callable[[Sequence[Any]], Sequence[Any]] | None = None,
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"expected a name for the tier, got {name!r}")
        for what, given in (("run", run), ("batch", batch)):
            if given is not None and not callable(given):
                raise InputError(f"{name}: expected {what} to be callable, got {type(given).__name__}")
        if run is None and batch is None:
            raise InputError(f"{name}: expected a callable for one query or for a batch, got neither")
        self.name = name
        self.cost = None if cost is None else checked_cost(name, cost)
        self._run = run
        self._batch = batch
        self._asynchronous = inspect.iscoroutinefunction(run) or inspect.iscoroutinefunction(
            getattr(run, "__call__", None)  # noqa: B004 - an object whose __call__ is a coroutine function
        )

    @classmethod
    def from_detector(cls, detector: Any, name: str | None = None, cost: float | None = None) -> Tier:
        """Make a tier of a detector: its queries are images, its values `vj.Detections`.

        The confidence is `vj.tiers.detectors.confidence`, for which detections need probabilities (see
        ``vj-calibrate``) or scores from 0 to 1; the label is the number of detections that are more likely than not.

        Parameters
        ----------
        detector : ImageDetector
            `vj.Detector`, or anything else with ``detect(image)`` that returns `vj.Detections`. A
            ``cv2.FaceDetectorYN`` and dlib's detectors are adapted: see `vj.tiers.as_detector`.
        name : str, optional
            By default that of the cascade, or of the class.
        cost : float, optional
            See the class.

        Raises
        ------
        InputError
            If it is no detector, or a cascade without a calibration.
        """
        from vj.tiers.detectors import Dlib, as_detector, clipped, confidence, own_probabilities

        adapted = as_detector(detector)
        cascade = getattr(adapted, "cascade", None)
        if cascade is not None and cascade.calibration is None:
            raise InputError(
                f"expected a cascade with a calibration, got {cascade.name} without one; vj-calibrate makes it"
            )

        def run(image: Any) -> Answer:
            found = adapted.detect(image)
            rated = clipped(found) if isinstance(adapted, Dlib) else found
            return Answer(found, confidence(rated), str(int((own_probabilities(rated) > 0.5).sum())))

        return cls(name or getattr(cascade, "name", None) or type(adapted).__name__, run, cost)

    def __repr__(self) -> str:
        return f"Tier({self.name!r}, cost={'measured' if self.cost is None else self.cost})"

    @property
    def batched(self) -> bool:
        """Whether several queries go out in one call."""
        return self._batch is not None

    def ask(self, query: Any) -> Reply:
        """Answer one query.

        Raises
        ------
        TierError
            The tier raised, or what it returned is no answer.
        """
        start = time.perf_counter()
        if self._run is None:
            (reply,) = self.ask_many([query])
            if isinstance(reply, TierError):
                raise reply
            return reply
        try:
            found = self._run(query)
            if self._asynchronous:
                found = _finish(found)
        except Exception as error:
            raise self._failed(error) from error
        return self._reply(found, time.perf_counter() - start)

    async def ask_async(self, query: Any) -> Reply:
        """Answer one query without blocking the event loop: a plain callable runs in a thread.

        Raises
        ------
        TierError
            See `ask`.
        """
        if not self._asynchronous or self._run is None:
            return await asyncio.to_thread(self.ask, query)
        start = time.perf_counter()
        try:
            found = await self._run(query)
        except Exception as error:
            raise self._failed(error) from error
        return self._reply(found, time.perf_counter() - start)

    def ask_many(self, queries: Sequence[Any]) -> list[Reply | TierError]:
        """Answer several queries, in one call if the tier can; a failure stands in the place of its answer.

        A batch's seconds are shared equally by its queries. If the whole batch fails, so does each of its queries.
        """
        if not len(queries):
            return []
        if self._batch is None:
            return [self._try(query) for query in queries]
        start = time.perf_counter()
        try:
            found = self._batch(queries)
            if inspect.isawaitable(found):
                found = _finish(found)
            found = list(found)
        except Exception as error:
            return [self._failed(error)] * len(queries)
        if len(found) != len(queries):
            message = f"{self.name}: expected {len(queries)} answers to a batch, got {len(found)}"
            return [TierError(message)] * len(queries)
        seconds = (time.perf_counter() - start) / len(queries)
        out: list[Reply | TierError] = []
        for one in found:
            try:
                out.append(self._failed(one) if isinstance(one, Exception) else self._reply(one, seconds))
            except TierError as error:
                out.append(error)
        return out

    def _try(self, query: Any) -> Reply | TierError:
        try:
            return self.ask(query)
        except TierError as error:
            return error

    def _reply(self, found: Any, seconds: float) -> Reply:
        if type(found) is not Answer:
            try:
                found = found if isinstance(found, Answer) else Answer(*found)
            except (TypeError, ValueError) as error:
                text = str(error) if isinstance(error, InputError) else f"expected an Answer, got {found!r:.200}"
                raise TierError(f"{self.name}: {_line(text)}") from error
        return Reply(found, seconds if self.cost is None else self.cost, seconds)

    def _failed(self, error: Exception) -> TierError:
        if isinstance(error, TierError):
            return error
        detail = _line(str(error))
        kind = type(error).__name__
        return TierError(f"{self.name}: {kind}: {detail}" if detail else f"{self.name}: {kind}")


def checked_cost(name: str, cost: Any) -> float:
    """Return a cost as a float.

    Raises
    ------
    InputError
        It is not a finite number of at least zero.
    """
    if isinstance(cost, bool) or not isinstance(cost, numbers.Real) or not math.isfinite(cost) or cost < 0:
        raise InputError(f"{name}: expected a cost of zero or more, got {cost!r}")
    return float(cost)


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


def _finish(coroutine: Any) -> Any:
    """Run a coroutine to its end, also from inside a running event loop: then in a thread with a loop of its own."""

    async def waited() -> Any:
        return await coroutine

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(waited())
    return _in_thread(waited())


def _in_thread(coroutine: Coroutine[Any, Any, Any]) -> Any:
    box: list[Any] = []

    def work() -> None:
        try:
            box.extend((True, asyncio.run(coroutine)))
        except BaseException as error:
            box.extend((False, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()
    fine, found = box
    if not fine:
        raise found
    return found
