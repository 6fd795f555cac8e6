"""Pooling: from the answers of several tiers to one answer and its probability.

A logarithmic opinion pool (Genest and Zidek 1986): each tier's answer becomes a distribution over all labels -- its
calibrated probability for the label it gave, the rest spread as its errors were spread when it gave that label -- and
the distributions are multiplied, each to the power of a weight learned by maximum likelihood. The pool decides between
the labels that were answered; it also knows how likely none of them is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, log
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._types import Bools, Floats, Ints
from vj.errors import InputError

KNOWN_LABELS = 64
"""Most labels with a row of their own in the tables of errors; the others share one."""
RARE = 10
"""A label seen less often shares that row too."""
PRIOR_ROWS = 10.0
"""A row of errors starts from the overall frequencies, as if they had been seen so often."""
SURE = 0.005
"""No tier's probability counts as nearer to 0 or 1: one sure answer must not outvote all others."""
_FIT_ROWS = 20_000
_KEPT = 4096
"""Combinations of answers that a pool keeps at most: 2 MB."""


@dataclass(frozen=True, eq=False)
class LabelTables:
    """How often each label is the truth, and what is the truth when a tier is wrong.

    Parameters
    ----------
    known : tuple of str
        Labels with a row of their own; one more row at the end stands for all others.
    prior : ndarray of float64, shape (labels,)
    errors : ndarray of float64, shape (k, labels, labels)
        For each tier the distribution of the truth (column) when it gave a label (row) and was wrong.
    """

    known: tuple[str, ...]
    prior: Floats
    errors: Floats

    @classmethod
    def fit(cls, truth: npt.NDArray[np.str_], answers: npt.NDArray[np.str_], known: Sequence[str]) -> LabelTables:
        """Count, see `PRIOR_ROWS`.

        Parameters
        ----------
        truth : ndarray of str, shape (n,)
        answers : ndarray of str, shape (n, k)
        known : sequence of str
        """
        lookup = {name: i for i, name in enumerate(known)}
        size, n = len(known) + 1, len(truth)
        actual = codes(truth, lookup)
        prior = (np.bincount(actual, minlength=size) + 1.0) / (n + size)
        start = np.tile(prior, (size, 1))
        # A known label is not its own error; one of the others can be mistaken for another of them.
        np.fill_diagonal(start[:-1, :-1], 0.0)
        start /= start.sum(axis=1, keepdims=True)
        tables = np.empty((answers.shape[1], size, size))
        for k in range(answers.shape[1]):
            given = codes(answers[:, k], lookup)
            wrong = answers[:, k] != truth
            counts = np.bincount(given[wrong] * size + actual[wrong], minlength=size * size).reshape(size, size)
            tables[k] = (counts + PRIOR_ROWS * start) / (counts.sum(axis=1, keepdims=True) + PRIOR_ROWS)
        return cls(tuple(known), prior, tables)

    @classmethod
    def none(cls, tiers: int) -> LabelTables:
        """Return tables without any known label, for policies that pool nothing."""
        return cls((), np.ones(1), np.ones((tiers, 1, 1)))

    @cached_property
    def lookup(self) -> dict[str, int]:
        """Row of each known label."""
        return {name: i for i, name in enumerate(self.known)}

    @cached_property
    def log_prior(self) -> Floats:
        """Logarithm of `prior`."""
        return np.asarray(np.log(self.prior), dtype=np.float64)

    @cached_property
    def log_errors(self) -> Floats:
        """Logarithm of `errors`, finite."""
        return np.asarray(np.log(np.maximum(self.errors, 1e-6)), dtype=np.float64)

    def to_dict(self, tiers: Sequence[str]) -> dict[str, Any]:
        """Return it as plain lists, for JSON."""
        errors = {name: np.round(self.errors[k], 6).tolist() for k, name in enumerate(tiers)}
        return {"known": list(self.known), "prior": np.round(self.prior, 8).tolist(), "errors": errors}

    @classmethod
    def from_dict(cls, plain: Any, tiers: Sequence[str]) -> LabelTables:
        """Read back what `to_dict` returned.

        Raises
        ------
        InputError
        """
        try:
            known = tuple(str(name) for name in plain["known"])
            prior = np.array(plain["prior"], dtype=np.float64)
            errors = np.array([plain["errors"][name] for name in tiers], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"expected tables of labels, got some that cannot be read: {error!r}") from None
        size = len(known) + 1
        if prior.shape != (size,) or errors.shape != (len(tiers), size, size):
            raise InputError(f"expected tables for {size} labels, got shapes {prior.shape} and {errors.shape}")
        if not ((prior > 0) & (prior <= 1)).all() or not ((errors >= 0) & (errors <= 1)).all():
            raise InputError("expected shares from 0 to 1 in the tables of labels, got others")
        return cls(known, prior, errors)


def known_labels(truth: npt.NDArray[np.str_], answers: npt.NDArray[np.str_]) -> tuple[str, ...]:
    """Return the labels that are frequent enough for rows of their own, the most frequent first."""
    names, counts = np.unique(np.concatenate([truth, answers.ravel()]), return_counts=True)
    order = np.lexsort((names, -counts))
    return tuple(str(names[i]) for i in order[:KNOWN_LABELS] if counts[i] >= RARE)


def codes(labels: npt.NDArray[np.str_], lookup: Mapping[str, int]) -> Ints:
    """Return the row of each label; the last one for those that have none."""
    names, inverse = np.unique(labels, return_inverse=True)
    table = np.array([lookup.get(str(name), len(lookup)) for name in names], dtype=np.int64)
    return np.asarray(table[inverse.reshape(labels.shape)])


def features(
    tables: LabelTables, members: Sequence[int], labels: npt.NDArray[np.str_], p: Floats
) -> tuple[Floats, Bools]:
    """Logarithms that a pool adds up, and which of its places count.

    Parameters
    ----------
    tables : LabelTables
    members : sequence of int, length m
        Which of the tables' tiers.
    labels : ndarray of str, shape (n, m)
    p : ndarray of float64, shape (n, m)
        Calibrated probability of each answer.

    Returns
    -------
    logs : ndarray of float64, shape (n, rows + m, m + 1)
        For every known label, then for every answer that is none of these; of each member, then the prior.
    counted : ndarray of bool, shape (n, rows + m)
        False where an answer's place repeats another.
    """
    n, m = labels.shape
    size = len(tables.known) + 1
    p = np.clip(p, SURE, 1 - SURE)
    given = codes(labels, tables.lookup)
    rows = np.arange(n)
    logs = np.empty((n, size + m, m + 1))
    logs[:, :size, m] = tables.log_prior
    logs[:, size:, m] = tables.log_prior[-1]
    counted = np.ones((n, size + m), dtype=bool)
    for j, k in enumerate(members):
        wrong = np.log(1 - p[:, j])
        logs[:, :size, j] = tables.log_errors[k][given[:, j]] + wrong[:, None]
        known = given[:, j] < size - 1
        logs[rows[known], given[known, j], j] = np.log(p[known, j])
        for i in range(m):
            same = labels[:, i] == labels[:, j]
            other = tables.log_errors[k][given[:, j], size - 1] + wrong
            logs[:, size + i, j] = np.where(same, np.log(p[:, j]), other)
    for i in range(m):
        counted[:, size + i] = given[:, i] == size - 1
        for j in range(i):
            counted[:, size + i] &= labels[:, i] != labels[:, j]
    return logs, counted


def fit_weights(logs: Floats, counted: Bools, target: Ints, rounds: int = 30) -> Floats:
    """Return the weights of a pool by maximum likelihood (Newton), held to independence by a ridge of one.

    Parameters
    ----------
    logs, counted
        See `features`.
    target : ndarray of int64, shape (n,)
        Place of the truth.
    rounds : int
        Maximum number of Newton steps.
    """
    if len(target) > _FIT_ROWS:
        # m + 1 weights: more rows change the third digit.
        stride = len(target) / _FIT_ROWS
        index = (np.arange(_FIT_ROWS) * stride).astype(np.int64)
        logs, counted, target = logs[index], counted[index], target[index]
    m = logs.shape[2] - 1
    # Independent tiers: every weight one, and the prior divided out where it was multiplied in too often.
    start = np.array([1.0] * m + [1.0 - m])
    rows = np.arange(len(target))
    hit = logs[rows, target]

    def state(w: Floats) -> tuple[float, Floats]:
        z = np.where(counted, logs @ w, -np.inf)
        top = z.max(axis=1, keepdims=True)
        q = np.exp(z - top)
        total = q.sum(axis=1, keepdims=True)
        loss = float((top[:, 0] + np.log(total[:, 0]) - hit @ w).sum() + 0.5 * ((w - start) ** 2).sum())
        return loss, q / total

    w = start.copy()
    value, q = state(w)
    for _ in range(rounds):
        mean = np.einsum("nl,nld->nd", q, logs)
        gradient = (mean - hit).sum(axis=0) + (w - start)
        weighted = (q[:, :, None] * logs).reshape(-1, m + 1)
        hessian = weighted.T @ logs.reshape(-1, m + 1) - mean.T @ mean + np.eye(m + 1)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        new, q_new = state(w - step)
        while new > value and size > 1e-6:
            size /= 2
            new, q_new = state(w - size * step)
        if new > value:
            break
        w, old, value, q = w - size * step, value, new, q_new
        if old - value < 1e-8 * abs(old):
            break
    return w


def pooled(logs: Floats, counted: Bools, weights: Floats, given: Ints) -> tuple[Ints, Floats]:
    """Return which member's answer stands for each row, and its probability.

    Parameters
    ----------
    logs, counted
        See `features`.
    weights : ndarray of float64, shape (m + 1,)
    given : ndarray of int64, shape (n, m)
        Place of each member's answer.
    """
    z = np.where(counted, logs @ weights, -np.inf)
    z -= z.max(axis=1, keepdims=True)
    q = np.exp(z)
    q /= q.sum(axis=1, keepdims=True)
    each = np.take_along_axis(q, given, axis=1)
    pick = each.argmax(axis=1)
    return pick.astype(np.int64), each[np.arange(len(pick)), pick]


def places(tables: LabelTables, labels: npt.NDArray[np.str_]) -> Ints:
    """Return the place of each answer among the rows of `features`; shape (n, m)."""
    given = codes(labels, tables.lookup)
    size, m = len(tables.known) + 1, labels.shape[1]
    out = given.copy()
    for i in range(m):
        first = np.full(len(labels), i)
        for j in reversed(range(i)):
            first = np.where(labels[:, j] == labels[:, i], j, first)
        out[:, i] = np.where(given[:, i] == size - 1, size + first, given[:, i])
    return out


def truth_places(tables: LabelTables, labels: npt.NDArray[np.str_], truth: npt.NDArray[np.str_]) -> Ints:
    """Return the place of the truth: of a known label, else of the first answer that gave it, else of all others."""
    actual = codes(truth, tables.lookup)
    size = len(tables.known) + 1
    out = actual.copy()
    for i in reversed(range(labels.shape[1])):
        out = np.where((actual == size - 1) & (labels[:, i] == truth), size + i, out)
    return out


class OnePool:
    """A pool of some tiers for one query at a time: as `pooled`, without arrays, which for so few numbers take longer.

    Between queries with the same answers only the probabilities differ, and each multiplies the weight of its own label
    by its odds; what all labels share cancels out. The rest is worked out once for each combination of answers and
    kept: with three members 4 us a query for any number of labels, rather than 8 with 4 labels and 21 with 64.

    Parameters
    ----------
    tables : LabelTables
    members : sequence of int, length m
    weights : ndarray of float64, shape (m + 1,)
    """

    def __init__(self, tables: LabelTables, members: Sequence[int], weights: Floats) -> None:
        self.lookup: Mapping[Any, int] = tables.lookup
        self.weights = weights.tolist()
        self.prior = weights[-1] * tables.log_prior
        self.rows = [weights[j] * tables.log_errors[k] for j, k in enumerate(members)]
        self._kept: dict[tuple[int, ...], dict[int, float]] = {}

    def __call__(self, labels: Sequence[str | None], p: Sequence[float]) -> tuple[int, float]:
        """Return which member's answer stands, and its probability.

        Parameters
        ----------
        labels : sequence of str, length m
            None for an answer that agrees with no other.
        p : sequence of float, length m
        """
        given: tuple[Any, ...] = tuple(map(self.lookup.get, labels))
        if None in given:
            # An answer that is no known label has a place of its own, shared by those that agree with it.
            first = [i if label is None else labels.index(label) for i, label in enumerate(labels)]
            given = tuple([len(self.prior) + i if g is None else g for i, g in zip(first, given, strict=True)])
        z = (self._kept.get(given) or self._without_odds(given)).copy()
        for w, g, one in zip(self.weights, given, p, strict=False):
            sure = SURE if one < SURE else 1 - SURE if one > 1 - SURE else one
            z[g] += w * log(sure / (1 - sure))
        each = list(map(z.__getitem__, given))
        best, every = max(each), z.values()
        top = max(every)
        return each.index(best), exp(best - top) / sum([exp(one - top) for one in every])

    def _without_odds(self, given: tuple[int, ...]) -> dict[int, float]:
        """Return the logarithm of the weight of each answer's place, and under -1 that of all other labels together."""
        last = len(self.prior) - 1
        # What each member's answer says of each label if it is wrong; labels that are not known share the last place.
        wrong = [rows[min(g, last)] for rows, g in zip(self.rows, given, strict=True)]
        found = {}
        for g in given:
            column = min(g, last)
            others = [row[column] for row, h in zip(wrong, given, strict=True) if h != g]
            found[g] = float(self.prior[column] + sum(others))
        rest = np.delete(self.prior + sum(wrong), [g for g in given if g < last])
        found[-1] = float(np.logaddexp.reduce(rest))
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[given] = found
        return found
