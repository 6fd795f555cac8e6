"""Thresholds raised together: nothing is lost beyond the share, nothing that could be saved for free is left."""

import numpy as np
import pytest

from vj.boosting.pruning import cost_of_window, pruned_thresholds
from vj.boosting.stage import stage_limit

COSTS = [2, 5, 20, 60]
THRESHOLDS = [np.float32(t) for t in (-1.0, -0.5, 0.0, 0.25)]


def _sums(n, shift, seed):
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=(n, 1))
    return 0.7 * hard + rng.normal(size=(n, len(COSTS))) + shift


def _passing(sums, thresholds):
    return (sums >= [stage_limit(t) for t in thresholds]).all(axis=1)


def _naive_cost(sums, thresholds):
    total = 0
    for window in sums:
        for value, threshold, cost in zip(window, thresholds, COSTS, strict=True):
            total += cost
            if value < stage_limit(threshold):
                break
    return total / len(sums)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.2])
def test_no_more_than_the_share_is_lost_and_the_cost_falls(share):
    positives, negatives = _sums(2000, 2.5, 0), _sums(3000, -0.5, 1)
    raised = pruned_thresholds(THRESHOLDS, COSTS, positives, negatives, share)
    assert all(new >= old for new, old in zip(raised, THRESHOLDS, strict=True))
    found = _passing(positives, THRESHOLDS)
    lost = found & ~_passing(positives, raised)
    assert lost.sum() <= share * found.sum()
    assert lost.sum() >= 0.9 * share * found.sum() - 1
    assert _naive_cost(negatives, raised) < _naive_cost(negatives, THRESHOLDS)
    # What costs nothing was taken: in every stage whose rest costs something a kept positive sits on the threshold.
    kept = positives[_passing(positives, raised)]
    for k in range(len(COSTS) - 1):
        assert np.float32(kept[:, k].min()) == pytest.approx(raised[k], abs=2e-5)


def test_a_larger_share_is_cheaper_and_better_than_one_stage_alone():
    positives, negatives = _sums(2000, 2.5, 2), _sums(3000, -0.5, 3)
    by_share = [
        _naive_cost(negatives, pruned_thresholds(THRESHOLDS, COSTS, positives, negatives, share))
        for share in (0.0, 0.02, 0.05, 0.1)
    ]
    assert by_share == sorted(by_share, reverse=True)
    free = pruned_thresholds(THRESHOLDS, COSTS, positives, negatives, 0.0)
    found = positives[_passing(positives, free)]
    for k in range(len(COSTS)):
        alone = list(free)
        alone[k] = np.float32(np.sort(found[:, k])[int(0.1 * len(found))])
        assert by_share[-1] <= _naive_cost(negatives, alone) * 1.001


def test_cost_equals_its_naive_twin():
    negatives = _sums(500, 0.0, 4)
    limits = np.array([stage_limit(t) for t in THRESHOLDS])
    assert cost_of_window(COSTS, negatives, limits) == pytest.approx(_naive_cost(negatives, THRESHOLDS))


def test_nothing_to_prune_on():
    none = np.zeros((0, len(COSTS)))
    assert pruned_thresholds(THRESHOLDS, COSTS, none, _sums(10, 0, 5), 0.1) == THRESHOLDS
    assert pruned_thresholds(THRESHOLDS, COSTS, _sums(10, 5, 6), none, 0.1) == THRESHOLDS
