"""A drop-in for OpenCV's `CascadeClassifier`: the same names, arguments, defaults, dtypes, shapes and results.

Three differences are deliberate. Where OpenCV raises ``cv2.error``, this raises `InputError`, a `ValueError`. Where
OpenCV's behaviour is a mistake, this does what is meant: see `CascadeClassifier.detectMultiScale3`. And None as image,
which is what ``cv2.imread`` returns for a file that it cannot read, is an error, not an image without objects.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vj.cascade import stock
from vj.cascade.model import Cascade
from vj.cascade.opencv_xml import load as load_cascade
from vj.detector import Detector
from vj.errors import InputError
from vj.scanning.grouping import EPSILON, group_rectangles

CASCADE_DO_CANNY_PRUNING = 1
CASCADE_SCALE_IMAGE = 2
CASCADE_FIND_BIGGEST_OBJECT = 4
CASCADE_DO_ROUGH_SEARCH = 8

Image = npt.NDArray[Any]
Empty = tuple[()]
Rects = npt.NDArray[np.int32] | Empty
Ints = npt.NDArray[np.int32] | Empty
Weights = npt.NDArray[np.float64] | Empty


class CascadeClassifier:
    """Finds objects with a cascade, as ``cv2.CascadeClassifier`` does.

    Parameters
    ----------
    filename : str or path, optional
        A cascade file, or the name of one; see `load`.
    """

    def __init__(self, filename: str | os.PathLike[str] | None = None) -> None:
        self._detector: Detector | None = None
        if filename is not None:
            self.load(filename)

    def load(self, filename: str | os.PathLike[str]) -> bool:
        """Load a cascade; return whether that worked, and warn if not.

        Parameters
        ----------
        filename : str or path
            A cascade file. One that does not exist is looked up by its name among the stock cascades that this
            machine has, so that ``"haarcascade_frontalface_default.xml"`` alone will do; see `vj.cascade.stock.find`.
        """
        self._detector = None
        try:
            path = Path(filename)
            cascade = load_cascade(path if path.parent != Path() or stock.is_file(path) else path.stem)
        except InputError as error:
            warnings.warn(str(error), stacklevel=2)
            return False
        self._detector = Detector(cascade)
        return True

    def empty(self) -> bool:
        """Return whether no cascade is loaded."""
        return self._detector is None

    def getOriginalWindowSize(self) -> tuple[int, int]:
        """Return width and height of the window."""
        return self._cascade.window

    def getFeatureType(self) -> int:
        """Return 0 for Haar-like features, 1 for LBP."""
        return 0 if self._cascade.kind == "haar" else 1

    def isOldFormatCascade(self) -> bool:
        """Return False: a file of the old layout is converted when it is loaded, by OpenCV too."""
        _ = self._cascade  # an error if there is none
        return False

    def detectMultiScale(
        self,
        image: Image,
        scaleFactor: float = 1.1,
        minNeighbors: int = 3,
        flags: int = 0,
        minSize: Sequence[int] | None = (0, 0),
        maxSize: Sequence[int] | None = (0, 0),
    ) -> Rects:
        """Find objects of different sizes.

        Parameters
        ----------
        image : ndarray of uint8, shape (h, w), (h, w, 3) BGR or (h, w, 4) BGRA
        scaleFactor : float
            Ratio of one scale to the next, above 1.
        minNeighbors : int
            Rectangles that merge no more than this many hits are dropped; 0 returns the hits.
        flags : int
            Ignored, as by OpenCV since 3.0.
        minSize, maxSize : (int, int)
            Smallest and largest object, width and height; a maximum with a zero means the image's size. None is the
            default.

        Returns
        -------
        ndarray of int32, shape (n, 4), or an empty tuple
            x, y, width, height.

        Raises
        ------
        InputError
            If no cascade is loaded, or the image or the scale factor cannot be used.
        """
        boxes: Rects = _or_empty(self._detect(image, scaleFactor, minNeighbors, minSize, maxSize)[0])
        return boxes

    def detectMultiScale2(
        self,
        image: Image,
        scaleFactor: float = 1.1,
        minNeighbors: int = 3,
        flags: int = 0,
        minSize: Sequence[int] | None = (0, 0),
        maxSize: Sequence[int] | None = (0, 0),
    ) -> tuple[Rects, Ints]:
        """Find objects and the number of hits merged into each.

        Parameters are those of `detectMultiScale`.

        Returns
        -------
        objects : ndarray of int32, shape (n, 4), or an empty tuple
        numDetections : ndarray of int32, shape (n,), or an empty tuple
        """
        boxes, counts, _ = self._detect(image, scaleFactor, minNeighbors, minSize, maxSize)
        return _or_empty(boxes), _or_empty(counts)

    def detectMultiScale3(
        self,
        image: Image,
        scaleFactor: float = 1.1,
        minNeighbors: int = 3,
        flags: int = 0,
        minSize: Sequence[int] | None = (0, 0),
        maxSize: Sequence[int] | None = (0, 0),
        outputRejectLevels: bool = False,
    ) -> tuple[Rects, Ints, Weights]:
        """Find objects, the number of stages each passed, and the sum of the last.

        Parameters are those of `detectMultiScale`. With the default ``outputRejectLevels=False`` OpenCV fails as soon
        as it finds something; here the two other results are then empty. With a cascade of a single stage OpenCV
        reports every flat window; here only what passed the stage.

        Returns
        -------
        objects : ndarray of int32, shape (n, 4), or an empty tuple
        rejectLevels : ndarray of int32, shape (n,), or an empty tuple
            The number of stages, for each.
        levelWeights : ndarray of float64, shape (n,), or an empty tuple
            The largest sum of the last stage among the hits merged.
        """
        boxes, _, sums = self._detect(image, scaleFactor, minNeighbors, minSize, maxSize)
        if not outputRejectLevels:
            return _or_empty(boxes), (), ()
        levels = np.full(len(boxes), self._cascade.n_stages, dtype=np.int32)
        return _or_empty(boxes), _or_empty(levels), _or_empty(sums)

    @property
    def _cascade(self) -> Cascade:
        if self._detector is None:
            raise InputError("expected a loaded cascade, got an empty CascadeClassifier")
        return self._detector.cascade

    def _detect(
        self,
        image: Image,
        scale_factor: float,
        min_neighbors: int,
        min_size: Sequence[int] | None,
        max_size: Sequence[int] | None,
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """Return boxes, and the number of hits and the largest sum of the last stage of each."""
        if self._detector is None:
            raise InputError("expected a loaded cascade, got an empty CascadeClassifier")
        detector = self._detector.replace(
            scale_factor=scale_factor,
            min_neighbors=max(0, min_neighbors),
            min_size=_size(min_size),
            max_size=_size(max_size),
        )
        found, sums = detector.detect_with_sums(image)
        # OpenCV returns arrays that may be written to; those of detections are read-only.
        return found.boxes.copy(), found.neighbors.copy(), sums


def groupRectangles(
    rectList: Sequence[Sequence[int]] | npt.NDArray[Any], groupThreshold: int, eps: float = EPSILON
) -> tuple[Rects, Ints]:
    """Merge similar rectangles, as ``cv2.groupRectangles`` does.

    Parameters
    ----------
    rectList : sequence of (x, y, width, height)
    groupThreshold : int
        Groups of no more than this many rectangles are dropped; 0 or less returns every rectangle as it is.
    eps : float
        How far, relative to their size, rectangles of one group may lie apart.

    Returns
    -------
    rectList : ndarray of int32, shape (n, 4), or an empty tuple
    weights : ndarray of int32, shape (n,), or an empty tuple
        Number of rectangles merged into each.

    Raises
    ------
    InputError
        If the rectangles are not rows of four integers.
    """
    boxes = np.asarray(rectList)
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise InputError(f"expected rectangles as rows of x, y, width, height, got shape {boxes.shape}")
    if boxes.size and boxes.dtype.kind not in "iu":
        raise InputError(f"expected rectangles of integers, got {boxes.dtype}")
    groups = group_rectangles(boxes.astype(np.int32).reshape(-1, 4), groupThreshold, eps)
    return _or_empty(groups.boxes), _or_empty(groups.counts)


def _size(size: Sequence[int] | None) -> tuple[int, int]:
    """Return a size whose negative sides, which bound nothing, are zero."""
    if size is None:
        return 0, 0
    if np.shape(size) != (2,):
        raise InputError(f"expected minSize and maxSize as (width, height), got {size!r}")
    return max(0, int(size[0])), max(0, int(size[1]))


def _or_empty(array: npt.NDArray[Any]) -> Any:
    """OpenCV's binding returns an empty tuple for nothing."""
    return array if len(array) else ()
