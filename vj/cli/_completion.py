"""``python -m vj completion SHELL``: what makes a shell complete the commands' options and file names."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from vj.cli import _common
from vj.errors import InputError

PROGRAM = "python -m vj completion"
SHELLS = ("bash", "zsh", "tcsh")

_FOLDERS = {"DIR", "FOLDER"}
_FILES = {"CASCADE", "DETECTOR", "FILE", "FILE.csv", "IMAGE", "INPUT", "PATH", "POLICY.json", "RECIPE", "SOURCE"}


def run(argv: Sequence[str], commands: Mapping[str, tuple[str, str]]) -> int:
    """Print the script; return the exit code.

    Parameters
    ----------
    argv : sequence of str
    commands : mapping of str to (str, str)
        Module and purpose of each command, by its name without ``vj-``.
    """
    return _common.run(PROGRAM, lambda words: _command(words, commands), argv)


def _command(argv: Sequence[str] | None, commands: Mapping[str, tuple[str, str]]) -> int:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Print a script that completes the options and file names of the commands.",
        epilog='In ~/.bashrc or ~/.zshrc: eval "$(python -m vj completion bash)" or zsh. Needs shtab: '
        'pip install "vj[completion]".',
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help="only these, such as detect (default: all)")
    args = parser.parse_args(argv)
    names = [name.removeprefix("vj-") for name in args.commands] or list(commands)
    for name in names:
        if name not in commands:
            raise InputError(f"expected commands among {', '.join(commands)}, got {name}")
    try:
        import shtab
    except ImportError:
        raise InputError('expected the package shtab, got none installed: pip install "vj[completion]"') from None
    for name in names:
        print(shtab.complete(_with_files(_parser(commands[name][0]), shtab), args.shell))
    return _common.OK


def _parser(module: str) -> argparse.ArgumentParser:
    """Return the parser of a command; commands in OpenCV's style have only a table of options."""
    command: Any = importlib.import_module(module)
    if hasattr(command, "_parser"):
        found: argparse.ArgumentParser = command._parser()
        return found
    parser = argparse.ArgumentParser(prog=f"vj-{module.rpartition('.')[2]}", add_help=False)
    for name, option in command.OPTIONS.items():
        text = (option.help or option.note).replace("%", "%%")
        if option.kind is None:
            parser.add_argument(name, action="store_true", help=text)
        else:
            parser.add_argument(name, metavar=option.value, nargs="?" if option.optional else None, help=text)
    parser.add_argument("--help", action="help", help="show the options")
    _common.add_version(parser)
    return parser


def _with_files(parser: argparse.ArgumentParser, shtab: Any) -> argparse.ArgumentParser:
    """Return the parser with file names as completions wherever an argument is one, in its subcommands too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                _with_files(one, shtab)
        elif action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser
