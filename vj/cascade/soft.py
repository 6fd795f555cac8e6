"""Soft cascades: rejection thresholds inside stages, stored with the cascade.

OpenCV ignores the element of the file that holds them. It runs every stage to its end, and therefore finds all that a
scan with them finds, and a little more. They are set by `vj.boosting.soft`.

References
----------
L. Bourdev and J. Brandt, "Robust object detection via soft cascade", CVPR 2005.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vj.errors import InputError

TAG = "softThresholds"


@dataclass(frozen=True, eq=False)
class SoftThresholds:
    """Sums below which a window is rejected before its stage has ended.

    Parameters
    ----------
    trees : ndarray of int32, shape (n,)
        After which weak classifiers of the cascade, counted from 0 over all stages, the sum is checked; strictly
        rising, none of them the last of its stage.
    sums : ndarray of float32, shape (n,)
        Smallest sum of the stage's weak classifiers so far with which a window stays; finite.

    Raises
    ------
    InputError
        If anything is out of range.
    """

    trees: npt.NDArray[np.int32]
    sums: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        trees = np.array(self.trees, dtype=np.int32, order="C")
        with np.errstate(over="ignore"):
            sums = np.array(self.sums, dtype=np.float32, order="C")
        if trees.ndim != 1 or trees.shape != sums.shape or not len(trees):
            raise InputError(
                f"expected soft thresholds as at least one weak classifier and as many sums, "
                f"got {trees.shape} and {sums.shape}"
            )
        if (np.diff(trees.astype(np.int64)) <= 0).any() or trees[0] < 0:
            raise InputError("expected soft thresholds after weak classifiers that rise from 0 or more, got others")
        if not np.isfinite(sums).all():
            raise InputError(f"expected finite soft thresholds, got {sums[~np.isfinite(sums)][0]}")
        for name, array in (("trees", trees), ("sums", sums)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.trees)

    def __eq__(self, other: object) -> bool:
        """Whether both reject the same windows: equal to the bit."""
        if not isinstance(other, SoftThresholds):
            return NotImplemented
        return np.array_equal(self.trees, other.trees) and np.array_equal(self.sums, other.sums)

    __hash__ = None  # type: ignore[assignment]

    def check(self, stage_starts: npt.NDArray[np.int32]) -> None:
        """Raise `InputError` unless every check lies inside one of the stages that start at these weak classifiers."""
        last = np.isin(self.trees, stage_starts[1:] - 1)
        if self.trees[-1] >= stage_starts[-1] or last.any():
            wrong = self.trees[last][0] if last.any() else self.trees[-1]
            raise InputError(f"expected soft thresholds inside stages, got one after weak classifier {wrong}")

    def before(self, tree: int) -> SoftThresholds | None:
        """Return those that lie before a weak classifier; None if there are none."""
        n = int(np.searchsorted(self.trees, tree))
        return SoftThresholds(self.trees[:n], self.sums[:n]) if n else None


def read_element(parent: Any) -> SoftThresholds | None:
    """Return the soft thresholds below a cascade's element, or None if it has none.

    Raises
    ------
    InputError
        If there are some that cannot be used.
    """
    element = parent.find(TAG)
    if element is None:
        return None
    try:
        trees = np.array([int(word) for word in (element.findtext("trees") or "").split()], dtype=np.int32)
        sums = np.array([float(word) for word in (element.findtext("sums") or "").split()], dtype=np.float64)
    except (ValueError, OverflowError):
        raise InputError("expected whole numbers and sums as soft thresholds, got others") from None
    return SoftThresholds(trees, sums)  # type: ignore[arg-type]


def to_lines(soft: SoftThresholds) -> Iterator[str]:
    """Yield the lines of the element that `read_element` reads back equal, to the last bit."""
    yield f"  <{TAG}>"
    for name in ("trees", "sums"):
        # `str` gives the fewest digits that come back as the same float32.
        words = [str(value) for value in getattr(soft, name)]
        yield f"    <{name}>"
        yield from (f"      {' '.join(words[k : k + 10])}" for k in range(0, len(words), 10))
        yield f"    </{name}>"
    yield f"  </{TAG}>"
