"""Mining: background windows that pass the cascade so far, found by the detector's own scan.

A visit scans one image at all scales with a stride of one pixel. While many windows pass, a visit scans only a random
part of the image, so that the negatives of early stages come from many images and cost little. Once all images have
been visited, the next pass mirrors them and shifts the scales, which gives new windows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
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
from vj.scanning.planes import Planes, layout, resize
from vj.scanning.pyramid import Level, levels
from vj.scanning.scanner import Scanner

MAX_PASSES = 8
"""Passes over all images in one stage before the backgrounds count as used up."""

# More passes than a run ever makes.
_FAR = 1 << 20

# Each pass shifts its scales by this fraction of a scale step: no two passes use the same scales.
_GOLDEN = 0.618033988749895


@dataclass
class Harvest:
    """The negatives of one stage and what finding them took: the one place where mining counts.

    `Miner.mine` adds to it, so an interrupted search resumes from it.

    Parameters
    ----------
    joined : ndarray of uint8, shape (n, height, width)
        Negatives, first those that the last stage let through, then those found by mining.
    kept : int
        How many of them the last stage let through.
    parts : list of ndarray of uint8, shape (n, height, width)
        Windows found since; `windows` joins them.
    visits : int
        Images visited since the run began: which one comes next follows from it.
    first_visit : int
        Images visited before this stage.
    scanned : int
        Windows that the scan visited in this stage.
    hits : int
        Windows of these that passed all stages; more than were taken if some images had plenty.
    seconds : float
        Wall time of this stage's mining.
    exhausted : bool
        Whether the backgrounds were used up before enough was found.
    unreadable : dict
        Images that could not be used, with the reason.
    """

    joined: Windows
    kept: int = 0
    parts: list[Windows] = field(default_factory=list)
    visits: int = 0
    first_visit: int = 0
    scanned: int = 0
    hits: int = 0
    seconds: float = 0.0
    exhausted: bool = False
    unreadable: dict[int, str] = field(default_factory=dict)

    @property
    def found(self) -> int:
        """Number of windows found by mining."""
        return len(self.joined) - self.kept + sum(len(part) for part in self.parts)

    @property
    def acceptance(self) -> float:
        """Share of the windows scanned that passed all stages."""
        return self.hits / self.scanned if self.scanned else 0.0

    @property
    def windows(self) -> Windows:
        """All negatives, those kept first; shape (n, height, width)."""
        if self.parts:
            # Kept joined, so that no window is held twice.
            self.joined, self.parts = np.concatenate([self.joined, *self.parts]), []
        return self.joined

    def next_stage(self, kept: Windows) -> Harvest:
        """Return the harvest of the next stage, which starts with the negatives `kept`."""
        return Harvest(kept, len(kept), visits=self.visits, first_visit=self.visits, unreadable=self.unreadable)


@dataclass(frozen=True)
class Job:
    """One visit: which image, how it is mirrored and shrunk, how many windows may be taken, what share should pass."""

    visit: int
    image: int
    mirror: bool
    offset: float
    cap: int
    share: float


@dataclass(frozen=True)
class Found:
    """What a visit came to: windows taken, windows scanned, windows that passed, and why an image cannot be used."""

    windows: Windows
    scanned: int
    hits: int
    error: str | None = None


Count = tuple[int, npt.NDArray[np.int64]]
"""Windows scanned, and how many of them reached each stage and passed all."""

# Result of a visit to an image that cannot be used.
_NOTHING = Found(np.zeros((0, 0, 0), dtype=np.uint8), 0, 0)


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
        Whether features are LBP, which has no contrast gate.
    overlap : float
        Largest intersection over union of a window with a labelled object; see `MaskedImage`.
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
        overlap: float = 0.0,
    ) -> None:
        self.backgrounds, self.window, self.workers = backgrounds, window, workers
        self.seed, self.scale_factor, self.lbp, self.overlap = seed, scale_factor, lbp, overlap

    def harvest(self) -> Harvest:
        """Return an empty harvest, to start a run with."""
        return Harvest(np.zeros((0, self.window[1], self.window[0]), dtype=np.uint8))

    def unseen(self) -> Harvest:
        """Return an empty harvest whose windows no stage of the run has seen, however many it took."""
        harvest = self.harvest()
        harvest.visits = harvest.first_visit = _FAR * len(self.backgrounds)
        return harvest

    def mine(
        self,
        cascade: Cascade | None,
        wanted: int,
        expected: float,
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
            Estimate of the share of windows that pass; determines how large a part of an image a visit scans.
        harvest : Harvest, optional
            Windows and counts so far, which are added to; by default an empty one.
        progress : callable, optional
            Called after every image.

        Returns
        -------
        Harvest
            The same one.
        """
        harvest = harvest if harvest is not None else self.harvest()
        start = perf_counter() - harvest.seconds
        unreadable = harvest.unreadable
        jobs = self._jobs(wanted, expected, harvest.visits, harvest.first_visit)
        results = self._visits(cascade, jobs, harvest, wanted)
        found = harvest.found
        with closing(results):
            while found < wanted:
                job, result = next(results, (None, None))
                if job is None or result is None:
                    harvest.exhausted = True
                    break
                # First, so that an interrupt between these lines loses windows rather than taking them twice.
                harvest.visits = job.visit + 1
                if result.error is not None:
                    unreadable.setdefault(job.image, result.error)
                harvest.scanned += result.scanned
                harvest.hits += result.hits
                if len(result.windows):
                    harvest.parts.append(result.windows[: wanted - found])
                    found += len(harvest.parts[-1])
                harvest.seconds = perf_counter() - start
                if progress is not None:
                    progress(harvest)
        harvest.seconds = perf_counter() - start
        return harvest

    def count(
        self, cascade: Cascade, wanted: int, windows: tuple[int, int], progress: Callable[[int], None] | None = None
    ) -> tuple[int, npt.NDArray[np.int64]]:
        """Count how many stages background windows pass, at scales that were not mined.

        Parameters
        ----------
        cascade : Cascade
        wanted : int
            The scan ends once this many windows have reached the last stage.
        windows : (int, int)
            Fewest windows scanned, since a single image is no sample, and most. The scan passes over the backgrounds
            once, so there may be fewer.
        progress : callable, optional
            Called after every image with the number of windows scanned so far.

        Returns
        -------
        scanned : int
        reached : ndarray of int64, shape (n_stages + 1,)
            Windows that reached each stage, and that passed all of them.
        """
        n, first = len(self.backgrounds), _FAR * len(self.backgrounds)
        jobs = itertools.islice(self._jobs(1, 0.0, first, first), n)
        scanned, reached = 0, np.zeros(cascade.n_stages + 1, dtype=np.int64)
        with closing(self._counts(cascade, jobs)) as results:
            for found in results:
                scanned, reached = scanned + found[0], reached + found[1]
                if progress is not None:
                    progress(scanned)
                if scanned >= windows[1] or (scanned >= windows[0] and reached[-2] >= wanted):
                    break
        return scanned, reached

    def _visits(
        self, cascade: Cascade | None, jobs: Iterator[Job], harvest: Harvest, wanted: int
    ) -> Generator[tuple[Job, Found], None, None]:
        """Yield each job with what its visit found, in order, computing only a few ahead."""
        scanner = Scanner(cascade) if cascade is not None else None
        return self.workers.map(
            lambda job: (job, _NOTHING if job.image in harvest.unreadable else self._visit(scanner, job)), jobs
        )

    def _counts(self, cascade: Cascade, jobs: Iterator[Job]) -> Generator[Count, None, None]:
        """Yield the windows of each job, all of them and those that reach each stage, in order."""
        scanner = Scanner(cascade)
        return self.workers.map(lambda job: self._count(scanner, job), jobs)

    def _count(self, scanner: Scanner, job: Job) -> Count:
        scanned, reached = 0, np.zeros(scanner.cascade.n_stages + 1, dtype=np.int64)
        try:
            image = self._image(job)
        except InputError:
            return scanned, reached
        for level, planes in self._levels(scanner, image.gray):
            if len(image.boxes):
                # Slower, but which windows passed is known of each, and objects must not count.
                free = scanner.depths(planes, level.rows, level.columns)[0][~image.forbidden(level)]
                scanned += len(free)
                reached += [int(np.count_nonzero(free >= k)) for k in range(len(reached))]
            else:
                result = scanner.count(planes, level.rows, level.columns, False)
                scanned += result.windows
                reached += [*result.entered, result.hits]
        return scanned, reached

    def _jobs(self, wanted: int, expected: float, next_visit: int, first: int) -> Iterator[Job]:
        """Visits from where mining stopped; a cap keeps one image from supplying most of the negatives."""
        n = len(self.backgrounds)
        cap = max(2, -(-4 * wanted // n))
        order = self._order(next_visit // n)
        for visit in range(next_visit, first + MAX_PASSES * n):
            lap, place = divmod(visit, n)
            if place == 0:
                order = self._order(lap)
            image = int(order[place])
            # Later passes of a stage take all they find: negatives are scarce by then.
            room = cap if visit < first + n else wanted
            yield Job(visit, image, lap % 2 == 1, (lap * _GOLDEN) % 1.0 if lap else 0.0, room, expected)

    def _order(self, lap: int) -> npt.NDArray[np.int64]:
        """Return the order in which a pass visits the images."""
        return np.random.default_rng((self.seed, 2, lap)).permutation(len(self.backgrounds))

    def _visit(self, scanner: Scanner | None, job: Job) -> Found:
        try:
            image = self._image(job)
        except InputError as error:
            return replace(_NOTHING, error=str(error))
        rng = np.random.default_rng((self.seed, 3, job.visit))
        if scanner is None:
            return self._sample(image, job.cap, rng)
        return self._scan(scanner, self._part(image, job, rng), job.cap, rng)

    def _image(self, job: Job) -> MaskedImage:
        """Return the image of a visit, mirrored and shrunk as the pass requires."""
        gray: Gray = self.backgrounds[job.image]
        if gray.shape[0] < self.window[1] or gray.shape[1] < self.window[0]:
            name = self.backgrounds.name(job.image)
            size = f"{gray.shape[1]}x{gray.shape[0]}"
            raise InputError(f"{name}: expected an image at least as large as the window, got {size}")
        image = MaskedImage(gray, self.backgrounds.boxes(job.image), self.overlap)
        return self._shrunk(image.mirrored() if job.mirror else image, job.offset)

    def _shrunk(self, image: MaskedImage, offset: float) -> MaskedImage:
        """Shrink by a fraction of a scale step, so that all scales of the pyramid are new."""
        if offset == 0.0:
            return image
        factor = self.scale_factor**offset
        width, height = round(image.gray.shape[1] / factor), round(image.gray.shape[0] / factor)
        if width < self.window[0] or height < self.window[1]:
            return image
        return image.resized((width, height))

    def _part(self, image: MaskedImage, job: Job, rng: np.random.Generator) -> MaskedImage:
        """Cut out a random part that should yield about twice as many windows as may be taken."""
        height, width = image.gray.shape
        # At a scale factor of 1.1 an image has 5.8 windows per pixel.
        likely = width * height * job.share / (1 - self.scale_factor**-2)
        side = np.sqrt(min(1.0, 2 * job.cap / max(likely, 1e-9)))
        w = min(width, max(4 * self.window[0], int(side * width)))
        h = min(height, max(4 * self.window[1], int(side * height)))
        x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        return image.part(x, y, w, h)

    def _sample(self, image: MaskedImage, cap: int, rng: np.random.Generator) -> Found:
        """Take windows at random positions and scales, each window with the same chance."""
        gray = image.gray
        grid = levels((gray.shape[1], gray.shape[0]), self.window, self.scale_factor, stride=1)
        counts = np.array([level.rows * level.columns for level in grid])
        picks = np.sort(rng.choice(int(counts.sum()), min(cap, int(counts.sum())), replace=False))
        starts = np.concatenate([[0], np.cumsum(counts)])
        windows = [np.zeros((0, self.window[1], self.window[0]), dtype=np.uint8)]
        for k, level in enumerate(grid):
            here = picks[(picks >= starts[k]) & (picks < starts[k + 1])] - starts[k]
            if len(here) and len(image.boxes):
                here = here[~image.forbidden(level).reshape(-1)[here]]
            if len(here):
                ys, xs = np.divmod(here, level.columns)
                windows.append(_cut(resize(gray, level.size), xs, ys, self.window))
        taken = np.concatenate(windows)
        scanned = len(taken)
        taken = taken if self.lbp else taken[has_contrast(taken)]
        return Found(taken, scanned, len(taken))

    def _scan(self, scanner: Scanner, image: MaskedImage, cap: int, rng: np.random.Generator) -> Found:
        windows, scanned = [], 0
        for level, planes in self._levels(scanner, image.gray):
            result = scanner.scan(planes, level.rows, level.columns, False)
            scanned += result.windows
            xs, ys = result.xs, result.ys
            if len(image.boxes):
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
        return Found(np.concatenate(taken), scanned, total)

    def _levels(self, scanner: Scanner, gray: Gray) -> Iterator[tuple[Level, Planes]]:
        """Yield every level of an image that has windows, whole, with windows one pixel apart."""
        for level in levels((gray.shape[1], gray.shape[0]), self.window, self.scale_factor, stride=1):
            if level.rows and level.columns:
                shape = layout(level.size[0], 1, scanner.cascade.has_tilted)
                yield level, level.planes(gray, (0, level.rows), shape)


def _cut(image: Gray, xs: npt.NDArray[np.integer], ys: npt.NDArray[np.integer], window: tuple[int, int]) -> Windows:
    width, height = window
    views = np.lib.stride_tricks.sliding_window_view(image, (height, width))
    return np.ascontiguousarray(views[ys, xs])
