import cv2
import naive
import numpy as np
import pytest

from vj.scanning.grouping import group_rectangles, non_max_suppression, suppress_groups


def clusters(n, seed):
    """Boxes around a few places, with sides that differ a little: groups that touch, nest and chain."""
    rng = np.random.default_rng(seed)
    place = rng.integers(0, 4, (n, 1)) * rng.integers(5, 30)
    return np.hstack([place + rng.integers(0, 6, (n, 2)), 20 + rng.integers(0, 12, (n, 2))]).astype(np.int32)


@pytest.mark.parametrize("min_neighbors", [0, 1, 2, 3, 6])
def test_groups_are_opencvs(min_neighbors):
    for seed in range(60):
        boxes = clusters(seed % 40, seed)
        for eps in (0.05, 0.2, 0.5):
            theirs, weights = (
                cv2.groupRectangles(boxes.tolist(), min_neighbors, eps)
                if hasattr(cv2, "groupRectangles")
                else pytest.skip("OpenCV 5 has no groupRectangles")
            )
            ours = group_rectangles(boxes, min_neighbors, eps)
            np.testing.assert_array_equal(ours.boxes, np.array(theirs).reshape(-1, 4), str((seed, eps)))
            np.testing.assert_array_equal(ours.counts, np.array(weights).reshape(-1))


def test_groups_equal_those_of_the_naive_twin():
    for seed in range(30):
        boxes = clusters(25, 100 + seed)
        members = naive.group(boxes.tolist(), 2)
        means = [np.rint(np.mean(m, axis=0)) for m in members]
        ours = group_rectangles(boxes, 2)
        # Those that lie inside a stronger one are left out; the others are all there, in order.
        kept = [i for i, m in enumerate(means) if any((np.abs(m - b) <= 1).all() for b in ours.boxes)]
        assert [len(members[i]) for i in kept] == ours.counts.tolist()


def test_sums_are_the_largest_of_each_group():
    boxes = np.array([[0, 0, 20, 20], [50, 50, 20, 20], [1, 1, 20, 20], [51, 50, 20, 20]], np.int32)
    groups = group_rectangles(boxes, 1, sums=np.array([1.0, -3.0, 2.0, -1.0]), limit=0.3)
    assert groups.sums.tolist() == [2.0, -1.0]
    assert group_rectangles(boxes, 0, sums=np.arange(4.0)).sums.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("limit", [0.0, 0.3, 0.6])
def test_suppression_equals_its_naive_twin(limit):
    rng = np.random.default_rng(5)
    for seed in range(20):
        boxes, scores = clusters(25, seed), rng.permutation(25).astype(float)
        assert non_max_suppression(boxes, scores, limit).tolist() == naive.suppress(boxes.tolist(), scores, limit)


def test_evidence_is_the_log_of_summed_exponentials():
    boxes = np.array([[0, 0, 20, 20], [50, 50, 20, 20], [1, 1, 20, 20], [51, 50, 20, 20]], np.int32)
    scores = np.array([1.0, -800.0, 2.0, -801.0])
    expected = [np.log(np.exp(1) + np.exp(2)), -800 + np.log(1 + np.exp(-1))]
    np.testing.assert_allclose(group_rectangles(boxes, 1, sums=scores).evidence, expected)
    np.testing.assert_allclose(suppress_groups(boxes, 1, 0.5, scores).evidence, expected)


@pytest.mark.parametrize(("min_neighbors", "limit"), [(0, 0.3), (1, 0.5), (2, 0.0)])
def test_suppressed_groups_equal_those_of_the_naive_twin(min_neighbors, limit):
    rng = np.random.default_rng(6)
    for seed in range(20):
        boxes, scores = clusters(25, seed), rng.normal(size=25)
        ours = suppress_groups(boxes, min_neighbors, limit, scores)
        at = {tuple(box): score for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)}
        members = [m for m in naive.group(boxes.tolist(), 0) if len(m) > min_neighbors]
        weights = [[np.exp(at[tuple(b)]) for b in m] for m in members]
        means = [np.rint(np.average(m, axis=0, weights=w)).astype(int) for m, w in zip(members, weights, strict=True)]
        evidence = [np.log(sum(w)) for w in weights]
        kept = naive.suppress([m.tolist() for m in means], evidence, limit)
        np.testing.assert_array_equal(ours.boxes, np.array([means[i] for i in kept]).reshape(-1, 4))
        np.testing.assert_allclose(ours.evidence, [evidence[i] for i in kept])
        assert ours.counts.tolist() == [len(members[i]) for i in kept]


def test_nothing_to_group_or_suppress():
    none = np.zeros((0, 4), np.int32)
    assert len(group_rectangles(none, 3).boxes) == 0
    assert len(non_max_suppression(none, np.zeros(0), 0.3)) == 0
    assert len(suppress_groups(none, 0, 0.3, np.zeros(0)).boxes) == 0
