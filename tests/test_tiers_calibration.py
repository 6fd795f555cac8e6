"""Calibration against scipy's isotonic regression and maximum likelihood, naive error measures, and properties."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression, minimize

from vj.errors import InputError
from vj.tiers import Calibration, brier_score, expected_calibration_error, reliability
from vj.tiers import calibration as module


def _rows(seed, n=400, levels=60):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, n) / levels
    labels = rng.choice(["a", "b", "c"], n, p=[0.6, 0.35, 0.05])
    right = rng.random(n) < np.where(labels == "a", scores, scores**3)
    return scores, right, labels


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=60))
def test_isotonic_is_scipys(rows):
    scores = np.array([score for score, _ in rows], float)
    right = np.array([fine for _, fine in rows], float)
    x = np.unique(scores)
    means = np.array([right[scores == one].mean() for one in x])
    counts = np.array([(scores == one).sum() for one in x], float)
    curve = module.isotonic(scores, right)
    assert curve(x) == pytest.approx(isotonic_regression(means, weights=counts).x, abs=1e-12)
    assert [curve.at(float(one)) for one in x] == pytest.approx(curve(x), abs=1e-12)


def test_a_curve_is_straight_between_knots_and_flat_beyond():
    curve = module.Curve((1.0, 2.0, 4.0), (0.1, 0.5, 0.7))
    at = np.array([-9.0, 1.0, 1.5, 2.0, 3.0, 4.0, 99.0])
    assert curve(at) == pytest.approx([0.1, 0.1, 0.3, 0.5, 0.6, 0.7, 0.7])
    assert [curve.at(one) for one in at.tolist()] == pytest.approx(curve(at))


def test_platt_is_the_maximum_of_its_likelihood():
    scores, right, _ = _rows(1)
    scores = 40 * scores - 300
    found = module.platt(scores, right.astype(float))
    n = right.sum()
    targets = np.where(right, (n + 1) / (n + 2), 1 / (len(right) - n + 2))

    def loss(w):
        z = w[0] * (scores - scores.mean()) + w[1]
        return np.logaddexp(0, z).sum() - targets @ z

    peer = minimize(loss, [0.0, 0.0], method="BFGS", options={"gtol": 1e-9}).x
    assert found.slope == pytest.approx(peer[0], rel=1e-4)
    assert found.offset == pytest.approx(peer[1] - peer[0] * scores.mean(), rel=1e-4)
    assert found(scores[:9]) == pytest.approx([found.at(float(one)) for one in scores[:9]])


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_labels_are_shrunk_to_the_whole(method):
    """Naive twin: each label's own curve, mixed with that of all by n / (n + 50)."""
    scores, right, labels = _rows(2)
    found = Calibration.fit(scores, right, labels, method=method)
    fit = getattr(module, method)
    whole = fit(scores, right.astype(float))
    for label in "abc":
        rows = labels == label
        n = rows.sum()
        own = fit(scores[rows], right[rows].astype(float))
        expected = (n * own(scores) + 50 * whole(scores)) / (n + 50)
        assert found.predict(scores, [label] * len(scores)) == pytest.approx(expected)
        assert [found.at(float(s), label) for s in scores[:20]] == pytest.approx(expected[:20])
    assert found.predict(scores, ["never seen"] * len(scores)) == pytest.approx(whole(scores))
    assert found.at(0.3) == found.at(0.3, "never seen") == pytest.approx(whole(np.array([0.3]))[0])
    assert found.predict(scores) == pytest.approx(whole(scores))
    assert found.rows == 400


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_calibration_makes_a_wrong_confidence_right(method):
    rng = np.random.default_rng(3)
    p = rng.random(8000)
    right = rng.random(8000) < p
    sure = 0.5 + 0.5 * p if method == "isotonic" else 1 / (1 + ((1 - p) / p) ** 3)
    found = Calibration.fit(np.log(sure / (1 - sure)), right, method=method)
    after = found.predict(np.log(sure / (1 - sure)))
    assert expected_calibration_error(sure, right) > 0.08
    assert np.abs(after - p).mean() < 0.02


def test_calibration_survives_json():
    scores, right, labels = _rows(4)
    for method in ("isotonic", "platt"):
        found = Calibration.fit(scores, right, labels, method=method)
        back = Calibration.from_dict(json.loads(json.dumps(found.to_dict())))
        assert back == found


@pytest.mark.parametrize("right", [np.zeros(5), np.ones(5)])
@pytest.mark.parametrize("scores", [np.full(5, 0.5), np.arange(5.0)])
@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_one_class_and_ties(method, scores, right):
    found = Calibration.fit(scores, right, method=method).predict(scores)
    assert np.isfinite(found).all()
    assert np.ptp(found) < 1e-6
    assert (found > 0.5).all() == right.all()
    if method == "platt":
        assert found == pytest.approx(6 / 7 if right.all() else 1 / 7, abs=1e-6)


def _naive_ece(p, right, bins):
    total = 0.0
    for k in range(bins):
        rows = [i for i in range(len(p)) if k / bins <= p[i] < (k + 1) / bins or (k == bins - 1 and p[i] == 1)]
        if rows:
            total += abs(sum(p[i] for i in rows) - sum(right[i] for i in rows))
    return total / len(p)


def test_errors_are_the_naive_ones():
    rng = np.random.default_rng(5)
    p = np.concatenate([rng.random(200), [0.0, 1.0, 1.0]])
    right = rng.random(203) < 0.6
    for bins in (1, 10, 15):
        assert expected_calibration_error(p, right, bins) == pytest.approx(_naive_ece(p, right, bins))
    assert brier_score(p, right) == pytest.approx(sum((p[i] - right[i]) ** 2 for i in range(203)) / 203)
    found = reliability(p, right, 10)
    assert found.counts.sum() == 203
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0.0


@pytest.mark.parametrize(
    ("scores", "right", "message"),
    [
        ([], [], "at least one row"),
        ([0.5], [0, 1], "as many outcomes"),
        ([0.5, float("nan")], [0, 1], "finite scores, got nan in row 1"),
        ([0.5, 0.6], [0, 2], "outcomes of 0 or 1"),
        (["x"], [1], "as numbers"),
    ],
)
def test_rows_that_cannot_be_used(scores, right, message):
    with pytest.raises(InputError, match=message):
        Calibration.fit(scores, right)


def test_settings_that_cannot_be_used():
    with pytest.raises(InputError, match="method of isotonic or platt, got 'beta'"):
        Calibration.fit([0.5], [1], method="beta")
    with pytest.raises(InputError, match="a label for each"):
        Calibration.fit([0.5], [1], ["a", "b"])
    with pytest.raises(InputError, match="shrink"):
        Calibration.fit([0.5], [1], shrink=-1)
    with pytest.raises(InputError, match="from 0 to 1"):
        reliability([1.5], [1])


@pytest.mark.parametrize(
    "change",
    [
        {"rows": None},
        {"rows": "3"},
        {"scores": [2.0, 1.0]},
        {"probabilities": [0.5, 1.5]},
        {"probabilities": [0.6, 0.5]},
        {"scores": []},
        {"scores": "x"},
        {"by_label": {"a": {"weight": 2, "scores": [1], "probabilities": [0.5]}}},
        {"by_label": {"a": 3}},
        {"by_label": 3},
    ],
)
def test_a_stored_calibration_that_is_none(change):
    plain = {"rows": 3, "scores": [1.0, 2.0], "probabilities": [0.2, 0.5]} | change
    with pytest.raises(InputError, match="expected"):
        Calibration.from_dict(plain)
