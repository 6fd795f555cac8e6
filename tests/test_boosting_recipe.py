"""Recipes: read, resolved, refused."""

import os
from pathlib import Path

import pytest

from vj.boosting.recipe import TrainingConfig
from vj.errors import InputError


def test_a_recipe_reads_back_from_its_own_toml(tmp_path):
    (tmp_path / "r.toml").write_text(
        'window = [20, 24]\nbackgrounds = ["bg", "{data}/x"]\noutput = "out"\nmin_hit_rate = 1\n'
        '[[positives]]\npath = "a b.csv"\nwhere = {frontal = 1}\nmargin = 0\n[[positives]]\npath = "skimage:faces"\n'
    )
    config = TrainingConfig.from_toml(tmp_path / "r.toml", data="/data")
    assert config.window == (20, 24)
    assert config.backgrounds == (str(tmp_path / "bg"), "/data/x")
    assert config.positives[0].path == str(tmp_path / "a b.csv")
    assert config.positives[0].where == {"frontal": "1"}
    assert config.output == str(tmp_path / "out")
    (tmp_path / "again.toml").write_text(config.to_toml())
    assert TrainingConfig.from_toml(tmp_path / "again.toml") == config


def test_options_win_and_start_from_the_working_directory(tmp_path):
    (tmp_path / "r.toml").write_text('stages = 3\noutput = "out"\n')
    config = TrainingConfig.from_toml(tmp_path / "r.toml", override={"stages": 7, "output": "elsewhere"})
    assert config.stages == 7
    assert config.output == str(Path("elsewhere").absolute())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stagse = 3", "got 'stagse' = 3"),
        ("stages = 0", "expected stages between 1 and 200, got 0"),
        ("stages = 2.5", "expected stages to be an integer, got 2.5"),
        ("stages = true", "expected stages to be an integer, got True"),
        ('min_hit_rate = "high"', "expected min_hit_rate to be a number, got 'high'"),
        ("min_hit_rate = 1.5", "expected min_hit_rate between 0.5 and 1.0, got 1.5"),
        ("min_hit_rate = 1" + "0" * 400, "expected min_hit_rate to be a number, got 1000"),
        ("positives = [{path = 'x', side = 1" + "0" * 400 + "}]", "expected positives.side to be a number, got 1000"),
        ("min_hit_rate = nan", "expected min_hit_rate between"),
        ("max_weak_count = [3, 0]", "expected max_weak_count between 1 and 10000, got 0"),
        ("max_weak_count = []", "expected max_weak_count to be a number or a list of them, got an empty list"),
        ("stages = [3]", "expected stages to be an integer, got [3]"),
        ('boosting = "adaboost"', "expected boosting to be one of gentle, real, discrete, got 'adaboost'"),
        ('window = "24"', 'expected window as "24x24"'),
        ('window = "4x24"', "expected window between 8x8 and 128x128, got 4x24"),
        ("positives = [{pth = 'x'}]", "got 'pth'"),
        ("positives = [{path = 'x', side = 99}]", "expected positives.side between 0.5 and 8.0, got 99.0"),
        ("positives = 3", "expected positives to be a path, got 3"),
        ("backgrounds = '{data}/x'", "expected a data folder"),
        ("stages = ", "expected TOML"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError) as error:
        TrainingConfig.from_toml(tmp_path / "r.toml")
    assert message in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "r.toml"))
    assert "\n" not in str(error.value)


def test_recipes_that_are_no_files_or_no_text(tmp_path):
    (tmp_path / "deep.toml").write_text("a = " + "[" * 20000)
    (tmp_path / "digits.toml").write_text("seed = " + "9" * 5000)
    (tmp_path / "binary.toml").write_bytes(bytes(range(256)))
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("deep", "digits", "binary", "pipe", "missing"):
        with pytest.raises(InputError, match=r"expected (TOML|a readable recipe)") as error:
            TrainingConfig.from_toml(tmp_path / f"{name}.toml")
        assert str(error.value).count(str(tmp_path)) == 1
        assert "\n" not in str(error.value)


def test_a_setting_may_be_a_list_with_a_value_for_each_stage(tmp_path):
    (tmp_path / "r.toml").write_text("max_weak_count = [3, 6]\nmin_hit_rate = [0.9, 1]\nmax_depth = 2\n")
    config = TrainingConfig.from_toml(tmp_path / "r.toml")
    assert [config.of_stage(k).max_weak_count for k in range(4)] == [3, 6, 6, 6]
    assert [config.of_stage(k).min_hit_rate for k in range(3)] == [0.9, 1.0, 1.0]
    assert config.of_stage(5).max_depth == 2
    (tmp_path / "again.toml").write_text(config.to_toml())
    assert TrainingConfig.from_toml(tmp_path / "again.toml") == config


def test_differences_name_what_changes_the_result():
    base = TrainingConfig.from_mapping({"stages": 3})
    other = TrainingConfig.from_mapping({"stages": 4, "threads": 5, "boosting": "real"})
    assert base.differences(other) == ["stages: 3, not 4", 'boosting: "gentle", not "real"']
    assert base.differences(TrainingConfig.from_mapping({"stages": 3, "memory_mb": 10, "output": "x"})) == []
    sources = [{"path": "/a", "margin": 0.1}, {"path": "/b"}]
    base = TrainingConfig.from_mapping({"positives": sources, "backgrounds": ["/x", "/y"], "window": "20x24"})
    changed = TrainingConfig.from_mapping(
        {"positives": [sources[0], {"path": "/b", "limit": 5}], "backgrounds": ["/x", "/z"]}
    )
    assert base.differences(changed) == [
        "positives[1].limit: 0, not 5",
        'backgrounds[1]: "/y", not "/z"',
        "window: 20x24, not 24x24",
    ]
    fewer = TrainingConfig.from_mapping({"positives": sources[:1], "backgrounds": "/x", "window": "20x24"})
    assert base.differences(fewer) == ["positives: 2 of them, not 1", "backgrounds: 2 of them, not 1"]
