"""The fast search: neighbours by definition, and never better than looking at everything."""

import numpy as np
import pytest

from vj.boosting.fast_search import FastCandidates, Neighbours
from vj.boosting.feature_values import feature_table
from vj.boosting.samples import prepare
from vj.boosting.search import Search
from vj.boosting.trees import sample_weights
from vj.boosting.workers import Workers
from vj.cascade.haar import feature_pool
from vj.cascade.lbp import lbp_pool

WINDOW = (10, 9)


def _place(features, k):
    if not hasattr(features, "weights"):
        return features.rects[k].tolist()
    return features.rects[k, 0].tolist()


@pytest.mark.parametrize("kind", ["basic", "all", "lbp"])
def test_neighbours_are_one_step_away(kind):
    features = lbp_pool(WINDOW) if kind == "lbp" else feature_pool(WINDOW, kind)
    neighbours = Neighbours(features)
    for k in np.random.default_rng(0).choice(len(features), 40, replace=False).tolist():
        found = neighbours.of(np.array([k]))
        assert 0 < len(found) <= 12
        assert k not in found
        for other in found.tolist():
            if kind != "lbp":
                assert features.weights[k].tolist() == features.weights[other].tolist()
                assert features.tilted[k] == features.tilted[other]
            x, y, w, h = np.subtract(_place(features, other), _place(features, k))
            assert max(abs(x), abs(y)) <= 4 and max(abs(w), abs(h)) <= 4
            # One move: a shift of one pixel, or one side longer or shorter, at either end.
            assert (abs(x) + abs(y) == 1 and (w, h) == (0, 0)) or (
                (w == 0) != (h == 0) and (x, y) in {(0, 0), (-w, 0), (0, -h)}
            )
            assert k in neighbours.of(np.array([other]))


def test_an_edge_feature_has_the_neighbours_one_counts_by_hand():
    features = feature_pool(WINDOW, "basic")
    # Left-right edge of 4x3 at (3, 3): moves of 1, widths 2 and 6 at either end, heights 2 and 4 at either end.
    wanted = [(2, 3, 4, 3), (4, 3, 4, 3), (3, 2, 4, 3), (3, 4, 4, 3), (3, 3, 2, 3), (3, 3, 6, 3), (5, 3, 2, 3)]
    wanted += [(1, 3, 6, 3), (3, 3, 4, 2), (3, 3, 4, 4), (3, 4, 4, 2), (3, 2, 4, 4)]
    edge = (features.weights[:, 1] == 2) & (features.weights[:, 2] == 0)
    edge &= features.rects[:, 1, 1] == features.rects[:, 0, 1]
    edge &= features.rects[:, 1, 3] == features.rects[:, 0, 3]
    start = np.flatnonzero(edge & (features.rects[:, 0] == (3, 3, 4, 3)).all(axis=1))
    found = features.rects[Neighbours(features).of(start), 0].tolist()
    assert sorted(map(tuple, found)) == sorted(wanted)


@pytest.fixture(scope="module")
def search():
    rng = np.random.default_rng(0)
    windows = rng.integers(0, 256, (400, WINDOW[1], WINDOW[0])).astype(int)
    windows[:200, 2:6, 3:7] += 40
    windows = np.clip(windows, 0, 255).astype(np.uint8)
    features = feature_pool(WINDOW, "basic")
    pool = Workers(2)
    groups = prepare(windows[:200]), prepare(windows[200:])
    yield Search(feature_table(features, WINDOW), groups, pool, 1 << 30), Neighbours(features)
    pool.close()


def test_fast_is_nearly_exact_on_a_smooth_problem(search):
    search, neighbours = search
    weights = sample_weights("gentle", np.zeros(200), np.zeros(200))
    pair = weights.first, weights.second
    exact = search.best(pair, weights.criterion)
    for seed in range(5):
        fast = FastCandidates(neighbours, len(search.table), 0.05, (seed,))
        found = search.best(pair, weights.criterion, fast)
        assert exact.loss <= found.loss <= 1.05 * exact.loss
        again = search.best(pair, weights.criterion, fast)
        assert (found.feature, found.threshold, found.loss) == (again.feature, again.threshold, again.loss)


def test_losses_are_those_of_the_exact_search(search):
    search, neighbours = search
    weights = sample_weights("gentle", np.linspace(-1, 1, 200), np.linspace(1, -1, 200))
    padded = search.padded((weights.first, weights.second))
    every = np.arange(len(search.table))
    losses, edges = search.evaluate(every, padded, weights.criterion)
    chosen, got, got_edges = FastCandidates(neighbours, len(every), 0.3, (1,))(
        lambda f: search.evaluate(f, padded, weights.criterion)
    )
    assert len(np.unique(chosen)) == len(chosen)
    assert np.array_equal(got, losses[chosen])
    assert np.array_equal(got_edges, edges[chosen])


def test_neighbours_in_a_thinned_pool_are_a_step_away():
    features = feature_pool((14, 12), "all", 2)
    neighbours = Neighbours(features)
    for k in range(0, len(features), 7):
        found = neighbours.of(np.array([k]))
        assert len(found) and k not in found
        moves = np.subtract(features.rects[found, 0], features.rects[k, 0])
        assert (moves % 2 == 0).all()
        assert (np.abs(moves[:, :2]).sum(axis=1)[(moves[:, 2:] == 0).all(axis=1)] == 2).all()
