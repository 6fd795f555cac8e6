"""Smoothing: an exponential mean of boxes that follow each other, held for a while when they are lost."""

import numpy as np
import pytest

import vj


def found(*boxes, scores=None, **more):
    n = len(boxes)
    return vj.Detections(
        np.array(boxes).reshape(-1, 4), np.array(scores or range(n), dtype=float), np.arange(n) + 1, **more
    )


def test_a_box_follows_as_an_exponential_mean():
    smoothing = vj.Smoothing(weight=0.25)
    seen = [100, 104, 96, 103, 100, 100, 98]
    mean = seen[0]
    for x in seen:
        mean += 0.25 * (x - mean)
        shown = smoothing.update(found([x, 50, 80, 80]))
        assert shown.boxes.tolist() == [[round(mean), 50, 80, 80]]


def test_a_still_object_trembles_less_than_its_detections():
    rng = np.random.default_rng(1)
    smoothing = vj.Smoothing()
    boxes = np.array([100, 100, 60, 60]) + rng.integers(-3, 4, (200, 4))
    shown = np.array([smoothing.update(found(box)).boxes[0] for box in boxes])
    steps, own = (np.abs(np.diff(one, axis=0)).mean() for one in (shown, boxes))
    assert steps < 0.6 * own
    assert np.abs(shown.mean(axis=0) - boxes.mean(axis=0)).max() < 0.5


def test_held_when_lost_and_picked_up_again():
    smoothing = vj.Smoothing(hold=2)
    smoothing.update(found([10, 10, 50, 50], scores=[7]))
    for _ in range(2):
        shown = smoothing.update(found())
        assert shown.boxes.tolist() == [[10, 10, 50, 50]] and shown.scores.tolist() == [7]
    shown = smoothing.update(found([12, 10, 50, 50]))
    assert shown.boxes.tolist() == [[11, 10, 50, 50]]
    assert [len(smoothing.update(found())) for _ in range(4)] == [1, 1, 0, 0]
    # After it was dropped, it begins anew.
    assert smoothing.update(found([14, 10, 50, 50])).boxes.tolist() == [[14, 10, 50, 50]]


def test_two_objects_keep_their_tracks_and_a_new_one_is_shown_at_once():
    smoothing = vj.Smoothing(weight=0.5, hold=0)
    smoothing.update(found([0, 0, 40, 40], [30, 0, 40, 40]))
    shown = smoothing.update(found([34, 0, 40, 40], [4, 0, 40, 40], [200, 200, 30, 30]))
    assert shown.boxes.tolist() == [[32, 0, 40, 40], [2, 0, 40, 40], [200, 200, 30, 30]]
    assert shown.scores.tolist() == [0, 1, 2]


def test_far_boxes_are_another_object():
    smoothing = vj.Smoothing(iou=0.3, hold=1)
    smoothing.update(found([0, 0, 40, 40]))
    assert smoothing.update(found([100, 0, 40, 40])).boxes.tolist() == [[100, 0, 40, 40], [0, 0, 40, 40]]
    touching = vj.Smoothing(iou=0, hold=0)
    touching.update(found([0, 0, 40, 40]))
    assert touching.update(found([40, 0, 40, 40])).boxes.tolist() == [[40, 0, 40, 40]]


def test_columns_stay_with_their_boxes():
    smoothing = vj.Smoothing()
    smoothing.update(found([0, 0, 40, 40], probabilities=np.array([0.9]), sources=np.array([1])))
    shown = smoothing.update(found([200, 0, 40, 40], probabilities=np.array([0.5]), sources=np.array([0])))
    assert shown.probabilities.tolist() == [0.5, 0.9] and shown.sources.tolist() == [0, 1]
    empty = vj.Smoothing().update(found())
    assert len(empty) == 0 and empty.boxes.shape == (0, 4) and empty.probabilities is None


@pytest.mark.parametrize(
    "setting", [{"weight": 0}, {"weight": 1.1}, {"iou": -0.1}, {"iou": 2}, {"hold": -1}, {"hold": 1.5}]
)
def test_settings_out_of_range(setting):
    (name,) = setting
    with pytest.raises(vj.InputError, match=name):
        vj.Smoothing(**setting)
