"""`vj-watch` as a user types it, on a small video in which a face appears, and on folders."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from cascades import random_cascade
from photos import photo

import vj
from vj.cascade.opencv_xml import save
from vj.cli import watch
from vj.cli._commands import Commands
from vj.errors import InputError
from vj.images import write_image
from vj.videos import read_frames

SIZE = (240, 180)
FACE = range(10, 22)


def shot(k):
    """Image k: noise on a photo without a face, and in front of it a face in the images of `FACE`."""
    image = cv2.resize(photo("coffee"), SIZE, interpolation=cv2.INTER_AREA)
    if k in FACE:
        face = cv2.resize(photo("astronaut")[:220, 100:320], (140, 140), interpolation=cv2.INTER_AREA)
        x = 20 + 3 * (k - FACE.start)
        image[10:150, x : x + 140] = face
    noise = np.random.default_rng(k).normal(0, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "face.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, SIZE)
    for k in range(40):
        writer.write(shot(k))
    writer.release()
    return path


@pytest.fixture
def recorder(tmp_path):
    """A command that appends what it finds in its environment to a file."""
    script = tmp_path / "record me.py"
    script.write_text(
        "import json, os, sys\n"
        "row = {k: v for k, v in os.environ.items() if k.startswith('VJ_')} | {'argv': sys.argv[1:]}\n"
        f"open({str(tmp_path / 'log')!r}, 'a').write(json.dumps(row) + chr(10))\n"
        "print('from the command')\n"
    )
    command = f"{sys.executable} '{script}' --hello 'two words'"
    return command, lambda: [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]


def run(capfd, *arguments):
    code = watch.main([str(argument) for argument in arguments] + ["--threads", "1"])
    out, err = capfd.readouterr()
    # Said where nothing is in the cache yet.
    err = "".join(line for line in err.splitlines(keepends=True) if "compiling for this processor" not in line)
    return code, [json.loads(line) for line in out.splitlines()], err


def test_a_face_in_a_video_wakes_and_its_going_sends_to_sleep(video, recorder, capfd):
    command, log = recorder
    code, (report,), err = run(capfd, video, "--run", command, "--sleep-after", "5")
    assert code == 0 and err == "from the command\n" * 2
    # Two of three images; then five without.
    woke, slept = FACE.start + 1, FACE.stop + 4
    assert [(e["event"], e["frame"]) for e in report["events"]] == [("wake", woke), ("sleep", slept)]
    assert report["type"] == "report" and report["frames"] == 40 and report["awake_frames"] == slept - woke
    difference, coarse, whole = report["tiers"]
    assert difference["asked"] == 40 and difference["passed"] == coarse["asked"] == len(FACE) + 2
    assert len(FACE) == whole["passed"] <= whole["asked"] <= coarse["asked"]
    assert 0 < report["saved"] < 1 and report["commands"] == {"run": 2, "failed": 0} and not report["interrupted"]
    first, second = log()
    assert first["argv"] == ["--hello", "two words"]
    assert (first["VJ_EVENT"], first["VJ_FRAME"], first["VJ_SECONDS"]) == ("wake", str(woke), "1.1")
    assert first["VJ_SOURCE"] == str(video) and first["VJ_FILE"] == ""
    ((x, y, w, h),) = json.loads(first["VJ_BOXES"])
    assert 40 < x + w / 2 < 140 and 40 < y + h / 2 < 110 and 30 < w < 110
    assert (second["VJ_EVENT"], second["VJ_BOXES"]) == ("sleep", "[]")


def test_events_are_printed_as_they_come(video, capfd):
    code, lines, err = run(capfd, video, "-v", "--heavy", "frontalface", "--sleep-after", "5")
    assert code == 0 and err == ""
    assert [line["type"] for line in lines] == ["event", "event", "report"]
    assert lines[0]["event"] == "wake" and len(lines[0]["boxes"]) == 1
    assert [tier["name"] for tier in lines[-1]["tiers"]][2:] == ["frontalface", "frontalface"]


def test_the_heavy_tier_decides(tmp_path, video, capfd):
    cascade = random_cascade(0)
    blind = replace(cascade, stage_thresholds=np.full_like(cascade.stage_thresholds, 1e6))
    save(blind, tmp_path / "blind.xml")
    code, (report,), err = run(capfd, video, "--heavy", tmp_path / "blind.xml")
    assert code == 0 and err == "" and report["events"] == []
    assert report["tiers"][2]["passed"] == report["tiers"][3]["asked"] == len(FACE)
    assert report["tiers"][3]["name"] == "blind" and report["tiers"][3]["passed"] == 0


def test_the_last_tier_needs_an_even_chance_where_it_states_probabilities(tmp_path):
    """With any detection at three neighbours, the packaged cascade woke for backgrounds."""
    plain, calibrated = str(tmp_path / "plain.xml"), str(tmp_path / "calibrated.xml")
    save(random_cascade(1), plain)
    save(replace(random_cascade(1), calibration=vj.load("frontalface").calibration), calibrated)
    for cascade, heavy, threshold, least in (
        (None, None, None, 0.5),
        (None, None, 0.3, 0.3),
        (plain, None, None, None),
        (plain, calibrated, None, 0.5),
        (calibrated, plain, None, None),
    ):
        args = argparse.Namespace(cascade=cascade, heavy=heavy, threshold=threshold, threads=1)
        looks = watch._Tiers(args).looks(24)
        assert [look.least for look in looks] == [None] * (len(looks) - 1) + [least], (cascade, heavy, threshold)


def test_a_folder_with_a_corrupt_image_and_a_watch_that_ends_awake(tmp_path, recorder, capfd):
    command, log = recorder
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(FACE.start - 3, FACE.start + 3):
        write_image(folder / f"{k:03d}.png", shot(k))
    (folder / "008b.png").write_bytes(b"no image")
    code, (report,), err = run(capfd, folder, "--run", command)
    assert code == 1 and "008b.png: expected an image" in err
    assert (report["frames"], report["unreadable"]) == (6, 1)
    assert [e["event"] for e in report["events"]] == ["wake", "sleep"]
    assert [row["VJ_EVENT"] for row in log()] == ["wake", "sleep"], "each wake has its sleep"
    assert log()[0]["VJ_FILE"] == str(folder / "011.png") and log()[0]["VJ_SECONDS"] == ""


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"{sys.executable} -c 'raise SystemExit(3)'", "expected exit code 0, got 3 (wake at image 11)"),
        ("./no-such-command --x", "./no-such-command: expected a command that can be run, got No such file"),
    ],
)
def test_a_command_that_fails_is_reported_and_ends_nothing(video, capfd, command, message):
    code, (report,), err = run(capfd, video, "--run", command)
    assert code == 1 and report["frames"] == 40 and report["commands"] == {"run": 2, "failed": 2}
    assert message in err and len(err.splitlines()) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.avi"],
        ["99"],
        ["empty"],
        ["corrupt.avi"],
        ["/dev/null"],
        ["VIDEO", "--run", "'"],
        ["VIDEO", "--run", " "],
        ["VIDEO", "--cascade", "nowhere.xml"],
        ["VIDEO", "--heavy", "nowhere.onnx"],
        ["VIDEO", "--heavy", "corrupt.onnx"],
        ["VIDEO", "--heavy", "nowhere.dat"],
        ["VIDEO", "--sleep-after", "0"],
        ["VIDEO", "--wake-after", "3/2"],
        ["VIDEO", "--threads", "0"],
        ["VIDEO", "--cascade", "plain.xml", "--threshold", "0.5"],
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, video, capfd, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("corrupt.avi", "corrupt.onnx"):
        (tmp_path / name).write_bytes(bytes(range(256)) * 20)
    save(random_cascade(0), tmp_path / "plain.xml")
    assert watch.main([str(video) if a == "VIDEO" else a for a in arguments]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("vj-watch: ") and len(err.splitlines()) == 1, err


@pytest.mark.parametrize("text", ["x", "1/2/3", "-1", ""])
def test_a_bad_rule_is_refused(capsys, text):
    with pytest.raises(SystemExit):
        watch.main(["0", f"--wake-after={text}"])
    assert "expected N or N/M" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_report(tmp_path, video, number):
    folder = tmp_path / "many"
    folder.mkdir()
    for k in range(5000):
        (folder / f"{k:04d}.png").symlink_to(tmp_path / f"{k % 2}.png")
    for k in range(2):
        write_image(tmp_path / f"{k}.png", shot(FACE.start + 5 * k))
    code = "import sys; from vj.cli.watch import main; sys.exit(main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", code, str(folder), "-v", "--wake-after", "1", "--threads", "1"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert '"wake"' in process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    report = json.loads(out.splitlines()[-1])
    assert process.returncode == 0, err
    assert report["type"] == "report" and report["interrupted"] and report["frames"] < 5000
    assert "Traceback" not in err


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_command_that_hangs_is_ended_by_ctrl_c(capfd):
    commands = Commands("vj-watch", [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"])
    for label in ("first", "second"):
        commands.send(label, {})
    start = time.monotonic()
    err = ""
    while "up" not in err and time.monotonic() - start < 30:
        err += capfd.readouterr().err
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    commands.finish()
    assert time.monotonic() - start < 30 and commands.run == 1
    assert "ended before it was done" in capfd.readouterr().err


def test_a_source_is_opened_at_once_and_read_frame_by_frame(tmp_path, video, monkeypatch):
    frames = list(read_frames(video))
    assert [f.number for f in frames] == list(range(40))
    assert frames[25].seconds == pytest.approx(2.5) and frames[0].image.shape == (180, 240, 3)
    assert np.abs(frames[3].image.astype(int) - shot(3)).mean() < 6
    write_image(tmp_path / "b.png", shot(0))
    (tmp_path / "a.jpg").write_bytes(b"")
    first, second = read_frames(tmp_path)
    assert first.image is None and "a.jpg" in first.error and first.seconds is None
    np.testing.assert_array_equal(second.image, shot(0))
    for source, message in ((77, "camera 77"), ("77", "camera 77"), (tmp_path / "no", "nothing there")):
        with pytest.raises(InputError, match=message):
            read_frames(source)
    # A file whose name is a number is a file.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").symlink_to(video)
    assert len(list(read_frames("7"))) == 40
