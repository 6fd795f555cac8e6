"""The search for stage thresholds: what it derives from one scan is what other thresholds find and cost."""

import ast

import cv2
import numpy as np
import pytest
from photos import photo

import vj
from benchmarks.accuracy import PROPOSALS
from training import thresholds


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    cv2.imwrite(str(folder / "astronaut.png"), photo("astronaut")[:260, 100:360])
    (folder / "boxes.csv").write_text("file,x,y,w,h\nastronaut.png,76,62,95,110\n")
    return folder / "boxes.csv"


@pytest.mark.parametrize("budget", [15, 0])
def test_what_other_thresholds_find_and_cost_follows_from_one_scan(labelled, budget, monkeypatch):
    monkeypatch.setattr(thresholds, "SAMPLE", 10**9)
    cascade = vj.load("frontalface_fast")
    base = cascade.stage_limits
    low = base - 0.5
    if not budget:
        # OpenCV leaves out the right neighbour of what the first stage rejects.
        low[0] = base[0]
    images = thresholds.collect(cascade, low, str(labelled), budget)
    settings = PROPOSALS if budget else {"scale_factor": 1.1, "min_neighbors": 0, "suppression": 0.3}
    gray = vj.images.to_gray(photo("astronaut")[:260, 100:360])
    variants = list(thresholds.variants(gray, np.zeros((0, 4)), settings["scale_factor"]))
    assert [image.shape for image, _ in variants] == images.shapes and len(variants) == 3
    costs = (cascade.stage_sizes - cascade.carried).astype(float)
    for change in (0.0, 0.3, -0.2):
        limits = base + change * np.arange(cascade.n_stages) / cascade.n_stages
        detector = vj.Detector(thresholds.with_limits(cascade, limits), **settings)
        limits = detector.cascade.stage_limits
        entered, visited = np.zeros(cascade.n_stages), 0
        for (image, _), one in zip(variants, thresholds.detections(images, limits), strict=True):
            found = detector.detect(image)
            np.testing.assert_array_equal(one.boxes, found.boxes)
            np.testing.assert_array_equal(one.scores, found.scores)
            cost = detector.cost(image)
            entered += cost.entered.sum(axis=0)
            visited += cost.windows.sum()
        # Of a vector of eight windows.
        spent = (costs * (1 - (1 - entered / visited) ** 8))[1:].sum()
        assert thresholds.cost(images, limits, costs) == pytest.approx(spent)


def test_mirrored_and_larger_images_have_their_boxes_where_the_object_is():
    image = np.zeros((40, 60), np.uint8)
    image[10:20, 5:17] = 255
    for seen, (box,) in thresholds.variants(image, np.array([[5.0, 10.0, 12.0, 10.0]]), 1.2):
        x, y, w, h = np.rint(box).astype(int)
        assert seen[y + 1 : y + h - 1, x + 1 : x + w - 1].min() > 200
        assert (seen > 127).sum() == pytest.approx(float(w * h), abs=float(w + h))


@pytest.mark.parametrize("budget, words", [("=5", "% by 5"), ("", "AP 100.0 (100.0 / 100.0)")])
def test_the_search_prints_amounts_that_a_recipe_takes(labelled, budget, words, capsys, monkeypatch):
    # Time passes by a quarter of a second at each look.
    monkeypatch.setattr(thresholds.time, "monotonic", iter(np.linspace(0, 30, 120)).__next__)
    assert thresholds.main(["frontalface_fast", f"{labelled}{budget}", "--minutes", "0.5", "--cost", "1.2"]) == 0
    out = capsys.readouterr().out
    found = [line for line in out.splitlines() if line.startswith("loosening = ")]
    assert found and words in out
    amounts = ast.literal_eval(found[-1].removeprefix("loosening = "))
    assert len(amounts) == vj.load("frontalface_fast").n_stages and max(amounts) <= 1.4
