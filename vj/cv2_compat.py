"""A drop-in for OpenCV's `CascadeClassifier`: the same names, arguments, defaults, dtypes, shapes and results.

Errors are both ``cv2.error`` and `InputError`, so that ``except cv2.error:`` still works. Three differences are
deliberate: where OpenCV's behaviour is a mistake, this does what is meant (see `CascadeClassifier.detectMultiScale3`);
an image that is None or of an odd shape, in which OpenCV silently finds nothing, is warned of; and what OpenCV refuses
may be taken where its meaning is plain, such as a whole float for an integer.

Boxes come in the order in which OpenCV returns them with one thread, ``cv2.setNumThreads(1)``. With more threads
OpenCV's order, and with it the grouped boxes, varies from call to call; here nothing depends on threads.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from vj._cv2_arguments import bounds_of, gray_of, integer_of, rectangles_of, scale_of, tree_of
from vj._files import is_file, read_bounded, write_text
from vj.cascade import stock
from vj.cascade.file_storage import read_tree
from vj.cascade.model import Cascade
from vj.cascade.new_xml import to_xml
from vj.cascade.opencv_xml import from_tree, is_old, name_of, resolve
from vj.cascade.storage_node import MAX_BYTES, Node
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


_P = ParamSpec("_P")
_R = TypeVar("_R")


class error(InputError, cv2.error):
    """What the drop-in raises: a ``cv2.error`` to code that was written for OpenCV, an `InputError` to other code."""


def _raises_error(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function raise `error` in place of `InputError`."""

    @functools.wraps(function)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except error:
            raise
        except InputError as caught:
            raise error(str(caught)) from None

    return wrapper


class CascadeClassifier:
    """Finds objects with a cascade, as ``cv2.CascadeClassifier`` does.

    Parameters
    ----------
    filename : str or path, optional
        A cascade file, or the name of one; see `load`.
    """

    def __init__(self, filename: str | bytes | os.PathLike[str] | None = None) -> None:
        self._detector: Detector | None = None
        self._why = ""
        if filename is not None:
            self.load(filename)

    @_raises_error
    def load(self, filename: str | bytes | os.PathLike[str]) -> bool:
        """Load a cascade; return whether that worked, and warn if not.

        Parameters
        ----------
        filename : str, bytes or path
            A cascade file. One that does not exist is looked up by its name among the stock cascades that this
            machine has, so that ``cv2.data.haarcascades + "haarcascade_frontalface_default.xml"`` works with OpenCV 5
            and the name alone does everywhere; see `vj.cascade.stock`.

        Raises
        ------
        error
            If the file is there and is no file storage at all; OpenCV raises then, too.
        """
        self._detector = None
        try:
            path = _locate(filename)
            data = read_bounded(path, MAX_BYTES, "cascade file")
        except InputError as caught:
            self._why = f" ({caught})"
            warnings.warn(str(caught), stacklevel=3)
            return False
        return self._take(read_tree(data, place=str(path)), name_of(path), str(path))

    @_raises_error
    def read(self, node: Any) -> bool:
        """Load a cascade from a node of a ``cv2.FileStorage``, usually its first; return whether that worked.

        Parameters
        ----------
        node : cv2.FileNode
            Of the current layout, as for OpenCV. Its file storage must still be open.
        """
        self._detector = None
        if node is None or node.empty():
            return False
        root = Node("opencv_storage", children=[tree_of(node)])
        return not is_old(root) and self._take(root, "cascade", "FileNode")

    def _take(self, root: Node, name: str, place: str) -> bool:
        try:
            cascade = from_tree(root, name=name, place=place)
        except InputError as caught:
            self._why = f" ({caught})"
            warnings.warn(str(caught), stacklevel=4)
            return False
        self._detector = Detector(cascade, exact=True)
        return True

    @staticmethod
    def convert(oldcascade: str | bytes | os.PathLike[str], newcascade: str | bytes | os.PathLike[str]) -> bool:
        """Write a file of the layout before the current one in the current one; return whether that worked.

        Parameters
        ----------
        oldcascade, newcascade : str, bytes or path
        """
        try:
            path = Path(os.fsdecode(oldcascade))
            root = read_tree(read_bounded(path, MAX_BYTES, "cascade file"), place=str(path))
            if not is_old(root):
                return False
            write_text(os.fsdecode(newcascade), to_xml(from_tree(root, name=name_of(path), place=str(path))))
        except (InputError, OSError) as caught:
            warnings.warn(str(caught), stacklevel=2)
            return False
        return True

    def empty(self) -> bool:
        """Return whether no cascade is loaded."""
        return self._detector is None

    @_raises_error
    def getOriginalWindowSize(self) -> tuple[int, int]:
        """Return width and height of the window."""
        return self._cascade.window

    @_raises_error
    def getFeatureType(self) -> int:
        """Return 0 for Haar-like features, 1 for LBP."""
        return 0 if self._cascade.kind == "haar" else 1

    @_raises_error
    def isOldFormatCascade(self) -> bool:
        """Return False: a file of the old layout is converted when it is loaded, by OpenCV too."""
        _ = self._cascade  # an error if there is none
        return False

    @_raises_error
    def detectMultiScale(
        self,
        image: Image,
        scaleFactor: float | None = 1.1,
        minNeighbors: int | None = 3,
        flags: int | None = 0,
        minSize: Sequence[int] | None = (0, 0),
        maxSize: Sequence[int] | None = (0, 0),
    ) -> Rects:
        """Find objects of different sizes.

        Parameters
        ----------
        image : ndarray or cv2.UMat of uint8, shape (h, w), (h, w, 3) BGR or (h, w, 4) BGRA
            In None nothing is found, with a warning.
        scaleFactor : float
            Ratio of one scale to the next, above 1.
        minNeighbors : int
            Rectangles that merge no more than this many hits are dropped; 0 returns the hits.
        flags : int
            Ignored, as by OpenCV since 3.0.
        minSize, maxSize : (int, int)
            Smallest and largest object, width and height; a maximum with a zero means the image's size.

        None stands for the default of any of them.

        Returns
        -------
        ndarray of int32, shape (n, 4), or an empty tuple
            x, y, width, height.

        Raises
        ------
        error
            If no cascade is loaded, or an argument cannot be used.
        """
        boxes: Rects = _or_empty(self._detect(image, scaleFactor, minNeighbors, minSize, maxSize)[0])
        return boxes

    @_raises_error
    def detectMultiScale2(
        self,
        image: Image,
        scaleFactor: float | None = 1.1,
        minNeighbors: int | None = 3,
        flags: int | None = 0,
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

    @_raises_error
    def detectMultiScale3(
        self,
        image: Image,
        scaleFactor: float | None = 1.1,
        minNeighbors: int | None = 3,
        flags: int | None = 0,
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
            raise self._empty()
        return self._detector.cascade

    def _empty(self) -> InputError:
        """Return the error that there is no cascade, with the reason if one was to be loaded."""
        return InputError(f"expected a loaded cascade, got an empty CascadeClassifier{self._why}")

    def _detect(
        self,
        image: Image,
        scale_factor: float | None,
        min_neighbors: int | None,
        min_size: Sequence[int] | None,
        max_size: Sequence[int] | None,
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """Return boxes, and the number of hits and the largest sum of the last stage of each."""
        if self._detector is None:
            raise self._empty()
        smallest, largest = bounds_of(min_size, max_size)
        detector = self._detector.replace(
            scale_factor=scale_of(scale_factor),
            min_neighbors=max(0, integer_of(min_neighbors, "minNeighbors", 3)),
            min_size=smallest,
            max_size=largest,
        )
        gray = gray_of(image, detector.cascade.window)
        if gray is None:
            return np.zeros((0, 4), dtype=np.int32), np.zeros(0, dtype=np.int32), np.zeros(0)
        found, sums = detector.detect_with_sums(gray)
        # OpenCV's arrays may be written to, those of detections not.
        return found.boxes.copy(), found.neighbors.copy(), sums


@_raises_error
def groupRectangles(
    rectList: Sequence[Sequence[int]] | npt.NDArray[Any] | None, groupThreshold: int | None, eps: float | None = EPSILON
) -> tuple[Rects, Ints]:
    """Merge similar rectangles, as ``cv2.groupRectangles`` does.

    Parameters
    ----------
    rectList : sequence of (x, y, width, height)
        None is none.
    groupThreshold : int
        Groups of no more than this many rectangles are dropped; 0 or less, or None, returns every rectangle as it is.
    eps : float
        How far, relative to their size, rectangles of one group may lie apart.

    Returns
    -------
    rectList : ndarray of int32, shape (n, 4), or an empty tuple
    weights : ndarray of int32, shape (n,), or an empty tuple
        Number of rectangles merged into each.

    Raises
    ------
    error
        If the rectangles are not rows of four integers.
    """
    threshold = integer_of(groupThreshold, "groupThreshold", 0)
    if eps is not None and not isinstance(eps, int | float | np.integer | np.floating):
        raise InputError(f"expected eps as a number, got {eps!r}")
    groups = group_rectangles(rectangles_of(rectList), threshold, EPSILON if eps is None else float(eps))
    return _or_empty(groups.boxes), _or_empty(groups.counts)


def _locate(filename: str | bytes | os.PathLike[str]) -> Path:
    """Return the file meant; a name without a folder may also be one of the packaged cascades."""
    path = Path(os.fsdecode(filename))
    if not path.name:
        raise InputError("expected a cascade file, got an empty name")
    alone = path.parent == Path() and not is_file(path)
    return resolve(path.stem if alone and stock.find_elsewhere(path) is None else path)


def _or_empty(array: npt.NDArray[Any]) -> Any:
    """OpenCV's binding returns an empty tuple for nothing."""
    return array if len(array) else ()


# --- into cv2 itself -------------------------------------------------------------------------------------------------

_NAMES = {
    "CascadeClassifier": CascadeClassifier,
    "CascadeClassifier_convert": CascadeClassifier.convert,
    "groupRectangles": groupRectangles,
    "CASCADE_DO_CANNY_PRUNING": CASCADE_DO_CANNY_PRUNING,
    "CASCADE_SCALE_IMAGE": CASCADE_SCALE_IMAGE,
    "CASCADE_FIND_BIGGEST_OBJECT": CASCADE_FIND_BIGGEST_OBJECT,
    "CASCADE_DO_ROUGH_SEARCH": CASCADE_DO_ROUGH_SEARCH,
}
_MISSING = object()
_originals: dict[str, Any] = {}


def install(*, force: bool = False) -> list[str]:
    """Put the drop-in into the ``cv2`` module, for packages that import it themselves.

    Call it before they do: a package that has already taken a name out of ``cv2`` keeps what it took.

    Parameters
    ----------
    force : bool
        Replace what ``cv2`` has; by default only what it lacks is added, which is everything in OpenCV 5 and nothing
        in OpenCV 4.

    Returns
    -------
    list of str
        What was added or replaced. With it goes ``data.haarcascades``, if the folder that it names holds no cascades
        and another one on this machine does.

    See Also
    --------
    uninstall : Puts everything back.
    """
    done = []
    for name, value in _NAMES.items():
        present = getattr(cv2, name, _MISSING)
        if present is not value and (force or present is _MISSING):
            _originals.setdefault(name, present)
            setattr(cv2, name, value)
            done.append(name)
    data, sample = getattr(cv2, "data", None), Path("haarcascade_frontalface_default.xml")
    if data is not None and not is_file(Path(data.haarcascades) / sample):
        elsewhere = stock.find_elsewhere(sample)
        if elsewhere is not None:
            _originals.setdefault("data.haarcascades", data.haarcascades)
            data.haarcascades = f"{elsewhere.parent}{os.sep}"
            done.append("data.haarcascades")
    return done


def uninstall() -> list[str]:
    """Undo `install`; returns what was put back or taken away."""
    done = list(_originals)
    for name, value in _originals.items():
        place = getattr(cv2, "data", None) if name.startswith("data.") else cv2
        if value is _MISSING:
            delattr(place, name)
        else:
            setattr(place, name.removeprefix("data."), value)
    _originals.clear()
    return done
