"""``vj-train`` as a user meets it."""

import json
import os
import re
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
from vj.boosting.recipe import PositiveSource, TrainingConfig
from vj.cli.train import _config, _parser, main

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
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "faces").mkdir()
    (folder / "photos").mkdir()
    for k, face in enumerate(data.lfw_subset()[:100]):
        cv2.imwrite(str(folder / f"faces/{k}.png"), np.rint(face * 255))
    cv2.imwrite(str(folder / "photos/gravel.png"), data.gravel()[:200, :200])
    cv2.imwrite(str(folder / "photos/coffee.png"), data.coffee()[:, :, 0])
    return folder


def _arguments(images, out):
    where = ["--positives", str(images / "faces"), "--backgrounds", str(images / "photos"), "--output", str(out)]
    return [*where, *SMALL]


def test_from_options_to_a_cascade(images, tmp_path, capsys):
    assert main(_arguments(images, tmp_path / "out")) == 0
    out = tmp_path / "out"
    cascade = vj.load(out / "cascade.xml")
    assert cascade.n_stages == 2
    assert cascade.window == (12, 12)
    reports = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    assert [r["weak_classifiers"] for r in reports] == cascade.stage_sizes.tolist()
    recipe = TrainingConfig.from_toml(out / "recipe.toml")
    assert (recipe.stages, recipe.seed, recipe.positives[0].path) == (2, 3, str(images / "faces"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "stage 2:" in captured.err
    left = {"cascade.xml", "report.jsonl", "recipe.toml", "features.png", "stages.png", "positives.png"}
    assert left <= {p.name for p in out.iterdir()}
    held_out = {Path(name).name for name in (out / "held_out.txt").read_text().split()}
    assert 0 < len(held_out) < len(list((images / "faces").iterdir()))
    assert held_out <= {p.name for p in (images / "faces").iterdir()}
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
        (["--where", "frontal"], "expected --where COLUMN=VALUE, got 'frontal'"),
        (["--set", "seed"], "expected --set KEY=VALUE, got 'seed'"),
        (["--set", "=3"], "expected --set KEY=VALUE, got '=3'"),
        (["--set", "sed=3"], "expected a key of a recipe (one of positives, "),
        (["--set", "sed=3"], "got 'sed' = 3"),
        (["--set", "min_hit_rate=2"], "expected min_hit_rate between 0.5 and 1.0, got 2.0"),
        (["--set", "min_hit_rate=high"], "expected min_hit_rate to be a number, got 'high'"),
        (["--set", "stages=3\nseed=4"], "expected stages to be an integer, got '3\\nseed=4'"),
        (["--set", "seed.x=3"], "got 'seed.x': only positives have keys of their own"),
        (["--set", "positives.1.margin=0.1"], "expected a source from 0 to 0, got positives.1.margin"),
        (["--set", "positives.0=3"], "expected positives.KEY or positives.N.KEY, got positives.0"),
        (["--set", "positives.margins=0.1"], "expected a key of positives (one of path, "),
        (["--set", "positives.margin=3"], "expected positives.margin between -0.4 and 2.0, got 3.0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(images, tmp_path, capsys, changes, message):
    assert main([*_arguments(images, tmp_path / "out"), "--quiet", *changes]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vj-train: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_soften_sets_thresholds_without_training(images, tmp_path, capsys):
    given = [*_arguments(images, tmp_path / "out"), "--max-weak-count", "3,40", "--max-false-alarm-rate", "0.001"]
    given += ["--set=holdout=0.5", "--jitter", "3"]
    assert main([*given, "--quiet"]) == 0
    again = [*given, "--soften", str(tmp_path / "out/cascade.xml")]
    assert main(again) == 2
    assert "expected the share of hits that --soften may lose" in capsys.readouterr().err
    assert main([*again, "--set", "soft_loss=0.1"]) == 0
    assert "soft thresholds from 200 held-out positives in " in capsys.readouterr().err
    before, after = vj.load(tmp_path / "out/cascade.xml"), vj.load(tmp_path / "out/cascade-soft.xml")
    assert before.soft is None
    assert after.soft.trees.tolist() == [k for k in (3 + 15, 3 + 31) if k < before.n_trees - 1]
    assert after.exact() == before
    # As the training itself would have done at its end.
    assert main([*given[:4], "--output", str(tmp_path / "new"), *given[6:], "--set", "soft_loss=0.1", "--quiet"]) == 0
    assert vj.load(tmp_path / "new/cascade.xml") == after
    assert main([*again, "--set", "soft_loss=0.1", "--window", "14x14"]) == 2
    assert "expected a cascade of the recipe's window of 14x14, got 12x12" in capsys.readouterr().err


def test_lists_for_stages_on_the_command_line(images, tmp_path):
    changes = ["--max-weak-count", "2,3", "--max-false-alarm-rate", "0.001", "--quiet"]
    assert main([*_arguments(images, tmp_path / "out"), *changes]) == 0
    cascade = vj.load(tmp_path / "out/cascade.xml")
    assert cascade.stage_sizes.tolist() == [2, 3][: cascade.n_stages]


def test_every_setting_can_be_set(tmp_path, monkeypatch):
    """As options, as settings and in a recipe: the same configuration."""
    (tmp_path / "r.toml").write_text(
        'holdout = 0.09\nmax_depth = [1, 2]\nmirror = true\nboosting = "real"\nwindow = "20x24"\n'
        'backgrounds = "bg"\n[[positives]]\npath = "a"\nmargin = 0.1\nwhere = { frontal = "1", size = "9..12" }\n'
        '[[positives]]\npath = "b"\nmargin = 0.2\nclasses = ["face", "head"]\nwhere = { frontal = "1" }\n'
    )
    wanted = TrainingConfig.from_toml(tmp_path / "r.toml")
    (tmp_path / "plain.toml").write_text('backgrounds = "bg"\npositives = ["a", "b"]\n')
    given = ["holdout=0.09", "max_depth=1,2", "mirror=true", "boosting=real", "window=20x24", "positives.margin=0.1"]
    given += ["positives.1.margin=0.2", 'positives.1.classes=["face", "head"]', "positives.where.frontal=1"]
    given += ["positives.0.where.size=9..12"]
    texts = [part for text in given for part in ("--set", text)]
    assert _config(_parser().parse_args([str(tmp_path / "plain.toml"), *texts])) == wanted
    monkeypatch.chdir(tmp_path)
    options = [
        "--positives=a",
        "--positives=b",
        "--backgrounds=bg",
        "--mirror",
        "--max-depth=1,2",
        "--set=boosting=real",
    ]
    options += ["--window=20x24", "--where=frontal=1", "--set=positives.1.classes=face,head", "--set=holdout=9e-2"]
    options += ["--set=positives.0.margin=0.1", "--set=positives.1.margin=.2", "--set=positives.0.where.size=9..12"]
    found = _config(_parser().parse_args(options))
    assert found.positives[1].classes == ("face,head",)  # a text, not TOML
    options = [o.replace("=face,head", "='face','head'") for o in options]
    assert _config(_parser().parse_args(options)) == wanted
    assert _config(_parser().parse_args([*options, "--set=output=7", "--set=backgrounds=8"])).output == str(
        tmp_path / "7"
    )
    # Options for positives reach the sources of a recipe, too.
    options = ["--format=csv", "--class=face", "--where=frontal=1"]
    for source in _config(_parser().parse_args([str(tmp_path / "plain.toml"), *options])).positives:
        assert (source.format, source.classes, source.where) == ("csv", ("face",), {"frontal": "1"})


def test_help_fits_two_screens_and_lists_every_setting(capsys, monkeypatch):
    from dataclasses import fields

    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert 20 <= text.count("\n  --") <= 30
    for field in [*fields(TrainingConfig), *fields(PositiveSource)]:
        names = {"classes": "--class", "path": "--positives"}
        options = f"--{field.name.replace('_', '-')} ", f"--{field.name},", f"  {field.name} ", names.get(field.name)
        assert any(option and option in text for option in options), field.name


def test_a_ctrl_c_that_python_ignores_still_stops(images, tmp_path, monkeypatch, capsys):
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
    assert main([*_arguments(images, tmp_path / "out"), "--stages", "9"]) == 0
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
        "import sys; from vj.cli.train import _config, _parser, main\n"
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


def test_names_that_are_not_utf_8_train_to_the_end(images, tmp_path):
    """Linux allows any bytes in a name; recipe and lists must hold them and read back."""
    root = os.fsencode(tmp_path) + b"/data\xff"
    try:
        for folder in (b"faces", b"photos"):
            Path(os.fsdecode(root + b"/" + folder)).mkdir(parents=True)
            for path in sorted((images / os.fsdecode(folder)).iterdir()):
                copy = root + b"/" + folder + b"/\xe9t\xe9 " + os.fsencode(path.name)
                Path(os.fsdecode(copy)).write_bytes(path.read_bytes())
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    Path(os.fsdecode(root + b"/photos/broken\xfe.png")).write_bytes(b"no image")
    data, out = os.fsdecode(root), tmp_path / os.fsdecode(b"out\xfd")
    where = ["--positives", f"{data}/faces", "--backgrounds", f"{data}/photos", "--output", str(out)]

    def train(*arguments):
        # A process of its own: it reads the bytes of its arguments and has the stderr that users have.
        command = [sys.executable, "-m", "vj.cli.train", *arguments]
        root = Path(__file__).resolve().parent.parent
        done = subprocess.run(command, capture_output=True, cwd=root, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stderr.decode()

    told = train(*where, *SMALL, "--min-hit-rate", "0.9")
    assert "1 backgrounds could not be used, the first: " in told
    held = (out / "held_out.txt").read_bytes().splitlines()
    assert held
    assert all(name.startswith(root + b"/faces/\xe9t\xe9 ") for name in held)
    assert all(Path(os.fsdecode(name)).exists() for name in held)
    recipe = TrainingConfig.from_toml(out / "recipe.toml")
    assert (recipe.positives[0].path, recipe.backgrounds) == (f"{data}/faces", (f"{data}/photos",))
    # A recipe holds such names, and so does a list of backgrounds.
    train(str(out / "recipe.toml"), "--restart")
    (tmp_path / "list.txt").write_bytes(root + b"/photos/\xe9t\xe9 gravel.png\n")
    train(*where[:2], "--backgrounds", str(tmp_path / "list.txt"), "--output", str(tmp_path / "listed"), *SMALL)


def test_a_stage_is_one_short_line_and_more_with_verbose(images, tmp_path, capsys):
    assert main([*_arguments(images, tmp_path / "out"), "--stages", "1"]) == 0
    (short,) = [line for line in capsys.readouterr().err.splitlines() if "stage 1:" in line and "hit rate" in line]
    rate = r"\d+\.\d %"
    pattern = rf"\[ +\d+\.\d s\] stage 1: \d+ weak classifiers?, hit rate {rate}, false alarms {rate}, "
    assert re.fullmatch(pattern + r"1 window in [\d,]+ left", short)
    assert len(short) < 100
    assert main([*_arguments(images, tmp_path / "again"), "--stages", "1", "-v"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "stage 1:" in line and "hit rate" in line]
    assert lines[0].split("]", 1)[1] == short.split("]", 1)[1]
    assert re.search(r"\d+ positives \(hit rate .*\), \d+ held out, \d+ negatives from [\d,]+ windows", lines[1])
