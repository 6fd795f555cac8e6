import io
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
from cascades import LBP_FILE, random_cascade
from photos import photo

import vj
from vj.cli.detect import main
from vj.images import read_bgr, write_image


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """So that no test but the one about it sees the notice of compiling."""
    vj.Detector(vj.load(LBP_FILE)).detect(photo("coins"))


@pytest.fixture
def folder(tmp_path):
    """Three images of which the second is none."""
    write_image(tmp_path / "a.png", photo("astronaut")[:250, 100:350])
    (tmp_path / "b.png").write_bytes(b"no image")
    write_image(tmp_path / "c.png", photo("coins"))
    return tmp_path


def test_a_batch_continues_after_a_bad_image_and_says_so_at_the_end(folder, capsys):
    assert main([str(folder), str(folder / "nowhere.jpg"), "--cascade", str(LBP_FILE)]) == 1
    out, err = capsys.readouterr()
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["image"] for record in records] == [str(folder / "a.png"), str(folder / "c.png")]
    lines = err.splitlines()
    assert len(lines) == 3
    assert "b.png: expected an image" in lines[0] and "nowhere.jpg" in lines[1]
    assert lines[2] == "vj-detect: 2 of 4 images could not be used"


def test_nothing_usable_is_an_error(folder, capsys):
    assert main([str(folder / "b.png"), "--cascade", str(LBP_FILE)]) == 2
    assert main([str(folder / "a.png"), "--cascade", "no_such_cascade"]) == 2
    assert main([str(folder / "none"), "--cascade", str(LBP_FILE)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 3


def test_records_are_what_the_detector_finds(folder, capsys):
    settings = ["--min-neighbors", "1", "--scale-factor", "1.2", "--min-size", "40", "--max-size", "150x160"]
    annotated = folder / "out"
    assert main([str(folder / "a.png"), "--cascade", str(LBP_FILE), *settings, "--annotate", str(annotated)]) == 0
    (record,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    image = read_bgr(folder / "a.png")
    detector = vj.Detector(
        vj.load(LBP_FILE), min_neighbors=1, scale_factor=1.2, min_size=40, max_size=(150, 160), threads=1
    )
    found = detector.detect(image)
    assert len(found) > 0
    assert [d["box"] for d in record["detections"]] == found.boxes.tolist()
    assert [d["neighbors"] for d in record["detections"]] == found.neighbors.tolist()
    np.testing.assert_allclose([d["score"] for d in record["detections"]], found.scores, atol=1e-4)
    assert (record["width"], record["height"]) == (250, 250)
    drawn = read_bgr(annotated / "a.png")
    assert drawn.shape == image.shape and (drawn != image).any()


def test_images_of_one_name_and_the_images_own_folder(folder, capsys):
    other = folder / "other"
    other.mkdir()
    write_image(other / "a.png", photo("coins"))
    arguments = ["--cascade", str(LBP_FILE), "--annotate"]
    assert main([str(folder / "a.png"), str(other / "a.png"), *arguments, str(folder / "out")]) == 0
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["a-2.png", "a.png"]
    before = (folder / "a.png").read_bytes()
    assert main([str(folder / "a.png"), *arguments, str(folder)]) == 2
    assert (folder / "a.png").read_bytes() == before
    assert "another folder" in capsys.readouterr().err


def test_an_image_smaller_than_the_window_is_named(folder, capsys):
    write_image(folder / "small.png", photo("coins")[:10, :50])
    assert main([str(folder / "small.png"), "--cascade", str(LBP_FILE)]) == 2
    assert "at least the window's 24x24 pixels, got 50x10" in capsys.readouterr().err


@pytest.mark.any_opencv
def test_the_first_run_says_that_it_compiles(folder, tmp_path):
    """A fresh cache of kernels takes seconds to fill: a user must not believe that the program hangs."""
    vj.save(random_cascade(0), tmp_path / "model.xml")
    command = [sys.executable, "-m", "vj.cli.detect", str(folder / "a.png"), "--cascade", str(tmp_path / "model.xml")]
    fresh = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    first = subprocess.run(command, env=fresh, capture_output=True, text=True, check=True)
    second = subprocess.run(command, env=fresh, capture_output=True, text=True, check=True)
    assert first.stderr.count("compiling for this processor") == 1
    assert first.stdout == second.stdout
    assert second.stderr == ""


def test_a_first_run_in_training_says_so_too(tmp_path):
    command = [
        sys.executable,
        "-m",
        "vj.cli.train",
        "--positives",
        "skimage:faces",
        "--window",
        "12x12",
        "--stages",
        "1",
    ]
    command += ["--backgrounds", "skimage:backgrounds", "--output", str(tmp_path / "out"), "--features", "lbp"]
    fresh = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    told = ""
    with subprocess.Popen(command, env=fresh, stderr=subprocess.PIPE, text=True) as running:
        while "compiling" not in told and (line := running.stderr.readline()):
            told += line
        running.kill()
    assert told.count("vj-train: compiling for this processor") == 1


def test_quiet_commands_do_not_say_that_they_compile(monkeypatch, capsys):
    from vj._system import on_compile
    from vj.cli import _common

    def command(argv):
        for call in on_compile:
            call()
        return 0

    monkeypatch.setattr(_common, "announces", True)
    assert _common.run("vj-any", command, ["--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert _common.run("vj-any", command, []) == 0
    assert capsys.readouterr().err.startswith("vj-any: compiling")
    on_compile.clear()


@pytest.mark.parametrize("case", ["two folders", "ending", "hard link", "symbolic link"])
def test_no_output_replaces_an_input(tmp_path, capsys, case):
    image = photo("coins")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write_image(tmp_path / "a/x.png", image)
    write_image(tmp_path / "b/other.png", image[:200])
    inputs = [tmp_path / "a/x.png", tmp_path / "b/other.png"]
    if case == "two folders":
        inputs[1] = inputs[1].rename(tmp_path / "b/x.png")
    elif case == "ending":
        inputs[0] = tmp_path / "b/other.bmp"
        write_image(inputs[0], image)
    elif case == "hard link":
        os.link(inputs[1], tmp_path / "b/x.png")
    else:
        (tmp_path / "b/x.png").symlink_to(inputs[1])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    command = [*map(str, inputs), "--cascade", str(LBP_FILE), "--annotate", str(tmp_path / "b")]
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "would replace the input" in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_names_that_differ_in_case_and_long_names(tmp_path, capsys):
    paths = [tmp_path / "a/x.png", tmp_path / "b/X.png", tmp_path / "a" / f"{'n' * 245}.png"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        write_image(path, photo("coins"))
    out = tmp_path / "out"
    assert main([*map(str, paths), "--cascade", str(LBP_FILE), "--annotate", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == sorted(["x.png", "X-2.png", paths[2].name])
    capsys.readouterr()


def test_huge_files_pipes_and_images_do_not_end_a_batch(folder, capsys):
    with (folder / "huge.jpg").open("wb") as file:
        file.truncate(100 << 30)
    os.mkfifo(folder / "pipe.jpg")
    bad = [str(folder / name) for name in ("huge.jpg", "pipe.jpg", "a.png")]
    assert main([*bad, str(folder / "c.png"), "--cascade", str(LBP_FILE), "--max-pixels", "62499"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert "at most 1073741824 bytes" in err[0] and "a pipe" in err[1] and "62499 pixels, got 250x250" in err[2]
    assert main([*bad, str(folder / "c.png"), "--cascade", str(LBP_FILE)]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_an_empty_folder_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path), "--cascade", str(LBP_FILE)]) == 2
    assert "without any" in capsys.readouterr().err


def test_stride_and_suppression_reach_the_detector(folder, capsys):
    options = ["--min-neighbors", "0", "--stride", "1", "--suppression", "0.3", "--cascade", str(LBP_FILE)]
    assert main([str(folder / "a.png"), *options]) == 0
    (record,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    detector = vj.Detector(vj.load(LBP_FILE), min_neighbors=0, stride=1, suppression=0.3)
    found = detector.detect(read_bgr(folder / "a.png"))
    assert [d["box"] for d in record["detections"]] == found.boxes.tolist()


def test_patterns_and_names_on_stdin(folder, capsys, monkeypatch):
    (folder / "c[1].png").write_bytes((folder / "c.png").read_bytes())
    for names, given in (
        ([f"{folder}/[ac].png"], ""),
        ([f"{folder}/**/[a]*.png", str(folder / "c[1].png")], ""),
        (["-"], f"{folder}/a.png\n\n{folder}/c.png\r\n"),
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        assert main([*names, "--cascade", str(LBP_FILE)]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["-", "--cascade", str(LBP_FILE)]) == 2
    assert main([f"{folder}/*.none", "--cascade", str(LBP_FILE)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert "names of images on stdin, got none" in told[0]
    assert "a pattern without any" in told[1]


def test_sizes_that_exclude_each_other_are_warned_of(folder, capsys):
    sizes = ["--min-size", "100", "--max-size", "50"]
    assert main([str(folder / "a.png"), "--cascade", str(LBP_FILE), *sizes]) == 0
    assert "--min-size 100x100 is larger than --max-size 50x50" in capsys.readouterr().err
    assert main([str(folder / "a.png"), "--cascade", str(LBP_FILE), "--min-size", "50", "--max-size", "100"]) == 0
    assert capsys.readouterr().err == ""


def test_a_damaged_colour_profile_is_not_told_to_the_terminal(folder, capfd):
    """libpng writes to the process's own stderr; page.png of scikit-image has such a profile."""
    path = Path(skimage.__file__).parent / "data/page.png"
    assert b"iCCP" in path.read_bytes()
    image = read_bgr(path)
    assert "libpng" not in capfd.readouterr().err
    np.testing.assert_array_equal(image, cv2.imread(str(path)))
    assert "libpng" in capfd.readouterr().err
    # Cut off within the chunk, or with a length beyond the file, it is the decoder's to refuse.
    for data in (path.read_bytes()[:60], path.read_bytes().replace(b"iCCP", b"IDAT", 1)):
        (folder / "cut.png").write_bytes(data)
        with pytest.raises(vj.InputError, match="expected an image"):
            read_bgr(folder / "cut.png")


def test_several_cascades_say_which_one_found_a_box(folder, capsys):
    given = ["--cascade", "frontalface", "--cascade", f"mirrored:{LBP_FILE}", "--min-neighbors", "0"]
    assert main([str(folder / "a.png"), *given]) == 0
    (record,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    cascades = [vj.load("frontalface"), vj.load(LBP_FILE).mirrored()]
    found = vj.Detector(cascades, min_neighbors=0).detect(read_bgr(folder / "a.png"))
    assert [row["source"] for row in record["detections"]] == found.sources.tolist()
    assert set(found.sources) == {0, 1}
    assert "probability" not in record["detections"][0]
    assert main([str(folder / "a.png"), *given, "--threshold", "0.5"]) == 2
    assert "got lbpcascade_frontalface_opencv mirrored without one" in capsys.readouterr().err
