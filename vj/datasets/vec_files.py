"""Writing the ``.vec`` files of ``opencv_createsamples``."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from vj._files import replacing
from vj.errors import InputError


def write_vec(path: str | os.PathLike[str], samples: Iterable[npt.NDArray[np.uint8]]) -> int:
    """Write samples one by one; the file appears whole or not at all.

    The layout is that of OpenCV 3.4's createsamples: a header of int32 count, int32 pixels in a sample and two int16
    of no meaning, then for each sample a zero byte and its pixels as int16, all little-endian. The count is the
    number of samples written.

    Parameters
    ----------
    path : str or path
    samples : iterable of ndarray of uint8, shape (height, width)
        All of one shape; only one is held at a time.

    Returns
    -------
    int
        How many were written.

    Raises
    ------
    InputError
        If there are no samples, or one is not of the first one's shape or not of bytes.
    OSError
        If the file cannot be written.
    """
    shape: tuple[int, ...] | None = None
    count = 0
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(12))
        for sample in samples:
            wanted = shape or sample.shape
            if sample.dtype != np.uint8 or sample.ndim != 2 or sample.size == 0 or sample.shape != wanted:
                expected = f"shape {wanted}" if shape else "two dimensions"
                raise InputError(
                    f"{path}: expected uint8 samples of {expected}, got {sample.dtype} of shape {sample.shape}"
                )
            shape = sample.shape
            file.write(b"\0" + sample.astype("<i2").tobytes())
            count += 1
        if shape is None:
            raise InputError(f"{path}: expected at least one sample, got none")
        file.seek(0)
        file.write(struct.pack("<iihh", count, shape[0] * shape[1], 0, 0))
    return count
