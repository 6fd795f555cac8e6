"""Advice: where a stage or the data went wrong, and silence where they did not."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage import data

from vj.boosting.advice import data_advice, stage_advice
from vj.boosting.positives import load_positives, positives_from_arrays
from vj.boosting.progress import StageReport
from vj.boosting.recipe import TrainingConfig
from vj.boosting.run import Training
from vj.boosting.workers import Workers
from vj.cli.train import main

CONFIG = TrainingConfig(max_false_alarm_rate=0.5, min_hit_rate=0.99, max_weak_count=20)
GOOD = StageReport(0, 12, 0.0, 0.992, 0.998, 0.45, 1000, 250, 2000, 10**6, 0.01, 1.0, 2.0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"false_alarm_rate": 0.5},
        # Training positives all pass and held-out ones as asked for: every good stage looks like this.
        {"training_hit_rate": 1.0, "hit_rate": 0.99},
        # One or two of few held-out positives lost is chance.
        {"training_hit_rate": 1.0, "hit_rate": 0.95, "held_out": 20},
        {"training_hit_rate": 0.99, "hit_rate": 0.99, "held_out": 0},
    ],
)
def test_a_stage_that_did_what_was_asked_gets_none(changes):
    assert stage_advice(replace(GOOD, **changes), CONFIG) == ""


def test_a_goal_that_nobody_reaches_is_no_goal():
    """Recipes that let max_weak_count end every stage ask for next to no false alarms."""
    report = replace(GOOD, weak_classifiers=20, false_alarm_rate=0.4)
    assert stage_advice(report, replace(CONFIG, max_false_alarm_rate=0.001)) == ""


@pytest.mark.parametrize(
    ("changes", "cause", "help"),
    [
        (
            {"weak_classifiers": 20, "training_hit_rate": 1.0, "hit_rate": 0.9917},
            "fits its training positives (hit rate 1.0000) better than the held-out ones (0.9917)",
            "lower min_hit_rate",
        ),
        ({"weak_classifiers": 20, "training_hit_rate": 0.991}, "20 weak classifiers are too few", "max_weak_count"),
        ({"weak_classifiers": 20, "training_hit_rate": 1.0, "hit_rate": 1.0}, "are too few", "max_depth"),
        ({"weak_classifiers": 9, "training_hit_rate": 0.991}, "no feature separates", "do not show the object"),
    ],
)
def test_a_missed_goal_has_a_cause(changes, cause, help):
    text = stage_advice(replace(GOOD, false_alarm_rate=0.625, **changes), CONFIG)
    assert text.startswith("62.5 % of the negatives pass, 50.0 % were asked for: ")
    assert cause in text
    assert help in text
    assert "\n" not in text


def test_held_out_positives_far_below_what_was_asked_for():
    text = stage_advice(replace(GOOD, training_hit_rate=1.0, hit_rate=0.8, held_out=40), CONFIG)
    assert text.startswith("only 80.0 % of the 40 held-out positives pass, 99.0 % were asked for")


def test_few_positives_and_the_shape_of_the_window():
    config = TrainingConfig(window=(24, 24))
    square, wide = np.full((50, 2), 30.0), np.array([[94.0, 34.0]] * 9 + [[10.0, 100.0], [0.0, 0.0]])
    assert data_advice(config, 100, square) == []
    assert data_advice(config, 100, np.zeros((0, 2))) == []
    (few,) = data_advice(config, 99, square)
    assert few.startswith("99 positives are few")
    (shape,) = data_advice(config, 500, wide)
    assert "2.76 times as wide as it is high" in shape
    # About the same area, the objects' shape.
    assert "window 40x14 fits better" in shape
    assert data_advice(replace(config, window=(40, 14)), 500, wide) == []
    assert data_advice(replace(config, window=(24, 20)), 500, square) == []
    # Within the sizes that a window may have.
    assert "window 128x8 fits" in data_advice(config, 500, np.array([[1000.0, 10.0]]))[0]


def test_sizes_of_the_objects_are_those_of_their_boxes_or_crops(tmp_path):
    cv2.imwrite(str(tmp_path / "i.png"), data.gravel())
    (tmp_path / "b.csv").write_text("file,x,y,w,h\ni.png,10,20,90,30\ni.png,200,100,40,60\n")
    (tmp_path / "crops").mkdir()
    cv2.imwrite(str(tmp_path / "crops/c.png"), data.gravel()[:50, :70])
    sources = [str(tmp_path / "b.csv"), str(tmp_path / "crops"), "skimage:faces"]
    config = TrainingConfig.from_mapping({"positives": sources, "jitter": 2})
    workers = Workers(1)
    found = load_positives(config, workers)
    workers.close()
    assert found.sizes.shape == (103, 2)
    assert found.sizes[:4].tolist() == [[90, 30], [40, 60], [70, 50], [25, 25]]
    assert found.names[:4] == (str(tmp_path / "i.png"),) * 2 + (str(tmp_path / "crops/c.png"), "")
    crops = positives_from_arrays([data.gravel()[:50, :70], data.gravel()[:40, :20]], config)
    assert crops.sizes.tolist() == [[70, 50], [20, 40]]


def test_advice_is_in_notes_and_reports_and_on_the_screen(tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "objects").mkdir()
    (tmp_path / "photos").mkdir()
    for k in range(60):
        # Noise: what is learnt of these holds for no other.
        cv2.imwrite(str(tmp_path / f"objects/{k}.png"), rng.integers(0, 256, (12, 30), dtype=np.uint8))
    cv2.imwrite(str(tmp_path / "photos/p.png"), rng.integers(0, 256, (90, 90), dtype=np.uint8))
    out = tmp_path / "out"
    where = ["--positives", str(tmp_path / "objects"), "--backgrounds", str(tmp_path / "photos"), "--output", str(out)]
    samples = ["--positives-per-stage", "60", "--negatives-per-stage", "100", "--window", "12x12", "--stages", "1"]
    goals = ["--jitter", "0", "--max-weak-count", "40", "--max-false-alarm-rate", "0.02", "--min-hit-rate", "0.9"]
    assert main([*where, *samples, *goals]) == 0
    told = capsys.readouterr().err
    assert "60 positives are few" in told
    assert "2.50 times as wide as it is high, the window 12x12 1.00 times; window 20x8 fits better" in told
    (line,) = [line for line in told.splitlines() if "of the negatives pass" in line]
    assert "stage 1: " in line
    assert "better than the held-out ones" in line
    (report,) = [json.loads(text) for text in (out / "report.jsonl").read_text().splitlines()]
    assert line.endswith(report["advice"])
    # It is part of the report, so it is there after resuming, too.
    again = Training(out / "recipe.toml")
    assert list(again) == []
    assert again.reports[0].advice == report["advice"]


def test_boxes_at_the_border_are_counted(tmp_path):
    cv2.imwrite(str(tmp_path / "i.png"), data.gravel()[:300, :400])
    # At the left, at the bottom, a pixel short of the right, two inside, and one that is nearly the image.
    boxes = ["0,50,40,40", "100,262,40,38", "359,50,40,40", "10,10,40,40", "200,100,40,40", "1,1,398,298"]
    (tmp_path / "b.csv").write_text("file,x,y,w,h\n" + "".join(f"i.png,{box}\n" for box in boxes))
    workers = Workers(1)
    config = TrainingConfig.from_mapping({"positives": str(tmp_path / "b.csv"), "jitter": 0})
    found = load_positives(config, workers)
    workers.close()
    assert found.at_border == 3
    (text,) = data_advice(config, 300, np.zeros((0, 2)), 16)
    assert text.startswith("16 of 300 boxes touch the border of their image")
    assert "leave out" in text
    assert data_advice(config, 300, np.zeros((0, 2)), 15) == []


def test_backgrounds_that_show_the_positives_are_named_under_any_name(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "1.png"), data.gravel()[:100, :100])
    cv2.imwrite(str(tmp_path / "b/2.png"), data.gravel()[100:200, :100])
    (tmp_path / "b/1.png").rename(tmp_path / "b/copy of 1.png")
    (tmp_path / "b.csv").write_text("file,x,y,w,h\n" + "".join(f"a/1.png,{k},{k},30,30\n" for k in range(60)))
    settings = {"window": "12x12", "stages": 1, "positives_per_stage": 60, "negatives_per_stage": 50}
    run = Training(positives=str(tmp_path / "b.csv"), backgrounds=str(tmp_path / "b"), **settings)
    list(run)
    (note,) = [note for note in run.notes if "backgrounds are images of positives" in note]
    assert note.startswith("1 backgrounds") and str(tmp_path / "b/copy of 1.png") in note
    assert "annotated" in note
