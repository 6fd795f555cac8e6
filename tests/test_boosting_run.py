"""The whole trainer on small data: what it reports is what the detector does."""

import naive
import numpy as np
import pytest
from skimage import data

from vj.boosting import memory
from vj.boosting.positives import positives_from_arrays
from vj.boosting.recipe import TrainingConfig
from vj.boosting.run import Training
from vj.boosting.samples import TILE
from vj.errors import InputError
from vj.scanning.scanner import Scanner

BASE = {
    "window": "12x12",
    "stages": 3,
    "positives_per_stage": 150,
    "negatives_per_stage": 200,
    "max_false_alarm_rate": 0.4,
    "min_hit_rate": 0.98,
    "max_weak_count": 12,
    "mirror": True,
}


@pytest.fixture(scope="module")
def faces():
    return np.rint(data.lfw_subset()[:100] * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos():
    return [data.gravel()[:200, :200], data.brick()[:200, :200], data.coffee()[:, :, 0], data.rocket()[:, :, 1]]


def _train(faces, photos, **changes):
    config = TrainingConfig.from_mapping({**BASE, **changes})
    run = Training(config, positives=faces, backgrounds=photos)
    return run, list(run)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"features": "lbp"},
        {"features": "all", "stages": 2},
        {"max_depth": 2, "boosting": "real"},
        {"boosting": "discrete", "holdout": 0.0, "search": "exact"},
        {"boosting": "gentle", "weight_trim_rate": 0.95},
        {"window": "10x14", "features": "core", "stages": 2},
    ],
    ids=lambda c: "-".join(map(str, c.values())) or "gentle",
)
def test_detector_agrees_with_what_was_reported(faces, photos, changes):
    run, reports = _train(faces, photos, **changes)
    cascade = run.cascade
    assert len(reports) == cascade.n_stages == run.config.stages
    assert [r.weak_classifiers for r in reports] == cascade.stage_sizes.tolist()
    windows, held = run.positives.windows, run.held_out
    alive = np.ones(len(windows), dtype=bool)
    for r in reports:
        depths = np.array([Scanner(cascade.truncated(r.index + 1)).depths(w)[0][0, 0] for w in windows])
        left = alive & held if held.any() else alive
        if len(np.flatnonzero(left)) == (r.held_out or r.positives):
            assert (depths[left] > r.index).mean() == r.hit_rate
        alive &= depths > r.index
        assert r.false_alarm_rate <= 0.4 or r.weak_classifiers == 12
    some = np.random.default_rng(0).choice(len(windows), 12, replace=False)
    scanner = Scanner(cascade)
    for k in some:
        depth, total = scanner.depths(windows[k])
        assert (depth[0, 0], total[0, 0]) == naive.window_depth(cascade, windows[k])
    # Negatives that the last stage let through are exactly what is carried on.
    assert all(scanner.depths(w)[0][0, 0] == cascade.n_stages for w in run.negatives)


def test_threads_and_memory_change_nothing(faces, photos):
    for how in ("exact", "fast"):
        runs = [_train(faces, photos, threads=t, memory_mb=m, search=how)[0] for t, m in ((1, 0), (3, 0), (2, 1))]
        assert runs[0].cascade == runs[1].cascade == runs[2].cascade
        assert _train(faces, photos, seed=2, search=how)[0].cascade != runs[0].cascade


def test_copies_of_a_face_are_held_out_together(faces, photos):
    run, reports = _train(faces, photos, jitter=2, holdout=0.3, stages=1)
    assert len(run.positives.windows) == 400
    for group in range(100):
        assert len(set(run.held_out[run.positives.groups == group])) == 1
    assert reports[0].held_out == 120


def test_more_than_a_tile_of_samples(faces, photos):
    run, reports = _train(faces, photos, negatives_per_stage=2 * TILE + 1, stages=1)
    assert reports[0].negatives == 2 * TILE + 1
    assert run.cascade.n_stages == 1


def test_backgrounds_used_up_end_the_training_in_a_sentence(faces):
    notes = []
    config = TrainingConfig.from_mapping({**BASE, "stages": 30})
    run = Training(
        config,
        positives=faces,
        backgrounds=[data.gravel()[:40, :40]],
        progress=lambda p: notes.append(p.text) if p.kind == "note" else None,
    )
    reports = list(run)
    assert 0 < len(reports) < 30
    assert run.cascade.n_stages == len(reports)
    assert "backgrounds are used up" in notes[-1]
    assert "more backgrounds" in notes[-1]


def test_the_overall_target_ends_the_training(faces, photos):
    notes, steps = [], []
    config = TrainingConfig.from_mapping({**BASE, "stages": 9, "overall_false_alarm_rate": 0.3})
    run = Training(
        config,
        positives=faces,
        backgrounds=photos,
        progress=lambda p: (notes.append(p.text), steps.append(p)),
    )
    reports = list(run)
    # The target is met by what the last stage lets through, not before.
    assert 1 <= len(reports) < 9
    assert all(r.acceptance_ratio >= 0.3 for r in reports)
    assert "the overall_false_alarm_rate asked for is 3.0e-01" in next(text for text in reversed(notes) if text)
    # What is told on the way is what is reported: accepted windows, not only those that were taken.
    last = [s for s in steps if s.kind == "mining" and s.stage == len(reports) - 1][-1]
    assert last.accepted / last.scanned == reports[-1].acceptance_ratio


def test_memory_is_shared_with_what_is_there_already(monkeypatch):
    monkeypatch.setattr(memory, "_resident", lambda: 300 << 20)
    assert memory.memory_for_bins(4 << 30, 0) == 2 << 30
    assert memory.memory_for_bins(500 << 20, 0) == 136 << 20
    # Bins of the stage before are not counted twice.
    assert memory.memory_for_bins(500 << 20, 100 << 20) == 236 << 20
    assert memory.memory_for_bins(100 << 20, 0) == 16 << 20
    monkeypatch.undo()
    assert 50 << 20 < memory._resident() < 1.1 * memory.peak_memory()


def test_flat_positives_are_left_out_and_counted(faces):
    config = TrainingConfig.from_mapping(BASE)
    flat = np.full((5, 25, 25), 100, np.uint8)
    found = positives_from_arrays(np.concatenate([faces, flat]), config)
    assert len(found.windows) == 200
    assert found.notes[0].startswith("10 of 210 positives have too little contrast")
    with pytest.raises(InputError, match="with contrast"):
        positives_from_arrays(flat, config)


def test_no_cascade_before_the_first_stage(faces, photos):
    config = TrainingConfig.from_mapping(BASE)
    run = Training(config, positives=faces, backgrounds=photos)
    with pytest.raises(InputError, match="at least one trained stage"):
        _ = run.cascade


def test_pruning_makes_windows_cheaper_and_loses_its_share(faces, photos):
    plain, _ = _train(faces, photos)
    notes = []
    config = TrainingConfig.from_mapping({**BASE, "pruning": 0.1})
    run = Training(
        config,
        positives=faces,
        backgrounds=photos,
        progress=lambda step: notes.append(step.text) if step.kind == "note" else None,
    )
    list(run)
    assert (run.cascade.stage_thresholds >= plain.cascade.stage_thresholds).all()
    assert (run.cascade.stage_thresholds > plain.cascade.stage_thresholds).any()
    np.testing.assert_array_equal(run.cascade.node_thresholds, plain.cascade.node_thresholds)
    assert any("thresholds raised together" in note for note in notes)
    held = run.positives.windows[run.held_out]
    before, after = (sum(_passes(one.cascade, w) for w in held) for one in (plain, run))
    assert 0.9 * before - 1 <= after <= before
    image = photos[2]
    costs = [Scanner(one.cascade).scan(image).evaluated.sum() for one in (plain, run)]
    assert costs[1] < costs[0]


def _passes(cascade, window):
    depth, _ = Scanner(cascade).depths(np.ascontiguousarray(window))
    return int(depth[0, 0] == cascade.n_stages)
