"""Waking up when an object comes into view: cheap looks at every image, heavy ones only where these see something.

The tiers, from cheap to heavy: whether the image changed at all; the first stages of a cascade at coarse steps; the
whole cascade; a heavy detector. Each is asked only if the one before it said yes, and where nothing changed the last
verdict stands.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vj._types import Image
from vj.cascade.model import Cascade
from vj.detector import Detections, Detector
from vj.errors import InputError
from vj.tiers.detectors import FallbackWarning, ImageDetector, asked, own_probabilities, shrunk

WAKE, SLEEP = "wake", "sleep"

COARSE_STAGES = 0.8
"""Share of the stages in the coarse look. With 12 of the 15 stages of the packaged cascade, steps of 1.2 and a stride
of 2 it passes 99.6 % of the images in which the whole cascade finds a face (283 of FDDB), and 32 % of 69 images without
faces, at 1.6 ms instead of 4.9; with 8 stages it passes 90 % of these, at the same cost."""
COARSE_FACTOR, COARSE_STRIDE = 1.2, 2

SMALLEST = 10
"""By default the smallest object is this part of the image's shorter side."""


class Motion:
    """Whether an image differs from the last one that differed.

    Images are averaged over square cells, which takes out the noise of a sensor. Compared is the last image that was
    reported as changed, rather than the one just before, so that slow changes add up and are seen.

    Parameters
    ----------
    cell : int
        Side of a cell in pixels: a quarter of the smallest object's side, say.
    level : float
        Grey levels by which a cell has to change. Noise of 8 levels a pixel is 1.3 in the mean of 6x6.
    cells : int
        Number of cells that have to change.

    Raises
    ------
    InputError
        If a number is not positive.
    """

    def __init__(self, cell: int, level: float = 10.0, cells: int = 2) -> None:
        if cell < 1 or not level > 0 or cells < 1:
            raise InputError(f"expected a cell, level and cells above 0, got {cell}, {level} and {cells}")
        self.cell, self.level, self.cells = cell, level, cells
        self._last: npt.NDArray[np.int16] | None = None

    def changed(self, image: Image) -> bool:
        """Return whether an image (h, w, 3) BGR or (h, w) grey has changed; the first one has."""
        import cv2

        size = (max(1, image.shape[1] // self.cell), max(1, image.shape[0] // self.cell))
        small = shrunk(image, size)
        gray = (small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)).astype(np.int16)
        last = self._last
        if last is not None and last.shape == gray.shape:
            different = np.count_nonzero(np.abs(gray - last) > self.level)
            if different < self.cells:
                return False
        self._last = gray
        return True

    def forget(self) -> None:
        """Take the next image as changed."""
        self._last = None


class Hysteresis:
    """Turns verdicts about single images into waking and falling asleep.

    Parameters
    ----------
    on, of : int
        Awake once the object was there in `on` of the last `of` images.
    off : int
        Asleep after this many images in a row without it.

    Raises
    ------
    InputError
        If a number is not positive, or `on` exceeds `of`.
    """

    def __init__(self, on: int = 2, of: int = 3, off: int = 15) -> None:
        if not 1 <= on <= of or off < 1:
            raise InputError(
                f"expected to wake after N of N or more images and to sleep after 1 or more, got {on}/{of} and {off}"
            )
        self.on, self.off = on, off
        self._recent: deque[bool] = deque(maxlen=of)
        self._quiet = 0
        self.awake = False

    def update(self, present: bool) -> str:
        """Take the next verdict; return `WAKE`, `SLEEP`, or an empty text if nothing changes."""
        self._recent.append(present)
        self._quiet = 0 if present else self._quiet + 1
        if not self.awake and sum(self._recent) >= self.on:
            self.awake = True
            return WAKE
        if self.awake and self._quiet >= self.off:
            self.awake = False
            # What was seen before it fell asleep must not count towards waking again.
            self._recent.clear()
            return SLEEP
        return ""


class Look(NamedTuple):
    """A tier: a detector and how likely a detection has to be.

    Parameters
    ----------
    name : str
    detector : ImageDetector
    least : float or None
        Least probability, or score where these lie from 0 to 1; None if any detection will do.
    """

    name: str
    detector: ImageDetector
    least: float | None = None


@dataclass
class Spent:
    """What was asked of a tier.

    Parameters
    ----------
    name : str
    asked, passed, failed : int
        Images that it was asked about, those in which it saw something, and those to which it gave no answer.
    seconds : float
        Wall time of them all.
    """

    name: str
    asked: int = 0
    passed: int = 0
    failed: int = 0
    seconds: float = 0.0


class Seen(NamedTuple):
    """What became of an image.

    Parameters
    ----------
    present : bool
        The object is there: the last tier that was asked says so, or the last verdict in an image that did not change.
    event : str
        `WAKE`, `SLEEP` or empty.
    asked : int
        Tiers asked, with the difference to the last image as the first.
    detections : Detections
        Of the last tier asked; those of the last verdict where nothing changed.
    """

    present: bool
    event: str
    asked: int
    detections: Detections


@dataclass
class WakeUp:
    """Looks at one image after the other.

    If a tier gives no answer, the next one is asked; if the last gives none, the verdict of those before it stands, and
    the object counts as absent if there is none. That is a `FallbackWarning`, and the next image is looked at even if
    it does not change.

    Parameters
    ----------
    looks : sequence of Look
        From cheap to heavy; at least one.
    motion : Motion
    hysteresis : Hysteresis
    clock : callable
        Returns seconds.

    Attributes
    ----------
    spent : list of Spent
        The difference between images, then one for each look.
    whole : float
        Seconds that the last tier takes for an image; see `measure`.
    """

    looks: Sequence[Look]
    motion: Motion
    hysteresis: Hysteresis = field(default_factory=Hysteresis)
    clock: Callable[[], float] = time.perf_counter
    spent: list[Spent] = field(init=False)
    whole: float = field(init=False, default=0.0)
    frames: int = field(init=False, default=0)
    awake: int = field(init=False, default=0)
    _last: tuple[bool, Detections] = field(init=False, default=(False, None), repr=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not self.looks:
            raise InputError("expected at least one tier to look with, got none")
        self.spent = [Spent(name) for name in ("difference", *(look.name for look in self.looks))]
        self._last = (False, nothing())

    def measure(self, image: Image) -> None:
        """Ask every tier about an image, so that all is compiled and loaded, and time the last one; counts nothing."""
        for look in self.looks:
            _, failure = asked(look.detector, image)
            if failure:
                raise InputError(f"expected {look.name} to answer, got {failure}")
        start = self.clock()
        asked(self.looks[-1].detector, image)
        self.whole = self.clock() - start

    def see(self, image: Image) -> Seen:
        """Look at the next image, (h, w, 3) BGR or (h, w) grey."""
        start = self.clock()
        changed = self.motion.changed(image)
        self._count(0, changed, start)
        depth = 1
        present, detections = self._last
        if changed:
            present, detections, depth = self._ask(image)
            self._last = (present, detections)
        event = self.hysteresis.update(present)
        self.frames += 1
        self.awake += self.hysteresis.awake
        return Seen(present, event, depth, detections)

    def _ask(self, image: Image) -> tuple[bool, Detections, int]:
        present, detections = False, nothing()
        for k, look in enumerate(self.looks, 1):
            start = self.clock()
            found, failure = _looked(look, image)
            self._count(k, found is not None and len(found) > 0, start)
            if found is None:
                self.spent[k].failed += 1
                self.motion.forget()
                warnings.warn(f"{look.name} gave no answer: {failure}", FallbackWarning, stacklevel=3)
                continue
            present, detections = len(found) > 0, found
            if not present:
                return False, detections, k + 1
        return present, detections, len(self.looks) + 1

    def _count(self, k: int, passed: bool, start: float) -> None:
        one = self.spent[k]
        one.asked += 1
        one.passed += passed
        one.seconds += self.clock() - start

    def report(self) -> dict[str, Any]:
        """Return what was asked and what it saved, as plain numbers for JSON.

        What the last tier would have taken on every image is estimated: the mean over those that it was asked about,
        or, if there are none, what `measure` found.
        """
        last = self.spent[-1]
        spent = sum(one.seconds for one in self.spent)
        each = last.seconds / last.asked if last.asked else self.whole
        alone = each * self.frames
        return {
            "frames": self.frames,
            "awake_frames": self.awake,
            "tiers": [
                {
                    "name": one.name,
                    "asked": one.asked,
                    "passed": one.passed,
                    "failed": one.failed,
                    "milliseconds": round(1000 * one.seconds / one.asked, 3) if one.asked else None,
                    "seconds": round(one.seconds, 3),
                }
                for one in self.spent
            ],
            "seconds": round(spent, 3),
            "last_tier_alone_seconds": round(alone, 3),
            "saved": round(1 - spent / alone, 4) if alone > 0 else None,
        }


def _looked(look: Look, image: Image) -> tuple[Detections | None, str]:
    found, failure = asked(look.detector, image)
    if found is None or look.least is None:
        return found, failure
    try:
        keep = own_probabilities(found) >= look.least
    except InputError as error:
        return None, str(error)
    return (found if keep.all() else found[keep]), ""


def nothing() -> Detections:
    """Return no detections."""
    return Detections(np.zeros((0, 4), np.int32), np.zeros(0), np.zeros(0, np.int32))


def smallest_object(shape: tuple[int, ...], window: tuple[int, int]) -> int:
    """Return the default for the smallest object in images of a shape (h, w, ...): see `SMALLEST`; a side in pixels."""
    return max(*window, min(shape[:2]) // SMALLEST)


def cascade_looks(cascade: Cascade, min_size: int | tuple[int, int], threads: int | None = None) -> list[Look]:
    """Return a cascade as two tiers: its first stages at coarse steps, and the whole.

    Parameters
    ----------
    cascade : Cascade
    min_size : int or (int, int)
        The smallest object: side, or width and height, in pixels.
    threads : int, optional
        As for `vj.Detector`.
    """
    stages = max(1, round(COARSE_STAGES * cascade.n_stages))
    coarse = Detector(
        cascade.truncated(stages),
        scale_factor=COARSE_FACTOR,
        stride=COARSE_STRIDE,
        min_neighbors=0,
        min_size=min_size,
        threads=threads,
    )
    whole = Detector(cascade, min_size=min_size, threads=threads)
    return [Look(f"{cascade.name}, {stages} stages", coarse), Look(cascade.name, whole)]
