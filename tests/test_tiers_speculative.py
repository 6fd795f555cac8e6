"""Speculative cascades over sequences: exact output distributions by enumeration, failures, threads."""

import itertools
import threading
import time
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import vj.tiers.speculative as module
from vj.errors import InputError
from vj.tiers import Drafted, Settled, SpeculativeTokens, TokenRule, collect

RULES = [
    TokenRule(),
    TokenRule("lenient", 0.3),
    TokenRule("chow", 0.45),
    TokenRule("diff", 0.1),
    TokenRule("opt", 0.4),
    TokenRule("token_v1", 0.3),
    TokenRule("token_v2", 0.2),
    TokenRule("token_v3", 0.6),
]
by_name = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def naive_target(name, alpha, q, p):
    """The rules as the papers write them, token by token."""
    tokens = range(len(q))
    if name == "lossless":
        return list(p)
    if name == "lenient":
        accepted = [q[x] * min(1, p[x] / ((1 - alpha) * q[x])) if q[x] else 0 for x in tokens]
        residual = [max(0, p[x] - q[x]) for x in tokens]
        total = sum(residual)
        return [accepted[x] + (1 - sum(accepted)) * (residual[x] / total if total else p[x]) for x in tokens]
    if name.startswith("token"):
        test = {
            "token_v1": lambda x: q[x] >= max(p) - alpha,
            "token_v2": lambda x: p[x] >= max(p) - alpha,
            "token_v3": lambda x: p[x] >= max(p) * (1 - alpha),
        }[name]
        deferred = sum(q[x] for x in tokens if not test(x))
        return [(q[x] if test(x) else 0) + deferred * p[x] for x in tokens]
    distance = sum(abs(q[x] - p[x]) for x in tokens) / 2
    defer = {
        "chow": max(q) < 1 - alpha,
        "diff": max(q) < max(p) - alpha,
        "opt": max(q) < max(p) - alpha * distance,
    }[name]
    return list(p if defer else q)


def table_model(seed, tokens=3, sharpness=1.5):
    """A model whose distribution depends on the last two tokens."""
    rng = np.random.default_rng(seed)
    table = defaultdict(lambda: rng.dirichlet(np.full(tokens, 1 / sharpness)))
    for context in itertools.product(range(-1, tokens), repeat=2):
        table[context]
    return lambda context: table[(-1, -1, *context)[-2:]]


class Enumerated:
    """Stands in for the random draws and takes each possibility in turn, with its probability."""

    def __init__(self):
        self.script, self.made, self.weight, self.waiting = [], 0, 1.0, [[]]

    def _take(self, choices):
        """The scripted choice, or the first one while the others wait for their turn."""
        if self.made == len(self.script):
            first, *others = range(len(choices))
            self.waiting += [[*self.script, other] for other in others]
            self.script = [*self.script, first]
        value, weight = choices[self.script[self.made]]
        self.made += 1
        self.weight *= weight
        return value

    def token(self, distribution):
        return self._take([(int(k), float(distribution[k])) for k in np.flatnonzero(distribution)])

    def accept(self, probability):
        choices = [(True, probability), (False, 1 - probability)]
        return self._take([(value, weight) for value, weight in choices if weight > 0])

    def distribution(self, run):
        found = defaultdict(float)
        while self.waiting:
            self.script, self.made, self.weight = self.waiting.pop(), 0, 1.0
            result = run()
            found[result] += self.weight
        return dict(found)


@pytest.fixture
def enumerated(monkeypatch):
    draws = Enumerated()
    monkeypatch.setattr(module, "_Draws", lambda seed: draws)
    return draws


def naive_sequences(rule, draft, heavy, length, stop=()):
    """The distribution over whole sequences when each token is drawn from the rule's target."""
    found, growing = defaultdict(float), [((), 1.0)]
    while growing:
        sequence, weight = growing.pop()
        if len(sequence) == length or (sequence and sequence[-1] in stop):
            found[sequence] += weight
            continue
        target = naive_target(rule.name, rule.alpha, list(draft(sequence)), list(heavy(sequence)))
        growing += [((*sequence, k), weight * share) for k, share in enumerate(target) if share > 0]
    return dict(found)


def finish():
    """Wait for all calls under way."""
    for thread in threading.enumerate():
        if thread.name == "vj-heavy-tier":
            thread.join(timeout=30)


def batch_of(model):
    return lambda contexts: np.array([model(context) for context in contexts])


def assert_same_distribution(found, expected):
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    for sequence in found.keys() | expected.keys():
        assert found.get(sequence, 0) == pytest.approx(expected.get(sequence, 0), abs=1e-12), sequence


# The rules.


def distributions(tokens=5):
    # Zeros, ties and near-certainty included.
    weights = st.lists(st.sampled_from([0.0, 1e-9, 0.1, 0.2, 1.0, 3.0, 1e3]), min_size=tokens, max_size=tokens)
    return weights.filter(lambda w: sum(w) > 0).map(lambda w: np.array(w) / sum(w))


@by_name
@given(q=distributions(), p=distributions(), alpha=st.floats(0, 0.99))
@settings(max_examples=60, deadline=None)
def test_target_is_that_of_the_paper(rule, q, p, alpha):
    rule = TokenRule(rule.name, 0 if rule.name == "lossless" else alpha)
    found = rule.target(q, p)
    # Where a comparison is a tie but for rounding, either side is right; both then sum to one.
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    margins = [q.max() - 1 + alpha, q.max() - p.max() + alpha, q.max() - p.max() + alpha * np.abs(q - p).sum() / 2]
    margins += [*(q - p.max() + alpha), *(p - p.max() + alpha), *(p - (1 - alpha) * p.max())]
    if min(abs(m) for m in margins) > 1e-12 or rule.name in ("lossless", "lenient"):
        np.testing.assert_allclose(found, naive_target(rule.name, rule.alpha, list(q), list(p)), atol=1e-12)


@by_name
def test_target_of_many_places_at_once_is_that_of_each(rule):
    rng = np.random.default_rng(1)
    q, p = rng.dirichlet(np.ones(6), 40), rng.dirichlet(np.ones(6), 40)
    np.testing.assert_array_equal(rule.target(q, p), [rule.target(a, b) for a, b in zip(q, p, strict=True)])


@pytest.mark.parametrize("name", ["chow", "diff", "opt", "token_v1", "token_v2", "token_v3", "lenient"])
def test_more_alpha_never_lowers_what_is_accepted(name):
    rng = np.random.default_rng(2)
    q, p = rng.dirichlet(np.full(8, 0.4), 300), rng.dirichlet(np.full(8, 0.4), 300)
    alphas = np.linspace(-5 if name == "opt" else 0, 5 if name == "opt" else 0.99, 25)
    accepted = [np.minimum(q, TokenRule(name, a).target(q, p)).sum(1).mean() for a in alphas]
    assert np.all(np.diff(accepted) >= -1e-12)
    assert accepted[-1] > accepted[0]


@pytest.mark.parametrize(("name", "low", "high"), [("chow", 0, 1), ("diff", -1, 1), ("token_v1", -1, 1)])
def test_ends_of_alpha_are_the_heavy_model_and_the_draft(name, low, high):
    rng = np.random.default_rng(3)
    q, p = rng.dirichlet(np.ones(5), 50), rng.dirichlet(np.ones(5), 50)
    np.testing.assert_allclose(TokenRule(name, low).target(q, p), p)
    np.testing.assert_allclose(TokenRule(name, high).target(q, p), q)


@pytest.mark.parametrize(
    ("name", "alpha", "message"),
    [
        ("best", 0.1, "expected a rule among"),
        ("chow", 1.5, "from 0 to 1 for chow, got 1.5"),
        ("lossless", 0.1, "from 0 to 0"),
        ("opt", float("nan"), "got nan"),
        ("opt", float("inf"), "got inf"),
        ("diff", "much", "got 'much'"),
        ("lenient", 1, "below 1"),
    ],
)
def test_rules_that_are_none(name, alpha, message):
    with pytest.raises(InputError, match=message):
        TokenRule(name, alpha)


# Sequences: what comes out, exactly.


@by_name
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_output_distribution_is_that_of_the_rules_target(enumerated, rule, steps):
    draft, heavy = table_model(1), table_model(2)
    pair = SpeculativeTokens(draft, batch_of(heavy), rule, steps=steps, batched=True)
    found = enumerated.distribution(lambda: collect(pair.run((), 3)).values)
    assert_same_distribution(found, naive_sequences(rule, draft, heavy, 3))


@given(seed=st.integers(0, 10**6), steps=st.integers(1, 3), rule=st.sampled_from(RULES))
@settings(max_examples=25, deadline=None)
def test_output_distribution_for_other_models(seed, steps, rule):
    # Sharp ones too, in which many tokens have next to no probability.
    draft, heavy = table_model(seed, sharpness=4.0), table_model(seed + 1, sharpness=4.0)
    draws = Enumerated()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_Draws", lambda seed: draws)
        pair = SpeculativeTokens(draft, batch_of(heavy), rule, steps=steps, batched=True)
        found = draws.distribution(lambda: collect(pair.run((), 2)).values)
    assert_same_distribution(found, naive_sequences(rule, draft, heavy, 2))


@by_name
def test_output_distribution_with_a_token_that_ends_the_sequence(enumerated, rule):
    draft, heavy = table_model(3), table_model(4)
    pair = SpeculativeTokens(draft, batch_of(heavy), rule, steps=2, batched=True)
    found = enumerated.distribution(lambda: collect(pair.run((), 3, stop={2})).values)
    assert_same_distribution(found, naive_sequences(rule, draft, heavy, 3, stop={2}))


def test_output_distribution_when_each_place_is_asked_about_alone(enumerated):
    draft, heavy = table_model(5), table_model(6)
    pair = SpeculativeTokens(draft, heavy, steps=2)
    found = enumerated.distribution(lambda: collect(pair.run((), 2)).values)
    assert_same_distribution(found, naive_sequences(TokenRule(), draft, heavy, 2))


@by_name
def test_a_drafted_token_stands_as_often_as_the_rule_says(enumerated, rule):
    draft, heavy = table_model(7), table_model(8)
    pair = SpeculativeTokens(draft, batch_of(heavy), rule, steps=1, batched=True)
    found = enumerated.distribution(lambda: collect(pair.run((), 1)).kept)
    target = naive_target(rule.name, rule.alpha, list(draft(())), list(heavy(())))
    expected = sum(min(a, b) for a, b in zip(draft(()), target, strict=True))
    assert found.get(1, 0) == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_is_that_of_the_heavy_model(enumerated, temperature):
    draft, heavy = table_model(9), table_model(10)
    pair = SpeculativeTokens(draft, batch_of(heavy), steps=2, batched=True, temperature=temperature)
    found = enumerated.distribution(lambda: collect(pair.run((), 2)).values)

    def hot(context):
        raised = np.array(heavy(context)) ** (1 / temperature)
        return raised / raised.sum()

    assert_same_distribution(found, naive_sequences(TokenRule(), hot, hot, 2))


def test_temperature_zero_takes_the_heavy_models_likeliest_token():
    draft, heavy = table_model(11, tokens=6), table_model(12, tokens=6)
    found = collect(SpeculativeTokens(draft, heavy, steps=3, temperature=0).run((1,), 30)).values
    greedy = [1]
    for _ in range(30):
        greedy.append(int(np.argmax(heavy(tuple(greedy)))))
    assert list(found) == greedy[1:]


def test_confidence_is_judged_before_the_temperature():
    q, p = np.array([0.6, 0.4]), np.array([0.4, 0.6])
    sure = SpeculativeTokens(lambda c: q, lambda c: p, TokenRule("chow", 0.5), temperature=0)
    unsure = SpeculativeTokens(lambda c: q, lambda c: p, TokenRule("chow", 0.3), temperature=0)
    assert collect(sure.run((), 5)).values == (0,) * 5
    assert collect(unsure.run((), 5)).values == (1,) * 5


# Sequences: with the real draws.


def test_draws_follow_the_distribution():
    heavy = table_model(13, tokens=8)
    pair = SpeculativeTokens(table_model(14, tokens=8), batch_of(heavy), steps=3, batched=True)
    rng = np.random.default_rng(5)
    counts = np.zeros((8, 8))
    for _ in range(3000):
        counts[collect(pair.run((), 2, seed=rng)).values] += 1
    first = heavy(())
    expected = 3000 * np.array([first[a] * heavy((a,)) for a in range(8)])
    many = expected > 5
    found, wanted = np.append(counts[many], counts[~many].sum()), np.append(expected[many], expected[~many].sum())
    assert stats.chisquare(found, wanted).pvalue > 1e-3


@given(weights=distributions(7), uniform=st.sampled_from([0.0, 0.3, 0.5, 1 - 2**-53]))
@settings(max_examples=100, deadline=None)
def test_a_token_without_probability_is_never_drawn(weights, uniform):
    draws = module._Draws(0)
    draws._rng = type("", (), {"random": lambda self: uniform})()
    assert weights[draws.token(weights)] > 0


def test_the_seed_alone_decides():
    draft, heavy = table_model(15, tokens=9), table_model(16, tokens=9)
    jitter = np.random.default_rng()

    def slow(context):
        time.sleep(jitter.random() / 1000)
        return heavy(context)

    values = [
        collect(SpeculativeTokens(draft, asked, steps=3, batched=batched).run((0,), 40, seed=seed)).values
        for asked, batched, seed in [(heavy, False, 1), (slow, False, 1), (batch_of(heavy), True, 1), (heavy, False, 2)]
    ]
    assert values[0] == values[1] == values[2] != values[3]


def test_events_say_what_is_shown_and_what_stands():
    draft, heavy = table_model(17, tokens=5), table_model(18, tokens=5)
    shown, dropped = [], 0
    for event in SpeculativeTokens(draft, heavy, steps=3).run((), 50, seed=3):
        if isinstance(event, Drafted):
            assert event.position == len(shown)
            shown.append(event.value)
        else:
            assert tuple(shown[event.position :][: event.kept]) == event.values[: event.kept]
            assert len(event.values) - event.kept in (0, 1)
            dropped += shown[event.position :] != list(event.values)
            shown[event.position :] = event.values
            assert event.asked and not event.note
    assert len(shown) == 50
    assert dropped > 0
    outcome = collect(SpeculativeTokens(draft, heavy, steps=3).run((), 50, seed=3))
    assert list(outcome.values) == shown
    assert outcome.kept <= outcome.drafted
    assert outcome.heavy_calls < 50


def test_a_perfect_draft_needs_one_call_for_each_block():
    model = table_model(19)
    outcome = collect(SpeculativeTokens(model, model, steps=4).run((), 50))
    assert outcome.heavy_calls == 10
    assert outcome.kept == outcome.drafted == 40


def test_drafts_are_shown_while_the_heavy_tier_works_on_all_places_at_once():
    together = threading.Barrier(4)
    shown = threading.Event()

    def heavy(context):
        # Passes only if all four places of the block are under way together, after the drafts were shown.
        together.wait(timeout=10)
        assert shown.wait(timeout=10)
        return [0.5, 0.5]

    run = SpeculativeTokens(lambda context: [0.5, 0.5], heavy, steps=3).run((), 4)
    assert [type(next(run)) for _ in range(3)] == [Drafted] * 3
    shown.set()
    assert len(next(run).values) in (1, 2, 3, 4)
    run.close()


def test_chow_asks_only_where_the_draft_is_unsure():
    asked = []

    def heavy(context):
        asked.append(len(context))
        return [0.5, 0.5]

    def draft(context):
        return [0.5, 0.5] if len(context) == 6 else [0.95, 0.05]

    outcome = collect(SpeculativeTokens(draft, heavy, TokenRule("chow", 0.1), steps=4).run((), 12))
    assert asked == [6]
    assert outcome.heavy_calls == 1
    assert len(outcome.values) == 12


# Sequences: what goes wrong.


def test_a_heavy_tier_that_fails_leaves_the_draft_and_says_so():
    draft, heavy = table_model(20), table_model(21)

    def failing(contexts):
        if 4 <= len(contexts[0]) < 8:
            raise ConnectionError("no\nroute")
        return batch_of(heavy)(contexts)

    pair = SpeculativeTokens(draft, failing, steps=2, batched=True)
    events = [event for event in pair.run((), 20, seed=1) if isinstance(event, Settled)]
    failed = [event for event in events if event.note]
    assert {event.note for event in failed} == {"the heavy tier failed: ConnectionError: no route"}
    assert all(event.kept == len(event.values) == 2 and event.asked == 3 for event in failed)
    assert all(4 <= event.position < 8 for event in failed)
    assert events[-1].note == ""
    outcome = collect(pair.run((), 20, seed=1))
    assert len(outcome.values) == 20
    assert len(outcome.notes) == len(failed)


def test_one_place_that_fails_is_enough():
    over = threading.Event()

    def heavy(context):
        if len(context) == 1:
            raise OSError
        over.wait(timeout=30)

    started = time.monotonic()
    outcome = collect(SpeculativeTokens(lambda context: [0.5, 0.5], heavy, steps=2).run((), 2))
    over.set()
    assert outcome.notes == ("the heavy tier failed: OSError",)
    assert time.monotonic() - started < 10


def test_a_heavy_tier_that_hangs_is_not_asked_again_until_it_is_done():
    calls, release = [], threading.Event()

    def heavy(contexts):
        calls.append(len(contexts[0]))
        if len(calls) == 1:
            release.wait(timeout=30)
        return [[0.5, 0.5]] * len(contexts)

    pair = SpeculativeTokens(lambda context: [0.5, 0.5], heavy, steps=2, batched=True, timeout=0.5)
    notes = []
    for event in pair.run((), 12):
        if isinstance(event, Settled):
            notes.append((event.position, event.asked, event.note))
            if event.position == 4:
                assert calls == [0]
                release.set()
                finish()
    assert notes[:3] == [
        (0, 3, "the heavy tier did not answer within 0.5 s"),
        (2, 0, "the heavy tier is still busy with an earlier call"),
        (4, 0, "the heavy tier is still busy with an earlier call"),
    ]
    assert all(note == "" for _, _, note in notes[3:])
    assert calls[:2] == [0, 6]


BAD = [
    ([0.5, np.nan], "got nan among its numbers"),
    ([1.5, -0.5], "got -0.5 among its numbers"),
    ([0.5, 0.6], "adds up to 1, got a sum of 1.1"),
    ([0.0, 0.0], "got a sum of 0"),
    ([np.inf, 0.5], "got a sum of inf"),
    ([[0.5, 0.5]], r"of shape \(tokens,\), got shape \(1, 2\)"),
    ([], "of shape"),
    ("half", "expected a distribution, got str"),
    (None, "expected a distribution"),
]


@pytest.mark.parametrize(("found", "message"), BAD, ids=[str(found) for found, _ in BAD])
def test_what_is_no_distribution(found, message):
    def good(context):
        return [0.5, 0.5]

    def bad(context):
        return found if len(context) == 2 else [0.5, 0.5]

    for pair, who in ((SpeculativeTokens(bad, good), "draft"), (SpeculativeTokens(good, bad), "heavy")):
        with pytest.raises(InputError, match=message) as error:
            collect(pair.run((), 20))
        assert str(error.value).startswith(f"{who}, after 2 tokens: ")
        assert "\n" not in str(error.value)


def test_distributions_over_different_tokens():
    pair = SpeculativeTokens(lambda context: [0.5, 0.5], lambda context: [0.2, 0.3, 0.5])
    with pytest.raises(InputError, match="heavy, after 0 tokens: expected a distribution over 2 tokens, got 3"):
        collect(pair.run((), 5))


def test_batch_of_another_length():
    pair = SpeculativeTokens(lambda context: [0.5, 0.5], lambda contexts: [[0.5, 0.5]], batched=True)
    with pytest.raises(InputError, match="expected 5 distributions, got 1"):
        collect(pair.run((), 20))


def test_rounded_distributions_pass():
    half = np.random.default_rng(0).dirichlet(np.ones(1000)).astype(np.float16)
    pair = SpeculativeTokens(lambda context: half, lambda context: half)
    assert len(collect(pair.run((), 5)).values) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"draft": 3}, "expected draft to be callable"),
        ({"heavy": None}, "expected heavy to be callable"),
        ({"rule": "chow"}, "expected a TokenRule, got 'chow'"),
        ({"steps": 0}, "expected steps to be a whole number from 1, got 0"),
        ({"steps": 2.5}, "got 2.5"),
        ({"timeout": 0}, "expected a timeout"),
        ({"timeout": float("nan")}, "expected a timeout"),
        ({"temperature": -1}, "expected a temperature"),
        ({"temperature": float("nan")}, "expected a temperature"),
    ],
)
def test_settings_out_of_range(given, message):
    with pytest.raises(InputError, match=message):
        SpeculativeTokens(**{"draft": lambda c: [1.0], "heavy": lambda c: [1.0], **given})


@pytest.mark.parametrize("length", [0, -1, 2.0, True])
def test_length_out_of_range(length):
    with pytest.raises(InputError, match="expected length"):
        collect(SpeculativeTokens(lambda c: [1.0], lambda c: [1.0]).run((), length))
