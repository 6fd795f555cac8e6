"""Positives: found, cut out and jittered; every window is exactly what the trainer sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vj._files import as_url, store, stores
from vj._types import Floats
from vj.boosting.recipe import PositiveSource, TrainingConfig
from vj.boosting.samples import Windows, has_contrast
from vj.boosting.workers import Workers
from vj.datasets.crops import Jitter, Region, cut, region_of_box, region_of_landmarks
from vj.datasets.formats import guess_format, read_labelled, shown
from vj.datasets.labelled import FRONTAL, LabelledImage, Wanted, require_attributes
from vj.datasets.opencv_samples import read_vec
from vj.datasets.packaged import FACES, packaged_faces
from vj.errors import InputError
from vj.images import list_images, read_gray, to_gray

_UNKNOWN = (0.0, 0.0)

MOST_COPIES = 15
"""Copies that the trainer makes of its own accord."""

# An object: a part of an image file and the size of its box, a whole image (no region), or a ready window.
_Object = tuple[Path, Region | None, tuple[float, float]] | Windows


@dataclass(frozen=True)
class _Cut:
    """An object cut out: its windows, its image file, the size of its box, whether that touches the image's border."""

    copies: list[Windows]
    name: str
    size: tuple[float, float]
    at_border: bool = False


@dataclass(frozen=True)
class Positives:
    """Windows that show the object.

    Parameters
    ----------
    windows : ndarray of uint8, shape (n, height, width)
    groups : ndarray of int64, shape (n,)
        Number of the object: windows of the same object are held out together or not at all.
    notes : tuple of str
        What was left out and why.
    names : tuple of str
        The image file of each object, by its number; empty for windows that have no file of their own.
    sizes : ndarray of float64, shape (n_objects, 2)
        Width and height of each object's box or crop, by its number; 0 if unknown.
    boosted_only : ndarray of bool, shape (n,)
        Windows of sources on which no threshold is set.
    at_border : int
        Objects whose box touches the border of a larger image.
    """

    windows: Windows
    groups: npt.NDArray[np.int64]
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    sizes: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    boosted_only: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    at_border: int = 0

    def __post_init__(self) -> None:
        if not len(self.boosted_only):
            object.__setattr__(self, "boosted_only", np.zeros(len(self.groups), dtype=np.bool_))

    def take(self, kept: npt.NDArray[np.bool_]) -> Positives:
        """Return the windows at `kept` alone; objects keep their numbers."""
        return replace(self, windows=self.windows[kept], groups=self.groups[kept], boosted_only=self.boosted_only[kept])


def positives_from_arrays(crops: Sequence[npt.NDArray[np.uint8]], config: TrainingConfig) -> Positives:
    """Return crops resized to the window, with the copies that the configuration asks for.

    Parameters
    ----------
    crops : sequence of ndarray of uint8, shape (h, w) or (h, w, 3)
        Or one array of shape (n, h, w). Each shows one object and nothing else, at any size.
    config : TrainingConfig

    Returns
    -------
    Positives
    """
    if not len(crops):
        raise InputError("expected positives, got none")
    grays = [to_gray(crop) for crop in crops]
    config = replace(config, jitter=automatic_copies(config, len(grays)))
    copies = [_copies(gray, _whole(gray.shape, 0.0), config, index) for index, gray in enumerate(grays)]
    return replace(_collect(copies, config, []), sizes=np.array([gray.shape[::-1] for gray in grays], dtype=np.float64))


def load_positives(config: TrainingConfig, workers: Workers) -> Positives:
    """Read and cut out the positives of a recipe; images that cannot be read are left out and noted.

    Raises
    ------
    InputError
        If there is no source, a source cannot be read, or no positives are left.
    """
    if not config.positives:
        raise InputError("expected positives, got none")
    jobs: list[tuple[int, PositiveSource, _Object]] = []
    for source in map(local, config.positives):
        found = _find(source, config.window)
        if source.limit and len(found) > source.limit:
            rng = np.random.default_rng((config.seed, len(jobs)))
            found = [found[i] for i in np.sort(rng.choice(len(found), source.limit, replace=False))]
        jobs += [(len(jobs) + i, source, one) for i, one in enumerate(found)]

    copies = automatic_copies(config, len(jobs))

    def work(job: tuple[int, PositiveSource, _Object]) -> _Cut | str:
        index, source, one = job
        # A ready window has no surroundings to be shifted into, and most are distorted copies already.
        automatic = 0 if isinstance(one, np.ndarray) and config.jitter < 0 else copies
        own = replace(config, jitter=automatic if source.jitter < 0 else source.jitter)
        own = own if source.rotation < 0 else replace(own, rotation=source.rotation)
        if isinstance(one, np.ndarray):
            ready, _ = _flipped(one, None) if source.flip else (one, None)
            return _Cut(_copies(ready, _whole(one.shape, source.margin), own, index), "", one.shape[::-1])
        path, region, size = one
        try:
            gray = read_gray(path)
        except InputError as error:
            return str(error)
        if source.flip:
            gray, region = _flipped(gray, region)
        windows = _copies(gray, region or _whole(gray.shape, source.margin), own, index)
        if region is None:
            return _Cut(windows, str(path), (gray.shape[1], gray.shape[0]))
        return _Cut(windows, str(path), size, _touches(region, size, gray.shape))

    results = list(workers.map(work, jobs))
    used = [job for job, result in zip(jobs, results, strict=True) if not isinstance(result, str)]
    cuts = [result for result in results if not isinstance(result, str)]
    failures = [result for result in results if isinstance(result, str)]
    if not cuts:
        raise InputError(f"expected readable positives, got {len(failures)} failures, the first: {failures[0]}")
    names, sizes = tuple(original(cut.name) for cut in cuts), np.array([cut.size for cut in cuts], dtype=np.float64)
    collected = _collect([cut.copies for cut in cuts], config, failures)
    hard = np.array([not source.thresholds for _, source, _ in used], dtype=np.bool_)[collected.groups]
    borders = sum(cut.at_border for cut in cuts)
    groups = _first(used)[collected.groups]
    return replace(collected, groups=groups, names=names, sizes=sizes, boosted_only=hard, at_border=borders)


def local(source: PositiveSource) -> PositiveSource:
    """Return a source whose paths are of this machine: what lies at URLs is copied."""
    path, images = as_url(source.path), as_url(source.images) if source.images else None
    if path is None and images is None:
        return source
    return replace(
        source,
        path=source.path if path is None else store(path).copy(path),
        images=source.images if images is None else store(images).copy(images),
    )


def original(path: str) -> str:
    """Return the URL that a file is a copy of; see `local`."""
    return stores[0].original(path) if stores else path


def _flipped(gray: Windows, region: Region | None) -> tuple[Windows, Region | None]:
    """Flip an image and a part of it left and right."""
    mirrored = region and replace(region, cx=gray.shape[1] - region.cx)
    return np.ascontiguousarray(gray[:, ::-1]), mirrored


def _first(jobs: list[tuple[int, PositiveSource, _Object]]) -> npt.NDArray[np.int64]:
    """Return, for each object, the first that is the same part of the same file: two sources may name one face."""
    numbers: dict[tuple[Path, Region], int] = {}
    same = np.arange(len(jobs))
    for k, (_, _, one) in enumerate(jobs):
        if not isinstance(one, np.ndarray) and one[1] is not None:
            same[k] = numbers.setdefault((one[0], one[1]), k)
    return same


def automatic_copies(config: TrainingConfig, objects: int) -> int:
    """Return the jittered copies of each object: those asked for, or enough to train a stage on.

    Parameters
    ----------
    config : TrainingConfig
        Its `jitter` is negative where the number is left to the trainer.
    objects : int
        How many there are, those held out included.
    """
    if config.jitter >= 0:
        return config.jitter
    training = max(objects - int(config.holdout * objects), 1)
    wanted = -(-config.positives_per_stage // training) - (2 if config.mirror else 1)
    return min(max(wanted, 0), MOST_COPIES)


def without_held_out_copies(positives: Positives, held_out: npt.NDArray[np.bool_], originals: int) -> Positives:
    """Drop the copies of held-out objects: a threshold set on 40 objects must not look as if set on 400.

    Parameters
    ----------
    positives : Positives
    held_out : ndarray of bool, shape (n,)
    originals : int
        Windows of each object that come before its copies.
    """
    order = np.argsort(positives.groups, kind="stable")
    ranked = positives.groups[order]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    return positives.take(~held_out | (place < originals))


def _find(source: PositiveSource, window: tuple[int, int]) -> Sequence[_Object]:
    """Return the objects of a source: parts of images, whole images, or ready windows."""
    name, path = _format(source), Path(source.path)
    if name in _READY:
        if source.where or source.classes:
            given = f"--class {' '.join(source.classes)}" if source.classes else f"--where {shown(source.where)}"
            raise InputError(f"{source.path}: expected annotations for {given}, got {_READY[name]}")
        if name == "packaged":
            return list(packaged_faces())
        if name == "vec":
            return list(read_vec(path, window))
        paths = list_images(path)
        if not paths:
            raise InputError(f"{path}: expected images, got a folder without any")
        return [(one, None, _UNKNOWN) for one in paths]
    images = read_labelled(path, name, source.images or None, classes=source.classes, where=source.where)
    if source.frontal:
        require_attributes(images, ("blur", "occlusion", "pose"), "positives.frontal")
    wanted = FRONTAL if source.frontal else Wanted()
    found: list[_Object] = []
    for image in images:
        large = image.boxes[:, 2:].min(axis=1) >= source.min_size
        for k in np.flatnonzero(~wanted.ignored(image) & large):
            width, height = image.boxes[k, 2:].tolist() if source.crop == "box" else _UNKNOWN
            found.append((image.path, _region(source, image, int(k), window), (width, height)))
    if not found:
        raise InputError(f"{path}: expected objects of at least {source.min_size} pixels, got none")
    return found


# Sources without annotations, which hold nothing but objects.
_READY = {"packaged": "the faces of scikit-image", "vec": "a .vec file", "crops": "a folder of crops"}


def _format(source: PositiveSource) -> str:
    if source.path == FACES:
        return "packaged"
    if not Path(source.path).exists():
        raise InputError(f"{source.path}: expected positives, got nothing there")
    return guess_format(Path(source.path)) if source.format == "auto" else source.format


def labelled_format(source: PositiveSource) -> str | None:
    """Return the format of a source of labelled images; None for ready crops."""
    name = _format(source)
    return None if name in _READY else name


def _region(source: PositiveSource, image: LabelledImage, k: int, window: tuple[int, int]) -> Region:
    """Return the part of an image that is object `k`."""
    if source.crop == "landmarks":
        if image.landmarks is None or not np.isfinite(image.landmarks[k]).all():
            raise InputError(f"{image.path}: expected landmarks of eyes and mouth, got none")
        return region_of_landmarks(image.landmarks[k], window, source.side, source.drop, source.offset)
    boxes = image.squares if source.crop == "square" else image.boxes
    if boxes is None or not np.isfinite(boxes[k]).all():
        raise InputError(f"{image.path}: expected a square (sq_x, sq_y, sq_size), got none")
    x, y, w, h = boxes[k].tolist()
    return region_of_box((x, y, w, h), window, source.margin, source.aspect)


def _touches(region: Region, size: tuple[float, float], shape: tuple[int, ...]) -> bool:
    """Whether a box of this size, about the centre of its region, reaches the border of an image more than twice it."""
    x, y = region.cx - size[0] / 2, region.cy - size[1] / 2
    right, bottom = shape[1] - x - size[0], shape[0] - y - size[1]
    whole = size[0] * size[1] > 0.5 * shape[0] * shape[1]
    return min(size) > 0 and not whole and min(x, y, right, bottom) < 1.5


def _whole(shape: tuple[int, ...], margin: float) -> Region:
    """Return the region of a crop: all of it, its sides become the window's."""
    return Region(shape[1] / 2, shape[0] / 2, shape[1] * (1 + 2 * margin), shape[0] * (1 + 2 * margin))


def _copies(gray: npt.NDArray[np.uint8], region: Region, config: TrainingConfig, index: int) -> list[Windows]:
    """Cut the object out as it is, mirrored if asked for, and as jittered copies, which are mirrored at random."""
    rng = np.random.default_rng((config.seed, 1, index))
    jitter = Jitter(config.shift, config.scale, config.rotation, config.contrast, config.brightness, config.detail)
    crops = [cut(gray, region, config.window)]
    if config.mirror:
        crops.append(cut(gray, region, config.window, mirror=True))
    for _ in range(config.jitter):
        crops.append(jitter.apply(gray, region, config.window, rng, config.mirror and bool(rng.integers(2))))
    return crops


def _collect(copies: list[list[Windows]], config: TrainingConfig, failures: list[str]) -> Positives:
    windows = np.array([crop for crops in copies for crop in crops])
    groups = np.repeat(np.arange(len(copies)), [len(crops) for crops in copies])
    notes = []
    if failures:
        notes.append(f"{len(failures)} positives could not be read, the first: {failures[0]}")
    if config.features != "lbp":
        keep = has_contrast(windows)
        if not keep.all():
            notes.append(
                f"{int((~keep).sum())} of {len(keep)} positives have too little contrast for the detector "
                f"(a standard deviation of 10 grey levels or less) and were left out"
            )
            windows, groups = windows[keep], groups[keep]
        if not len(windows):
            raise InputError("expected positives with contrast, got only flat ones")
    return Positives(windows, groups, tuple(notes))
