"""A detector with known answers, measured: figures, intervals, tables and contact sheets."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from cascades import random_cascade, stock
from photos import photo

from vj.datasets.labelled import LabelledImage, Wanted
from vj.detector import Cost, Detector
from vj.errors import InputError
from vj.evaluation.bootstrap import interval
from vj.evaluation.inspection import describe, mean_object, stage_seconds
from vj.evaluation.matching import Found
from vj.evaluation.measure import (
    Rules,
    as_figures,
    cascade_detector,
    evaluate,
    run_detector,
    window_cost,
)
from vj.evaluation.rejection import rejection_profile
from vj.evaluation.report import csv_table, figures, text_table
from vj.evaluation.sheets import error_sheets
from vj.images import to_gray, write_image
from vj.tiers import YuNet

FACE = np.array([[20, 10, 40, 60.0]])
ELLIPSE = np.array([[30, 20, np.pi / 2, 40, 40.0]])


@pytest.fixture
def labelled(tmp_path):
    """Four images with a face each, one more without, and one that cannot be read."""
    found = []
    for k in range(5):
        write_image(tmp_path / f"{k}.png", np.full((100, 120, 3), 40 * k, np.uint8))
        n = int(k < 4)
        found.append(
            LabelledImage(
                tmp_path / f"{k}.png", FACE[:n], attributes={"blur": np.array([min(k, 2)][:n])}, ellipses=ELLIPSE[:n]
            )
        )
    (tmp_path / "broken.png").write_bytes(b"no image")
    return [*found, LabelledImage(tmp_path / "broken.png", FACE, attributes={"blur": np.array([0])}, ellipses=ELLIPSE)]


def _detect(image):
    """Finds the face of the first two images, misses the third, and finds something else in the fourth and fifth."""
    k = image[0, 0, 0] // 40
    if k < 2:
        return Found(FACE, np.array([10.0 - k]))
    return (
        Found(np.array([[70, 70, 20, 20.0]]), np.array([float(k)])) if k > 2 else Found(np.zeros((0, 4)), np.zeros(0))
    )


def test_figures_of_a_detector_with_known_answers(labelled):
    runs = list(run_detector(_detect, labelled))
    assert [run.found is None for run in runs] == [False] * 5 + [True]
    assert "broken.png" in runs[5].error
    result = evaluate("known", runs, Rules())
    row = as_figures(result, (0.2, 2.0))
    assert result.curve.n_wanted == 4
    assert row["recall_at"]["0"] == 0.5
    assert row["average_precision"] == 0.5
    assert row["detections"] == {"true": 2, "false": 2}
    assert row["recall_at_per_image"] == {"0.2": 0.5, "2": 0.5}
    assert row["fddb_discrete_at"]["0"] == 0.5
    assert row["fddb_continuous_at"]["0"] == pytest.approx(0.5 * np.pi / 4, abs=0.005)
    assert [result.missed(k).tolist() for k in range(5)] == [[], [], [0], [0], []]


def test_faces_that_are_not_asked_for(labelled):
    runs = list(run_detector(_detect, labelled))
    result = evaluate("known", runs, Rules(Wanted(max_blur=1)))
    assert result.curve.n_wanted == 2
    assert result.curve.recall[-1] == 1
    assert result.missed(2).tolist() == []
    with pytest.raises(InputError, match="at least one object"):
        evaluate("known", runs, Rules(Wanted(min_height=1000)))


def test_alignment_is_applied_when_asked_for(labelled):
    def small(image):
        one = _detect(image)
        shrunk = one.boxes * [1, 1, 0.6, 0.6]
        shrunk[:, :2] += 0.2 * one.boxes[:, 2:]
        return Found(shrunk, one.scores)

    runs = list(run_detector(small, labelled))
    assert evaluate("small", runs, Rules()).curve.true[-1] == 0
    aligned = evaluate("small", runs, Rules(align=True))
    assert aligned.curve.true[-1] == 2
    assert aligned.alignment.scale > 1.2


def test_no_usable_image_is_an_error(labelled):
    with pytest.raises(InputError, match="none of 1"):
        evaluate("known", list(run_detector(_detect, labelled[5:])), Rules())


def test_tables_say_the_same(labelled):
    runs = list(run_detector(_detect, labelled))
    one = Cost(*(np.array(v) for v in ([1.0], [8], [2], [[6, 2]], [[60, 40]], [[60, 100]])))
    counted = [replace(run, cost=one) for run in runs]
    results = [evaluate("known", runs, Rules()), evaluate("again", counted, Rules())]
    assert results[1].cost == window_cost([one]) == (12.5, 20.0)
    text = text_table(results)
    assert "5 images, 4 objects to find, 0 ignored" in text
    assert [line.split()[:3] for line in text.splitlines()[2:4]] == [
        ["known", "50.0", "50.0"],
        ["again", "50.0", "50.0"],
    ]
    rows = list(csv.DictReader(io.StringIO(csv_table(results))))
    assert [row["recall_at_10"] for row in rows] == ["0.5", "0.5"]
    assert [row["weak_per_window"] for row in rows] == ["", "12.5"]
    assert [row["features_per_window"] for row in rows] == ["", "20.0"]
    # 0.1 false positives for each of five images are none.
    assert [row["recall_at_0.1_per_image"] for row in rows] == [row["recall_at_0"] for row in rows]
    table = json.loads(json.dumps(figures(results)))
    assert table["detectors"][0]["curve"] == {"score": [10, 9, 4, 3], "true": [1, 2, 2, 2], "false": [0, 0, 1, 2]}


def test_interval_holds_the_figure_and_narrows_with_more_images(labelled):
    def spread(times):
        result = evaluate("known", list(run_detector(_detect, labelled)) * times, Rules())
        low, high = interval(result, lambda c: c.recall_at(1e9), samples=200)
        assert low <= result.curve.recall[-1] <= high
        assert (low, high) == interval(result, lambda c: c.recall_at(1e9), samples=200)
        return high - low

    assert spread(16) < 0.6 * spread(2)


def test_sheets_show_the_strongest_error_first(labelled):
    runs = list(run_detector(_detect, labelled))
    result = evaluate("known", runs, Rules())
    paths = [run.image.path for run in runs if run.found is not None]
    wrong, missed = error_sheets(result, paths).values()
    assert wrong.shape == missed.shape == (128, 1120, 3)
    # The middle of a tile shows the image: grey 160 for the surer false positive, then 120; faces 80 and 120.
    assert [wrong[56, 56 + 112 * k, 0] for k in range(3)] == [160, 120, 255]
    assert [missed[56, 56 + 112 * k, 0] for k in range(3)] == [80, 120, 255]
    good = evaluate("known", runs[:2], Rules())
    assert error_sheets(good, paths) == {"false-positives": None, "missed": None}


def test_a_cascade_is_measured_as_its_detector_finds(tmp_path):
    cascade = random_cascade(9, window=(12, 12))
    path = tmp_path / "a.png"
    write_image(path, photo("astronaut")[:120, 150:300])
    one = LabelledImage(path, FACE)
    detector = Detector(cascade, min_neighbors=1, min_size=30)
    expected = detector.detect(photo("astronaut")[:120, 150:300])
    assert len(expected) > 0
    broken = LabelledImage(tmp_path / "none.png", FACE)
    detect = cascade_detector(cascade, min_neighbors=1, min_size=30)
    run, none = run_detector(detect, [one, broken], detector.cost)
    assert run.found.boxes.tolist() == expected.boxes.tolist()
    assert run.found.scores.tolist() == expected.scores.tolist()
    assert run.seconds > 0
    assert none.cost is None
    cost = detector.cost(photo("astronaut")[:120, 150:300])
    np.testing.assert_array_equal(run.cost.weak_classifiers, cost.weak_classifiers)
    weak, features = evaluate("random", [run, none], Rules()).cost
    assert weak == features == pytest.approx(cost.weak_classifiers.sum() / cost.windows.sum())


def test_features_of_trees_are_counted_on_every_image():
    cascade, images = (
        random_cascade(9, window=(12, 12), nodes=(2, 3)),
        [photo("astronaut")[:120, 150:300], photo("coins")],
    )
    weak, features = window_cost([Detector(cascade).cost(image) for image in images])
    profile = rejection_profile(cascade, [to_gray(image) for image in images])
    assert (weak, features) == (profile.weak_classifiers_per_window, profile.features_per_window)
    assert weak < features <= 3 * weak
    assert window_cost([]) == (0, 0)


def test_other_files_are_no_yunet_model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(InputError, match="expected a YuNet model") as caught:
        YuNet(str(path))
    assert "\n" not in str(caught.value)


def test_description_counts_what_the_cascade_holds():
    cascade = random_cascade(4, kind="all", nodes=(1, 2, 3))
    found = describe(cascade)
    assert found["weak_classifiers"] == sum(found["weak_per_stage"]) == cascade.n_trees
    assert not any(found["carried_per_stage"])
    chain = describe(stock("frontalface_fast"))
    assert chain["carried_per_stage"] == [0, *chain["weak_per_stage"][:-1]]
    assert found["nodes"] == len(cascade.node_features)
    used = sorted(set(cascade.node_features.tolist()))
    assert found["features"] == len(used)
    assert found["tilted_share"] == pytest.approx(np.mean([cascade.features.tilted[i] for i in used]), abs=1e-4)
    assert found["depth"] == max(_longest(cascade, t, 0) for t in range(cascade.n_trees))
    json.dumps(found)


def _longest(cascade, tree, node):
    children = cascade.node_children[cascade.tree_starts[tree] + node]
    return 1 + max((_longest(cascade, tree, int(c)) for c in children if c > 0), default=0)


def test_time_is_told_for_each_stage():
    cascade = random_cascade(4)
    seconds = stage_seconds(cascade, [to_gray(photo("astronaut")[:80, :80])], repeats=1)
    assert seconds.shape == (cascade.n_stages,)
    assert seconds[0] > 0
    # A stage more never takes less, whatever the noise of the clock.
    assert (seconds >= 0).all()


def test_mean_object_is_the_average_of_what_is_found():
    cascade = random_cascade(9, window=(12, 12))
    image = to_gray(photo("astronaut")[:120, 150:300])
    detector = Detector(cascade, min_neighbors=1, min_size=30)
    n = len(detector.detect(image))
    mean, count = mean_object(detector, [image], side=24)
    assert (count, mean.shape, mean.dtype) == (n, (24, 24), np.uint8)
    assert (mean.min(), mean.max()) == (0, 255)
    same, twice = mean_object(detector, [image, image], side=24)
    assert twice == 2 * n
    assert np.abs(same.astype(int) - mean).max() <= 1
    assert mean_object(detector, [np.zeros((50, 50), np.uint8)]) == (None, 0)
    assert mean_object(detector, [image], limit=1)[1] == 1


def test_sheets_survive_a_box_far_larger_than_its_image(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((60, 80), np.uint8))
    image = LabelledImage(tmp_path / "a.png", np.array([[0, 0, 9e8, 9e8]]))
    runs = list(run_detector(lambda _: Found(np.array([[0, 0, 8e8, 1.0]]), np.ones(1)), [image]))
    result = evaluate("huge", runs, Rules())
    wrong, missed = error_sheets(result, [image.path]).values()
    assert missed.shape == wrong.shape
    assert "huge: 95 % interval of AP 0.0-0.0" in text_table([result])
