"""Samples of one object made from its image, as ``opencv_createsamples`` makes them: turned, relit, on backgrounds.

What is done is OpenCV's: a random turn about all three axes seen in perspective, a random change of intensity, an
inversion, a background colour that is transparent. How it is done is ours: one warp straight to the sample's size,
antialiased where the object is larger than the sample, while OpenCV 3.4 takes one bilinear sample for each pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from vj._types import Floats, Gray
from vj.errors import InputError

# Distance of the viewer from the object, in its widths.
_DISTANCE, _DISTANCE_SPREAD = 3.0, 1.0
# Most pixels averaged for one, in each direction.
_MAX_TIMES = 16
# Tries to read a background before giving up.
_TRIES = 50


@dataclass(frozen=True)
class Distortion:
    """Largest random changes.

    Parameters
    ----------
    angles : (float, float, float)
        Largest turns about the x, y and z axis in radians. The turn about y is at most its largest minus the turn about
        x, as in OpenCV.
    intensity : int
        Largest change of all pixels in grey levels.
    invert : {'never', 'always', 'random'}
        Whether the object is shown as its negative.
    """

    angles: tuple[float, float, float] = (1.1, 1.1, 0.5)
    intensity: int = 40
    invert: Literal["never", "always", "random"] = "never"


@dataclass(frozen=True)
class Cutout:
    """An object and what of its image it covers.

    Parameters
    ----------
    image, mask : ndarray of uint8, shape (h, w)
        The mask is 255 on the object, 0 where the background shows.
    """

    image: Gray
    mask: Gray

    @classmethod
    def from_color(cls, gray: Gray, color: int, threshold: int) -> Cutout:
        """Take pixels within `threshold` of a background colour as transparent.

        The object's own colours are spread by one pixel over its edge, so that the background colour does not
        shine through where the two are interpolated.

        Raises
        ------
        InputError
            If nothing is left of the object.
        """
        import cv2

        far = np.abs(gray.astype(np.int16) - color) > threshold
        if not far.any():
            raise InputError(f"expected an object of another colour than {color} +- {threshold}, got none (-bgthresh)")
        block = np.ones((3, 3), dtype=np.uint8)
        low, high = cv2.erode(gray, block).astype(np.int16), cv2.dilate(gray, block).astype(np.int16)
        nearby = np.where(color - low >= high - color, low, high)
        image = np.where(~far & (np.abs(nearby - color) > threshold), nearby, gray).astype(np.uint8)
        return cls(np.ascontiguousarray(image), np.where(far, 255, 0).astype(np.uint8))

    def placed(self, background: Gray, distortion: Distortion, rng: np.random.Generator, *, whole: bool) -> Gray:
        """Return a background with the object on it, distorted at random.

        Parameters
        ----------
        background : ndarray of uint8, shape (h, w)
        distortion : Distortion
        rng : Generator
        whole : bool
            Fit the turned object into the background; otherwise the object as it was before it was turned fits, and
            corners may be cut off.

        Returns
        -------
        ndarray of uint8, shape (h, w)
        """
        import cv2

        height, width = self.image.shape
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
        quad = _turned(corners, distortion.angles, rng)
        level = float(rng.uniform(-distortion.intensity, distortion.intensity))
        negative = distortion.invert == "always" or (distortion.invert == "random" and bool(rng.integers(2)))
        shown = quad if whole else corners
        low, high = shown.min(axis=0), shown.max(axis=0)
        size = np.array(background.shape[::-1])
        scale = float(((high - low) / size).max())
        times = int(np.clip(np.floor(scale), 1, _MAX_TIMES))
        # From the object's plane to pixels of the (larger) result; the view's centre is the object's.
        start = (low + high) / 2 - scale * size / 2
        view = np.array([[times / scale, 0, 0], [0, times / scale, 0], [0, 0, 1]])
        view[:2, 2] = -start * times / scale
        turn = cv2.getPerspectiveTransform(corners.astype(np.float32), quad.astype(np.float32))
        # Pixel 0 is centred half a pixel inside.
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        matrix = np.linalg.inv(half) @ view @ turn @ half
        large = (int(size[0]) * times, int(size[1]) * times)
        image = cv2.warpPerspective(self.image, matrix, large, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpPerspective(self.mask, matrix, large, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        if times > 1:
            small = (int(size[0]), int(size[1]))
            image, mask = (cv2.resize(one, small, interpolation=cv2.INTER_AREA) for one in (image, mask))
        lit = np.clip(image.astype(np.float64) + level, 0, 255)
        opaque = mask / 255.0
        mixed = (255 - lit if negative else lit) * opaque + background * (1 - opaque)
        return np.asarray(np.rint(mixed), dtype=np.uint8)


def _turned(corners: Floats, angles: tuple[float, float, float], rng: np.random.Generator) -> Floats:
    """Turn a rectangle about its centre and look at it in perspective; the rotation is a vector's (Rodrigues)."""
    import cv2

    x = float(rng.uniform(-angles[0], angles[0]))
    y = (angles[1] - abs(x)) * float(rng.uniform(-1, 1))
    z = float(rng.uniform(-angles[2], angles[2]))
    distance = (_DISTANCE + _DISTANCE_SPREAD * float(rng.uniform(-1, 1))) * corners[2, 0]
    rotation = cv2.Rodrigues(np.array([x, y, z]))[0]
    centre = corners[2] / 2
    points = np.column_stack([corners - centre, np.zeros(len(corners))]) @ rotation.T
    return np.asarray(points[:, :2] * distance / (distance + points[:, 2:]) + centre)


class Scenery:
    """Backgrounds, or parts of them, chosen at random.

    Parameters
    ----------
    images : sequence of ndarray of uint8
        Read when asked for; see `vj.datasets.backgrounds.Backgrounds`.
    rng : Generator

    Attributes
    ----------
    unreadable : dict of int to str
        Images that could not be used, with the reason.
    """

    def __init__(self, images: Sequence[Gray], rng: np.random.Generator) -> None:
        self.images, self.rng, self.unreadable = images, rng, dict[int, str]()

    def image(self, least: tuple[int, int]) -> Gray:
        """Return one whose width and height are at least `least`."""
        for _ in range(_TRIES):
            index = int(self.rng.integers(len(self.images)))
            try:
                gray = self.images[index]
            except InputError as error:
                self.unreadable[index] = str(error)
                continue
            if gray.shape[1] >= least[0] and gray.shape[0] >= least[1]:
                return gray
            self.unreadable[index] = f"smaller than {least[0]}x{least[1]}"
        reason = next(iter(self.unreadable.values()))
        raise InputError(f"expected backgrounds of at least {least[0]}x{least[1]} pixels, got none: {reason}")

    def parts(self, size: tuple[int, int]) -> Iterator[Gray]:
        """Yield parts of a size without end, each of a random image, place and scale."""
        import cv2

        while True:
            gray = self.image(size)
            room = min(gray.shape[1] / size[0], gray.shape[0] / size[1])
            scale = room ** float(self.rng.uniform())
            width, height = round(size[0] * scale), round(size[1] * scale)
            x = int(self.rng.integers(gray.shape[1] - width + 1))
            y = int(self.rng.integers(gray.shape[0] - height + 1))
            part = gray[y : y + height, x : x + width]
            yield np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def cut_box(gray: Gray, box: Floats, size: tuple[int, int]) -> Gray:
    """Cut a box out and resize it as ``opencv_createsamples`` does: the aspect is not kept.

    Parameters
    ----------
    gray : ndarray of uint8, shape (h, w)
        Its edge is repeated where the box overhangs; OpenCV's program ends there.
    box : ndarray of float64, shape (4,)
        x, y, width, height in pixels; fractions are dropped.
    size : (int, int)
        Width and height of the result.

    Raises
    ------
    InputError
        If the box is empty or lies outside.
    """
    import cv2

    x, y, w, h = (int(value) for value in box)
    height, width = gray.shape
    if w < 1 or h < 1 or x >= width or y >= height or x + w <= 0 or y + h <= 0 or max(w, h) > 4 * max(width, height):
        raise InputError(f"expected boxes inside the {width}x{height} image, got {x} {y} {w} {h}")
    left, top, right, bottom = max(-x, 0), max(-y, 0), max(x + w - width, 0), max(y + h - height, 0)
    inside: npt.NDArray[np.uint8] = gray[y + top : y + h - bottom, x + left : x + w - right]
    if left or top or right or bottom:
        inside = np.pad(inside, ((top, bottom), (left, right)), mode="edge")
    shrinks = w >= size[0] and h >= size[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR_EXACT
    return np.asarray(cv2.resize(inside, size, interpolation=way), dtype=np.uint8)
