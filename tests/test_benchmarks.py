"""The benchmarks run on small input, their files say where they come from, and README shows what the files hold."""

import re
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from cascades import random_cascade
from pages import two_images
from photos import gray, photo
from skimage import data

from benchmarks import __main__ as everything
from benchmarks import _cluster_model as model
from benchmarks import _runner, accuracy, cluster, groups, packages, parity, readme, rejection, speed, training, wakeup
from vj.boosting.workers import Workers
from vj.cascade.opencv_xml import load, save
from vj.images import write_image
from vj.scanning.pyramid import levels


@pytest.fixture
def place(tmp_path):
    return two_images(tmp_path)


def test_a_result_says_where_it_comes_from(tmp_path):
    path = _runner.write_result("some", {"value": 3}, data={"name": "none"}, folder=tmp_path / "new")
    assert sorted(p.name for p in path.parent.iterdir()) == ["some.json"]
    result = _runner.read_result("some", path.parent)
    assert result["figures"] == {"value": 3}
    where = result["environment"]
    assert {"date", "processor", "cores", "system", "versions", "commit"} <= set(where)
    assert where["processor"]
    assert where["versions"]["numpy"] == np.__version__
    line = readme.origin(result)
    assert where["date"] in line
    assert where["processor"] in line


def test_hashes_tell_data_apart_and_not_where_it_lies(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    for folder in (first, second):
        folder.mkdir()
        (folder / "a").write_bytes(b"1")
        (folder / "b").write_bytes(b"2")
    same = _runner.data_hash([first / "a", first / "b"])
    assert same == _runner.data_hash([second / "b", second / "a"])
    (second / "b").write_bytes(b"3")
    assert same != _runner.data_hash(second.iterdir())
    flat = np.arange(6, dtype=np.uint8)
    assert _runner.array_hash([flat.reshape(2, 3)]) != _runner.array_hash([flat.reshape(3, 2)])


def test_table_is_markdown():
    assert _runner.table(["a", "b"], [["x", 1], ["long", 22]]).splitlines() == [
        "| a    |   b |",
        "| ---- | --: |",
        "| x    |   1 |",
        "| long |  22 |",
    ]


def test_median_leaves_the_first_run_out():
    calls = []
    assert _runner.median_seconds(lambda: calls.append(1), repeats=3) >= 0
    assert len(calls) == 4


@pytest.mark.opencv4
def test_rejection_is_verified_against_opencv(place, capsys):
    output = place / "out"
    images = place / "photos"
    images.mkdir()
    write_image(images / "a.png", gray("astronaut", (150, 150)))
    arguments = ["--cascade", "frontalface_alt2", "--images", str(images), "--output", str(output), "--stages"]
    assert rejection.main(arguments) == 0
    figures = _runner.read_result("rejection", output)["figures"]["cascades"]["frontalface_alt2"]
    assert figures["opencv"]["equal_to_opencv"] is True
    assert len(figures["opencv"]["passed_in_opencv"]) == 20
    assert figures["grid"]["windows"] > figures["opencv"]["windows"]
    assert (output / "rejection.png").stat().st_size > 10_000
    shown = capsys.readouterr().out
    assert "| stage |" in shown
    assert "equal" in rejection.table({"cascades": {"x": figures}})


def test_rejection_says_so_if_opencv_differs():
    """A count that is off by one must be noticed: the table and the exit code depend on this mark."""
    profile = rejection.rejection_profile(random_cascade(9, window=(12, 12)), [gray("astronaut", (40, 40))])
    right = rejection._figures(profile, profile.passed.tolist())
    wrong = rejection._figures(profile, [int(profile.passed[0]) + 1, *profile.passed[1:].tolist()])
    assert (right["equal_to_opencv"], wrong["equal_to_opencv"]) == (True, False)
    assert "DIFFERENT" in rejection.table({"cascades": {"x": {"opencv": wrong, "grid": wrong}}})


@pytest.mark.opencv4
def test_packages_that_give_something_else_are_told(place, capsys, monkeypatch):
    """A package of our own in place of one from the index: equal, different, failing and finding nothing."""
    (place / "own-1").mkdir()
    (place / "own-1/own.py").write_text("import cv2\nkind = cv2.CascadeClassifier.__module__\n")
    monkeypatch.setattr(packages, "RUNS", {"OpenCV 4": ("", False), "OpenCV 4, drop-in": ("force", False)})
    expected = {"[1]": "equal", "kind": "DIFFERS", "1 // (kind == 'cv2')": "FAILS (ZeroDivisionError", "[]": "DIFFERS"}
    for line, word in expected.items():
        monkeypatch.setattr(packages, "PROBES", {"own==1": ((), f"from own import kind\nout = {line}")})
        assert packages.main(["--folder", str(place)]) == (word != "equal")
        assert f"OpenCV 4, drop-in: {word}" in capsys.readouterr().out


@pytest.mark.opencv4
def test_parity_of_a_cascade_and_what_it_says_of_another(place, capsys, monkeypatch):
    """The file written and the file read differ in one threshold: that must show in the table and the exit code."""
    monkeypatch.setattr(parity, "photos", lambda: {"photo": photo("astronaut")[:120, 150:300].copy()})
    arguments = ["--cascade", str(place / "model.xml"), "--output", str(place / "out")]
    assert parity.main(arguments) == 0
    (row,) = _runner.read_result("parity", place / "out")["figures"]["cascades"]
    assert row["runs"] == len(parity.SETTINGS) + 2 + 1 + 2
    assert row["boxes"] > 100

    def save_another(cascade, path):
        save(replace(cascade, stage_thresholds=cascade.stage_thresholds - 1), path)

    monkeypatch.setattr(parity, "save", save_another)
    assert parity.main(arguments) == 1
    (row,) = _runner.read_result("parity", place / "out")["figures"]["cascades"]
    assert row["written"] == 2 and not row["reads back"]
    assert parity.main(["--cascade", "no_such_cascade"]) == 2
    assert "| model " in capsys.readouterr().out


@pytest.mark.opencv4
def test_speed_is_measured_of_equal_results_only(monkeypatch):
    monkeypatch.setattr(speed, "SIZES", {"160x120": (160, 120)})
    monkeypatch.setattr(speed, "CASCADES", {"frontalface_alt2": (1, 2)})
    monkeypatch.setattr(speed, "REPEATS", 2)
    rows = speed.detection()
    assert [(row["min_size"], row["threads"]) for row in rows] == [(24, 1), (24, 2), (30, 1), (30, 2)]
    assert all(row["ratio"] == row["cv2_ms"] / row["vj_ms"] for row in rows)
    figures = {
        "detection": rows,
        "packaged": [rows[0] | {"coarse": 0}, rows[0] | {"coarse": speed.COARSE}],
        "near": speed.near(),
        "pyramid": speed.pyramid(),
        "process": {"second_seconds": 1.0, "first_seconds": 9.0},
        "memory": {"peak_gb": {"detector": 1.0, "cv2": 2.0}},
    }
    assert figures["pyramid"][0]["levels"] > 10
    shown = speed.table(figures)
    assert "| frontalface_alt2 | 160x120 |" in shown
    assert "two faces near, min. size 24, 2 threads: frontalface_alt2 against frontalface_alt2 in cv2" in shown
    assert f"640x480, one thread: frontalface, coarse {speed.COARSE}, against frontalface_alt2 in cv2" in shown
    assert all(row["ratio"] == row["peer_ms"] / row["vj_ms"] for row in figures["near"])
    cascade = random_cascade(9, window=(12, 12))
    images = [gray("astronaut", (160, 120))]
    with pytest.raises(speed.DifferenceError, match="random 9: expected the boxes of cv2"):
        speed.compare(cascade, speed.opencv_classifier("frontalface_alt2"), images, (12, 12), 1)


@pytest.mark.opencv4
def test_speed_refuses_planes_that_are_not_cv2s(monkeypatch):
    (level,) = levels((90, 70), (24, 24), 3.0, max_size=(24, 24))
    image = gray("camera", (90, 70))
    speed.check_planes(level, image)
    monkeypatch.setattr(speed.cv2, "integral2", lambda *_, **__: (np.zeros((71, 91), np.int32),) * 2)
    with pytest.raises(speed.DifferenceError, match="integral images"):
        speed.check_planes(level, image)


def test_accuracy_of_a_small_set(place, capsys):
    output = place / "out"
    model = str(place / "model.xml")
    arguments = [str(place / "set"), model, f"suppressed:{model}", f"proposals:{model}"]
    arguments += ["--output", str(output), "--name", "small"]
    assert accuracy.main(arguments) == 0
    result = _runner.read_result("accuracy-small", output)
    assert result["data"]["faces"] == 1
    assert len(result["data"]["sha256"]) == 64
    row, suppressed = result["figures"]["detectors"]
    assert suppressed["name"] == f"{row['name']}, suppressed"
    low, high = row["interval"]["average_precision"]
    assert 0 <= low <= high <= 1
    assert "| model" in accuracy.table(result["figures"])
    (proposed,) = result["figures"]["proposals"]
    assert proposed["touched"] in (0, 1) and proposed["proposals_per_image"] >= proposed["touched"] / 2
    assert f"{proposed['proposals_per_image']:.1f}" in accuracy.proposals_table(result["figures"])
    assert (output / "accuracy-small.png").stat().st_size > 10_000
    assert accuracy.main([str(place / "nowhere"), "--output", str(output)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_variants_of_a_cascade_are_named_and_set():
    assert accuracy.variant("frontalface") == ([], {}, "frontalface")
    words, settings, rest = accuracy.variant("coarse3:exact:suppressed:models/a.xml")
    assert (words, rest) == (["coarse 3", "exact", "suppressed"], "models/a.xml")
    assert settings == {"coarse": 3, "exact": True, "min_neighbors": 0, "suppression": 0.3}


@pytest.mark.opencv4
def test_accuracy_of_opencv_itself_is_that_of_the_same_cascade(place):
    """Boxes are equal, so with the same order of scores the figures are too; ours breaks ties of equal counts."""
    output = place / "out"
    arguments = [str(place / "set"), "frontalface_default", "cv2:frontalface_default", "--output", str(output)]
    assert accuracy.main(arguments) == 0
    ours, theirs = _runner.read_result("accuracy-set", output)["figures"]["detectors"]
    assert theirs["name"] == "frontalface_default in cv2"
    assert ours["detections"] == theirs["detections"]


def test_rounds_and_mining_of_the_training_benchmark(tmp_path, monkeypatch):
    """A workload of its own: what is counted must be what there is, whatever the time it takes."""
    faces = np.rint(255 * data.lfw_subset()[:100, :24, :24]).astype("<i2").reshape(100, -1)
    samples = b"".join(b"\0" + face.tobytes() for face in faces)
    (tmp_path / "pos24.vec").write_bytes(np.array([100, 576, 0], "<i4").tobytes() + samples)
    write_image(tmp_path / "a.png", gray("coffee", (120, 90)))
    (tmp_path / "bg.txt").write_text("a.png\n")
    monkeypatch.setattr(training, "ROUND_SAMPLES", 200)
    monkeypatch.setattr(training, "bandwidth", lambda threads: 1e10)
    workers = Workers(2)
    try:
        mined = training.mining(tmp_path, workers)
        found = training.rounds(tmp_path, workers)
    finally:
        workers.close()
    assert mined["mwindows_per_second"] == pytest.approx(mined["windows"] / mined["seconds"] / 1e6)
    whole = sum(one.rows * one.columns for one in levels((120, 90), load("frontalface").window, 1.1, stride=1))
    # Seven of the eight passes are shrunk by a part of a scale.
    assert 0.8 * 8 * whole < mined["windows"] <= 8 * whole
    assert (found["features"], found["samples"]) == (162_336, 400)
    assert found["floor"]["histogram_updates"] == 162_336 * 400
    # The sample is 5 % of the pool less what was drawn twice; climbing adds to it.
    assert 0.047 < found["fast_features"] / found["features"] < 0.08


def test_plan_leaves_out_what_has_no_data(capsys):
    assert everything.main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert "accuracy : left out, needs labelled images" in shown
    assert everything.main(["--list", "--accuracy", "faces:frontal", "--yunet", "y.onnx"]) == 0
    assert "accuracy faces --output" in capsys.readouterr().out


def test_blocks_of_a_readme_are_made_from_result_files(place):
    images = place / "out"
    profile = rejection.rejection_profile(random_cascade(9, window=(12, 12)), [gray("astronaut", (40, 40))])
    one = rejection._figures(profile, None)
    figures = {"cascades": {"mine": {"opencv": one, "grid": one}}}
    _runner.write_result("rejection", figures, data={"name": "a photo", "pictures": 1}, folder=images)
    text = "before\n<!-- benchmark: rejection -->\nold\n<!-- end -->\nafter\n"
    new = readme.rendered(text, images)
    assert new.startswith("before\n<!-- benchmark: rejection -->\n| cascade ")
    assert new.endswith("</sub>\n<!-- end -->\nafter\n")
    assert "old" not in new
    assert readme.rendered(new, images) == new


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_pages_show_what_the_result_files_hold(page):
    text = page.read_text(encoding="utf-8")
    assert re.search("<!-- (benchmark|summary): ", text)
    assert readme.rendered(text) == text, "run: python -m benchmarks.readme"


def test_groups_come_from_the_names_of_utkface():
    assert groups.groups_of("34_1_2_20170112213001988.jpg") == ["age 20-39", "Asian", "female"]
    assert groups.groups_of("100_0_4_2017.jpg") == ["age 80-120", "other", "male"]
    assert groups.groups_of("face_1_2_3.jpg") == []
    names = ["34_1_2_a.jpg", "1_1_2_b.jpg", "35_0_0_c.jpg"]
    found = groups.by_group(names, [True, False, True])
    assert list(found) == ["all", "age 0-3", "age 20-39", "White", "Asian", "male", "female"]
    assert (found["Asian"]["faces"], found["Asian"]["found"]) == (2, 1)
    assert (found["age 20-39"]["faces"], found["age 20-39"]["found"]) == (2, 2)


@pytest.mark.parametrize(("found", "n"), [(0, 10), (10, 10), (5, 10), (470, 500)])
def test_interval_of_a_share_solves_its_equation(found, n):
    """The ends are the shares p from which the observed one is 1.96 standard errors away."""
    errors = NormalDist().inv_cdf(0.975)
    for end in groups.wilson(found, n):
        if 0 < end < 1:
            assert abs(found / n - end) == pytest.approx(errors * np.sqrt(end * (1 - end) / n), rel=1e-9)
    low, high = groups.wilson(found, n)
    assert low <= found / n <= high


def test_groups_of_a_folder(place, capsys):
    rows = ["file,x,y,w,h"]
    for k, name in enumerate(("20_0_0_a.png", "21_1_3_b.png", "70_1_1_c.png")):
        write_image(place / name, photo("astronaut")[20 * k : 72 + 20 * k, 180:252])
        rows.append(f"{name},5,5,60,60")
    (place / "boxes.csv").write_text("\n".join(rows))
    (place / "list.txt").write_text("20_0_0_a.png\n70_1_1_c.png\n")
    arguments = [str(place), str(place / "model.xml"), "--output", str(place / "out"), "--min-neighbors", "1"]
    assert groups.main(arguments) == 0
    figures = _runner.read_result("groups", place / "out")["figures"]
    assert figures["detectors"]["model"]["groups"]["all"]["faces"] == 3
    assert groups.main([*arguments, "--files", str(place / "list.txt")]) == 0
    result = _runner.read_result("groups", place / "out")
    assert result["data"]["pictures"] == 2
    assert "| age 60-79" in groups.table(result["figures"])
    assert "Indian" not in groups.table(result["figures"])
    (place / "empty").mkdir()
    assert groups.main([str(place / "empty")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_face_in_a_shot_is_noticed(monkeypatch):
    monkeypatch.setattr(wakeup, "PARTS", (4, 6, 4))
    background = wakeup.stretched(photo("coffee"))
    faces = [wakeup.in_front(photo("astronaut"), background), background]
    found = wakeup.measure(faces, [background, background], None)
    assert (found["woken"], found["last_tier_alone"], found["false_wakes"], found["frames"]) == (0.5, 0.5, 0, 28)
    assert (
        0
        < found["asked"]["frontalface"]
        <= found["asked"]["frontalface, 12 stages"]
        < found["asked"]["difference"]
        == 1
    )
    assert "50 % (50 %)" in wakeup.table({"frontalface": found})


def test_the_model_of_a_cluster_keeps_to_its_bounds():
    """As many images a second as the workers can, until what hands out chunks is full."""
    parts = model.Parts(0.001, 0.019, 0.0, 0.0, 0.004, 0.001, 50_000, 200)
    for workers in (1, 2, 10):
        found = model.rate(parts, workers, 64)
        assert 0.97 * workers / 0.02 < found <= workers / 0.02
    # 64 images of 20 ms keep a worker for 1.28 s; a chunk takes 5 ms of the scheduler, so 256 workers fill it.
    assert model.rate(parts, 1000, 64) == pytest.approx(64 / 0.005, rel=0.02)
    assert model.rate(parts, 200, 64) > 0.9 * 200 / 0.02
    said = model.projection(parts, {"vj": 0.019, "YuNet": 0.05})
    assert said["workers_at_which_the_scheduler_is_full"]["64"] == pytest.approx(256)
    assert said["core_hours_of_a_billion"] == pytest.approx({"vj": 1e9 * 0.02 / 3600, "YuNet": 1e9 * 0.051 / 3600})
    (largest,) = [row for row in said["rows"] if row["workers"] == 1000]
    assert largest["chunk"] >= 256 and largest["images_a_second"] > 45_000
    # The last chunks of a run are not shared out: 10 chunks on 4 workers take as long as 12.
    assert model.simulate(parts, 4, 50, 500) == pytest.approx(3 * 50 * 0.02, rel=0.05)


def test_the_benchmark_of_the_cluster(tmp_path, capsys):
    for k in range(6):
        (tmp_path / "images").mkdir(exist_ok=True)
        write_image(tmp_path / "images" / f"{k}.png", photo("coffee")[10 * k : 120 + 10 * k, :160])
    folder = str(tmp_path / "images")
    small = ["--images", "6", "--few", "3", "--wanted", "4", "--jobs", "300", "--samples", "12", "--rounds", "2"]
    assert cluster.main([folder, "--backgrounds", folder, *small, "--output", str(tmp_path)]) == 0
    found = _runner.read_result("cluster", tmp_path)["figures"]
    assert found["detection"]["local_2"]["same_rows"] and found["detection"]["killed"]["same_rows"]
    assert all(one["same_windows"] for one in found["mining"]) and found["exact_search"]["same_splits"]
    assert [one["rows"] for one in found["rehearsals"]] == [300, 16]
    assert found["rehearsals"][0]["messages"]["to_workers"] > 0 < found["rehearsals"][0]["scheduler_bytes"]
    assert [row["workers"] for row in found["model"]["checked"]] == [1, 2]
    assert cluster.table(found) in capsys.readouterr().out
