"""Texts and numbers out of a tree of the file storage; each function raises `FormatError` for what is not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np

_T = TypeVar("_T")


class FormatError(Exception):
    """What is wrong inside a file; whoever reads the file puts its name in front."""


def children(node: Any, tag: str, place: str) -> Iterator[Any]:
    """Yield the children of an element's child of this name."""
    child = node.find(tag)
    if child is None:
        raise FormatError(f"expected <{tag}> in {place}, got none")
    return iter(child)


def text_of(node: Any, tag: str, place: str) -> str:
    """Return the text of an element's child of this name."""
    child = node.find(tag)
    if child is None:
        raise FormatError(f"expected <{tag}> in {place}, got none")
    return (child.text or "").strip()


def child_int(node: Any, tag: str) -> int:
    """Return the one integer in a child of the cascade."""
    return one(ints(text_of(node, tag, "the cascade").split(), f"<{tag}>"), f"<{tag}>")


def one(values: list[_T], place: str) -> _T:
    """Return the only value."""
    if len(values) != 1:
        raise FormatError(f"expected one number in {place}, got {len(values)}")
    return values[0]


def ints(words: list[str], place: str) -> list[int]:
    """Return words as integers of 32 bits."""
    try:
        values = [int(word) for word in words]
    except ValueError:
        raise FormatError(f"expected integers in {place}, got {' '.join(words)[:60]!r}") from None
    if any(not -(2**31) <= value < 2**31 for value in values):
        raise FormatError(f"expected integers of 32 bits in {place}, got {' '.join(words)[:60]!r}")
    return values


def floats(text: str, place: str) -> list[float]:
    """Return the numbers of a text."""
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        raise FormatError(f"expected numbers in {place}, got {text[:60]!r}") from None


def int32(values: Any) -> Any:
    """Return integers as an array."""
    try:
        return np.array(values, dtype=np.int32)
    except OverflowError:
        raise FormatError("expected integers of 32 bits, got a larger one") from None


def float32(values: list[float]) -> Any:
    """Return numbers as an array; those too large for single precision become infinite."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float64).astype(np.float32)
