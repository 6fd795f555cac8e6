"""One query's pool against the pool of whole tables."""

import numpy as np
import pytest

from vj.tiers import pooling


@pytest.mark.parametrize("members", [(0, 1), (2, 0), (0, 1, 2)])
def test_one_pool_is_the_pool_of_a_table(members):
    """With known labels, rare ones that agree, and rare ones that do not."""
    rng = np.random.default_rng(0)
    names = np.array(["a", "b", "c", "rare", "odd"])
    truth = rng.choice(names[:3], 300)
    answers = np.where(rng.random((300, 3)) < 0.6, truth[:, None], rng.choice(names, (300, 3)))
    tables = pooling.LabelTables.fit(truth, answers, ["a", "b", "c"])
    labels, p = answers[:, list(members)], rng.random((300, len(members)))
    weights = rng.uniform(0.2, 1.5, len(members) + 1)
    logs, counted = pooling.features(tables, members, labels, p)
    pick, found = pooling.pooled(logs, counted, weights, pooling.places(tables, labels))
    one = pooling.OnePool(tables, members, weights)
    for i in range(300):
        got, probability = one(labels[i].tolist(), p[i].tolist())
        assert labels[i, got] == labels[i, pick[i]]
        assert probability == pytest.approx(found[i], rel=1e-9)


def test_answers_without_labels_agree_with_nothing():
    tables = pooling.LabelTables.fit(np.array(["a"] * 40), np.array([["a", "a"]] * 40), ["a"])
    pick, p = pooling.OnePool(tables, (0, 1), np.array([1.0, 1.0, -1.0]))([None, None], [0.6, 0.8])
    assert pick == 1
    assert 0 < p < 0.8
