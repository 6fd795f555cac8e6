"""Policies fitted on recorded outcomes, their files, the live escalation that follows them, and the command."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from vj.cli.tiers import main
from vj.errors import InputError
from vj.tiers import Answer, Escalation, Outcomes, Policy, Tier, TierError
from vj.tiers.beliefs import Beliefs, FoldedBeliefs, folds
from vj.tiers.fitting import Goal, Points, optimism, tried
from vj.tiers.rules import Plan, play

COSTS = {"small": 0.0, "middle": 1.0, "large": 4.0}


def made(n=800, seed=0):
    """Outcomes of three tiers; the confidence of each is the probability that it is right."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(["a", "b"], n)
    labels, confidences = [], []
    for low in (0.5, 0.65, 0.85):
        p = rng.uniform(low, 1.0, n)
        labels.append(np.where(rng.random(n) < p, truth, np.where(truth == "a", "b", "a")))
        confidences.append(p)
    return Outcomes(tuple(COSTS), truth, np.array(labels).T, np.array(confidences).T, np.array(list(COSTS.values())))


@pytest.fixture(scope="module")
def fitted():
    return Policy.fit(made(), loss=0.02)


def live(outcomes, changes=None):
    """Tiers that answer query i as row i of the outcomes was answered."""

    def tier(k, name):
        return Tier(
            name,
            (changes or {}).get(name)
            or (lambda i: Answer(str(outcomes.labels[i, k]), float(outcomes.confidences[i, k]))),
            float(outcomes.costs[k]),
        )

    return [tier(k, name) for k, name in enumerate(outcomes.tiers)]


def test_outcomes_survive_their_file(tmp_path):
    for name in ("o.csv", "o.csv.gz"):
        before = made(30)
        before.write(tmp_path / name)
        after = Outcomes.read(tmp_path / name, COSTS)
        assert after.tiers == before.tiers
        for field in ("truth", "labels", "confidences", "costs"):
            assert np.array_equal(getattr(after, field), getattr(before, field))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.csv", "o.csv.gz"]


def test_running_tiers_records_what_they_answer():
    before = made(40)
    after = Outcomes.run(live(before), range(40), before.truth)
    assert np.array_equal(after.labels, before.labels)
    assert np.array_equal(after.confidences, before.confidences)
    assert after.costs.tolist() == before.costs.tolist()


def test_a_replay_is_what_its_picks_come_to(fitted):
    other = made(500, seed=1)
    played, report = fitted.play(other), fitted.replay(other)
    right = [other.labels[i, k] == other.truth[i] for i, k in enumerate(played.pick)]
    spent = [sum(c for c, asked in zip(other.costs, row, strict=True) if asked) for row in played.asked]
    assert report["accuracy"] == pytest.approx(np.mean(right))
    assert report["cost"] == pytest.approx(np.mean(spent))
    best = max(range(3), key=lambda k: (other.labels[:, k] == other.truth).mean())
    assert report["best_tier"] == other.tiers[best]
    assert report["saved"] == pytest.approx(1 - np.mean(spent) / other.costs[best])
    assert report["saved"] > 0


@pytest.mark.parametrize("goal", [{"loss": 0.02}, {"accuracy": 0.85}, {"budget": 1.5}])
def test_live_tiers_are_asked_as_the_replay_asks_them(goal):
    policy, other = Policy.fit(made(), **goal), made(300, seed=2)
    played, escalation = policy.play(other), Escalation(live(other), policy)
    for i in range(len(other)):
        outcome = escalation(i)
        asked = {other.tiers[k] for k in np.flatnonzero(played.asked[i])}
        assert set(outcome.asked) == asked
        assert outcome.answer.label == other.labels[i, played.pick[i]]
        assert outcome.probability == pytest.approx(played.probability[i], rel=1e-9)
        order = [other.tiers.index(name) for name in outcome.asked]
        answers = {k: Answer(str(other.labels[i, k]), float(other.confidences[i, k])) for k in order}
        assert policy.stand(answers) == (policy.index[outcome.tier], outcome.probability)
        assert outcome.spent == pytest.approx(sum(COSTS[name] for name in asked))


def test_a_policy_file_decides_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "policy.json")
    again, other = Policy.load(tmp_path / "policy.json"), made(400, seed=3)
    assert np.array_equal(again.play(other).pick, fitted.play(other).pick)
    assert np.array_equal(again.play(other).asked, fitted.play(other).asked)


def test_the_threshold_moves_the_cost_in_one_direction(fitted):
    other = made(400, seed=4)
    costs = [fitted.at(threshold=t).replay(other)["cost"] for t in (0.0, 0.02, 0.05, 0.1, 0.3, 1.0)]
    if fitted.plan.rule == "chow":
        costs = costs[::-1]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[-1]


def test_a_policy_is_used_for_another_heavy_tier():
    """The new tier answers as the old one did: everything stays as it was but the name and the price."""
    outcomes = made()
    policy, other = Policy.fit(outcomes, loss=0.02), made(300, seed=9)
    moved = policy.renamed("large", "newer", COSTS["large"], trust=1)
    renamed = Outcomes(("small", "middle", "newer"), other.truth, other.labels, other.confidences, other.costs)
    before, after = policy.replay(other), moved.replay(renamed)
    assert after["asked"]["newer"] == before["asked"]["large"] > 0
    assert (after["accuracy"], after["cost"]) == (before["accuracy"], before["cost"])
    assert Policy.from_dict(json.loads(json.dumps(moved.to_dict()))).tiers == ("small", "middle", "newer")
    for old, new in (("nobody", "x"), ("large", "small")):
        with pytest.raises(InputError, match="expected a"):
            policy.renamed(old, new, 1.0)
    with pytest.raises(InputError, match="cost of zero or more"):
        policy.renamed("large", "newer", -1.0)
    with pytest.raises(InputError, match="trust from 0 to 1"):
        policy.renamed("large", "newer", 1.0, trust=1.5)


def test_without_trust_in_the_old_tier_the_least_sure_queries_are_deferred():
    outcomes, other = made(), made(300, seed=9)
    policy = replace(Policy.fit(outcomes, loss=0.02), plan=Plan("gain", (0, 2), False))
    folded = FoldedBeliefs(outcomes, folds(len(outcomes), 0))
    policy = replace(policy, learned=folded.learn(policy.plan.order, policy.plan.steps), threshold=0.0)
    p = Beliefs(other, policy.learned).stand((0,))[1]
    after = float(outcomes.correct[:, 2].mean())
    renamed = Outcomes(("small", "middle", "newer"), other.truth, other.labels, other.confidences, other.costs)
    for threshold in (0.05, 0.2, 0.4):
        moved = policy.renamed("large", "newer", 4.0, trust=0).at(threshold=threshold)
        assert np.array_equal(moved.play(renamed).asked[:, 2], after - p > threshold)
    # Half of the trust lies between: the mean of both probabilities.
    half = policy.learned.shrunk(2, 0.5).after[policy.plan.steps[0]]
    whole = policy.learned.after[policy.plan.steps[0]]
    assert np.allclose(half.predict(p, other.labels[:, 0]), (after + whole.predict(p, other.labels[:, 0])) / 2)


def test_a_budget_is_kept_on_the_rows_it_was_fitted_on():
    outcomes = made()
    policy = Policy.fit(outcomes, budget=1.0)
    assert policy.fit_report["cost"] <= 1.0
    assert policy.replay(outcomes)["cost"] == pytest.approx(1.0, abs=0.15)


def test_a_loss_holds_on_other_rows_and_more_confidence_saves_less():
    """Measured on so many rows that it is the policy's own accuracy, not a sample's."""
    many = made(40_000, seed=11).select(["small", "large"])
    kept, saved = [], {}
    for seed in range(8):
        outcomes = made(700, seed=100 + seed).select(["small", "large"])
        for confidence in (0.5, 0.9):
            report = Policy.fit(outcomes, loss=0.02, confidence=confidence).replay(many)
            saved.setdefault(confidence, []).append(report["saved"])
            if confidence == 0.9:
                kept.append(report["accuracy"] >= report["best_accuracy"] - 0.02)
    # With 0.9 for each, fewer than 5 of 8 have a probability of 0.5 %.
    assert sum(kept) >= 5
    assert np.mean(saved[0.9]) < np.mean(saved[0.5])


def test_the_bounds_are_the_naive_ones():
    """Standard error of paired differences, row by row, for points of different plans."""
    outcomes = made(400)
    beliefs = FoldedBeliefs(outcomes, folds(400, 0))
    two = [Plan(rule, (0, 2), pooled) for rule in ("chow", "gain") for pooled in (True, False)]
    points = tried(beliefs, [Plan("single", (0,)), *two, Plan("price", (0, 1, 2))], 5)
    best = outcomes.correct[:, outcomes.best].astype(float)
    for i, (plan, threshold) in enumerate(zip(points.plans, points.thresholds, strict=True)):
        played = play(beliefs, plan, threshold)
        right = outcomes.correct[np.arange(400), played.pick].astype(float)
        assert points.mean_cost[i] == pytest.approx((played.asked @ outcomes.costs).mean())
        assert points.accuracy[i] == pytest.approx(right.mean())
        assert Goal("loss", 0.0).errors(points)[i] == pytest.approx((right - best).std() / 20)
        assert Goal("accuracy", 0.0).errors(points)[i] == pytest.approx(right.std() / 20)


def test_the_optimism_of_choosing_among_equals_is_the_expected_maximum():
    """200 points that differ by chance alone: the best of them looks better than it is by about 2.75 errors."""
    rng = np.random.default_rng(0)
    n, count = 2000, 200
    right = (rng.random((count, n)) < 0.8).reshape(count, 200, 10).sum(axis=2).astype(float)
    points = Points(
        [Plan("single", (0,))] * count,
        [0.0] * count,
        right,
        np.ones((count, 200)) * 10,
        np.zeros(count),
        right[0],
        np.full(200, 10.0),
    )
    found = optimism(points, Goal("budget", 1.0), np.zeros(count), seed=1)
    error = np.sqrt(0.8 * 0.2 / n)
    # Chance of the sample and chance of the resample add up there, so that less than 2.75 is put down to choosing.
    assert 1.2 * error < found < 2.75 * error


def test_moving_along_the_curve_keeps_the_margin():
    policy = Policy.fit(made(), loss=0.02)
    moved = policy.at(loss=0.02)
    assert moved.threshold == policy.threshold
    assert moved.at(loss=0.2).replay(made(500, seed=1))["saved"] > policy.replay(made(500, seed=1))["saved"]


@pytest.mark.parametrize("confidence", [0.3, 1.0, -1, float("nan")])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(InputError, match=r"confidence from 0\.5"):
        Policy.fit(made(), loss=0.02, confidence=confidence)


def test_too_few_rows_ask_the_best_tier_alone_and_say_so():
    outcomes = made(20)
    policy = Policy.fit(outcomes, loss=0.01)
    assert policy.asked_tiers == (outcomes.tiers[outcomes.best],)
    assert "20" in policy.fit_report["note"]


def _odd(kind):
    """Outcomes that are allowed but strange."""
    base = made(400, seed=12)
    truth, labels, confidences, costs = base.truth, base.labels, base.confidences, base.costs
    if kind == "one class":
        truth, labels = np.full(400, "a"), np.full((400, 3), "a")
    elif kind == "never right":
        labels = np.full((400, 3), "none of them")
    elif kind == "ties":
        confidences = np.full((400, 3), 0.5)
    elif kind == "no answers of one tier":
        labels, confidences = labels.copy(), confidences.copy()
        labels[:, 1], confidences[:, 1] = "", 0.0
    elif kind == "all free":
        costs = np.zeros(3)
    elif kind == "every label its own":
        truth = np.array([f"t{i}" for i in range(400)])
        labels = np.where(labels == base.truth[:, None], truth[:, None], "wrong")
    return Outcomes(base.tiers, truth, labels, confidences, costs)


@pytest.mark.parametrize(
    "kind", ["one class", "never right", "ties", "no answers of one tier", "all free", "every label its own"]
)
def test_strange_outcomes_give_a_policy_that_costs_no_more_than_the_best(kind):
    outcomes = _odd(kind)
    for goal in ({"loss": 0.01}, {"budget": float(outcomes.costs.max())}):
        policy = Policy.fit(outcomes, **goal)
        report = policy.replay(outcomes)
        assert report["cost"] <= report["best_cost"] + (4.0 if "budget" in goal else 0.0)
        assert report["accuracy"] >= report["best_accuracy"] - 0.03
        assert (report["saved"] is None) == (report["best_cost"] == 0)
        assert np.isfinite(policy.fit_report["gained_interval"]).all()
        assert Policy.from_dict(json.loads(json.dumps(policy.to_dict()))).threshold == policy.threshold


@pytest.mark.parametrize("rows", [1, 10, 99])
def test_with_few_rows_a_policy_says_that_it_cannot_tell(rows):
    policy = Policy.fit(made(rows), loss=0.01)
    assert policy.plan.rule == "single"
    assert policy.fit_report["note"].startswith(f"{rows} rows are too few to judge by")
    low, high = policy.fit_report["gained_interval"]
    assert high - low > 0.1
    assert "too few rows to tell" in Policy.fit(made(120), loss=0.01).fit_report["note"]


def test_the_interval_narrows_with_the_rows():
    width = []
    for rows in (200, 3200):
        report = Policy.fit(made(rows).select(["small", "large"]), budget=2.0).fit_report
        assert report["rows"] == rows
        assert f"{rows} rows" in report["note"]
        width.append(report["gained_interval"][1] - report["gained_interval"][0])
    # Four times as narrow for sixteen times the rows.
    assert 2.5 < width[0] / width[1] < 6


def test_a_broken_tier_leaves_the_best_answer_so_far(fitted):
    other = made(200, seed=5)

    def broken(_):
        raise OSError("down")

    base = fitted.base
    above = {name: broken for name in COSTS if name != base}
    outcomes = [Escalation(live(other, above), fitted)(i) for i in range(200)]
    assert all(outcome.tier == base for outcome in outcomes)
    failed = [outcome for outcome in outcomes if outcome.failures]
    assert failed
    assert all("down" in outcome.failures[0] for outcome in failed)
    without_base = Escalation(live(other, {base: broken}), fitted)(0)
    assert without_base.tier != base
    assert "down" in without_base.failures[0]
    with pytest.raises(TierError, match="down"):
        Escalation(live(other, dict.fromkeys(COSTS, broken)), fitted)(0)


def test_a_tier_that_hangs_is_left_behind(fitted):
    other = made(50, seed=6)
    hang = {name: (lambda _: time.sleep(5)) for name in COSTS if name != fitted.base}
    escalation = Escalation(live(other, hang), fitted, time_limit=0.05)
    outcomes = [escalation(i) for i in range(10)]
    late = [outcome for outcome in outcomes if outcome.failures]
    assert late
    assert all("no answer within 0.05 s" in outcome.failures[0] for outcome in late)


@pytest.mark.parametrize("budget", [0.0, 60.0, 200.0, 1e6])
def test_a_batch_never_exceeds_its_budget(fitted, budget):
    other = made(100, seed=7)
    least = fitted.costs[fitted.index[fitted.base]] * 100
    escalation = Escalation(live(other), fitted)
    if budget < least:
        with pytest.raises(InputError, match="budget of at least"):
            escalation.allocate(range(100), budget)
        return
    outcomes = escalation.allocate(range(100), budget)
    assert len(outcomes) == 100
    assert sum(outcome.spent for outcome in outcomes) <= budget + 1e-9
    assert all(outcome.asked[0] == fitted.base for outcome in outcomes)


BAD_FILES = {
    "no truth": "a.label,a.confidence\nx,0.5\n",
    "no confidence": "truth,a.label\nx,x\n",
    "above one": "truth,a.label,a.confidence\nx,x,1.5\n",
    "NaN": "truth,a.label,a.confidence\nx,x,nan\n",
    "a short row": "truth,a.label,a.confidence\nx,x\n",
    "no rows": "truth,a.label,a.confidence\n",
    "twice": "truth,a.label,a.label,a.confidence\nx,x,x,0.5\n",
    "nothing": "",
}


@pytest.mark.parametrize("text", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_outcomes_are_one_line_on_stderr(text, tmp_path, capsys):
    (tmp_path / "o.csv").write_text(text)
    output = tmp_path / "policy.json"
    assert main(["fit", str(tmp_path / "o.csv"), "--costs", "a=1", "--loss", "0.01", "--output", str(output)]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("vj-tiers: ")
    assert err.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize("costs", [["a=-1"], ["a=nan"], ["a=x"], ["a"], ["b=1"], []])
def test_bad_costs_are_one_line_on_stderr(costs, tmp_path, capsys):
    (tmp_path / "o.csv").write_text("truth,a.label,a.confidence\nx,x,0.5\n")
    given = ["--costs", *costs] if costs else []
    assert main(["fit", str(tmp_path / "o.csv"), "--loss", "0.01", "--output", str(tmp_path / "p"), *given]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_policies_that_are_corrupt_or_of_other_tiers_are_refused(fitted, tmp_path):
    plain = fitted.to_dict()
    for change in (
        {"version": 99},
        {"rule": "guess"},
        {"order": ["small", "nobody"]},
        {"threshold": -1.0},
        {"threshold": float("nan")},
        {"calibrations": {}},
        {"tiers": {}},
    ):
        with pytest.raises(InputError):
            Policy.from_dict(plain | change)
    other = Outcomes(("x",), ["a"], [["a"]], [[0.5]], [1.0])
    with pytest.raises(InputError, match="expected outcomes of the policy's tiers"):
        fitted.replay(other)
    with pytest.raises(InputError, match="expected the policy's tiers"):
        Escalation([Tier("x", lambda _: Answer("a", 0.5), 1.0)], fitted)
    (tmp_path / "p.json").write_text("[")
    with pytest.raises(InputError, match="expected a policy as JSON"):
        Policy.load(tmp_path / "p.json")


def test_the_command_fits_replays_and_draws(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made().write("train.csv.gz")
    made(600, seed=8).write("test.csv")
    (tmp_path / "costs.json").write_text(json.dumps(COSTS))
    assert main(["fit", "train.csv.gz", "--costs", "costs.json", "--loss", "0.005", "--output", "policy.json"]) == 0
    capsys.readouterr()
    assert main(["replay", "test.csv", "policy.json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == Policy.load("policy.json").replay(Outcomes.read("test.csv", COSTS))
    assert {"accuracy", "cost", "best_tier", "best_accuracy", "best_cost", "saved", "asked"} <= set(report)
    assert main(["replay", "test.csv", "policy.json", "--threshold", "0.3"]) == 0
    assert json.loads(capsys.readouterr().out)["cost"] != report["cost"]
    assert main(["curve", "train.csv.gz", "--costs", "costs.json", "--json", "curve.json"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COSTS)
    assert (tmp_path / "train.curve.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "curve.json").read_text())["rows"] == 400
