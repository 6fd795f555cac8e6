"""Positives' own images as backgrounds: all of them but the labelled objects."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from vj._files import read_bounded
from vj._types import Floats
from vj.boosting.positives import labelled_format, local, original
from vj.boosting.recipe import ANNOTATED, PositiveSource, TrainingConfig
from vj.datasets.backgrounds import Backgrounds, find_backgrounds
from vj.datasets.formats import read_labelled
from vj.datasets.labelled import LabelledImage
from vj.errors import InputError

# Larger files are not compared.
_MAX_BYTES = 1 << 28


def backgrounds_of(config: TrainingConfig) -> Backgrounds:
    """Return the backgrounds of a recipe, found but not read; see `background_place`."""
    return Backgrounds.joined([background_place(place, config.positives) for place in config.backgrounds])


def background_place(place: str, sources: Sequence[PositiveSource]) -> Backgrounds:
    """Return the backgrounds of one place of a recipe.

    ``annotated`` stands for the labelled images of the positives, ``annotated:PATH`` for those of other annotations,
    whose objects are boxed whatever their class.
    """
    if place.startswith(ANNOTATED + ":"):
        return _boxed(read_labelled(place.removeprefix(ANNOTATED + ":"), classes=None))
    return annotated_backgrounds(sources) if place == ANNOTATED else find_backgrounds([place])


def annotated_backgrounds(sources: Sequence[PositiveSource]) -> Backgrounds:
    """Return the labelled images of positives, with every object of the classes asked for in a box.

    Objects that are no positives are boxed, too: small or difficult ones, and rows that ``where`` leaves out. Objects
    of other classes are background.

    Parameters
    ----------
    sources : sequence of PositiveSource
        Those without labelled images are passed over.

    Raises
    ------
    InputError
        If no source has labelled images.
    """
    labelled = [(source, name) for source in map(local, sources) if (name := labelled_format(source)) is not None]
    if not labelled:
        raise InputError(f"expected positives in labelled images for backgrounds {ANNOTATED!r}, got none")
    return _boxed(
        image
        for source, name in labelled
        for image in read_labelled(source.path, name, source.images or None, classes=source.classes)
    )


def _boxed(images: Iterable[LabelledImage]) -> Backgrounds:
    """Return labelled images with the boxes of all entries that name them."""
    found: dict[Path, list[Floats]] = {}
    for image in images:
        found.setdefault(image.path, []).append(image.boxes)
    boxes = {k: joined for k, parts in enumerate(found.values()) if len(joined := np.concatenate(parts))}
    # Workers elsewhere read them, too.
    return Backgrounds([original(os.fspath(path)) for path in found], boxes)


def overlap(names: Iterable[str], backgrounds: Backgrounds) -> list[str]:
    """Return the backgrounds that are images of positives, or copies of them, whatever their paths, and have no boxes.

    Parameters
    ----------
    names : iterable of str
        Images of the positives.
    backgrounds : Backgrounds
    """
    places = {
        k: item
        for k, item in enumerate(backgrounds.items)
        if not isinstance(item, np.ndarray) and not len(backgrounds.boxes(k))
    }
    positives = _by_size(set(names) - {""})
    sizes = {k: size for k, item in places.items() if (size := _size(item)) in positives}
    # Only what has the size of a positive's image is read.
    known = {size: {_content(name) for name in positives[size]} - {None} for size in set(sizes.values())}
    return [backgrounds.name(k) for k, size in sizes.items() if _content(places[k]) in known[size]]


def _by_size(names: Iterable[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name in names:
        if (size := _size(name)) is not None:
            found.setdefault(size, []).append(name)
    return found


def _size(path: str | os.PathLike[str]) -> int | None:
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return None


def _content(path: str | os.PathLike[str]) -> bytes | None:
    try:
        return hashlib.sha256(read_bounded(Path(path), _MAX_BYTES)).digest()
    except InputError:
        return None
