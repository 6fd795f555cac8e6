"""Settings as fields of a dataclass: how they are declared, described and checked."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, TypeVar, cast

from vj.errors import InputError

Config = TypeVar("Config")


def integer(default: int, low: int, high: int, help: str, per_stage: bool = False) -> Any:
    """Declare a whole number within bounds; with `per_stage` there may be one for each stage."""
    meta = {"type": int, "low": low, "high": high, "help": help, "per_stage": per_stage}
    return field(default=default, metadata=meta)


def number(default: float, low: float, high: float, help: str, per_stage: bool = False) -> Any:
    """Declare a number within bounds; see `integer`."""
    meta = {"type": float, "low": low, "high": high, "help": help, "per_stage": per_stage}
    return field(default=default, metadata=meta)


def choice(default: str, choices: tuple[str, ...], help: str) -> Any:
    """Declare a text out of several."""
    return field(default=default, metadata={"type": str, "choices": choices, "help": help})


def flag(default: bool, help: str) -> Any:
    """Declare a setting that is true or false."""
    return field(default=default, metadata={"type": bool, "help": help})


def string(default: str, help: str) -> Any:
    """Declare a text."""
    return field(default=default, metadata={"type": str, "help": help})


def documented(kind: type[Config]) -> type[Config]:
    """Add the fields of a class to its docstring, with the words of the recipe and the command line."""
    lines = ["Parameters", "----------"]
    for item in fields(cast(Any, kind)):
        lines += [f"{item.name} : {_type_name(item)}", f"    {describe(item)}"]
    text, raises, rest = inspect.cleandoc(kind.__doc__ or "").partition("Raises\n------\n")
    kind.__doc__ = text + "\n".join([*lines, "", ""]) + raises + rest
    return kind


def _type_name(item: Any) -> str:
    meta = item.metadata
    if "choices" in meta:
        return "{" + ", ".join(map(repr, meta["choices"])) + "}"
    name: str = meta.get("type_name", meta["type"].__name__)
    return f"{name} or tuple of {name}" if meta.get("per_stage") else name


def describe(item: Any, *, ranges: bool = True) -> str:
    """Describe a field in one line, with its default and, if wanted, its range."""
    text: str = item.metadata["help"]
    if "choices" in item.metadata and not ranges:
        text += f": {', '.join(item.metadata['choices'])}"
    if "low" in item.metadata and ranges:
        text += f" ({item.metadata['low']} to {item.metadata['high']})"
    if item.metadata.get("per_stage"):
        text += "; or a list with one for each stage"
    if item.default not in ("", (), None, dataclasses.MISSING):
        default = "x".join(map(str, item.default)) if isinstance(item.default, tuple) else item.default
        text += f" [{default}]"
    return text


def check_fields(config: Any, prefix: str) -> None:
    """Raise `InputError` unless every value is of its field's type and in its bounds; `prefix` goes before names."""
    for item in fields(config):
        value = getattr(config, item.name)
        each = value if item.metadata.get("per_stage") and is_list(value) else (value,)
        if not each:
            raise InputError(f"expected {prefix + item.name} to be a number or a list of them, got an empty list")
        for one in each:
            _check_value(one, prefix + item.name, item.metadata)


def is_list(value: Any) -> bool:
    """Whether a value is a list with one entry for each stage."""
    return isinstance(value, tuple)


def _check_value(value: Any, name: str, meta: Mapping[str, Any]) -> None:
    kind = meta["type"]
    if type(value) is not kind and not (kind is dict and isinstance(value, Mapping)):
        raise InputError(f"expected {name} to be {_KIND_NAMES[kind]}, got {shown(value)}")
    if "choices" in meta and value not in meta["choices"]:
        raise InputError(f"expected {name} to be one of {', '.join(meta['choices'])}, got {value!r}")
    if "low" in meta and not meta["low"] <= value <= meta["high"]:
        raise InputError(f"expected {name} between {meta['low']} and {meta['high']}, got {value}")


_KIND_NAMES = {
    int: "an integer",
    float: "a number",
    str: "a text",
    bool: "true or false",
    tuple: "a list",
    dict: "a table",
}


def shown(value: Any) -> str:
    """Return a value as error messages show it."""
    return repr(value)[:60]


def plain_number(item: Any, value: Any) -> Any:
    """Accept an integer that a float can hold where a float is expected, and NumPy scalars as plain numbers."""
    value = value.item() if hasattr(value, "item") else value
    whole = type(value) is int and abs(value) < 1 << 1000
    return float(value) if whole and item.metadata["type"] is float else value
