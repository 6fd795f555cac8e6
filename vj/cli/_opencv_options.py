"""Command lines in OpenCV's style: single dashes, ``-h`` for a height, flags without values."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vj._version import __version__
from vj.errors import InputError

# What web pages and word processors make of a dash.
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212"


@dataclass(frozen=True)
class Option:
    """One option.

    Parameters
    ----------
    kind : callable or None
        Turns the value's text into the value; None for a flag.
    default : object
    help : str
    value : str
        What the usage text calls the value.
    note : str
        Shown when the option is given: why it has no meaning here.
    optional : bool
        Whether the value may be left out.
    """

    kind: Callable[[str], Any] | None
    default: Any
    help: str
    value: str = ""
    note: str = ""
    optional: bool = False


def parse(program: str, options: Mapping[str, Option], argv: Sequence[str] | None, about: str) -> dict[str, Any] | None:
    """Read a command line.

    Parameters
    ----------
    program : str
    options : mapping of str to Option
        By name, with the dash.
    argv : sequence of str, optional
        By default the process's own.
    about : str
        First lines of the usage text.

    Returns
    -------
    dict or None
        Values by name without the dash; None if only the usage text or the version was asked for. A key
        ``given`` holds the names of the options given, ``notes`` the notes to show.

    Raises
    ------
    InputError
        For an option that is unknown, or a value that is missing or malformed.
    """
    words = [_dashed(word) for word in (sys.argv[1:] if argv is None else argv)]
    if not words or {"--help", "-help", "-?"} & set(words):
        print(_usage(program, options, about))
        return None
    if "--version" in words:
        print(f"vj {__version__}")
        return None
    values: dict[str, Any] = {name[1:]: option.default for name, option in options.items()}
    given: list[str] = []
    notes: list[str] = []
    at = 0
    while at < len(words):
        name = words[at]
        at += 1
        if f"-{name}" in options:
            # A dash forgotten in a much copied tutorial: OpenCV's program ignores the word, and the value after it.
            notes.append(f"{name}: taken as -{name}")
            name = f"-{name}"
        if name not in options:
            near = difflib.get_close_matches(name, options, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"expected an option of {program} (one of {', '.join(options)}), got {name!r}{hint}")
        option = options[name]
        given.append(name)
        if option.note:
            notes.append(f"{name}: {option.note}")
        if option.kind is None:
            values[name[1:]] = True
        elif at < len(words) and words[at] not in options and not (option.optional and words[at].startswith("-")):
            values[name[1:]] = _value(option.kind, name, words[at])
            at += 1
        elif option.optional:
            values[name[1:]] = option.kind("4")  # the scale that OpenCV shows samples at
        else:
            raise InputError(f"expected a value after {name}, got {words[at] if at < len(words) else 'none'}")
    return {**values, "given": given, "notes": list(dict.fromkeys(notes))}


def _dashed(word: str) -> str:
    """Return a word whose leading dash, if it is a typographic one, is a plain one."""
    return "-" + word[1:] if word[:1] in _DASHES and word[1:2].isalpha() else word


def _value(kind: Callable[[str], Any], name: str, text: str) -> Any:
    try:
        return kind(text)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise InputError(f"expected {wanted} after {name}, got {text!r}") from None


def one_of(*names: str) -> Callable[[str], str]:
    """Return a kind that takes one of these words, in capitals or not."""

    def kind(text: str) -> str:
        if text.upper() not in names:
            raise InputError(f"expected one of {', '.join(names)}, got {text!r}")
        return text.upper()

    return kind


def _usage(program: str, options: Mapping[str, Option], about: str) -> str:
    lines = [f"usage: {program} [options]", "", about, ""]
    for name, option in options.items():
        word = f"  {name} {option.value}".rstrip()
        default = "" if option.default in ("", None, False) else f" [{option.default}]"
        text = option.help or f"accepted, without effect: {option.note}"
        lines.append(f"{word:34}{text}{default}")
    return "\n".join([*lines, "", "  --version", "  --help"])
