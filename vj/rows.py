"""What is searched for in an image, and the row of output that says what was found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vj.cascade.model import Cascade
from vj.detections import Detections
from vj.detector import Detector
from vj.errors import InputError
from vj.images import MAX_PIXELS, decode_bgr, read_bgr, read_opaque

OPENCV: dict[str, Any] = {"min_neighbors": 3, "suppression": None, "threshold": None, "coarse": 0}
"""How OpenCV decides what is reported: the defaults for any cascade."""

PACKAGED: dict[str, Any] = {"min_neighbors": 0, "suppression": 0.3, "threshold": 0.2, "coarse": 14}
"""The mode in which the packaged cascade is best; see its model card. From coarse to fine it takes half of the time."""

ANONYMIZING: dict[str, Any] = {"min_neighbors": 0, "suppression": 0.3, "threshold": None, "coarse": 0}
"""What is kept when detections are to be masked: everything, since a box too many does less harm than a face missed."""


def lenient(cascade: Cascade) -> list[Cascade]:
    """Return the packaged cascade as it is used to mask: without its last stage, and the same for mirrored faces."""
    shorter = cascade.truncated(max(1, cascade.n_stages - 1))
    return [shorter, shorter.mirrored()]


@dataclass(frozen=True)
class Search:
    """A detector and which of its detections are kept.

    Parameters
    ----------
    detector : Detector
    threshold : float or None
        Keep detections with at least this probability, 0 to 1; every cascade needs a calibration then.
    min_score : float or None
        Keep detections with at least this score.
    max_pixels : int
        Larger images are refused before they are decoded.

    Raises
    ------
    InputError
        If there is a threshold and a cascade without calibration.
    """

    detector: Detector
    threshold: float | None = None
    min_score: float | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        bare = [one.name for one in self.detector.cascades if one.calibration is None]
        if self.threshold is not None and bare:
            raise InputError(
                f"--threshold: expected a cascade with a calibration, got {bare[0]} without one; "
                "vj-calibrate makes it from labelled images"
            )

    def read(self, path: str | Path, *, opaque: bool = False) -> Any:
        """Return an image as array of uint8, shape (height, width, 3), BGR.

        Parameters
        ----------
        path : str or path
        opaque : bool
            Show white where the image is transparent, rather than the colours hidden there.

        Raises
        ------
        InputError
            If it cannot be read, is too large, or smaller than the window.
        """
        return self.checked(read_opaque(path, self.max_pixels) if opaque else read_bgr(path, self.max_pixels), path)

    def decode(self, data: bytes, name: str) -> Any:
        """Return the image that bytes hold, as `read` does; `name` is what errors call it."""
        return self.checked(decode_bgr(data, name, self.max_pixels), name)

    def checked(self, image: Any, name: str | Path) -> Any:
        """Return an image if it is large enough.

        Raises
        ------
        InputError
            If it is smaller than the window.
        """
        height, width = image.shape[:2]
        window = min(one.window for one in self.detector.cascades)
        if width < window[0] or height < window[1]:
            raise InputError(
                f"{name}: expected an image of at least the window's {window[0]}x{window[1]} pixels, "
                f"got {width}x{height}"
            )
        return image

    def find(self, image: Any) -> Detections:
        """Return the detections in an image, gray or BGR, that are kept."""
        found = self.detector.detect(image)
        if self.threshold is not None:
            found = found.at_least(self.threshold)
        if self.min_score is not None:
            found = found[found.scores >= self.min_score]
        return found


def row(
    name: str, size: tuple[int, int], found: Detections, frame: int | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """Return the row of an image: its name, size (width, height) and detections, as plain values for JSON.

    Of a video, each frame has a row, with its number from 0 and its place in seconds.
    """
    rows = [
        {key: round(value, 4) if isinstance(value, float) else value for key, value in one.items()}
        for one in found.to_dicts()
    ]
    place: dict[str, Any] = {} if frame is None else {"frame": frame, "seconds": round(seconds or 0.0, 3)}
    return {"image": name, **place, "width": size[0], "height": size[1], "detections": rows}
