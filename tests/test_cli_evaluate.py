"""`vj-evaluate` and `vj-inspect` as a user types them."""

import json

import numpy as np
import pytest
from cascades import random_cascade
from pages import two_images

from vj.boosting.positives import load_positives
from vj.boosting.recipe import TrainingConfig
from vj.boosting.workers import Workers
from vj.cascade.opencv_xml import load
from vj.cli import evaluate, inspect
from vj.datasets.formats import read_labelled
from vj.detector import Detector
from vj.evaluation.measure import Rules, as_figures, measurable, run_detector
from vj.evaluation.measure import evaluate as evaluation
from vj.images import read_bgr, write_image
from vj.tiers import Regions


@pytest.fixture
def place(tmp_path):
    return two_images(tmp_path)


def test_evaluate_writes_all_it_is_asked_for(place, capsys):
    out = place / "out"
    model = str(place / "model.xml")
    options = ["--json", "r.json", "--csv", "r.csv", "--plot", "r.png", "--errors", "errors"]
    paths = [option if option.startswith("--") else str(out / option) for option in options]
    code = evaluate.main([model, model, "--dataset", str(place / "set"), "--min-size", "30", *paths])
    assert code == 0
    shown = capsys.readouterr().out
    assert "2 images, 1 object to find" in shown
    table = json.loads((out / "r.json").read_text())
    assert [row["name"] for row in table["detectors"]] == ["model", "model (2)"]
    assert table["detectors"][0]["recall_at"] == table["detectors"][1]["recall_at"]
    assert (out / "r.csv").read_text().startswith("detector,average_precision,recall_at_0,")
    assert {p.name for p in out.iterdir()} == {"r.json", "r.csv", "r.png", "errors"}
    assert "model-false-positives.png" in {p.name for p in (out / "errors").iterdir()}


def test_evaluate_measures_a_detector_on_the_regions_of_another(place, capsys):
    """The same cascade looks again at what it proposed, so nothing that it did not find before can appear."""
    model = str(place / "model.xml")
    options = ["--dataset", str(place / "set"), "--min-size", "30", "--json", str(place / "r.json")]
    assert evaluate.main([model, f"{model}+{model}", *options]) == 0
    capsys.readouterr()
    alone, both = json.loads((place / "r.json").read_text())["detectors"]
    assert both["name"] == "model + model"
    assert "weak_classifiers_per_window" in alone and "weak_classifiers_per_window" not in both
    # As from Python.
    images = read_labelled(place / "set")
    settings = {"min_size": 30, "min_neighbors": 0, "suppression": evaluate.SUPPRESSION}
    detector = Regions(*(Detector(load(model), **settings) for _ in range(2)))
    again = evaluation("x", list(run_detector(measurable(detector), images)), Rules())
    assert as_figures(again)["detections"] == both["detections"]


def test_a_file_with_a_plus_in_its_name_is_one_detector(place, capsys):
    (place / "a+b.xml").write_bytes((place / "model.xml").read_bytes())
    assert (
        evaluate.main([str(place / "a+b.xml"), "--dataset", str(place / "set"), "--json", str(place / "r.json")]) == 0
    )
    assert json.loads((place / "r.json").read_text())["detectors"][0]["name"] == "a+b"


def test_an_image_that_cannot_be_read_is_reported_and_the_rest_measured(place, capsys):
    rows = [*json.loads((place / "set" / "annotations.json").read_text()), {"file": "gone.png", "faces": []}]
    (place / "set" / "annotations.json").write_text(json.dumps(rows))
    assert evaluate.main([str(place / "model.xml"), "--dataset", str(place / "set")]) == 1
    captured = capsys.readouterr()
    assert "gone.png" in captured.err
    assert len(captured.err.splitlines()) == 1
    assert "2 images" in captured.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["model.xml", "--dataset", "nowhere"],
        ["nowhere.xml", "--dataset", "set"],
        ["model.xml", "--dataset", "set", "--iou", "0"],
        ["model.xml", "--dataset", "set", "--scale-factor", "1"],
        ["model.xml", "--dataset", "set", "--min-height", "500"],
        ["model.xml", "--dataset", "model.xml"],
        ["yunet:model.xml", "--dataset", "set"],
        ["yunet@2:model.xml", "--dataset", "set"],
        ["yunet@half:model.xml", "--dataset", "set"],
        ["dlib:nowhere.dat", "--dataset", "set"],
        ["model.xml+", "--dataset", "set"],
        ["model.xml+nowhere.xml", "--dataset", "set"],
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_exit_code_2(place, capsys, monkeypatch, arguments):
    monkeypatch.chdir(place)
    assert evaluate.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("vj-evaluate: ")
    assert len(captured.err.splitlines()) == 1


def test_inspect_describes_and_measures(place, capsys):
    out = place / "plots"
    code = inspect.main(
        [str(place / "model.xml"), str(place / "set"), "--plot", str(out), "--json", str(place / "r.json")]
    )
    assert code == 0
    shown = capsys.readouterr().out
    cascade = random_cascade(9, window=(12, 12))
    assert f"{cascade.n_stages} stages, {cascade.n_trees} weak classifiers (stumps)" in shown
    assert {p.name for p in out.iterdir()} == {"features.png", "rejection.png", "depth.png"}
    table = json.loads((place / "r.json").read_text())
    counts = table["images"]
    assert counts["entered"][0] + counts["flat"] == counts["windows"]
    assert counts["entered"][1:] == counts["passed"][:-1]
    # The printed table shows the same counts.
    assert f"{counts['windows']:,} windows" in shown
    assert f"{counts['passed'][-1]:,} windows pass all stages" in shown


def test_inspect_without_images(place, capsys):
    assert inspect.main([str(place / "model.xml")]) == 0
    assert "windows" not in capsys.readouterr().out.replace("window 12x12", "")


def test_inspect_refuses_in_one_line(place, capsys):
    (place / "bad.png").write_bytes(b"no image")
    write_image(place / "small.png", np.zeros((5, 5), np.uint8))
    for arguments in (
        ["nowhere.xml"],
        [str(place / "model.xml"), str(place / "bad.png")],
        [str(place / "model.xml"), str(place / "small.png")],
    ):
        assert inspect.main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("vj-inspect: ")
        assert len(captured.err.splitlines()) == 1
    assert inspect.main([str(place / "model.xml"), str(place / "bad.png"), str(place / "set")]) == 1


def test_groups_are_suppressed_unless_neighbours_are_counted(place, capsys):
    model = str(place / "model.xml")
    images = read_labelled(place / "set")

    def found(*options):
        path = place / "r.json"
        assert evaluate.main([model, "--dataset", str(place / "set"), "--json", str(path), *options]) == 0
        return json.loads(path.read_text())["detectors"][0]["curve"]

    def wanted(**settings):
        detector = Detector(load(model), min_size=12, **settings)
        scores = np.concatenate([detector.detect(read_bgr(image.path)).scores for image in images])
        return sorted({round(float(score), 6) for score in scores}, reverse=True)

    default = found()
    assert default["score"] == wanted(min_neighbors=0, suppression=evaluate.SUPPRESSION)
    assert found("--suppression", "0.3") == default
    assert found("--min-neighbors", "1")["score"] == wanted(min_neighbors=1)
    assert found("--min-neighbors", "1", "--suppression", "0.2")["score"] == wanted(min_neighbors=1, suppression=0.2)


def test_rows_of_a_table_are_chosen_as_in_training(place, capsys):
    """TensorFlow's columns, absolute names, and rows by the value of a column; the others are ignored."""
    a, b = (str(place / "set" / name) for name in ("a.png", "b.png"))
    rows = [f"{a},150,120,cat,40,20,90,80,1", f"{a},150,120,cat,5,5,30,30,0", f"{b},100,100,dog,1,1,50,50,1"]
    text = "filename,width,height,class,xmin,ymin,xmax,ymax,clear\n" + "\n".join(rows)
    (place / "labels.csv").write_text(text + "\n")
    command = [str(place / "model.xml"), "--dataset", str(place / "labels.csv"), "--class", "cat"]
    assert evaluate.main(command) == 0
    assert "2 images, 2 objects to find, 0 ignored" in capsys.readouterr().out
    assert evaluate.main([*command, "--where", "clear=1"]) == 0
    assert "2 images, 1 object to find, 1 ignored" in capsys.readouterr().out
    config = TrainingConfig.from_mapping(
        {"positives": {"path": str(place / "labels.csv"), "classes": "cat", "where": {"clear": "1"}}, "jitter": 0}
    )
    workers = Workers(1)
    found = load_positives(config, workers)
    workers.close()
    assert found.sizes.tolist() == [[50, 60]]
