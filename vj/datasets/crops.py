"""Cutting objects out of pictures: which part of them, how jittered, how shrunk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._types import Gray, Size
from vj.datasets.objects import Annotation
from vj.errors import InputError


@dataclass(frozen=True)
class Region:
    """A rectangle of a picture, in pixels; it may overhang and be rotated.

    Parameters
    ----------
    cx, cy : float
        Centre; (0, 0) is the top left corner of the top left pixel.
    width, height : float
    angle : float
        Degrees, clockwise as seen.
    """

    cx: float
    cy: float
    width: float
    height: float
    angle: float = 0.0


def region_of_box(box: tuple[float, float, float, float], window: Size, margin: float, aspect: str = "grow") -> Region:
    """Return a box grown by `margin` of its size on each side and then brought to the window's aspect.

    About its centre: ``grow`` lengthens the short side, ``shrink`` shortens the long one; ``stretch`` leaves the box,
    and the cut stretches the picture.
    """
    x, y, w, h = box
    width, height = w * (1 + 2 * margin), h * (1 + 2 * margin)
    if aspect != "stretch":
        ratio, reach = window[0] / window[1], max if aspect == "grow" else min
        width, height = reach(width, height * ratio), reach(height, width / ratio)
    return Region(x + w / 2, y + h / 2, width, height)


def region_of_landmarks(annotation: Annotation, window: Size, side: float, drop: float) -> Region:
    """Return the region `side` units wide and centred `drop` units below the middle of the eyes.

    The unit is the larger of the distance between the eyes and 0.95 times the distance from the middle of the eyes to
    the middle of the mouth: a turned head foreshortens the first but not the second.

    Raises
    ------
    InputError
        If the annotation has no eyes or no mouth.
    """
    if annotation.eyes is None or annotation.mouth is None:
        raise InputError(f"{annotation.path}: expected landmarks of eyes and mouth, got none")
    eyes, mouth = np.array(annotation.eyes), np.array(annotation.mouth)
    middle = eyes.mean(axis=0)
    down = mouth.mean(axis=0) - middle
    unit = max(float(np.hypot(*(eyes[1] - eyes[0]))), 0.95 * float(np.hypot(*down)))
    return Region(middle[0], middle[1] + drop * unit, side * unit, side * unit * window[1] / window[0])


def cut(gray: Gray, region: Region, window: Size, *, mirror: bool = False) -> Gray:
    """Cut a region out of a picture and scale it to the window.

    Where the region overhangs, the picture's edge is repeated. Shrinking is antialiased: the region is sampled at a
    whole multiple of the window's size and averaged.

    Parameters
    ----------
    gray : ndarray of uint8, shape (h, w)
    region : Region
    window : (int, int)
        Width and height.
    mirror : bool
        Whether to flip left and right.

    Returns
    -------
    ndarray of uint8, shape (window height, window width)
    """
    import cv2

    width, height = window
    times = int(np.clip(np.floor(min(region.width / width, region.height / height)), 1, 16))
    step_x, step_y = region.width / (width * times), region.height / (height * times)
    if mirror:
        step_x = -step_x
    turn = np.deg2rad(region.angle)
    axes = np.array([[np.cos(turn) * step_x, -np.sin(turn) * step_y], [np.sin(turn) * step_x, np.cos(turn) * step_y]])
    # Pixel (0, 0) of the result is centred half a step inside; OpenCV counts from the centre of the first pixel.
    start = (
        np.array([region.cx, region.cy]) - 0.5 - axes @ np.array([(width * times - 1) / 2, (height * times - 1) / 2])
    )
    result = cv2.warpAffine(
        gray,
        np.column_stack([axes, start]),
        (width * times, height * times),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if times > 1:
        result = cv2.resize(result, window, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(result, dtype=np.uint8)


def _photographed(gray: Gray, region: Region, window: Size, mirror: bool, detail: tuple[float, float]) -> Gray:
    """Cut a region out as the detector would see it in a picture that shows it at another size.

    The detector's pyramid takes one bilinear sample for each pixel, however far it shrinks, so that its windows are
    harder than antialiased ones. Here the region is first shrunk, antialiased, to a size between ``detail[0]`` windows
    and its own, of which ``detail[1]`` (0 to 1, on a logarithmic scale) is chosen, and then resampled like that.
    """
    import cv2

    low, place = detail
    own = max(1.0, min(region.width / window[0], region.height / window[1]))
    times = low * (own / low) ** place
    size = (max(2, round(times * window[0])), max(2, round(times * window[1])))
    picture = cut(gray, region, size, mirror=mirror)
    return np.asarray(cv2.resize(picture, window, interpolation=cv2.INTER_LINEAR_EXACT), dtype=np.uint8)


@dataclass(frozen=True)
class Jitter:
    """Largest random changes of a copy; see `vj.boosting.recipe.TrainingConfig`."""

    shift: float
    scale: float
    rotation: float
    contrast: float
    brightness: float
    detail: float

    def apply(self, gray: Gray, region: Region, window: Size, rng: np.random.Generator, mirror: bool) -> Gray:
        """Cut a region out after a random change of place, size, angle and light."""
        dx, dy, scale, angle, contrast, light = rng.uniform(-1.0, 1.0, 6)
        factor = (1 + self.scale) ** scale
        moved = replace(
            region,
            cx=region.cx + dx * self.shift * region.width,
            cy=region.cy + dy * self.shift * region.height,
            width=region.width * factor,
            height=region.height * factor,
            angle=region.angle + angle * self.rotation,
        )
        # Drawn even when not used: whether one setting is on must not change what the others draw.
        size = float(rng.uniform())
        if self.detail:
            crop: npt.NDArray[Any] = _photographed(gray, moved, window, mirror, (self.detail, size))
        else:
            crop = cut(gray, moved, window, mirror=mirror)
        if self.contrast or self.brightness:
            mean = crop.mean()
            crop = (crop - mean) * (1 + contrast * self.contrast) + mean + light * self.brightness
            crop = np.clip(np.rint(crop), 0, 255).astype(np.uint8)
        return np.asarray(crop, dtype=np.uint8)
