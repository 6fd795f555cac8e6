"""Operating points agree with a detector of each setting, run and measured by itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import labelled_set

from vj.cascade.calibration import ScoreCalibration
from vj.cascade.opencv_xml import load
from vj.datasets.formats import read_labelled
from vj.detector import Detector
from vj.errors import InputError
from vj.evaluation.curves import pooled
from vj.evaluation.measure import Rules, cascade_detector, evaluate, run_detector
from vj.evaluation.operating import OperatingCurve, operating_curves, shortest_between, thinned


@pytest.mark.parametrize("suppression", [None, 0.3])
def test_each_curve_is_that_of_its_detector(tmp_path, suppression):
    place = labelled_set(tmp_path / "p")
    images, cascade = read_labelled(place / "set"), load(place / "model.xml")
    settings = {"min_size": 30, "suppression": suppression}
    found = operating_curves(Detector(cascade, **settings), images, Rules(), min_neighbors=(1, 4))
    for one in found:
        detect = cascade_detector(cascade, min_neighbors=one.min_neighbors, **settings)
        alone = evaluate("x", list(run_detector(detect, images)), Rules()).curve
        for name in ("scores", "true", "false"):
            assert np.array_equal(getattr(one.curve, name), getattr(alone, name))
        assert (one.curve.n_wanted, one.curve.n_images) == (alone.n_wanted, alone.n_images)
        assert one.milliseconds > 0


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_the_shortest_number_between_two(a, b):
    low, high = sorted((a, b))
    if low == high:
        return
    text = shortest_between(low, high)
    assert low < float(text) <= high
    digits = len(text.partition(".")[2])
    # No number with a digit less lies there.
    if digits and digits < 15:
        step = 10.0 ** (1 - digits)
        assert np.floor(high / step) * step <= low or np.isclose(np.floor(high / step) * step, low)


def test_thresholds_keep_exactly_the_detections_of_their_point():
    rng = np.random.default_rng(3)
    scores = np.round(rng.normal(2, 2, 300), 3)
    curve = pooled(scores, (rng.random(300) < 0.6).astype(float), 250, 10)
    calibration = ScoreCalibration([0.0, 1.0, 1.5, 4.0], [0.1, 0.4, 0.4, 0.95], 9, "test")
    for given_one in (None, calibration):
        one = OperatingCurve(3, curve, 1.0, given_one)
        kinds = set()
        for k in one.useful.tolist():
            threshold = one.threshold(k)
            if threshold is None:
                assert k == len(curve.scores) - 1
                continue
            kinds.add(threshold.kind)
            values = curve.scores if threshold.kind == "score" else calibration(curve.scores)
            assert np.array_equal(values >= float(threshold.value), curve.scores >= curve.scores[k])
        assert kinds == ({"score"} if given_one is None else {"score", "probability"})


def test_points_are_thinned_evenly_and_keep_their_ends():
    points = np.arange(0, 1000, 3)
    assert np.array_equal(thinned(points, 400), points)
    few = thinned(points, 10)
    assert (len(few), few[0], few[-1]) == (10, 0, 999)


def test_nothing_to_measure_is_refused(tmp_path):
    place = labelled_set(tmp_path / "p")
    detector = Detector(load(place / "model.xml"))
    with pytest.raises(InputError, match="images that can be read"):
        operating_curves(detector, [], Rules())
    images = [one.select(np.zeros(len(one), bool)) for one in read_labelled(place / "set")]
    with pytest.raises(InputError, match="at least one object"):
        operating_curves(detector, images, Rules())
