"""The way of a window through a cascade agrees with the scan and with the obvious loops."""

import naive
import numpy as np
import pytest
from cascades import random_cascade, softened
from photos import gray

from vj.detector import Detector
from vj.errors import InputError
from vj.evaluation.tracing import deepest_in_cells, trace, window_pixels


@pytest.mark.parametrize("stride", [None, 1])
@pytest.mark.parametrize(
    "cascade",
    [
        random_cascade(3),
        random_cascade(4, kind="all", nodes=(1, 3)),
        random_cascade(5, kind="lbp", nodes=(1, 2)),
        softened(random_cascade(6, nodes=(1, 2)), 1),
    ],
    ids=["stumps", "tilted trees", "lbp", "soft"],
)
def test_depth_and_margin_are_those_of_the_scan(cascade, stride):
    image = gray("astronaut", (70, 60))
    maps = list(Detector(cascade, scale_factor=1.4, stride=stride).windows(image))
    rng = np.random.default_rng(1)
    depths = set()
    for one in maps:
        flat = rng.choice(one.depth.size, min(60, one.depth.size), replace=False)
        places = [tuple(int(v) for v in np.unravel_index(k, one.depth.shape)) for k in flat]
        for place, pixels in zip(places, window_pixels(image, one, places), strict=True):
            found = trace(cascade, pixels)
            depths.add(found.depth)
            assert (found.depth, found.margin) == (one.depth[place], one.margin[place])
            if found.depth >= 0:
                assert len(found.nodes) == len(found.values) == len(found.left)
                if cascade.soft is not None:
                    assert len(found.sums) <= cascade.stage_starts[min(found.depth + 1, cascade.n_stages)]
                    continue
                assert len(found.nodes) == sum(naive.nodes_evaluated(cascade, pixels))
                assert len(found.sums) == cascade.stage_starts[min(found.depth + 1, cascade.n_stages)]
    assert len(depths) > 2


def test_values_are_those_of_the_pixels():
    cascade = random_cascade(7, kind="all", nodes=(1, 2))
    pixels = gray("coffee", cascade.window)
    found, features = trace(cascade, pixels), cascade.features
    for node, value in zip(found.nodes, found.values, strict=True):
        k = cascade.node_features[node]
        expected = naive.haar_value(
            features.rects[k].tolist(), features.weights[k], features.tilted[k], pixels.tolist()
        )
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_window_of_another_size_is_refused():
    with pytest.raises(InputError, match="expected a window of"):
        trace(random_cascade(3), np.zeros((50, 50), np.uint8))


def test_each_cell_has_the_deepest_of_its_windows():
    cascade = random_cascade(3)
    image = gray("astronaut", (60, 50))
    maps = list(Detector(cascade, scale_factor=1.5).windows(image))
    best = {}
    for one in maps:
        for row in range(one.depth.shape[0]):
            for column in range(one.depth.shape[1]):
                x = (column * one.stride + one.window[0] / 2) * one.scale
                y = (row * one.stride + one.window[1] / 2) * one.scale
                cell = min(int(y * 4 / image.shape[0]), 3) * 5 + min(int(x * 5 / image.shape[1]), 4)
                key = (int(one.depth[row, column]), float(one.margin[row, column]))
                if cell not in best or key > best[cell]:
                    best[cell] = key
    found = deepest_in_cells(image.shape, maps, (5, 4))
    assert {k for k, place in enumerate(found) if place is not None} == set(best)
    for k, (level, *place) in ((k, p) for k, p in enumerate(found) if p is not None):
        one = maps[level]
        assert (one.depth[tuple(place)], one.margin[tuple(place)]) == best[k]
