import threading
from collections import Counter

import naive
import numpy as np
import pytest
from cascades import LBP_FILE, chained, random_cascade
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import gray
from scans import count, depths, scan, whole

import vj
from vj._compile import njit
from vj.cascade.haar import HaarFeatures
from vj.scanning import _kernels as kernels
from vj.scanning.scanner import FLAT, Scanner
from vj.scanning.tables import largest_values

# (pool, node counts, weights that are no integers): every way in which the lane scan adds up a feature or a tree.
SHAPES = [
    ("basic", (1,), False),
    ("core", (1,), False),
    ("all", (1,), False),
    ("all", (1,), True),
    ("odd", (1,), False),
    ("basic", (2,), False),
    ("all", (1, 2, 3, 7), True),
    ("lbp", (1,), False),
    ("lbp", (1, 3), False),
]


@njit()
def left_out_of(rejected, pending):
    return kernels._skipped(rejected, pending)


def assert_scans_agree(scanner, image, stride=1, skip=False):
    """Both ways of scanning return the same hits, sums and counts."""
    planes = whole(scanner.cascade, image, stride)
    lanes, plain = (scanner._run(*planes, skip, count=True, plain=plain) for plain in (False, True))
    for got, want in zip(lanes, plain, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_depths_equal_those_from_the_pixels(shape, stride):
    kind, nodes, fractions = shape
    image = gray("astronaut", (24, 21))
    seen = set()
    for seed in range(1, 4):
        cascade = random_cascade(seed, kind=kind, nodes=nodes, fractions=fractions)
        depth, sums = depths(Scanner(cascade), image, stride)
        assert depth.shape == ((21 - 9) // stride + 1, (24 - 8) // stride + 1)
        for (r, i), found in np.ndenumerate(depth):
            window = image[r * stride : r * stride + 9, i * stride : i * stride + 8]
            assert (found, sums[r, i]) == naive.window_depth(cascade, window), (r, i)
        seen |= set(np.unique(depth))
    assert len(seen) > 3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("skip", [False, True])
def test_scan_equals_the_plain_scan_and_the_depths(shape, stride, skip):
    kind, nodes, fractions = shape
    image = gray("camera", (150, 140))
    total = 0
    for seed in range(4):
        cascade = random_cascade(seed, kind=kind, nodes=nodes, fractions=fractions)
        scanner = Scanner(cascade)
        assert_scans_agree(scanner, image, stride, skip)
        found, counted = scan(scanner, image, stride, skip), count(scanner, image, stride, skip)
        assert (counted.windows, counted.hits) == (found.windows, len(found.xs))
        depth, sums = depths(scanner, image, stride)
        if not skip:
            assert found.windows == depth.size
            np.testing.assert_array_equal(counted.entered, [(depth >= s).sum() for s in range(cascade.n_stages)])
            ys, xs = np.nonzero(depth == cascade.n_stages)
            np.testing.assert_array_equal(found.xs, xs * stride)
            np.testing.assert_array_equal(found.ys, ys * stride)
            np.testing.assert_array_equal(found.sums, sums[ys, xs])
        total += len(found.xs)
    assert total > 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_features_are_counted_as_a_walk_through_the_trees_counts_them(shape):
    kind, nodes, fractions = shape
    image = gray("astronaut", (17, 15))
    several = False
    for seed in range(3):
        cascade = random_cascade(seed, kind=kind, nodes=nodes, fractions=fractions)
        expected = np.zeros(cascade.n_stages, int)
        for y in range(15 - 9 + 1):
            for x in range(17 - 8 + 1):
                expected += naive.nodes_evaluated(cascade, image[y : y + 9, x : x + 8])
        counted = count(Scanner(cascade), image)
        assert counted.features.tolist() == expected.tolist()
        several |= bool((counted.features > counted.entered * cascade.stage_sizes).any())
    assert several == (nodes != (1,))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("links", [(0, 1, 1, 1), (0, 1, 0, 1), (0, 0, 1, 0)])
def test_stages_that_begin_with_the_stage_before_go_on_from_its_sum(shape, links):
    """As if each was summed from 0, which is what its file says and OpenCV does."""
    kind, nodes, fractions = shape
    small, image = gray("astronaut", (16, 15)), gray("camera", (150, 140))
    hits = 0
    for seed in range(3):
        apart = random_cascade(seed, kind=kind, nodes=nodes, fractions=fractions)
        cascade = chained(apart, links)
        assert cascade.carried.tolist() == [n * k for n, k in zip([0, *cascade.stage_sizes], links, strict=False)]
        scanner = Scanner(cascade)
        depth, sums = depths(scanner, small)
        for (r, i), found in np.ndenumerate(depth):
            assert (found, sums[r, i]) == naive.window_depth(cascade, small[r : r + 9, i : i + 8]), (r, i)
        for stride, skip in ((1, False), (2, False), (1, True)):
            assert_scans_agree(scanner, image, stride, skip)
        found, counted, (depth, sums) = scan(scanner, image), count(scanner, image), depths(scanner, image)
        np.testing.assert_array_equal(found.sums, sums[found.ys, found.xs])
        assert len(found.xs) == (depth == cascade.n_stages).sum()
        if nodes == (1,):
            assert counted.features.tolist() == (counted.entered * apart.stage_sizes).tolist()
        hits += len(found.xs)
    assert hits > 0


def test_what_only_looks_like_the_stage_before_is_not_carried():
    cascade = chained(random_cascade(1, stages=3), (0, 1, 1))
    assert (cascade.carried[1:] > 0).all()
    changed = cascade.leaves.copy()
    # The first leaf of the second stage: neither it nor the third begins with the stage before now.
    changed[2 * cascade.stage_starts[1]] += 1
    assert vj.Cascade(**{**vars(cascade), "leaves": changed}).carried.tolist() == [0, 0, 0]
    twice = chained(random_cascade(1, stages=1), (0,))
    n = twice.n_trees
    same = {name: np.concatenate([getattr(twice, name)] * 2) for name in ("node_features", "node_thresholds", "leaves")}
    again = vj.Cascade(
        **{
            **vars(twice),
            **same,
            "node_children": np.tile(twice.node_children, (2, 1)),
            "stage_starts": [0, n, 2 * n],
            "stage_thresholds": [-1.0, 0.5],
            "tree_starts": np.arange(2 * n + 1),
        }
    )
    # Nothing would be left to evaluate.
    assert again.carried.tolist() == [0, 0]
    assert_scans_agree(Scanner(again), gray("camera", (80, 70)))


def test_skipping_leaves_out_the_right_neighbour_of_what_the_first_stage_rejects():
    cascade = random_cascade(3)
    image = gray("coins", (60, 50))
    scanner = Scanner(cascade)
    depth, _ = depths(scanner, image)
    visited = entered = hits = 0
    for row in depth:
        x = 0
        while x < len(row):
            visited += 1
            entered += row[x] != FLAT
            hits += row[x] == cascade.n_stages
            x += 2 if row[x] == 0 else 1
    counted = count(scanner, image, skip=True)
    assert (counted.windows, counted.entered[0], counted.hits) == (visited, entered, hits)


@given(st.lists(st.booleans(), min_size=1, max_size=100))
@settings(max_examples=200, deadline=None)
def test_what_is_left_out_of_a_row_follows_from_a_carry(rejected):
    """32 windows at a time, whether or not the first of them is left out."""
    expected, skipped = [], False
    for one in rejected:
        expected.append(skipped)
        skipped = one and not skipped
    found, pending = [], np.uint32(0)
    for first in range(0, len(rejected), 32):
        part = rejected[first : first + 32]
        bits = sum(one << k for k, one in enumerate(part))
        left_out, pending = left_out_of(np.uint32(bits), pending)
        found += [bool(int(left_out) >> k & 1) for k in range(len(part))]
    assert found == expected


def test_the_bound_of_a_value_is_what_black_and_white_pixels_reach():
    """It decides whether 16 bits are enough: no image may have a larger value."""
    tight = 0
    for kind in ("all", "odd"):
        features = random_cascade(3, kind=kind).features
        for rects, weights, tilted, bound in zip(
            features.rects, features.weights, features.tilted, largest_values(features), strict=True
        ):
            pixels = Counter()
            for rect, weight in zip(rects.tolist(), weights.tolist(), strict=True):
                if weight:
                    pixels.update(dict.fromkeys(naive.rectangle_pixels(*rect, tilted), weight))
            largest = 255 * max(sum(w for w in pixels.values() if w > 0), -sum(w for w in pixels.values() if w < 0))
            assert largest <= bound
            tight += largest == bound
        assert kind == "odd" or tight == len(features)


def test_a_large_feature_is_summed_in_32_bits():
    """Beyond 2**15 the lower halves of the sums no longer decide; the same cascade at several sizes has both."""
    small, image = random_cascade(7), gray("camera", (120, 130))
    seen = set()
    for factor in (1, 3, 6):
        features = HaarFeatures(small.features.rects * factor, small.features.weights, small.features.tilted)
        window = (8 * factor, 9 * factor)
        cascade = vj.Cascade(**{**vars(small), "window": window, "features": features})
        scanner = Scanner(cascade)
        seen |= set(scanner._merged.kinds.tolist())
        for stride in (1, 2):
            assert_scans_agree(scanner, image, stride, True)
    assert seen >= {kernels.EDGE, kernels.LINE, kernels.WIDE}


def test_a_node_that_several_branches_lead_to_is_scanned_one_by_one():
    cascade = random_cascade(1, nodes=(3,))
    children = np.tile([[1, 1], [2, 0], [-1, -2]], (cascade.n_trees, 1))
    shared = vj.Cascade(**{**vars(cascade), "node_children": children})
    image = gray("camera", (60, 50))
    depth, sums = depths(Scanner(shared), image)
    found = scan(Scanner(shared), image)
    ys, xs = np.nonzero(depth == shared.n_stages)
    np.testing.assert_array_equal(found.xs, xs)
    np.testing.assert_array_equal(found.sums, sums[ys, xs])


def test_sums_at_the_threshold_are_decided_exactly():
    """Thresholds set to sums that occur: the rounded sums of the lane scan cannot decide, the exact ones must."""
    image = gray("camera", (120, 100))
    for seed in range(6):
        cascade = random_cascade(seed, stages=2)
        _, first = depths(Scanner(cascade.truncated(1)), image)
        values, counts = np.unique(first, return_counts=True)
        for value in values[np.argsort(-counts)[:3]]:
            # The least threshold that the value passes, and the greatest that it does not.
            threshold = np.float32(value) + np.float32(1e-5)
            for _ in range(8):
                moved = vj.Cascade(**{**vars(cascade), "stage_thresholds": [threshold, cascade.stage_thresholds[1]]})
                assert_scans_agree(Scanner(moved), image)
                threshold = np.nextafter(threshold, np.float32(np.inf))


@pytest.mark.parametrize("leaf", [None, 0.25])
def test_hits_of_a_single_stage_have_its_sums(leaf):
    """The first stage keeps no sums for later ones, unless there are none; leaves may need no second integer."""
    image = gray("camera", (120, 100))
    for seed in range(4):
        cascade = random_cascade(seed, stages=1)
        leaves = cascade.leaves if leaf is None else np.sign(cascade.leaves) * leaf
        scanner = Scanner(vj.Cascade(**{**vars(cascade), "leaves": leaves, "stage_thresholds": [-0.2]}))
        depth, sums = depths(scanner, image)
        found = scan(scanner, image)
        assert 0 < len(found.xs) < depth.size
        np.testing.assert_array_equal(found.sums, sums[found.ys, found.xs])


def test_extreme_leaves_and_thresholds_are_decided_as_the_plain_scan_does():
    image = gray("camera", (80, 70))
    for leaf in (0.0, 1e-30, 1e30, 3e38):
        for threshold in (-3e38, -1.0, 0.0, 1e-5, 3e38):
            cascade = random_cascade(5, stages=1)
            leaves = np.sign(cascade.leaves) * leaf
            changed = vj.Cascade(**{**vars(cascade), "leaves": leaves, "stage_thresholds": [threshold]})
            assert_scans_agree(Scanner(changed), image)


@pytest.mark.parametrize("nodes", [(1,), (1, 3)])
def test_sums_of_hits_are_exact_whether_one_integer_holds_them_or_two_or_none(nodes):
    """Short leaves need one; a small leaf has bits that a second one holds, or more than both do."""
    image, integers = gray("camera", (80, 70)), set()
    for seed in range(6):
        cascade = random_cascade(seed, kind="all", nodes=nodes, stages=2)
        short = np.rint(cascade.leaves * 4096) / 4096
        small, tiny = (np.append(cascade.leaves[:-2], cascade.leaves[-2:] * np.float32(x)) for x in (1e-3, 1e-9))
        for name, leaves in (("short", short), ("small", small), ("tiny", tiny)):
            scanner = Scanner(vj.Cascade(**{**vars(cascade), "leaves": leaves}))
            assert_scans_agree(scanner, image)
            hits = scan(scanner, image)
            _, sums = depths(scanner, image)
            np.testing.assert_array_equal(hits.sums, sums[hits.ys, hits.xs])
            integers |= {(name, np.count_nonzero(scanner._lanes.units))} if len(hits.xs) else set()
    assert {("short", 1), ("small", 2), ("tiny", 0)} <= integers


@pytest.mark.parametrize("size", [(8, 9), (9, 9), (15, 9), (16, 10), (23, 40), (24, 9)])
def test_images_of_every_width_around_a_group_of_lanes(size):
    cascade = random_cascade(2)
    image = gray("camera", size)
    for stride in (1, 2):
        assert_scans_agree(Scanner(cascade), image, stride, True)


def test_an_image_smaller_than_the_window_has_no_windows():
    counted = count(Scanner(random_cascade(0)), np.zeros((8, 30), np.uint8))
    assert (counted.windows, counted.hits, counted.entered.sum()) == (0, 0, 0)


def test_flat_windows_never_enter_a_stage():
    scanner, image = Scanner(random_cascade(0)), np.full((40, 40), 99, np.uint8)
    counted = count(scanner, image)
    assert counted.windows == 33 * 32
    assert counted.entered.sum() == counted.features.sum() == 0
    depth, _ = depths(scanner, image)
    assert (depth == FLAT).all()


def test_large_windows_whose_sums_pass_the_reach_of_float32_are_exact_too():
    """Beyond 2**24 a float32 holds no longer every integer: the order and rounding of the definition count."""
    small = random_cascade(7)
    rects = small.features.rects * 60
    features = HaarFeatures(rects, small.features.weights, small.features.tilted)
    assert 255 * (rects[:, 0, 2] * rects[:, 0, 3]).max() > 2**24
    cascade = vj.Cascade(**{**vars(small), "window": (480, 540), "features": features})
    image = np.array(gray("camera", (500, 550)))
    assert_scans_agree(Scanner(cascade), image)


def test_one_scanner_serves_many_threads():
    image = gray("camera", (200, 150))
    scanner = Scanner(vj.load(LBP_FILE))
    expected = [scan(scanner, image[:, : 200 - k], 1 + k % 2) for k in range(8)]
    fresh = Scanner(scanner.cascade)
    results = [None] * 8

    def work(k):
        results[k] = scan(fresh, image[:, : 200 - k], 1 + k % 2)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, want in zip(results, expected, strict=True):
        assert got.windows == want.windows
        for name in ("xs", "ys", "sums"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
