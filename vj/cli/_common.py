"""What the commands share: errors on one line, exit codes, sizes."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

OK, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def run(program: str, command: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Run a command; turn what can go wrong with its input into one line on stderr and an exit code.

    Parameters
    ----------
    program : str
        Name for the error line.
    command : callable
        Takes the arguments, returns the exit code.
    argv : sequence of str, optional
        By default the process's own.
    """
    from vj.errors import InputError

    try:
        return command(argv)
    except InputError as error:
        report(program, str(error))
        return BAD_INPUT
    except BrokenPipeError:
        # The reader of our output has gone; pointing stdout elsewhere keeps Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED
    except OSError as error:
        report(program, f"{error.filename or 'file system'}: {error.strerror or error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        report(program, "interrupted")
        return INTERRUPTED


def report(program: str, message: str) -> None:
    """Print one line on stderr."""
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)


@contextmanager
def compiling(program: str) -> Iterator[None]:
    """Say that kernels are being compiled if what is done inside takes longer than cached ones do."""
    text = "compiling for this processor, once; the next start will be quick"
    notice = threading.Timer(1.5, report, (program, text))
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()


@contextmanager
def warnings_on_one_line(program: str) -> Iterator[None]:
    """Print what the library warns of inside as lines like those of `report`, each text once."""
    with warnings.catch_warnings():
        seen: set[str] = set()

        def show(message: Warning | str, *more: object, **others: object) -> None:
            if str(message) not in seen:
                seen.add(str(message))
                report(program, str(message))

        warnings.simplefilter("always")
        warnings.showwarning = show
        yield


def size(text: str) -> tuple[int, int]:
    """Read a size from the command line: ``24`` or ``24x32`` (width x height)."""
    parts = text.lower().split("x")
    if len(parts) in (1, 2) and all(part.isdecimal() for part in parts):
        return int(parts[0]), int(parts[-1])
    raise argparse.ArgumentTypeError(f"expected a side or WIDTHxHEIGHT such as 24 or 24x32, got {text!r}")


def probability(text: str) -> float:
    """Read a number from 0 to 1 from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 <= value <= 1:
        return value
    raise argparse.ArgumentTypeError(f"expected a probability from 0 to 1, got {text!r}")
