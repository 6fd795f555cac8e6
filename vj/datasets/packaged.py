"""Real images that come with scikit-image, for a first run without any data of one's own.

``skimage:faces`` are the 100 faces of its ``lfw_subset`` (crops of 25x25 pixels from Labeled Faces in the Wild),
``skimage:backgrounds`` its photos without a face and the 100 crops of that subset that show none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vj.errors import InputError

FACES = "skimage:faces"
BACKGROUNDS = "skimage:backgrounds"

# Left out: astronaut and camera show people, coins shows heads, and drawings are no photos.
PHOTOS = (
    "brick.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
# Crops of the non-faces that show a face or a part of one, found by eye.
_FACE_LIKE = (25, 30)


def packaged_faces() -> npt.NDArray[np.uint8]:
    """Return the faces; uint8, shape (100, 25, 25)."""
    return _subset()[:100]


def packaged_backgrounds() -> list[str | npt.NDArray[np.uint8]]:
    """Return paths of photos and crops (25, 25) without a face."""
    folder = _folder()
    photos: list[str | npt.NDArray[np.uint8]] = [str(folder / name) for name in PHOTOS if (folder / name).is_file()]
    return photos + [crop for k, crop in enumerate(_subset()[100:]) if k not in _FACE_LIKE]


def packaged_photo(name: str) -> Path:
    """Return the path of one of scikit-image's photos."""
    return _folder() / name


def _subset() -> npt.NDArray[np.uint8]:
    import skimage.data

    try:
        images: npt.NDArray[Any] = skimage.data.lfw_subset()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise InputError(f"{FACES}: expected scikit-image's lfw_subset, got {' '.join(str(error).split())}") from None
    return np.asarray(np.rint(images * 255), dtype=np.uint8)


def _folder() -> Path:
    import skimage.data

    return Path(skimage.data.__file__).parent
