"""A bar with the time left on a terminal, and lines that do not run into it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, TypeVar

from vj.cli import _common

T = TypeVar("T")


class Progress:
    """Shows how far a command is, if stderr is a terminal and it is not to be quiet.

    Parameters
    ----------
    program : str
        Name for lines on stderr.
    total : int
        Inputs; one alone has no bar, but the frames of a video do.
    quiet, verbose : bool
    """

    def __init__(self, program: str, total: int, *, quiet: bool = False, verbose: bool = False) -> None:
        self.program, self.quiet, self.verbose = program, quiet, verbose
        self._shown = not quiet and sys.stderr.isatty()
        self._bar: Any = None
        if self._shown and total > 1:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="input", leave=False, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self) -> None:
        """Count one input as done."""
        if self._bar is not None:
            self._bar.update()

    def frames(self, frames: Iterable[T], total: int, name: str) -> Iterator[T]:
        """Yield the frames of a video, with a bar of its own; `total` is 0 if nobody knows."""
        if not self._shown:
            yield from frames
            return
        from tqdm import tqdm

        yield from tqdm(frames, name, total or None, leave=False, unit="frame", dynamic_ncols=True)

    def say(self, line: str) -> None:
        """Print a line of results on stdout."""
        with self._aside():
            print(line, flush=True)

    def note(self, line: str) -> None:
        """Print a remark on stderr, unless it is to be quiet."""
        if not self.quiet:
            with self._aside():
                _common.report(self.program, line)

    def detail(self, line: str) -> None:
        """Print what only -v asks for."""
        if self.verbose:
            self.note(line)

    def _aside(self) -> AbstractContextManager[Any]:
        """Take the bars away while something else is printed."""
        if not self._shown:
            return nullcontext()
        from tqdm import tqdm

        mode: AbstractContextManager[Any] = tqdm.external_write_mode()
        return mode
