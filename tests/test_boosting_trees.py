"""Weak trees and the AdaBoost variants, against textbook formulas on few samples."""

import numpy as np
import pytest

from vj.boosting.feature_values import feature_table
from vj.boosting.samples import prepare
from vj.boosting.search import Search
from vj.boosting.stage import stage_limit, stage_threshold
from vj.boosting.trees import grow_tree, sample_weights, trimmed
from vj.boosting.workers import Workers
from vj.cascade.haar import feature_pool

WINDOW = (8, 8)
BOOSTINGS = ["gentle", "discrete", "real"]


def _windows(codes, seed=0):
    """Windows with a vertical edge (bit 1), a horizontal edge (bit 2), both or none, and some noise."""
    rng = np.random.default_rng(seed)
    windows = rng.integers(90, 110, (len(codes), 8, 8))
    for window, code in zip(windows, codes, strict=True):
        window[:, 4:] += 60 if code & 1 else -60
        window[4:, :] += 25 if code & 2 else -25
    return np.clip(windows, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def xor():
    """Positives have both edges or none, negatives one: with the features of two edges, no single cut parts them."""
    pool = Workers(2)
    features = feature_pool(WINDOW, "basic")
    halves = ([[0, 0, 8, 8], [4, 0, 4, 8], [0, 0, 0, 0]], [[0, 0, 8, 8], [0, 4, 8, 4], [0, 0, 0, 0]])
    index = [int(np.flatnonzero((features.rects == half).all(axis=(1, 2)))[0]) for half in halves]
    table = feature_table(features.take(index), WINDOW)
    groups = tuple(prepare(_windows(np.resize(codes, 80), k)) for k, codes in enumerate(([3, 3, 0, 3, 3], [1, 2])))
    yield Search(table, groups, pool, 1 << 30)
    pool.close()


@pytest.mark.parametrize("boosting", BOOSTINGS)
def test_a_tree_of_two_levels_solves_what_a_stump_cannot(xor, boosting):
    weights = sample_weights(boosting, np.zeros(80), np.zeros(80))
    right = []
    for depth in (1, 2):
        tree = grow_tree(xor, weights, depth)
        assert len(tree.splits) <= 2**depth - 1
        assert len(tree.leaves) == len(tree.splits) + 1
        response = [tree.responses(xor.table, group) for group in xor.groups]
        right.append((response[0] > 0).mean() / 2 + (response[1] < 0).mean() / 2)
    assert right[0] < 0.8
    assert right[1] > 0.98


@pytest.mark.parametrize("boosting", BOOSTINGS)
def test_leaves_follow_the_formulas(xor, boosting):
    rng = np.random.default_rng(2)
    scores = rng.normal(0.5, 1, 80), rng.normal(-0.5, 1, 80)
    weights = sample_weights(boosting, *scores)
    tree = grow_tree(xor, weights, 1)
    response = np.concatenate([tree.responses(xor.table, group) for group in xor.groups])
    score, label = np.concatenate(scores), np.repeat([1.0, -1.0], 80)
    # Textbook weights, in floating point, nothing rounded to integers.
    w = np.exp(-label * score)
    error = min(w[(np.sign(response) != label)].sum() / w.sum(), 0.5)
    for value in np.unique(response):
        side = response == value
        a, b = w[side & (label > 0)].sum(), w[side & (label < 0)].sum()
        if boosting == "gentle":
            expected = (a - b) / (a + b)
        elif boosting == "real":
            expected = 0.5 * np.log((a + 1e-4 * w.sum()) / (b + 1e-4 * w.sum()))
        else:
            expected = 0.5 * np.log((1 - error) / error) * np.sign(a - b)
        assert value == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_both_classes_begin_with_half_of_the_weight():
    weights = sample_weights("gentle", np.zeros(10), np.zeros(1000))
    assert weights.sums()[0] == pytest.approx(weights.sums()[1], rel=1e-5)


def test_trimming_drops_the_lightest():
    weight = np.array([0.1, 0.4, 0.05, 0.3, 0.15])
    assert trimmed(weight, 0.8).tolist() == [0, 0.4, 0, 0.3, 0.15]
    assert trimmed(weight, 1.0) is weight


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.99, 0.995, 1.0])
def test_stage_threshold_keeps_what_was_asked_for_and_no_more(rate):
    rng = np.random.default_rng(1)
    for n in (1, 7, 200, 1000):
        sums = rng.normal(0, 30, n)
        kept = (sums >= stage_limit(stage_threshold(sums, rate))).sum()
        assert kept >= rate * n - 1e-6
        # OpenCV's margin of 1e-5 and float32 cost nothing here: one sum fewer would miss the rate.
        assert kept == n or (kept - 1) / n < rate
