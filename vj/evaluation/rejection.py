"""What each stage of a cascade sees, rejects and costs on real pictures.

Everything here is read off depth maps: how many stages each window of a level passed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from vj._types import Gray
from vj.cascade.model import Cascade
from vj.detector import Detector, WindowMap
from vj.errors import InputError
from vj.evaluation.paths import nodes_evaluated
from vj.scanning.pyramid import resize

Counts = npt.NDArray[np.int64]
Rule = Literal["grid", "opencv"]


@dataclass(frozen=True, eq=False)
class RejectionProfile:
    """Counts over all windows of a set of pictures.

    Parameters
    ----------
    name : str
        Of the cascade.
    stage_sizes : ndarray of int64, shape (n_stages,)
        Weak classifiers of each stage.
    windows : int
        Windows looked at. Those too flat to normalise are among them, but enter no stage.
    entered, passed : ndarray of int64, shape (n_stages,)
        Windows that entered and that passed each stage.
    evaluated : ndarray of int64, shape (n_stages,)
        Features evaluated in each stage: one for each stump, one for each node on the path through a tree.
    """

    name: str
    stage_sizes: Counts
    windows: int
    entered: Counts
    passed: Counts
    evaluated: Counts

    @property
    def rejected(self) -> Counts:
        """Windows that each stage rejected; shape (n_stages,)."""
        return self.entered - self.passed

    @property
    def flat(self) -> int:
        """Windows dropped before the first stage, their contrast being too low."""
        return self.windows - int(self.entered[0])

    @property
    def rejection_rates(self) -> npt.NDArray[np.float64]:
        """Share of the entering windows that each stage rejects; nan where none entered; shape (n_stages,)."""
        rates = np.full(len(self.entered), np.nan)
        np.divide(self.rejected, self.entered, out=rates, where=self.entered > 0)
        return rates

    @property
    def weak_classifiers_per_window(self) -> float:
        """Weak classifiers evaluated for each window looked at, flat ones included; a tree counts once."""
        return float((self.entered * self.stage_sizes).sum() / max(self.windows, 1))

    @property
    def features_per_window(self) -> float:
        """Features evaluated for each window looked at, flat ones included."""
        return float(self.evaluated.sum() / max(self.windows, 1))

    def __add__(self, other: RejectionProfile) -> RejectionProfile:
        if not np.array_equal(self.stage_sizes, other.stage_sizes):
            raise InputError(f"expected profiles of one cascade, got {self.name} and {other.name}")
        return RejectionProfile(
            self.name,
            self.stage_sizes,
            self.windows + other.windows,
            self.entered + other.entered,
            self.passed + other.passed,
            self.evaluated + other.evaluated,
        )


def visited(depth: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Return which windows OpenCV's detector looks at; shape as `depth`.

    In each row, the right neighbour of a window that the first stage rejected is left out; a window dropped for its
    low contrast hides none.
    """
    rejected = depth == 0
    mask = np.ones(depth.shape, dtype=np.bool_)
    for column in range(1, depth.shape[1]):
        mask[:, column] = ~(mask[:, column - 1] & rejected[:, column - 1])
    return mask


def rejection_profile(
    cascade: Cascade,
    pictures: Iterable[Gray],
    *,
    scale_factor: float = 1.1,
    min_size: tuple[int, int] = (0, 0),
    rule: Rule = "opencv",
) -> RejectionProfile:
    """Count what each stage of a cascade sees, passes and costs.

    Parameters
    ----------
    cascade : Cascade
    pictures : iterable of ndarray of uint8, shape (h, w)
    scale_factor : float
        Ratio of one scale to the next.
    min_size : (int, int)
        Smallest window in pixels of the picture.
    rule : {'opencv', 'grid'}
        The windows that OpenCV's detector visits, or all of the same grid: every second pixel below scale 2, every
        pixel from there on.

    Returns
    -------
    RejectionProfile

    Raises
    ------
    InputError
        If the rule is neither, or the scale factor is not above 1.
    """
    if rule not in get_args(Rule):
        raise InputError(f"expected the rule opencv or grid, got {rule!r}")
    detector = Detector(cascade, scale_factor=scale_factor, min_size=min_size)
    total = _empty(cascade)
    for gray in pictures:
        for one in detector.windows(gray):
            total = total + _profile(cascade, gray, one, rule)
    return total


def _profile(cascade: Cascade, gray: Gray, one: WindowMap, rule: Rule) -> RejectionProfile:
    seen = visited(one.depth) if rule == "opencv" else np.ones(one.depth.shape, dtype=np.bool_)
    counts = np.bincount(one.depth[seen].astype(np.int64) + 1, minlength=cascade.n_stages + 2)
    # counts[0] are flat windows, counts[k + 1] those that passed exactly k stages.
    reached = counts[::-1].cumsum()[::-1]
    entered, passed = reached[1:-1], reached[2:]
    sizes = cascade.stage_sizes.astype(np.int64)
    evaluated = entered * sizes
    if not cascade.is_stumps:
        rows, columns = np.nonzero(seen & (one.depth >= 0))
        corners = np.column_stack([columns, rows]) * one.level.stride
        evaluated = nodes_evaluated(cascade, resize(gray, one.level.size), corners, one.depth[rows, columns])
    return RejectionProfile(cascade.name, sizes, int(reached[0]), entered, passed, evaluated)


def _empty(cascade: Cascade) -> RejectionProfile:
    none = np.zeros(cascade.n_stages, dtype=np.int64)
    return RejectionProfile(cascade.name, cascade.stage_sizes.astype(np.int64), 0, none, none, none)
