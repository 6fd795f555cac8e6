"""Boxes held steady from frame to frame of a video."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vj.detections import Detection, Detections
from vj.errors import InputError
from vj.evaluation.matching import overlaps


@dataclass
class _Track:
    """One object over the frames: its smoothed box, the detection it was last seen as, and for how long it is lost."""

    box: npt.NDArray[np.float64]
    seen: Detection
    missing: int = 0


@dataclass
class Smoothing:
    """Holds the boxes of a video steady. One object of it follows one video; frames are given in order.

    A detection belongs to the track of the frame before that it overlaps most, from `iou` on; every track and every
    detection is used once, best overlaps first. The track's box then moves by the share `weight` towards the detection:
    an exponential mean. A detection without a track begins one and is shown at once. A track without a detection is
    shown for `hold` more frames where it was last, then dropped.

    Parameters
    ----------
    weight : float
        Of the new box, above 0 and up to 1; 1 takes it as it is.
    iou : float
        Least intersection over union of a track and a detection that belong together, from 0 to 1.
    hold : int
        Frames for which a track is shown after it was last seen.

    Raises
    ------
    InputError
        If a setting is out of range.

    Examples
    --------
    >>> import numpy as np, vj
    >>> smoothing = vj.Smoothing(weight=0.5)
    >>> first = vj.Detections(np.array([[10, 10, 40, 40]]), np.array([1.0]), np.array([3]))
    >>> second = vj.Detections(np.array([[14, 10, 40, 40]]), np.array([1.0]), np.array([3]))
    >>> [smoothing.update(found).boxes.tolist() for found in (first, second)]
    [[[10, 10, 40, 40]], [[12, 10, 40, 40]]]
    """

    weight: float = 0.5
    iou: float = 0.3
    hold: int = 5
    _tracks: list[_Track] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise InputError(f"expected a weight above 0 and up to 1, got {self.weight}")
        if not 0 <= self.iou <= 1:
            raise InputError(f"expected an iou from 0 to 1, got {self.iou}")
        if isinstance(self.hold, bool) or not isinstance(self.hold, int) or self.hold < 0:
            raise InputError(f"expected a hold of 0 or more frames, got {self.hold}")

    def update(self, found: Detections) -> Detections:
        """Return the detections to show for the next frame.

        Parameters
        ----------
        found : Detections
            Of this frame alone.

        Returns
        -------
        Detections
            Those found, with smoothed boxes, in their order; then those held, with the score, neighbours, probability
            and source of when they were last seen.
        """
        boxes = found.boxes.astype(np.float64)
        pairs = self._pairs(boxes)
        shown = []
        for k, one in enumerate(found):
            track = self._tracks[pairs[k]] if k in pairs else _Track(boxes[k], one)
            track.box = track.box + self.weight * (boxes[k] - track.box)
            track.seen, track.missing = one, 0
            shown.append(track)
        kept = set(pairs.values())
        for k, track in enumerate(self._tracks):
            if k not in kept:
                track.missing += 1
                shown += [track] if track.missing <= self.hold else []
        self._tracks = shown
        return _detections(shown, found)

    def _pairs(self, boxes: npt.NDArray[np.float64]) -> dict[int, int]:
        """Return the number of the track of each box that has one."""
        if not len(boxes) or not self._tracks:
            return {}
        shared = overlaps(boxes, np.array([track.box for track in self._tracks]))
        pairs: dict[int, int] = {}
        taken: set[int] = set()
        for flat in np.argsort(-shared, axis=None, kind="stable").tolist():
            box, track = divmod(flat, shared.shape[1])
            # A box that only touches a track is another object, even if any overlap will do.
            if shared[box, track] < self.iou or shared[box, track] == 0:
                break
            if box not in pairs and track not in taken:
                pairs[box] = track
                taken.add(track)
        return pairs


def _detections(tracks: list[_Track], like: Detections) -> Detections:
    """Return the tracks as detections, with the columns that those found have."""
    seen = [track.seen for track in tracks]
    return Detections(
        np.rint([track.box for track in tracks]).astype(np.int32).reshape(-1, 4),
        np.array([one.score for one in seen]),
        np.array([one.neighbors for one in seen]),
        None if like.probabilities is None else np.array([one.probability for one in seen]),
        None if like.sources is None else np.array([one.source for one in seen]),
    )
