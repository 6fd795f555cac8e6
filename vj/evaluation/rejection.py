"""What each stage of a cascade sees, rejects and costs on real images, as the detector itself counts it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from vj._types import Counts, Gray
from vj.cascade.model import Cascade
from vj.detector import Cost, Detector
from vj.errors import InputError

Rule = Literal["grid", "opencv"]


@dataclass(frozen=True, eq=False)
class RejectionProfile:
    """Counts over all windows of a set of images.

    Parameters
    ----------
    name : str
        Of the cascade.
    stage_sizes : ndarray of int64, shape (n_stages,)
        Weak classifiers that each stage evaluates: without those it carries on from the stage before.
    windows : int
        Windows looked at. Those too flat to normalise are among them, but enter no stage.
    entered, passed : ndarray of int64, shape (n_stages,)
        Windows that entered and that passed each stage.
    features : ndarray of int64, shape (n_stages,)
        Features evaluated in each stage: one for each stump, one for each node on the path through a tree.
    """

    name: str
    stage_sizes: Counts
    windows: int
    entered: Counts
    passed: Counts
    features: Counts

    @property
    def rejected(self) -> Counts:
        """Windows that each stage rejected; shape (n_stages,)."""
        return self.entered - self.passed

    @property
    def flat(self) -> int:
        """Windows dropped before the first stage because their contrast is too low."""
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
        return float(self.features.sum() / max(self.windows, 1))

    def __add__(self, other: RejectionProfile) -> RejectionProfile:
        if not np.array_equal(self.stage_sizes, other.stage_sizes):
            raise InputError(f"expected profiles of one cascade, got {self.name} and {other.name}")
        return RejectionProfile(
            self.name,
            self.stage_sizes,
            self.windows + other.windows,
            self.entered + other.entered,
            self.passed + other.passed,
            self.features + other.features,
        )


def rejection_profile(
    cascade: Cascade,
    images: Iterable[Gray],
    *,
    scale_factor: float = 1.1,
    min_size: tuple[int, int] = (0, 0),
    rule: Rule = "opencv",
) -> RejectionProfile:
    """Count what each stage of a cascade sees, passes and costs.

    Parameters
    ----------
    cascade : Cascade
    images : iterable of ndarray of uint8, shape (h, w)
    scale_factor : float
        Ratio of one scale to the next.
    min_size : (int, int)
        Smallest window in pixels of the image.
    rule : {'opencv', 'grid'}
        The windows that OpenCV's detector visits, or all of the same grid: every second pixel below scale 2, then
        every pixel.

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
    return profile_of(cascade, (detector.cost(gray, every=rule == "grid") for gray in images))


def profile_of(cascade: Cascade, costs: Iterable[Cost]) -> RejectionProfile:
    """Return the profile of images whose costs are known.

    Parameters
    ----------
    cascade : Cascade
    costs : iterable of Cost
        What `vj.Detector.cost` returned for each image.
    """
    total = _empty(cascade)
    for cost in costs:
        total = total + _profile(cascade, cost)
    return total


def _profile(cascade: Cascade, cost: Cost) -> RejectionProfile:
    entered = cost.entered.sum(axis=0)
    passed = np.append(entered[1:], cost.hits.sum())
    windows, features = int(cost.windows.sum()), cost.features.sum(axis=0)
    return RejectionProfile(cascade.name, cascade.added.astype(np.int64), windows, entered, passed, features)


def _empty(cascade: Cascade) -> RejectionProfile:
    none = np.zeros(cascade.n_stages, dtype=np.int64)
    return RejectionProfile(cascade.name, cascade.added.astype(np.int64), 0, none, none, none)
