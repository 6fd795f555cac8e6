"""What an attack consists of.

An attempt returns if the input was used, raises `InputError` if it was refused, and `Wrong` if it was used wrongly;
anything else it raises or does is a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import _mutants as mutants


class Wrong(Exception):
    """An input was used and gave another result than it must."""


@dataclass(frozen=True)
class Case:
    """One input: files by name, and what to do with them."""

    files: dict[str, bytes] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Parameters
    ----------
    make : callable
        Makes a case from a random generator.
    attempt : callable
        Takes a case and the folder that its files were written to.
    share : float
        Part of the campaign's inputs that it gets.
    """

    make: Callable[[mutants.Rng], Case]
    attempt: Callable[[Case, Path], None]
    share: float


def pick(rng: mutants.Rng, items: Sequence[Any]) -> Any:
    """Return one of the items."""
    return items[int(rng.integers(len(items)))]
