"""Escalation: a policy at work on live tiers, with time limits, failures and budgets."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vj.errors import InputError
from vj.tiers.beliefs import State
from vj.tiers.model import Answer, Reply, Tier, TierError
from vj.tiers.policy import Policy


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of an escalation.

    Parameters
    ----------
    answer : Answer
    probability : float
        Calibrated probability that the answer is right.
    tier : str
        The one that gave it.
    spent : float
        Cost of everything asked, tiers that failed included where their cost is fixed.
    asked : tuple of str
        Tiers, in order.
    failures : tuple of str
        One line for each tier that was asked and gave no answer; empty if all went well.
    """

    answer: Answer
    probability: float
    tier: str
    spent: float
    asked: tuple[str, ...]
    failures: tuple[str, ...] = ()


class Escalation:
    """Asks the base tier, defers as the policy says, and returns the answer that stands.

    A tier that raises, gives an invalid answer or takes too long counts as failed for that query. If another has
    answered, the best answer so far stands and `Outcome.failures` says why; if the base tier fails, the most expensive
    other tier of the policy is asked in its place.

    Parameters
    ----------
    tiers : sequence of Tier
        Must include every tier that the policy may ask, matched by name; others are ignored.
    policy : Policy
    time_limit : float, optional
        Seconds that one tier may take. The call is then made in a thread; a call that hangs stays in that thread.

    Raises
    ------
    InputError
        The policy asks a tier that is not given, or the time limit is not positive.
    """

    def __init__(self, tiers: Sequence[Tier], policy: Policy, *, time_limit: float | None = None) -> None:
        given = {tier.name: tier for tier in tiers}
        if len(given) != len(tiers):
            raise InputError(f"expected tiers with different names, got {[t.name for t in tiers]}")
        missing = [name for name in policy.asked_tiers if name not in given]
        if missing:
            raise InputError(
                f"expected the policy's tiers {', '.join(policy.asked_tiers)}, got none of {', '.join(missing)}"
            )
        if time_limit is not None and not time_limit > 0:
            raise InputError(f"expected a time limit above 0 seconds, got {time_limit}")
        self.policy = policy
        self.time_limit = time_limit
        self._tiers = {k: given[policy.tiers[k]] for k in policy.plan.order}

    def __call__(self, query: Any) -> Outcome:
        """Answer one query.

        Raises
        ------
        TierError
            No tier gave an answer.
        """
        run = _Run(self, query)
        run.ask(self.policy.plan.order[0])
        if not run.answers:
            for other in self._others():
                if not run.answers:
                    run.ask(other)
        while (k := run.next()) is not None:
            run.ask(k)
        return run.outcome()

    def allocate(self, tasks: Sequence[Any], budget: float) -> list[Outcome | TierError]:
        """Answer a batch of tasks for at most `budget` in all: easy ones by the cheap tier, hard ones higher up.

        Every task is put to the base tier. Then the deferral that is expected to gain most for its cost is made, and so
        on as long as the budget holds; the policy's threshold plays no part. A task without any answer holds its error.

        Parameters
        ----------
        tasks : sequence
        budget : float
            Total, in the unit of the tiers' costs.

        Raises
        ------
        InputError
            The budget does not cover the base tier.
        """
        policy, order = self.policy, self.policy.plan.order
        least = policy.costs[order[0]] * len(tasks)
        if not budget >= least:
            raise InputError(
                f"expected a budget of at least {least:g} for {len(tasks)} tasks at {policy.base}, got {budget:g}"
            )
        runs = [_Run(self, task) for task in tasks]
        if self._tiers[order[0]].batched and self.time_limit is None:
            for run, reply in zip(runs, self._tiers[order[0]].ask_many(list(tasks)), strict=True):
                run.note(order[0], reply)
        else:
            for run in runs:
                run.ask(order[0])
        spent = sum(run.spent for run in runs)
        for run in runs:
            if not run.answers:
                for k in self._others():
                    if not run.answers and spent + policy.costs[k] <= budget:
                        spent += run.ask(k)
        # A task's offers are replaced when it has been asked again: an entry of an older round is dropped.
        heap: list[tuple[float, int, int, int]] = []
        for i, run in enumerate(runs):
            run.offer(heap, i)
        while heap:
            _, i, k, rounds = heapq.heappop(heap)
            if rounds != len(runs[i].asked) or spent + policy.costs[k] > budget:
                continue
            spent += runs[i].ask(k)
            runs[i].offer(heap, i)
        return [run.outcome_or_error() for run in runs]

    def _others(self) -> list[int]:
        """Tiers to fall back to when the base tier fails, the most expensive first: usually the most accurate."""
        return sorted(self.policy.plan.order[1:], key=lambda k: -self.policy.costs[k])

    def _ask(self, k: int, query: Any) -> Reply:
        tier = self._tiers[k]
        if self.time_limit is None:
            return tier.ask(query)
        box: list[Any] = []

        def work() -> None:
            try:
                box.append(tier.ask(query))
            except Exception as error:
                box.append(error)

        thread = threading.Thread(target=work, daemon=True, name=f"tier {tier.name}")
        thread.start()
        thread.join(self.time_limit)
        if not box:
            raise TierError(f"{tier.name}: no answer within {self.time_limit:g} s")
        if isinstance(box[0], Exception):
            raise box[0]
        reply: Reply = box[0]
        return reply


class _Run:
    """One query as it moves through the tiers."""

    __slots__ = ("answers", "asked", "escalation", "failed", "p", "pick", "query", "spent", "state", "stated", "tried")

    def __init__(self, escalation: Escalation, query: Any) -> None:
        self.escalation = escalation
        self.query = query
        self.answers: dict[int, Answer] = {}
        self.stated: dict[int, float] = {}
        self.state: State = ()
        self.tried: set[int] = set()
        self.asked: list[str] = []
        self.failed: list[str] = []
        self.spent = 0.0
        self.pick, self.p = -1, 0.0

    def ask(self, k: int) -> float:
        """Ask tier number `k`; return what that cost."""
        before = self.spent
        start = time.perf_counter()
        try:
            self.note(k, self.escalation._ask(k, self.query))
        except TierError as error:
            self.note(k, error, time.perf_counter() - start)
        return self.spent - before

    def note(self, k: int, reply: Reply | TierError, seconds: float = 0.0) -> None:
        """Take in an answer or a failure."""
        tier = self.escalation._tiers[k]
        self.tried.add(k)
        self.asked.append(tier.name)
        if isinstance(reply, TierError):
            # What a failed call cost is not known; a price by the call is counted, as most services charge it.
            self.spent += seconds if tier.cost is None else tier.cost
            self.failed.append(str(reply))
            return
        answer, cost, _ = reply
        policy = self.escalation.policy
        self.spent += cost
        self.answers[k] = answer
        self.stated[k] = policy.probability(k, answer)
        self.state = (k,) if len(self.answers) == 1 else tuple(sorted(self.answers))
        self.pick, self.p = policy.standing(self.state, self.answers, self.stated)

    def next(self) -> int | None:
        """Tier to ask next, None to stop."""
        if not self.answers:
            return None
        return self.escalation.policy.next(self.state, self.answers[self.pick].label, self.p, self.tried)

    def offer(self, heap: list[tuple[float, int, int, int]], i: int) -> None:
        """Push the tiers that may be asked now, by what each is expected to add for its cost."""
        if not self.answers:
            return
        policy = self.escalation.policy
        for k, gain in policy.gains(self.state, self.answers[self.pick].label, self.p, self.tried):
            if gain > 0:
                heapq.heappush(heap, (-gain / max(policy.costs[k], 1e-300), i, k, len(self.asked)))

    def outcome_or_error(self) -> Outcome | TierError:
        return (
            self.outcome()
            if self.answers
            else TierError("; ".join(self.failed) or "nothing was asked: the budget is spent")
        )

    def outcome(self) -> Outcome:
        if not self.answers:
            raise TierError("; ".join(self.failed))
        name = self.escalation.policy.tiers[self.pick]
        return Outcome(self.answers[self.pick], self.p, name, self.spent, tuple(self.asked), tuple(self.failed))
