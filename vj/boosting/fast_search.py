"""The fast search: a random sample of the pool, then hill climbing from the best through neighbouring features.

Features that differ by one pixel in position or size have nearly the same loss, so a sample of a few per cent contains
one near every good feature, and climbing to better neighbours finds the local optimum. ``benchmarks/training.py``
measures what is lost against a search over all features.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vj.boosting.search import Evaluate, Indices
from vj.cascade.haar import HaarFeatures
from vj.cascade.lbp import LbpFeatures

CLIMBERS = 24
"""Features from which the search climbs."""
_STEPS = 12


class Neighbours:
    """Finds the features that differ by one step of x, y, width or height from given ones.

    Parameters
    ----------
    features : HaarFeatures or LbpFeatures
    """

    def __init__(self, features: HaarFeatures | LbpFeatures) -> None:
        shapes, self._places = _shapes_and_places(features)
        self._shape = np.zeros(len(shapes), dtype=np.int64)
        for column in shapes.T:
            # Column by column: np.unique over whole rows takes six times as long (0.6 s for 162,336 features).
            pair = self._shape * (1 << 32) + (column - column.min())
            _, self._shape = np.unique(pair, return_inverse=True)
        # One step in width or height is the template's smallest size: three pixels for three columns.
        n_shapes = int(self._shape.max()) + 1
        steps = np.full((n_shapes, 2), np.iinfo(np.int64).max)
        np.minimum.at(steps, self._shape, self._places[:, 2:])
        self._steps = steps
        # In a thinned pool the next place is several pixels away.
        self._apart = np.maximum(np.gcd.reduce(self._places[:, :2], axis=0), 1)
        self._sizes = self._places.max(axis=0) + 1
        keys = self._key(self._shape, self._places)
        self._order = np.argsort(keys)
        self._keys = keys[self._order]

    def of(self, indices: Indices) -> Indices:
        """Return the neighbours of features, each once, ascending."""
        shape, place = self._shape[indices], self._places[indices]
        wide, high = self._steps[shape].T
        zero = np.zeros_like(wide)
        right, down = zero + self._apart[0], zero + self._apart[1]
        moves = [(right, zero, zero, zero), (zero, down, zero, zero)]
        moves += [(zero, zero, wide, zero), (zero, zero, zero, high)]
        # A width may grow on either side.
        moves += [(-wide, zero, wide, zero), (zero, -high, zero, high)]
        found = []
        for move in moves:
            for sign in (1, -1):
                moved = place + sign * np.stack(move, axis=1)
                inside = ((moved >= 0) & (moved < self._sizes)).all(axis=1)
                keys = self._key(shape[inside], moved[inside])
                at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
                found.append(self._order[at[self._keys[at] == keys]])
        return np.unique(np.concatenate(found))

    def _key(self, shape: npt.NDArray[np.int64], place: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        key = shape.astype(np.int64)
        for k in range(4):
            key = key * self._sizes[k] + place[:, k]
        return key


def _shapes_and_places(features: HaarFeatures | LbpFeatures) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return each feature's template, in twelfths of its size, and its x, y, width and height."""
    if isinstance(features, LbpFeatures):
        return np.zeros((len(features), 1), dtype=np.int64), features.rects.astype(np.int64)
    rects = features.rects.astype(np.int64)
    place = rects[:, 0]
    columns = [features.tilted.astype(np.int64)]
    for k in (1, 2):
        right, down = rects[:, k, 0] - place[:, 0], rects[:, k, 1] - place[:, 1]
        # Tilted: offsets run along the two edges of the rectangle.
        along = np.where(features.tilted, (right + down) // 2, right)
        across = np.where(features.tilted, (down - right) // 2, down)
        used = features.weights[:, k] != 0
        for part, whole in ((along, 2), (across, 3), (rects[:, k, 2], 2), (rects[:, k, 3], 3)):
            columns.append(np.where(used, 12 * part // place[:, whole], -1))
        columns.append(np.rint(features.weights[:, k]).astype(np.int64))
    return np.stack(columns, axis=1), place


class FastCandidates:
    """Chooses candidates for one split; a `vj.boosting.search.Candidates`.

    Parameters
    ----------
    neighbours : Neighbours
    n : int
        Size of the pool.
    share : float
        Share of the pool that is sampled.
    seed : tuple of int
        Seed of the sample; different for every split.
    """

    def __init__(self, neighbours: Neighbours, n: int, share: float, seed: tuple[int, ...]) -> None:
        self._neighbours, self._n, self._share, self._seed = neighbours, n, share, seed

    def __call__(self, evaluate: Evaluate) -> tuple[Indices, npt.NDArray[np.float64], npt.NDArray[np.int32]]:
        """Evaluate the sample, then climb until no neighbour of the best features is better."""
        rng = np.random.default_rng(self._seed)
        new = np.unique(rng.integers(0, self._n, max(1, int(self._share * self._n))))
        seen = np.zeros(self._n, dtype=np.bool_)
        best, best_losses = np.zeros(0, dtype=np.int64), np.zeros(0)
        found = []
        for _ in range(_STEPS):
            seen[new] = True
            losses, edges = evaluate(new)
            found.append((new, losses, edges))
            pool, pool_losses = np.concatenate([best, new]), np.concatenate([best_losses, losses])
            # Among equal losses the lowest feature climbs, independently of the sorting algorithm.
            last = min(CLIMBERS, len(pool)) - 1
            near = np.flatnonzero(pool_losses <= np.partition(pool_losses, last)[last])
            order = near[np.lexsort((pool[near], pool_losses[near]))[:CLIMBERS]]
            climbers = pool[order]
            fresh = climbers[~np.isin(climbers, best)]
            best, best_losses = climbers, pool_losses[order]
            new = self._neighbours.of(fresh) if len(fresh) else fresh
            new = new[~seen[new]]
            if not len(new):
                break
        features, losses, edges = (np.concatenate(part) for part in zip(*found, strict=True))
        return features, losses, edges
