"""Mining finds what the detector's scan finds, the same for any number of threads."""

import itertools
from dataclasses import replace

import naive
import numpy as np
import pytest
from cascades import stump_cascade
from skimage import data

import vj
from vj.boosting import mining
from vj.boosting.mining import Miner
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
def images():
    coffee = np.asarray(data.coffee()).mean(axis=2).astype(np.uint8)
    return [coffee[:90, :130], coffee[100:180, :100], np.full((60, 60), 9, np.uint8), coffee[200:205, :60]]


def _miner(images, threads=2, seed=1):
    workers = Workers(threads)
    return Miner(Backgrounds(images), WINDOW, workers, seed=seed, scale_factor=1.2, lbp=False)


def test_mined_windows_pass_the_cascade(cascade, images):
    mined = _miner(images).mine(cascade, 60, 1e-9)
    assert mined.found == 60
    assert not mined.exhausted
    assert all(naive.window_depth(cascade, window)[0] == cascade.n_stages for window in mined.windows)
    assert 0 < mined.hits <= mined.scanned


def test_threads_change_nothing_and_seeds_do(cascade, images):
    runs = []
    for threads, seed in ((1, 1), (3, 1), (2, 2)):
        miner = _miner(images, threads, seed)
        first = miner.mine(cascade, 40, 0.1)
        second = miner.mine(cascade, 40, 0.1, first.next_stage(first.windows[:0]))
        windows = np.concatenate([first.windows, second.windows])
        runs.append((windows, first.scanned, second.scanned, second.visits))
    assert np.array_equal(runs[0][0], runs[1][0])
    assert runs[0][1:] == runs[1][1:]
    assert not np.array_equal(runs[0][0], runs[2][0])


def test_used_up_backgrounds_end_it(cascade, images):
    miner = _miner(images[:2])
    mined = miner.mine(cascade, 10**6, 1.0)
    assert mined.exhausted
    assert 0 < mined.found < 10**6
    # Later passes are mirrored and shifted in scale: few windows come twice.
    windows = mined.windows
    assert len(np.unique(windows, axis=0)) > 0.8 * len(windows)


def test_without_a_cascade_any_window_with_contrast_will_do(images):
    mined = _miner(images).mine(None, 300, 1.0)
    assert mined.found == 300
    assert has_contrast(mined.windows).all()


def test_unusable_images_are_noted_once_and_left_out(cascade, images, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    miner = _miner([*images, tmp_path / "broken.png", tmp_path / "missing.png"])
    unreadable = miner.mine(cascade, 10**6, 1.0).unreadable
    assert sorted(unreadable) == [3, 4, 5]
    assert "broken.png" in unreadable[4]
    assert "60x5" in unreadable[3]


def test_only_unusable_images(cascade, tmp_path):
    mined = _miner([tmp_path / "missing.png"]).mine(cascade, 5, 1.0)
    assert mined.exhausted and not mined.found


def test_mining_resumes_after_an_interruption(cascade, images):
    """Stop at any image, copy what a checkpoint keeps, continue with another miner: the same windows."""
    whole = _miner(images).mine(cascade, 10**6, 0.02)

    class Stop(Exception):
        pass

    for stop in (1, 6, 20):
        first = _miner(images)
        seen = []

        def note(harvest, stop=stop, seen=seen):
            seen.append(replace(harvest, parts=list(harvest.parts), unreadable=dict(harvest.unreadable)))
            if len(seen) == stop:
                raise Stop

        with pytest.raises(Stop):
            first.mine(cascade, 10**6, 0.02, progress=note)
        second = _miner(images, threads=1)
        resumed = second.mine(cascade, 10**6, 0.02, seen[-1])
        assert np.array_equal(resumed.windows, whole.windows)
        assert (resumed.scanned, resumed.hits) == (whole.scanned, whole.hits)


@pytest.mark.parametrize("threads", [1, 3])
def test_counting_is_the_detectors_own(cascade, images, threads):
    miner = _miner(images[:2], threads)
    scanned, reached = miner.count(cascade, 10**9, (0, 10**9))
    # As a visit sees the images: at scales that lie between those of mining, not mirrored.
    first = mining._FAR * 2
    seen = [miner._image(job).gray for job in itertools.islice(miner._jobs(1, 0.0, first, first), 2)]
    costs = [vj.Detector(cascade, scale_factor=1.2, stride=1).cost(image) for image in seen]
    assert scanned == sum(cost.windows.sum() for cost in costs)
    assert reached[:-1].tolist() == sum(cost.entered.sum(axis=0) for cost in costs).tolist()
    assert 0 < reached[2] < reached[1] < reached[0] <= scanned
    # It ends early when enough is known, and passes over what cannot be read.
    assert miner.count(cascade, 1, (0, 10**9))[0] < scanned
    assert miner.count(cascade, 1, (10**9, 10**9))[0] == scanned
    assert miner.count(cascade, 10**9, (0, 1))[0] < scanned
    assert _miner([*images[:2], "missing.png"]).count(cascade, 10**9, (0, 10**9))[0] == scanned
