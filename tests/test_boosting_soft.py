"""Soft thresholds set on held-out positives: what they lose, and that training, files and checkpoints keep them."""

from dataclasses import replace

import numpy as np
import pytest
from cascades import random_cascade
from scans import depths
from skimage import data

import vj
from vj.boosting.run import Training
from vj.boosting.soft import EVERY, soften
from vj.errors import InputError
from vj.scanning.scanner import Scanner

SETTINGS = {
    "window": "12x12",
    "stages": 2,
    "positives_per_stage": 300,
    "negatives_per_stage": 300,
    "max_false_alarm_rate": 0.001,
    "min_hit_rate": 0.99,
    "max_weak_count": [4, 50],
    "mirror": True,
    "jitter": 4,
    "holdout": 0.5,
}


@pytest.fixture(scope="module")
def faces():
    return np.rint(data.lfw_subset()[:100] * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos():
    return [data.gravel()[:200, :200], data.coffee()[:, :, 0], data.rocket()[:, :, 1]]


def passing(cascade, windows):
    scanner = Scanner(cascade)
    return np.array([depths(scanner, np.ascontiguousarray(w))[0][0, 0] == cascade.n_stages for w in windows])


@pytest.fixture(scope="module")
def trained(faces, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("soft")
    run = Training(positives=faces, backgrounds=photos, output=out, soft_loss=0.05, **SETTINGS)
    stages = []
    for _ in run:
        stages.append(run.cascade.soft)
    return run, out, stages


def test_the_trainer_sets_them_at_the_end_and_writes_them(trained, faces, photos):
    run, out, stages = trained
    assert stages[0] is None
    soft = run.cascade.soft
    assert soft.trees.tolist() == [4 + EVERY - 1, 4 + 2 * EVERY - 1, 4 + 3 * EVERY - 1]
    assert vj.load(out / "cascade.xml") == run.cascade
    assert any("soft thresholds after 3 weak classifiers" in note for note in run.notes)
    plain = vj.train(positives=faces, backgrounds=photos, **SETTINGS).cascade
    assert run.cascade != plain
    assert run.cascade.exact() == plain
    # A finished run that is opened again has them, too.
    again = Training(positives=faces, backgrounds=photos, output=out, soft_loss=0.05, **SETTINGS)
    assert list(again) == []
    assert again.cascade == run.cascade


def test_no_more_than_the_share_is_lost_and_backgrounds_cost_less(trained, photos):
    run, _, _ = trained
    held = run.positives.windows[run.held_out]
    found, kept = passing(run.cascade.exact(), held), passing(run.cascade, held)
    assert not (kept & ~found).any()
    assert 0.4 * 0.05 * found.sum() <= (found & ~kept).sum() <= 0.05 * found.sum()
    costs = [vj.Detector(run.cascade, exact=exact).cost(photos[1]).features.sum(axis=0) for exact in (False, True)]
    assert costs[0][0] == costs[1][0]
    assert costs[0][1] < costs[1][1]


def test_a_larger_loss_costs_less(trained, photos):
    run, _, _ = trained
    held = run.positives.windows[run.held_out]
    detectors = [vj.Detector(soften(run.cascade, held, loss)) for loss in (0.02, 0.1, 0.3)]
    costs = [one.cost(photos[1]).features.sum() for one in detectors]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[-1]


def test_positives_at_a_threshold_are_kept(trained):
    """Each threshold is the lowest sum of the positives that all of them keep, to single precision."""
    run, _, _ = trained
    held = run.positives.windows[run.held_out]
    sums = Scanner(run.cascade).part_sums(held[passing(run.cascade, held)])[:, 1:-1]
    np.testing.assert_allclose(sums.min(axis=0), run.cascade.soft.sums, rtol=1e-6)


def test_too_few_positives_leave_the_cascade_as_it_is(faces, photos):
    settings = {**SETTINGS, "jitter": 0, "soft_loss": 0.001}
    run = Training(positives=faces, backgrounds=photos, **settings)
    assert len(list(run)) == 2
    assert run.cascade.soft is None
    assert any("soft thresholds were not set: expected at least 2000 held-out" in note for note in run.notes)


def test_short_stages_have_none():
    cascade = random_cascade(1)
    windows = np.random.default_rng(0).integers(0, 256, (5, 9, 8), dtype=np.uint8)
    assert soften(cascade, windows, 0.1) is cascade


@pytest.mark.parametrize("loss", [0.0, -0.1, 0.6, float("nan")])
def test_a_loss_out_of_range_is_refused(loss):
    with pytest.raises(InputError, match="expected a loss above 0 and at most 0.5"):
        soften(random_cascade(1), np.zeros((5, 9, 8), np.uint8), loss)


def test_windows_of_another_size_are_refused():
    with pytest.raises(InputError, match=r"expected positives as uint8 of shape \(n, 9, 8\), got uint8 \(5, 8, 9\)"):
        soften(replace(random_cascade(1)), np.zeros((5, 8, 9), np.uint8), 0.1)
