"""``vj-train`` as a user meets it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

import vj
from vj.boosting.output import Output
from vj.boosting.recipe import TrainingConfig
from vj.cli.train import main

SMALL = [
    "--window",
    "12x12",
    "--stages",
    "2",
    "--positives-per-stage",
    "80",
    "--negatives-per-stage",
    "100",
    "--max-weak-count",
    "6",
    "--seed",
    "3",
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "faces").mkdir()
    (folder / "photos").mkdir()
    for k, face in enumerate(data.lfw_subset()[:100]):
        cv2.imwrite(str(folder / f"faces/{k}.png"), np.rint(face * 255))
    cv2.imwrite(str(folder / "photos/gravel.png"), data.gravel()[:200, :200])
    cv2.imwrite(str(folder / "photos/coffee.png"), data.coffee()[:, :, 0])
    return folder


def _arguments(pictures, out):
    where = ["--positives", str(pictures / "faces"), "--backgrounds", str(pictures / "photos"), "--output", str(out)]
    return [*where, *SMALL]


def test_from_options_to_a_cascade(pictures, tmp_path, capsys):
    assert main(_arguments(pictures, tmp_path / "out")) == 0
    out = tmp_path / "out"
    cascade = vj.load(out / "cascade.xml")
    assert cascade.n_stages == 2
    assert cascade.window == (12, 12)
    reports = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    assert [r["weak_classifiers"] for r in reports] == cascade.stage_sizes.tolist()
    recipe = TrainingConfig.from_toml(out / "recipe.toml")
    assert (recipe.stages, recipe.seed, recipe.positives[0].path) == (2, 3, str(pictures / "faces"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "stage 2:" in captured.err
    left = {"cascade.xml", "report.jsonl", "recipe.toml", "features.png", "stages.png", "positives.png"}
    assert left <= {p.name for p in out.iterdir()}
    held_out = {Path(name).name for name in (out / "held_out.txt").read_text().split()}
    assert 0 < len(held_out) < len(list((pictures / "faces").iterdir()))
    assert held_out <= {p.name for p in (pictures / "faces").iterdir()}
    # The recipe that was written trains the same cascade again.
    assert main([str(out / "recipe.toml"), "--output", str(tmp_path / "again"), "--threads", "1", "--quiet"]) == 0
    assert (tmp_path / "again/cascade.xml").read_bytes() == (out / "cascade.xml").read_bytes()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--positives", "missing"], "missing"),
        (["--backgrounds", "missing"], "missing"),
        (["--min-hit-rate", "2"], "expected min_hit_rate between 0.5 and 1.0, got 2.0"),
        (["--window", "12"], "expected window as"),
        (["--where", "frontal"], "COLUMN=VALUE"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(pictures, tmp_path, capsys, changes, message):
    assert main([*_arguments(pictures, tmp_path / "out"), "--quiet", *changes]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vj-train: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_lists_for_stages_on_the_command_line(pictures, tmp_path):
    changes = ["--max-weak-count", "2,3", "--max-false-alarm-rate", "0.001", "--quiet"]
    assert main([*_arguments(pictures, tmp_path / "out"), *changes]) == 0
    cascade = vj.load(tmp_path / "out/cascade.xml")
    assert cascade.stage_sizes.tolist() == [2, 3][: cascade.n_stages]


def test_a_ctrl_c_that_python_ignores_still_stops(pictures, tmp_path, monkeypatch, capsys):
    """An interrupt that falls into a finalizer is printed and dropped; the next step must raise it again."""

    class Finalized:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            # The handler runs before the next instruction, inside this finalizer.
            sum(range(1000))

    original = Output.write

    def write(self, cascade, *others):
        original(self, cascade, *others)
        if cascade.n_stages == 1:
            Finalized()

    monkeypatch.setattr(Output, "write", write)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    assert main([*_arguments(pictures, tmp_path / "out"), "--stages", "9"]) == 0
    assert "the same command resumes after them" in capsys.readouterr().err
    assert vj.load(tmp_path / "out/cascade.xml").n_stages == 1


def test_nothing_to_do(capsys):
    assert main([]) == 2
    assert "expected positives" in capsys.readouterr().err


def test_unknown_key_of_a_recipe(tmp_path, capsys):
    (tmp_path / "r.toml").write_text("stagse = 3\n")
    assert main([str(tmp_path / "r.toml")]) == 2
    assert "'stagse' = 3" in capsys.readouterr().err


def test_help_does_not_wait_for_the_compiler():
    """No import of numba, OpenCV or matplotlib is what keeps it fast."""
    code = (
        "import sys; from vj.cli.train import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "bad = {'numba', 'cv2', 'matplotlib', 'skimage'} & set(sys.modules); assert not bad, bad"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env={**os.environ}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--max-false-alarm-rate" in done.stdout


def test_screened_backgrounds_wait_for_a_person(tmp_path, capsys):
    """A cascade sets the photo with a face aside; a person takes another one back in."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "coffee", "gravel"):
        cv2.imwrite(str(folder / f"{name}.png"), np.atleast_3d(getattr(data, name)())[:, :, ::-1])
    (folder / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    where = ["--positives", "skimage:faces", "--backgrounds", str(folder), "--output", str(out)]
    # Few faces against few negatives: at the default hit rate a stage may reject nothing, and the run ends with none.
    arguments = [*where, *SMALL, "--screen-backgrounds", "frontalface", "--stages", "1", "--min-hit-rate", "0.9"]
    assert main(arguments) == 0
    text = (out / "set-aside.txt").read_text()
    assert [line for line in text.splitlines() if not line.startswith("#")] == [str(folder / "astronaut.png")]
    assert cv2.imread(str(out / "set-aside.png")).shape[1] == 100
    told = capsys.readouterr().err
    assert "1 of 4 backgrounds are set aside" in told
    assert "1 backgrounds could not be used, the first: " in told
    first = (out / "cascade.xml").read_bytes()
    # The list stands as the person left it, and another list makes other pictures of the same recipe.
    (out / "set-aside.txt").write_text(f"{folder / 'coffee.png'}\n")
    assert main(arguments) == 2
    assert "backgrounds: other pictures" in capsys.readouterr().err
    assert main([*arguments, "--restart"]) == 0
    assert (out / "set-aside.txt").read_text() == f"{folder / 'coffee.png'}\n"
    assert (out / "cascade.xml").read_bytes() != first
    # All set aside is an error, not a training on nothing.
    (out / "set-aside.txt").write_text("".join(f"{path}\n" for path in sorted(folder.iterdir())))
    assert main([*arguments, "--restart"]) == 2
    assert "backgrounds without the object" in capsys.readouterr().err
