"""The inputs of a training run in Python: a recipe or settings, and data as paths or arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vj._types import Image
from vj.boosting.annotated import background_place, backgrounds_of
from vj.boosting.recipe import PositiveSource, TrainingConfig
from vj.datasets.backgrounds import Backgrounds
from vj.errors import InputError

AnyPath = str | os.PathLike[str]
Recipe = AnyPath | TrainingConfig
PositivesGiven = AnyPath | Image | Sequence[AnyPath | PositiveSource | Mapping[str, Any]] | Sequence[Image]
BackgroundsGiven = AnyPath | Image | Sequence[AnyPath | Image]

# Pixels; the smallest window allowed.
_LEAST_SIDE = 8


@dataclass(frozen=True)
class Inputs:
    """The checked inputs of a run.

    Parameters
    ----------
    config : TrainingConfig
    crops : list of ndarray of uint8, or None
        Positives as arrays; None where the configuration names them.
    images : list of ndarray of uint8 or path, or None
        Backgrounds, of which at least one is an array; None where the configuration names them.
    """

    config: TrainingConfig
    crops: list[Image] | None
    images: list[Image | AnyPath] | None

    def backgrounds(self) -> Backgrounds:
        """Return the backgrounds, found but not read."""
        if self.images is None:
            return backgrounds_of(self.config)
        sources = self.config.positives
        return Backgrounds.joined(
            [
                Backgrounds([one]) if isinstance(one, np.ndarray) else background_place(os.fspath(one), sources)
                for one in self.images
            ]
        )


def gather(
    recipe: Recipe | None,
    positives: PositivesGiven | None,
    backgrounds: BackgroundsGiven | None,
    settings: Mapping[str, Any],
) -> Inputs:
    """Combine a recipe, data and settings.

    Parameters
    ----------
    recipe : path, TrainingConfig or None
        None: all settings have their defaults.
    positives, backgrounds : optional
        Replace those of the recipe; see `vj.Training`.
    settings : mapping
        Replace those of the recipe.

    Returns
    -------
    Inputs

    Raises
    ------
    InputError
        For a setting that is unknown or out of range, arrays of another type or shape, or no data.
    """
    override = dict(settings)
    listed = _items(positives)
    crops = _arrays(listed, "positives")
    if positives is not None and crops is None:
        override["positives"] = listed
    listed = _items(backgrounds)
    images = listed if any(isinstance(item, np.ndarray) for item in listed) else None
    if backgrounds is not None and images is None:
        override["backgrounds"] = listed
    config = _config(recipe, override)
    if crops is not None:
        _check_images(crops, "positives", (_LEAST_SIDE, _LEAST_SIDE))
        config = replace(config, positives=())
    elif not config.positives:
        raise InputError("expected positives (an array, a path or a recipe that names them), got none")
    if images is not None:
        _check_images([one for one in images if isinstance(one, np.ndarray)], "backgrounds", config.window)
        config = replace(config, backgrounds=())
    elif not config.backgrounds:
        raise InputError("expected backgrounds (images, a path or a recipe that names them), got none")
    return Inputs(config, crops, images)


def _config(recipe: Recipe | None, override: Mapping[str, Any]) -> TrainingConfig:
    if recipe is None:
        return TrainingConfig.from_mapping({}, override=override)
    if isinstance(recipe, TrainingConfig):
        return recipe.replaced(override)
    if isinstance(recipe, str | os.PathLike):
        return TrainingConfig.from_toml(recipe, override=override)
    raise InputError(f"expected a recipe as a path or a TrainingConfig, got {type(recipe).__name__}")


def _items(given: Any) -> list[Any]:
    """Return the items as a list; an array of shape (n, h, w) is n images."""
    if given is None:
        return []
    if isinstance(given, str | os.PathLike | Mapping | PositiveSource):
        return [given]
    if isinstance(given, np.ndarray) and given.ndim < 3:
        raise InputError(f"expected images of shape (n, h, w) or a list of them, got shape {given.shape}")
    if not isinstance(given, Iterable):
        raise InputError(f"expected images or paths, got {type(given).__name__}")
    return list(given)


def _arrays(items: list[Any], what: str) -> list[Image] | None:
    """Return the items if they are arrays; None if they are paths."""
    arrays = [item for item in items if isinstance(item, np.ndarray)]
    if arrays and len(arrays) < len(items):
        raise InputError(f"expected {what} all as arrays or all as paths, got {len(arrays)} of {len(items)} as arrays")
    return arrays or None


def _check_images(images: list[Image], what: str, least: tuple[int, int]) -> None:
    """Refuse arrays that are not images; the usual mistake is a single colour image instead of a list of images."""
    for image in images:
        colour = image.ndim == 3 and image.shape[2] in (1, 3, 4)
        if image.dtype != np.uint8 or not (image.ndim == 2 or colour):
            raise InputError(
                f"expected {what} as uint8 of shape (n, h, w), or a list of (h, w) or (h, w, 3) BGR; "
                f"got an image of {image.dtype}, shape {image.shape}"
            )
    if not any(image.shape[1] >= least[0] and image.shape[0] >= least[1] for image in images):
        shape = images[0].shape
        raise InputError(
            f"expected {what} of at least {least[0]}x{least[1]} pixels, got {len(images)} of {shape[1]}x{shape[0]} "
            f"(a single image goes into a list)"
        )
