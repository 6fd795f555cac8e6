"""What ``vj-train`` shows while it works and what it leaves behind."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vj.boosting.config import TrainingConfig
    from vj.boosting.training import Progress, StageReport, Training

# Seconds between two lines about the same mining when not on a terminal.
_LOG_SECONDS = 10.0


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


class Output:
    """The folder of a run: ``cascade.xml``, valid after every stage, ``report.jsonl`` and ``recipe.toml``."""

    def __init__(self, folder: Path, config: TrainingConfig) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "recipe.toml", config.to_toml())

    def write(self, training: Training) -> None:
        """Write what the stages so far came to."""
        from vj.opencv_xml import save

        save(training.cascade, self.folder / "cascade.xml")
        lines = [json.dumps(dataclasses.asdict(report)) for report in training.reports]
        write_text(self.folder / "report.jsonl", "\n".join([*lines, ""]))


class Log:
    """Progress on stderr: a bar on a terminal, lines elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._start = perf_counter()
        self._last = self._start
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
        """Show a line that stays."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.clear()
        print(f"[{perf_counter() - self._start:7.1f} s] {text}", file=sys.stderr, flush=True)

    def _state(self, text: str, *, rarely: bool = False) -> None:
        if self._bar is not None:
            self._bar.set_description_str(text)
        elif not rarely or perf_counter() - self._last > _LOG_SECONDS:
            self._last = perf_counter()
            self.line(text)

    def progress(self, step: Progress) -> None:
        """Show a step within a stage."""
        place = f"stage {step.stage}"
        if step.kind == "note":
            self.line(step.text)
        elif step.kind == "mining":
            ratio = step.found / step.scanned if step.scanned else 0.0
            self._state(
                f"{place}: mining {step.found}/{step.wanted} negatives in {step.scanned:,} windows ({ratio:.1e})",
                rarely=True,
            )
        elif step.round is not None:
            r = step.round
            self._state(
                f"{place}: {r.weak_count} weak classifiers, hit rate {r.hit_rate:.4f}, "
                f"false alarm rate {r.false_alarm_rate:.4f}",
                rarely=True,
            )
        else:
            self._state(f"{place}: {step.kind}", rarely=True)

    def stage(self, r: StageReport) -> None:
        """Show a finished stage."""
        self.line(
            f"stage {r.index}: {r.weak_classifiers} weak classifiers, hit rate {r.hit_rate:.4f} "
            f"(training {r.training_hit_rate:.4f}), false alarm rate {r.false_alarm_rate:.4f}, "
            f"{r.positives}+{r.held_out} positives, {r.negatives} negatives from {r.windows_scanned:,} windows "
            f"(acceptance {r.acceptance_ratio:.2e}), {r.seconds:.1f} s ({r.mining_seconds:.1f} s mining)"
        )
