"""Routing: which of two tiers to ask, chosen from the query alone, before anything is asked.

A linear model of the features says how probable each tier's right answer is; the difference is what the heavy one is
expected to gain (Ong et al. 2024 route by such a win probability). Fitted by ridge regression.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._files import read_json, write_text
from vj._types import Floats
from vj.errors import InputError
from vj.tiers.beliefs import folds
from vj.tiers.escalation import Outcome
from vj.tiers.features import BUCKETS, KINDS, Rows, features
from vj.tiers.model import Reply, Tier, TierError

FORMAT, VERSION = "vj tiers router", 1
# 65,536 weights take 1.5 MB.
_MAX_BYTES = 1 << 26
PENALTIES = (1.0, 3.0, 10.0, 30.0)
"""Ridges tried; the one with the least squared error out of fold is taken."""
MIN_ROWS = 50
_DENSE = 0.1
"""Scale of a dense feature's deviation next to a text's words, which have unit length together."""
_CLIP = 4.0
"""Standard deviations at which a dense feature is cut off: a text far longer than all others says no more than long."""
_QUANTILES = 100
_CLOSE = 1e-3
"""Relative residual at which ridge regression is done: closer changes no ranking to the third digit."""


@dataclass(frozen=True, eq=False)
class Router:
    """A fitted router between a light and a heavy tier.

    Parameters
    ----------
    kind : {"text", "image"}
        What queries are.
    weights : ndarray of float64, shape (2, BUCKETS + d + 1)
        Of the light tier's and the heavy one's right answers: buckets, dense features, constant.
    centre, scale : ndarray of float64, shape (d,)
        Mean and standard deviation of the dense features.
    quantiles : ndarray of float64, shape (101,)
        Of the gains expected on the rows it was fitted on, out of fold, in rising order.
    threshold : float
        The heavy tier is asked where the gain expected is above it. `at` changes it.
    rows : int
        Queries it was fitted on.
    """

    kind: str
    weights: Floats
    centre: Floats
    scale: Floats
    quantiles: Floats
    threshold: float
    rows: int

    @classmethod
    def fit(
        cls,
        queries: Sequence[Any],
        light_right: npt.ArrayLike,
        heavy_right: npt.ArrayLike,
        *,
        kind: str = "text",
        seed: int = 0,
    ) -> Router:
        """Learn from queries that both tiers have answered.

        Parameters
        ----------
        queries : sequence of str or of ndarray
            See `features`.
        light_right, heavy_right : array_like of bool, shape (n,)
            Whether each tier's answer was right.
        kind : {"text", "image"}
        seed : int
            Of the folds.

        Raises
        ------
        InputError
            Fewer than `MIN_ROWS` queries, unequal lengths, or queries of another kind.
        """
        right = _checked(len(queries), light_right, heavy_right)
        rows = features(queries, kind)
        centre, scale = rows.dense.mean(axis=0), rows.dense.std(axis=0)
        scale[scale < 1e-9] = 1.0
        rows = _standardised(rows, centre, scale)
        fold = folds(len(rows), seed) % 5
        best, gains = math.inf, np.zeros(len(rows))
        penalty = PENALTIES[0]
        for one in PENALTIES:
            found = np.empty((2, len(rows)))
            for k in range(5):
                rest = np.flatnonzero(fold != k)
                held = np.flatnonzero(fold == k)
                found[:, held] = _times(rows.take(held), _ridge(rows.take(rest), right[:, rest], one))
            error = float((((found[1] - found[0]) - (right[1] - right[0])) ** 2).mean())
            if error < best:
                best, penalty, gains = error, one, found[1] - found[0]
        quantiles = np.quantile(gains, np.linspace(0, 1, _QUANTILES + 1))
        weights = _ridge(rows, right, penalty)
        return cls(kind, weights, centre, scale, quantiles, 0.0, len(rows))

    def probabilities(self, queries: Sequence[Any]) -> Floats:
        """Return how probable the light tier's and the heavy one's right answers are; shape (2, n)."""
        rows = _standardised(features(queries, self.kind), self.centre, self.scale)
        return np.clip(_times(rows, self.weights), 0.0, 1.0)

    def gains(self, queries: Sequence[Any]) -> Floats:
        """Return what the heavy tier is expected to add to the probability of a right answer; shape (n,).

        Queries with a higher gain should go to the heavy tier first, also where that is a tier the router was not
        fitted on.
        """
        rows = _standardised(features(queries, self.kind), self.centre, self.scale)
        return np.asarray(_times(rows, self.weights[1:] - self.weights[:1])[0], dtype=np.float64)

    def heavy(self, query: Any) -> bool:
        """Whether to ask the heavy tier."""
        return bool(self.gains([query])[0] > self.threshold)

    def at(
        self, *, share: float | None = None, threshold: float | None = None, queries: Sequence[Any] | None = None
    ) -> Router:
        """Return the router at another threshold.

        Parameters
        ----------
        share : float
            Share of the queries that go to the heavy tier, 0 to 1.
        threshold : float
            Give one of both.
        queries : sequence, optional
            What the share is taken of, without any answers: traffic of another kind, or for another pair of tiers. By
            default the queries it was fitted on.

        Raises
        ------
        InputError
        """
        if (share is None) == (threshold is None):
            raise InputError("expected a share or a threshold, got both or neither")
        if share is not None:
            if not 0 <= share <= 1:
                raise InputError(f"expected a share from 0 to 1, got {share}")
            gains = self.quantiles if queries is None else self.gains(queries)
            threshold = float(np.quantile(gains, 1 - share))
            if share == 1:
                threshold = -2.0
        if threshold is None or not math.isfinite(threshold):
            raise InputError(f"expected a finite threshold, got {threshold}")
        return replace(self, threshold=float(threshold))

    def route(self, light: Tier, heavy: Tier, query: Any) -> Outcome:
        """Ask one of two tiers; if it fails, the other. Any pair will do.

        Raises
        ------
        TierError
            Both failed.
        """
        chances = self.probabilities([query])[:, 0].tolist()
        order = [(light, chances[0]), (heavy, chances[1])]
        if self.heavy(query):
            order.reverse()
        asked, failures, spent = [], [], 0.0
        for tier, chance in order:
            asked.append(tier.name)
            try:
                reply: Reply = tier.ask(query)
            except TierError as error:
                failures.append(str(error))
                spent += tier.cost or 0.0
                continue
            return Outcome(reply.answer, chance, tier.name, spent + reply.cost, tuple(asked), tuple(failures))
        raise TierError("; ".join(failures))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON: words that were never seen have no weight and are left out."""
        sparse = self.weights[:, :BUCKETS]
        held = np.flatnonzero(np.abs(sparse).max(axis=0) > 0)
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            "threshold": self.threshold,
            "rows": self.rows,
            "quantiles": np.round(self.quantiles, 6).tolist(),
            "centre": self.centre.tolist(),
            "scale": self.scale.tolist(),
            "dense": self.weights[:, BUCKETS:].tolist(),
            "buckets": held.tolist(),
            "weights": np.round(sparse[:, held], 7).tolist(),
        }

    @classmethod
    def from_dict(cls, plain: Any) -> Router:
        """Read back what `to_dict` returned.

        Raises
        ------
        InputError
        """
        if not isinstance(plain, dict) or plain.get("format") != FORMAT or plain.get("version") != VERSION:
            raise InputError(f"expected a router with format {FORMAT!r} and version {VERSION}, got something else")
        try:
            centre, scale = np.array(plain["centre"], np.float64), np.array(plain["scale"], np.float64)
            dense, held = np.array(plain["dense"], np.float64), np.array(plain["buckets"], dtype=np.int64)
            weights = np.zeros((2, BUCKETS + len(centre) + 1))
            weights[:, BUCKETS:] = dense
            if len(held):
                if held.min() < 0 or held.max() >= BUCKETS:
                    raise InputError(f"expected buckets below {BUCKETS}, got {held.min()} to {held.max()}")
                sparse = np.array(plain["weights"], np.float64)
                if sparse.shape != (2, len(held)):
                    raise InputError(f"expected weights of shape {(2, len(held))}, got {sparse.shape}")
                weights[:, held] = sparse
            quantiles, kind = np.array(plain["quantiles"], np.float64), plain["kind"]
            threshold, rows = float(plain["threshold"]), int(plain["rows"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"expected a router, got one that cannot be read: {error!r}") from None
        fine = kind in KINDS and scale.shape == centre.shape and centre.ndim == 1 and quantiles.shape == (101,)
        numbers = (weights, centre, scale, quantiles, np.array(threshold))
        if not fine or not all(np.isfinite(one).all() for one in numbers) or (scale <= 0).any():
            raise InputError("expected a router of finite weights that fit each other, got another")
        return cls(kind, weights, centre, scale, quantiles, threshold, rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file, whole or not at all."""
        write_text(path, json.dumps(self.to_dict()) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Router:
        """Read a file that `save` wrote.

        Raises
        ------
        InputError
        """
        plain = read_json(path, _MAX_BYTES, "router")
        try:
            return cls.from_dict(plain)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def average_gap_recovered(gains: npt.ArrayLike, light_right: npt.ArrayLike, heavy_right: npt.ArrayLike) -> float:
    """Return the area under the share of the gap recovered, over the share of calls to the heavy tier (APGR).

    RouteLLM's measure (Ong et al. 2024, section 4): 0.5 for random routing, above 1 for an oracle where the light tier
    knows what the heavy one does not.

    Parameters
    ----------
    gains : array_like of float, shape (n,)
        Queries with higher ones go to the heavy tier first.
    light_right, heavy_right : array_like of bool, shape (n,)

    Raises
    ------
    InputError
        The heavy tier is not better, or unequal lengths.
    """
    score = np.asarray(gains, dtype=np.float64)
    light, heavy = _checked(len(score), light_right, heavy_right, least=1)
    gap = float(heavy.mean() - light.mean())
    if gap <= 0:
        raise InputError(f"expected a heavy tier that is better, got one that is {gap:+.4f} better")
    order = np.argsort(-score, kind="stable")
    recovered = np.concatenate([[0.0], np.cumsum((heavy - light)[order])]) / (len(score) * gap)
    return float((recovered[1:] + recovered[:-1]).mean() / 2)


def _checked(n: int, light: npt.ArrayLike, heavy: npt.ArrayLike, least: int = MIN_ROWS) -> Floats:
    try:
        right = np.array([np.asarray(light, dtype=np.float64), np.asarray(heavy, dtype=np.float64)])
    except (TypeError, ValueError):
        raise InputError("expected for each query whether both tiers were right, got something else") from None
    if right.shape != (2, n):
        raise InputError(f"expected for each of {n} queries whether both tiers were right, got {right.shape}")
    if n < least:
        raise InputError(f"expected at least {least} queries to learn from, got {n}")
    if not np.isin(right, (0.0, 1.0)).all():
        raise InputError("expected right answers as 0 or 1, got something else")
    return right


def _standardised(rows: Rows, centre: Floats, scale: Floats) -> Rows:
    dense = np.clip((rows.dense - centre) / scale, -_CLIP, _CLIP) * _DENSE
    return replace(rows, dense=np.column_stack([dense, np.ones(len(rows))]))


def _times(rows: Rows, weights: Floats) -> Floats:
    """Return features times weights; shape (models, n)."""
    out = weights[:, BUCKETS:] @ rows.dense.T
    place = rows.place
    for k in range(len(weights)):
        out[k] += np.bincount(place, weights=rows.values * weights[k, rows.buckets], minlength=len(rows))
    return np.asarray(out, dtype=np.float64)


def _back(rows: Rows, residual: Floats) -> Floats:
    """Return residuals times features; shape (models, BUCKETS + d)."""
    place = rows.place
    sparse = [np.bincount(rows.buckets, weights=rows.values * one[place], minlength=BUCKETS) for one in residual]
    return np.concatenate([np.array(sparse).reshape(len(residual), BUCKETS), residual @ rows.dense], axis=1)


def _ridge(rows: Rows, right: Floats, penalty: float, rounds: int = 60) -> Floats:
    """Return the weights of ridge regression by conjugate gradients; the constant is not held down."""
    held = np.full(BUCKETS + rows.dense.shape[1], penalty)
    held[-1] = 1e-6
    weights = np.zeros((len(right), len(held)))
    left = _back(rows, right)
    step = left.copy()
    size = (left**2).sum(axis=1, keepdims=True)
    start = size.copy()
    for _ in range(rounds):
        curved = _back(rows, _times(rows, step)) + held * step
        far = size / np.maximum((step * curved).sum(axis=1, keepdims=True), 1e-300)
        weights += far * step
        left -= far * curved
        new = (left**2).sum(axis=1, keepdims=True)
        if (new <= _CLOSE**2 * start).all():
            break
        step = left + new / np.maximum(size, 1e-300) * step
        size = new
    return weights
