"""Plots are written whole, and the map of depths puts windows where they are."""

import cv2
import numpy as np
import pytest
from cascades import random_cascade
from photos import gray

from vj import plotting
from vj.detector import Detector
from vj.errors import InputError
from vj.evaluation import inspection
from vj.evaluation.curves import pooled
from vj.evaluation.rejection import rejection_profile


def _shown(path):
    """The file as an image; it must show something in colour or in more than two greys."""
    image = cv2.imread(str(path))
    assert image is not None
    assert min(image.shape[:2]) > 150
    assert len(np.unique(image)) > 20
    return image


def test_every_plot_is_an_image(tmp_path):
    image = gray("astronaut", (90, 70))
    cascades = {kind: random_cascade(3, kind=kind, nodes=(1, 2)) for kind in ("all", "lbp")}
    plotting.plot_rejection(tmp_path / "rejection.png", {k: rejection_profile(c, [image]) for k, c in cascades.items()})
    rng = np.random.default_rng(0)
    curves = {n: pooled(rng.random(60), (rng.random(60) < 0.7).astype(float), 50, 9) for n in ("one", "two")}
    curves["found nothing"] = pooled(np.zeros(0), np.zeros(0), 50, 9)
    plotting.plot_curves(tmp_path / "curves.png", curves)
    for kind, cascade in cascades.items():
        plotting.plot_features(tmp_path / f"features-{kind}.png", cascade, image)
        maps = list(Detector(cascade).windows(image))
        plotting.plot_depth(tmp_path / f"depth-{kind}.png", image, maps, cascade.n_stages)
    plotting.plot_features(tmp_path / "one.png", cascades["all"], n_stages=1)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 7
    for name in names:
        _shown(tmp_path / name)


def test_deepest_window_is_drawn_at_its_centre():
    cascade = random_cascade(3)
    image = gray("astronaut", (60, 50))
    maps = list(Detector(cascade, scale_factor=1.5).windows(image))
    deepest = inspection.deepest(image.shape, maps)
    assert deepest.shape == image.shape
    assert deepest.max() == max(one.depth.max() for one in maps)
    one = max(maps, key=lambda m: m.depth.max())
    row, column = np.unravel_index(one.depth.argmax(), one.depth.shape)
    x = (column * one.stride + 4) * one.scale
    y = (row * one.stride + 4.5) * one.scale
    assert deepest[round(y - 0.5), round(x - 0.5)] == deepest.max()


def test_what_cannot_be_drawn_is_refused_and_leaves_nothing(tmp_path):
    cascade = random_cascade(3)
    with pytest.raises(InputError, match="ending"):
        plotting.plot_features(tmp_path / "plot.txt", cascade)
    with pytest.raises(InputError, match="at least one stage"):
        plotting.plot_features(tmp_path / "plot.png", cascade, n_stages=0)
    with pytest.raises(InputError, match="size of the window"):
        plotting.plot_depth(tmp_path / "plot.png", np.zeros((5, 5), np.uint8), [], 3)
    assert list(tmp_path.iterdir()) == []
