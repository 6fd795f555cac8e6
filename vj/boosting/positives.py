"""The positives of a run: found, cut out, jittered; every window exactly as the trainer sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vj.boosting.recipe import PositiveSource, TrainingConfig
from vj.boosting.samples import Windows, has_contrast
from vj.boosting.workers import Workers
from vj.datasets.crops import Jitter, Region, cut, region_of_box, region_of_landmarks
from vj.datasets.labelled import FRONTAL, Wanted
from vj.datasets.labelled_formats import read_labelled
from vj.datasets.objects import Annotation, read_crops, read_csv
from vj.datasets.opencv_samples import read_info, read_vec
from vj.datasets.packaged import FACES, packaged_faces
from vj.errors import InputError
from vj.images import read_gray


@dataclass(frozen=True)
class Positives:
    """Windows that show the object.

    Parameters
    ----------
    windows : ndarray of uint8, shape (n, height, width)
    groups : ndarray of int64, shape (n,)
        Windows of the same object share a number: they are held out together or not at all.
    notes : tuple of str
        What was left out, and why.
    names : tuple of str
        The picture of each group, by its number; empty for windows that are in no picture of their own.
    """

    windows: Windows
    groups: npt.NDArray[np.int64]
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def positives_from_arrays(windows: Windows, config: TrainingConfig) -> Positives:
    """Augment ready crops (n, h, w) as the configuration says; each may be larger than the window."""
    array = np.asarray(windows)
    if array.dtype != np.uint8 or array.ndim != 3 or not len(array):
        raise InputError(f"expected positives as uint8 of shape (n, h, w), got {array.dtype} of shape {array.shape}")
    region = _whole(array.shape[1:], 0.0)
    copies = [_copies(crop, region, config, index) for index, crop in enumerate(array)]
    return _collect(copies, config, [])


def load_positives(config: TrainingConfig, workers: Workers) -> Positives:
    """Read and cut out the positives of a recipe; pictures that cannot be read are left out and noted.

    Raises
    ------
    InputError
        If there is no source, a source cannot be read, or nothing is left.
    """
    if not config.positives:
        raise InputError("expected positives, got none")
    jobs: list[tuple[int, PositiveSource, Annotation | Windows]] = []
    for source in config.positives:
        found = _find(source, config.window)
        if source.limit and len(found) > source.limit:
            rng = np.random.default_rng((config.seed, len(jobs)))
            found = [found[i] for i in np.sort(rng.choice(len(found), source.limit, replace=False))]
        jobs += [(len(jobs) + i, source, annotation) for i, annotation in enumerate(found)]

    def work(job: tuple[int, PositiveSource, Annotation | Windows]) -> list[Windows] | str:
        index, source, annotation = job
        own = config if source.jitter < 0 else replace(config, jitter=source.jitter)
        if isinstance(annotation, np.ndarray):
            return _copies(annotation, _whole(annotation.shape, source.margin), own, index)
        try:
            gray = read_gray(annotation.path)
        except InputError as error:
            return str(error)
        return _copies(gray, _region(source, annotation, gray.shape[:2], config), own, index)

    results = list(workers.map(work, jobs))
    copies = [result for result in results if not isinstance(result, str)]
    names = [
        "" if isinstance(annotation, np.ndarray) else str(annotation.path)
        for (_, _, annotation), result in zip(jobs, results, strict=True)
        if not isinstance(result, str)
    ]
    failures = [result for result in results if isinstance(result, str)]
    if not copies:
        raise InputError(f"expected readable positives, got {len(failures)} failures, the first: {failures[0]}")
    return replace(_collect(copies, config, failures), names=tuple(names))


def _find(source: PositiveSource, window: tuple[int, int]) -> Sequence[Annotation | Windows]:
    """Return the objects of a source: annotations, or windows where the source holds nothing else."""
    if source.path == FACES:
        return list(packaged_faces())
    path = Path(source.path)
    if not path.exists():
        raise InputError(f"{path}: expected positives, got nothing there")
    kind = source.format if source.format != "auto" else _guess(path)
    if kind == "crops":
        return read_crops(path)
    if kind == "vec":
        return list(read_vec(path, window))
    if kind == "csv":
        found = read_csv(path, source.where)
    elif kind == "info":
        found = read_info(path)
    else:
        found = _labelled(path, None if kind == "auto" else kind, source)
    found = [a for a in found if a.box is None or (min(a.box[2:]) > 0 and min(a.box[2:]) >= source.min_size)]
    if not found:
        raise InputError(f"{path}: expected objects of at least {source.min_size} pixels, got none")
    return found


def _guess(path: Path) -> str:
    """Tell the format of a source; ``auto`` leaves it to the reader of labelled pictures."""
    if path.is_dir():
        labelled = (path / "annotations.json").is_file() or (path / "labels").is_dir() or any(path.glob("*.xml"))
        return "auto" if labelled else "crops"
    suffix = path.suffix.lower()
    if suffix in {".vec", ".csv"}:
        return suffix[1:]
    if suffix in {".dat", ".info"}:
        return "info"
    if suffix == ".txt":
        with path.open(encoding="utf-8", errors="replace") as file:
            words = file.readline().split()
        # A line of OpenCV's info file has a name, a count and four numbers for each box.
        return "info" if len(words) >= 6 and len(words) % 4 == 2 else "auto"
    return "auto"


def _labelled(path: Path, kind: str | None, source: PositiveSource) -> list[Annotation]:
    wanted = FRONTAL if source.frontal else Wanted()
    found: list[Annotation] = []
    for picture in read_labelled(path, kind, source.images or None):
        for (x, y, w, h), ignored in zip(picture.boxes.tolist(), wanted.ignored(picture), strict=True):
            if not ignored:
                found.append(Annotation(picture.path, (x, y, w, h)))
    return found


def _region(source: PositiveSource, annotation: Annotation, shape: tuple[int, ...], config: TrainingConfig) -> Region:
    if source.crop == "landmarks":
        return region_of_landmarks(annotation, config.window, source.side, source.drop)
    box = annotation.square if source.crop == "square" else annotation.box
    if box is None:
        if source.crop == "square":
            raise InputError(f"{annotation.path}: expected a square (sq_x, sq_y, sq_size), got none")
        return _whole(shape, source.margin)
    return region_of_box(box, config.window, source.margin, source.aspect)


def _whole(shape: tuple[int, ...], margin: float) -> Region:
    """Region of a ready crop: it is the object, its sides become the window's."""
    return Region(shape[1] / 2, shape[0] / 2, shape[1] * (1 + 2 * margin), shape[0] * (1 + 2 * margin))


def _copies(gray: npt.NDArray[np.uint8], region: Region, config: TrainingConfig, index: int) -> list[Windows]:
    """Cut the object out as it is, mirrored if wanted, and jittered, each copy mirrored or not by chance."""
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
