"""Mirrored cascades see in a mirrored image what the cascade sees in the image."""

from dataclasses import replace

import cv2
import naive
import numpy as np
import pytest
from cascades import LBP_FILE, random_cascade, softened
from photos import gray
from scans import depths, scan

import vj
from vj.cascade.haar import HaarFeatures
from vj.errors import InputError
from vj.scanning.scanner import Scanner


def mirrorable(cascade):
    """Move tilted rectangles off the left edge, which they may touch and their mirror images may not."""
    features = cascade.features
    if cascade.kind == "lbp" or not features.tilted.any():
        return cascade
    x, h = features.rects[:, :, 0], features.rects[:, :, 3]
    touches = (features.tilted[:, None] & (features.weights != 0) & (x - h < 1)).any(axis=1)
    upright = np.flatnonzero(~features.tilted)[0]
    rects, weights, tilted = (np.array(a) for a in (features.rects, features.weights, features.tilted))
    rects[touches], weights[touches], tilted[touches] = rects[upright], weights[upright], False
    return replace(cascade, features=HaarFeatures(rects, weights, tilted))


@pytest.mark.parametrize(
    ("kind", "nodes", "fractions"),
    [
        ("basic", (1,), False),
        ("all", (1, 3), False),
        ("all", (1, 2, 7), True),
        ("odd", (1,), False),
        ("lbp", (1, 3), False),
    ],
)
def test_depths_and_sums_in_a_mirrored_image_are_mirrored(kind, nodes, fractions):
    image = gray("astronaut", (70, 60))
    tilted, hits = False, 0
    for seed in range(4):
        cascade = mirrorable(random_cascade(seed, kind=kind, nodes=nodes, fractions=fractions))
        tilted |= cascade.has_tilted
        for one in (cascade, softened(cascade, seed)):
            mirrored = one.mirrored()
            there = depths(Scanner(one), image)
            here = depths(Scanner(mirrored), np.ascontiguousarray(image[:, ::-1]))
            for a, b in zip(there, here, strict=True):
                np.testing.assert_array_equal(a, b[:, ::-1])
            hits += len(scan(Scanner(mirrored), image[:, ::-1]).xs)
            assert mirrored.mirrored() == one
            assert mirrored.soft == one.soft
            # Independent of the integral images: sums over pixels.
            window = image[3:12, 5:13]
            assert naive.window_depth(mirrored, window[:, ::-1]) == naive.window_depth(one, window)
    assert tilted == (kind == "all" or kind == "odd")
    assert hits > 0


@pytest.mark.opencv4
@pytest.mark.parametrize("name", ["frontalface_alt2", "haarcascade_profileface", str(LBP_FILE)])
def test_cv2_finds_the_same_with_the_mirrored_file(name, tmp_path):
    cascade = vj.load(name)
    vj.save(cascade.mirrored(), tmp_path / "mirrored.xml")
    image = gray("astronaut", (256, 256))
    assert vj.load(tmp_path / "mirrored.xml") == cascade.mirrored()
    peer = cv2.CascadeClassifier(str(tmp_path / "mirrored.xml"))
    ours = vj.Detector(cascade.mirrored(), min_neighbors=0, threads=1).detect(image).boxes
    theirs = peer.detectMultiScale(image, 1.1, 0)
    # With several threads cv2 returns them in any order.
    assert sorted(ours.tolist()) == sorted(np.asarray(theirs, np.int32).reshape(-1, 4).tolist())
    assert len(ours) > 0 or name == "haarcascade_profileface"


def test_a_tilted_feature_at_the_left_edge_has_no_mirror_image():
    rects = np.zeros((1, 3, 4), np.int32)
    rects[0, :2] = [[2, 0, 2, 2], [2, 0, 1, 2]]
    features = HaarFeatures(rects, [[-1, 2, 0]], [True])
    cascade = random_cascade(0)
    tilted = replace(cascade, features=features, node_features=np.zeros(len(cascade.node_features), np.int32))
    with pytest.raises(InputError, match="expected tilted features that can be mirrored, got feature 0"):
        tilted.mirrored()
