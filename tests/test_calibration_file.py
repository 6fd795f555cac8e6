"""Calibrated probabilities: stored with a cascade, read back, used by the detector and made by the command."""

import json
import shutil

import cv2
import numpy as np
import pytest
from cascades import LBP_FILE, random_cascade, stock
from photos import gray, photo

import vj
from vj.cascade.calibration import MAX_KNOTS, ScoreCalibration, put_into
from vj.cascade.new_xml import to_xml
from vj.cascade.opencv_xml import parse
from vj.cascade.stock import find
from vj.cli import calibrate, detect
from vj.errors import InputError
from vj.evaluation.matching import Found, Truth, match
from vj.evaluation.measure import Evaluation
from vj.images import read_bgr, write_image
from vj.tiers.score_calibration import fit_scores, held_out

SCORES = np.array([-1e300, -0.1, 1 / 3, 7.0, 1e17])
PROBABILITIES = np.array([0.0, 0.1, 0.1, 2 / 3, 1.0])


def _calibrated(cascade, source='a <set> & "more"; it\'s'):
    from dataclasses import replace

    return replace(cascade, calibration=ScoreCalibration(SCORES, PROBABILITIES, 345, source))


@pytest.mark.parametrize("kind", ["basic", "lbp"])
def test_a_file_gives_back_the_calibration_to_the_bit(tmp_path, kind):
    cascade = _calibrated(random_cascade(1, kind=kind))
    vj.save(cascade, tmp_path / "a.xml")
    again = vj.load(tmp_path / "a.xml")
    assert again == cascade
    assert again.calibration == cascade.calibration
    assert again.calibration.source == cascade.calibration.source
    assert again.calibration.scores.tobytes() == SCORES.tobytes()


@pytest.mark.opencv4
@pytest.mark.parametrize("name", ["frontalface", "frontalface_alt2", "eye"])
def test_opencv_loads_a_calibrated_file_and_finds_the_same_boxes(tmp_path, name):
    """Both ways of writing it: the whole file by us, and into the text of a file of others."""
    path = find(name)
    cascade = vj.load(path)
    vj.save(_calibrated(cascade), tmp_path / "ours.xml")
    text = put_into(path.read_text(), _calibrated(cascade).calibration)
    (tmp_path / "theirs.xml").write_text(text)
    image = gray("astronaut")
    expected = cv2.CascadeClassifier(str(path)).detectMultiScale3(image, 1.1, 1, outputRejectLevels=True)
    assert len(expected[0]) > 0
    for file in ("ours.xml", "theirs.xml"):
        peer = cv2.CascadeClassifier(str(tmp_path / file))
        assert not peer.empty()
        found = peer.detectMultiScale3(image, 1.1, 1, outputRejectLevels=True)
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a, b)
        assert vj.load(tmp_path / file).calibration == _calibrated(cascade).calibration


def test_putting_it_into_a_file_keeps_all_else():
    text = to_xml(random_cascade(2)).replace(
        "<opencv_storage>", "<opencv_storage>\n<!-- a licence, with </cascade> -->"
    )
    first, second = (ScoreCalibration([0.0], [p], 1) for p in (0.25, 0.75))
    once = put_into(text, first)
    assert "a licence" in once and once.replace("\n".join(_block(once)) + "\n", "") == text
    twice = put_into(once, second)
    assert parse(twice.encode()).calibration == second
    assert put_into(twice, first) == once
    with pytest.raises(InputError, match="ends with its cascade"):
        put_into("<opencv_storage>", first)


def _block(text):
    lines = text.split("\n")
    return lines[lines.index("  <calibration>") : lines.index("  </calibration>") + 1]


@pytest.mark.parametrize(
    ("scores", "probabilities", "detections", "message"),
    [
        ([], [], 1, "1 to"),
        ([1.0, 2.0], [0.5], 1, "as many"),
        ([[1.0]], [[0.5]], 1, "as many"),
        (np.arange(MAX_KNOTS + 1.0), np.zeros(MAX_KNOTS + 1), 1, "1 to"),
        ([1.0, 1.0], [0.1, 0.2], 1, "rise"),
        ([0.0, np.nan], [0.1, 0.2], 1, "finite"),
        ([0.0, np.inf], [0.1, 0.2], 1, "finite"),
        ([0.0, 1.0], [0.2, 0.1], 1, "never fall"),
        ([0.0, 1.0], [0.2, np.nan], 1, "never fall"),
        ([0.0, 1.0], [-0.1, 0.1], 1, "0 to 1"),
        ([0.0, 1.0], [0.1, 1.1], 1, "0 to 1"),
        ([0.0], [0.1], 0, "at least one"),
    ],
)
def test_what_is_no_calibration_is_refused(scores, probabilities, detections, message):
    with pytest.raises(InputError, match=message):
        ScoreCalibration(scores, probabilities, detections)


@pytest.mark.parametrize(
    "element",
    [
        "<calibration/>",
        "<calibration><scores>1</scores><probabilities>x</probabilities><detections>1</detections></calibration>",
        "<calibration><scores>1 0</scores><probabilities>0 1</probabilities><detections>2</detections></calibration>",
        "<calibration><scores>0 1</scores><probabilities>1 0</probabilities><detections>2</detections></calibration>",
        "<calibration><scores>nan</scores><probabilities>1</probabilities><detections>2</detections></calibration>",
        "<calibration><scores>0</scores><probabilities>2</probabilities><detections>2</detections></calibration>",
        "<calibration><scores>0</scores><probabilities>1</probabilities><detections>-2</detections></calibration>",
    ],
)
def test_a_bad_calibration_in_a_file_names_the_file(element):
    text = to_xml(random_cascade(0)).replace("</cascade>", f"{element}</cascade>")
    with pytest.raises(InputError, match=r"^mine\.xml: expected .*calibration"):
        parse(text.encode(), place="mine.xml")


def test_detections_carry_probabilities_that_follow_the_scores():
    cascade = stock("frontalface")
    assert cascade.calibration is not None
    found = vj.Detector(cascade, min_neighbors=0, threads=1).detect(photo("astronaut"))
    assert len(found) > 1
    np.testing.assert_array_equal(found.probabilities, cascade.calibration(found.scores))
    assert found.probabilities.max() > 0.9 > 0.5 > found.probabilities.min()
    kept = found.at_least(0.5)
    assert 0 < len(kept) < len(found) and kept.probabilities.min() >= 0.5
    # Scores are sums of the last stage: a shorter cascade has others.
    assert cascade.truncated(cascade.n_stages).calibration is cascade.calibration
    assert cascade.truncated(3).calibration is None
    plain = vj.Detector(random_cascade(0), threads=1).detect(photo("coins"))
    assert plain.probabilities is None
    with pytest.raises(InputError, match="without calibration"):
        plain.at_least(0.5)
    for bad in ([0.5, 0.5], [1.5], [np.nan]):
        with pytest.raises(InputError, match="expected probabilities"):
            vj.Detections([[0, 0, 5, 5]], [1.0], [1], bad)


def test_detect_keeps_what_is_likely_enough(tmp_path, capsys):
    write_image(tmp_path / "a.png", photo("astronaut"))
    arguments = [str(tmp_path / "a.png"), "--min-neighbors", "0", "--threads", "1"]

    def run(*more):
        code = detect.main([*arguments, *more])
        return code, capsys.readouterr()

    code, out = run()
    everything = json.loads(out.out)["detections"]
    code, out = run("--threshold", "0.5")
    assert code == 0
    kept = json.loads(out.out)["detections"]
    assert kept == [d for d in everything if d["probability"] >= 0.5] and 0 < len(kept) < len(everything)
    code, out = run("--threshold", "0.5", "--cascade", str(LBP_FILE))
    assert code == 2 and len(out.err.splitlines()) == 1 and "vj-calibrate" in out.err
    for bad in ("1.5", "nan", "x"):
        with pytest.raises(SystemExit):
            detect.main([*arguments, "--threshold", bad])
        assert "a probability from 0 to 1" in capsys.readouterr().err


def _evaluation(n, rng, slope=1.0):
    """Images with three detections each, true with the probability that a sigmoid of the score gives."""
    found, truth, matches = [], [], []
    for _ in range(n):
        scores = rng.normal(0, 2, 3)
        true = rng.random(3) < 1 / (1 + np.exp(-slope * scores))
        boxes = np.array([[100.0 * k, 0, 50, 50] for k in range(3)])
        found.append(Found(boxes, scores))
        truth.append(Truth(boxes[true], np.zeros(int(true.sum()), bool)))
        matches.append(match(found[-1], truth[-1]))
    return Evaluation("x", None, None, found, truth, matches, 0.0)


def test_the_fit_finds_the_probabilities_that_made_the_data():
    result = _evaluation(2000, np.random.default_rng(0))
    fitted = fit_scores(result, "made up")
    where = np.linspace(-3, 3, 13)
    assert np.abs(fitted(where) - 1 / (1 + np.exp(-where))).max() < 0.08
    quality = held_out(result, splits=2)
    assert quality.error < quality.perfect + 0.02
    assert quality.reliability.counts.sum() == 2 * 6000
    assert np.abs(quality.reliability.probability - quality.reliability.frequency).max() < 0.1
    assert quality.true + quality.false == 6000 == fitted.detections
    with pytest.raises(InputError, match="true and false detections"):
        fit_scores(_evaluation(0, np.random.default_rng(0)))


@pytest.fixture
def labelled(tmp_path):
    """Eight images made of two photos, with the face of one of them labelled in each place."""
    rows = []
    for k in range(8):
        image = np.full((300, 400, 3), 90, np.uint8)
        image[20:270, 30 + 5 * k : 280 + 5 * k] = photo("astronaut")[:250, 100:350]
        image[:, 300:] = photo("chelsea")[:300, 100 + 10 * k : 200 + 10 * k]
        write_image(tmp_path / f"{k}.png", image)
        rows.append({"file": f"{k}.png", "faces": [{"bbox": [102 + 5 * k, 84, 100, 100]}]})
    rows.append({"file": "gone.png", "faces": []})
    (tmp_path / "annotations.json").write_text(json.dumps(rows))
    return tmp_path


def test_the_command_calibrates_a_file_in_place_and_a_name_here(labelled, capsys, monkeypatch):
    mine = labelled / "mine.xml"
    shutil.copy(LBP_FILE, mine)
    before = mine.read_text()
    arguments = ["--dataset", str(labelled), "--threads", "1"]
    assert calibrate.main([str(mine), *arguments, "--plot", str(labelled / "new" / "r.png")]) == 1
    assert read_bgr(labelled / "new" / "r.png").std() > 5
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert record["cascade"] == str(mine) and record["true"] + record["false"] == record["detections"]
    assert record["true"] >= 6 and record["false"] > 0
    assert "gone.png" in err and "are few" in err
    assert mine.read_text().startswith(before[: before.rindex("</cascade>")].rstrip())
    assert vj.load(mine).calibration.detections == record["detections"]
    assert str(labelled) not in vj.load(mine).calibration.source
    assert detect.main([str(labelled / "0.png"), "--cascade", str(mine), "--threshold", "0.1", "--threads", "1"]) == 0
    # A name stands for a file that is not ours to change.
    monkeypatch.chdir(labelled)
    packaged = find("frontalface").read_bytes()
    calibrate.main(["frontalface", *arguments])
    assert find("frontalface").read_bytes() == packaged
    assert vj.load(labelled / "frontalface.xml") == stock("frontalface")
    assert vj.load(labelled / "frontalface.xml").calibration.source.startswith(labelled.name)


def test_the_command_leaves_the_file_alone_when_it_cannot(labelled, capsys):
    mine = labelled / "mine.xml"
    shutil.copy(LBP_FILE, mine)
    (labelled / "annotations.json").write_text(json.dumps([{"file": "0.png", "faces": [{"bbox": [0, 0, 9, 9]}]}]))
    assert calibrate.main([str(mine), "--dataset", str(labelled), "--threads", "1", "--no-align"]) == 2
    err = capsys.readouterr().err
    assert "expected true and false detections" in err and len(err.splitlines()) == 1
    assert mine.read_bytes() == LBP_FILE.read_bytes()
    assert calibrate.main([str(mine), "--dataset", str(labelled / "nowhere")]) == 2
