"""Cutting objects out of images: which part of them, how jittered, how shrunk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._types import Floats, Gray, Size
from vj.errors import InputError

SIDE, DROP = 2.66, 0.305
"""The square around a face in units u of the face, see `region_of_landmarks`: measured on faces that OpenCV's
``frontalface_alt2`` finds, whose boxes are 2.66 u wide and centred 0.305 u below the middle of the eyes."""


@dataclass(frozen=True)
class Region:
    """A rectangle of an image, in pixels; it may overhang and be rotated.

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

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x, y, width, height, whatever the angle."""
        return self.cx - self.width / 2, self.cy - self.height / 2, self.width, self.height


def region_of_box(box: tuple[float, float, float, float], window: Size, margin: float, aspect: str = "grow") -> Region:
    """Return a box grown by `margin` of its size on each side and then brought to the window's aspect.

    About its centre: ``grow`` lengthens the short side, ``shrink`` shortens the long one; ``stretch`` leaves the box,
    and the cut stretches the image.
    """
    x, y, w, h = box
    width, height = w * (1 + 2 * margin), h * (1 + 2 * margin)
    if aspect != "stretch":
        ratio, reach = window[0] / window[1], max if aspect == "grow" else min
        width, height = reach(width, height * ratio), reach(height, width / ratio)
    return Region(x + w / 2, y + h / 2, width, height)


def region_of_landmarks(
    landmarks: Floats, window: Size, side: float = SIDE, drop: float = DROP, offset: float = 0.0
) -> Region:
    """Return the region `side` units wide and centred `drop` units below the middle of the eyes.

    The unit u is the larger of the distance between the eyes and 0.95 times the distance from the middle of the eyes to
    the middle of the mouth: a turned head foreshortens the first but not the second.

    "Below" is straight down in the image, also for a tilted face. The training crops of the packaged cascade were cut
    that way, and so are the boxes made from landmarks for evaluation: a label is where the trained window would be.
    Along the face instead, the centre of a face tilted by 20 degrees would move by 0.1 u, 4 % of the default side.

    Parameters
    ----------
    landmarks : ndarray of float64, shape (4, 2)
        x, y of both eyes and both corners of the mouth.
    window : (int, int)
        Width and height whose aspect the region has.
    side, drop, offset : float
        In units u; `offset` is how far the centre is to the right of the eyes.

    Raises
    ------
    InputError
        If a landmark is unknown (nan).
    """
    if not np.isfinite(landmarks).all():
        raise InputError("expected landmarks of eyes and mouth, got none")
    eyes, mouth = landmarks[:2], landmarks[2:]
    middle = eyes.mean(axis=0)
    down = mouth.mean(axis=0) - middle
    unit = max(float(np.hypot(*(eyes[1] - eyes[0]))), 0.95 * float(np.hypot(*down)))
    return Region(middle[0] + offset * unit, middle[1] + drop * unit, side * unit, side * unit * window[1] / window[0])


def cut(gray: Gray, region: Region, window: Size, *, mirror: bool = False) -> Gray:
    """Cut a region out of an image and scale it to the window.

    Where the region overhangs, the image's edge is repeated. Shrinking is antialiased: the region is sampled at a
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
    """Cut a region out as the detector would see it in an image that shows it at another size.

    The detector's pyramid takes one bilinear sample for each pixel, however far it shrinks, so that its windows are
    harder than antialiased ones. Here the region is first shrunk, antialiased, to a size between ``detail[0]`` windows
    and its own, of which ``detail[1]`` (0 to 1, on a logarithmic scale) is chosen, and then resampled like that.
    """
    import cv2

    low, place = detail
    own = max(1.0, min(region.width / window[0], region.height / window[1]))
    times = low * (own / low) ** place
    size = (max(2, round(times * window[0])), max(2, round(times * window[1])))
    image = cut(gray, region, size, mirror=mirror)
    return np.asarray(cv2.resize(image, window, interpolation=cv2.INTER_LINEAR_EXACT), dtype=np.uint8)


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
        """Cut a region out after a random change of position, size, angle and light."""
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
