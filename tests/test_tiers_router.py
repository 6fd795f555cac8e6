"""Routers: features against naive twins, ridge regression against its normal equations, and routing that pays."""

import json

import numpy as np
import pytest

from vj.errors import InputError
from vj.tiers import Router, Tier, TierError, average_gap_recovered
from vj.tiers import router as module
from vj.tiers.features import BUCKETS, Rows, features, image_statistics

EASY = ["what", "is", "the", "colour", "of", "the", "{}", "sky", "on", "a", "{}", "day"]
HARD = ["prove", "that", "the", "{}", "group", "of", "order", "{}", "is", "abelian"]


def questions(n, seed=0):
    """Texts of two kinds: the light tier fails on half of the hard ones, the heavy one on a tenth of all."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n) < 0.4
    texts = [" ".join(HARD if one else EASY).format(*rng.integers(2, 99, 2)) for one in hard]
    light = np.where(hard, rng.random(n) < 0.3, rng.random(n) < 0.9)
    return texts, light, rng.random(n) < 0.9


def photos(n, seed=0):
    """Images that are sharp or blurred; the light tier fails on the blurred ones."""
    rng = np.random.default_rng(seed)
    blurred = rng.random(n) < 0.5
    images = []
    for soft in blurred:
        noise = rng.integers(0, 256, (40, 50))
        if soft:
            noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, 2, 1)) // 4
        images.append(noise.astype(np.uint8))
    return images, np.where(blurred, rng.random(n) < 0.2, rng.random(n) < 0.9), rng.random(n) < 0.9


@pytest.mark.parametrize(("made", "kind"), [(questions, "text"), (photos, "image")])
def test_a_router_sends_the_hard_ones_up(made, kind):
    router = Router.fit(*made(400), kind=kind)
    queries, light, heavy = made(600, seed=1)
    gains = router.gains(queries)
    found = average_gap_recovered(gains, light, heavy)
    # Half of the images are blurred: 0.75 is all there is.
    assert found > 0.7
    assert abs(average_gap_recovered(np.random.default_rng(0).random(600), light, heavy) - 0.5) < 0.1
    half = router.at(share=0.5)
    sent = np.array([half.heavy(query) for query in queries])
    assert sent.mean() == pytest.approx(0.5, abs=0.1)
    assert np.where(sent, heavy, light).mean() > light.mean() + 0.8 * (heavy.mean() - light.mean())
    assert router.probabilities(queries)[0] == pytest.approx(light.mean(), abs=0.5)


def test_apgr_is_the_naive_area():
    rng = np.random.default_rng(2)
    light, heavy, gains = rng.random(50) < 0.5, rng.random(50) < 0.8, rng.random(50)
    order = np.argsort(-gains)
    points = []
    for k in range(51):
        right = np.where(np.isin(np.arange(50), order[:k]), heavy, light).mean()
        points.append((right - light.mean()) / (heavy.mean() - light.mean()))
    assert average_gap_recovered(gains, light, heavy) == pytest.approx(np.trapezoid(points, dx=1 / 50))
    with pytest.raises(InputError, match="heavy tier that is better"):
        average_gap_recovered(gains, heavy, light)


def test_ridge_solves_its_normal_equations():
    texts, light, heavy = questions(60)
    rows = features(texts, "text")
    rows = module._standardised(rows, rows.dense.mean(axis=0), rows.dense.std(axis=0) + 1e-9)
    dense = np.zeros((60, BUCKETS + rows.dense.shape[1]))
    for i in range(60):
        for k in range(rows.starts[i], rows.starts[i + 1]):
            dense[i, rows.buckets[k]] += rows.values[k]
    dense[:, BUCKETS:] = rows.dense
    used = np.flatnonzero(np.abs(dense).max(axis=0) > 0)
    x, y = dense[:, used], np.array([light, heavy], float)
    held = np.full(len(used), 3.0)
    held[-1] = 1e-6
    expected = np.linalg.solve(x.T @ x + np.diag(held), x.T @ y.T).T
    assert module._ridge(rows, y, 3.0)[:, used] == pytest.approx(expected, abs=0.01)
    index = np.array([5, 3, 3])
    assert module._times(rows.take(index), np.ones((1, dense.shape[1]))) == pytest.approx(
        dense[index].sum(axis=1)[None]
    )


def test_features_of_a_text():
    rows = features(["Two 12 and two 7", "", "two"], "text")
    assert isinstance(rows, Rows)
    # two, #, and, two #, # and, and two, and their triples; every number is the same word.
    assert np.diff(rows.starts).tolist() == [3 + 3 + 3, 0, 1]
    assert rows.dense[0, :5] == pytest.approx(np.log1p([16, 5, 4, 2, 3]))
    assert np.isfinite(rows.dense).all()


def test_the_thumbnail_is_the_mean_of_its_cells():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    small = image.reshape(32, 2, 32, 3, 3).mean(axis=(1, 3)) / 255
    found = image_statistics(image)
    assert found.shape == (32,)
    assert found[:2] == pytest.approx([small.mean(axis=2).mean(), small.mean(axis=2).std()])
    for shape in ((1, 1), (5, 400), (400, 5, 3)):
        assert np.isfinite(image_statistics(np.full(shape, 7, np.uint8))).all()
    for bad in (np.zeros((4, 4)), np.zeros((0, 4), np.uint8), np.zeros((4, 4, 2), np.uint8)):
        with pytest.raises(InputError, match="expected images"):
            image_statistics(bad)


def test_routing_asks_one_of_any_pair_and_falls_back():
    router = Router.fit(*questions(200))

    def broken(_):
        raise OSError("down")

    small = Tier("small", lambda q: ("s", 0.5), 1.0)
    large, other = Tier("large", lambda q: ("l", 0.5), 9.0), Tier("other", lambda q: ("o", 0.5), 5.0)
    easy, hard = questions(1, 9)[0][0], " ".join(HARD)
    assert "sky" in easy
    router = router.at(share=0.4)
    assert router.route(small, large, easy).asked == ("small",)
    outcome = router.route(small, other, hard)
    assert (outcome.asked, outcome.spent) == (("other",), 5.0)
    fallen = router.route(small, Tier("large", broken, 9.0), hard)
    assert (fallen.tier, fallen.asked, fallen.spent) == ("small", ("large", "small"), 10.0)
    assert "down" in fallen.failures[0]
    with pytest.raises(TierError, match=r"down.*down"):
        router.route(Tier("a", broken, 1), Tier("b", broken, 1), hard)


def test_shares_move_the_threshold_also_by_other_traffic():
    texts, light, heavy = questions(300)
    router = Router.fit(texts, light, heavy)
    longer = [f"{text} {text[:k]}" for k, text in enumerate(texts[:100])]
    moved = router.at(share=0.25, queries=longer)
    assert np.mean(router.gains(longer) > moved.threshold) == pytest.approx(0.25, abs=0.03)
    assert all(router.at(share=1.0).heavy(one) for one in texts)
    assert not any(router.at(threshold=2.0).heavy(one) for one in texts)
    for given in ({}, {"share": 0.5, "threshold": 0.1}, {"share": 1.5}, {"threshold": float("nan")}):
        with pytest.raises(InputError, match="expected"):
            router.at(**given)


def test_a_router_survives_its_file_and_corrupt_ones_are_refused(tmp_path):
    texts, light, heavy = questions(200)
    router = Router.fit(texts, light, heavy).at(share=0.3)
    router.save(tmp_path / "r.json")
    back = Router.load(tmp_path / "r.json")
    assert back.gains(texts) == pytest.approx(router.gains(texts), abs=1e-5)
    assert back.threshold == router.threshold
    plain = json.loads((tmp_path / "r.json").read_text())
    changes = [{"format": "x"}, {"kind": "sound"}, {"buckets": [BUCKETS]}, {"weights": [[1]]}, {"scale": [0.0]}]
    changes += [{"threshold": float("nan")}, {"quantiles": [1]}, {"dense": None}]
    for change in changes:
        with pytest.raises(InputError, match="expected"):
            Router.from_dict(plain | change)
    (tmp_path / "bad.json").write_text("[")
    with pytest.raises(InputError, match=r"bad\.json: expected a router"):
        Router.load(tmp_path / "bad.json")


def test_rows_that_cannot_be_learned_from():
    texts, light, heavy = questions(60)
    with pytest.raises(InputError, match="at least 50 queries"):
        Router.fit(texts[:20], light[:20], heavy[:20])
    with pytest.raises(InputError, match="for each of 60 queries"):
        Router.fit(texts, light[:-1], heavy[:-1])
    with pytest.raises(InputError, match="kind text or image"):
        Router.fit(texts, light, heavy, kind="sound")
    with pytest.raises(InputError, match="queries as text, got a int"):
        Router.fit([3] * 60, light, heavy)
    with pytest.raises(InputError, match="0 or 1"):
        Router.fit(texts, light * 2, heavy)
