"""Features on training samples: exact values, and bins whose edges are thresholds."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vj.boosting.feature_values import Binning, feature_table, feature_values, fill_bins, make_binning
from vj.boosting.samples import TILE, has_contrast, prepare
from vj.cascade.haar import feature_pool
from vj.cascade.lbp import lbp_pool

WINDOW = (11, 9)


def _windows(n, seed=0, window=WINDOW):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, window[1], window[0])).astype(np.uint8)


def _pick(features, n=60, seed=1):
    return features.take(np.sort(np.random.default_rng(seed).choice(len(features), n, replace=False)))


def test_integral_entries_are_those_of_each_window():
    windows = _windows(TILE + 3)
    samples = prepare(windows, tilted=True)
    assert samples.count == len(windows)
    entries = (WINDOW[0] + 1) * (WINDOW[1] + 1)
    for k in (0, 7, TILE, TILE + 2):
        column = samples.tiles[k // TILE, :, k % TILE]
        assert column[:entries].tolist() == np.ravel(naive.integral(windows[k])).tolist()
        assert column[entries:].tolist() == np.ravel(naive.tilted_integral(windows[k])).tolist()
    assert not samples.tiles[1, :, 3:].any()


@pytest.mark.parametrize("kind", ["basic", "all"])
def test_haar_values(kind):
    windows = _windows(5)
    windows[3] = 77
    features = _pick(feature_pool(WINDOW, kind))
    assert features.tilted.any() == (kind == "all")
    got = feature_values(feature_table(features, WINDOW), prepare(windows, tilted=kind == "all"))
    for f in range(len(features)):
        row = (features.rects[f].tolist(), features.weights[f].tolist(), bool(features.tilted[f]))
        for k, window in enumerate(windows):
            assert got[f, k] == pytest.approx(naive.haar_value(*row, window.tolist()), rel=1e-6, abs=1e-9)


def test_lbp_codes():
    windows = _windows(4)
    features = lbp_pool(WINDOW)
    got = feature_values(feature_table(features, WINDOW), prepare(windows))
    for f in range(0, len(features), 3):
        assert got[f].tolist() == [naive.lbp_code(features.rects[f].tolist(), w.tolist()) for w in windows]


def test_contrast_gate():
    """The inner rectangle decides, and a deviation of exactly 10 grey levels is dropped."""
    flat = np.full((4, 10, 10), 100, dtype=np.uint8)
    flat[0, 0, :] = 255
    flat[1, 1:-1, 1:5], flat[1, 1:-1, 5:-1] = 90, 110
    flat[2, 1:-1, 1:5], flat[2, 1:-1, 5:-1] = 90, 111
    flat[3, 4, 4] = 255
    assert flat[1:3, 1:-1, 1:-1].std(axis=(1, 2)).tolist() == [10.0, 10.5]
    assert has_contrast(flat).tolist() == [False, False, True, True]


def _bins(features, windows):
    table, samples = feature_table(features, WINDOW), prepare(windows)
    binning = make_binning(table, [samples], lambda work, n: work(0, n))
    out = np.zeros((len(table), samples.tiles.shape[0] * TILE), dtype=np.uint8)
    every = np.arange(len(table))
    fill_bins(table, samples, binning, every, out, every)
    return binning, feature_values(table, samples), out[:, : len(windows)]


def test_bins_cover_values_and_edges_are_thresholds():
    """A split by bins and the split that the detector makes by value are the same split, for every edge that splits."""
    binning, got, bins = _bins(_pick(feature_pool(WINDOW, "basic"), 40), _windows(300))
    for f in range(len(got)):
        assert len(np.unique(bins[f])) > 40
        for edge in np.unique(bins[f])[1:]:
            threshold = binning.threshold(f, int(edge))
            assert np.array_equal(got[f] < threshold, bins[f] < edge)


@settings(max_examples=200, deadline=None)
@given(
    low=st.floats(-1e3, 1e3, width=32),
    scale=st.floats(2.0**-10, 2.0**16, width=32),
    edge=st.integers(1, 255),
    steps=st.integers(-3, 3),
)
def test_threshold_is_the_smallest_value_of_its_bin(low, scale, edge, steps):
    low, scale = np.float32(low), np.float32(scale)
    threshold = Binning(np.array([low]), np.array([scale])).threshold(0, edge)
    value = threshold
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.float32(np.inf if steps > 0 else -np.inf))
    inside = int(np.clip((value - low) * scale, 0, 255)) >= edge
    assert inside == (value >= threshold)


def test_flat_samples_do_not_spoil_bins():
    windows = _windows(30)
    windows[::2] = 128
    _, _, bins = _bins(_pick(feature_pool(WINDOW, "basic"), 20), windows)
    assert all(len(np.unique(row[1::2])) > 8 for row in bins)
