"""Character n-gram models with Kneser-Ney smoothing: real next-token distributions on any machine.

Interpolated, one discount for each order, n1 / (n1 + 2 n2); lower orders count the characters that precede (Chen and
Goodman 1998, sections 2.7 and 3; Ney, Essen and Kneser 1994). No part of the product.
"""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vj.errors import InputError

Ids = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


def read_text(path: Path) -> str:
    """Return a file's text; of a Python module, as some packages hold books, its longest string."""
    try:
        if path.suffix != ".py":
            return path.read_text(encoding="utf-8")
        with tokenize.open(path) as file:
            tree = ast.parse(file.read())
    except (OSError, UnicodeDecodeError, SyntaxError) as error:
        raise InputError(f"{path}: expected a text, got {error}") from None
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return max(strings, key=len, default="")


_MOST_KNOWN = 200_000
"""Distributions kept: about 150 MB."""


class Alphabet:
    """Characters of a text by number; those it has fewer than `least` times are left out."""

    def __init__(self, text: str, least: int = 20) -> None:
        found, counts = np.unique(np.array(list(text)), return_counts=True)
        self.characters = "".join(found[counts >= least])
        self._number = {character: k for k, character in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Ids:
        return np.array([self._number[c] for c in text if c in self._number], dtype=np.int64)

    def decode(self, ids: Sequence[int] | Ids) -> str:
        return "".join(self.characters[k] for k in ids)


class NGrams:
    """Distribution of the next character given up to `order` - 1 before it.

    An n-gram is one number in base `size`, so that all that follow a context lie side by side in a sorted array.
    """

    def __init__(self, ids: Ids, size: int, order: int) -> None:
        if size**order >= 2**62:
            raise InputError(f"expected an order below {int(62 / np.log2(size))} for {size} characters, got {order}")
        self.size, self.order = size, order
        codes = np.zeros(len(ids) - order + 1, dtype=np.int64)
        for k in range(order):
            codes = codes * size + ids[k : len(ids) - order + 1 + k]
        grams, counts = np.unique(codes, return_counts=True)
        self._levels: list[tuple[Ids, Ids, Ids, float]] = []
        for k in range(order, 0, -1):
            ones, twos = np.count_nonzero(counts == 1), np.count_nonzero(counts == 2)
            discount = ones / (ones + 2 * twos) if ones else 0.5
            self._levels.append((grams, counts, np.append(0, np.cumsum(counts)), discount))
            # A shorter n-gram counts the different characters seen before it.
            grams, counts = np.unique(grams % size ** (k - 1), return_counts=True)
        self._levels.reverse()
        self._known: dict[tuple[int, ...], Probabilities] = {}

    def __call__(self, context: Sequence[int]) -> Probabilities:
        return self._after_one(tuple(context[-(self.order - 1) :] if self.order > 1 else ()))

    def of_all(self, contexts: Sequence[Sequence[int]]) -> list[Probabilities]:
        """One distribution for each context: what a batched heavy tier is asked for."""
        return [self(context) for context in contexts]

    def _after_one(self, context: tuple[int, ...]) -> Probabilities:
        """As `after`, four times as fast for one context: contexts with the same ending share the work."""
        found = self._known.get(context)
        if found is not None:
            return found
        shorter = self._after_one(context[1:]) if context else np.full(self.size, 1 / self.size)
        grams, counts, sums, discount = self._levels[len(context)]
        code = 0
        for character in context:
            code = code * self.size + character
        low, high = grams.searchsorted((code * self.size, (code + 1) * self.size))
        if low == high:
            found = shorter
        else:
            total = sums[high] - sums[low]
            found = shorter * (discount * (high - low) / total)
            found[grams[low:high] - code * self.size] += (counts[low:high] - discount) / total
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[context] = found
        return found

    def after(self, contexts: Ids) -> Probabilities:
        """One distribution for each row; shape (n, size)."""
        n, length = contexts.shape
        out = np.full((n, self.size), 1 / self.size)
        code, place = np.zeros(n, dtype=np.int64), 1
        for k in range(min(length + 1, self.order)):
            grams, counts, sums, discount = self._levels[k]
            low, high = np.searchsorted(grams, code * self.size), np.searchsorted(grams, (code + 1) * self.size)
            types, total = high - low, sums[high] - sums[low]
            known = total > 0
            scale = np.where(known, total, 1)
            out *= np.where(known, discount * types / scale, 1)[:, None]
            rows = np.repeat(np.arange(n), types)
            which = np.arange(len(rows)) - np.repeat(np.cumsum(types) - types, types) + np.repeat(low, types)
            out[rows, grams[which] % self.size] += (counts[which] - discount) / scale[rows]
            if k < length:
                code += contexts[:, length - 1 - k] * place
                place *= self.size
        return out

    def along(self, ids: Ids, start: int) -> Probabilities:
        """Distributions that precede each of ``ids[start:]``; shape (len(ids) - start, size)."""
        span = self.order - 1
        if start < span:
            raise InputError(f"expected a start from {span}, got {start}")
        windows = np.lib.stride_tricks.sliding_window_view(ids, span)[start - span : len(ids) - span]
        return np.concatenate([self.after(part) for part in np.array_split(windows, max(1, len(windows) // 4096))])
