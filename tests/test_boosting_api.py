"""Training from Python: to the end in one call, or stage by stage in a loop that may be left and entered again."""

import inspect
import json
import threading
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

import vj

SETTINGS = {
    "window": "12x12",
    "stages": 3,
    "positives_per_stage": 120,
    "negatives_per_stage": 150,
    "max_false_alarm_rate": 0.3,
    "max_weak_count": 8,
    "mirror": True,
    "pruning": 0.1,
    "threads": 2,
}


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def faces():
    return np.rint(data.lfw_subset()[:100] * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos():
    return [data.gravel()[:150, :150], data.coffee()[:, :, 0], data.rocket()[:, :, ::-1]]


@pytest.fixture(scope="module")
def whole(faces, photos):
    return vj.train(positives=faces, backgrounds=photos, **SETTINGS)


def _plain(reports):
    return [{k: v for k, v in vars(r).items() if not k.endswith("seconds")} for r in reports]


def _same(training, whole):
    assert training.finished
    assert training.cascade == whole.cascade
    assert _plain(training.reports) == _plain(whole.reports)


def test_train_runs_to_the_end_and_fills_the_folder(faces, photos, whole, tmp_path):
    result = vj.train(positives=faces, backgrounds=photos, output=tmp_path / "out", **SETTINGS)
    assert isinstance(result, vj.TrainingResult)
    assert len(result.reports) == result.cascade.n_stages == 3
    assert result.cascade == whole.cascade
    assert result.config.stages == 3
    assert any("thresholds raised together" in note for note in result.notes)
    out = tmp_path / "out"
    assert vj.load(out / "cascade.xml") == result.cascade
    assert [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()] == [
        vars(report) for report in result.reports
    ]
    plots = {"features.png", "stages.png", "positives.png", "hard-negatives.png"}
    assert plots | {"recipe.toml"} <= {path.name for path in out.iterdir()}
    # The same call again finds the run finished; the results come back even if they were removed.
    (out / "cascade.xml").unlink()
    again = vj.train(positives=faces, backgrounds=photos, output=out, **SETTINGS)
    assert again.cascade == vj.load(out / "cascade.xml") == result.cascade
    assert again.reports == result.reports


def test_a_loop_may_be_left_and_entered_again(faces, photos, whole):
    training = vj.Training(positives=faces, backgrounds=photos, **SETTINGS)
    seen = []
    for _ in range(3):
        for report in training:
            seen.append(report.index)
            assert training.cascade.n_stages == len(training.reports) == len(seen)
            break
    assert seen == [0, 1, 2]
    assert list(training) == []
    _same(training, whole)


def test_loops_at_the_same_time_share_the_stages(faces, photos, whole, tmp_path):
    training = vj.Training(positives=faces, backgrounds=photos, output=tmp_path, **SETTINGS)
    one, two = iter(training), iter(training)
    assert [next(one).index, next(two).index] == [0, 1]
    one.close()
    assert [report.index for report in two] == [2]
    _same(training, whole)


def test_an_exception_anywhere_costs_nothing(faces, photos, whole):
    """What a notebook does: the cell is interrupted in the middle of a stage and run again."""
    count = 0

    def counted(step):
        nonlocal count
        count += 1
        if count in stops:
            raise Stop

    stops = set()
    list(vj.Training(positives=faces, backgrounds=photos, progress=counted, **SETTINGS))
    assert count > 20
    every = max(1, count // 15)
    stops, count = set(range(1, 4 * count, every)), 0
    training, stopped, seen = vj.Training(positives=faces, backgrounds=photos, progress=counted, **SETTINGS), 0, []
    while not training.finished or len(seen) < 3:
        try:
            for report in training:
                seen.append(report.index)
        except Stop:
            stopped += 1
    assert stopped > 10
    assert seen == [0, 1, 2]
    _same(training, whole)


def test_what_there_is_before_the_first_stage(faces, photos):
    training = vj.Training(positives=faces, backgrounds=photos, **SETTINGS)
    assert (training.reports, training.notes, training.finished) == ((), [], False)
    assert training.negatives.shape == (0, 12, 12)
    assert training.config.window == (12, 12)
    assert training.positives.windows.shape == (200, 12, 12)
    assert training.held_out.sum() == 40
    assert training.held_out_names() == []
    for get in (lambda: training.cascade, training.result):
        with pytest.raises(vj.InputError, match="at least one trained stage, got none"):
            get()


def test_ways_to_say_the_same(faces, photos, whole, tmp_path):
    (tmp_path / "r.toml").write_text(
        "".join(f"{key} = {json.dumps(value)}\n" for key, value in SETTINGS.items()).replace("stages = 3", "stages = 7")
    )
    for name, images in (("faces", faces), ("photos", photos)):
        (tmp_path / name).mkdir()
        for k, image in enumerate(images):
            cv2.imwrite(str(tmp_path / name / f"{k:03d}.png"), image)
    config = vj.TrainingConfig(**SETTINGS)
    assert config == vj.TrainingConfig.from_mapping(SETTINGS)
    listed = [str(tmp_path / f"photos/{k:03d}.png") for k in range(3)]
    ways = [
        vj.Training(tmp_path / "r.toml", positives=list(faces), backgrounds=listed, stages=3),
        vj.Training(config, positives=[np.stack([face] * 3, axis=2) for face in faces], backgrounds=photos),
        vj.Training(config, positives=tmp_path / "faces", backgrounds=[str(tmp_path / "photos")]),
        vj.Training(
            config, positives=vj.PositiveSource(path=str(tmp_path / "faces")), backgrounds=[photos[0], *listed[1:]]
        ),
        vj.Training(**SETTINGS | {"stages": np.int64(3)}, positives=[{"path": tmp_path / "faces"}], backgrounds=photos),
    ]
    for training in ways:
        list(training)
        _same(training, whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positives": None}, "expected positives (an array, a path or a recipe that names them), got none"),
        ({"backgrounds": None}, "expected backgrounds (images, a path or a recipe that names them), got none"),
        ({"positives": []}, "expected positives"),
        ({"backgrounds": []}, "expected backgrounds"),
        ({"positives": np.zeros((20, 24, 24))}, "got an image of float64, shape (24, 24)"),
        ({"positives": np.zeros((24, 24), np.uint8)}, "expected images of shape (n, h, w)"),
        ({"positives": np.zeros((480, 640, 3), np.uint8)}, "got 480 of 3x640 (a single image goes into a list)"),
        ({"positives": ["a.png", np.zeros((24, 24), np.uint8)]}, "all as arrays or all as paths, got 1 of 2 as arrays"),
        ({"positives": 3}, "expected images or paths, got int"),
        ({"positives": [3]}, "expected positives to be a path, got 3"),
        ({"positives": [{"path": "a", "jitters": 2}]}, "'jitters' = 2"),
        ({"backgrounds": np.zeros((480, 640, 3), np.uint8)}, "at least 12x12 pixels, got 480 of 3x640"),
        ({"backgrounds": [np.zeros((40, 40, 2), np.uint8)]}, "got an image of uint8, shape (40, 40, 2)"),
        ({"backgrounds": [np.zeros((5, 40), np.uint8)]}, "at least 12x12 pixels, got 1 of 40x5"),
        ({"stagse": 3}, "'stagse' = 3"),
        ({"stages": 0}, "expected stages between 1 and 200, got 0"),
        ({"recipe": {"stages": 3}}, "expected a recipe as a path or a TrainingConfig, got dict"),
        ({"recipe": "missing.toml"}, "missing.toml: expected a readable recipe"),
    ],
)
def test_misuse_is_refused_at_once(faces, photos, changes, message):
    given = {"positives": faces, "backgrounds": photos, **SETTINGS, **changes}
    with pytest.raises(vj.InputError) as error:
        vj.Training(given.pop("recipe", None), **given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"positives": "faces/"}, "expected positives to be"),
        ({"window": "12"}, "expected window as"),
        ({"max_weak_count": []}, "an empty list"),
    ],
)
def test_a_configuration_takes_plain_values_and_checks_them(settings, message):
    if "positives" in settings:
        config = vj.TrainingConfig(**settings, backgrounds="photos")
        assert config.positives[0].path == str(Path("faces").absolute())
        assert config.backgrounds == (str(Path("photos").absolute()),)
        return
    with pytest.raises(vj.InputError, match=message):
        vj.TrainingConfig(**settings)


def test_a_run_without_a_stage_says_why_and_leaves_nothing(faces, photos, tmp_path):
    flat = [np.full((60, 60), 90, np.uint8)]
    with pytest.raises(vj.InputError, match="got none: training ends: backgrounds are used up: 0 of 150"):
        vj.train(positives=faces, backgrounds=flat, output=tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()


def test_a_loop_inside_a_step_is_refused(faces, photos):
    def nested(step):
        with pytest.raises(vj.InputError, match="one loop over a training at a time"):
            next(iter(training))
        raise Stop

    training = vj.Training(positives=faces, backgrounds=photos, progress=nested, **SETTINGS)
    with pytest.raises(Stop):
        list(training)


def test_threads_end_with_the_loop(faces, photos):
    before = threading.active_count()
    training = vj.Training(positives=faces, backgrounds=photos, **SETTINGS)
    for _ in training:
        break
    assert threading.active_count() == before


def _types(annotation):
    """Our own classes that an annotation names."""
    if isinstance(annotation, type) and annotation.__module__.startswith("vj."):
        yield annotation
    for part in typing.get_args(annotation):
        for one in part if isinstance(part, list) else [part]:
            yield from _types(one)


def test_every_type_taken_or_returned_is_public_and_documented():
    waiting, seen = [vj.train, vj.Training, vj.TrainingConfig], set()
    while waiting:
        one = waiting.pop()
        seen.add(one)
        members = [one, *(v for k, v in vars(one).items() if k[0] != "_")] if inspect.isclass(one) else [one]
        if inspect.isclass(one):
            members.append(one.__init__)
        for member in members:
            member = getattr(member, "fget", None) or getattr(member, "func", None) or member
            if callable(member) and (inspect.isfunction(member) or is_dataclass(member)):
                for hint in typing.get_type_hints(member).values():
                    waiting += [t for t in _types(hint) if t.__module__.startswith("vj.boosting") and t not in seen]
    names = {one.__name__ for one in seen}
    assert {"Progress", "Round", "Positives", "PositiveSource", "StageReport", "TrainingResult"} <= names
    for one in seen:
        assert getattr(vj, one.__name__) is one
        text = inspect.getdoc(one)
        assert text and (not is_dataclass(one) or all(f"{field.name}" in text for field in fields(one))), one
