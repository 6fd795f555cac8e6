"""Pages: whole in themselves, safe whatever files are called, and with the figures of the reports."""

import base64
import hashlib
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from cascades import random_cascade
from pages import HOSTILE, HOSTILE_END, Parsed, data_of, labelled_set, rows_of
from photos import gray

from vj.boosting.progress import Progress, StageReport
from vj.cascade.calibration import ScoreCalibration
from vj.cascade.opencv_xml import load
from vj.cli import detect, evaluate, inspect, train
from vj.cli._pages import TrainingPage
from vj.datasets.formats import read_labelled
from vj.detector import Detector
from vj.evaluation.matching import FALSE, TRUE, Found, Truth, match
from vj.evaluation.tracing import trace, window_pixels
from vj.html import depth
from vj.html.charts import duration, number, percent
from vj.html.page import Page, Section, payload, text
from vj.html.training import Run, training_page
from vj.html.windows import sheet
from vj.images import write_image

TRAIN = ["--window", "12x12", "--stages", "3", "--positives-per-stage", "80", "--negatives-per-stage", "100"]
TRAIN += ["--max-weak-count", "6", "--seed", "3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Labelled images and a cascade in a folder whose path would break a careless page."""
    return labelled_set(tmp_path_factory.mktemp("html") / HOSTILE / HOSTILE_END)


@pytest.fixture(scope="module")
def evaluated(place):
    model = str(place / "model.xml")
    options = ["--dataset", str(place / "set"), "--json", str(place / "r.json"), "--html", str(place / "e.html")]
    options += ["--min-neighbors", "1"]
    assert evaluate.main([model, *options]) == 0
    return (place / "e.html").read_text()


@pytest.fixture(scope="module")
def inspected(place):
    model, images = str(place / "model.xml"), str(place / "set")
    assert inspect.main([model, images, "--json", str(place / "i.json"), "--html", str(place / "i.html")]) == 0
    return (place / "i.html").read_text()


@pytest.fixture(scope="module")
def trained(place):
    out = place / "out"
    for folder in ("faces", "photos"):
        (place / folder).mkdir()
    for k, face in enumerate(skimage.data.lfw_subset()[:100]):
        write_image(place / "faces" / f"{k}.png", np.rint(face * 255).astype(np.uint8))
    write_image(place / "photos" / "gravel.png", skimage.data.gravel()[:200, :200])
    write_image(place / "photos" / "coffee.png", np.ascontiguousarray(skimage.data.coffee()[:, :, 0]))
    where = ["--positives", str(place / "faces"), "--backgrounds", str(place / "photos"), "--output", str(out)]
    assert train.main([*where, *TRAIN, "--dataset", str(place / "set"), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def pages(evaluated, inspected, trained):
    return {"evaluation": evaluated, "inspection": inspected, "training": (trained / "report.html").read_text()}


@pytest.mark.parametrize("name", ["evaluation", "inspection", "training"])
def test_a_page_is_whole_and_loads_nothing(pages, name):
    page = Parsed(pages[name])
    for tag, attributes in page.elements:
        for key in ("src", "href", "data", "action", "poster", "srcset", "xlink:href"):
            assert attributes.get(key, "#").startswith(("#", "data:")), (tag, key)
        assert not [key for key in attributes if key.startswith("on")]
        for url in re.findall(r"url\((.*?)\)", attributes.get("style", "")):
            assert url.startswith("data:")
    for css in page.texts["style"]:
        assert "@import" not in css and "url(" not in css
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    # Every script that runs is allowed by its digest, and there is no other.
    scripts = [t for a, t in zip(page.all("script"), page.texts["script"], strict=True) if "type" not in a]
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"'sha256-(.*?)'", policy) == digests
    assert "Permission is hereby granted" in pages[name] and "uPlot 1.6.32" in pages[name]
    assert len(pages[name]) < 10e6
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)


@pytest.mark.parametrize("name", ["evaluation", "inspection", "training"])
def test_names_of_files_stay_text(pages, name):
    page = Parsed(pages[name])
    # Only what pages are made of: no element came out of a name.
    assert not [a for tag, a in page.elements if tag in ("img", "i") and ("onerror" in a or a.get("src") == "y")]
    assert "window.hit" not in "".join(
        t for a, t in zip(page.all("script"), page.texts["script"], strict=True) if "type" not in a
    )
    assert not re.search(r"<script>window\.hit", pages[name])
    for kind in ("chart", "depth", "operating", "roc"):
        data_of(pages[name], kind)


def test_text_and_data_cannot_leave_their_place():
    bad = "</script><script>alert(1)</script><!-- \u2028 ]]> & \" '"
    assert not set("<>\"'") & set(text(bad))
    inside = payload({"a": bad})
    assert inside.count("<") == 2 and json.loads(Parsed(inside).texts["script"][0]) == {"a": bad}
    with pytest.raises(ValueError, match="not JSON compliant"):
        payload(float("nan"))


def test_numbers_for_people():
    assert [percent(v) for v in (1.0, 0.9951, 0.00123, 2.3e-4, 1e-6, 0.0)] == [
        "100.00 %", "99.51 %", "0.12 %", "0.023 %", "1 in 1,000,000", "0.00 %",
    ]  # fmt: skip
    assert [number(v) for v in (0, 0.01234, 12.345, 12345.6, 1e-5)] == ["0", "0.0123", "12.3", "12,346", "1.0e-05"]
    assert [duration(v) for v in (3.21, 600, 36000)] == ["3.2 s", "10 min", "10.0 h"]


# --- the figures ------------------------------------------------------------------------------------------------------


def test_training_page_has_the_figures_of_the_reports(trained):
    page = (trained / "report.html").read_text()
    reports = [StageReport(**json.loads(line)) for line in (trained / "report.jsonl").read_text().splitlines()]
    head, *rows = rows_of(page, "Stages")
    assert len(rows) == len(reports) > 0
    together = 1.0
    for row, r in zip(rows, reports, strict=True):
        together *= r.false_alarm_rate
        cells = dict(zip(head, row, strict=True))
        assert cells["stage"] == str(r.index + 1)
        assert cells["weak classifiers"] == str(r.weak_classifiers)
        assert cells["hit rate"] == percent(r.hit_rate)
        assert cells["false alarm rate"] == percent(r.false_alarm_rate)
        assert cells["all so far"] == percent(together)
        assert cells["windows scanned"] == f"{r.windows_scanned:,}"
    hits = next(one for one in data_of(page, "chart") if one["title"] == "Hit rate")
    assert hits["series"][0]["values"] == pytest.approx([100 * r.hit_rate for r in reports], rel=1e-5)
    head, *rows = rows_of(page, "Cost per window")
    cost = sum(r.weak_classifiers * r.acceptance_ratio for r in reports)
    assert rows[-1][-1] == number(cost)
    assert 'http-equiv="refresh"' not in page
    assert "finished" in page
    for name in ("operating", "features", "samples"):
        assert f'<section id="{name}"' in page


def test_evaluation_page_has_the_figures_of_the_evaluation(place, evaluated):
    (figures,) = json.loads((place / "r.json").read_text())["detectors"]
    head, row = rows_of(evaluated, "Results")
    cells = dict(zip(head, row, strict=True))
    assert cells["average precision"] == f"{100 * figures['average_precision']:.1f}"
    assert cells["false positives in all"] == f"{figures['detections']['false']:,}"
    assert cells["ms per image"] == f"{figures['milliseconds_per_image']:.1f}"
    (curve,) = data_of(evaluated, "roc")[0]["detectors"]
    assert curve["false"][-1] <= figures["detections"]["false"]
    n = json.loads((place / "r.json").read_text())["objects"]
    assert curve["recall"][-1] == pytest.approx(100 * figures["detections"]["true"] / n, rel=1e-4)
    # As many errors as there are, the surest first.
    wrong = re.search(r"<h3>False positives</h3>(.*?)<h3>", evaluated, re.DOTALL).group(1)
    assert f"{figures['detections']['false']:,}," in wrong
    scores = [float(v.replace(",", "")) for v in re.findall(r"<b>score (.*?)</b>", wrong)]
    assert scores == sorted(scores, reverse=True) and len(scores) > 3
    missed = re.search(r"<h3>Missed objects</h3>(.*?)</section>", evaluated, re.DOTALL).group(1)
    assert f"all {n - figures['detections']['true']}," in missed


def test_inspection_page_has_the_figures_of_the_profile(place, inspected):
    figures = json.loads((place / "i.json").read_text())["images"]
    head, *rows = rows_of(inspected, "Cost per window")
    for k, row in enumerate(rows):
        cells = dict(zip(head, row, strict=True))
        assert cells["windows in"] == f"{figures['entered'][k]:,}"
        assert cells["rejected"] == f"{figures['entered'][k] - figures['passed'][k]:,}"
        assert cells["features per window"] == number(figures["features_evaluated"][k] / figures["windows"])
        assert cells["ms per image"] == f"{figures['stage_milliseconds_per_image'][k]:.2f}"


def _counted(command, place, capsys):
    """Objects found and false positives of a command line of a page, by running it."""
    words = shlex.split(command)
    assert words[0] == "vj-detect" and words[-1] == "IMAGES"
    labelled = read_labelled(place / "set")
    capsys.readouterr()
    assert detect.main([*words[1:-1], *(str(one.path) for one in labelled)]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    true = false = 0
    for one, found in zip(labelled, shown, strict=True):
        rows = found["detections"]
        boxes = np.array([row["box"] for row in rows], dtype=np.float64).reshape(-1, 4)
        outcome = match(Found(boxes, [row["score"] for row in rows]), Truth(one.boxes, one.ignored)).outcome
        true, false = true + int((outcome == TRUE).sum()), false + int((outcome == FALSE).sum())
    return true, false


def _command(data, curve, k):
    threshold = curve["threshold"][k]
    return (
        curve["command"][0]
        + (f" {data['options'][curve['kind'][k]]} {threshold}" if threshold else "")
        + curve["command"][1]
    )


def test_the_command_line_gives_exactly_the_figures_shown(place, evaluated, capsys):
    (data,) = data_of(evaluated, "operating")
    checked = 0
    for search in data["searches"]:
        for curve in search["curves"][:3]:
            n = len(curve["true"])
            for k in {0, n // 2, n - 2, n - 1} & set(range(n)):
                counts = _counted(_command(data, curve, k), place, capsys)
                assert counts == (curve["true"][k], curve["false"][k])
                checked += 1
    assert checked > 12
    rules = ["OpenCV's grouping"] * 3 + ["suppression 0.3"]
    assert [search["label"] for search in data["searches"]] == [
        f"{factor}, {rule}" for factor, rule in zip((1.1, 1.2, 1.4, 1.1), rules, strict=True)
    ]


@pytest.mark.parametrize("score", ["nan", "inf", "high"])
def test_a_score_that_is_no_number_is_refused(place, capsys, score):
    with pytest.raises(SystemExit) as ended:
        detect.main(["--min-score", score, str(place / "set")])
    assert ended.value.code == 2
    assert f"expected a number, got {score!r}" in capsys.readouterr().err


def test_with_a_calibration_the_threshold_is_a_probability_where_that_is_exact(tmp_path, capsys):
    # Flat at both ends, so that many scores share a probability.
    place = labelled_set(tmp_path / "c", ScoreCalibration([1.0, 3.0], [0.2, 0.9], 50, "test"))
    model = str(place / "model.xml")
    options = ["--min-neighbors", "1", "--html", str(place / "e.html")]
    assert evaluate.main([model, "--dataset", str(place / "set"), *options]) == 0
    (data,) = data_of((place / "e.html").read_text(), "operating")
    curve = data["searches"][0]["curves"][0]
    kinds = set(curve["kind"])
    assert {"score", "probability", ""} == kinds
    for kind in kinds:
        k = curve["kind"].index(kind)
        assert _counted(_command(data, curve, k), place, capsys) == (curve["true"][k], curve["false"][k])


def test_a_detector_that_is_no_cascade_has_curves_and_errors(place, capsys):
    model = str(place / "model.xml")
    out = place / "regions.html"
    assert evaluate.main([f"{model}+{model}", "--dataset", str(place / "set"), "--html", str(out)]) == 0
    page = out.read_text()
    assert data_of(page, "roc") and '<section id="errors"' in page
    assert not data_of(page, "operating") and not data_of(page, "depth")


# --- depth maps -------------------------------------------------------------------------------------------------------


def _numbers(words, dtype):
    return np.frombuffer(base64.b64decode(words), dtype=dtype)


def _replay(cascade, window):
    """Stage and sum of the last weak classifier, from the data of a page alone."""
    values, left = _numbers(window["values"], "<f4"), np.unpackbits(_numbers(window["left"], "u1"), bitorder="little")
    assert len(values) == window["n"]
    at = tree = stage = 0
    total = 0.0
    while at < window["n"]:
        if tree == cascade["stage_starts"][stage + 1]:
            stage, total = stage + 1, 0.0
        root = node = cascade["tree_starts"][tree]
        while True:
            if cascade["kind"] == "haar":
                assert bool(left[at]) == (values[at] < np.float32(cascade["thresholds"][node])) or abs(
                    values[at] - cascade["thresholds"][node]
                ) < 1e-5 * abs(values[at])
            child = cascade["children"][node][0 if left[at] else 1]
            at += 1
            if child <= 0:
                break
            node = root + child
        total += cascade["leaves"][root + tree - child]
        tree += 1
    return stage, total


@pytest.mark.parametrize(
    "cascade", [random_cascade(9, window=(12, 12)), random_cascade(4, kind="lbp", nodes=(1, 2))], ids=["haar", "lbp"]
)
def test_the_ways_embedded_lead_where_the_scan_says(cascade):
    image = gray("astronaut", (120, 90))
    detector = Detector(cascade)
    maps = list(detector.windows(image))
    section = depth.depth_section(detector, [depth.Shown(Path("a.png"), image)])
    (data,) = data_of(section.body, "depth")
    (shown,) = data["images"]
    assert shown["grid"][0] * shown["grid"][1] <= depth.CELLS * 1.1
    deepest = max(int(one.depth.max()) for one in maps)
    assert max(one["depth"] for one in shown["windows"]) == deepest
    for window in shown["windows"]:
        if window["depth"] >= 0:
            stage, total = _replay(data["cascade"], window)
            assert stage == min(window["depth"], cascade.n_stages - 1)
            assert total - data["cascade"]["limits"][stage] == pytest.approx(window["margin"], abs=1e-3)
    for band in shown["bands"]:
        assert len(band["cells"]) == shown["grid"][0] * shown["grid"][1]
        assert len(_numbers(band["map"]["depths"], "u1")) == band["map"]["size"][0] * band["map"]["size"][1]
    # The map of all sizes has the deepest.
    assert _numbers(shown["bands"][0]["map"]["depths"], "u1").max() == deepest + 1


def test_cells_grow_until_the_windows_fit(monkeypatch):
    monkeypatch.setattr(depth, "NODES", 300)
    image = gray("astronaut", (120, 90))
    detector = Detector(random_cascade(9, window=(12, 12)))
    (data,) = data_of(depth.depth_section(detector, [depth.Shown(Path("a"), image)] * 9).body, "depth")
    assert len(data["images"]) == depth.IMAGES
    shown = data["images"][0]
    assert shown["grid"][0] * shown["grid"][1] < depth.CELLS / 2
    assert sum(one["n"] for one in shown["windows"]) <= 300 or shown["grid"][0] * shown["grid"][1] <= 30


def test_images_smaller_than_the_window_have_no_map():
    detector = Detector(random_cascade(9, window=(12, 12)))
    section = depth.depth_section(detector, [depth.Shown(Path("a"), np.zeros((5, 5), np.uint8))])
    assert "No image is as large" in section.body and not section.scripts


def test_a_sheet_shows_each_window_once():
    windows = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    shown = sheet(windows, "windows")
    import cv2

    strip = base64.b64decode(re.search(r"base64,(.*?)\)", shown).group(1))
    image = cv2.imdecode(np.frombuffer(strip, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(image, np.concatenate(list(windows), axis=1))
    assert shown.count("<i ") == 3
    assert sheet(windows[:0], "windows") == "<p>None.</p>"


# --- a run ------------------------------------------------------------------------------------------------------------


def test_the_page_of_a_run_refreshes_itself_until_the_end(tmp_path):
    run = Run("out", [], None, np.zeros((3, 12, 12), np.uint8), np.zeros((0, 12, 12), np.uint8), stages=5)
    running = training_page(run, status="stage 1: mining", running=True).render()
    assert re.search(r'<meta http-equiv="refresh" content="\d+">', running)
    assert "stage 1: mining" in running and "0 of at most 5" in running
    assert 'http-equiv="refresh"' not in training_page(run, status="finished").render()


def _run_with_page(place, out, monkeypatch, hook):
    """Train with a look at the page at every step."""
    heard = TrainingPage.heard

    def watched(self, tell):
        step = heard(self, tell)

        def both(done):
            step(done)
            hook(done)

        return both

    monkeypatch.setattr(TrainingPage, "heard", watched)
    where = ["--positives", str(place / "faces"), "--backgrounds", str(place / "photos"), "--output", str(out)]
    return train.main([*where, *TRAIN, "--quiet"])


def test_the_page_is_there_while_training(place, trained, tmp_path, monkeypatch):
    seen = []

    def look(done: Progress):
        if (tmp_path / "out/report.html").exists():
            seen.append((tmp_path / "out/report.html").read_text())

    assert _run_with_page(place, tmp_path / "out", monkeypatch, look) == 0
    assert seen and all('http-equiv="refresh"' in page for page in seen)
    assert 'http-equiv="refresh"' not in (tmp_path / "out/report.html").read_text()
    # The page changes nothing.
    assert (tmp_path / "out/cascade.xml").read_bytes() == (trained / "cascade.xml").read_bytes()


def test_an_interrupted_run_leaves_a_page_that_says_so(place, trained, tmp_path, monkeypatch):
    def stop(done: Progress):
        if done.stage == 1:
            raise KeyboardInterrupt

    assert _run_with_page(place, tmp_path / "out", monkeypatch, stop) == 0
    page = (tmp_path / "out/report.html").read_text()
    assert "stopped; the same command resumes" in page and 'http-equiv="refresh"' not in page


def test_a_page_that_cannot_be_written_is_one_warning(place, trained, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "report.html").mkdir(parents=True)
    where = ["--positives", str(place / "faces"), "--backgrounds", str(place / "photos"), "--output", str(out)]
    assert train.main([*where, *TRAIN, "--quiet"]) == 0
    shown = capsys.readouterr().err
    (line,) = shown.splitlines()
    assert line.startswith("vj-train: ") and "report.html: could not be written" in line
    assert (out / "cascade.xml").read_bytes() == (trained / "cascade.xml").read_bytes()
    assert sorted(p.name for p in (out / "report.html").iterdir()) == []


def test_labels_that_cannot_be_read_end_the_run_before_it_starts(place, trained, tmp_path, capsys):
    out = tmp_path / "out"
    where = ["--positives", str(place / "faces"), "--backgrounds", str(place / "photos"), "--output", str(out)]
    assert train.main([*where, *TRAIN, "--dataset", str(tmp_path / "none"), "--quiet"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not out.exists()


def test_sections_are_in_order_and_linked():
    page = Parsed(Page("t", [Section("a", "A", "x"), Section("b", "B", "y")], facts=[("n", "1")]).render())
    assert [a["href"] for a in page.all("a")] == ["#a", "#b"]
    assert page.texts["h1"] == ["t"]


def test_traces_of_the_packaged_cascade_agree_with_its_scan():
    detector = Detector(load("frontalface"), min_size=60)
    image = gray("astronaut", (256, 256))
    for one in list(detector.windows(image))[::3]:
        places = [
            tuple(int(v) for v in np.unravel_index(k, one.depth.shape)) for k in np.argsort(one.depth, axis=None)[-3:]
        ]
        for where, pixels in zip(places, window_pixels(image, one, places), strict=True):
            found = trace(detector.cascade, pixels)
            assert (found.depth, found.margin) == (one.depth[where], one.margin[where])
