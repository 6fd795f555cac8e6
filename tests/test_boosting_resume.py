"""Interrupted at any moment and started again, a run ends with the very cascade of an uninterrupted one."""

import hashlib
import io
import json
import os
import random
import shutil
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
def images():
    faces = np.rint(data.lfw_subset()[:100] * 255).astype(np.uint8)
    return faces, [data.gravel()[:150, :150], data.coffee()[:, :, 0], data.rocket()[:, :, 1]]


def _run(images, folder, stop=None, watch=None, **changes):
    """Train in this process; `stop` raises at that step of the progress. Returns the run and the number of steps.

    `watch` is called at each step of mining and boosting, once there is a checkpoint.
    """
    config = TrainingConfig.from_mapping({**RECIPE, **changes})
    steps = 0

    def progress(step):
        nonlocal steps
        steps += 1
        if watch is not None and step.kind in ("mining", "round") and (folder / "checkpoint/state.json").exists():
            watch()
        if steps == stop:
            raise Killed

    run = Training(
        config,
        positives=images[0],
        backgrounds=images[1],
        progress=progress,
        output=folder,
    )
    list(run)
    return run, steps


def _plain(reports):
    """Reports without the times."""
    return [{k: v for k, v in vars(r).items() if not k.endswith("seconds")} for r in reports]


@pytest.mark.parametrize(
    "changes", [{"pruning": 0.2}, {"features": "lbp", "stages": 2}, {"max_depth": 2, "boosting": "real"}]
)
def test_stopped_anywhere(images, tmp_path, monkeypatch, changes):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    whole, steps = _run(images, tmp_path / "whole", **changes)
    assert steps > 10
    for stop in [*range(2, steps, max(1, steps // 12)), steps]:
        folder = tmp_path / f"stop{stop}"
        with pytest.raises(Killed):
            _run(images, folder, stop, **changes)
        # A second interruption, soon after resuming.
        with pytest.raises(Killed):
            _run(images, folder, 3, **changes)
        run, _ = _run(images, folder, **changes)
        assert run.cascade == whole.cascade
        assert _plain(run.reports) == _plain(whole.reports)
        assert np.array_equal(run.negatives, whole.negatives)


def test_a_finished_run_stays_finished(images, tmp_path):
    run, _ = _run(images, tmp_path / "c")
    again, _ = _run(images, tmp_path / "c")
    assert again.finished
    assert again.cascade == run.cascade


def test_another_recipe_is_refused_with_the_differences(images, tmp_path):
    _run(images, tmp_path / "c", stages=1)
    with pytest.raises(InputError) as error:
        _run(images, tmp_path / "c", stages=1, boosting="real", seed=9)
    assert 'boosting: "real", not "gentle"; seed: 9, not 1' in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="positives: other images"):
        _run((images[0][::-1].copy(), images[1]), tmp_path / "c", stages=1)
    with pytest.raises(InputError, match="backgrounds: other images"):
        _run((images[0], images[1][:2]), tmp_path / "c", stages=1)
    # Threads and memory change no result and may change.
    _run(images, tmp_path / "c", stages=1, threads=1, memory_mb=8000)


def _spoil(folder, change, data=None):
    """Change the state as `change(table)` does; `data`, if given, becomes the array of negatives, hash and all."""
    folder /= "checkpoint"
    path = folder / "state.json"
    table = json.loads(path.read_text())
    table = change(table) or table
    if data is not None:
        (folder / table["negatives"]).write_bytes(data)
        table["sha256"] = hashlib.sha256(data).hexdigest()
    path.write_text(json.dumps(table))


def _refused(images, folder, words=""):
    with pytest.raises(InputError, match="expected a checkpoint that can be resumed") as error:
        _run(images, folder, stages=2)
    text = str(error.value)
    assert words in text
    assert "--restart" in text
    assert "\n" not in text
    assert len(text) < 900


@pytest.fixture(scope="module")
def stopped(images, tmp_path_factory):
    """Checkpoints of a run of two stages: in the second one's mining, its boosting, and at its end."""
    folder = tmp_path_factory.mktemp("stopped")
    seen = []

    def watch():
        table = json.loads((folder / "finished/checkpoint/state.json").read_text())
        phase, enough = table["phase"], table["scanned"] > 0
        if phase == "boosting":
            enough = len(table["trees"]) > 1
        if len(table["stages"]) == 1 and phase not in seen and enough:
            shutil.copytree(folder / "finished", folder / phase)
            seen.append(phase)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
        _run(images, folder / "finished", watch=watch, stages=2)
    assert seen == ["mining", "boosting"]
    return folder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "JSONDecodeError"),
        ('{"version": 3', "JSONDecodeError"),
        ("[]", ""),
        ('{"version": 99}', "version 99"),
        ("[" * 100_000, "RecursionError"),
        ('{"version": ' + "9" * 5000 + "}", ""),
        ("\xff", ""),
        ("null", ""),
    ],
)
def test_a_state_that_is_no_checkpoint(images, stopped, tmp_path, text, words):
    folder = shutil.copytree(stopped / "finished", tmp_path / "c")
    (folder / "checkpoint/state.json").write_bytes(text.encode("latin-1"))
    _refused(images, folder, words)


def test_a_state_that_is_no_file_or_too_large(images, stopped, tmp_path, monkeypatch):
    folder = shutil.copytree(stopped / "finished", tmp_path / "c")
    monkeypatch.setattr("vj.boosting.checkpoint._STATE_BYTES", 100)
    _refused(images, folder, "of at most 100 bytes")
    (folder / "checkpoint/state.json").unlink()
    os.mkfifo(folder / "checkpoint/state.json")
    _refused(images, folder, "a pipe")


def _set(*keys):
    """A change of one value of the state, by its keys; the last argument is the value."""

    def change(table):
        *path, last, value = keys
        for key in path:
            table = table[key]
        table[last] = value

    # What the test is called; the same in every process.
    change.__name__ = " ".join(map(str, keys))
    return change


@pytest.mark.parametrize("phase", ["mining", "boosting", "finished"])
@pytest.mark.parametrize(
    "change",
    [
        _set("phase", "dreaming"),
        _set("phase", ["mining"]),
        _set("negatives", "none.npy"),
        _set("negatives", "../state.json"),
        _set("negatives", "negatives-0123456789abcdef.npy"),
        _set("kept", 10**6),
        _set("kept", -1),
        _set("kept", 0),
        _set("visits", -5),
        _set("visits", "many"),
        _set("first_visit", 10**9),
        _set("scanned", 1.5),
        _set("hits", -1),
        _set("seconds", float("nan")),
        _set("mining_seconds", 10**400),
        _set("unreadable", [[99, "no such background"]]),
        _set("unreadable", [5]),
        _set("stages", [{"threshold": 1}]),
        _set("stages", 0, "threshold", float("inf")),
        _set("stages", 0, "threshold", 1e39),
        _set("stages", 0, "trees", []),
        _set("stages", 0, "trees", 0, "splits", []),
        _set("stages", 0, "trees", 0, "splits", 0, 0, 10**9),
        _set("stages", 0, "trees", 0, "splits", 0, 0, -1),
        _set("stages", 0, "trees", 0, "splits", 0, 0, 1.0),
        _set("stages", 0, "trees", 0, "splits", 0, 1, None),
        _set("stages", 0, "trees", 0, "splits", 0, 1, 1e300),
        _set("stages", 0, "trees", 0, "splits", 0, 2, [0] * 9),
        _set("stages", 0, "trees", 0, "splits", 0, 2, [2**31] * 8),
        _set("stages", 0, "trees", 0, "children", [[0, 7]]),
        _set("stages", 0, "trees", 0, "children", [[0, -2]]),
        _set("stages", 0, "trees", 0, "children", [[0, -(2**40)]]),
        _set("stages", 0, "trees", 0, "leaves", [1.0]),
        _set("stages", 0, "trees", 0, "leaves", [1.0, float("-inf")]),
        _set("reports", []),
        _set("reports", 0, "index", 1),
        _set("reports", 0, "weak_classifiers", 7.0),
        _set("reports", 0, "false_alarm_rate", 7.0),
        _set("reports", 0, "seconds", "long"),
        _set("reports", 0, "more", 1),
        _set("recipe", "window = 3"),
        _set("recipe", 3),
        _set("data", None),
    ],
    ids=lambda change: change.__name__[:60],
)
def test_what_no_run_can_have_written_is_refused_in_one_line(images, stopped, tmp_path, phase, change):
    folder = shutil.copytree(stopped / phase, tmp_path / "c")
    _spoil(folder, change)
    _refused(images, folder)


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


_HEADER = "{{'descr': '|u1', 'fortran_order': False, 'shape': {}, }}"


def _lying(shape, data=b""):
    header = _HEADER.format(shape).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ""),
        (b"\x93NUMPY", ""),
        (_lying("(1000000000000, 12, 12)"), "1000000000000"),
        (_lying("(-1, 12, 12)", bytes(144)), ""),
        (_lying("(150, 12, 12)", bytes(144)), "(150, 12, 12)"),
        (_lying("('a', 12, 12)"), ""),
        (_lying("(" * 80), ""),
        (_npy(np.zeros((150, 12, 12), np.int8)), "|i1"),
        (_npy(np.zeros((150, 12, 12), np.uint8, order="F")), ""),
        (_npy(np.zeros((100, 12, 18), np.uint8)), "(100, 12, 18)"),
        (_npy(np.zeros((200, 12, 12), np.uint8)), "at most"),
        (_npy(np.zeros((5, 12, 12), np.uint8)), ""),
        (_npy(np.array([object()] * 3)), ""),
    ],
    ids=range(13),
)
def test_headers_that_lie_about_the_negatives(images, stopped, tmp_path, data, words):
    folder = shutil.copytree(stopped / "boosting", tmp_path / "c")
    # As many as the rest of the state has: the header must be what is refused.
    _spoil(folder, lambda table: None, data)
    _refused(images, folder, words)


def test_too_few_negatives_for_the_run_that_wrote_them(images, stopped, tmp_path):
    """Counts that agree with each other, but boosting begins with fewer only when all backgrounds are used up."""
    folder = shutil.copytree(stopped / "boosting", tmp_path / "c")
    (path,) = (folder / "checkpoint").glob("negatives-*.npy")
    kept = json.loads((folder / "checkpoint/state.json").read_text())["kept"]
    few = np.load(path)[: kept + 5]
    assert len(few) < RECIPE["negatives_per_stage"]
    _spoil(folder, lambda table: None, _npy(few))
    _refused(images, folder, f"{kept + 5} of 150 negatives, with backgrounds left")


def test_any_value_of_a_checkpoint_may_be_wrong(images, stopped, tmp_path):
    """Seeded: each value in turn replaced by an odd one; the run is refused in one line or ends as usual."""
    rng = random.Random(5)
    odd = [None, True, -1, 0, 1, 3, 2**31, 2**63, 1e308, -0.5, "", "x", [], {}, [[]], float("nan"), float("-inf")]
    refused = 0
    for k in range(60):
        folder = shutil.copytree(stopped / rng.choice(["mining", "boosting"]), tmp_path / f"c{k}")

        def change(table):
            while True:
                key = rng.choice(list(table) if isinstance(table, dict) else range(len(table)))
                if not isinstance(table[key], dict | list) or not table[key] or rng.random() < 0.2:
                    table[key] = rng.choice(odd)
                    return
                table = table[key]

        _spoil(folder, change)
        try:
            _run(images, folder, stages=2)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 30 < refused < 60


def test_an_array_that_is_not_the_checkpoints_is_refused(images, tmp_path):
    """In containers process ids recur: names made of them let a resumed run overwrite the array of the state."""
    _run(images, tmp_path / "c", stages=2)
    (path,) = (tmp_path / "c/checkpoint").glob("negatives-*.npy")
    assert str(os.getpid()) not in path.name.split("-")
    for content in (b"", path.read_bytes()[:-1] + b"x"):
        path.write_bytes(content)
        _refused(images, tmp_path / "c", "another array of negatives")


def test_what_a_killed_run_was_writing_in_its_folder_goes(images, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    mine = {".vj-0123456789abcdef.tmp", ".vj-00112233445566aa.png", "cascade.xml", "notes.tmp", ".vj-my-notes.tmp"}
    for name in mine:
        (out / name).write_text("begun")
    config = TrainingConfig.from_mapping({**RECIPE, "output": str(out)})
    list(vj.Training(config, positives=images[0], backgrounds=images[1]))
    left = {path.name for path in out.iterdir()}
    assert {"cascade.xml", "notes.tmp", ".vj-my-notes.tmp"} <= left
    assert not left & {".vj-0123456789abcdef.tmp", ".vj-00112233445566aa.png"}


def test_what_a_killed_run_was_writing_goes(images, tmp_path):
    folder = tmp_path / "c/checkpoint"
    folder.mkdir(parents=True)
    (folder / ".vj-0123456789abcdef.tmp").touch()
    _run(images, tmp_path / "c", stages=1)
    assert len(list(folder.iterdir())) == 2


# --- the command, killed for real -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory, images):
    root = tmp_path_factory.mktemp("images")
    for name, items in (("faces", images[0]), ("photos", images[1])):
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


def test_a_second_run_in_the_folder_is_refused_and_the_first_is_not_disturbed(images, folder, tmp_path, capsys):
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
            _run(images, out)
    finally:
        process.send_signal(signal.SIGCONT)
        process.communicate()
    assert process.returncode == 0
    assert (out / "cascade.xml").read_bytes() == (tmp_path / "whole/cascade.xml").read_bytes()
    assert not list(out.rglob(".*"))


def test_restart_leaves_a_run_in_python_alone(images, folder, tmp_path, capsys):
    training = Training(
        TrainingConfig.from_mapping(RECIPE), positives=images[0], backgrounds=images[1], output=tmp_path / "out"
    )
    loop = iter(training)
    next(loop)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert main([*_arguments(folder, tmp_path / "out"), "--quiet", "--restart"]) == 2
    assert f"in use by process {os.getpid()} on " in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    loop.close()


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


def test_replaced_backgrounds_are_noticed_whatever_their_names(folder, tmp_path, capsys):
    """Same names, same sizes of files: it is the contents that count, and only they."""
    own = shutil.copytree(folder, tmp_path / "own")
    arguments = [*_arguments(own, tmp_path / "out"), "--quiet", "--stages=1"]
    assert main(arguments) == 0
    photos = sorted((own / "photos").iterdir())
    contents = [path.read_bytes() for path in photos]
    photos[0].write_bytes(contents[0][:-20] + bytes(20))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "got backgrounds: other images" in error
    photos[0].write_bytes(contents[0])
    for path in photos:
        os.utime(path, (1, 1))
    assert main(arguments) == 0
    # Another setting makes other windows of the same images: the setting is what is named, and nothing else.
    assert main([*arguments, "--jitter=1", "--set=positives.margin=0.1"]) == 2
    error = capsys.readouterr().err
    assert "got positives[0].margin: 0.1, not 0.0; jitter: 1, not -1 (" in error


def test_restart_forgets_the_earlier_run(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*_arguments(folder, out), "--quiet", "--stages=1"]) == 0
    assert main([*_arguments(folder, out), "--quiet", "--stages=2"]) == 2
    assert "stages: 2, not 1" in capsys.readouterr().err
    assert main([*_arguments(folder, out), "--quiet", "--stages=2", "--restart"]) == 0
    assert vj.load(out / "cascade.xml").n_stages == 2
