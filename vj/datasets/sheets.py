"""Contact sheets: many small windows on one image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def contact_sheet(windows: npt.NDArray[np.uint8], *, columns: int = 20, zoom: int = 2) -> npt.NDArray[np.uint8]:
    """Lay windows out in rows.

    Parameters
    ----------
    windows : ndarray of uint8, shape (n, h, w)
        At least one.
    columns : int
        Windows in a row.
    zoom : int
        Pixels for each pixel of a window.

    Returns
    -------
    ndarray of uint8, shape (rows, columns)
        A grey image, white between the windows.
    """
    n, height, width = windows.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    step_y, step_x = height * zoom + 2, width * zoom + 2
    sheet = np.full((rows * step_y + 2, columns * step_x + 2), 255, dtype=np.uint8)
    for k, window in enumerate(windows):
        y, x = 2 + k // columns * step_y, 2 + k % columns * step_x
        sheet[y : y + height * zoom, x : x + width * zoom] = window.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return sheet
