import threading

import naive
import numpy as np
import pytest
from cascades import LBP_FILE, random_cascade
from photos import gray, photo

import vj
from vj.detector import clip_boxes
from vj.errors import InputError
from vj.scanning.scanner import FLAT
from vj.scanning.whole import plan


@pytest.fixture(scope="module")
def cascade():
    return vj.load(LBP_FILE)


def assert_equal(a, b):
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.neighbors, b.neighbors)


def test_it_finds_the_face(cascade):
    found = vj.Detector(cascade).detect(photo("astronaut"))
    best = found.boxes[np.argmax(found.scores)]
    # The astronaut's face is about 100 pixels wide around (225, 115).
    assert best[0] < 225 < best[0] + best[2] and best[1] < 115 < best[1] + best[3]
    assert 70 < best[2] < 140
    assert len(found) < 4


@pytest.mark.parametrize("settings", [{}, {"stride": 1}, {"suppression": 0.3}, {"min_neighbors": 0}], ids=str)
def test_results_do_not_depend_on_threads(cascade, settings):
    image = photo("astronaut")
    one = vj.Detector(cascade, threads=1, **settings)
    for threads in (2, 5):
        assert_equal(one.detect(image), one.replace(threads=threads).detect(image))


def test_bands_do_not_change_results(cascade, monkeypatch):
    image = photo("coffee")
    whole = vj.Detector(cascade, min_neighbors=0, threads=1)
    expected, spent = whole.hits(image), whole.cost(image)
    for pixels in (1, 20_000):
        monkeypatch.setattr("vj.scanning.whole.BAND_PIXELS", pixels)
        plan.cache_clear()
        found, again = whole.hits(image), whole.cost(image)
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.sums, expected.sums)
        np.testing.assert_array_equal(again.entered, spent.entered)
        np.testing.assert_array_equal(again.windows, spent.windows)
    plan.cache_clear()


def test_every_dense_grid_window_is_on_the_map():
    cascade = random_cascade(2)
    image = gray("camera", (50, 40))
    detector = vj.Detector(cascade, min_neighbors=0, stride=1, scale_factor=1.4, threads=1)
    found = detector.hits(image)
    count = 0
    limit = cascade.stage_limits[-1]
    for window_map in detector.windows(image):
        passed = window_map.depth == cascade.n_stages
        size = [round(side / window_map.scale) for side in (40, 50)]
        assert window_map.depth.shape == (size[0] - 9 + 1, size[1] - 8 + 1)
        assert window_map.stride == 1
        n = int(passed.sum())
        np.testing.assert_array_equal(window_map.margin[passed], found.sums[count : count + n] - limit)
        count += n
        assert (window_map.margin[(window_map.depth >= 0) & ~passed] < 0).all()
        assert (window_map.margin[passed] >= 0).all()
        assert (window_map.margin[window_map.depth == FLAT] == 0).all()
    assert count == len(found.boxes) > 0


def test_cost_counts_windows_and_weak_classifiers():
    cascade = random_cascade(2)
    image = gray("camera", (50, 40))
    detector = vj.Detector(cascade, stride=1, scale_factor=1.4)
    cost = detector.cost(image)
    for k, window_map in enumerate(detector.windows(image)):
        assert cost.scales[k] == window_map.scale
        assert cost.windows[k] == window_map.depth.size
        entered = [(window_map.depth >= s).sum() for s in range(cascade.n_stages)]
        np.testing.assert_array_equal(cost.entered[k], entered)
        np.testing.assert_array_equal(cost.weak_classifiers[k], entered * cascade.stage_sizes)
        assert cost.hits[k] == (window_map.depth == cascade.n_stages).sum()
    np.testing.assert_array_equal(cost.features, cost.weak_classifiers)


def test_scores_pool_the_margins_of_the_hits(cascade):
    image = photo("astronaut")
    raw = vj.Detector(cascade, min_neighbors=0).detect(image)
    found = vj.Detector(cascade, min_neighbors=1).detect(image)
    hits = vj.Detector(cascade).hits(image)
    limit = cascade.stage_limits[-1]
    np.testing.assert_array_equal(raw.scores, hits.sums - limit)
    for members, score in zip(_members(hits, found), found.scores, strict=True):
        assert score == pytest.approx(np.log(np.exp(hits.sums[members] - limit).sum()))


def _members(hits, found):
    """Indices of the hits of each group, found by hand."""
    boxes = hits.boxes.tolist()
    for group in naive.group(boxes, 1):
        mean = np.rint(np.mean(group, axis=0))
        if any((np.abs(mean - box) <= 1).all() for box in found.boxes):
            yield [boxes.index(box) for box in group]


def test_suppression_keeps_boxes_that_overlap_little(cascade):
    raw = vj.Detector(cascade, min_neighbors=0).detect(photo("astronaut"))
    found = vj.Detector(cascade, min_neighbors=2, suppression=0.3).detect(photo("astronaut"))
    assert 0 < len(found) < len(raw)
    assert (found.neighbors > 2).all()
    assert (np.diff(found.scores) <= 0).all()
    assert naive.suppress(found.boxes.tolist(), found.scores, 0.3) == list(range(len(found)))


@pytest.mark.parametrize(
    "change",
    [
        lambda a: np.asfortranarray(a),
        lambda a: a[:, ::-1][:, ::-1],
        lambda a: np.dstack([a, np.full(a.shape[:2], 7, np.uint8)]),
        lambda a: np.repeat(np.repeat(a, 2, axis=0), 2, axis=1)[::2, ::2],
    ],
)
def test_any_layout_of_the_same_pixels_gives_the_same(cascade, change):
    image = photo("astronaut")
    assert not image.flags.writeable
    detector = vj.Detector(cascade)
    assert_equal(detector.detect(image), detector.detect(change(image)))


def test_gray_with_a_channel_axis(cascade):
    detector = vj.Detector(cascade)
    assert_equal(detector.detect(gray("astronaut")), detector.detect(gray("astronaut")[:, :, None]))


@pytest.mark.parametrize("shape", [(0, 0), (0, 30), (30, 0, 3), (1, 1), (1, 1, 3), (23, 500), (500, 23)])
def test_images_without_a_window_have_no_objects(cascade, shape):
    detector = vj.Detector(cascade)
    found = detector.detect(np.zeros(shape, np.uint8))
    assert len(found) == 0 and found.boxes.shape == (0, 4)
    assert detector.cost(np.zeros(shape, np.uint8)).windows.sum() == 0
    assert list(detector.windows(np.zeros(shape, np.uint8))) == []


@pytest.mark.parametrize(
    "bad",
    [np.zeros((50, 50)), np.zeros((50, 50, 2), np.uint8), np.zeros(50, np.uint8), np.zeros((50, 50), np.int8), None],
)
def test_other_images_are_refused(cascade, bad):
    with pytest.raises(InputError, match=r"uint8 of shape \(h, w\), \(h, w, 3\) BGR or \(h, w, 4\) BGRA, got"):
        vj.Detector(cascade).detect(bad)


SETTINGS = {
    "scale_factor": [1.0, 0, -1, float("nan")],
    "min_neighbors": [-1],
    "stride": [0, 3],
    "suppression": [-0.1, 1.0],
    "threads": [0],
    "min_size": [(1, 2, 3), -4],
    "max_size": [(-1, 5)],
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_out_of_range_are_refused(cascade, name):
    for value in SETTINGS[name]:
        with pytest.raises(InputError, match=name):
            vj.Detector(cascade, **{name: value})
        with pytest.raises(InputError, match=name):
            vj.Detector(cascade).replace(**{name: value})


def test_replace_changes_only_what_is_named(cascade):
    detector = vj.Detector(cascade, min_size=30, scale_factor=1.3)
    other = detector.replace(min_neighbors=1)
    assert (other.min_size, other.scale_factor, other.min_neighbors) == ((30, 30), 1.3, 1)
    assert detector.min_neighbors == 3
    with pytest.raises(InputError, match="got min_neighbours"):
        detector.replace(min_neighbours=1)


def test_one_detector_serves_many_threads(cascade):
    detector = vj.Detector(cascade, threads=2)
    images = [gray("astronaut", (200 + 13 * k, 180 + 7 * k)) for k in range(6)]
    expected = [detector.detect(image) for image in images]
    results = [[] for _ in images]

    def work(k):
        for _ in range(3):
            results[k].append(detector.detect(images[k]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, want in zip(results, expected, strict=True):
        assert len(got) == 3
        for one in got:
            assert_equal(one, want)


def test_boxes_are_clipped_and_empty_ones_left_out():
    boxes = np.array([[-5, -5, 10, 10], [90, 40, 20, 20], [100, 0, 5, 5], [10, 10, 5, 5]], np.int32)
    clipped, kept = clip_boxes(boxes, (50, 100))
    assert clipped.tolist() == [[0, 0, 5, 5], [90, 40, 10, 10], [10, 10, 5, 5]]
    assert kept.tolist() == [True, True, False, True]
