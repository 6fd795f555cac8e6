"""What the commands share: errors on one line, exit codes, sizes."""

from __future__ import annotations

import argparse
import io
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from vj._system import on_compile
from vj._version import __version__

OK, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


announces = True
"""Whether commands say that kernels are being compiled, which takes many seconds the first time."""

GRACE = 1.0
"""Seconds that a command has after Ctrl-C; then the process ends whatever it is doing."""


def run(
    program: str,
    command: Callable[[Sequence[str] | None], int],
    argv: Sequence[str] | None = None,
    *,
    keeps: bool = False,
) -> int:
    """Run a command; turn what can go wrong with its input or output into one line on stderr and an exit code.

    Parameters
    ----------
    program : str
        Name for the error line.
    command : callable
        Takes the arguments, returns the exit code.
    argv : sequence of str, optional
        By default the process's own.
    keeps : bool
        The command's result is files, so that a closed stdout is fine; on Ctrl-C it takes its time to write them.
    """
    from vj.errors import InputError

    on_compile.clear()
    if announces and not {"-q", "--quiet"} & set(sys.argv[1:] if argv is None else argv):
        text = "compiling for this processor, once, up to a minute; the next start will be quick"
        on_compile.append(partial(report, program, text))
    try:
        with _one_line_warnings(program), nullcontext() if keeps else _prompt_exit(program):
            _check_streams(keeps)
            if nul := [word for word in argv or () if "\0" in word]:
                raise InputError(f"expected arguments without NUL bytes, got {nul[0][:80]!r}")
            status = command(argv)
            sys.stdout.flush()
            return status
    except InputError as error:
        report(program, str(error))
        return BAD_INPUT
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does.
        _drop_output()
        return SOME_FAILED
    except OSError as error:
        _drop_output()
        # Files are read and written by names that their errors have; what has none is what we print.
        report(program, f"{error.strerror or error}: {error.filename or 'standard output'}")
        return BAD_INPUT
    except KeyboardInterrupt:
        report(program, "interrupted")
        return INTERRUPTED


def report(program: str, message: str) -> None:
    """Print one line on stderr."""
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)


def _drop_output() -> None:
    """Point stdout elsewhere: Python would complain at exit about what it cannot write."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_streams(keeps: bool) -> None:
    """Make sure that there are streams to print to, and that no file opened later takes the number of a closed one.

    Raises
    ------
    InputError
        If the results would be lost.
    """
    from vj.errors import InputError

    missing = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in missing:
        setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115
    if "stdout" in missing and not keeps:
        raise InputError("standard output: expected one that is open, got a closed one")
    for stream in (sys.stdout, sys.stderr):
        # Names of files may hold what the terminal's encoding does not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _one_line_warnings(program: str) -> Iterator[None]:
    """Print what the library warns of as lines like those of `report`, each text once; other warnings as usual."""
    with warnings.catch_warnings():
        show = warnings.showwarning
        seen: set[str] = set()

        def one_line(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, UserWarning):
                show(message, category, *place, **more)
            elif str(message) not in seen:
                seen.add(str(message))
                report(program, str(message))

        warnings.simplefilter("always", UserWarning)
        # What Pillow thinks of a corrupt header: whether the image can be used is said by our own reader.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.showwarning = one_line
        yield


@contextmanager
def _prompt_exit(program: str) -> Iterator[None]:
    """End the process `GRACE` seconds after Ctrl-C if it is still busy.

    Python raises KeyboardInterrupt only between its own steps; one call that decodes, compresses or groups may take
    many seconds. A signal's number is written to a pipe at once, and a thread that reads it can wait and leave.
    """
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield
        return
    out, into = os.pipe()
    os.set_blocking(into, False)
    before = signal.set_wakeup_fd(into)
    done = threading.Event()

    def watch() -> None:
        while (number := os.read(out, 1)) not in (b"", bytes([signal.SIGINT])):
            pass
        if number and not done.wait(GRACE):
            report(program, "interrupted")
            os._exit(INTERRUPTED)
        os.close(out)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(into)


def counted(n: int, noun: str) -> str:
    """Return a number and what it counts, in the singular or with an s."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def add_version(parser: argparse.ArgumentParser) -> None:
    """Give a command its ``--version``."""
    parser.add_argument("--version", action="version", version=f"vj {__version__}")


def size(text: str) -> tuple[int, int]:
    """Read a size from the command line: ``24`` or ``24x32`` (width x height)."""
    parts = text.lower().split("x")
    if len(parts) in (1, 2) and all(part.isdecimal() for part in parts):
        return int(parts[0]), int(parts[-1])
    raise argparse.ArgumentTypeError(f"expected a side or WIDTHxHEIGHT such as 24 or 24x32, got {text!r}")


def number(text: str) -> float:
    """Read a finite number from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")


def probability(text: str) -> float:
    """Read a number from 0 to 1 from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 <= value <= 1:
        return value
    raise argparse.ArgumentTypeError(f"expected a probability from 0 to 1, got {text!r}")
