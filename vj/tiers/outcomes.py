"""Recorded outcomes: what every tier answered to the same queries, and what was right."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._files import is_file, read_bounded, read_json, replacing
from vj._types import Floats
from vj.errors import InputError
from vj.tiers.model import Tier, TierError, checked_cost

Texts = npt.NDArray[np.str_]
_MAX_BYTES, _MAX_COSTS = 1 << 30, 1 << 20
NO_ANSWER = ""
"""Label of a query that a tier failed to answer; never right."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What k tiers answered to n queries.

    Parameters
    ----------
    tiers : tuple of str
        Names, all different.
    truth : ndarray of str, shape (n,)
    labels : ndarray of str, shape (n, k)
        What each tier answered; empty where it failed.
    confidences : ndarray of float64, shape (n, k)
        0 to 1; 0 where it failed.
    costs : ndarray of float64, shape (k,)
        Mean cost of a query, in one unit for all tiers; zero for a free one.

    Raises
    ------
    InputError
        Shapes that do not fit, names twice, confidences outside 0 to 1, costs that are negative or not finite.
    """

    tiers: tuple[str, ...]
    truth: Texts
    labels: Texts
    confidences: Floats
    costs: Floats

    def __post_init__(self) -> None:
        k = len(self.tiers)
        if not k or len(set(self.tiers)) != k:
            raise InputError(f"expected tiers with different names, got {list(self.tiers)}")
        truth, labels = np.asarray(self.truth, dtype=np.str_), np.asarray(self.labels, dtype=np.str_)
        confidences = np.ascontiguousarray(self.confidences, dtype=np.float64)
        n = len(truth)
        if truth.shape != (n,) or labels.shape != (n, k) or confidences.shape != (n, k):
            raise InputError(
                f"expected truth of shape (n,) and labels and confidences of shape (n, {k}), "
                f"got {truth.shape}, {labels.shape} and {confidences.shape}"
            )
        if not n:
            raise InputError("expected at least one row of outcomes, got none")
        bad = ~((confidences >= 0) & (confidences <= 1))
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                f"expected confidences from 0 to 1, got {confidences[row, column]} of {self.tiers[column]} in row {row}"
            )
        if len(self.costs) != k:
            raise InputError(f"expected a cost for each of {k} tiers, got {len(self.costs)}")
        costs = np.array([checked_cost(name, float(c)) for name, c in zip(self.tiers, self.costs, strict=True)])
        for name, value in (("truth", truth), ("labels", labels), ("confidences", confidences), ("costs", costs)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.truth)

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each tier was right; shape (n, k)."""
        return np.asarray((self.labels == self.truth[:, None]) & (self.labels != NO_ANSWER))

    @property
    def accuracies(self) -> Floats:
        """Share of the queries that each tier answers correctly; shape (k,)."""
        return np.asarray(self.correct.mean(axis=0), dtype=np.float64)

    @property
    def best(self) -> int:
        """Index of the most accurate single tier; among equals the cheapest."""
        return int(np.lexsort((self.costs, -self.accuracies))[0])

    def rows(self, index: npt.NDArray[Any]) -> Outcomes:
        """Return some of the rows: a mask or indices."""
        return Outcomes(self.tiers, self.truth[index], self.labels[index], self.confidences[index], self.costs)

    def select(self, names: Sequence[str]) -> Outcomes:
        """Return the given tiers, in that order.

        Raises
        ------
        InputError
            A name that is not among them.
        """
        for name in names:
            if name not in self.tiers:
                raise InputError(f"expected tiers among {', '.join(self.tiers)}, got {name!r}")
        index = [self.tiers.index(name) for name in names]
        return Outcomes(tuple(names), self.truth, self.labels[:, index], self.confidences[:, index], self.costs[index])

    @classmethod
    def run(
        cls,
        tiers: Sequence[Tier],
        queries: Sequence[Any],
        truth: Sequence[Any],
        progress: Callable[[str, int], None] | None = None,
    ) -> Outcomes:
        """Ask every tier every query. A query that a tier fails to answer stays empty and counts as wrong.

        Parameters
        ----------
        tiers : sequence of Tier
            Their answers need labels.
        queries : sequence
        truth : sequence, as long
            The right label of each, compared as text.
        progress : callable, optional
            Called with a tier's name and the queries it has answered, after each.

        Raises
        ------
        InputError
            Unequal lengths, or a tier that answered nothing at all.
        """
        if len(queries) != len(truth):
            raise InputError(f"expected a truth for each of {len(queries)} queries, got {len(truth)}")
        labels = np.full((len(queries), len(tiers)), NO_ANSWER, dtype=object)
        confidences = np.zeros((len(queries), len(tiers)))
        costs = []
        for k, tier in enumerate(tiers):
            spent, failure, answered = 0.0, None, 0
            step = len(queries) if tier.batched else 1
            for start in range(0, len(queries), max(1, step)):
                for i, reply in enumerate(tier.ask_many(queries[start : start + step]), start):
                    if isinstance(reply, TierError):
                        failure = reply
                        continue
                    if reply.answer.label is None:
                        raise InputError(f"{tier.name}: expected answers with a label to compare, got one without")
                    labels[i, k], confidences[i, k] = reply.answer.label, reply.answer.confidence
                    spent, answered = spent + reply.cost, answered + 1
                if progress is not None:
                    progress(tier.name, min(len(queries), start + step))
            if failure is not None and not answered:
                raise InputError(f"expected some answers, got none; {failure}")
            costs.append(spent / answered if answered else 0.0)
        text = np.array([str(one) for one in truth], dtype=np.str_)
        return cls(tuple(t.name for t in tiers), text, labels.astype(np.str_), confidences, np.array(costs))

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], costs: Mapping[str, float], only: Sequence[str] | None = None
    ) -> Outcomes:
        """Read a CSV file, plain or ``.gz``: ``truth``, then ``TIER.label`` and ``TIER.confidence`` for each tier.

        Other columns are ignored. Where both cells of a tier are empty, it failed to answer.

        Parameters
        ----------
        path : str or path
        costs : mapping of str to float
            By the tiers' names; each of the file's tiers needs one.
        only : sequence of str, optional
            Leave the file's other tiers alone.

        Raises
        ------
        InputError
            Not such a file; the message names the column or the line.
        """
        header, rows = _read_csv(Path(path))
        tiers = tuple(name.removesuffix(".label") for name in header if name.endswith(".label"))
        if "truth" not in header or not tiers:
            raise InputError(f"{path}: expected columns truth, TIER.label, TIER.confidence, got {_some(header)}")
        for name in tiers:
            if f"{name}.confidence" not in header:
                raise InputError(f"{path}: expected a column {name}.confidence next to {name}.label, got none")
        lonely = [h for h in header if h.endswith(".confidence") and h.removesuffix(".confidence") not in tiers]
        if lonely:
            raise InputError(f"{path}: expected a column {lonely[0].removesuffix('.confidence')}.label, got none")
        if len(set(header)) != len(header):
            raise InputError(
                f"{path}: expected every column once, got {_some([h for h in header if header.count(h) > 1])}"
            )
        if only is not None:
            if not set(tiers) & set(only):
                raise InputError(f"{path}: expected some of the tiers {_some(list(only))}, got {_some(tiers)}")
            tiers = tuple(name for name in tiers if name in only)
        if not rows:
            raise InputError(f"{path}: expected at least one row of outcomes, got none")
        cells = np.array([row for _, row in rows], dtype=np.str_)
        at = header.index
        truth = np.char.strip(cells[:, at("truth")])
        if (truth == "").any():
            raise InputError(
                f"{path}: expected a truth in every line, got none in line {rows[int(np.argmax(truth == ''))][0]}"
            )
        labels = np.char.strip(cells[:, [at(f"{name}.label") for name in tiers]])
        confidences = np.column_stack(
            [_numbers(path, rows, cells, labels[:, k], at(f"{t}.confidence")) for k, t in enumerate(tiers)]
        )
        return cls(tiers, truth, labels, confidences, cost_list(tiers, costs, str(path)))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the CSV file that `read` reads, whole or not at all; compressed if it ends in ``.gz``."""
        target = Path(path)
        opener = gzip.open if target.suffix == ".gz" else open
        with replacing(target) as temporary, opener(temporary, "wt", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["truth", *(f"{name}.{what}" for name in self.tiers for what in ("label", "confidence"))])
            for truth, labels, confidences in zip(self.truth, self.labels, self.confidences, strict=True):
                pairs = zip(labels.tolist(), confidences.tolist(), strict=True)
                writer.writerow([truth, *(cell for a, c in pairs for cell in ((a, c) if a != NO_ANSWER else ("", "")))])


def read_costs(given: Sequence[str]) -> dict[str, float]:
    """Read costs: ``TIER=COST`` or a JSON file that maps names to costs; later ones win.

    Raises
    ------
    InputError
    """
    found: dict[str, float] = {}
    for one in given:
        if Path(one).suffix == ".json" or is_file(Path(one)):
            plain = read_json(one, _MAX_COSTS, "file of costs")
            if not isinstance(plain, dict):
                raise InputError(f"{one}: expected a JSON object of costs by tier, got a {type(plain).__name__}")
            found |= {name: checked_cost(f"{one}: {name}", cost) for name, cost in plain.items()}
            continue
        name, equals, text = one.rpartition("=")
        try:
            found[name] = checked_cost(name, float(text))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            equals = ""
        if not equals or not name:
            raise InputError(f"expected costs as TIER=COST or a JSON file, got {one!r}")
    return found


def cost_list(tiers: Sequence[str], costs: Mapping[str, float], where: str) -> Floats:
    """Return the costs in the order of the tiers.

    Raises
    ------
    InputError
        A tier without a cost.
    """
    missing = [name for name in tiers if name not in costs]
    if missing:
        raise InputError(f"{where}: expected a cost for every tier, got none for {', '.join(missing)}")
    return np.array([checked_cost(name, costs[name]) for name in tiers])


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and rows with their line numbers; blank lines are left out."""
    raw = io.BytesIO(read_bounded(path, _MAX_BYTES, "file of outcomes"))
    plain = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
    try:
        with io.TextIOWrapper(plain, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            rows = []
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise InputError(f"{path}: expected {len(header)} cells in line {reader.line_num}, got {len(row)}")
                rows.append((reader.line_num, row))
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path}: expected a CSV file of outcomes, got one that cannot be read: {error}") from None
    return header, rows


def _numbers(
    path: str | os.PathLike[str], rows: list[tuple[int, list[str]]], cells: Texts, labels: Texts, column: int
) -> Floats:
    """Confidences of one tier; 0 where its label is empty too."""
    out = np.zeros(len(rows))
    for i, text in enumerate(cells[:, column].tolist()):
        text = text.strip()
        if not text and labels[i] == NO_ANSWER:
            continue
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0.0 <= value <= 1.0:
            raise InputError(f"{path}: expected a confidence from 0 to 1 in line {rows[i][0]}, got {text!r}")
        out[i] = value
    return out


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown}, ..." if len(names) > 6 else shown or "nothing"
