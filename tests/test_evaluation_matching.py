"""Matching, curves and average precision against loops, hand-made cases and an independent evaluator."""

import contextlib
import io

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vj.errors import InputError
from vj.evaluation.curves import curve
from vj.evaluation.matching import (
    FALSE,
    NEITHER,
    TRUE,
    Alignment,
    Found,
    Truth,
    fit_alignment,
    match,
    overlaps,
)


def _scene(rng, n_faces, n_false, jitter=0.15):
    """Faces apart from one another, detections near some of them and some elsewhere; distinct scores."""
    corners = rng.permutation(25)[:n_faces]
    faces = np.column_stack([corners % 5 * 100.0, corners // 5 * 100.0, np.full((n_faces, 2), 60.0)])
    near = faces[rng.random(n_faces) < 0.8]
    near = near + rng.normal(0, jitter * 60, near.shape)
    wild = np.column_stack([rng.uniform(0, 500, (n_false, 2)), rng.uniform(20, 80, (n_false, 2))])
    boxes = np.concatenate([near, wild])
    boxes[:, 2:] = np.abs(boxes[:, 2:]) + 1
    return Truth(faces, np.zeros(n_faces, bool)), Found(boxes, rng.permutation(len(boxes)) + rng.random())


def _curve(found, truth, threshold=0.5):
    matches = [match(f, t, threshold) for f, t in zip(found, truth, strict=True)]
    return curve([f.scores for f in found], matches, sum(t.n_wanted for t in truth))


box = st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(0, 20)] * 2)


@given(st.lists(box, max_size=4), st.lists(box, max_size=4))
@settings(max_examples=100, deadline=None)
def test_overlaps_count_pixels(a, b):
    """Boxes at whole numbers cover whole pixels, so that the overlap can be counted."""
    got = overlaps(np.array(a, float).reshape(-1, 4), np.array(b, float).reshape(-1, 4))
    assert got.shape == (len(a), len(b))
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            assert got[i, j] == pytest.approx(naive.overlap(p, q), abs=1e-12)


@given(
    st.lists(st.tuples(box, st.integers(0, 5)), max_size=6),
    st.lists(st.tuples(box, st.booleans()), max_size=4),
    st.sampled_from([0.1, 0.3, 0.5]),
)
@settings(max_examples=150, deadline=None)
def test_match_as_the_loop_does(detections, faces, threshold):
    found = Found(np.array([d for d, _ in detections], float), np.array([s for _, s in detections], float))
    truth = Truth(np.array([f for f, _ in faces], float), np.array([i for _, i in faces], bool))
    got = match(found, truth, threshold)
    outcome, face = naive.match(found.boxes, found.scores, truth.boxes, truth.ignored, threshold)
    assert got.outcome.tolist() == outcome
    assert got.face.tolist() == face


def test_second_hit_on_a_face_is_false_and_the_surer_one_wins():
    truth = Truth(np.array([[0, 0, 10, 10.0]]), np.array([False]))
    found = Found(np.array([[0, 0, 10, 10.0], [1, 0, 10, 10]]), np.array([1.0, 2.0]))
    assert match(found, truth).outcome.tolist() == [FALSE, TRUE]


def test_any_number_of_detections_on_an_ignored_face_count_neither_way():
    truth = Truth(np.array([[0, 0, 10, 10.0], [50, 0, 10, 10]]), np.array([True, False]))
    found = Found(np.array([[0, 0, 10, 10.0], [1, 0, 10, 10], [50, 1, 10, 10], [90, 90, 5, 5]]), np.arange(4.0))
    matches = match(found, truth)
    assert matches.outcome.tolist() == [NEITHER, NEITHER, TRUE, FALSE]
    result = curve([found.scores], [matches], truth.n_wanted)
    assert result.true[-1] == 1
    assert result.false[-1] == 1


def test_a_wanted_face_is_preferred_to_an_ignored_one_that_overlaps_more():
    truth = Truth(np.array([[0, 0, 10, 10.0], [0, 3, 10, 10]]), np.array([True, False]))
    found = Found(np.array([[0, 0.0, 10, 10]]), np.array([1.0]))
    assert match(found, truth).outcome.tolist() == [TRUE]


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_against_pycocotools(seed):
    """pycocotools samples precision at 101 recalls; ours is the exact area, so they differ by less than 1/100."""
    rng = np.random.default_rng(seed)
    scenes = [_scene(rng, int(rng.integers(1, 8)), int(rng.integers(0, 6))) for _ in range(30)]
    # Scores distinct over the whole set: among equals pycocotools takes the order given, we take all at once.
    order = rng.permutation(sum(len(f.scores) for _, f in scenes)).astype(float)
    truth = [t for t, _ in scenes]
    found, start = [], 0
    for _, f in scenes:
        found.append(Found(f.boxes, order[start : start + len(f.scores)]))
        start += len(f.scores)
    ours = _curve(found, truth)
    recall, precision = _pycocotools(found, truth)
    assert ours.recall[-1] == pytest.approx(recall, abs=1e-12)
    at = np.linspace(0, 1, 101)
    envelope = np.maximum.accumulate(ours.precision[::-1])[::-1]
    index = np.searchsorted(ours.recall, at - 1e-12)
    sampled = np.append(envelope, 0.0)[index]
    # Its precision is divided by TP + FP + eps.
    assert sampled == pytest.approx(precision, abs=1e-9)
    assert ours.average_precision == pytest.approx(precision.mean(), abs=0.01)


def _pycocotools(found, truth):
    """Final recall and the precision at 101 recalls for IoU 0.5."""
    annotations = [
        {"id": 0, "image_id": k, "category_id": 1, "bbox": b.tolist(), "area": b[2] * b[3], "iscrowd": 0}
        for k, t in enumerate(truth)
        for b in t.boxes
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    results = [
        {"image_id": k, "category_id": 1, "bbox": b.tolist(), "score": s}
        for k, f in enumerate(found)
        for b, s in zip(f.boxes, f.scores, strict=True)
    ]
    coco = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        coco.dataset = {"images": [{"id": k} for k in range(len(truth))], "categories": [{"id": 1, "name": "face"}]}
        coco.dataset["annotations"] = annotations
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [10000]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["recall"][0, 0, 0, 0], evaluation.eval["precision"][0, :, 0, 0, 0]


def test_equal_scores_stand_or_fall_together():
    truth = [Truth(np.array([[0, 0, 10, 10.0]]), np.array([False]))]
    for order in ([0, 1], [1, 0]):
        boxes = np.array([[0, 0, 10, 10.0], [50, 50, 10, 10]])[order]
        result = _curve([Found(boxes, np.array([3.0, 3.0]))], truth)
        assert len(result.scores) == 1
        assert result.recall_at(0) == 0
        assert result.recall_at(1) == 1
        assert result.average_precision == 0.5


def test_recall_at_false_positives():
    truth = [Truth(np.array([[0, 0, 10, 10.0], [30, 0, 10, 10], [60, 0, 10, 10]]), np.zeros(3, bool))]
    boxes = np.array([[0, 0, 10, 10.0], [100, 0, 9, 9], [30, 0, 10, 10], [200, 0, 9, 9]])
    result = _curve([Found(boxes, np.array([9.0, 8, 7, 6]))], truth)
    assert [result.recall_at(k) for k in (0, 1, 2, 50)] == pytest.approx([1 / 3, 2 / 3, 2 / 3, 2 / 3])
    # Precision 1 up to recall 1/3, 2/3 up to 2/3.
    assert result.average_precision == pytest.approx(1 / 3 + 2 / 9)


def test_nothing_found_and_nothing_to_find():
    truth = [Truth(np.array([[0, 0, 10, 10.0]]), np.array([False]))]
    result = _curve([Found(np.zeros((0, 4)), np.zeros(0))], truth)
    assert result.average_precision == 0
    assert result.recall_at(10) == 0
    with pytest.raises(InputError, match="expected at least one object"):
        _curve([Found(np.zeros((0, 4)), np.zeros(0))], [Truth(np.array([[0, 0, 1, 1.0]]), np.array([True]))])


def test_alignment_is_recovered():
    """Detections made from the labels by a known convention give that convention back."""
    rng = np.random.default_rng(3)
    known = Alignment(0.04, -0.07, 1.3)
    found, truth = [], []
    for _ in range(40):
        boxes = np.column_stack([rng.uniform(0, 400, (3, 2)), rng.uniform(30, 90, (3, 2))])
        wild = np.column_stack([rng.uniform(600, 900, (2, 2)), rng.uniform(30, 90, (2, 2))])
        found.append(Found(np.concatenate([boxes, wild]), rng.random(5)))
        truth.append(Truth(known.apply(boxes), np.zeros(3, bool)))
    fitted = fit_alignment(found, truth)
    for name in ("dx", "dy", "scale"):
        assert getattr(fitted, name) == pytest.approx(getattr(known, name), abs=0.011)


def test_alignment_without_a_match_is_neutral():
    far = [Found(np.array([[500, 500, 10, 10.0]]), np.ones(1))]
    truth = [Truth(np.array([[0, 0, 10, 10.0]]), np.array([False]))]
    assert fit_alignment(far, truth) == Alignment()
    assert fit_alignment([], []) == Alignment()


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), np.array([[0, 0, -1, 2.0]]), np.array([[0, 0, np.nan, 2.0]])])
def test_bad_boxes_are_refused(bad):
    with pytest.raises(InputError, match="expected boxes"):
        Found(bad, np.zeros(len(bad)))


def test_bad_thresholds_scores_and_marks_are_refused():
    one = Found(np.array([[0, 0, 1, 1.0]]), np.ones(1))
    truth = Truth(np.array([[0, 0, 1, 1.0]]), np.array([False]))
    for threshold in (0, 1.1, float("nan")):
        with pytest.raises(InputError, match="IoU threshold"):
            match(one, truth, threshold)
    with pytest.raises(InputError, match="score"):
        Found(np.array([[0, 0, 1, 1.0]]), np.array([np.nan]))
    with pytest.raises(InputError, match="ignore mark"):
        Truth(np.array([[0, 0, 1, 1.0]]), np.zeros(2, bool))
