"""Settings of a recipe on the command line: ``--set KEY=VALUE``."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vj.errors import InputError

if TYPE_CHECKING:
    from vj.boosting.recipe import TrainingConfig


def pair(option: str, text: str) -> tuple[str, str]:
    """Split ``KEY=VALUE``; `option` names the option in the error."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise InputError(f"expected {option}, got {text!r}")
    return key.strip(), value


def apply(config: TrainingConfig, texts: Sequence[str]) -> TrainingConfig:
    """Return a configuration with settings changed.

    Parameters
    ----------
    config : TrainingConfig
    texts : sequence of str
        Each ``KEY=VALUE``. A key is one of a recipe; ``positives.0.margin`` is the margin of the first source of
        positives, ``positives.margin`` that of every source. A value is written as in a recipe; quotes may be left
        out, and numbers with commas make a list.

    Returns
    -------
    TrainingConfig

    Raises
    ------
    InputError
        As for a recipe.
    """
    from vj.boosting.recipe import TrainingConfig

    for text in texts:
        key, value = pair("--set KEY=VALUE", text)
        first, *rest = key.split(".")
        if first == "positives" and rest:
            change: Any = _changed_sources(config, key, rest, value)
        elif rest:
            raise InputError(f"expected a key of a recipe, got {key!r}: only positives have keys of their own")
        else:
            change = _value(value, _kind(TrainingConfig, first))
        config = config.replaced({first: change})
    return config


def _changed_sources(config: TrainingConfig, key: str, rest: list[str], value: str) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from vj.boosting.recipe import PositiveSource

    sources = [asdict(source) for source in config.positives]
    if not sources:
        raise InputError(f"expected sources of positives for {key}, got none")
    which = range(len(sources))
    if rest[0].isdecimal():
        number, *rest = rest
        if int(number) >= len(sources):
            raise InputError(f"expected a source from 0 to {len(sources) - 1}, got {key}")
        which = range(int(number), int(number) + 1)
    if len(rest) == 2 and rest[0] == "where":
        # One column of the table; values of columns are texts.
        for k in which:
            sources[k]["where"] = {**sources[k]["where"], rest[1]: value}
        return sources
    if len(rest) != 1:
        raise InputError(f"expected positives.KEY or positives.N.KEY, got {key}")
    for k in which:
        sources[k][rest[0]] = _value(value, _kind(PositiveSource, rest[0]))
    return sources


def _kind(config: Any, key: str) -> type | None:
    from dataclasses import fields

    return next((item.metadata["type"] for item in fields(config) if item.name == key), None)


def _value(text: str, kind: type | None) -> Any:
    """Read a value as TOML has it; what is not TOML is a text, and so is a bare word or number where one is wanted."""
    if kind in (str, tuple) and not text.lstrip().startswith(("[", "'", '"', "{")):
        return text
    for form in (text, f"[{text}]"):
        try:
            found = tomllib.loads(f"value = {form}")
        except tomllib.TOMLDecodeError:
            continue
        # A line break could smuggle in other keys; dates are texts here.
        if set(found) == {"value"} and isinstance(found["value"], bool | int | float | str | list | dict):
            return found["value"]
    try:
        # TOML wants a digit on both sides of the point.
        return float(text) if kind is float else text
    except ValueError:
        return text
