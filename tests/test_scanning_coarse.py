"""Coarse to fine: some scales first, then of those between the windows near what gets far enough."""

import numpy as np
import pytest
from cascades import chained, random_cascade, softened
from photos import gray
from scans import depths, whole

import vj
from vj.errors import InputError
from vj.scanning._kernels import Visit
from vj.scanning._levels import spread
from vj.scanning.scanner import Scanner


def bits(marked):
    """Marks as the scan keeps them: eight windows to a byte, the first in the lowest bit."""
    return np.packbits(marked, axis=1, bitorder="little").reshape(-1)


def unpacked(marks, shape):
    rows = marks.reshape(shape[0], -(-shape[1] // 8))
    return np.unpackbits(rows, axis=1, bitorder="little")[:, : shape[1]].astype(bool)


def visited(depth, skip):
    """Which windows of a coarse scale are visited; `depth` is that of every window."""
    seen = np.zeros(depth.shape, bool)
    for r in range(depth.shape[0]):
        i = 0
        while i < depth.shape[1]:
            seen[r, i] = True
            i += 2 if skip and depth[r, i] == 0 else 1
    return seen


@pytest.mark.parametrize(
    ("kind", "nodes"), [("basic", (1,)), ("all", (1, 3)), ("lbp", (1, 3))], ids=["stumps", "trees", "lbp"]
)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("skip", [False, True])
def test_windows_visited_marks_hits_and_counts(kind, nodes, stride, skip):
    total = 0
    # Widths around a batch of vectors.
    for seed, size in enumerate([(150, 141), (72, 40), (73, 41), (39, 30), (9, 9)]):
        image, rng = gray("camera", size), np.random.default_rng(seed)
        plain = random_cascade(seed, kind=kind, nodes=nodes)
        for cascade in (plain, chained(plain, (0, 1, 1, 0)), softened(random_cascade(seed, kind=kind), seed)):
            scanner, n = Scanner(cascade), cascade.n_stages
            planes, rows, columns = whole(cascade, image, stride)
            depth, sums = depths(scanner, image, stride)
            # Of the fine scales few windows, whole rows and nothing are marked.
            some = rng.random(depth.shape) < rng.random((rows, 1)) ** 4
            for fine, stages in ((False, 1), (False, 2), (False, n), (False, 99), (True, 2)):
                results = []
                for one_by_one in (True, False):
                    # Not at the start, as other levels' marks come before.
                    marks = np.concatenate([np.full(7, 255, np.uint8), bits(some if fine else np.zeros_like(some))])
                    visit = Visit(fine, stages, marks, 7, -(-columns // 8))
                    result = scanner._run(planes, rows, columns, skip, visit=visit, count=True, plain=one_by_one)
                    results.append((*result, marks))
                for a, b in zip(*results, strict=True):
                    np.testing.assert_array_equal(a, b)
                hits, found_sums, windows, entered, _, marks = results[0]
                seen = some if fine else visited(depth, skip)
                passed = some if fine else seen & (depth >= min(stages, n))
                np.testing.assert_array_equal(unpacked(marks[7:], depth.shape), passed)
                hit = np.argwhere(seen & (depth == n))
                np.testing.assert_array_equal(hits, hit)
                np.testing.assert_array_equal(found_sums, sums[tuple(hit.T)])
                assert windows == seen.sum()
                assert entered.tolist() == [(seen & (depth >= s)).sum() for s in range(n)]
                total += len(hit)
    assert total > 100


def near(marked, coarse, fine, window, shape):
    """Windows of a fine scale that are near marked ones of a coarse scale; scales are (scale, stride)."""
    found = np.zeros(shape, bool)
    for place in np.argwhere(marked):
        centre = (place * coarse[1] + np.array(window[::-1]) / 2) * coarse[0] / fine[0]
        here = np.floor((centre - np.array(window[::-1]) / 2) / fine[1] + 0.5).astype(int)
        r, i = np.clip(here, 0, np.array(shape) - 1)
        found[max(r - 1, 0) : r + 2, max(i - 1, 0) : i + 2] = True
    return found


def test_marks_spread_to_the_windows_nearby():
    rng, window = np.random.default_rng(3), (20, 24)
    scales, shapes = [(1.1013, 2), (1.2097, 2), (2.0011, 1), (2.2017, 1)], [(31, 45), (28, 39), (26, 33), (20, 27)]
    marked = [rng.random(shape) < 0.05 if k in (1, 2) else np.zeros(shape, bool) for k, shape in enumerate(shapes)]
    packed = [bits(one) for one in marked]
    starts = np.cumsum([0, *map(len, packed)])[:-1]
    marks, steps = np.concatenate(packed), [(0, 1, 0), (0, 2, 3), (0, 1, 3)]
    spread(
        marks,
        starts[None].astype(np.int64),
        np.array(shapes, dtype=np.int64)[:, None],
        np.array(scales),
        np.array([window[::-1]], dtype=np.int64),
        np.array(steps, dtype=np.int64),
    )
    parts = np.split(marks, starts[1:])
    for level, sources in ((0, (1,)), (1, ()), (2, ()), (3, (1, 2))):
        expected = marked[level].copy()
        for source in sources:
            expected |= near(marked[source], scales[source], scales[level], window, shapes[level])
        np.testing.assert_array_equal(unpacked(parts[level], shapes[level]), expected)


@pytest.mark.parametrize(("scale_factor", "step"), [(1.1, 2), (1.05, 4), (1.3, 1)])
def test_an_image_is_scanned_as_the_rule_says(scale_factor, step):
    image, cascade = gray("astronaut", (200, 180)), vj.load("frontalface_small")
    detector = vj.Detector(cascade, scale_factor=scale_factor, stride=1, coarse=3, threads=2)
    maps = list(detector.windows(image))
    is_coarse = [k % step == step // 2 for k in range(len(maps))]
    visits = [np.full(one.depth.shape, chosen) for one, chosen in zip(maps, is_coarse, strict=True)]
    for k, one in enumerate(maps):
        for j, other in enumerate(maps):
            if not is_coarse[k] and is_coarse[j] and abs(k - j) < step:
                scales = (other.scale, other.stride), (one.scale, one.stride)
                visits[k] |= near(other.depth >= 3, *scales, cascade.window, one.depth.shape)
    cost = detector.cost(image)
    assert cost.windows.tolist() == [int(one.sum()) for one in visits]
    hits = [one.depth[seen] == cascade.n_stages for one, seen in zip(maps, visits, strict=True)]
    assert cost.hits.tolist() == [int(one.sum()) for one in hits]
    assert cost.hits.sum() > 10
    found, every = detector.hits(image), detector.replace(coarse=0).hits(image)
    kept = np.concatenate([seen[one.depth == cascade.n_stages] for one, seen in zip(maps, visits, strict=True)])
    np.testing.assert_array_equal(found.boxes, every.boxes[kept])
    np.testing.assert_array_equal(found.sums, every.sums[kept])


def test_a_detector_finds_the_faces_at_less_cost_and_exactly_on_request():
    image = gray("astronaut", (512, 512))
    every = vj.Detector(vj.load("frontalface"), threads=2)
    coarse = every.replace(coarse=8)
    assert len(coarse.detect(image)) == len(every.detect(image)) == 1
    costs = [one.cost(image) for one in (coarse, every)]
    assert costs[0].features.sum() < 0.8 * costs[1].features.sum()
    assert (costs[0].hits <= costs[1].hits).all()
    assert costs[0].hits.sum() == len(coarse.hits(image).boxes)
    exact = every.replace(coarse=8, exact=True)
    np.testing.assert_array_equal(exact.hits(image).boxes, every.hits(image).boxes)
    np.testing.assert_array_equal(coarse.cost(image, every=True).features, every.cost(image, every=True).features)
    # Results do not depend on threads.
    np.testing.assert_array_equal(coarse.replace(threads=1).hits(image).boxes, coarse.hits(image).boxes)


def test_cascades_of_other_windows_are_each_scanned_from_coarse_to_fine():
    """Their smallest scales differ, so that a scale may be coarse for one and fine for another."""
    image = gray("astronaut", (300, 280))
    cascades = [vj.load("frontalface"), vj.load("frontalface_fast")]
    settings = {"min_size": 24, "coarse": 4, "min_neighbors": 0, "suppression": 0.3}
    together = vj.Detector(cascades, **settings)._scan(image)[0]
    for cascade, found in zip(cascades, together, strict=True):
        alone = vj.Detector(cascade, **settings).hits(image)
        np.testing.assert_array_equal(found.boxes, alone.boxes)
        np.testing.assert_array_equal(found.sums, alone.sums)


@pytest.mark.parametrize("size", [(24, 24), (27, 20), (30, 26), (5, 5)])
def test_small_images(size):
    """With one scale or two, or none."""
    image = gray("camera", size)
    detector = vj.Detector(vj.load("frontalface"), coarse=1, min_neighbors=0)
    assert len(detector.hits(image).boxes) <= len(detector.replace(coarse=0).hits(image).boxes)


@pytest.mark.parametrize("coarse", [-1, 1001])
def test_a_number_of_stages_out_of_range_is_refused(coarse):
    with pytest.raises(InputError, match="expected coarse as 0 to 1000 stages, got"):
        vj.Detector(random_cascade(1), coarse=coarse)
