"""Running a command on events, in the background and one after another."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence

from vj.cli import _common


class Commands:
    """Runs one command for each event, in the order of the events.

    What the command prints goes to stderr, since stdout is ours. It gets no input, and a session of its own, so that
    Ctrl-C at the terminal ends us and not it.

    Parameters
    ----------
    program : str
        Name for error lines.
    words : sequence of str
        The command and its arguments; without any, nothing is run.
    """

    def __init__(self, program: str, words: Sequence[str]) -> None:
        self.program, self.words = program, list(words)
        self.run = self.failed = 0
        self._waiting: queue.SimpleQueue[tuple[str, dict[str, str]] | None] = queue.SimpleQueue()
        self._running: subprocess.Popen[bytes] | None = None
        self._given_up = False
        # A daemon, so that a command that hangs cannot keep the process from ending.
        self._thread = threading.Thread(target=self._work, daemon=True)
        if self.words:
            self._thread.start()

    def send(self, label: str, variables: dict[str, str]) -> None:
        """Run the command, once those before it have ended, with these environment variables besides our own.

        Parameters
        ----------
        label : str
            Names the event in error lines.
        variables : dict of str
        """
        if self.words:
            self._waiting.put((label, variables))

    def finish(self) -> None:
        """Wait until all commands have ended; on Ctrl-C end the one that runs and leave out those that wait."""
        if not self.words:
            return
        self._waiting.put(None)
        try:
            # A join without a timeout cannot be interrupted on every system.
            while self._thread.is_alive():
                self._thread.join(0.2)
        except KeyboardInterrupt:
            self._given_up = True
            if self._running is not None:
                self._running.kill()
            _common.report(self.program, f"{self.words[0]}: ended before it was done")
            self._thread.join(5)

    def _work(self) -> None:
        while (one := self._waiting.get()) is not None and not self._given_up:
            label, variables = one
            self.run += 1
            problem = self._once(variables)
            if problem and not self._given_up:
                self.failed += 1
                _common.report(self.program, f"{self.words[0]}: {problem} ({label})")

    def _once(self, variables: dict[str, str]) -> str:
        """Run it to its end; return what went wrong."""
        try:
            self._running = subprocess.Popen(
                self.words,
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=_stderr(),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return f"expected a command that can be run, got {getattr(error, 'strerror', None) or error}"
        code = self._running.wait()
        self._running = None
        return f"expected exit code 0, got {code}" if code else ""


def _stderr() -> int | None:
    """Return the descriptor of stderr, or None (our stdout) where it has none, as in some tests and notebooks."""
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        return subprocess.DEVNULL
