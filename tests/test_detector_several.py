"""Detectors of several cascades: each finds what it finds alone, and overlapping boxes are merged."""

from dataclasses import replace

import naive
import numpy as np
import pytest
from cascades import LBP_FILE, random_cascade
from photos import gray

import vj
from vj.cascade.calibration import ScoreCalibration
from vj.errors import InputError
from vj.scanning.whole import plan


def alone(cascades, image, **settings):
    return [vj.Detector(one, **settings).detect(image) for one in cascades]


@pytest.fixture
def small_bands(monkeypatch):
    """Several bands of rows in small images."""
    plan.cache_clear()
    monkeypatch.setattr("vj.scanning.whole.BAND_PIXELS", 1 << 13)
    yield
    plan.cache_clear()


@pytest.mark.parametrize("settings", [{}, {"stride": 1}, {"min_size": 40, "scale_factor": 1.3}, {"max_size": 60}])
def test_each_cascade_has_the_hits_that_it_has_alone(settings, small_bands):
    """Windows of different sizes, Haar with and without tilted features, and LBP; in several bands of rows."""
    cascades = [
        random_cascade(3),
        random_cascade(4, kind="all", window=(12, 7)),
        random_cascade(5, kind="lbp", window=(20, 22)),
        vj.load(LBP_FILE),
    ]
    image = np.array(gray("camera", (260, 210)))
    together = vj.Detector(cascades, threads=2, **settings)
    every = 0
    for found, cascade in zip(together._hits(image), cascades, strict=True):
        known = vj.Detector(cascade, threads=1, **settings).hits(image)
        np.testing.assert_array_equal(found.boxes, known.boxes)
        np.testing.assert_array_equal(found.sums, known.sums)
        every += len(known.boxes)
    assert every > 100


def calibrated(cascade, scores, probabilities):
    return replace(cascade, calibration=ScoreCalibration(np.array(scores), np.array(probabilities), 10))


@pytest.mark.parametrize("settings", [{}, {"min_neighbors": 1, "suppression": 0.2}])
def test_of_boxes_that_overlap_the_most_probable_is_kept(settings):
    image = gray("astronaut", (512, 512))
    one = calibrated(vj.load("frontalface"), [0.0, 10.0], [0.2, 0.9])
    two = calibrated(vj.load("frontalface_small"), [0.0, 30.0], [0.0, 1.0])
    parts = alone([one, two], image, **settings)
    found = vj.Detector([one, two], **settings).detect(image)
    boxes = np.concatenate([part.boxes for part in parts])
    probabilities = np.concatenate([part.probabilities for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    sources = np.repeat([0, 1], [len(part) for part in parts])
    assert len(set(probabilities)) == len(probabilities)
    kept = naive.suppress(boxes, probabilities, settings.get("suppression", 0.3))
    assert 0 < len(kept) < len(boxes)
    np.testing.assert_array_equal(found.boxes, boxes[kept])
    np.testing.assert_array_equal(found.probabilities, probabilities[kept])
    np.testing.assert_array_equal(found.scores, scores[kept])
    np.testing.assert_array_equal(found.sources, sources[kept])


def test_without_calibrations_the_best_score_is_kept():
    image = gray("astronaut", (512, 512))
    cascades = [vj.load("frontalface"), replace(vj.load("frontalface_small"), calibration=None)]
    found = vj.Detector(cascades).detect(image)
    parts = alone(cascades, image)
    assert found.probabilities is None
    boxes, scores = (np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores"))
    kept = naive.suppress(boxes, scores, 0.3)
    np.testing.assert_array_equal(found.boxes, boxes[kept])
    np.testing.assert_array_equal(found.scores, scores[kept])


def test_a_face_and_its_mirror_image_are_found_by_a_cascade_and_its_mirror_image():
    face = random_cascade(8, stages=3)
    # One scale, where nothing is resampled.
    detector = vj.Detector([face, face.mirrored()], stride=1, max_size=face.window, min_neighbors=0, suppression=0.9)
    image = gray("astronaut", (64, 64))
    there, here = detector.detect(image), detector.detect(np.ascontiguousarray(image[:, ::-1]))
    flipped = there.boxes * [-1, 1, 1, 1] + [64 - 8, 0, 0, 0]
    ours = {(*box, 1 - s, p) for *box, s, p in zip(*flipped.T.tolist(), there.sources, there.scores, strict=True)}
    theirs = {(*box, s, p) for *box, s, p in zip(*here.boxes.T.tolist(), here.sources, here.scores, strict=True)}
    assert len(ours & theirs) > 0.9 * max(len(ours), len(theirs)) > 5


def test_a_list_of_one_is_that_one():
    cascade = vj.load("frontalface")
    image = gray("astronaut", (300, 300))
    one, listed = vj.Detector(cascade), vj.Detector([cascade])
    assert listed.cascade is cascade and listed.cascades == (cascade,)
    assert listed.detect(image).sources is None
    np.testing.assert_array_equal(one.detect(image).boxes, listed.detect(image).boxes)
    assert listed.replace(min_neighbors=1).cascades == (cascade,)


@pytest.mark.parametrize("given", [[], ["frontalface"], [None], "frontalface"])
def test_what_is_no_cascade_is_refused(given):
    with pytest.raises(InputError, match="expected a cascade or a sequence of them, got"):
        vj.Detector(given)


def test_what_describes_one_cascade_is_refused_for_several():
    detector = vj.Detector([random_cascade(1), random_cascade(2)])
    image = gray("camera", (60, 60))
    for method in (detector.hits, detector.cost, lambda image: next(detector.windows(image))):
        with pytest.raises(InputError, match="expected a detector of one cascade, got one of 2"):
            method(image)
