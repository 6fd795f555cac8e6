"""What is searched for in an image, and the row of output that says what was found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vj.detections import Detections
from vj.detector import Detector
from vj.errors import InputError
from vj.images import MAX_PIXELS, decode_bgr, read_bgr


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

    def read(self, path: str | Path) -> Any:
        """Return an image as array of uint8, shape (height, width, 3), BGR.

        Raises
        ------
        InputError
            If it cannot be read, is too large, or smaller than the window.
        """
        return self._checked(read_bgr(path, self.max_pixels), path)

    def decode(self, data: bytes, name: str) -> Any:
        """Return the image that bytes hold, as `read` does; `name` is what errors call it."""
        return self._checked(decode_bgr(data, name, self.max_pixels), name)

    def _checked(self, image: Any, name: str | Path) -> Any:
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


def row(name: str, size: tuple[int, int], found: Detections) -> dict[str, Any]:
    """Return the row of an image: its name, size (width, height) and detections, as plain values for JSON."""
    rows: list[dict[str, Any]] = [
        {"box": box.tolist(), "score": round(float(score), 4), "neighbors": int(count)}
        for box, score, count in zip(found.boxes, found.scores, found.neighbors, strict=True)
    ]
    if found.probabilities is not None:
        for one, p in zip(rows, found.probabilities, strict=True):
            one["probability"] = round(float(p), 4)
    if found.sources is not None:
        for one, source in zip(rows, found.sources, strict=True):
            one["source"] = int(source)
    return {"image": name, "width": size[0], "height": size[1], "detections": rows}
