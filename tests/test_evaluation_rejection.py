"""Rejection profiles against loops over windows, and OpenCV cut off after each stage."""

import cv2
import naive
import numpy as np
import pytest
from cascades import random_cascade, stock
from photos import gray

from vj.cascade.opencv_xml import save
from vj.errors import InputError
from vj.evaluation.rejection import rejection_profile


def _naive_profile(cascade, image, rule, stride=2):
    """Counts for the one scale of an image too small for a second."""
    width, height = cascade.window
    corners = [
        (y, x)
        for y in range(0, image.shape[0] - height + 1, stride)
        for x in range(0, image.shape[1] - width + 1, stride)
    ]
    columns = (image.shape[1] - width) // stride + 1
    windows = [image[y : y + height, x : x + width] for y, x in corners]
    depth = np.array([naive.window_depth(cascade, pixels)[0] for pixels in windows]).reshape(-1, columns)
    seen = np.array(naive.visited(depth)) if rule == "opencv" else np.ones(depth.shape, bool)
    entered, passed = [], []
    features = np.zeros(cascade.n_stages, int)
    for stage in range(cascade.n_stages):
        entered.append(sum(d >= stage for d in depth[seen]))
        passed.append(sum(d > stage for d in depth[seen]))
    for pixels, counts in zip(windows, seen.ravel(), strict=True):
        if counts:
            features += naive.nodes_evaluated(cascade, pixels)
    return int(seen.sum()), entered, passed, features.tolist()


@pytest.mark.parametrize("rule", ["opencv", "grid"])
@pytest.mark.parametrize("shape", [("all", (1,)), ("all", (1, 2, 5)), ("lbp", (1, 3))], ids=str)
def test_counts_equal_those_window_by_window(shape, rule):
    kind, nodes = shape
    image = gray("astronaut", (40, 36))
    rejected = 0
    for seed in (1, 2, 5):
        cascade = random_cascade(seed, kind=kind, nodes=nodes, window=(8, 9))
        got = rejection_profile(cascade, [image], scale_factor=4.5, rule=rule)
        windows, entered, passed, features = _naive_profile(cascade, image, rule)
        assert got.windows == windows
        assert got.entered.tolist() == entered
        assert got.passed.tolist() == passed
        assert got.features.tolist() == features
        rejected += got.rejected[0]
    assert rejected > 0


@pytest.mark.opencv4
@pytest.mark.parametrize("name", ["frontalface_default", "frontalface_alt2"])
def test_windows_that_pass_each_stage_are_those_of_opencv(name, tmp_path):
    cascade, images = stock(name), [gray("astronaut", (200, 200)), gray("coffee", (260, 180))]
    profile = rejection_profile(cascade, images)
    for stages in (1, 2, 5, 12, cascade.n_stages):
        save(cascade.truncated(stages), tmp_path / "cut.xml")
        peer = cv2.CascadeClassifier(str(tmp_path / "cut.xml"))
        assert profile.passed[stages - 1] == sum(len(peer.detectMultiScale(image, 1.1, 0)) for image in images)


def test_images_add_up():
    cascade = random_cascade(2)
    images = [gray("astronaut", (40, 40)), gray("camera", (30, 50))]
    together = rejection_profile(cascade, images)
    first, second = (rejection_profile(cascade, [image]) for image in images)
    assert together.windows == (first + second).windows
    assert together.features.tolist() == (first + second).features.tolist()
    assert together.flat == first.flat + second.flat
    with pytest.raises(InputError, match="profiles of one cascade"):
        _ = first + rejection_profile(random_cascade(1), images)


def test_rates_of_stages_that_nothing_enters():
    flat = rejection_profile(random_cascade(2), [np.full((40, 40), 7, np.uint8)])
    assert flat.flat == flat.windows > 0
    assert np.isnan(flat.rejection_rates).all()
    assert flat.features_per_window == 0
    with pytest.raises(InputError, match="expected the rule"):
        rejection_profile(random_cascade(2), [], rule="all")
