"""Recall against false positives, precision against recall, and the figures read off them.

References
----------
P. Viola and M. Jones, CVPR 2001, table 2: recall at a count of false detections over the whole set.
M. Everingham et al., IJCV 2010, section 4.2: average precision as the area under the precision envelope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vj.errors import InputError
from vj.evaluation.matching import NEITHER, TRUE, Matches

FALSE_POSITIVES = (0, 10, 50, 100)
"""Counts of false positives in the whole set at which recall is reported."""

VIOLA_JONES = (0, 10, 31, 50, 65, 78, 95, 167, 422)
"""The counts of Viola and Jones, and 0."""


@dataclass(frozen=True, eq=False)
class Curve:
    """What a detector finds as its threshold falls: one point for each distinct score.

    Detections of equal score stand or fall together, so that no figure depends on their order.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
        Distinct scores, highest first.
    true, false : ndarray of float64, shape (n,)
        Objects found (or the sum of their overlaps, see `vj.evaluation.fddb`) and false detections with a score at
        least as high.
    n_wanted : int
        Objects that should be found.
    n_images : int
    """

    scores: npt.NDArray[np.float64]
    true: npt.NDArray[np.float64]
    false: npt.NDArray[np.float64]
    n_wanted: int
    n_images: int

    @property
    def recall(self) -> npt.NDArray[np.float64]:
        """Share of the wanted objects found, at each point; never falls."""
        return self.true / self.n_wanted

    @property
    def precision(self) -> npt.NDArray[np.float64]:
        """Share of the detections that are true, at each point."""
        return self.true / np.maximum(self.true + self.false, 1)

    def recall_at(self, false_positives: float) -> float:
        """Highest recall with at most this many false positives in the whole set; 0 if no threshold is that strict."""
        allowed = self.true[self.false <= false_positives]
        return float(allowed.max(initial=0.0) / self.n_wanted)

    @property
    def average_precision(self) -> float:
        """Area under the precision envelope over recall, 0 to 1."""
        envelope = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float(np.sum(np.diff(self.recall, prepend=0.0) * envelope))


def curve(scores: Sequence[npt.NDArray[np.float64]], matches: Sequence[Matches], n_wanted: int) -> Curve:
    """Pool the matches of all images into one `Curve`.

    Parameters
    ----------
    scores : sequence of ndarray of float64
        Scores of the detections of each image.
    matches : sequence of Matches
        What became of them, in the same order.
    n_wanted : int
        Objects that should be found in all images; at least 1.

    Returns
    -------
    Curve

    Raises
    ------
    InputError
        If there is no object to find.
    """
    if n_wanted < 1:
        raise InputError("expected at least one object to find, got none (are all of them ignored?)")
    empty = np.zeros(0)
    score = np.concatenate([*scores, empty])
    outcome = np.concatenate([*(m.outcome for m in matches), empty])
    counts = outcome != NEITHER
    return pooled(score[counts], (outcome[counts] == TRUE).astype(np.float64), n_wanted, len(matches))


def pooled(scores: npt.NDArray[np.float64], true: npt.NDArray[np.float64], n_wanted: int, n_images: int) -> Curve:
    """Build a `Curve` from the score of each detection and whether it is true (1) or false (0)."""
    distinct, index = np.unique(-scores, return_inverse=True)
    n = len(distinct)
    found = np.bincount(index, weights=true, minlength=n)
    return Curve(
        scores=-distinct,
        true=np.cumsum(found),
        false=np.cumsum(np.bincount(index, minlength=n) - found),
        n_wanted=n_wanted,
        n_images=n_images,
    )
