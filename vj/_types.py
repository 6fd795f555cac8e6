"""Array and size types that several rooms share."""

import numpy as np
import numpy.typing as npt

Gray = npt.NDArray[np.uint8]
"""An 8-bit grey image, shape (h, w)."""

Image = npt.NDArray[np.uint8]
"""An 8-bit image, grey of shape (h, w) or BGR of shape (h, w, 3)."""

Floats = npt.NDArray[np.float64]

Ints = npt.NDArray[np.int64]

Bools = npt.NDArray[np.bool_]

Counts = npt.NDArray[np.int64]

Boxes = npt.NDArray[np.int32]
"""Boxes as x, y, width, height, shape (n, 4)."""

Size = tuple[int, int]
"""Width and height in pixels."""
