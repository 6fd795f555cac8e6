"""The search for the best split, against a search through every cut of every feature."""

import naive
import numpy as np
import pytest

from vj.boosting.feature_values import feature_table, feature_values
from vj.boosting.samples import prepare
from vj.boosting.search import Search, goes_left
from vj.boosting.trees import sample_weights
from vj.boosting.workers import Workers
from vj.cascade.haar import feature_pool
from vj.cascade.lbp import lbp_pool

WINDOW = (9, 8)


@pytest.fixture(scope="module")
def workers():
    pool = Workers(2)
    yield pool
    pool.close()


def _groups(n_pos, n_neg, seed=0):
    rng = np.random.default_rng(seed)
    windows = rng.integers(0, 256, (n_pos + n_neg, WINDOW[1], WINDOW[0])).astype(np.uint8)
    # Positives are brighter on the left: there is something to find.
    windows[:n_pos, :, :4] = np.minimum(windows[:n_pos, :, :4].astype(int) + 60, 255)
    return windows[:n_pos], windows[n_pos:]


def _search(features, groups, workers, memory=1 << 30):
    table = feature_table(features, WINDOW)
    return Search(table, tuple(prepare(g) for g in groups), workers, memory)


def _samples(weights):
    """Samples as (label, weight), back from the integers that the search was given."""
    return [(1, w) for w in weights.first.tolist()] + [(-1, w) for w in weights.second.tolist()]


def _loss(boosting, samples, left):
    sides = [[s for s, inside in zip(samples, left, strict=True) if inside == wanted] for wanted in (True, False)]
    return naive.split_loss(boosting, *sides)


@pytest.mark.parametrize("boosting", ["gentle", "discrete", "real"])
def test_best_stump_is_within_the_bins_of_the_best_cut(boosting, workers):
    positives, negatives = _groups(40, 60)
    features = feature_pool(WINDOW, "basic").take(np.arange(0, 2000, 23))
    search = _search(features, (positives, negatives), workers)
    rng = np.random.default_rng(5)
    weights = sample_weights(boosting, rng.normal(1, 1, 40), rng.normal(-1, 1, 60))
    split = search.best((weights.first, weights.second), weights.criterion)
    samples = _samples(weights)
    left = np.concatenate([goes_left(search.table, split, g) for g in search.groups])
    got = _loss(boosting, samples, left)
    exact = np.concatenate([feature_values(search.table, g) for g in search.groups], axis=1)
    best = naive.best_stump(exact.tolist(), samples, boosting)
    # 256 bins hold a hundred samples almost apart; no cut by value can be better, few are lost.
    assert best * (1 - 1e-12) <= got <= best * 1.03
    # The loss reported is the loss of the split the detector makes.
    assert split.loss == pytest.approx(got, rel=1e-9)


@pytest.mark.parametrize("boosting", ["gentle", "discrete", "real"])
def test_best_subset_of_codes(boosting, workers):
    """Sorting the codes by mean response finds the best of all subsets (Breiman et al. 1984, section 4.2.2)."""
    rng = np.random.default_rng(3)
    shapes = np.concatenate(_groups(4, 4, seed=3))
    groups = shapes[rng.integers(0, 8, 20)], shapes[rng.integers(0, 8, 24)]
    search = _search(lbp_pool(WINDOW), groups, workers)
    weights = sample_weights(boosting, rng.normal(size=20), rng.normal(size=24))
    split = search.best((weights.first, weights.second), weights.criterion)
    samples = _samples(weights)
    left = np.concatenate([goes_left(search.table, split, g) for g in search.groups])
    codes = np.concatenate([feature_values(search.table, g) for g in search.groups], axis=1)
    best = min(
        _loss(boosting, samples, np.isin(row, [c for k, c in enumerate(np.unique(row)) if subset >> k & 1]))
        for row in np.unique(codes, axis=0)[::4]
        for subset in range(1, 1 << (len(np.unique(row)) - 1))
    )
    assert len(np.unique(codes)) > 8
    assert _loss(boosting, samples, left) <= best * (1 + 1e-9)


@pytest.mark.parametrize("kind", ["haar", "lbp"])
def test_memory_and_threads_change_nothing(kind):
    groups = _groups(300, 270)
    features = lbp_pool(WINDOW) if kind == "lbp" else feature_pool(WINDOW, "core")
    found = []
    for threads, memory in ((1, 1 << 30), (3, 1 << 30), (2, 0), (2, 1024 * 1100)):
        pool = Workers(threads)
        search = _search(features, groups, pool, memory)
        weights = sample_weights("gentle", np.zeros(300), np.zeros(270))
        split = search.best((weights.first, weights.second), weights.criterion)
        found.append((split.feature, float(split.threshold), split.subset.tolist(), split.loss))
        pool.close()
    assert found.count(found[0]) == len(found)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("kind", ["haar", "lbp"])
def test_samples_without_weight_are_as_if_they_were_not_there(kind, share, workers):
    """Few weights are added up by index: losses are those of a search without the rest."""
    groups = _groups(300, 270)
    features = lbp_pool(WINDOW) if kind == "lbp" else feature_pool(WINDOW, "core")
    search = _search(features, groups, workers)
    rng = np.random.default_rng(8)
    weights = [np.where(rng.random(len(g)) < share, rng.integers(1, 1000, len(g)), 0) for g in groups]
    weights = tuple(one.astype(np.int32) for one in weights)
    rows = search.evaluate(np.arange(len(features)), search.padded(weights), 0)
    for chosen in rng.choice(len(features), 5, replace=False):
        values = np.concatenate([feature_values(search.table.take(np.array([chosen])), g)[0] for g in search.groups])
        samples = [(1, w) for w in weights[0].tolist()] + [(-1, w) for w in weights[1].tolist()]
        used = [k for k, (_, w) in enumerate(samples) if w]
        if share == 0.0:
            assert np.isinf(rows[0][chosen])
        elif kind == "haar":
            best = naive.best_stump([values[used].tolist()], [samples[k] for k in used], "gentle")
            assert best * (1 - 1e-9) <= rows[0][chosen] <= best * 1.1 + 1e-9


def test_ties_go_to_the_first_feature(workers):
    features = feature_pool(WINDOW, "basic").take(np.repeat([50, 17, 80], 3))
    search = _search(features, _groups(50, 50), workers)
    weights = sample_weights("gentle", np.zeros(50), np.zeros(50))
    assert search.best((weights.first, weights.second), weights.criterion).feature in {0, 3, 6}


def test_nothing_to_tell_apart(workers):
    same = np.tile(_groups(1, 0)[0], (10, 1, 1))
    search = _search(feature_pool(WINDOW, "basic").take(np.arange(20)), (same, same), workers)
    weights = sample_weights("gentle", np.zeros(10), np.zeros(10))
    assert search.best((weights.first, weights.second), weights.criterion) is None
