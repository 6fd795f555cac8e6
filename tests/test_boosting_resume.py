"""Interrupted at any moment and started again, a run ends with the very cascade of an uninterrupted one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

import vj
import vj.boosting.run as training
from vj.boosting.recipe import TrainingConfig
from vj.boosting.run import Training
from vj.cli.train import main
from vj.errors import InputError

RECIPE = {
    "window": "12x12",
    "stages": 3,
    "positives_per_stage": 120,
    "negatives_per_stage": 150,
    "max_false_alarm_rate": 0.3,
    "max_weak_count": 8,
    "mirror": True,
}


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def pictures():
    faces = np.rint(data.lfw_subset()[:100] * 255).astype(np.uint8)
    return faces, [data.gravel()[:150, :150], data.coffee()[:, :, 0], data.rocket()[:, :, 1]]


def _run(pictures, folder, stop=None, **changes):
    """Train in this process; `stop` raises at that step of the progress. Returns the run and the number of steps."""
    config = TrainingConfig.from_mapping({**RECIPE, **changes})
    steps = 0

    def progress(step):
        nonlocal steps
        steps += 1
        if steps == stop:
            raise Killed

    run = Training(
        config,
        positives=pictures[0],
        backgrounds=pictures[1],
        progress=progress,
        output=folder,
    )
    list(run)
    return run, steps


def _plain(reports):
    """Reports without the times."""
    return [{k: v for k, v in vars(r).items() if not k.endswith("seconds")} for r in reports]


@pytest.mark.parametrize(
    "changes", [{"pruning": 0.2}, {"features": "lbp", "stages": 2}, {"max_depth": 2, "boosting": "logit"}]
)
def test_stopped_anywhere(pictures, tmp_path, monkeypatch, changes):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    whole, steps = _run(pictures, tmp_path / "whole", **changes)
    assert steps > 10
    for stop in [*range(2, steps, max(1, steps // 12)), steps]:
        folder = tmp_path / f"stop{stop}"
        with pytest.raises(Killed):
            _run(pictures, folder, stop, **changes)
        # A second interruption, soon after going on.
        with pytest.raises(Killed):
            _run(pictures, folder, 3, **changes)
        run, _ = _run(pictures, folder, **changes)
        assert run.cascade == whole.cascade
        assert _plain(run.reports) == _plain(whole.reports)
        assert np.array_equal(run.negatives, whole.negatives)


def test_a_finished_run_stays_finished(pictures, tmp_path):
    run, _ = _run(pictures, tmp_path / "c")
    again, _ = _run(pictures, tmp_path / "c")
    assert again.finished
    assert again.cascade == run.cascade


def test_another_recipe_is_refused_with_the_differences(pictures, tmp_path):
    _run(pictures, tmp_path / "c", stages=1)
    with pytest.raises(InputError) as error:
        _run(pictures, tmp_path / "c", stages=1, boosting="real", seed=9)
    assert 'boosting: "real", not "gentle"; seed: 9, not 1' in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="positives: other pictures"):
        _run((pictures[0][::-1].copy(), pictures[1]), tmp_path / "c", stages=1)
    with pytest.raises(InputError, match="backgrounds: other pictures"):
        _run((pictures[0], pictures[1][:2]), tmp_path / "c", stages=1)
    # Threads and memory change no result and may change.
    _run(pictures, tmp_path / "c", stages=1, threads=1, memory_mb=100)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"version": 2', '"version": 99'),
        lambda text: text.replace('"phase": "finished"', '"phase": "dreaming"'),
        lambda text: json.dumps({**json.loads(text), "negatives": "none.npy"}),
        lambda text: json.dumps({**json.loads(text), "stages": [{"threshold": 1}]}),
    ],
)
def test_a_spoilt_checkpoint_is_refused_in_one_line(pictures, tmp_path, spoil):
    _run(pictures, tmp_path / "c", stages=1)
    path = tmp_path / "c/checkpoint/state.json"
    path.write_text(spoil(path.read_text()))
    with pytest.raises(InputError, match="checkpoint") as error:
        _run(pictures, tmp_path / "c", stages=1)
    assert "\n" not in str(error.value)


def test_an_array_that_is_not_the_checkpoints_is_refused(pictures, tmp_path):
    """In containers process ids recur: names made of them let a resumed run overwrite the array of the state."""
    _run(pictures, tmp_path / "c", stages=1)
    (path,) = (tmp_path / "c/checkpoint").glob("negatives-*.npy")
    assert str(os.getpid()) not in path.name.split("-")
    for content in (b"", path.read_bytes()[:-1] + b"x"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="own array of negatives"):
            _run(pictures, tmp_path / "c", stages=1)


# --- the command, killed for real -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures):
    root = tmp_path_factory.mktemp("pictures")
    for name, items in (("faces", pictures[0]), ("photos", pictures[1])):
        (root / name).mkdir()
        for k, item in enumerate(items):
            cv2.imwrite(str(root / name / f"{k:03d}.png"), item)
    return root


def _arguments(folder, out):
    where = ["--positives", str(folder / "faces"), "--backgrounds", str(folder / "photos"), "--output", str(out)]
    settings = [f"--{key.replace('_', '-')}={value}" for key, value in RECIPE.items() if key != "mirror"]
    return [*where, *settings, "--mirror"]


def _start(arguments):
    code = (
        "import sys, vj.boosting.run as t; t.CHECKPOINT_SECONDS = 0.0\n"
        f"from vj.cli.train import main; sys.exit(main({arguments!r}))"
    )
    root = Path(__file__).resolve().parent.parent
    return subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE, env={**os.environ})


def test_killed_at_random_points(folder, tmp_path):
    assert main([*_arguments(folder, tmp_path / "whole"), "--quiet"]) == 0
    out, rng = tmp_path / "out", random.Random(7)
    kills = 0
    for _ in range(4):
        process = _start(_arguments(folder, out))
        state = out / "checkpoint/state.json"
        before = state.stat().st_mtime_ns if state.exists() else 0
        # Wait for the next checkpoint, so that every life gets somewhere, then a random while.
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.25))
        kills += process.poll() is None
        process.kill()
        process.communicate()
        if (out / "cascade.xml").exists():
            assert vj.load(out / "cascade.xml").n_stages <= 3
    assert kills >= 1
    assert main([*_arguments(folder, out), "--quiet"]) == 0
    assert (out / "cascade.xml").read_bytes() == (tmp_path / "whole/cascade.xml").read_bytes()
    assert not [p for p in out.rglob("*") if p.name.endswith(".tmp") and p.parent == out]


def test_a_second_run_in_the_folder_is_refused_and_the_first_is_not_disturbed(pictures, folder, tmp_path, capsys):
    assert main([*_arguments(folder, tmp_path / "whole"), "--quiet"]) == 0
    out = tmp_path / "out"
    process = _start(_arguments(folder, out))
    while process.poll() is None and not (out / "checkpoint/state.json").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)
    try:
        before = sorted(p.name for p in out.rglob("*"))
        for extra in ([], ["--restart"], ["--stages=1"]):
            assert main([*_arguments(folder, out), "--quiet", *extra]) == 2
            error = capsys.readouterr().err
            assert f"in use by process {process.pid} on " in error
            assert error.count("\n") == 1
        assert sorted(p.name for p in out.rglob("*")) == before
        with pytest.raises(InputError, match=f"in use by process {process.pid} on "):
            _run(pictures, out)
    finally:
        process.send_signal(signal.SIGCONT)
        process.communicate()
    assert process.returncode == 0
    assert (out / "cascade.xml").read_bytes() == (tmp_path / "whole/cascade.xml").read_bytes()
    assert not list(out.rglob(".*"))


def test_ctrl_c_leaves_the_finished_stages(folder, tmp_path):
    out = tmp_path / "out"
    arguments = [*_arguments(folder, out), "--stages=100", "--max-false-alarm-rate=0.05"]
    process = _start(arguments)
    while process.poll() is None and not (out / "cascade.xml").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 0, error.decode()
    assert b"Traceback" not in error
    assert 1 <= vj.load(out / "cascade.xml").n_stages < 100
    assert b"the same command resumes after them" in error


def test_restart_forgets_the_earlier_run(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*_arguments(folder, out), "--quiet", "--stages=1"]) == 0
    assert main([*_arguments(folder, out), "--quiet", "--stages=2"]) == 2
    assert "stages: 2, not 1" in capsys.readouterr().err
    assert main([*_arguments(folder, out), "--quiet", "--stages=2", "--restart"]) == 0
    assert vj.load(out / "cascade.xml").n_stages == 2
