"""Mining: windows of backgrounds that the cascade so far takes for the object, found by the detector's own scan.

A visit looks at one picture at all scales, on the dense grid. While the cascade still lets much through, a visit sees
only a random part of the picture, so that the negatives of early stages come from many pictures and cost little. When
all pictures have been visited, the next pass mirrors them and shifts the scales, so that it sees new windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import numpy.typing as npt

from vj._types import Gray
from vj.boosting.masking import MaskedImage
from vj.boosting.samples import Windows, has_contrast
from vj.boosting.workers import Workers
from vj.cascade.model import Cascade
from vj.datasets.backgrounds import Backgrounds
from vj.errors import InputError
from vj.scanning.planes import layout, resize
from vj.scanning.pyramid import levels
from vj.scanning.scanner import Scanner

MAX_PASSES = 8
"""Passes over all pictures in one stage before backgrounds count as used up."""

# More passes than a run ever makes.
_FAR = 1 << 20

# A pass starts at the scale that many golden sections of a scale step further: no two passes see the same scales.
_GOLDEN = 0.618033988749895


@dataclass
class Harvest:
    """What mining has brought to a stage so far; mining goes on from it after an interruption.

    Parameters
    ----------
    parts : list of ndarray of uint8, shape (n, height, width)
        Windows found.
    first_visit : int
        Pictures visited before this stage.
    scanned : int
        Windows that the scan visited.
    accepted : int
        Windows that passed the cascade; more than were taken if some pictures had plenty.
    seconds : float
    exhausted : bool
        Whether the backgrounds were used up before enough was found.
    """

    parts: list[Windows] = field(default_factory=list)
    first_visit: int = 0
    scanned: int = 0
    accepted: int = 0
    seconds: float = 0.0
    exhausted: bool = False

    @property
    def found(self) -> int:
        """Number of windows found."""
        return sum(len(part) for part in self.parts)

    @property
    def acceptance(self) -> float:
        """Share of the windows scanned that passed."""
        return self.accepted / self.scanned if self.scanned else 0.0

    def windows(self, window: tuple[int, int]) -> Windows:
        """Return all windows found; shape (n, height, width)."""
        return np.concatenate([np.zeros((0, window[1], window[0]), dtype=np.uint8), *self.parts])


@dataclass(frozen=True)
class _Job:
    visit: int
    picture: int
    mirror: bool
    offset: float
    cap: int
    share: float


@dataclass(frozen=True)
class _Found:
    windows: Windows
    scanned: int
    accepted: int
    error: str | None = None


class Miner:
    """Finds negatives in backgrounds.

    Parameters
    ----------
    backgrounds : Backgrounds
    window : (int, int)
        Width and height.
    workers : Workers
    seed : int
    scale_factor : float
    lbp : bool
        LBP has no contrast gate.
    """

    def __init__(
        self,
        backgrounds: Backgrounds,
        window: tuple[int, int],
        workers: Workers,
        *,
        seed: int,
        scale_factor: float,
        lbp: bool,
    ) -> None:
        self.backgrounds, self.window, self.workers = backgrounds, window, workers
        self.seed, self.scale_factor, self.lbp = seed, scale_factor, lbp
        self.visits = 0
        self.unreadable: dict[int, str] = {}

    def another(self) -> Miner:
        """Return a miner of the same backgrounds whose windows no stage has seen, whatever their number."""
        other = Miner(
            self.backgrounds,
            self.window,
            self.workers,
            seed=self.seed,
            scale_factor=self.scale_factor,
            lbp=self.lbp,
        )
        other.visits = _FAR * len(self.backgrounds)
        return other

    def mine(
        self,
        cascade: Cascade | None,
        wanted: int,
        expected: float,
        *,
        harvest: Harvest | None = None,
        progress: Callable[[Harvest], None] | None = None,
    ) -> Harvest:
        """Find `wanted` windows that pass `cascade`, or as many as the backgrounds hold.

        Parameters
        ----------
        cascade : Cascade or None
            None takes any window with contrast.
        wanted : int
        expected : float
            Estimate of the share of windows that pass; decides how much of a picture a visit scans.
        harvest : Harvest, optional
            Of an interrupted call, to go on from.
        progress : callable, optional
            Called after every picture.

        Returns
        -------
        Harvest
        """
        harvest = harvest or Harvest(first_visit=self.visits)
        start = perf_counter() - harvest.seconds
        scanner = Scanner(cascade) if cascade is not None else None
        results = self.workers.map(
            lambda job: (job, self._visit(scanner, job)), self._jobs(wanted, expected, harvest.first_visit)
        )
        found = harvest.found
        with closing(results):
            while found < wanted:
                job, result = next(results, (None, None))
                if job is None or result is None:
                    harvest.exhausted = True
                    break
                self.visits = job.visit + 1
                if result.error is not None:
                    self.unreadable.setdefault(job.picture, result.error)
                harvest.scanned += result.scanned
                harvest.accepted += result.accepted
                if len(result.windows):
                    harvest.parts.append(result.windows[: wanted - found])
                    found += len(harvest.parts[-1])
                harvest.seconds = perf_counter() - start
                if progress is not None:
                    progress(harvest)
        harvest.seconds = perf_counter() - start
        return harvest

    def _jobs(self, wanted: int, expected: float, first: int) -> Iterator[_Job]:
        """Visits from where mining stopped; caps keep one picture from supplying most negatives."""
        n = len(self.backgrounds)
        cap = max(2, -(-4 * wanted // n))
        order = self._order(self.visits // n)
        for visit in range(self.visits, first + MAX_PASSES * n):
            lap, place = divmod(visit, n)
            if place == 0:
                order = self._order(lap)
            picture = int(order[place])
            # Later passes of one stage take all they find: by then negatives are scarce.
            room = cap if visit < first + n else wanted
            yield _Job(visit, picture, lap % 2 == 1, (lap * _GOLDEN) % 1.0 if lap else 0.0, room, expected)

    def _order(self, lap: int) -> npt.NDArray[np.int64]:
        """Order in which a pass visits the pictures."""
        return np.random.default_rng((self.seed, 2, lap)).permutation(len(self.backgrounds))

    def _visit(self, scanner: Scanner | None, job: _Job) -> _Found:
        empty = np.zeros((0, self.window[1], self.window[0]), dtype=np.uint8)
        if job.picture in self.unreadable:
            return _Found(empty, 0, 0)
        try:
            gray: Gray = self.backgrounds[job.picture]
        except InputError as error:
            return _Found(empty, 0, 0, str(error))
        if gray.shape[0] < self.window[1] or gray.shape[1] < self.window[0]:
            name = self.backgrounds.name(job.picture)
            size = f"{gray.shape[1]}x{gray.shape[0]}"
            return _Found(empty, 0, 0, f"{name}: expected a picture at least as large as the window, got {size}")
        rng = np.random.default_rng((self.seed, 3, job.visit))
        image = MaskedImage(gray, self.backgrounds.boxes(job.picture))
        if job.mirror:
            image = image.mirrored()
        image = self._shrunk(image, job.offset)
        if scanner is None:
            return self._sample(image, job.cap, rng)
        return self._scan(scanner, self._part(image, job, rng), job.cap, rng)

    def _shrunk(self, image: MaskedImage, offset: float) -> MaskedImage:
        """Shrink by a part of a scale step, so that all scales of the pyramid are new ones."""
        if offset == 0.0:
            return image
        factor = self.scale_factor**offset
        width, height = round(image.gray.shape[1] / factor), round(image.gray.shape[0] / factor)
        if width < self.window[0] or height < self.window[1]:
            return image
        return image.resized((width, height))

    def _part(self, image: MaskedImage, job: _Job, rng: np.random.Generator) -> MaskedImage:
        """Cut out a random part, as large as should yield twice what may be taken from it."""
        height, width = image.gray.shape
        # At a scale factor of 1.1 a picture has 5.8 windows for each pixel.
        likely = width * height * job.share / (1 - self.scale_factor**-2)
        side = np.sqrt(min(1.0, 2 * job.cap / max(likely, 1e-9)))
        w = min(width, max(4 * self.window[0], int(side * width)))
        h = min(height, max(4 * self.window[1], int(side * height)))
        x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        return image.part(x, y, w, h)

    def _sample(self, image: MaskedImage, cap: int, rng: np.random.Generator) -> _Found:
        """Take windows at random places and scales, as often at each scale as it has windows."""
        gray, masked = image.gray, len(image.boxes) > 0
        size = (gray.shape[1], gray.shape[0])
        grid = levels(size, self.window, self.scale_factor, stride=1)
        counts = np.array([level.rows * level.columns for level in grid])
        picks = np.sort(rng.choice(int(counts.sum()), min(cap, int(counts.sum())), replace=False))
        starts = np.concatenate([[0], np.cumsum(counts)])
        windows = [np.zeros((0, self.window[1], self.window[0]), dtype=np.uint8)]
        for k, level in enumerate(grid):
            here = picks[(picks >= starts[k]) & (picks < starts[k + 1])] - starts[k]
            if masked and len(here):
                here = here[~image.forbidden(level).reshape(-1)[here]]
            if len(here):
                ys, xs = np.divmod(here, level.columns)
                windows.append(_cut(resize(gray, level.size), xs, ys, self.window))
        taken = np.concatenate(windows)
        scanned = len(taken)
        taken = taken if self.lbp else taken[has_contrast(taken)]
        return _Found(taken, scanned, len(taken))

    def _scan(self, scanner: Scanner, image: MaskedImage, cap: int, rng: np.random.Generator) -> _Found:
        gray, masked = image.gray, len(image.boxes) > 0
        size = (gray.shape[1], gray.shape[0])
        windows, scanned = [], 0
        for level in levels(size, self.window, self.scale_factor, stride=1):
            if not level.rows or not level.columns:
                continue
            planes = level.planes(gray, (0, level.rows), layout(level.size[0], 1, scanner.cascade.has_tilted))
            result = scanner.scan_planes(planes, level.rows, level.columns, False)
            scanned += result.windows
            xs, ys = result.xs, result.ys
            if masked:
                forbidden = image.forbidden(level)
                scanned -= int(np.count_nonzero(forbidden))
                free = ~forbidden[ys, xs]
                xs, ys = xs[free], ys[free]
            if len(xs):
                windows.append((planes.image, xs, ys))
        total = sum(len(xs) for _, xs, _ in windows)
        picks = np.sort(rng.choice(total, cap, replace=False)) if total > cap else np.arange(total)
        taken, start = [np.zeros((0, self.window[1], self.window[0]), dtype=np.uint8)], 0
        for level_image, xs, ys in windows:
            here = picks[(picks >= start) & (picks < start + len(xs))] - start
            start += len(xs)
            taken.append(_cut(level_image, xs[here], ys[here], self.window))
        return _Found(np.concatenate(taken), scanned, total)


def _cut(image: Gray, xs: npt.NDArray[np.integer], ys: npt.NDArray[np.integer], window: tuple[int, int]) -> Windows:
    width, height = window
    views = np.lib.stride_tricks.sliding_window_view(image, (height, width))
    return np.ascontiguousarray(views[ys, xs])
