import naive
import numpy as np
import pytest
from photos import gray
from skimage.feature import haar_like_feature, haar_like_feature_coord

from vj.cascade.haar import MAX_POOL, HaarFeatures, feature_pool, pool_keys, pool_size, pool_step
from vj.cascade.lbp import LbpFeatures, lbp_pool
from vj.errors import InputError
from vj.scanning.planes import integral_images

UPRIGHT = [(2, 1), (1, 2), (3, 1), (1, 3), (2, 2)]


# The counts of OpenCV's trainer (24x24 as its program prints them).
@pytest.mark.parametrize(
    "window, counts", [((20, 20), (78_460, 101_329, 125_199, 3_969)), ((24, 24), (162_336, 210_400, 261_600, 8_464))]
)
def test_pools_hold_as_many_features_as_opencvs(window, counts):
    assert tuple(len(feature_pool(window, kind)) for kind in ("basic", "core", "all")) == counts[:3]
    assert len(lbp_pool(window)) == counts[3]


@pytest.mark.parametrize("window", [(3, 3), (7, 4), (5, 9)])
def test_pools_equal_an_independent_count(window):
    assert len(feature_pool(window)) == naive.feature_count(*window, UPRIGHT)
    assert len(lbp_pool(window)) == naive.feature_count(*window, [(3, 3)])


@pytest.mark.parametrize("kind", ["basic", "core", "all"])
def test_features_are_distinct_inside_the_window_and_vanish_on_a_flat_one(kind):
    pool = feature_pool((9, 11), kind)
    pool.check((9, 11))
    rows = {(r.tobytes(), w.tobytes(), bool(t)) for r, w, t in zip(pool.rects, pool.weights, pool.tilted, strict=True)}
    assert len(rows) == len(pool)
    for rects, weights, tilted in zip(pool.rects.tolist(), pool.weights, pool.tilted, strict=True):
        sizes = [
            len(naive.rectangle_pixels(*rect, tilted)) if weight else 0
            for rect, weight in zip(rects, weights, strict=True)
        ]
        assert np.dot(sizes, weights) == 0


def test_values_equal_scikit_images():
    """Every two- and four-part feature has the size of scikit-image's on the same pixels, and vice versa."""
    image = np.array(gray("camera", (40, 40))[5:14, 3:12])
    sums, _ = integral_images(image)
    pool = feature_pool((9, 9))
    ours = {}
    for rects, weights in zip(pool.rects, pool.weights, strict=True):
        value = 0
        for (x, y, w, h), weight in zip(rects.tolist(), weights.tolist(), strict=True):
            value += weight * int(sums[y, x] - sums[y, x + w] - sums[y + h, x] + sums[y + h, x + w])
        (w, h), (inner_w, inner_h) = rects[0, 2:], rects[1, 2:]
        kind = {(2, 1): "type-2-x", (1, 2): "type-2-y", (2, 2): "type-4"}.get((w // inner_w, h // inner_h))
        ours[tuple(rects[0].tolist()), kind] = value
    checked = 0
    whole = np.asarray(sums[1:, 1:], dtype=np.int64)
    for kind in ("type-2-x", "type-2-y", "type-4"):
        coordinates, _ = haar_like_feature_coord(9, 9, kind)
        kinds = np.array([kind] * len(coordinates), dtype=object)
        theirs = haar_like_feature(whole, 0, 0, 9, 9, feature_type=kinds, feature_coord=coordinates)
        for parts, value in zip(coordinates, theirs, strict=True):
            boxes = [(a[1], a[0], b[1] - a[1] + 1, b[0] - a[0] + 1) for a, b in parts]
            x, y = min(b[0] for b in boxes), min(b[1] for b in boxes)
            outer = (x, y, max(b[0] + b[2] for b in boxes) - x, max(b[1] + b[3] for b in boxes) - y)
            # Ours is twice the inner part minus the whole: one part minus the other; the sign is a convention.
            assert abs(ours[outer, kind]) == abs(value), (kind, parts)
            checked += 1
    assert checked == naive.feature_count(9, 9, [(2, 1), (1, 2), (2, 2)])


@pytest.mark.parametrize("window", [(2, 24), (24, 129)])
def test_windows_out_of_range_are_refused(window):
    for pool in (feature_pool, lbp_pool):
        with pytest.raises(InputError, match="3 to 128 pixels"):
            pool(window)


def test_unknown_pools_are_refused():
    with pytest.raises(InputError, match="basic, core or all, got 'haar'"):
        feature_pool((24, 24), "haar")


@pytest.mark.parametrize(
    "rect, tilted",
    [
        ((-1, 0, 4, 4), False),
        ((0, 0, 9, 4), False),
        ((0, 5, 4, 4), False),
        ((1, 0, 2, 2), True),
        ((2, 0, 7, 2), True),
        ((3, 3, 4, 3), True),
    ],
)
def test_rectangles_outside_the_window_are_refused(rect, tilted):
    rects = np.zeros((1, 3, 4), np.int32)
    rects[0, :2] = rect
    features = HaarFeatures(rects, [[-1, 2, 0]], [tilted])
    with pytest.raises(InputError, match="inside the 8x8 window"):
        features.check((8, 8))


def test_cells_outside_the_window_are_refused():
    with pytest.raises(InputError, match="inside the 8x8 window"):
        LbpFeatures([[0, 0, 3, 1]]).check((8, 8))


@pytest.mark.parametrize("nothing", [0.0, -0.0, 1e-46])
def test_rectangles_without_weight_are_never_read(nothing):
    rects = [[[0, 0, 4, 4], [0, 100000, 5, 5], [0, 0, 2, 4]]]
    features = HaarFeatures(rects, [[-1.5, nothing, 3.0]], [False])
    features.check((8, 8))
    assert features.rects.tolist() == [[[0, 0, 4, 4], [0, 0, 2, 4], [0, 0, 0, 0]]]
    assert features.weights.tolist() == [[-1.5, 3.0, 0.0]] and not np.signbit(features.weights[0, 2])


@pytest.mark.parametrize("kind", ["basic", "all"])
@pytest.mark.parametrize("step", [2, 3])
def test_a_thinned_pool_has_the_features_on_a_grid(kind, step):
    """Independent of how either is made: the features of the whole pool whose positions and cells are multiples."""
    whole, thin = feature_pool((14, 11), kind), feature_pool((14, 11), kind, step)
    on_grid = []
    for rects, weights, tilted in zip(whole.rects.tolist(), whole.weights.tolist(), whole.tilted, strict=True):
        used = [rect for rect, weight in zip(rects, weights, strict=True) if weight]
        (x, y, w, h), inner = used[0], used[1]
        # A side is a whole number of cells; the smallest part that divides it is the cell.
        along = int(np.gcd(w, inner[2])) if inner[2] != w else w
        across = int(np.gcd(h, inner[3])) if inner[3] != h else h
        if not tilted:
            along, across = int(np.gcd(along, inner[0] - x)), int(np.gcd(across, inner[1] - y))
        else:
            right, down = inner[0] - x, inner[1] - y
            along, across = int(np.gcd(along, (right + down) // 2)), int(np.gcd(across, (down - right) // 2))
        on_grid.append(all(v % step == 0 for v in (x, y, along, across)))
    wanted = whole.take(np.array(on_grid))
    assert np.array_equal(thin.rects, wanted.rects)
    assert np.array_equal(thin.weights, wanted.weights)
    assert len(thin) == pool_size((14, 11), kind, step)
    # Their numbers in the whole pool.
    at = np.searchsorted(pool_keys((14, 11), kind), pool_keys((14, 11), kind, step))
    assert np.array_equal(whole.rects[at], thin.rects)


@pytest.mark.parametrize("window", [(24, 24), (38, 38), (80, 40), (128, 128)])
def test_pools_are_thinned_only_where_they_exceed_a_million(window):
    step = pool_step(window, "all")
    assert pool_size(window, "all", step) <= MAX_POOL
    assert step == 1 or pool_size(window, "all", step - 1) > MAX_POOL
    assert (step == 1) == (window == (24, 24))
