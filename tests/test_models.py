"""The cascades that come with the package: each has its recipe, log and card, and OpenCV finds the same with it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from photos import gray

import vj
from vj.boosting.recipe import TrainingConfig

ROOT = Path(__file__).resolve().parent.parent
MODELS = sorted((ROOT / "vj" / "models").glob("*.xml"))
NAMES = [path.stem for path in MODELS]


def test_there_is_a_family():
    assert set(NAMES) == {"frontalface", "frontalface_fast", "frontalface_small", "profileface"}


@pytest.mark.parametrize("name", NAMES)
def test_recipe_log_and_card_describe_the_cascade(name):
    cascade = vj.load(name)
    assert cascade.name == name
    recipe = TrainingConfig.from_toml(ROOT / "training" / f"{name}.toml", data="images")
    assert (recipe.window, recipe.stages) == (cascade.window, cascade.n_stages)
    wanted = np.broadcast_to(recipe.max_weak_count, cascade.n_stages)
    assert (cascade.stage_sizes - cascade.carried <= wanted).all()
    assert recipe.chain == cascade.carried.any()
    card = (ROOT / "vj" / "models" / f"{name}.md").read_text(encoding="utf-8")
    assert f"# Model card: `{name}`" in card
    assert f"{cascade.n_stages} stages, {cascade.window[0]}x{cascade.window[1]} pixels" in card
    log = (ROOT / "training" / f"{name}.log").read_text(encoding="utf-8")
    assert log.startswith(f"# vj-train training/{name}.toml")
    assert f"stage {cascade.n_stages}: " in log
    assert cascade.calibration is not None


@pytest.mark.opencv4
@pytest.mark.parametrize("path", MODELS, ids=NAMES)
def test_opencv_finds_the_same_with_it(path):
    image = gray("astronaut", (320, 240))
    cascade = vj.load(path)
    theirs = cv2.CascadeClassifier(str(path)).detectMultiScale(image, 1.1, 0, 0, cascade.window)
    hits = vj.Detector(cascade, min_neighbors=0, exact=True).detect(image).boxes
    assert len(hits)
    assert sorted(map(tuple, hits.tolist())) == sorted(map(tuple, np.asarray(theirs).tolist()))


def test_the_small_one_fits_16_bits():
    cascade = vj.load("frontalface_small")
    assert cascade.is_stumps and not cascade.has_tilted
    assert cascade.stage_sizes.max() <= 127
    assert cascade.n_trees <= 600
    for values, unit in ((cascade.node_thresholds, 4096), (cascade.leaves, 256), (cascade.stage_thresholds, 256)):
        scaled = np.asarray(values, np.float64) * unit
        np.testing.assert_array_equal(scaled, np.rint(scaled))
        assert np.abs(scaled).max() < 2**15
