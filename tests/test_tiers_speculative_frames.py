"""Speculative cascades over frames: corrections, agreement, files and cameras, failures."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vj.detector import Detections
from vj.errors import InputError
from vj.tiers import Drafted, Settled, SpeculativeFrames, Tier, collect
from vj.tiers.speculative_corrections import Carry


def finish():
    """Wait for all calls under way."""
    for thread in threading.enumerate():
        if thread.name == "vj-heavy-tier":
            thread.join(timeout=30)


def boxes(*rows):
    n = len(rows)
    return Detections(np.array(rows, np.int32).reshape(n, 4), np.arange(n, dtype=float), np.ones(n, np.int32))


A, B, C = (0, 0, 20, 20), (100, 0, 30, 30), (0, 200, 40, 40)


def moved(box, by=3):
    return (box[0] + by, box[1] + by, box[2], box[3])


def corrected(now, drafted, verified):
    carry = Carry()
    _, known = carry.learn(boxes(*drafted), boxes(*verified), None)
    return carry.apply(carry.follow(known, None), boxes(*now))


@pytest.mark.parametrize(
    ("now", "drafted", "verified", "expected"),
    [
        ([moved(A), B], [A, B], [B], [B]),
        ([A], [A], [A, C], [A, C]),
        ([A, moved(C)], [A], [A, C], [A, moved(C)]),
        ([A, C], [A], [A], [A, C]),
        ([], [], [], []),
        ([], [A], [], []),
        ([B], [A], [C], [B, C]),
    ],
)
def test_corrections_of_boxes(now, drafted, verified, expected):
    assert sorted(map(tuple, corrected(now, drafted, verified).boxes.tolist())) == sorted(expected)


def test_boxes_are_followed_through_images():
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(0, 255, (25, 25, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    carry = Carry()
    _, known = carry.learn(boxes(), boxes((80, 90, 24, 24)), scene[:160, :160])
    for k in range(1, 11):
        known = carry.follow(known, scene[2 * k : 160 + 2 * k, 3 * k : 160 + 3 * k])
    np.testing.assert_allclose(carry.apply(known, boxes()).boxes, [(50, 70, 24, 24)], atol=2)
    known = carry.follow(known, np.full((160, 160, 3), 90, np.uint8))
    assert len(carry.apply(known, boxes())) == 0


def naive_frames(truth, draft, every):
    """What is shown when a file is answered: the last verified answer while the draft says the same as then."""
    shown, known = [], None
    for k in range(len(draft)):
        if k and k % every == 0:
            last = k - every
            known = None if truth[last] == draft[last] else (draft[last], truth[last])
        shown.append(known[1] if known and draft[k] == known[0] else draft[k])
    return shown


@given(
    answers=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab")), min_size=1, max_size=25),
    every=st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_labels_of_a_file_are_shown_as_a_naive_loop_says(answers, every):
    draft, truth = zip(*answers, strict=True)
    asked = []

    def heavy(frame):
        asked.append(frame)
        return truth[frame]

    pair = SpeculativeFrames(lambda frame: draft[frame], heavy, every=every)
    events = list(pair.run(range(len(answers))))
    assert [e.value for e in events if isinstance(e, Drafted)] == naive_frames(truth, draft, every)
    assert asked == list(range(0, len(answers), every))
    settled = [e for e in events if isinstance(e, Settled)]
    assert [e.position for e in settled] == asked
    # Every verified frame ends as the heavy tier sees it.
    values = collect(events).values
    assert len(values) == len(answers)
    assert [values[k] for k in asked] == [truth[k] for k in asked]


def test_a_camera_never_waits():
    release = threading.Event()

    def heavy(frame):
        release.wait(timeout=30)
        return "dog"

    run = SpeculativeFrames(lambda frame: "cat", heavy, every=2, live=True).run(range(100))
    for k in range(7):
        assert next(run) == Drafted(k, "cat")
    release.set()
    finish()
    assert next(run) == Settled(0, ("dog",) * 7, 0, 1)
    # Free again, so the next frame is verified at once.
    assert next(run) == Drafted(7, "dog")
    finish()
    assert next(run) == Settled(7, ("dog",), 1, 1)


@pytest.mark.parametrize("live", [False, True])
def test_a_heavy_tier_that_fails_leaves_what_was_shown(live):
    def heavy(frame):
        if frame == 0:
            return "dog"
        raise RuntimeError("down")

    def frames():
        for k in range(6):
            finish()
            yield k

    outcome = collect(SpeculativeFrames(lambda frame: "cat", heavy, every=2, live=live).run(frames()))
    # The earlier correction still applies.
    assert outcome.values == ("dog",) * 6
    assert set(outcome.notes) == {"the heavy tier failed: RuntimeError: down"}


def test_frames_with_a_heavy_tier_that_hangs():
    calls, over = [], threading.Event()

    def heavy(frame):
        calls.append(frame)
        over.wait(timeout=30)

    pair = SpeculativeFrames(lambda frame: "cat", heavy, every=2, timeout=0.05)
    outcome = collect(pair.run(range(7)))
    over.set()
    assert outcome.values == ("cat",) * 7
    assert calls == [0]
    assert outcome.notes == (
        "the heavy tier did not answer within 0.05 s",
        *["the heavy tier is still busy with an earlier frame"] * 3,
    )


def test_a_draft_that_raises_ends_the_run():
    def draft(frame):
        raise KeyError(frame)

    with pytest.raises(KeyError):
        list(SpeculativeFrames(draft, lambda frame: 1).run([1, 2]))


def test_answers_that_cannot_be_compared_are_one_clear_error():
    def answer(frame):
        return (np.zeros(3), np.ones(3) * frame)

    with pytest.raises(InputError, match="that == can compare"):
        list(SpeculativeFrames(lambda f: answer(f), lambda f: answer(f + 1)).run([1, 2]))


def test_tiers_are_asked_for_their_values():
    def heavy(frame):
        if frame:
            raise OSError("gone")
        return "dog", 0.9

    pair = SpeculativeFrames(Tier("light", lambda frame: ("cat", 0.6), 1), Tier("yunet", heavy, 20), every=2)
    outcome = collect(pair.run(range(4)))
    assert outcome.values == ("dog",) * 4
    assert outcome.notes == ("the heavy tier failed: TierError: yunet: OSError: gone",)


def test_no_frames():
    assert collect(SpeculativeFrames(len, len).run([])).values == ()


@pytest.mark.parametrize("given", [{"every": 0}, {"timeout": -1}, {"draft": None}, {"corrections": 1}])
def test_frame_settings_out_of_range(given):
    with pytest.raises(InputError, match=next(iter(given))):
        SpeculativeFrames(**{"draft": len, "heavy": len, **given})
