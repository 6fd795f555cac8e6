from unittest import mock

import cv2
import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vj.scanning import grouping
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


@pytest.mark.parametrize("min_neighbors", [0, 1, 2, 3])
def test_groups_equal_those_of_the_naive_twin(min_neighbors):
    swallowed = 0
    for seed in range(30):
        boxes = clusters(25, 100 + seed)
        # Small ones inside large ones, so that some groups lie inside others.
        boxes[::3, 2:] //= 2
        for eps in (0.0, 0.1, 0.2, 0.5):
            expected, counts = naive.group_rectangles(boxes.tolist(), min_neighbors, eps)
            ours = group_rectangles(boxes, min_neighbors, eps)
            assert ours.boxes.tolist() == expected
            assert ours.counts.tolist() == counts
            swallowed += min_neighbors > 0 and len(naive.group(boxes.tolist(), min_neighbors, eps)) - len(expected)
    assert (swallowed > 0) == (min_neighbors > 0)


@st.composite
def boxes_of_few_sizes(draw):
    """Boxes as a pyramid yields them, on a small area so that many are similar, some identical and some in a chain."""
    sizes = draw(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=5))
    span = draw(st.sampled_from([3, 20, 120]))
    place = st.tuples(st.integers(-span, span), st.integers(-span, span))
    return [[*draw(place), *draw(st.sampled_from(sizes))] for _ in range(draw(st.integers(1, 40)))]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(boxes_of_few_sizes(), st.sampled_from([0.0, 0.05, 0.2, 0.3, 0.5, 1.0]), st.integers(1, 3))
def test_cells_group_as_the_naive_twin_and_opencv_do(boxes, eps, min_neighbors):
    expected, counts = naive.group_rectangles(boxes, min_neighbors, eps)
    array = np.array(boxes, np.int32)
    assert grouping._cells(array.astype(np.int64), eps) is not None
    with mock.patch.object(grouping, "FEW", 0):
        ours = group_rectangles(array, min_neighbors, eps)
    assert ours.boxes.tolist() == expected
    assert ours.counts.tolist() == counts
    if hasattr(cv2, "groupRectangles"):
        theirs, weights = cv2.groupRectangles(boxes, min_neighbors, eps)
        np.testing.assert_array_equal(ours.boxes, np.array(theirs).reshape(-1, 4))
        np.testing.assert_array_equal(ours.counts, np.array(weights).reshape(-1))


@pytest.mark.parametrize("share", [1.0, 0.3, 0.02])
def test_cells_label_many_hits_as_the_sweep_does(share):
    """Windows of a pyramid, all or a random part of them: one group, some, and many."""
    rng = np.random.default_rng(3)
    boxes = np.concatenate(
        [
            np.stack(np.broadcast_arrays(*np.ix_(range(0, 90, step), range(0, 80, step)), side, side), axis=-1)
            for side, step in ((12, 2), (13, 2), (24, 3), (35, 4))
        ],
        axis=None,
    ).reshape(-1, 4)
    boxes = rng.permutation(boxes)[: int(share * len(boxes))].astype(np.int64)
    order = np.argsort(boxes[:, 0], kind="stable")
    expected, count = grouping._sweep(boxes, order, 0.2)
    with mock.patch.object(grouping, "FEW", 0):
        labels, counts = grouping._label(boxes, 0.2)
    assert labels.tolist() == expected.tolist()
    assert len(counts) == count


@pytest.mark.parametrize(
    ("boxes", "eps"),
    [
        ([[0, 0, 9, 9], [0, 0, 9, 9], [1, 1, 9, 9]], -0.2),
        ([[0, 0, 9, 9], [0, 0, 9, 9], [1, 1, 9, 9]], 3.0),
        ([[0, 0, -9, 9], [0, 0, -9, 9], [1, 1, 9, 9]], 0.2),
        ([[0, 0, 9, 9]] * 3 + [[2**31 - 1, 2**31 - 1, 0, 0], [-(2**31), -(2**31), 0, 0]], 0.2),
        ([[0, 0, k, k] for k in range(1100)], 0.2),
    ],
    ids=["negative eps", "large eps", "negative width", "far apart", "many sizes"],
)
def test_boxes_too_odd_for_cells_are_swept(boxes, eps):
    array = np.array(boxes, np.int64)
    assert grouping._cells(array, eps) is None
    with mock.patch.object(grouping, "FEW", 0):
        ours = group_rectangles(array.astype(np.int32), 1, eps)
    if len(boxes) < 100:
        assert (ours.boxes.tolist(), ours.counts.tolist()) == naive.group_rectangles(boxes, 1, eps)
    else:
        assert len(ours.boxes) == 1


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


def test_a_part_of_an_object_is_not_another_object():
    """A box inside a better one is dropped, however small; a better one inside a worse one is not, nor half of one."""
    boxes = np.array([[0, 0, 100, 100], [30, 30, 20, 20], [91, 40, 20, 20], [85, 0, 16, 16]], np.int32)
    assert non_max_suppression(boxes, np.array([4.0, 3.0, 2.0, 1.0]), 0.3).tolist() == [0, 2]
    assert non_max_suppression(boxes, np.array([1.0, 3.0, 2.0, 4.0]), 0.3).tolist() == [3, 1, 2, 0]
    # Exactly nine tenths are not yet more than that.
    nested = np.array([[0, 0, 100, 100], [91, 0, 10, 10], [82, 30, 20, 10]], np.int32)
    assert non_max_suppression(nested, np.array([3.0, 2.0, 1.0]), 0.3).tolist() == [0, 1, 2]


def test_evidence_is_the_log_of_summed_exponentials():
    boxes = np.array([[0, 0, 20, 20], [50, 50, 20, 20], [1, 1, 20, 20], [51, 50, 20, 20]], np.int32)
    scores = np.array([1.0, -800.0, 2.0, -801.0])
    expected = [np.log(np.exp(1) + np.exp(2)), -800 + np.log(1 + np.exp(-1))]
    np.testing.assert_allclose(group_rectangles(boxes, 1, sums=scores).evidence, expected)
    np.testing.assert_allclose(suppress_groups(boxes, 1, 0.5, scores).evidence, expected)


@pytest.mark.parametrize("few", [0, 256])
@pytest.mark.parametrize(("min_neighbors", "limit"), [(0, 0.3), (1, 0.5), (2, 0.0)])
def test_suppressed_groups_equal_those_of_the_naive_twin(min_neighbors, limit, few):
    rng = np.random.default_rng(6)
    for seed in range(20):
        boxes, scores = clusters(25, seed), rng.normal(size=25)
        with mock.patch.object(grouping, "FEW", few):
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
