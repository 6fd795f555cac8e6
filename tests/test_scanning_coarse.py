"""Coarse to fine: every second row first, then the neighbours of what gets far enough."""

import numpy as np
import pytest
from cascades import random_cascade, softened
from photos import gray
from scans import depths, whole

import vj
from vj.errors import InputError
from vj.scanning.scanner import Scanner


def visited(depth, coarse, skip):
    """Which windows are visited, by the rule itself; `depth` is that of every window."""
    rows, columns = depth.shape
    seen = np.zeros(depth.shape, bool)
    for r in range(0, rows, 2):
        i = 0
        while i < columns:
            seen[r, i] = True
            i += 2 if skip and depth[r, i] == 0 else 1
    promising = {(r, i) for r, i in np.argwhere(seen & (depth >= coarse)).tolist()}
    for r in range(1, rows, 2):
        for i in range(columns):
            seen[r, i] = any((r + a, i + b) in promising for a in (-1, 1) for b in (-1, 0, 1))
    return seen


@pytest.mark.parametrize(
    ("kind", "nodes"), [("basic", (1,)), ("all", (1, 3)), ("lbp", (1, 3))], ids=["stumps", "trees", "lbp"]
)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("skip", [False, True])
def test_windows_visited_hits_and_counts(kind, nodes, stride, skip):
    total = 0
    # Widths around a batch of vectors, even and odd numbers of rows.
    for seed, size in enumerate([(150, 141), (72, 40), (73, 41), (39, 30), (9, 9)]):
        image = gray("camera", size)
        for cascade in (random_cascade(seed, kind=kind, nodes=nodes), softened(random_cascade(seed, kind=kind), seed)):
            scanner = Scanner(cascade)
            planes, rows, columns = whole(cascade, image, stride)
            depth, sums = depths(scanner, image, stride)
            for coarse in (1, 2, cascade.n_stages, 99):
                plain, lanes = (
                    scanner._run(planes, rows, columns, skip, coarse=coarse, count=True, plain=plain)
                    for plain in (True, False)
                )
                for a, b in zip(plain, lanes, strict=True):
                    np.testing.assert_array_equal(a, b)
                seen = visited(depth, min(coarse, cascade.n_stages), skip)
                hit = np.argwhere(seen & (depth == cascade.n_stages))
                np.testing.assert_array_equal(plain.hits, hit)
                np.testing.assert_array_equal(plain.sums, sums[tuple(hit.T)])
                assert plain.windows == seen.sum()
                assert plain.entered.tolist() == [(seen & (depth >= s)).sum() for s in range(cascade.n_stages)]
                total += len(hit)
    assert total > 100


def test_a_detector_finds_the_faces_at_less_cost_and_exactly_on_request():
    image = gray("astronaut", (512, 512))
    every = vj.Detector(vj.load("frontalface"), threads=2)
    coarse = every.replace(coarse=3)
    assert len(coarse.detect(image)) == len(every.detect(image)) == 1
    costs = [one.cost(image) for one in (coarse, every)]
    assert costs[0].features.sum() < 0.8 * costs[1].features.sum()
    assert (costs[0].hits <= costs[1].hits).all()
    assert costs[0].hits.sum() == len(coarse.hits(image).boxes)
    exact = every.replace(coarse=3, exact=True)
    np.testing.assert_array_equal(exact.hits(image).boxes, every.hits(image).boxes)
    np.testing.assert_array_equal(coarse.cost(image, every=True).features, every.cost(image, every=True).features)
    # Results do not depend on threads.
    np.testing.assert_array_equal(coarse.replace(threads=1).hits(image).boxes, coarse.hits(image).boxes)


@pytest.mark.parametrize("coarse", [-1, 1001])
def test_a_number_of_stages_out_of_range_is_refused(coarse):
    with pytest.raises(InputError, match="expected coarse as 0 to 1000 stages, got"):
        vj.Detector(random_cascade(1), coarse=coarse)
