"""Set the rejection thresholds of a soft cascade on positives that boosting has not seen.

A long stage need not be run to its end for a window that falls far behind. Sums are checked after every `EVERY` weak
classifiers of a stage; each check may lose its share of the positives that the cascade finds, in proportion to what a
rejection there saves: the weak classifiers left in the stage.

References
----------
L. Bourdev and J. Brandt, "Robust object detection via soft cascade", CVPR 2005, section 3: thresholds are set one after
the other, each to give up so many of the positives that are left.
C. Zhang and P. Viola, "Multiple-instance pruning for learning efficient cascade detectors", NIPS 2007: every threshold
is raised to the lowest sum of the positives that all of them keep.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vj._types import Floats
from vj.boosting.samples import Windows
from vj.boosting.stage import resolves
from vj.cascade.model import Cascade
from vj.cascade.soft import SoftThresholds
from vj.errors import InputError
from vj.scanning.scanner import Scanner

EVERY = 16
"""Weak classifiers from one check to the next: a check costs the scan about as much as one of them."""

_NEVER = -3e38


def soften(cascade: Cascade, positives: Windows, loss: float) -> Cascade:
    """Return the cascade with soft thresholds, in place of those it has.

    Parameters
    ----------
    cascade : Cascade
    positives : ndarray of uint8, shape (n, height, width)
        Of the cascade's window, which boosting has not seen.
    loss : float
        Share of those positives that pass all stages that may be lost, above 0 and at most 0.5.

    Returns
    -------
    Cascade
        Without soft thresholds if no stage has more than `EVERY` weak classifiers.

    Raises
    ------
    InputError
        If the loss is out of range, or too few positives pass all stages to set it on: it must allow for two of them.
    """
    if not 0 < loss <= 0.5:
        raise InputError(f"expected a loss above 0 and at most 0.5, got {loss}")
    width, height = cascade.window
    if positives.dtype != np.uint8 or positives.shape[1:] != (height, width):
        raise InputError(
            f"expected positives as uint8 of shape (n, {height}, {width}), got {positives.dtype} {positives.shape}"
        )
    exact = cascade.exact()
    trees, left = _checks(exact)
    if not len(trees):
        return exact
    never = SoftThresholds(trees, np.full(len(trees), _NEVER, dtype=np.float32))
    sums = Scanner(replace(exact, soft=never)).part_sums(positives)
    # The last column is the sum of the last stage.
    found = sums[sums[:, -1] >= exact.stage_limits[-1]]
    if not resolves(len(found), 1 - loss):
        raise InputError(
            f"expected at least {int(np.ceil(2 / loss))} held-out positives that pass all stages "
            f"to lose {loss:g} of them, got {len(found)}"
        )
    ends = np.union1d(exact.stage_starts[1:], trees + 1)
    sums = found[:, np.isin(ends, trees + 1)]
    return replace(exact, soft=SoftThresholds(trees, _thresholds(sums, left, loss)))


def _checks(cascade: Cascade) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return after which weak classifiers sums are checked, and how many are then left of the stage."""
    trees, left = [], []
    for first, last in zip(cascade.stage_starts[:-1].tolist(), cascade.stage_starts[1:].tolist(), strict=True):
        here = np.arange(first + EVERY, last, EVERY)
        trees.append(here - 1)
        left.append(last - here)
    return np.concatenate(trees).astype(np.int32), np.concatenate(left).astype(np.int64)


def _thresholds(sums: Floats, left: npt.NDArray[np.int64], loss: float) -> npt.NDArray[np.float32]:
    """Return a threshold for each column, so that all of them together lose no more than the share."""
    n = len(sums)
    allowed = np.floor(loss * n * np.cumsum(left) / left.sum() + 1e-9).astype(int)
    for k in range(len(left)):
        # A threshold is stored in single precision, and must not round above the sum of a positive that it keeps.
        threshold = _below(np.partition(sums[:, k], allowed[k] - (n - len(sums)))[allowed[k] - (n - len(sums))])
        sums = sums[sums[:, k] >= threshold]
    # What later checks lose, earlier ones need not keep.
    return np.array([_below(lowest) for lowest in sums.min(axis=0)], dtype=np.float32)


def _below(value: float) -> np.float32:
    """Return the highest number of single precision that is not above a value."""
    found = np.float32(value)
    return found if found <= value else np.nextafter(found, np.float32(-np.inf))
