"""Waking up: motion, hysteresis, and which tiers are asked about which image."""

import numpy as np
import pytest
from photos import photo

import vj
from vj.detector import Detections
from vj.errors import InputError
from vj.tiers import FallbackWarning
from vj.tiers.wakeup import SLEEP, WAKE, Hysteresis, Look, Motion, WakeUp, cascade_looks, smallest_object


def test_motion_sees_an_object_and_slow_change_but_not_noise():
    rng = np.random.default_rng(0)
    still = np.full((120, 160, 3), 100, np.uint8)

    def noisy(image, sigma=8.0):
        return np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)

    motion = Motion(cell=6)
    assert motion.changed(noisy(still))
    assert not any(motion.changed(noisy(still)) for _ in range(50))
    object_there = still.copy()
    object_there[40:64, 50:74] = 130
    assert motion.changed(noisy(object_there))
    assert not motion.changed(noisy(object_there))
    # Each step is below the level, their sum is not.
    changes = [motion.changed(still + np.uint8(k)) for k in range(0, 60, 4)]
    assert 3 <= sum(changes) < len(changes)
    assert motion.changed(still[:60]), "an image of another size"
    assert motion.changed(np.full((60, 160), 30, np.uint8)) and not motion.changed(np.full((60, 160), 31, np.uint8))
    motion.forget()
    assert motion.changed(np.full((60, 160), 31, np.uint8))
    for bad in ((0, 10.0, 2), (6, 0.0, 2), (6, float("nan"), 2), (6, 10.0, 0)):
        with pytest.raises(InputError, match="above 0"):
            Motion(*bad)


def test_an_image_smaller_than_a_cell_is_one_cell():
    motion = Motion(cell=50, cells=1)
    assert motion.changed(np.zeros((9, 9), np.uint8)) and not motion.changed(np.zeros((9, 9), np.uint8))
    assert motion.changed(np.full((9, 9), 99, np.uint8))


def _naive_events(verdicts, on, of, off):
    """The rule, read off the whole list: (image, event)."""
    events, awake, since = [], False, 0
    for k in range(len(verdicts)):
        if not awake and sum(verdicts[max(since, k - of + 1) : k + 1]) >= on:
            awake = True
            events.append((k, WAKE))
        elif awake and k + 1 >= off and not any(verdicts[k + 1 - off : k + 1]):
            awake, since = False, k + 1
            events.append((k, SLEEP))
    return events


@pytest.mark.parametrize(("on", "of", "off"), [(1, 1, 1), (2, 3, 4), (3, 3, 2), (2, 5, 1), (1, 4, 6)])
def test_hysteresis_is_the_rule_on_random_verdicts(on, of, off):
    rng = np.random.default_rng(on + 10 * of + 100 * off)
    happened = 0
    for share in (0.1, 0.3, 0.5, 0.8):
        verdicts = (rng.random(200) < share).tolist()
        hysteresis = Hysteresis(on, of, off)
        events = [(k, event) for k, one in enumerate(verdicts) if (event := hysteresis.update(one))]
        assert events == _naive_events(verdicts, on, of, off)
        assert [event for _, event in events] == [(WAKE, SLEEP)[k % 2] for k in range(len(events))]
        assert hysteresis.awake == (len(events) % 2 == 1)
        happened += len(events)
    assert happened > 3
    for bad in ((0, 3, 1), (4, 3, 1), (1, 1, 0)):
        with pytest.raises(InputError, match="expected to wake"):
            Hysteresis(*bad)


class Scripted:
    """Sees what the value of the image's first pixel says, and takes a second for it."""

    def __init__(self, least, clock, scores=None):
        self.least, self.clock, self.scores, self.asked = least, clock, scores, 0

    def detect(self, image):
        self.asked += 1
        self.clock.now += 1.0
        value = int(image[0, 0])
        if self.least is None or value == 255:
            raise ValueError("down")
        n = int(value >= self.least)
        return Detections(np.full((n, 4), 5), np.full(n, self.scores or 1.0), np.ones(n))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def frame(value):
    return np.full((24, 24), value, np.uint8)


@pytest.fixture
def three():
    clock = Clock()
    looks = [Look(name, Scripted(least, clock)) for name, least in (("coarse", 50), ("whole", 100), ("heavy", 150))]
    return WakeUp(looks, Motion(4), Hysteresis(1, 1, 2), clock)


def test_each_tier_is_asked_only_if_the_one_before_it_saw_something(three):
    values = [0, 0, 60, 60, 120, 200, 200, 200, 0, 0, 0]
    seen = [three.see(frame(v)) for v in values]
    assert [one.asked for one in seen] == [2, 1, 3, 1, 4, 4, 1, 1, 2, 1, 1]
    assert [one.present for one in seen] == [v == 200 for v in values]
    assert [one.event for one in seen] == ["", "", "", "", "", WAKE, "", "", "", SLEEP, ""]
    # Where nothing changed, the boxes are those of the last verdict.
    assert seen[6].detections is seen[5].detections and len(seen[6].detections) == 1
    report = three.report()
    assert [(t["name"], t["asked"], t["passed"]) for t in report["tiers"]] == [
        ("difference", 11, 5),
        ("coarse", 5, 3),
        ("whole", 3, 2),
        ("heavy", 2, 1),
    ]
    assert (report["frames"], report["awake_frames"]) == (11, 4)
    # Ten seconds were spent; the heavy tier takes one for each of eleven images.
    assert (report["seconds"], report["last_tier_alone_seconds"]) == (10.0, 11.0)
    assert report["saved"] == pytest.approx(1 - 10 / 11, abs=1e-4)


def test_what_the_last_tier_takes_is_measured_where_it_is_never_asked(three):
    three.measure(frame(0))
    assert [look.detector.asked for look in three.looks] == [1, 1, 2]
    for _ in range(4):
        three.see(frame(0))
    report = three.report()
    assert report["tiers"][3]["asked"] == 0 and report["tiers"][3]["milliseconds"] is None
    assert (report["seconds"], report["last_tier_alone_seconds"], report["saved"]) == (1.0, 4.0, 0.75)
    assert WakeUp(three.looks, Motion(4)).report()["saved"] is None


def test_the_last_tier_of_all_images_saves_nothing():
    clock = Clock()
    wake_up = WakeUp([Look("only", Scripted(0, clock))], Motion(4), clock=clock)
    for k in range(4):
        wake_up.see(frame(60 * (k % 2)))
    assert wake_up.report()["saved"] == 0.0


def test_a_tier_that_is_down_is_passed_by_and_asked_again(three):
    three.looks[1].detector.least = None
    with pytest.warns(FallbackWarning, match="whole gave no answer: ValueError: down"):
        assert three.see(frame(200)).present
    # The same image once more: it is not known what was seen, so it is not skipped.
    with pytest.warns(FallbackWarning):
        assert three.see(frame(200)).asked == 4
    with pytest.warns(FallbackWarning):
        assert not three.see(frame(120)).present
    assert [(t["failed"], t["passed"]) for t in three.report()["tiers"][1:]] == [(0, 3), (3, 0), (0, 2)]
    three.looks[1].detector.least = 100
    three.looks[2].detector.least = None
    with pytest.warns(FallbackWarning, match="heavy"):
        assert three.see(frame(200)).present, "the tier before it stands"
    with pytest.warns(FallbackWarning):
        seen = three.see(frame(255))
    assert not seen.present, "no tier has answered"
    with pytest.raises(InputError, match="expected heavy to answer, got ValueError: down"):
        three.measure(frame(200))


def test_a_look_goes_by_probability():
    clock = Clock()
    image = frame(200)
    for scores, present in ((0.4, False), (0.5, True)):
        assert WakeUp([Look("x", Scripted(0, clock, scores), 0.5)], Motion(4)).see(image).present == present
    with pytest.warns(FallbackWarning, match="scores from 0 to 1"):
        assert not WakeUp([Look("x", Scripted(0, clock, 7.0), 0.5)], Motion(4)).see(image).present
    with pytest.raises(InputError, match="at least one tier"):
        WakeUp([], Motion(4))


def test_a_cascade_is_two_tiers():
    cascade = vj.load("frontalface")
    coarse, whole = cascade_looks(cascade, 48, threads=1)
    assert coarse.name == "frontalface, 12 stages" and whole.name == "frontalface"
    assert whole.detector.cascade is cascade and whole.detector.min_size == (48, 48)
    wake_up = WakeUp([coarse, whole], Motion(12), Hysteresis(1, 1, 1))
    assert wake_up.see(photo("astronaut")).event == WAKE
    assert wake_up.see(photo("coffee")).event == SLEEP
    assert smallest_object((480, 640, 3), (20, 20)) == 48
    assert smallest_object((100, 100), (20, 24)) == 24
