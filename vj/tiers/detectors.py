"""Detectors of others as detectors of ours, how sure an answer about an image is, and escalation between detectors.

An image detector is whatever has ``detect(image)`` and returns `Detections`: `vj.Detector`, the adapters here,
`Escalating`, and `vj.tiers.regions.Regions`.
"""

from __future__ import annotations

import math
import threading
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from vj._types import Image
from vj.cascade.calibration import ScoreCalibration
from vj.cascade.model import Cascade
from vj.detector import Detections, Detector
from vj.errors import InputError

MAX_COORDINATE = 1 << 30
PADDED, SNAP = 32, 0.03
"""YuNet pads its input to multiples of the first; an image is shrunk by up to the second to need less of that."""


class ImageDetector(Protocol):
    """What finds objects in an image."""

    def detect(self, image: Image) -> Detections:
        """Find objects in an image (h, w, 3) BGR or (h, w) grey."""
        ...


class FallbackWarning(UserWarning):
    """A tier failed, and the answer is the best of the tiers asked before it."""


def as_detections(boxes: npt.ArrayLike, scores: npt.ArrayLike, calibration: ScoreCalibration | None) -> Detections:
    """Return what a foreign detector found, checked and rounded to pixels; a box counts as one hit.

    Parameters
    ----------
    boxes : array_like of float, shape (n, 4)
        x, y, width, height.
    scores : array_like of float, shape (n,)
    calibration : ScoreCalibration or None

    Raises
    ------
    InputError
        If a number is not finite or a box is impossible.
    """
    placed = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if len(placed) != len(values) or not np.isfinite(values).all():
        raise InputError(f"expected one finite score for each of {len(placed)} boxes, got {len(values)} scores")
    if not (np.abs(placed) < MAX_COORDINATE).all():
        raise InputError("expected boxes of finite numbers, got others")
    corners = np.rint(np.concatenate([placed[:, :2], placed[:, :2] + placed[:, 2:]], axis=1))
    sizes = corners[:, 2:] - corners[:, :2]
    kept = (sizes > 0).all(axis=1)
    whole = np.concatenate([corners[:, :2], sizes], axis=1)[kept].astype(np.int32)
    probabilities = None if calibration is None else calibration(values[kept])
    return Detections(whole, values[kept], np.ones(len(whole), np.int32), probabilities)


@dataclass(frozen=True)
class Framing:
    """How a region is cut out.

    Parameters
    ----------
    context : float
        Side of the region in sides of the proposed box, at least 1.
    object_side : float, optional
        Pixels to which the proposed box's side is brought; by default the region keeps its size. dlib's CNN looks for
        faces of 80 pixels and more: in regions of 100 pixels with the box at 80 it found 96 % of the faces among
        proposals, 98 % in regions of 120 with 85, which cost 1.4 times as much.
    max_zoom : float
        No region is enlarged by more than this.
    """

    context: float = 1.5
    object_side: float | None = None
    max_zoom: float = 8.0

    def __post_init__(self) -> None:
        side = self.object_side
        if not (1 <= self.context < 100 and 0 < self.max_zoom <= 100) or (side is not None and not 1 <= side <= 4096):
            raise InputError(
                "expected a context of 1 to 100, an object_side of 1 to 4096 and a max_zoom of up to 100, "
                f"got {self.context}, {side} and {self.max_zoom}"
            )


class YuNet:
    """OpenCV's neural face detector, ``cv2.FaceDetectorYN``.

    Parameters
    ----------
    model : str or cv2.FaceDetectorYN
        The ONNX file, or a detector already made.
    scale : float
        The image is shrunk by about this factor first, above 0, at most 1: a half costs a quarter to a third.
    score_threshold : float
        Lowest score reported, if `model` is a file: low, since whoever decides later wants the doubtful ones too.
    calibration : ScoreCalibration, optional
        Gives its detections probabilities.

    Raises
    ------
    InputError
        If the file is no such model, or this OpenCV has no ``FaceDetectorYN``.
    """

    def __init__(
        self,
        model: Any,
        *,
        scale: float = 1.0,
        score_threshold: float = 0.02,
        calibration: ScoreCalibration | None = None,
    ) -> None:
        if not 0 < scale <= 1:
            raise InputError(f"expected a scale above 0, at most 1, got {scale}")
        self._model = open_yunet(model, score_threshold) if isinstance(model, str) else model
        # Its input size is a state: two threads must not set it at once.
        self._lock = threading.Lock()
        self.scale = scale
        self.calibration = calibration

    def detect(self, image: Image) -> Detections:
        """Find faces; see `ImageDetector`."""
        import cv2

        colour = image if image.ndim == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
        height, width = colour.shape[:2]
        size = _suited(width * self.scale, height * self.scale) if self.scale < 1 else (width, height)
        colour = shrunk(colour, size)
        with self._lock:
            self._model.setInputSize(size)
            rows = self._model.detect(colour)[1]
        if rows is None:
            return as_detections(np.zeros((0, 4)), np.zeros(0), self.calibration)
        factors = np.array([width / size[0], height / size[1]] * 2)
        return as_detections(rows[:, :4] * factors, rows[:, 14], self.calibration)


def open_yunet(path: str, score_threshold: float) -> Any:
    """Return a ``cv2.FaceDetectorYN``.

    Raises
    ------
    InputError
        If the file is no such model, or this OpenCV has no ``FaceDetectorYN``.
    """
    import cv2

    if not hasattr(cv2, "FaceDetectorYN"):
        raise InputError(f"expected an OpenCV with FaceDetectorYN to run {path}, got {cv2.__version__}")
    try:
        return cv2.FaceDetectorYN.create(path, "", (320, 320), score_threshold, 0.3, 5000)
    except cv2.error as error:
        raise InputError(f"{path}: expected a YuNet model, got {' '.join(str(error).split())[:160]}") from None


def _suited(width: float, height: float) -> tuple[int, int]:
    """Round a size for YuNet; one just above a multiple of `PADDED` is brought down to it.

    The net pads its input to such multiples, and a width of 256 costs 1.4 times as much per pixel as one of 224.
    224x180 takes 2.6 ms, 225x181 takes 3.6.
    """
    over = [side for side in (width, height) if side >= PADDED and side % PADDED <= SNAP * side]
    factor = min((side // PADDED * PADDED / side for side in over), default=1.0)
    return max(1, round(width * factor)), max(1, round(height * factor))


def shrunk(image: Image, size: tuple[int, int]) -> Image:
    """Shrink an image by bilinear interpolation, by about a half at a time at most so that every pixel counts.

    That takes a tenth of the time of averaging over areas: 0.06 instead of 0.55 ms from 450x363 to 224x181.
    """
    import cv2

    # Not quite a half is one step, not two.
    while image.shape[1] > 2.5 * size[0] and image.shape[0] > 2.5 * size[1]:
        half = (max(size[0], image.shape[1] // 2), max(size[1], image.shape[0] // 2))
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    if image.shape[1::-1] != size:
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    return image


class Dlib:
    """A detector of dlib: its CNN (``cnn_face_detection_model_v1``) or a HOG detector (``fhog_object_detector``).

    Parameters
    ----------
    model : str or object of dlib
        The CNN's file, such as ``mmod_human_face_detector.dat``, or a detector already made.
    calibration : ScoreCalibration, optional
        Gives its detections probabilities: see `vj.tiers.score_calibration.fit_scores`. As a `Tier` without one, its
        confidences are its scores, with those above 1 taken as 1.

    Raises
    ------
    InputError
        If dlib is not installed, or the file is no such model.
    """

    framing: ClassVar[Framing] = Framing(1.1, 88)
    """How regions are cut out for it: its CNN finds no faces below about 80 px. Chosen on 49 images of WIDER FACE, by
    average precision against time: 77.8 at 39.5 s, against 74.9 at 40.0 s for a context of 1.25 and boxes at 80 px."""

    def __init__(self, model: Any, *, calibration: ScoreCalibration | None = None) -> None:
        if isinstance(model, str):
            try:
                import dlib
            except ImportError:
                raise InputError(f"expected dlib to run {model}, got none installed: pip install dlib-bin") from None
            try:
                model = dlib.cnn_face_detection_model_v1(model)
            except RuntimeError as error:
                raise InputError(f"{model}: expected a model of dlib's CNN, got {str(error).strip()}") from None
        self._model = model
        self._lock = threading.Lock()
        self.calibration = calibration

    def detect(self, image: Image) -> Detections:
        """Find objects; see `ImageDetector`."""
        import cv2

        # dlib wants RGB.
        code = cv2.COLOR_BGR2RGB if image.ndim == 3 else cv2.COLOR_GRAY2RGB
        colour = cv2.cvtColor(image, code)
        with self._lock:
            if hasattr(self._model, "run"):
                rectangles, scores, _ = self._model.run(colour, 0, 0.0)
            else:
                found = list(self._model(colour, 0))
                rectangles = [getattr(one, "rect", one) for one in found]
                scores = [getattr(one, "confidence", 0.0) for one in found]
        boxes = [[r.left(), r.top(), r.width(), r.height()] for r in rectangles]
        return as_detections(boxes, scores, self.calibration)


def as_detector(given: Any) -> ImageDetector:
    """Return the detector that is meant: an `ImageDetector` itself, else the adapter for it.

    Parameters
    ----------
    given : object
        An `ImageDetector`; or a `vj.Cascade`, a ``cv2.FaceDetectorYN``, dlib's ``cnn_face_detection_model_v1`` or
        ``fhog_object_detector``.

    Raises
    ------
    InputError
        If it is none of them.
    """
    if isinstance(given, Cascade):
        return Detector(given)
    if callable(getattr(given, "setInputSize", None)) and callable(getattr(given, "detect", None)):
        return YuNet(given)
    if callable(given) and type(given).__module__.partition(".")[0] in ("dlib", "_dlib_pybind11"):
        return Dlib(given)
    if not callable(getattr(given, "detect", None)):
        raise InputError(f"expected a detector with a method detect, got {type(given).__name__}")
    detector: ImageDetector = given
    return detector


def own_probabilities(found: Detections) -> npt.NDArray[np.float64]:
    """Return the calibrated probabilities, or the scores themselves where these all lie from 0 to 1.

    Raises
    ------
    InputError
        If there are no probabilities and a score lies outside: it is no confidence.
    """
    if found.probabilities is not None:
        return found.probabilities
    if ((found.scores < 0) | (found.scores > 1)).any():
        raise InputError("expected detections with probabilities, or scores from 0 to 1; got others: see vj-calibrate")
    return found.scores


def clipped(found: Detections) -> Detections:
    """Return detections whose scores are cut to 0 to 1, if they have no probabilities."""
    if found.probabilities is not None:
        return found
    return Detections(found.boxes, np.clip(found.scores, 0, 1), found.neighbors)


def uncertainty(found: Detections) -> float:
    """How unsure an answer about an image is: the sum of p (1 - p) over the detections, or 1/2 if there are none.

    The sum is the variance of the number of objects among the detections. An image without any is no certain one:
    the detector may have missed what is there.
    """
    if not len(found):
        return 0.5
    p = own_probabilities(found)
    return float((p * (1 - p)).sum())


def confidence(found: Detections) -> float:
    """Return ``1 / (1 + uncertainty)``, 0 to 1: it falls as `uncertainty` rises, so a threshold on either will do."""
    return 1.0 / (1.0 + uncertainty(found))


class Escalated(NamedTuple):
    """An answer of `Escalating`.

    Parameters
    ----------
    detections : Detections
    asked_heavy : bool
    uncertainty : float
        Of the light tier's answer; infinity if it gave none.
    failure : str
        Why a tier's answer was left out; empty if none was.
    """

    detections: Detections
    asked_heavy: bool
    uncertainty: float
    failure: str = ""


class Escalating:
    """A detector made of two: a light one, and a heavy one for the images where the light one is not sure.

    If the heavy one fails, the light one's answer stands, with a `FallbackWarning`; if the light one fails, the heavy
    one is asked.

    Parameters
    ----------
    light, heavy : ImageDetector
        Or what `as_detector` makes one of.
    threshold : float
        The heavy tier is asked where `uncertainty` of the light one's answer is above this; 0 asks it wherever there is
        any doubt, infinity never.

    Raises
    ------
    InputError
        If the threshold is negative or no number.
    """

    def __init__(self, light: ImageDetector, heavy: ImageDetector, threshold: float) -> None:
        if not threshold >= 0:
            raise InputError(f"expected a threshold of 0 or more, got {threshold}")
        self.light, self.heavy, self.threshold = as_detector(light), as_detector(heavy), threshold

    def examine(self, image: Image) -> Escalated:
        """Find objects and report which tiers were asked."""
        found, first = asked(self.light, image)
        doubt = float("inf") if found is None else uncertainty(found)
        if found is not None and doubt <= self.threshold:
            return Escalated(found, False, doubt)
        better, second = asked(self.heavy, image)
        failure = "; ".join(filter(None, (first, second)))
        if failure:
            warnings.warn(f"a tier gave no answer: {failure}", FallbackWarning, stacklevel=2)
        if better is None:
            if found is None:
                raise InputError(f"expected an answer of either detector, got {failure}")
            better = found
        return Escalated(better, True, doubt, failure)

    def detect(self, image: Image) -> Detections:
        """Find objects; see `ImageDetector`."""
        return self.examine(image).detections


def asked(detector: ImageDetector, image: Image) -> tuple[Detections | None, str]:
    """Ask a detector; return its answer, or None and one line that says why there is none."""
    try:
        found = detector.detect(image)
    except Exception as error:
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")
    if not isinstance(found, Detections):
        return None, f"expected Detections, got {type(found).__name__}"
    # On plain numbers: numpy takes 6 us for a handful of detections.
    for score in found.scores.tolist():
        if not math.isfinite(score):
            return None, "expected finite scores, got others"
    for x, y, width, height in found.boxes.tolist():
        fits = -MAX_COORDINATE <= x <= MAX_COORDINATE and -MAX_COORDINATE <= y <= MAX_COORDINATE
        if not (fits and 0 < width <= MAX_COORDINATE and 0 < height <= MAX_COORDINATE):
            return None, "expected boxes with a size, got others"
    return found, ""
