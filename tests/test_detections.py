"""Detections as a sequence, as columns, and checked when built."""

from dataclasses import fields

import numpy as np
import pytest

from vj.detections import Detection, Detections
from vj.errors import InputError

BOXES = [[1, 2, 30, 40], [5, 6, 70, 80], [9, 10, 11, 12]]


@pytest.fixture(params=[None, [0.6, 0.9, 0.0]], ids=["uncalibrated", "calibrated"])
def found(request):
    return Detections(BOXES, [0.5, 2.5, -1.0], [3, 9, 1], request.param)


def test_sources_are_kept_through_every_selection():
    found = Detections(BOXES, [0.5, 2.5, -1.0], [3, 9, 1], [0.6, 0.9, 0.0], [2, 0, 1])
    assert found[1].source == 0
    assert [one.source for one in found[np.argsort(-found.scores)]] == [0, 2, 1]
    assert found.at_least(0.5).sources.tolist() == [2, 0]
    assert found[found.sources == 1].boxes.tolist() == [BOXES[2]]
    assert found[:0].sources.dtype == np.int32
    assert not found.sources.flags.writeable
    for wrong in ([0, 1], [0, 1, -1], [0.5, 1, 1]):
        with pytest.raises(InputError, match="expected sources"):
            Detections(BOXES, [0.5, 2.5, -1.0], [3, 9, 1], None, wrong)


def arrays(detections):
    every = [getattr(detections, one.name) for one in fields(detections)]
    return [column for column in every if column is not None]


def columns(detections):
    return [column.tolist() for column in arrays(detections)]


def test_it_is_a_sequence_of_detections(found):
    assert len(found) == 3
    second, last = (None, None) if found.probabilities is None else (0.9, 0.0)
    assert found[1] == Detection((5, 6, 70, 80), 2.5, 9, second)
    assert found[-1] == found[np.int64(2)] == Detection((9, 10, 11, 12), -1.0, 1, last)
    assert list(found) == [found[0], found[1], found[2]]
    (x, y, width, height), score, neighbors, *_ = found[0]
    assert [type(v) for v in (x, y, width, height, score, neighbors)] == [int] * 4 + [float, int]
    with pytest.raises(IndexError):
        found[3]


@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(1, None),
        slice(None, None, -1),
        slice(5, 9),
        [2, 0],
        [-1, -1],
        [],
        np.array([1], np.uint8),
        [True, False, True],
        np.zeros(3, bool),
        (2, 1),
    ],
    ids=str,
)
def test_selections_are_those_of_each_column(found, index):
    got = found[index]
    assert isinstance(got, Detections)
    wanted = list(index) if isinstance(index, tuple) else index
    order = np.arange(3)[wanted] if not isinstance(wanted, list) or wanted else []
    assert columns(got) == [[column[k] for k in order] for column in columns(found)]


def test_idioms(found):
    assert columns(found[found.scores > 0]) == columns(found[[0, 1]])
    assert columns(found[np.argsort(-found.scores)]) == columns(found[[1, 0, 2]])
    none = Detections([], [], [])
    assert (len(none), list(none), none.boxes.shape, bool(none)) == (0, [], (0, 4), False)
    assert len(none[none.scores > 0]) == 0


@pytest.mark.parametrize(
    "index", [[True], np.zeros(4, bool), 1.0, [0.5], "boxes", [[0], [1]], True, np.bool_(True), None], ids=str
)
def test_other_indexes_are_refused(found, index):
    with pytest.raises(InputError, match="a mask of 3 booleans as index, got"):
        found[index]


def test_what_is_likely_enough(found):
    if found.probabilities is None:
        with pytest.raises(InputError, match="a cascade without calibration"):
            found.at_least(0.5)
    else:
        assert columns(found.at_least(0.9)) == columns(found[[1]])


def test_positions_beyond_the_end_are_refused(found):
    with pytest.raises(IndexError):
        found[[0, 3]]


def test_columns_are_read_only_copies_of_fixed_dtypes(found):
    dtypes = [np.int32, np.float64, np.int32, np.float64]
    assert [column.dtype for column in arrays(found)] == dtypes[: len(arrays(found))]
    boxes = np.array(BOXES, np.int32)
    copy = Detections(boxes, np.zeros(3), np.ones(3))
    boxes[:] = 0
    assert copy.boxes.tolist() == BOXES
    for column in arrays(found[1:]):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((BOXES, [1, 2], [1, 1, 1]), r"expected scores of shape \(3,\), got \(2,\)"),
        ((BOXES, [1, 2, 3], [[1, 1, 1]]), r"expected neighbors of shape \(3,\), got \(1, 3\)"),
        (([1, 2, 3, 4], [1], [1]), r"expected boxes of shape \(4, 4\), got \(4,\)"),
        ((5, [1], [1]), r"expected boxes of shape \(0, 4\), got \(\)"),
        (([[1, 2, 3, 4.5]], [1], [1]), "expected boxes as whole numbers of 32 bits, got 4.5"),
        (([[1, 2, 3, np.nan]], [1], [1]), "expected boxes as whole numbers of 32 bits, got nan"),
        (([[1, 2, 3, 2**31]], [1], [1]), "expected boxes as whole numbers of 32 bits, got 2147483648"),
        (([[1, 2, 3, -4]], [1], [1]), r"expected boxes as x, y, width, height, got \[ 1  2  3 -4\]"),
        (([[1, 2, 3, 4]], [1], [-1]), "expected neighbors of 0 or more, got -1"),
        (([[1, 2, 3, 4]], [np.nan], [1]), "expected scores that are numbers, got nan"),
        (([[1, 2, 3, 4]], [1], [1], [1.5]), "expected probabilities from 0 to 1, got 1.5"),
        (([[1, 2, 3, 4]], [1], [1], [np.nan]), "expected probabilities from 0 to 1, got nan"),
        (([[1, 2, 3, 4]], [1], [1], [1, 1]), r"expected probabilities of shape \(1,\), got \(2,\)"),
    ],
    ids=str,
)
def test_what_are_no_detections_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        Detections(*given)
