"""Scans of soft cascades: both compiled scans against each other and against the obvious loop."""

from dataclasses import replace

import naive
import numpy as np
import pytest
from cascades import random_cascade, softened
from photos import gray
from scans import count, depths, scan, whole

import vj
from vj.cascade.soft import SoftThresholds
from vj.scanning.scanner import Scanner

SHAPES = [
    ("basic", (1,), False),
    ("all", (1,), True),
    ("odd", (1,), False),
    ("basic", (2,), False),
    ("all", (1, 2, 3, 7), True),
    ("lbp", (1,), False),
    ("lbp", (1, 3), False),
]


def both(scanner, image, stride, skip):
    planes = whole(scanner.cascade, image, stride)
    return [scanner._run(*planes, skip, count=True, plain=plain) for plain in (False, True)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_depths_sums_and_features_equal_those_from_the_pixels(shape):
    kind, nodes, fractions = shape
    image = gray("astronaut", (24, 21))
    inside = 0
    for seed in range(1, 4):
        cascade = softened(random_cascade(seed, kind=kind, nodes=nodes, fractions=fractions), seed)
        scanner = Scanner(cascade)
        depth, sums = depths(scanner, image)
        exact, _ = depths(Scanner(cascade.exact()), image)
        features = np.zeros(cascade.n_stages, int)
        for (r, i), found in np.ndenumerate(depth):
            window = image[r : r + 9, i : i + 8]
            assert (found, sums[r, i]) == naive.window_depth(cascade, window), (r, i)
            features += naive.nodes_evaluated(cascade, window)
        assert count(scanner, image).features.tolist() == features.tolist()
        assert (depth <= exact).all()
        inside += np.count_nonzero(depth < exact)
    assert inside > 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("skip", [False, True])
def test_both_scans_agree(shape, stride, skip):
    kind, nodes, fractions = shape
    image = gray("camera", (150, 140))
    total = 0
    for seed in range(4):
        cascade = softened(random_cascade(seed, kind=kind, nodes=nodes, fractions=fractions), seed)
        scanner = Scanner(cascade)
        lanes, plain = both(scanner, image, stride, skip)
        for got, want in zip(lanes, plain, strict=True):
            np.testing.assert_array_equal(got, want)
        # Hits are a part of those without soft thresholds, with the same sums.
        fast, exact = scan(scanner, image, stride), scan(Scanner(cascade.exact()), image, stride)
        sums = dict(zip(zip(exact.xs, exact.ys, strict=True), exact.sums, strict=True))
        assert all(sums[x, y] == s for x, y, s in zip(fast.xs, fast.ys, fast.sums, strict=True))
        total += len(sums) - len(fast.xs)
    assert total > 0


def test_sums_at_a_soft_threshold_are_decided_exactly():
    """Thresholds set to sums that occur: the rounded sums of the lane scan cannot decide, the exact ones must."""
    image = gray("camera", (120, 100))
    decided = 0
    for seed in range(6):
        cascade = random_cascade(seed, stages=2)
        starts = cascade.stage_starts
        tree = int(starts[0]) if starts[1] > 1 else int(starts[1])
        if tree + 1 in starts[1:]:
            continue
        window = Scanner(replace(cascade, soft=SoftThresholds([tree], [-1e30])))
        planes, rows, columns = whole(cascade, image)
        crops = np.lib.stride_tricks.sliding_window_view(planes.image, (9, 8))[:rows, :columns].reshape(-1, 9, 8)
        part = np.searchsorted(starts, tree, side="right") - 1
        values, counts = np.unique(window.part_sums(crops)[:, part].astype(np.float32), return_counts=True)
        for value in values[np.argsort(-counts)[:3]]:
            for moved in (value, np.nextafter(value, np.float32(np.inf))):
                if np.isfinite(moved):
                    scanner = Scanner(replace(cascade, soft=SoftThresholds([tree], [moved])))
                    for got, want in zip(*both(scanner, image, 1, False), strict=True):
                        np.testing.assert_array_equal(got, want)
                    decided += 1
    assert decided > 10


@pytest.mark.parametrize("kind", ["all", "lbp"])
def test_part_sums_of_windows_are_those_of_the_pixels(kind):
    cascade = softened(random_cascade(2, kind=kind, nodes=(1, 3)), 3)
    image = gray("astronaut", (60, 50))
    windows = np.lib.stride_tricks.sliding_window_view(image, (9, 8)).reshape(-1, 9, 8)[::7]
    found = Scanner(cascade).part_sums(windows)
    ends = np.union1d(cascade.stage_starts[1:], cascade.soft.trees + 1)
    assert found.shape == (len(windows), len(ends))
    reached = np.isfinite(found).sum(axis=1)
    for window, sums, n in zip(windows, found, reached, strict=True):
        depth, last = naive.window_depth(cascade, window)
        assert (n == 0) == (depth < 0)
        if n:
            passed = n == len(ends) and last >= cascade.stage_limits[-1]
            assert (sums[n - 1], depth) == (last, np.searchsorted(cascade.stage_starts[1:], ends[n - 1]) + passed)
    assert len(set(reached)) > 3


def test_exact_ignores_soft_thresholds():
    image = gray("astronaut", (200, 200))
    cascade = vj.load("frontalface")
    trees = np.arange(1500, 2400, 16)
    soft = replace(cascade, soft=SoftThresholds(trees, np.full(len(trees), 3.0)))
    exact, fast = vj.Detector(soft, exact=True), vj.Detector(soft)
    known = vj.Detector(cascade)
    np.testing.assert_array_equal(exact.hits(image).boxes, known.hits(image).boxes)
    assert 0 < len(fast.hits(image).boxes) < len(known.hits(image).boxes)
    assert fast.cost(image).features.sum() < exact.cost(image).features.sum()
    np.testing.assert_array_equal(fast.replace(exact=True).hits(image).sums, known.hits(image).sums)
    for found in fast.windows(image):
        passed = found.depth == cascade.n_stages
        assert (found.margin[passed] >= 0).all()
        assert (found.margin[~passed & (found.depth >= 0)] < 0).all()
