"""Real photos that come with scikit-image, as the tests use them."""

from functools import cache

import cv2
import numpy as np
import skimage.data


@cache
def photo(name):
    """One photo as BGR or grey uint8; read-only, so that no test changes it for another."""
    image = getattr(skimage.data, name)()
    image = np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image)
    image.setflags(write=False)
    return image


@cache
def gray(name, size=None):
    """One photo as grey, if wanted resized to (width, height)."""
    image = photo(name)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if size else image.copy()
    image.setflags(write=False)
    return image
