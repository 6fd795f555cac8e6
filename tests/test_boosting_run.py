"""The whole trainer on small data: what it reports is what the detector does."""

import dataclasses
import json
import sys
import tracemalloc

import cv2
import naive
import numpy as np
import pytest
from scans import count, depths
from skimage import data

import vj
from vj.boosting import memory
from vj.boosting.build import build_cascade
from vj.boosting.checkpoint import Checkpoint, State
from vj.boosting.feature_values import feature_table
from vj.boosting.learner import Learner
from vj.boosting.memory import SampleCounts
from vj.boosting.mining import Harvest
from vj.boosting.positives import positives_from_arrays
from vj.boosting.recipe import TrainingConfig
from vj.boosting.run import Training
from vj.boosting.samples import TILE, prepare, window_norms
from vj.boosting.search import Search
from vj.boosting.stage import stage_threshold
from vj.boosting.trees import sample_weights
from vj.boosting.workers import Workers
from vj.cascade.haar import feature_pool
from vj.datasets.vec_files import write_vec
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
        # Where none are held out the hit rate is that of all positives: so many are asked for that none are left out.
        {"boosting": "discrete", "holdout": 0.0, "search": "exact", "positives_per_stage": 500},
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
        reached = np.array([_depth(cascade.truncated(r.index + 1), w) for w in windows])
        left = alive & held if held.any() else alive
        assert len(np.flatnonzero(left)) == (r.held_out or r.positives)
        assert (reached[left] > r.index).mean() == r.hit_rate
        alive &= reached > r.index
        assert r.false_alarm_rate <= 0.4 or r.weak_classifiers == 12
    some = np.random.default_rng(0).choice(len(windows), 12, replace=False)
    scanner = Scanner(cascade)
    for k in some:
        depth, total = depths(scanner, windows[k])
        assert (depth[0, 0], total[0, 0]) == naive.window_depth(cascade, windows[k])
    # Negatives that the last stage let through are exactly what is carried on.
    assert all(_depth(cascade, w) == cascade.n_stages for w in run.negatives)


def test_threads_and_memory_change_nothing(faces, photos, monkeypatch):
    for how in ("exact", "fast"):
        runs = [_train(faces, photos, threads=t, search=how)[0] for t in (1, 3)]
        with monkeypatch.context() as patch:
            # Room for a small part of the bins, which no real limit is: program and samples take more.
            patch.setattr("vj.boosting.learner.memory_for_bins", lambda *_: 1 << 19)
            runs.append(_train(faces, photos, threads=2, search=how)[0])
        assert runs[0].cascade == runs[1].cascade == runs[2].cascade
        assert _train(faces, photos, seed=2, search=how)[0].cascade != runs[0].cascade


def test_too_little_memory_is_refused_before_anything_is_trained(faces, photos, monkeypatch):
    with pytest.raises(InputError) as error:
        _train(faces, photos, memory_mb=100, negatives_per_stage=10**6)
    text = str(error.value)
    assert "for 1000000 negatives and 190 positives of 12x12, got 100" in text
    enough = int(text.split("at least ")[1].split()[0])
    # Windows and integral images alone: 144 + 676 bytes each.
    assert enough > 820 * 10**6 >> 20
    monkeypatch.setattr("vj.boosting.learner.memory_budget", lambda _: enough << 20)
    config = TrainingConfig.from_mapping({**BASE, "negatives_per_stage": 10**6})
    run = Training(config, positives=faces, backgrounds=photos[:1])
    monkeypatch.setattr(Learner, "_refill", lambda _: False)
    assert list(run) == []
    # Without a limit of one's own it is only said.
    notes = []
    monkeypatch.setattr("vj.boosting.learner.memory_budget", lambda _: 100 << 20)
    run = Training(
        config,
        positives=faces,
        backgrounds=photos[:1],
        progress=lambda p: notes.append(p.text),
    )
    assert list(run) == []
    assert any("more than half of the memory that is free" in text for text in notes)


def test_the_least_memory_counts_what_is_held():
    counts = SampleCounts(negatives=400_000, positives=2000)
    small = memory.least_memory(SampleCounts(2, 2), (24, 24), tilted=False, threads=2)
    upright = memory.least_memory(counts, (24, 24), tilted=False, threads=2) - small
    assert 402_000 * (576 + 2500) < upright < 1.15 * 402_000 * (576 + 2500)
    tilted = memory.least_memory(counts, (24, 24), tilted=True, threads=2) - small
    assert abs(tilted - upright - 402_000 * 2500) < 1 << 20


def _peak(work):
    """Most bytes that numpy and Python held at once while it worked, beyond what they held before."""
    work()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_search_stays_within_its_memory():
    """Blocks that were binned again for a moment took eight times what all the kept bins might."""
    rng = np.random.default_rng(2)
    pool = feature_table(feature_pool((12, 12), "basic"), (12, 12))
    groups = tuple(prepare(rng.integers(0, 256, (n, 12, 12), dtype=np.uint8)) for n in (2000, 6000))
    workers = Workers(2)
    limit = 4 << 20
    assert len(pool) * 8000 > 8 * limit
    search = Search(pool, groups, workers, limit)
    weights = sample_weights("gentle", np.zeros(2000), np.zeros(6000))
    held = search._bins[0].nbytes + search._bins[1].nbytes
    peak = _peak(lambda: search.best((weights.first, weights.second), weights.criterion))
    workers.close()
    assert 0 < held < limit
    # Results, weights and lists of features besides: a few numbers for each sample and each feature.
    assert peak < limit - held + 60 * (len(pool) + 8000)


def test_windows_are_measured_and_saved_without_copies(tmp_path):
    windows = np.random.default_rng(3).integers(0, 256, (60_000, 12, 12), dtype=np.uint8)
    assert _peak(lambda: window_norms(windows)) < windows.nbytes
    checkpoint = Checkpoint(tmp_path / "c", TrainingConfig.from_mapping(BASE), {}, features=1, backgrounds=1)
    assert _peak(lambda: checkpoint.save(State(Harvest(windows)))) < windows.nbytes // 4
    (path,) = (tmp_path / "c").glob("*.npy")
    assert np.array_equal(np.load(path), windows)


def test_copies_of_a_face_are_held_out_together(faces, photos):
    run, reports = _train(faces, photos, jitter=2, holdout=0.3, stages=1)
    assert len(run.positives.windows) == 400
    for group in range(100):
        assert len(set(run.held_out[run.positives.groups == group])) == 1
    assert reports[0].held_out == 120


def test_thresholds_are_not_set_on_sources_that_say_so(faces, photos, tmp_path):
    """Noise among the positives: none of it is held out, and thresholds are what they would be for the faces alone."""
    noise = np.random.default_rng(0).integers(0, 256, faces.shape, dtype=np.uint8)
    for name, crops in (("upright", faces), ("hard", noise)):
        (tmp_path / name).mkdir()
        for k, crop in enumerate(crops):
            cv2.imwrite(str(tmp_path / name / f"{k:03}.png"), crop)
    sources = [{"path": tmp_path / "upright"}, {"path": tmp_path / "hard", "thresholds": False}]
    config = TrainingConfig.from_mapping(
        {**BASE, "positives": sources, "min_hit_rate": 0.95, "stages": 1, "positives_per_stage": 500, "jitter": 0}
    )
    run = Training(config, backgrounds=photos)
    reports = list(run)
    hard = run.positives.boosted_only
    assert not (hard & run.held_out).any() and run.held_out.sum() == 40
    first = run.cascade.truncated(1)
    sums = np.array([depths(Scanner(first), window)[1][0, 0] for window in run.positives.windows])
    groups = sums[~hard & ~run.held_out], sums[run.held_out]
    assert first.stage_thresholds[0] == min(stage_threshold(one, 0.95) for one in groups)
    assert (reports[0].positives, reports[0].held_out) == (360, 40)
    assert reports[0].training_hit_rate == (groups[0] >= first.stage_limits[0]).mean()


@pytest.mark.parametrize("changes", [{}, {"max_depth": 2, "pruning": 0.1}, {"features": "lbp"}], ids=str)
def test_stages_of_a_chain_go_on_from_the_stage_before(faces, photos, tmp_path, changes):
    settings = {**BASE, "chain": True, "max_weak_count": 6, "max_false_alarm_rate": 0.001, **changes}
    run, reports = _train(faces, photos, **settings)
    cascade = run.cascade
    assert cascade.carried.tolist() == [0, *cascade.stage_sizes[:-1]]
    # What a stage adds is reported, and bounded by the recipe.
    assert [r.weak_classifiers for r in reports] == (cascade.stage_sizes - cascade.carried).tolist()
    assert max(r.weak_classifiers for r in reports) <= 6 < cascade.stage_sizes[-1]
    depth = np.array([_depth(cascade, window) for window in run.positives.windows[run.held_out]])
    for r in run.reports:
        assert r.hit_rate == (depth[depth >= r.index] > r.index).mean()

    # Stopped within a stage, it goes on from a checkpoint as if nothing had happened.
    class Stop(Exception):
        pass

    def stop(step):
        if step.kind == "round" and (step.stage, step.round.weak_count) == (2, 2):
            raise Stop

    first = Training(positives=faces, backgrounds=photos, output=tmp_path, progress=stop, **settings)
    with pytest.raises(Stop):
        list(first)
    first._save()
    second = Training(positives=faces, backgrounds=photos, output=tmp_path, **settings)
    list(second)
    assert any("resuming after 2 stages and 2 weak classifiers" in note for note in second.notes)
    assert second.cascade == cascade == vj.load(tmp_path / "cascade.xml")
    # One that has finished, too.
    third = Training(positives=faces, backgrounds=photos, output=tmp_path, **settings)
    assert list(third) == [] and third.cascade == cascade


def test_a_chain_rejects_more_with_as_many_weak_classifiers(faces, photos):
    settings = {"max_weak_count": 5, "max_false_alarm_rate": 0.001, "stages": 4, "negatives_per_stage": 1000}
    (_, apart), (_, chain) = (_train(faces, photos, **settings, chain=chain) for chain in (False, True))
    assert apart[0] == dataclasses.replace(chain[0], seconds=apart[0].seconds, mining_seconds=apart[0].mining_seconds)
    last = [reports[-1].acceptance_ratio * reports[-1].false_alarm_rate for reports in (apart, chain)]
    assert last[1] < 0.8 * last[0]


def test_a_chain_has_no_soft_thresholds():
    with pytest.raises(InputError, match="expected chain or soft_loss, got both"):
        TrainingConfig(chain=True, soft_loss=0.01)


def test_leaves_are_rounded_at_the_end_so_that_one_integer_holds_a_sum(faces, photos):
    before = []
    for changes in ({}, {"chain": True, "max_depth": 2}, {"boosting": "real"}):
        run, _ = _train(faces, photos, max_weak_count=80, max_false_alarm_rate=0.001, min_hit_rate=1.0, **changes)
        stages = run._learner.state.stages
        trained = np.concatenate([tree.leaves for stage in stages for tree in stage.trees])
        assert (run.cascade.leaves != trained).any()
        np.testing.assert_allclose(run.cascade.leaves, trained, rtol=0, atol=1e-6)
        assert Scanner(run.cascade)._lanes.units[1] == 0
        before.append(Scanner(build_cascade((12, 12), run._learner._features, stages, {}))._lanes.units[1] > 0)
    assert sum(before) >= 2


def test_fixed_point_fits_16_bits(faces, photos):
    run, reports = _train(faces, photos, fixed_point=True, max_depth=2)
    cascade = run.cascade
    for values, steps in ((cascade.node_thresholds, 4096), (cascade.leaves, 256), (cascade.stage_thresholds, 256)):
        units = values.astype(np.float64) * steps
        assert np.array_equal(units, np.rint(units)) and np.abs(units).max() < 1 << 15
    depth = np.array([_depth(cascade, window) for window in run.positives.windows[run.held_out]])
    for r in reports:
        assert r.hit_rate == (depth[depth >= r.index] > r.index).mean()


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
    # Progress reports the same as the result: hits, not only those that were taken.
    last = [s for s in steps if s.kind == "mining" and s.stage == len(reports) - 1][-1]
    assert last.hits / last.scanned == reports[-1].acceptance_ratio


def test_memory_is_shared_with_what_is_there_already(monkeypatch):
    monkeypatch.setattr(memory, "_resident", lambda: 300 << 20)
    assert memory.memory_for_bins(4 << 30, 0) == 2 << 30
    assert memory.memory_for_bins(500 << 20, 0) == 136 << 20
    # Bins of the stage before are not counted twice.
    assert memory.memory_for_bins(500 << 20, 100 << 20) == 236 << 20
    assert memory.memory_for_bins(100 << 20, 0) == 16 << 20
    # Sums and weights of the samples come on top.
    assert memory.memory_for_bins(500 << 20, 0, 400_000) == (136 << 20) - 128 * 400_000
    monkeypatch.undo()
    resource = pytest.importorskip("resource")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
    assert 50 << 20 < memory._resident() < 1.1 * peak


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
    costs = [count(Scanner(one.cascade), image).features.sum() for one in (plain, run)]
    assert costs[1] < costs[0]


def test_loosening_lowers_thresholds_and_nothing_else(faces, photos, tmp_path):
    plain, _ = _train(faces, photos)
    amounts = [0.0, 0.25, 1.5]
    run = Training(positives=faces, backgrounds=photos, output=tmp_path, **{**BASE, "loosening": amounts})
    list(run)
    n = run.cascade.n_stages
    assert n == plain.cascade.n_stages > 1
    lowered = plain.cascade.stage_thresholds - np.array(amounts[:n] + amounts[-1:] * (n - 3), np.float32)
    np.testing.assert_array_equal(run.cascade.stage_thresholds, lowered)
    np.testing.assert_array_equal(run.cascade.node_thresholds, plain.cascade.node_thresholds)
    assert run.reports[-1].hit_rate >= plain.reports[-1].hit_rate
    # A finished run is not loosened again.
    again = Training(positives=faces, backgrounds=photos, output=tmp_path, **{**BASE, "loosening": amounts})
    list(again)
    np.testing.assert_array_equal(again.cascade.stage_thresholds, lowered)


def test_scaled_margins_find_the_same_with_other_scores(faces, photos):
    plain, half = (
        vj.train(positives=faces, backgrounds=photos, **{**BASE, "margin_scale": factor}).cascade
        for factor in (1.0, 0.5)
    )
    hits = [vj.Detector(one, min_neighbors=0).hits(photos[0]) for one in (plain, half)]
    assert len(hits[0].sums)
    np.testing.assert_array_equal(hits[0].boxes, hits[1].boxes)
    np.testing.assert_array_equal(hits[0].sums, 2 * hits[1].sums)
    with pytest.raises(InputError, match="fixed_point or margin_scale"):
        vj.train(positives=faces, backgrounds=photos, **{**BASE, "margin_scale": 0.5, "fixed_point": True})


def test_loosening_keeps_thresholds_in_fixed_point(faces, photos):
    plain, loose = (
        vj.train(positives=faces, backgrounds=photos, **{**BASE, "fixed_point": True, "loosening": amount}).cascade
        for amount in (0.0, 0.3)
    )
    steps = 256 * (plain.stage_thresholds.astype(float) - loose.stage_thresholds)
    # Of 1/256; the thresholds themselves are float32.
    np.testing.assert_allclose(steps, 77, atol=0.001)


@pytest.mark.parametrize(
    "changes", [{}, {"features": "lbp"}, {"max_depth": 2, "holdout": 0.5, "loosening": [0.0, 0.5]}]
)
def test_reports_after_pruning_are_those_of_the_cascade_that_was_written(faces, photos, tmp_path, changes):
    """Measured again by the detector, which reads the file: all positives, and the backgrounds at its own scales."""
    settings = {**BASE, "pruning": 0.3, "jitter": 2, **changes}
    before = vj.train(positives=faces, backgrounds=photos, **{**settings, "pruning": 0.0}).reports
    run = Training(positives=faces, backgrounds=photos, output=tmp_path, **settings)
    list(run)
    written = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    cascade = vj.load(tmp_path / "cascade.xml")
    scanner = Scanner(cascade)

    def reached(windows):
        return np.array([depths(scanner, np.ascontiguousarray(w))[0][0, 0] for w in windows])

    held, others = reached(run.positives.windows[run.held_out]), reached(run.positives.windows[~run.held_out])
    costs = [vj.Detector(cascade, stride=1).cost(photo) for photo in photos]
    visited, entered = sum(c.windows.sum() for c in costs), sum(c.entered.sum(axis=0) for c in costs)
    raised = 0
    for k, (report, old) in enumerate(zip(written, before, strict=True)):
        assert np.float32(report["threshold"]) == cascade.stage_thresholds[k]
        assert report["hit_rate"] == (held[held >= k] > k).mean()
        assert report["training_hit_rate"] == (others[others >= k] > k).mean()
        assert report["acceptance_ratio"] == pytest.approx(entered[k] / visited, rel=0.3)
        if k:
            assert written[k - 1]["false_alarm_rate"] == pytest.approx(entered[k] / entered[k - 1], rel=0.3)
        # What it was trained on is history.
        assert [report[key] for key in ("negatives", "windows_scanned")] == [old.negatives, old.windows_scanned]
        raised += report["threshold"] > old.threshold
    assert raised >= 2
    assert entered[-1] > 100
    assert entered[1] / visited < 0.5 * before[1].acceptance_ratio
    # Hard negatives are those of the cascade as it is now.
    assert (reached(run.negatives) == cascade.n_stages).all()


def _depth(cascade, window):
    return depths(Scanner(cascade), window)[0][0, 0]


def _passes(cascade, window):
    return int(_depth(cascade, window) == cascade.n_stages)


def test_few_positives_get_copies_of_which_none_is_held_out(photos, faces):
    settings = {"window": "12x12", "negatives_per_stage": 100, "holdout": 0.25}

    def run(n, **changes):
        return Training(positives=faces[:n], backgrounds=photos, **{**settings, **changes})

    # 30 objects train, 10 are held out: 300 windows are ten of each.
    training = run(40, positives_per_stage=300)
    assert len(training.positives.windows) == 30 * 10 + 10
    assert np.bincount(training.positives.groups[training.held_out]).max() == 1
    plain = run(40, jitter=0)
    assert np.array_equal(training.positives.windows[training.held_out], plain.positives.windows[plain.held_out])
    # As asked for, the held-out ones have theirs, too.
    asked = run(40, positives_per_stage=300, jitter=9)
    assert len(asked.positives.windows) == 400
    assert len(run(40, positives_per_stage=300, mirror=True).positives.windows) == 30 * 10 + 20
    # Enough of them, and as many as there may be.
    assert len(run(40, positives_per_stage=30).positives.windows) == 40
    assert len(run(40).positives.windows) == 30 * 16 + 10
    assert any("jittered copies make 490 positives of 40" in note for note in run(40).positives.notes)


def test_ready_windows_get_no_copies_of_their_own_accord(tmp_path, photos, faces):
    write_vec(tmp_path / "faces.vec", faces[:40])
    settings = {"window": "25x25", "backgrounds": photos, "positives": str(tmp_path / "faces.vec")}
    assert len(Training(**settings).positives.windows) == 40
    assert len(Training(**settings, jitter=2).positives.windows) == 120
