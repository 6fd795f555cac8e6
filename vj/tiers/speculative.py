"""Speculative cascades over sequences: a cheap model drafts, a heavy one verifies several steps at once.

The draft is shown at once. While it is, the heavy tier is asked in a thread for its own next-token distributions at
the drafted places, and a rule makes one target distribution out of the two. A drafted token x stands with probability
min(1, target(x) / draft(x)); else it is replaced by a draw from max(0, target - draft), normalised. So what stands is
distributed as the target says, however bad the draft is (Leviathan, Kalman and Matias 2023, algorithm 1 and appendix
A.1). Targets other than the heavy model trade some of that for fewer calls (Narasimhan et al., "Faster Cascades via
Speculative Decoding", ICLR 2025).
"""

from __future__ import annotations

import math
import numbers
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vj.errors import InputError
from vj.tiers.speculative_rules import LOSSLESS, Array, TokenRule, checked_distribution, normalised

Context = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Drafted:
    """A value that the draft tier proposes, to be shown at once.

    Parameters
    ----------
    position : int
        Which step of the output, from 0.
    value : object
        A token, or what was found in a frame.
    """

    position: int
    value: Any


@dataclass(frozen=True, slots=True)
class Settled:
    """What stands after verification: ``shown[position:] = values`` brings a list of what is shown up to date.

    Parameters
    ----------
    position : int
        The first step that this is about.
    values : tuple
        What stands from there on; everything shown from `position` on is replaced.
    kept : int
        How many leading values stand as they were shown.
    asked : int
        At how many steps the heavy tier was asked, in one go; 0 if it was not.
    note : str
        Why the heavy tier had no say although it should have; empty if all went well.
    """

    position: int
    values: tuple[Any, ...]
    kept: int
    asked: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Speculated:
    """What a speculative run came to.

    Parameters
    ----------
    values : tuple
        What stands in the end.
    drafted, kept : int
        Values that the draft tier proposed, and those of them that were verified or left and stand as proposed.
    heavy_calls, asked : int
        Times that the heavy tier was asked, and the steps it was asked about.
    notes : tuple of str
        Failures of the heavy tier, in order.
    """

    values: tuple[Any, ...]
    drafted: int
    kept: int
    heavy_calls: int
    asked: int
    notes: tuple[str, ...]


def collect(events: Iterable[Drafted | Settled]) -> Speculated:
    """Run through the events of a speculative run and return what stands, with the counts."""
    shown: list[Any] = []
    drafted = kept = heavy_calls = asked = 0
    notes = []
    for event in events:
        if isinstance(event, Drafted):
            shown.append(event.value)
            drafted += 1
            continue
        shown[event.position :] = event.values
        kept += event.kept
        heavy_calls += event.asked > 0
        asked += event.asked
        if event.note:
            notes.append(event.note)
    return Speculated(tuple(shown), drafted, kept, heavy_calls, asked, tuple(notes))


class _Draws:
    """All that is left to chance, so that a test can put every possibility in its place."""

    def __init__(self, seed: int | np.random.Generator | None) -> None:
        self._rng = np.random.default_rng(seed)

    def token(self, distribution: Array) -> int:
        sums = np.cumsum(distribution)
        found = int(np.searchsorted(sums, self._rng.random() * sums[-1], side="right"))
        # The product may round up to the sum itself: then the last token that has a probability.
        return min(found, int(np.searchsorted(sums, sums[-1], side="left")))

    def accept(self, probability: float) -> bool:
        return probability >= 1 or bool(self._rng.random() < probability)


class _Block(NamedTuple):
    """A drafted run of tokens, the distributions they come from, and what the heavy tier was asked about them."""

    tokens: list[int]
    plain: list[Array]
    """The draft's distributions: one for each token and, if the rule needs it there, one for the place after them."""
    asked: list[int]
    """Places that the heavy tier is asked about; `len(tokens)` is the one after them."""
    futures: list[Future[Any]]
    """One for each place asked about, or one for all of them if the tier is batched."""


class _NoAnswer(Exception):
    """Why the heavy tier has no say in a block."""


@dataclass(frozen=True)
class SpeculativeTokens:
    """Generates sequences of tokens that a cheap model drafts and a heavy one verifies.

    Parameters
    ----------
    draft, heavy : callable
        Take a context, the tuple of all tokens so far, and return the distribution of the next token: an array of
        shape (tokens,) that adds up to 1. Both must mean the same tokens. `heavy` is called in other threads, for all
        places of a block at the same time.
    rule : TokenRule
        What stands; lossless by default.
    steps : int
        Tokens drafted before the next verification.
    timeout : float, optional
        Seconds to wait for the heavy tier after a block is drafted; then the draft stands. By default there is no end.
    batched : bool
        The heavy callable takes a list of contexts instead, each but the first the one before and more tokens, and
        returns an array of shape (contexts, tokens): one forward pass of a transformer over the last of them.
    temperature : float
        Applied to both distributions before anything is drawn; 0 takes the likeliest token.

    Raises
    ------
    InputError
        A setting out of its range; while running, a distribution with NaN, a negative number or a sum other than 1.

    Notes
    -----
    A heavy tier that raises or takes too long does not end the run: the block stands as drafted and says why, and the
    tier is asked again for the next block, unless it is still busy. Output depends on the seed alone, not on threads,
    as long as the heavy tier answers.

    Examples
    --------
    >>> import numpy as np
    >>> from vj.tiers import SpeculativeTokens, TokenRule, collect
    >>> draft = lambda context: np.array([0.5, 0.5])
    >>> heavy = lambda context: np.array([0.9, 0.1])
    >>> pair = SpeculativeTokens(draft, heavy, TokenRule("token_v3", 0.5), steps=4)
    >>> len(collect(pair.run((0, 1), length=20, seed=1)).values)
    20
    """

    draft: Callable[[Context], Any]
    heavy: Callable[..., Any]
    rule: TokenRule = LOSSLESS
    steps: int = 4
    timeout: float | None = None
    batched: bool = False
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("draft", "heavy"):
            if not callable(getattr(self, name)):
                raise InputError(f"expected {name} to be callable, got {type(getattr(self, name)).__name__}")
        if not isinstance(self.rule, TokenRule):
            raise InputError(f"expected a TokenRule, got {self.rule!r}")
        checked_count("steps", self.steps)
        checked_timeout(self.timeout)
        if not isinstance(self.temperature, int | float) or not 0 <= self.temperature < math.inf:
            raise InputError(f"expected a temperature of 0 or more, got {self.temperature!r}")

    def run(
        self,
        prefix: Sequence[int],
        length: int,
        *,
        seed: int | np.random.Generator | None = 0,
        stop: Collection[int] = (),
    ) -> Iterator[Drafted | Settled]:
        """Generate tokens: each as `Drafted` when it is proposed, then in blocks as `Settled`.

        Parameters
        ----------
        prefix : sequence of int
            Tokens to continue; may be empty if both models can do with that.
        length : int
            Most tokens to generate.
        seed : int or numpy Generator
        stop : collection of int
            Tokens that end the sequence; the one that does is part of it.
        """
        checked_count("length", length)
        draws = _Draws(seed)
        context = tuple(int(token) for token in prefix)
        done, late = 0, list[Future[Any]]()
        while done < length:
            late = [future for future in late if not future.done()]
            block = yield from self._drafted(context, done, length - done, draws, stop, not late)
            try:
                heavy = self._answers(block, bool(late), len(context))
            except _NoAnswer as reason:
                late += [future for future in block.futures if not future.done()]
                n = len(block.tokens)
                settled = Settled(done, tuple(block.tokens), n, len(block.asked) if block.futures else 0, str(reason))
            else:
                room = len(block.tokens) < length - done and block.tokens[-1] not in stop
                values, kept = self._verified(block, heavy, draws, room)
                settled = Settled(done, tuple(values), kept, len(block.asked))
            yield settled
            context += settled.values
            done += len(settled.values)
            if settled.values[-1] in stop:
                return

    def _drafted(
        self, context: Context, done: int, most: int, draws: _Draws, stop: Collection[int], ask: bool
    ) -> Generator[Drafted, None, _Block]:
        """Draft up to `steps` tokens; the heavy tier hears of each place as soon as its context is known."""
        block = _Block([], [], [], [])
        contexts = [context]
        for place in range(min(self.steps, most)):
            self._ask(block, contexts, ask)
            q = self._tempered(block.plain[-1])
            token = draws.token(q)
            block.tokens.append(token)
            contexts.append((*contexts[-1], token))
            yield Drafted(done + place, token)
            if token in stop:
                break
        # Without a token turned down there is one more to be had from the same call.
        if block.asked and len(block.tokens) < most and block.tokens[-1] not in stop:
            self._ask(block, contexts, ask, last=True)
        if self.batched and block.asked and ask:
            block.futures.append(start(self.heavy, [contexts[place] for place in block.asked]))
        return block

    def _ask(self, block: _Block, contexts: list[Context], ask: bool, *, last: bool = False) -> None:
        """Ask both about the place after the last context, the heavy tier only if the rule needs it there."""
        context = contexts[-1]
        if not last or self.rule.name != "lossless":
            size = len(block.plain[0]) if block.plain else None
            block.plain.append(checked_distribution(self.draft(context), "draft", len(context), size))
            if not self.rule.asks(block.plain[-1]):
                return
        block.asked.append(len(contexts) - 1)
        if ask and not self.batched:
            block.futures.append(start(self.heavy, context))

    def _answers(self, block: _Block, busy: bool, length: int) -> dict[int, Array]:
        """Wait for the heavy tier; its distributions by place.

        Raises
        ------
        _NoAnswer
            It raised, was too slow, or is still busy with what it was asked before.
        """
        if not block.asked:
            return {}
        if busy:
            raise _NoAnswer("the heavy tier is still busy with an earlier call")
        done, open_ = wait(block.futures, self.timeout, FIRST_EXCEPTION)
        for future in block.futures:
            if future in done and (error := future.exception()):
                raise _NoAnswer(f"the heavy tier failed: {one_line(error)}")
        if open_:
            raise _NoAnswer(f"the heavy tier did not answer within {self.timeout:g} s")
        found = [future.result() for future in block.futures]
        if self.batched:
            found = list(found[0])
            if len(found) != len(block.asked):
                raise InputError(f"heavy: expected {len(block.asked)} distributions, got {len(found)}")
        size = len(block.plain[0])
        return {
            place: checked_distribution(one, "heavy", length + place, size)
            for place, one in zip(block.asked, found, strict=True)
        }

    def _verified(self, block: _Block, heavy: dict[int, Array], draws: _Draws, room: bool) -> tuple[list[int], int]:
        """Tokens that stand, and how many of them are the draft's."""
        for place, token in enumerate(block.tokens):
            if place not in heavy:
                continue
            q, target = self._target(block, heavy, place)
            if not draws.accept(min(1.0, float(target[token] / q[token]))):
                instead = draws.token(normalised(np.maximum(0, target - q), target))
                return [*block.tokens[:place], instead], place
        kept = len(block.tokens)
        if not heavy or not room:
            return block.tokens, kept
        return [*block.tokens, draws.token(self._target(block, heavy, kept)[1])], kept

    def _target(self, block: _Block, heavy: dict[int, Array], place: int) -> tuple[Array, Array]:
        """Return what the draft drew from and what stands at a place."""
        if place == len(block.plain):
            p = self._tempered(heavy[place])
            return p, p
        q = self._tempered(block.plain[place])
        if place not in heavy:
            return q, q
        return q, self.rule.target(q, self._tempered(heavy[place]), block.plain[place], heavy[place])

    def _tempered(self, distribution: Array) -> Array:
        if self.temperature == 1:
            return distribution
        if self.temperature == 0:
            out = np.zeros_like(distribution)
            out[distribution.argmax()] = 1
            return out
        raised = (distribution / distribution.max()) ** (1 / self.temperature)
        return normalised(raised, distribution)


def start(call: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Call in a daemon thread: unlike an executor's, one that hangs does not keep the process from ending."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(call(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="vj-heavy-tier", daemon=True).start()
    return future


def checked_count(name: str, value: Any) -> int:
    """Return a whole number of at least 1.

    Raises
    ------
    InputError
        It is another thing.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise InputError(f"expected {name} to be a whole number from 1, got {value!r}")
    return int(value)


def checked_timeout(value: Any) -> None:
    """Refuse a timeout that is neither None nor positive seconds.

    Raises
    ------
    InputError
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise InputError(f"expected a timeout in seconds, above 0, or None, got {value!r}")


def one_line(error: BaseException) -> str:
    """Return kind and message of an error on one line."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
