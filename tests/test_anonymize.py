"""Masks: what they hide cannot be had back, and nothing else changes."""

import json
import os

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import photo

import vj
from benchmarks import _runner
from benchmarks import anonymize as benchmark
from vj.images import read_opaque, write_image
from vj.masking import CELLS, LEAST_CELL, MASKS, areas

FACE = [167, 61, 111, 111]


def area(mask, box, shape):
    out = np.zeros(shape[:2], dtype=bool)
    for x0, y0, x1, y1 in areas([box], shape, mask):
        out[y0:y1, x0:x1] = True
    return out


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_only_the_box_and_its_margin_change(mask, channels):
    image = photo("astronaut")
    if channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    elif channels == 4:
        image = np.dstack([image, np.arange(512 * 512).reshape(512, 512).astype(np.uint8)])
    before = image.copy()
    out = vj.anonymize(image, [FACE], mask, 0.1)
    inside = area(0.1, FACE, image.shape)
    assert (inside.sum(axis=0) > 0).sum() == 111 + 2 * 12 and inside.sum() == 135 * 135
    np.testing.assert_array_equal(out[~inside], before[~inside])
    np.testing.assert_array_equal(image, before)
    colours = (out != before) if channels == 1 else (out != before)[..., :3].any(axis=2)
    assert colours[inside].mean() > 0.95
    if channels == 4:
        np.testing.assert_array_equal(out[..., 3], before[..., 3])


@pytest.mark.parametrize("mask", MASKS)
@settings(max_examples=30, deadline=None)
@given(cell=st.integers(2, 30).map(lambda half: 2 * half), seed=st.integers(0, 99))
def test_what_is_left_depends_on_the_means_of_a_few_cells_alone(mask, cell, seed):
    """Two images with the same means over the cells, and otherwise as unlike as they can be, look the same masked."""
    side = CELLS * cell
    rng = np.random.default_rng(seed)
    flat = np.kron(rng.integers(60, 190, (CELLS, CELLS)), np.ones((cell, cell))).astype(np.uint8)
    texture = np.kron(rng.choice([-1, 1], (side // 2, side // 2)), [[1, -1], [-1, 1]]) * 60
    other = (flat.astype(int) + texture).astype(np.uint8)
    one, two = (vj.anonymize(image, [[0, 0, side, side]], mask, 0) for image in (flat, other))
    assert np.abs(one.astype(int) - two).max() <= 1
    if mask == "fill":
        assert len(np.unique(one)) == 1


def test_small_boxes_and_boxes_at_the_border_keep_nothing_either():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 40), dtype=np.uint8)
    for box in ([0, 0, 3, 3], [-30, 5, 33, 20], [38, 38, 40, 40], [10, 10, 4, 4]):
        for mask in ("blur", "pixelate"):
            out = vj.anonymize(image, [box], mask, 0)
            ((x0, y0, x1, y1),) = areas([box], image.shape, 0)
            values = len(np.unique(out[y0:y1, x0:x1])) if mask == "pixelate" else 1
            assert values <= max(1, (x1 - x0) * (y1 - y0) / LEAST_CELL**2 * 1.8)
            assert out[y0:y1, x0:x1].astype(int).std() < 0.6 * image[y0:y1, x0:x1].astype(int).std()


def test_detections_and_areas_outside():
    image = photo("astronaut")
    found = vj.Detections(np.array([FACE]), np.array([1.0]), np.array([3]))
    np.testing.assert_array_equal(vj.anonymize(image, found), vj.anonymize(image, [FACE], "blur", 0.2))
    for none in ([], np.zeros((0, 4)), [[600, 0, 10, 10]], [[-50, -50, 20, 20]], [[5, 5, 0, 0]]):
        np.testing.assert_array_equal(vj.anonymize(image, none), image)
    assert areas([[10.4, 10.6, 5, 5]], (100, 100), 0) == [(10, 10, 16, 16)]


@pytest.mark.parametrize(
    ("image", "boxes", "mask", "margin", "text"),
    [
        (np.zeros((9, 9)), [], "blur", 0.2, "float64"),
        (np.zeros((9, 9, 2), np.uint8), [], "blur", 0.2, "shape"),
        (np.zeros((9, 9), np.uint8), [], "hide", 0.2, "blur, pixelate, fill, got 'hide'"),
        (np.zeros((9, 9), np.uint8), [], "fill", -0.1, "margin of 0 or more, got -0.1"),
        (np.zeros((9, 9), np.uint8), [], "fill", float("nan"), "margin"),
        (np.zeros((9, 9), np.uint8), [[1, 2, 3]], "fill", 0, "boxes of shape"),
        (np.zeros((9, 9), np.uint8), [[1, 2, 3, np.inf]], "fill", 0, "finite"),
    ],
)
def test_what_cannot_be_masked(image, boxes, mask, margin, text):
    with pytest.raises(vj.InputError, match=text):
        vj.anonymize(image, boxes, mask, margin)


def test_hidden_colours_are_read_as_white(tmp_path):
    from PIL import Image

    colour = photo("astronaut")[:60, :80]
    alpha = np.full((60, 80), 255, np.uint8)
    alpha[:, :40] = 0
    alpha[:, 40:50] = 128
    rgba = Image.fromarray(np.dstack([colour[..., ::-1], alpha]))
    exif = Image.Exif()
    exif[274] = 6
    for name, options in (("a.png", {}), ("b.webp", {"lossless": True, "exact": True}), ("c.tiff", {})):
        for turned in (False, True):
            rgba.save(tmp_path / name, **options, **({"exif": exif} if turned else {}))
            out = read_opaque(tmp_path / name)
            out = np.rot90(out) if turned else out
            assert (out[:, :40] == 255).all()
            np.testing.assert_array_equal(out[:, 50:], colour[:, 50:])
            # Of TIFF, OpenCV returns colours that are mixed with black already.
            between = colour[:, 40:50] * (0.252 if name == "c.tiff" else 0.502) + 127
            assert np.abs(out[:, 40:50].astype(int) - between).max() < 2
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    gray.save(tmp_path / "d.png", transparency=7)
    assert (read_opaque(tmp_path / "d.png")[0, 7] == 255).all() and (read_opaque(tmp_path / "d.png")[0, 8] == 8).all()


def test_the_benchmark_counts_what_is_still_to_be_seen(tmp_path, capsys):
    shares = benchmark.masked_shares(np.eye(10, dtype=bool), np.array([[0, 0, 1, 1], [-5, 0, 10, 1], [50, 50, 9, 9]]))
    np.testing.assert_allclose(shares, [1, 0.2, 1])
    (tmp_path / "set").mkdir()
    write_image(tmp_path / "set/a.png", photo("astronaut"))
    # The face, and a place where there is none; too small a box does not count.
    boxes = [FACE, [10, 300, 60, 60], [300, 300, 15, 15]]
    rows = [{"file": "a.png", "faces": [{"bbox": box, "pose": 0} for box in boxes]}]
    (tmp_path / "set/annotations.json").write_text(json.dumps(rows))
    assert benchmark.main([str(tmp_path / "set"), "--mode", "packaged", "--output", os.fspath(tmp_path / "out")]) == 0
    one = _runner.read_result("anonymize", tmp_path / "out")["figures"]["packaged"]["set"]
    assert one["faces"] == {"at least 20 px": 2, "frontal": 2} and one["missed"] == {"at least 20 px": 1, "frontal": 1}
    side = np.ceil(111 * 1.4)
    assert one["masked"] == pytest.approx(side**2 / 512**2, rel=0.15)
    assert "50.0 %" in capsys.readouterr().out
