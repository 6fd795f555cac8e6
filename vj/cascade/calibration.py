"""What a score is worth: the probability that a detection is an object, stored with the cascade.

OpenCV reads only the elements it knows by name, and ignores the one that holds it.
Fitting is not done here: see `vj.tiers.calibration` and ``vj-calibrate``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from vj.errors import InputError

MAX_KNOTS = 5_000
"""Most knots of a curve; isotonic regression on 690 detections gave 26."""

TAG = "calibration"


@dataclass(frozen=True, eq=False)
class ScoreCalibration:
    """From a detection's score to the probability that it is an object: straight between knots, flat beyond them.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
        The knots, strictly rising; n from 1 to `MAX_KNOTS`.
    probabilities : ndarray of float64, shape (n,)
        At the knots: never falling, from 0 to 1.
    detections : int
        How many detections it was fitted on; at least 1.
    source : str
        The labelled images and settings it was fitted with, in words.

    Raises
    ------
    InputError
        If anything is out of range.
    """

    scores: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]
    detections: int
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("scores", "probabilities"):
            array = np.array(getattr(self, name), dtype=np.float64, order="C")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        scores, probabilities = self.scores, self.probabilities
        if scores.ndim != 1 or scores.shape != probabilities.shape or not 1 <= len(scores) <= MAX_KNOTS:
            raise InputError(
                f"expected a calibration of 1 to {MAX_KNOTS} scores and as many probabilities, "
                f"got {scores.shape} and {probabilities.shape}"
            )
        # The difference of two finite numbers may overflow to infinity, which still rises.
        with np.errstate(over="ignore"):
            rises = bool((np.diff(scores) > 0).all())
        if not np.isfinite(scores).all() or not rises:
            raise InputError("expected a calibration with finite scores that rise, got others")
        if not (np.diff(probabilities) >= 0).all() or not 0 <= probabilities[0] <= probabilities[-1] <= 1:
            raise InputError("expected a calibration with probabilities from 0 to 1 that never fall, got others")
        if self.detections < 1:
            raise InputError(f"expected a calibration made from at least one detection, got {self.detections}")
        object.__setattr__(self, "source", " ".join(self.source.split()))

    def __eq__(self, other: object) -> bool:
        """Whether both give the same probabilities, to the bit, and came from the same."""
        if not isinstance(other, ScoreCalibration):
            return NotImplemented
        return (
            np.array_equal(self.scores, other.scores)
            and np.array_equal(self.probabilities, other.probabilities)
            and (self.detections, self.source) == (other.detections, other.source)
        )

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the probability at each score; float64, the shape of `scores`."""
        return np.asarray(
            np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.probabilities), dtype=np.float64
        )


def read_element(parent: Any) -> ScoreCalibration | None:
    """Return the calibration below a cascade's element, or None if it has none.

    Raises
    ------
    InputError
        If there is one that cannot be used.
    """
    element = parent.find(TAG)
    if element is None:
        return None
    numbers = [_floats(element, name) for name in ("scores", "probabilities")]
    count = (element.findtext("detections") or "").strip()
    if not re.fullmatch(r"[0-9]{1,12}", count):
        raise InputError(f"expected the calibration's number of detections, got {count[:40]!r}")
    source = (element.findtext("source") or "").strip().removeprefix('"').removesuffix('"')
    return ScoreCalibration(np.array(numbers[0]), np.array(numbers[1]), int(count), source)


def _floats(element: Any, name: str) -> list[float]:
    words = (element.findtext(name) or "").split()
    try:
        return [float(word) for word in words]
    except ValueError:
        raise InputError(f"expected numbers in the calibration's {name}, got {' '.join(words)[:60]!r}") from None


def to_lines(calibration: ScoreCalibration) -> Iterator[str]:
    """Yield the lines of the element that `read_element` reads back equal, to the last bit."""
    yield f"  <{TAG}>"
    for name in ("scores", "probabilities"):
        # `repr` gives the fewest digits that come back as the same float64.
        words = [repr(float(value)) for value in getattr(calibration, name)]
        yield f"    <{name}>"
        yield from (f"      {' '.join(words[k : k + 6])}" for k in range(0, len(words), 6))
        yield f"    </{name}>"
    yield f"    <detections>{calibration.detections}</detections>"
    text = escape(calibration.source, {'"': "&quot;", "'": "&apos;"})
    yield f'    <source>"{text}"</source>'
    yield f"  </{TAG}>"


def put_into(text: str, calibration: ScoreCalibration) -> str:
    """Return the text of a cascade's file with this calibration in the place of the one it may have.

    All else stays as it is: comments, licences, and elements that only others know.

    Parameters
    ----------
    text : str
        A file that `vj.load` reads.
    calibration : ScoreCalibration

    Raises
    ------
    InputError
        If the end of the cascade is not found.
    """
    block = "\n".join(to_lines(calibration)) + "\n"
    text = re.sub(rf"[ \t]*<{TAG}>.*?</{TAG}>[ \t]*\n?", "", text, flags=re.DOTALL)
    end = re.search(r"[ \t]*</[^<>]+>\s*</opencv_storage>\s*(<!--.*-->\s*)?\Z", text, flags=re.DOTALL)
    if end is None:
        raise InputError("expected a file that ends with its cascade and </opencv_storage>, got another end")
    head = text[: end.start()]
    return f"{head}{'' if head.endswith(chr(10)) else chr(10)}{block}{text[end.start() :]}"
