"""One query's pool against the pool of whole tables."""

import numpy as np
import pytest

from vj.tiers import pooling


@pytest.mark.parametrize("kept", [pooling._KEPT, 2])
@pytest.mark.parametrize("members", [(0, 1), (2, 0), (0, 1, 2)])
def test_one_pool_is_the_pool_of_a_table(members, kept, monkeypatch):
    """With known labels, rare ones that agree, rare ones that do not, and none; each combination again and again."""
    monkeypatch.setattr(pooling, "_KEPT", kept)
    rng = np.random.default_rng(0)
    names = np.array(["a", "b", "c", "rare", "odd"])
    truth = rng.choice(names[:3], 300)
    answers = np.where(rng.random((300, 3)) < 0.6, truth[:, None], rng.choice(names, (300, 3)))
    tables = pooling.LabelTables.fit(truth, answers, ["a", "b", "c"])
    labels, p = answers[:, list(members)], rng.choice([0.0, 0.3, 0.6, 0.9, 1.0], (300, len(members)))
    # An answer without a label is one that nobody else gives.
    without = rng.random(labels.shape) < 0.05
    labels = np.where(without, np.arange(labels.size).reshape(labels.shape).astype(str), labels)
    weights = rng.uniform(0.2, 1.5, len(members) + 1)
    logs, counted = pooling.features(tables, members, labels, p)
    pick, found = pooling.pooled(logs, counted, weights, pooling.places(tables, labels))
    one = pooling.OnePool(tables, members, weights)
    for i in range(300):
        given = [None if gone else label for label, gone in zip(labels[i].tolist(), without[i], strict=True)]
        got, probability = one(given, p[i].tolist())
        assert labels[i, got] == labels[i, pick[i]]
        assert probability == pytest.approx(found[i], rel=1e-9)
    assert 0 < len(one._kept) <= kept


def test_answers_without_labels_agree_with_nothing():
    tables = pooling.LabelTables.fit(np.array(["a"] * 40), np.array([["a", "a"]] * 40), ["a"])
    pick, p = pooling.OnePool(tables, (0, 1), np.array([1.0, 1.0, -1.0]))([None, None], [0.6, 0.8])
    assert pick == 1
    assert 0 < p < 0.8
