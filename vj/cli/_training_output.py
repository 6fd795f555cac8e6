"""Progress of ``vj-train`` on stderr."""

from __future__ import annotations

import math
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vj.boosting.progress import Progress, StageReport
    from vj.boosting.recipe import TrainingConfig

# Seconds between two lines about the same work if stderr is not a terminal.
_LOG_SECONDS = 10.0


class Log:
    """Progress on stderr: one changing line on a terminal, otherwise a line now and then."""

    def __init__(self, config: TrainingConfig, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose
        self._config = config
        self._start = self._last = self._step = perf_counter()
        self._bar: Any = None
        if sys.stderr.isatty() and not quiet:
            from tqdm import tqdm

            self._bar = tqdm(bar_format="{desc}", leave=False)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def line(self, text: str) -> None:
        """Show a permanent line."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.clear()
        print(f"[{perf_counter() - self._start:7.1f} s] {text}", file=sys.stderr, flush=True)

    def state(self, text: str) -> None:
        """Show the current state, which replaces the previous one."""
        if self._bar is not None:
            self._bar.set_description_str(text)
        elif perf_counter() - self._last > _LOG_SECONDS:
            self._last = perf_counter()
            self.line(text)

    def progress(self, step: Progress) -> None:
        """Show a step within a stage."""
        place = f"stage {step.stage + 1}"
        if step.kind == "note":
            self.line(step.text)
        elif step.kind == "mining":
            if step.found == 0:
                self._step = perf_counter()
            spent = max(perf_counter() - self._step, 1e-9)
            left = _clock(spent * (step.wanted - step.found) / step.found) if step.found else "?"
            text = f"{place}: {step.found:,} of {step.wanted:,} negatives found, {left} left"
            if self.verbose:
                ratio = step.hits / step.scanned if step.scanned else 0.0
                text += f" ({step.scanned:,} windows, {ratio:.1e} pass, {step.scanned / spent / 1e6:.1f} million/s)"
            self.state(text)
        elif step.kind == "pruning":
            self.state(f"pruning: {step.scanned:,} background windows scanned" if step.scanned else "pruning")
        elif step.round is not None:
            r = step.round
            self.state(
                f"{place}: {_weak(r.weak_count)}, hit rate {_percent(r.hit_rate)}, "
                f"false alarms {_percent(r.false_alarm_rate)}, {self._time_left(r, step.stage)} left"
            )
        else:
            self._step = perf_counter()
            self.state(f"{place}: {step.kind}")

    def _time_left(self, r: Any, stage: int) -> str:
        """Estimate the time left in a stage: the false alarm rate falls roughly geometrically."""
        config = self._config.of_stage(stage)
        if not 0 < r.false_alarm_rate < 1:
            return "?"
        rounds = r.weak_count * math.log(config.max_false_alarm_rate) / math.log(r.false_alarm_rate)
        rounds = min(rounds, config.max_weak_count)
        return _clock((perf_counter() - self._step) * max(rounds / r.weak_count - 1, 0.0))

    def stage(self, r: StageReport) -> None:
        """Show a finished stage: weak classifiers, rates, and how many of the backgrounds' windows pass all so far."""
        place, passing = f"stage {r.index + 1}", r.acceptance_ratio * r.false_alarm_rate
        left = f"1 window in {_round(1 / passing)} left" if passing else "no window left"
        self.line(
            f"{place}: {_weak(r.weak_classifiers)}, hit rate {_percent(r.hit_rate)}, "
            f"false alarms {_percent(r.false_alarm_rate)}, {left}"
        )
        if self.verbose:
            speed = r.windows_scanned / max(r.mining_seconds, 1e-9) / 1e6
            self.line(
                f"{place}: {r.positives} positives (hit rate {_percent(r.training_hit_rate)}), {r.held_out} held out, "
                f"{r.negatives} negatives from {r.windows_scanned:,} windows ({r.acceptance_ratio:.1e} get here, "
                f"{speed:.1f} million/s), {r.seconds:.1f} s, of which mining {r.mining_seconds:.1f} s"
            )
        if r.advice:
            self.line(f"stage {r.index + 1}: {r.advice}")


def _weak(n: int) -> str:
    return f"{n} weak classifier{'' if n == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _round(number: float) -> str:
    """Two leading digits, the rest zeros, with commas."""
    digits = max(len(str(int(number))) - 2, 0)
    return f"{round(number, -digits):,.0f}"


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
