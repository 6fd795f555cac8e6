"""FDDB's scores on hand-made cases; areas against counted points."""

import numpy as np
import pytest

from vj.datasets.fddb import ellipse_boxes
from vj.errors import InputError
from vj.evaluation.fddb import ellipse_overlaps, fddb_curves
from vj.evaluation.matching import Found


def _points(ellipse, step=0.2):
    """Points of a fine grid around an ellipse, and which of them lie inside it."""
    major, minor, angle, x0, y0 = ellipse
    axis = np.arange(-120, 120, step) + step / 2
    x, y = np.meshgrid(x0 + axis, y0 + axis)
    along = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
    across = (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)
    return x, y, (along / major) ** 2 + (across / minor) ** 2 <= 1


@pytest.mark.parametrize("seed", range(12))
def test_overlap_with_an_ellipse_counts_points(seed):
    rng = np.random.default_rng(seed)
    ellipse = np.array([rng.uniform(15, 60), rng.uniform(8, 50), rng.uniform(-3.2, 3.2), 5.0, -3.0])
    box = np.array([*rng.uniform(-60, 20, 2), *rng.uniform(20, 90, 2)])
    x, y, inside = _points(ellipse)
    in_box = (x >= box[0]) & (x < box[0] + box[2]) & (y >= box[1]) & (y < box[1] + box[3])
    expected = (inside & in_box).sum() / (inside | in_box).sum()
    assert ellipse_overlaps(box[None], ellipse[None])[0, 0] == pytest.approx(expected, abs=0.003)
    around = ellipse_boxes(ellipse[None])[0]
    expected_box = [x[inside].min(), y[inside].min(), np.ptp(x[inside]), np.ptp(y[inside])]
    assert around == pytest.approx(expected_box, abs=0.5)


def test_circle_in_its_box():
    circle = np.array([[10, 10, 0.7, 50, 50.0]])
    assert ellipse_overlaps(ellipse_boxes(circle), circle)[0, 0] == pytest.approx(np.pi / 4, abs=0.003)


def test_matching_takes_the_best_sum_not_the_surest_first():
    """The surer detection fits both faces, the other only one: both are found, where a greedy match finds one."""
    faces = np.array([[30, 20, np.pi / 2, 50, 50.0], [30, 20, np.pi / 2, 60, 50]])
    boxes = ellipse_boxes(faces)
    middle = np.array([[34, 20, 40, 60.0]])
    found = Found(np.concatenate([middle, boxes[:1]]), np.array([2.0, 1.0]))
    discrete, continuous = fddb_curves([found], [faces])
    assert discrete.true.tolist() == [1, 2]
    assert discrete.false.tolist() == [0, 0]
    table = ellipse_overlaps(found.boxes, faces)
    assert table[0, 0] > table[0, 1]
    assert continuous.true == pytest.approx([table[0].max(), table[0, 1] + table[1, 0]])


def test_two_images_are_pooled_by_score():
    face = np.array([[20, 20, 0, 50, 50.0]])
    hit, miss = ellipse_boxes(face), np.array([[200, 200, 30, 30.0]])
    first = Found(np.concatenate([hit, miss]), np.array([1.0, 5.0]))
    second = Found(hit, np.array([3.0]))
    discrete, continuous = fddb_curves([first, second], [face, face])
    assert discrete.scores.tolist() == [5, 3, 1]
    assert discrete.true.tolist() == [0, 1, 2]
    assert discrete.false.tolist() == [1, 1, 1]
    assert continuous.true == pytest.approx(np.array([0, 1, 2]) * np.pi / 4, abs=0.01)
    assert continuous.false.tolist() == discrete.false.tolist()


def test_no_detection_and_no_face():
    none = Found(np.zeros((0, 4)), np.zeros(0))
    face = np.array([[20, 20, 0, 50, 50.0]])
    discrete, continuous = fddb_curves([none], [face])
    assert discrete.recall_at(1000) == continuous.recall_at(1000) == 0
    with pytest.raises(InputError, match="at least one face"):
        fddb_curves([none], [np.zeros((0, 5))])
