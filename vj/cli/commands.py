"""``python -m vj``: the commands and what each is for; ``python -m vj detect ...`` runs ``vj-detect ...``.

``python -m vj completion bash`` prints what makes the shell complete their options.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import sys
from collections.abc import Sequence

from vj import cli
from vj.cli import _common, _completion

PROGRAM = "python -m vj"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    commands = found()
    name = given[0].removeprefix("vj-") if given else ""
    if name in commands:
        return int(importlib.import_module(commands[name][0]).main(given[1:]))
    if name == "completion":
        return _completion.run(given[1:], commands)
    return _common.run(PROGRAM, _list, given)


def found() -> dict[str, tuple[str, str]]:
    """Return module and purpose of each command, by its name without ``vj-``."""
    commands = {}
    for module in pkgutil.iter_modules(cli.__path__):
        if module.name.startswith("_") or module.name == "commands":
            continue
        path = f"{cli.__name__}.{module.name}"
        # The first line of the module's docstring is ``vj-name``: purpose.
        words = re.match(r"``vj-([\w-]+)[^`]*``: (.*)", importlib.import_module(path).__doc__ or "")
        if words:
            commands[words[1]] = (path, words[2].rstrip("."))
    return commands


def _list(argv: Sequence[str] | None) -> int:
    lines = [f"  vj-{name:<14} {purpose}" for name, (_, purpose) in found().items()]
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [--version] [COMMAND ...]",
        description="Commands; each has --help:\n\n" + "\n".join(lines),
        epilog="completion SHELL prints a script for bash, zsh or tcsh that completes their options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _common.add_version(parser)
    parser.parse_args(argv)
    parser.print_help()
    return _common.OK
