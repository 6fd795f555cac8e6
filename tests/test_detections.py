"""Detections as a sequence, as columns, and checked when built."""

import json
import math
import sys
from dataclasses import dataclass, fields
from types import SimpleNamespace

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


def test_dicts_are_the_detections_as_json(found):
    assert json.loads(json.dumps(found.to_dicts())) == [
        {"box": list(one.box), "score": one.score, "neighbors": one.neighbors}
        | ({} if one.probability is None else {"probability": one.probability})
        for one in found
    ]
    assert Detections([], [], []).to_dicts() == []
    assert Detections(BOXES[:1], [1], [1], None, [4]).to_dicts()[0]["source"] == 4


def test_array_has_a_field_for_each_column(found):
    array = found.to_array()
    fields = ["<i4"] * 4 + ["<f8", "<i4", "<f8", "<i4"]
    names = ["x", "y", "width", "height", "score", "neighbors", "probability", "source"]
    assert array.dtype == np.dtype(list(zip(names, fields, strict=True)))
    assert np.sort(array, order="score")["x"].tolist() == [9, 1, 5]
    assert [list(record)[:4] for record in array.tolist()] == BOXES
    assert (array["source"] == -1).all()
    if found.probabilities is None:
        assert np.isnan(array["probability"]).all()
    else:
        assert array["probability"].tolist() == found.probabilities.tolist()
    assert Detections([], [], []).to_array().shape == (0,)
    assert Detections(BOXES[:1], [1], [1], None, [4]).to_array()["source"].tolist() == [4]


@pytest.fixture(params=["the package", "a stand-in"])
def supervision(request, monkeypatch):
    """The real package where it is installed, and something that takes the same arguments."""
    if request.param == "the package":
        return pytest.importorskip("supervision")

    @dataclass
    class Boxes:
        xyxy: np.ndarray
        confidence: np.ndarray
        class_id: np.ndarray
        data: dict

    stand_in = SimpleNamespace(Detections=Boxes)
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    return stand_in


def test_supervision_gets_corners_confidence_and_the_rest(found, supervision):
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert theirs.xyxy.tolist() == [[1, 2, 31, 42], [5, 6, 75, 86], [9, 10, 20, 22]]
    expected = (
        found.probabilities if found.probabilities is not None else [1 / (1 + math.exp(-s)) for s in found.scores]
    )
    assert theirs.confidence == pytest.approx(np.asarray(expected), rel=1e-6)
    assert theirs.class_id.tolist() == [0, 0, 0]
    assert theirs.data["score"].tolist() == found.scores.tolist()
    assert theirs.data["neighbors"].tolist() == [3, 9, 1]
    far = Detections(BOXES[:2], [-2000, 2000], [1, 1], None, [1, 0]).to_supervision()
    assert (far.confidence.tolist(), far.class_id.tolist()) == ([0, 1], [1, 0])
    assert Detections([], [], []).to_supervision().xyxy.shape == (0, 4)


def test_the_package_supervision_can_filter_and_draw_them(found):
    supervision = pytest.importorskip("supervision")
    theirs = found.to_supervision()
    assert theirs[theirs.data["score"] > 0].xyxy.tolist() == [[1, 2, 31, 42], [5, 6, 75, 86]]
    blank = np.zeros((100, 100, 3), np.uint8)
    assert supervision.BoxAnnotator().annotate(blank.copy(), theirs).any()


def test_without_supervision_the_error_says_what_to_install(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match="pip install supervision"):
        found.to_supervision()
