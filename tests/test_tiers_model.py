"""Tiers ask callables of every kind, and what is no answer is one clear error."""

import asyncio

import numpy as np
import pytest

from vj.errors import InputError
from vj.tiers import Answer, Tier, TierError


def test_answer_takes_its_label_from_a_plain_value():
    assert Answer("cat", 0.5).label == "cat"
    assert Answer(3, 1).label == "3"
    assert Answer(np.int64(3), np.float32(0.5)).label == "3"
    assert Answer([1, 2], 0.5).label is None
    assert Answer([1, 2], 0.5, 7).label == "7"
    assert type(Answer(3, np.float32(0.5)).confidence) is float


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan"), float("inf"), "0.5", None, 1j])
def test_answer_refuses_a_confidence_outside_0_to_1(confidence):
    with pytest.raises(InputError, match="expected a confidence from 0 to 1, got"):
        Answer("x", confidence)


@pytest.mark.parametrize("value", [None, float("nan"), np.float64("nan")])
def test_answer_refuses_no_value(value):
    with pytest.raises(InputError, match="expected a value"):
        Answer(value, 0.5)


@pytest.mark.parametrize("cost", [-1, float("nan"), float("inf"), "1", True])
def test_tier_refuses_a_cost_that_is_none(cost):
    with pytest.raises(InputError, match="m: expected a cost of zero or more"):
        Tier("m", lambda q: (q, 1.0), cost)


def test_tier_needs_a_name_and_something_to_call():
    with pytest.raises(InputError, match="name"):
        Tier(" ", lambda q: (q, 1.0), 1)
    with pytest.raises(InputError, match="got neither"):
        Tier("m", None, 1)
    with pytest.raises(InputError, match="callable, got int"):
        Tier("m", 3, 1)


def _plain(query):
    if query < 0:
        raise RuntimeError("below\nzero")
    return query * 2, query / 10


async def _async(query):
    await asyncio.sleep(0)
    return _plain(query)


class _Object:
    async def __call__(self, query):
        return _plain(query)


def _each(queries):
    out = []
    for query in queries:
        try:
            out.append(_plain(query))
        except RuntimeError as error:
            out.append(error)
    return out


async def _each_async(queries):
    return _each(queries)


TIERS = {
    "plain": Tier("m", _plain, 2),
    "async": Tier("m", _async, 2),
    "object": Tier("m", _Object(), 2),
    "batch": Tier("m", None, 2, batch=_each),
    "async batch": Tier("m", None, 2, batch=_each_async),
}


@pytest.mark.parametrize("kind", TIERS)
def test_every_kind_of_callable_answers_alike(kind):
    tier = TIERS[kind]

    async def inside_a_loop():
        return tier.ask(3), await tier.ask_async(3)

    for reply in (tier.ask(3), *asyncio.run(inside_a_loop())):
        assert (reply.answer, reply.cost) == (Answer(6, 0.3), 2.0)
    good, bad, too_sure = tier.ask_many([4, -1, 11])
    assert good.answer == Answer(8, 0.4)
    assert isinstance(bad, TierError)
    assert str(bad) == "m: RuntimeError: below zero"
    assert str(too_sure) == "m: expected a confidence from 0 to 1, got 1.1"
    with pytest.raises(TierError, match="below zero"):
        tier.ask(-1)
    with pytest.raises(TierError, match="below zero"):
        asyncio.run(tier.ask_async(-1))
    assert tier.ask_many([]) == []


@pytest.mark.parametrize("found", [None, "text", 3, ("x",), ("x", 0.5, "l", 4), (None, 0.5), {"value": 1}])
def test_what_is_no_answer_is_an_error_that_names_the_tier(found):
    with pytest.raises(TierError, match=r"^m: expected"):
        Tier("m", lambda query: found, 1).ask(0)


def test_a_batch_that_fails_or_is_too_short_fails_for_each_query():
    def broken(queries):
        raise OSError("down")

    for batch, message in ((broken, "down"), (lambda q: [], "expected 2 answers to a batch, got 0")):
        found = Tier("m", None, 1, batch=batch).ask_many([1, 2])
        assert len(found) == 2
        assert all(isinstance(one, TierError) and message in str(one) for one in found)


def test_cost_is_measured_where_none_is_given():
    tier = Tier("m", lambda q: (q, 1.0))
    reply = tier.ask(1)
    assert reply.cost == reply.seconds > 0
    shared = Tier("m", None, batch=lambda qs: [(q, 1.0) for q in qs]).ask_many([1, 2, 3])
    assert len({one.cost for one in shared}) == 1
