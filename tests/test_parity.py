"""The same hits, groups, counts and weights as OpenCV's detector, for every stock cascade."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from cascades import LBP_FILE, chained, random_cascade, stock
from photos import photo

import vj
from vj.cascade.stock import DEFAULT, find

pytestmark = pytest.mark.opencv4

HAAR = sorted(Path(cv2.__file__).parent.glob("data/*.xml"))


def cut(name, size):
    """A part of a photo, so that hundreds of comparisons take seconds."""
    width, height = size
    image = photo(name)
    top, left = (image.shape[0] - height) // 3, (image.shape[1] - width) // 3
    return np.ascontiguousarray(image[top : top + height, left : left + width])


IMAGES = {
    "colour": cut("astronaut", (260, 220)),
    "grey": cut("camera", (200, 230)),
    "odd": cv2.resize(photo("astronaut"), (171, 133), interpolation=cv2.INTER_AREA),
    "bgra": np.dstack([cut("chelsea", (150, 120)), np.zeros((120, 150), np.uint8)]),
    "noise": np.random.default_rng(0).integers(0, 256, (90, 110), dtype=np.uint8),
    "saturated": np.where(photo("text")[:140, :170] > 128, 255, 0).astype(np.uint8),
    "tiny": cut("coins", (31, 29)),
    "narrow": cut("coins", (300, 22)),
    "flat": np.full((70, 80), 77, np.uint8),
    "one pixel": np.full((1, 1), 200, np.uint8),
    "wide": cv2.resize(cut("coffee", (400, 60)), (4100, 40)),
}
SETTINGS = [
    (1.1, 0, (0, 0), (0, 0)),
    (1.05, 3, (30, 30), (90, 0)),
    (1.3, 1, (0, 40), (100, 80)),
    (2.0, 6, (0, 0), (0, 0)),
    (1.2, 0, (500, 500), (40, 40)),
]


def compare(cascade, theirs, image, settings):
    factor, neighbors, least, most = settings
    boxes, _, sums = theirs.detectMultiScale3(image, factor, neighbors, 0, least, most, outputRejectLevels=True)
    _, counts = theirs.detectMultiScale2(image, factor, neighbors, 0, least, most)
    detector = vj.Detector(cascade, scale_factor=factor, min_neighbors=neighbors, min_size=least, max_size=most)
    found = detector.detect(image)
    np.testing.assert_array_equal(found.boxes, np.array(boxes).reshape(-1, 4))
    np.testing.assert_array_equal(found.neighbors, np.array(counts).reshape(-1))
    again, ours = detector.detect_with_sums(image)
    np.testing.assert_array_equal(again.boxes, found.boxes)
    np.testing.assert_array_equal(ours, np.array(sums).reshape(-1))
    return len(found)


@pytest.mark.parametrize("path", HAAR, ids=lambda path: path.stem.removeprefix("haarcascade_"))
def test_haar_cascades_find_what_opencv_finds(path, tmp_path):
    cv2.setNumThreads(1)
    # Few windows pass a whole cascade; its first stages pass many.
    short = stock(str(path)).truncated(4)
    vj.save(short, tmp_path / "short.xml")
    found = compare(short, cv2.CascadeClassifier(str(tmp_path / "short.xml")), IMAGES["colour"], SETTINGS[0])
    assert found > 100
    theirs = cv2.CascadeClassifier(str(path))
    for name, image in IMAGES.items():
        # All settings on the first image, then each image with one: every pair of values meets some cascade.
        for k, settings in enumerate(SETTINGS):
            if name == "colour" or (len(name) + len(path.stem) + k) % len(SETTINGS) == 0:
                compare(stock(str(path)), theirs, image, settings)


def test_lbp_cascades_find_what_opencv_finds(tmp_path):
    cv2.setNumThreads(1)
    path = tmp_path / "lbp.xml"
    # OpenCV refuses scikit-image's file for its misspelt tag.
    path.write_text(LBP_FILE.read_text().replace("featuhreParams", "featureParams"))
    theirs = cv2.CascadeClassifier(str(path))
    assert sum(compare(vj.load(LBP_FILE), theirs, image, s) for image in IMAGES.values() for s in SETTINGS) > 0


def test_opencv_loads_the_packaged_cascade_and_finds_the_same():
    cv2.setNumThreads(1)
    path = find(DEFAULT)
    theirs = cv2.CascadeClassifier(str(path))
    assert not theirs.empty()
    found = [compare(vj.load(path), theirs, image, s) for image in IMAGES.values() for s in SETTINGS]
    assert sum(found) > 0
    # Whole photos with a face, at the settings of vj-detect.
    assert compare(vj.load(path), theirs, photo("astronaut"), (1.1, 3, (0, 0), (0, 0))) == 1


@pytest.mark.parametrize("height", range(60, 76))
def test_the_row_that_opencvs_stripes_leave_out(height):
    """Its division of the rows among threads can leave the last one unvisited; many heights, so that it happens."""
    cv2.setNumThreads(1)
    path = Path(cv2.data.haarcascades) / "haarcascade_eye.xml"
    theirs = cv2.CascadeClassifier(str(path))
    for width in (50, 83, 121):
        image = cv2.resize(photo("astronaut")[60:180, 160:290], (width, height), interpolation=cv2.INTER_AREA)
        compare(stock(str(path)), theirs, image, (1.1, 0, (0, 0), (0, 0)))


def test_a_large_photo_in_several_bands():
    cv2.setNumThreads(1)
    image = cv2.resize(photo("astronaut"), (1200, 1100), interpolation=cv2.INTER_CUBIC)
    path = Path(cv2.data.haarcascades) / "haarcascade_frontalface_alt2.xml"
    assert compare(stock(str(path)), cv2.CascadeClassifier(str(path)), image, (1.2, 1, (0, 0), (0, 0))) > 0


@pytest.mark.parametrize("kind", ["all", "lbp"])
def test_a_chain_of_stages_gives_what_opencv_finds_in_its_file(kind, tmp_path):
    """OpenCV sums each stage from 0."""
    cv2.setNumThreads(1)
    total = 0
    for seed in range(3):
        cascade = chained(random_cascade(seed, kind=kind, nodes=(1, 3), stages=5), (0, 1, 1, 0, 1))
        vj.save(cascade, tmp_path / "chain.xml")
        loaded, theirs = vj.load(tmp_path / "chain.xml"), cv2.CascadeClassifier(str(tmp_path / "chain.xml"))
        assert loaded == cascade and loaded.carried.any()
        for name in ("odd", "tiny", "flat"):
            total += sum(compare(loaded, theirs, IMAGES[name], SETTINGS[k]) for k in (0, 2))
    assert total > 100
