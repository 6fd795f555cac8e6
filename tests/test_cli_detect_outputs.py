"""What `vj-detect` writes: tables, copies with boxes or masks, crops, videos; and what it leaves when things fail."""

import csv
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from cascades import LBP_FILE
from photos import photo

import vj
from vj.cli import _outputs
from vj.cli.detect import main
from vj.datasets.formats import read_labelled
from vj.images import read_bgr, write_image
from vj.rows import PACKAGED
from vj.videos import Video, read_frames

LBP = ["--cascade", str(LBP_FILE)]


def moved(k):
    return np.ascontiguousarray(photo("astronaut")[20:260, 100 + 2 * k : 340 + 2 * k])


@pytest.fixture
def folder(tmp_path):
    write_image(tmp_path / "a.png", photo("astronaut")[:250, 100:350])
    write_image(tmp_path / "b.png", photo("coins"))
    (tmp_path / "c.png").write_bytes(b"nothing")
    return tmp_path


@pytest.fixture
def clip(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (240, 240))
    for k in range(8):
        writer.write(moved(k))
    writer.release()
    return tmp_path / "clip.avi"


def rows(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_packaged_cascade_runs_in_its_best_mode(folder, capsys):
    image = read_bgr(folder / "a.png")
    cascade = vj.load("frontalface")
    name = [str(folder / "a.png")]
    best = vj.Detector(cascade, min_neighbors=0, suppression=0.3, coarse=14).detect(image).at_least(0.2)
    plain = vj.Detector(cascade).detect(image)
    assert PACKAGED == {"min_neighbors": 0, "suppression": 0.3, "threshold": 0.2, "coarse": 14}
    assert best.boxes.tolist() != plain.boxes.tolist()
    for options, expected in (
        ([], best),
        (["--cascade", "frontalface"], plain),
        (["--min-neighbors", "3"], plain),
        (["--threshold", "0"], plain),
        (["--suppression", "0.3"], vj.Detector(cascade, suppression=0.3).detect(image)),
    ):
        assert main([*name, *options]) == 0
        (row,) = rows(capsys)
        assert [one["box"] for one in row["detections"]] == expected.boxes.tolist(), options


def test_csv_is_a_data_set(folder, capsys):
    assert main([str(folder / "a.png"), str(folder / "b.png"), *LBP]) == 0
    a, b = rows(capsys)
    assert main([str(folder), *LBP, "--format", "csv"]) == 1
    out = capsys.readouterr().out
    table = list(csv.DictReader(io.StringIO(out)))
    assert len(a["detections"]) == 1 and not b["detections"]
    assert [one["file"] for one in table] == [a["image"], b["image"]]
    assert [int(table[0][k]) for k in "xywh"] == a["detections"][0]["box"] and table[1]["x"] == ""
    assert float(table[0]["score"]) == a["detections"][0]["score"] and table[0]["frame"] == ""
    (folder / "found.csv").write_text(out)
    again = read_labelled(folder / "found.csv")
    assert [one.path for one in again] == [folder / "a.png", folder / "b.png"]
    assert [len(one) for one in again] == [1, 0]


def test_coco_results_are_evaluated_by_coco(folder, capsys, tmp_path):
    from pycocotools.coco import COCO

    names = [str(folder / name) for name in ("c.png", "b.png", "a.png")]
    assert main([*names, *LBP, "--format", "coco"]) == 1
    results = json.loads(capsys.readouterr().out)
    assert [(one["image_id"], one["category_id"], one["file_name"]) for one in results] == [(3, 1, names[2])]
    truth = {"images": [{"id": k} for k in (1, 2, 3)], "categories": [{"id": 1}], "annotations": [], "info": {}}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(results))
    loaded = COCO(str(tmp_path / "truth.json")).loadRes(str(tmp_path / "found.json"))
    (one,) = loaded.loadAnns(loaded.getAnnIds(imgIds=[3]))
    assert one["area"] == results[0]["bbox"][2] * results[0]["bbox"][3] and one["score"] == results[0]["score"]
    capsys.readouterr()
    assert main([str(folder / "b.png"), *LBP, "--format", "coco"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_crops_are_what_was_found(folder, capsys):
    assert main([str(folder / "a.png"), "--min-neighbors", "0", "--crops", str(folder / "out")]) == 0
    (row,) = rows(capsys)
    image = read_bgr(folder / "a.png")
    assert len(row["detections"]) > 1
    assert len(list((folder / "out").iterdir())) == len(row["detections"])
    for k, one in enumerate(row["detections"], 1):
        x, y, w, h = one["box"]
        np.testing.assert_array_equal(read_bgr(folder / f"out/a-{k}.png"), image[y : y + h, x : x + w])
    # A crop's name that an input has.
    (folder / "a-1.png").write_bytes((folder / "a.png").read_bytes())
    before = (folder / "a-1.png").read_bytes()
    assert main([str(folder / "a-1.png"), *LBP, "--crops", str(folder)]) == 2
    (folder / "sub").mkdir()
    (folder / "a.png").rename(folder / "sub/a.png")
    assert main([str(folder / "sub/a.png"), str(folder / "a-1.png"), *LBP, "--crops", str(folder)]) == 2
    assert (folder / "a-1.png").read_bytes() == before


def test_masked_copies_hide_what_is_found_at_a_low_threshold(folder, capsys):
    arguments = [str(folder / "a.png"), "--anonymize", str(folder / "out"), "--annotate", str(folder / "boxes")]
    assert main([*arguments, "--mask", "fill", "--mask-margin", "0"]) == 0
    (row,) = rows(capsys)
    image = read_bgr(folder / "a.png")
    cascade = vj.load("frontalface")
    cascade = cascade.truncated(cascade.n_stages - 1)
    low = vj.Detector([cascade, cascade.mirrored()], min_neighbors=0, suppression=0.3).detect(image)
    assert [one["box"] for one in row["detections"]] == low.boxes.tolist() and len(low) > 1
    out = read_bgr(folder / "out/a.png")
    hidden = np.zeros(image.shape[:2], bool)
    for x, y, w, h in (one["box"] for one in row["detections"]):
        hidden[y : y + h, x : x + w] = True
    assert (out[hidden] == 127).all()
    np.testing.assert_array_equal(out[~hidden], image[~hidden])
    # Whoever says what to keep gets that.
    assert main([str(folder / "a.png"), "--anonymize", str(folder / "out"), "--min-neighbors", "3"]) == 0
    assert len(rows(capsys)[0]["detections"]) == 1


def test_masked_copies_have_nothing_of_the_original(tmp_path, capsys):
    """No hidden colours, no thumbnail, no 16 bits, upright."""
    from PIL import Image

    face = photo("astronaut")[:250, 100:350]
    small = Image.fromarray(face[::4, ::4, ::-1])
    exif = Image.Exif()
    exif[274], exif[270] = 6, "secret words"
    thumb = io.BytesIO()
    small.save(thumb, "JPEG")
    turned = Image.fromarray(np.rot90(face)[..., ::-1].copy())
    turned.save(tmp_path / "exif.jpg", exif=exif.tobytes() + thumb.getvalue(), comment=b"secret words")
    hidden = np.dstack([face[..., ::-1], np.zeros(face.shape[:2], np.uint8)])
    Image.fromarray(hidden).save(tmp_path / "hidden.png")
    cv2.imwrite(str(tmp_path / "deep.png"), face.astype(np.uint16) * 257)
    names = ["exif.jpg", "hidden.png", "deep.png"]
    assert main([*(str(tmp_path / name) for name in names), "--anonymize", str(tmp_path / "out")]) == 0
    found = {Path(row["image"]).name: row["detections"] for row in rows(capsys)}
    assert found["hidden.png"] == [] and found["exif.jpg"] and found["deep.png"]
    for name in names:
        data = (tmp_path / "out" / name).read_bytes()
        assert b"secret" not in data and b"Exif" not in data and data.count(b"\xff\xd8\xff") <= name.endswith("jpg")
    assert (read_bgr(tmp_path / "out/hidden.png") == 255).all()
    with Image.open(tmp_path / "out/deep.png") as deep:
        assert deep.mode == "RGB"
    x, y, w, h = max(found["exif.jpg"], key=lambda one: one["score"])["box"]
    before = face[y : y + h, x : x + w]
    after = read_bgr(tmp_path / "out/exif.jpg")[y : y + h, x : x + w]
    assert cv2.Laplacian(after, cv2.CV_64F).std() < 0.2 * cv2.Laplacian(before, cv2.CV_64F).std()


def test_one_folder_for_two_kinds_of_copies_is_refused(folder, capsys):
    (folder / "link").symlink_to(folder / "out")
    for second in ("out", "out/../out", "link"):
        command = [str(folder / "a.png"), *LBP, "--anonymize", str(folder / "out"), "--annotate", str(folder / second)]
        assert main(command) == 2
        assert "a folder of its own for each of --annotate, --anonymize" in capsys.readouterr().err
        assert list((folder / "out").iterdir()) == []


@pytest.mark.parametrize("option", ["--anonymize", "--annotate"])
def test_a_video_gives_rows_and_a_copy(clip, capsys, option):
    out = clip.parent / "out"
    assert main([str(clip), *LBP, "--min-neighbors", "3", option, str(out), "--no-smoothing"]) == 0
    found = rows(capsys)
    detector = vj.Detector(vj.load(LBP_FILE))
    assert [row["frame"] for row in found] == list(range(8))
    assert [row["seconds"] for row in found] == [k / 10 for k in range(8)]
    frames = list(read_frames(clip))
    for row, frame in zip(found, frames, strict=True):
        assert row["image"] == str(clip) and (row["width"], row["height"]) == (240, 240)
        assert [one["box"] for one in row["detections"]] == detector.detect(frame.image).boxes.tolist()
    assert sum(len(row["detections"]) for row in found) >= 6
    assert [path.name for path in out.iterdir()] == ["clip.mp4"]
    for row, before, after in zip(found, frames, read_frames(out / "clip.mp4"), strict=True):
        for x, y, w, h in (one["box"] for one in row["detections"]):
            fine = [cv2.Laplacian(one.image[y : y + h, x : x + w], cv2.CV_64F).std() for one in (before, after)]
            assert (fine[1] < 0.4 * fine[0]) == (option == "--anonymize")


def test_boxes_of_a_video_are_smoothed(clip, capsys):
    assert main([str(clip), *LBP]) == 0
    smoothing, detector = vj.Smoothing(), vj.Detector(vj.load(LBP_FILE))
    for row, frame in zip(rows(capsys), read_frames(clip), strict=True):
        shown = smoothing.update(detector.detect(frame.image))
        assert [one["box"] for one in row["detections"]] == shown.boxes.tolist()
    assert main([str(clip), *LBP, "--format", "coco", "--crops", str(clip.parent / "crops")]) == 0
    results = json.loads(capsys.readouterr().out)
    assert {(one["image_id"], one["frame"]) for one in results} <= {(k + 1, k) for k in range(8)}
    assert len(list((clip.parent / "crops").iterdir())) == len(results) > 0


def test_masks_cover_what_is_found_and_shown_and_what_is_found_a_little_later(clip, capsys, monkeypatch):
    masked = []
    plain = _outputs.Outputs._masked

    def spied(self, image, boxes):
        masked.append(boxes.tolist())
        return plain(self, image, boxes)

    monkeypatch.setattr(_outputs.Outputs, "_masked", spied)
    monkeypatch.setattr(_outputs, "LOOK_BACK", 2)
    options = ["--min-neighbors", "3", "--anonymize", str(clip.parent / "out")]
    assert main([str(clip), *LBP, *options]) == 0
    shown = [[one["box"] for one in row["detections"]] for row in rows(capsys)]
    detector = vj.Detector(vj.load(LBP_FILE))
    found = [detector.detect(frame.image).boxes.tolist() for frame in read_frames(clip)]
    assert masked == [found[k] + shown[k] + [box for later in found[k + 1 : k + 3] for box in later] for k in range(8)]
    masked.clear()
    assert main([str(clip), *LBP, *options, "--no-smoothing"]) == 0
    assert masked == [found[k] + found[k] for k in range(8)]
    capsys.readouterr()


def test_damaged_frames_are_not_told_by_the_decoder(tmp_path):
    """It would print to the process's own stderr."""
    writer = cv2.VideoWriter(str(tmp_path / "clip.mkv"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (240, 240))
    for k in range(40):
        writer.write(moved(k % 20))
    writer.release()
    data = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "clip.mkv").write_bytes(data[: len(data) * 2 // 3])
    command = [sys.executable, "-m", "vj.cli.detect", str(tmp_path / "clip.mkv"), *LBP]
    done = subprocess.run(command, capture_output=True, text=True)
    # A first run also says that it compiles.
    (told,) = (line for line in done.stderr.splitlines() if "compiling" not in line)
    assert "cut short" in told


def test_a_video_that_breaks_off_leaves_no_copy(clip, folder, capsys):
    out = folder / "out"
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 2 // 3])
    command = [str(clip), str(folder / "a.png"), *LBP, "--anonymize", str(out)]
    assert main(command) == 1
    told = capsys.readouterr()
    assert len(told.out.splitlines()) > 3
    assert "clip.avi: expected a whole video, got one cut short" in told.err.splitlines()[0]
    assert told.err.splitlines()[-1] == "vj-detect: 1 of 2 images could not be used"
    assert [path.name for path in out.iterdir()] == ["a.png"]
    (out / "clip.mp4").write_bytes(b"before")
    assert main(command) == 1
    assert f"; {out}/clip.mp4 is of an earlier run" in capsys.readouterr().err
    assert (out / "clip.mp4").read_bytes() == b"before"


def test_what_cannot_be_written_is_listed(folder, capsys):
    out = folder / "out"
    (out / "a.png").mkdir(parents=True)
    assert main([str(folder), *LBP, "--anonymize", str(out)]) == 1
    told = capsys.readouterr()
    assert [json.loads(line)["image"] for line in told.out.splitlines()] == [str(folder / "b.png")]
    assert re.search(r"a\.png: Is a directory", told.err) and "c.png: expected an image" in told.err
    assert told.err.splitlines()[-1] == "vj-detect: 2 of 3 images could not be used"
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]


def test_a_pattern_without_images_fails_like_an_image(folder, capsys):
    assert main([str(folder / "a.png"), str(folder / "*.none"), *LBP]) == 1
    err = capsys.readouterr().err.splitlines()
    assert "a pattern without any" in err[0] and err[1] == "vj-detect: 1 of 2 images could not be used"


def test_folders_of_a_pattern_are_looked_through_and_closed_ones_are_told(folder, capsys, monkeypatch):
    (folder / "in/deep").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (folder / name).rename(folder / "in/deep" / name)
    for pattern in ("in/*", "in/**"):
        assert main([f"{folder}/{pattern}", *LBP]) == 0
        assert [Path(row["image"]).name for row in rows(capsys)] == ["a.png", "b.png"]
    scan = os.scandir

    def closed(path):
        if os.fspath(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    (folder / "in/secret").mkdir()
    monkeypatch.setattr("os.scandir", closed)
    assert main([str(folder / "in"), *LBP]) == 1
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2
    assert f"{folder}/in/secret: expected a folder that can be read, got Permission denied" in told.err


def test_what_a_folder_has_besides_is_told(folder, clip, capsys):
    (folder / "notes.txt").write_text("")
    (folder / "c.png").unlink()
    (folder / "phone.heic").write_bytes(b"\0\0\0\x20ftypheic" + bytes(20))
    assert main([str(folder), *LBP]) == 1
    assert "phone.heic: expected an image, got 32 bytes that OpenCV cannot decode" in capsys.readouterr().err
    (folder / "phone.heic").unlink()
    assert main([str(folder), *LBP]) == 0
    told = capsys.readouterr()
    assert {json.loads(line)["image"] for line in told.out.splitlines()} == {
        str(folder / name) for name in ("a.png", "b.png", "clip.avi")
    }
    assert told.err == f"vj-detect: {folder}: left out 1 files that are no image or video by their names\n"
    assert main([str(folder), *LBP, "-q"]) == 0
    assert capsys.readouterr().err == ""
    assert main([str(folder / "a.png"), "-v"]) == 0
    err = capsys.readouterr().err
    assert "more than 0 hits a box, suppression 0.3, probability of at least 0.2" in err
    assert re.search(r"a\.png: 1 found in \d+ ms", err)


def test_no_input_or_two_kinds_of_it(folder, capsys):
    for wrong in ([], ["a.png", "--camera", "0"], ["--camera", "77"]):
        assert main([*wrong, *LBP]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 3 and "none of them" in err[0] and "both" in err[1] and "camera 77" in err[2]
    for wrong in (["--camera", "x"], ["--mask-margin", "-1"], ["--mask", "hat"], ["--format", "xml"]):
        with pytest.raises(SystemExit) as stop:
            main(["a.png", *wrong])
        assert stop.value.code == 2


def test_a_camera_is_watched_until_ctrl_c_and_the_video_is_whole(tmp_path, capsys, monkeypatch):
    """Without a camera at hand, one that has ten frames and then the key pressed."""
    waiting = [moved(k) for k in range(10)]

    def read():
        if not waiting:
            raise KeyboardInterrupt
        return waiting.pop(0), 0.0

    monkeypatch.setattr("vj.videos.open_video", lambda source: Video(str(source), True, 0, 0, read, lambda: None))
    ticks = itertools.count(0, 1 / 25)
    monkeypatch.setattr("vj.videos.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    assert main(["--camera", "0", *LBP, "--annotate", str(tmp_path)]) == 130
    found = rows(capsys)
    assert [row["frame"] for row in found] == list(range(10)) and found[0]["image"] == "camera 0"
    monkeypatch.undo()
    assert sum(frame.image is not None for frame in read_frames(tmp_path / "camera-0.mp4")) == 11


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_leaves_whole_files_only(tmp_path):
    images = tmp_path / "in"
    images.mkdir()
    for k in range(3000):
        (images / f"{k:04d}.png").symlink_to(tmp_path / "a.png")
    write_image(tmp_path / "a.png", photo("astronaut"))
    command = [sys.executable, "-m", "vj.cli.detect", str(images), *LBP, "--anonymize", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    # A first run also says that it compiles.
    said = [line for line in err.splitlines() if "compiling" not in line]
    assert process.returncode == 130 and said == ["vj-detect: interrupted"]
    made = list((tmp_path / "out").iterdir())
    assert 0 < len(made) < 3000
    assert {read_bgr(path).shape for path in made if not path.name.startswith(".vj-")} == {(512, 512, 3)}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal_and_none_elsewhere(folder, clip, capsys, monkeypatch):
    (folder / "c.png").unlink()
    for options, shown in (([], True), (["-q"], False)):
        stderr = Terminal()
        monkeypatch.setattr(sys, "stderr", stderr)
        assert main([str(folder), *LBP, *options]) == 0
        assert ("input" in stderr.getvalue() and "frame" in stderr.getvalue() and "<" in stderr.getvalue()) == shown
        assert len(rows(capsys)) == 2 + 8
    monkeypatch.setattr(sys, "stderr", plain := io.StringIO())
    assert main([str(folder), *LBP]) == 0
    assert plain.getvalue() == ""
    capsys.readouterr()


def test_odd_images_work(tmp_path, capsys):
    """CMYK, palette, animated GIF (the first frame), unicode names, 16 bits."""
    from PIL import Image

    face = Image.fromarray(photo("astronaut")[:250, 100:350, ::-1])
    face.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    face.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    empty = Image.new("RGB", face.size)
    face.save(tmp_path / "animated.gif", save_all=True, append_images=[empty, empty])
    face.save(tmp_path / "Gesicht ü 顔 🙂.png")
    cv2.imwrite(str(tmp_path / "deep.png"), np.asarray(face)[..., ::-1].astype(np.uint16) * 257)
    names = sorted(tmp_path.iterdir())
    assert main([*map(str, names), "--anonymize", str(tmp_path / "out")]) == 0
    found = rows(capsys)
    assert [row["image"] for row in found] == [str(name) for name in names]
    for row in found:
        best = max(row["detections"], key=lambda one: one["score"])["box"]
        assert np.abs(np.array(best) - [67, 61, 111, 111]).max() < 12, row
    assert (tmp_path / "out/Gesicht ü 顔 🙂.png").exists() and (tmp_path / "out/animated.png").exists()
