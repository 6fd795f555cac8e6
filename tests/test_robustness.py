"""The quick part of the robustness campaign: the first inputs of each kind, and kills of a training run."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _attack_cascades as cascades
from benchmarks import _attack_labels as labels
from benchmarks import _attack_runs as runs
from benchmarks import _campaign as campaign
from benchmarks import _cases as cases
from benchmarks import _fuzz, robustness
from benchmarks import _kills as kills
from benchmarks import _mutants as mutants
from benchmarks import _targets as targets
from vj.boosting.recipe import TrainingConfig
from vj.errors import InputError

COUNTS = {"cascades": 120, "images": 250, "labels": 400, "recipes": 300, "command lines": 30, "checkpoints": 30}


@pytest.fixture(scope="module", autouse=True)
def compiled():
    targets.make_seeds()


@pytest.mark.parametrize("name", targets.TARGETS)
def test_corrupt_inputs_are_refused_in_one_line_or_used_rightly(name, tmp_path):
    kinds = set()
    for k in range(COUNTS[name]):
        folder = tmp_path / str(k)
        folder.mkdir()
        outcome = campaign.attempt(name, campaign.make(name, 0, k), folder)
        assert outcome.kind in (campaign.LOADED, campaign.REFUSED), f"{name} {k}: {outcome}"
        assert outcome.peak_mb <= campaign.MEMORY_MB, f"{name} {k}: {outcome}"
        kinds.add(outcome.kind)
    # Checkpoints have check sums: hardly a corrupt one is used.
    assert kinds == {campaign.LOADED, campaign.REFUSED} or name == "checkpoints"


def test_cases_follow_from_the_seed():
    for name in targets.TARGETS:
        hashes = [campaign.digest(campaign.make(name, seed, k)) for seed, k in ((0, 0), (0, 0), (0, 1), (1, 0))]
        assert hashes[0] == hashes[1]
        assert len(set(hashes)) == 3, name


def test_good_inputs_of_every_kind_are_used(tmp_path):
    for k, data in enumerate(cascades.cascades()[0]):
        (tmp_path / "cascade.xml").write_bytes(data)
        targets.TARGETS["cascades"].attempt(cases.Case({"cascade.xml": data}), tmp_path)
        assert k < 10
    for suffix, data in cascades.images():
        (tmp_path / f"image{suffix}").write_bytes(data)
        case = cases.Case({f"image{suffix}": data})
        if suffix == ".gif":
            continue
        targets.TARGETS["images"].attempt(case, tmp_path)
    for k, files in enumerate(runs.checkpoints()):
        folder = tmp_path / f"checkpoint{k}"
        folder.mkdir()
        for file, data in files.items():
            (folder / file).write_bytes(data)
        targets.TARGETS["checkpoints"].attempt(cases.Case(files), folder)
    for name, files in labels.labels().items():
        folder = tmp_path / name
        folder.mkdir()
        png = cascades.images()[0][1]
        for file, data in {**files, "a.png": png, "b.png": png}.items():
            (folder / file).write_bytes(data)
        targets.TARGETS["labels"].attempt(cases.Case(files, (name,)), folder)


FAULTS = {
    "hang": lambda folder: sum(1 for _ in iter(int, 1)),
    "crash": lambda folder: __import__("os").kill(__import__("os").getpid(), 11),
    "memory": lambda folder: np.ones(100_000_000).sum(),
    "foreign": lambda folder: {}["none"],
    "wrong": lambda folder: (_ for _ in ()).throw(cases.Wrong("differs")),
    "refused": lambda folder: (_ for _ in ()).throw(InputError("expected this, got that")),
    "loaded": lambda folder: None,
}


def test_faults_are_counted_and_survived(tmp_path, monkeypatch):
    """Each kind of fault among good cases, in one campaign that is stopped and resumed in between."""
    names = list(FAULTS)

    def make(rng):
        return cases.Case({"x": rng.bytes(4)}, (names[made.setdefault("k", 0) % len(names)],))

    made = {}
    monkeypatch.setattr(campaign, "make", lambda target, seed, k: cases.Case({"x": b"1"}, (names[k % len(names)],)))
    monkeypatch.setattr(campaign, "KILL_SECONDS", 1.0)
    monkeypatch.setattr(campaign, "HANG_SECONDS", 0.9)
    target = cases.Target(make, lambda case, folder: FAULTS[case.arguments[0]](folder), 1.0)
    monkeypatch.setitem(campaign.TARGETS, "test", target)
    notes = []
    campaign.run("test", 0, 4, tmp_path, notes.append)
    tally = campaign.run("test", 0, 14, tmp_path, notes.append)
    found = asdict(tally)
    assert found["tried"] == 14
    assert (found["crashed"], found["foreign"], found["wrong"], found["refused"]) == (2, 2, 2, 2)
    # A system that reclaims memory early, or does not report it, sees fewer of the heavy ones.
    assert found["slow"] >= 2 and found["heavy"] <= 2
    assert 8 <= len(notes) <= 10
    kept = sorted(int(path.name) for path in (tmp_path / "failing" / "test").iterdir())
    assert kept[:2] == [0, 1] and len(kept) == len(notes)
    assert campaign.run("test", 0, 14, tmp_path, notes.append) == tally


@pytest.mark.parametrize("changes", kills.CHANGES)
def test_recipes_that_are_killed_can_be_trained(changes):
    assert TrainingConfig.from_mapping({**runs.TINY, **changes, "output": "out"}).stages >= 1


def test_kills_would_see_a_state_that_is_not_whole():
    """With a checkpoint that holds other thresholds than it was given, a resumed run differs."""
    code = """
import numpy as np
from vj.boosting.stage import Stage
from vj.boosting.checkpoint import Checkpoint
from benchmarks import _kills
load = Checkpoint.load
def changed(self):
    state = load(self)
    if state is not None:
        state.stages = [Stage(s.trees, np.float32(s.threshold + 0.25)) for s in state.stages]
    return state
Checkpoint.load = changed
_kills.CHANGES = _kills.CHANGES[:1]
found = _kills.main(2, 0)
assert found["resumed to the same bytes"] < found["kills"] == 2, found
"""
    root = str(Path(kills.__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_check_sums_of_a_png_are_put_right():
    data = cascades.images()[0][1]
    corrupt = bytearray(data)
    corrupt[20] ^= 1
    assert mutants.fix_png(data) == data
    assert mutants.fix_png(bytes(corrupt))[8:25] == bytes(corrupt)[8:25]
    assert mutants.fix_png(bytes(corrupt))[29:33] != data[29:33]


def test_the_campaign_prints_a_table_resumes_killed_runs_and_keeps_out_of_the_project(tmp_path, capsys):
    assert robustness.main([str(Path(robustness.__file__).parent / "x")]) == 2
    arguments = [str(tmp_path), "--count", "200", "--only", "recipes", "--only", "kills", "--kills", "2", "--seed", "0"]
    assert robustness.main(arguments) == 0
    out, err = capsys.readouterr()
    assert "| recipes |    20 |" in out
    assert "2 runs killed, 2 resumed to the same bytes" in out
    assert "recipes: 20 tried, 0 faults" in err


def test_a_finished_fuzzer_still_knows_what_it_covered(tmp_path, monkeypatch):
    """A campaign that resumes finds its inputs tried, and starts a process that prints no coverage."""
    tally = {"tried": 5, "crashed": 0, "reasons": {}}
    said = iter(["#5 NEW cov: 7 ft: 9", "#5 DONE cov: 12 ft: 20", ""])

    def process(command, **_):
        (tmp_path / "fuzz/yaml/tally.json").write_text(json.dumps(tally))
        return subprocess.CompletedProcess(command, 0, "", next(said))

    monkeypatch.setattr(_fuzz.subprocess, "run", process)
    assert [_fuzz.run("yaml", tmp_path, 5, 1) for _ in range(3)] == [(tally, 7), (tally, 12), (tally, 12)]
