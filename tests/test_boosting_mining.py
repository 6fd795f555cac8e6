"""Mining finds what the detector's scan finds, the same for any number of threads."""

import naive
import numpy as np
import pytest
from cascades import stump_cascade
from skimage import data

from vj.boosting.mining import Harvest, Miner
from vj.boosting.samples import has_contrast
from vj.boosting.workers import Workers
from vj.cascade.haar import feature_pool
from vj.datasets.backgrounds import Backgrounds

WINDOW = (12, 10)


@pytest.fixture(scope="module")
def cascade():
    """Two stages of one stump each: an edge and a line, which some windows of a photo pass."""
    features = feature_pool(WINDOW, "basic").take([500, 4000])
    return stump_cascade(WINDOW, features, [([k], [t], [[-1, 1]], 0.0) for k, t in enumerate((0.02, 0.01))])


@pytest.fixture(scope="module")
def pictures():
    coffee = np.asarray(data.coffee()).mean(axis=2).astype(np.uint8)
    return [coffee[:90, :130], coffee[100:180, :100], np.full((60, 60), 9, np.uint8), coffee[200:205, :60]]


def _miner(pictures, threads=2, seed=1):
    workers = Workers(threads)
    return Miner(Backgrounds(pictures), WINDOW, workers, seed=seed, scale_factor=1.2, lbp=False)


def test_mined_windows_pass_the_cascade(cascade, pictures):
    mined = _miner(pictures).mine(cascade, 60, 1e-9)
    assert mined.found == 60
    assert not mined.exhausted
    assert all(naive.window_depth(cascade, window)[0] == cascade.n_stages for window in mined.windows(WINDOW))
    assert 0 < mined.accepted <= mined.scanned


def test_threads_change_nothing_and_seeds_do(cascade, pictures):
    runs = []
    for threads, seed in ((1, 1), (3, 1), (2, 2)):
        miner = _miner(pictures, threads, seed)
        first, second = miner.mine(cascade, 40, 0.1), miner.mine(cascade, 40, 0.1)
        windows = np.concatenate([first.windows(WINDOW), second.windows(WINDOW)])
        runs.append((windows, first.scanned, second.scanned, miner.visits))
    assert np.array_equal(runs[0][0], runs[1][0])
    assert runs[0][1:] == runs[1][1:]
    assert not np.array_equal(runs[0][0], runs[2][0])


def test_used_up_backgrounds_end_it(cascade, pictures):
    miner = _miner(pictures[:2])
    mined = miner.mine(cascade, 10**6, 1.0)
    assert mined.exhausted
    assert 0 < mined.found < 10**6
    # Later passes are mirrored and shifted in scale: few windows come twice.
    windows = mined.windows(WINDOW)
    assert len(np.unique(windows, axis=0)) > 0.8 * len(windows)


def test_without_a_cascade_any_window_with_contrast_will_do(pictures):
    mined = _miner(pictures).mine(None, 300, 1.0)
    assert mined.found == 300
    assert has_contrast(mined.windows(WINDOW)).all()


def test_unusable_pictures_are_noted_once_and_left_out(cascade, pictures, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    miner = _miner([*pictures, tmp_path / "broken.png", tmp_path / "missing.png"])
    miner.mine(cascade, 10**6, 1.0)
    assert sorted(miner.unreadable) == [3, 4, 5]
    assert "broken.png" in miner.unreadable[4]
    assert "60x5" in miner.unreadable[3]


def test_only_unusable_pictures(cascade, tmp_path):
    mined = _miner([tmp_path / "missing.png"]).mine(cascade, 5, 1.0)
    assert mined.exhausted and not mined.found


def test_mining_goes_on_after_an_interruption(cascade, pictures):
    """Stop at any picture, copy what a checkpoint keeps, go on with another miner: the same windows."""
    whole = _miner(pictures).mine(cascade, 10**6, 0.02)

    class Stop(Exception):
        pass

    for stop in (1, 6, 20):
        first = _miner(pictures)
        seen = []

        def note(harvest, stop=stop, seen=seen):
            seen.append(Harvest(list(harvest.parts), harvest.first_visit, harvest.scanned, harvest.accepted))
            if len(seen) == stop:
                raise Stop

        with pytest.raises(Stop):
            first.mine(cascade, 10**6, 0.02, progress=note)
        second = _miner(pictures, threads=1)
        second.visits = first.visits
        resumed = second.mine(cascade, 10**6, 0.02, harvest=seen[-1])
        assert np.array_equal(resumed.windows(WINDOW), whole.windows(WINDOW))
        assert (resumed.scanned, resumed.accepted) == (whole.scanned, whole.accepted)
