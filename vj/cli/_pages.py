"""Pages that commands leave: what goes into them beyond what is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from vj._files import write_text
from vj.cli import _common
from vj.cli.evaluate import SUPPRESSION

if TYPE_CHECKING:
    from vj.boosting.progress import Progress
    from vj.boosting.run import Training
    from vj.datasets.labelled import LabelledImage
    from vj.detector import Detector
    from vj.evaluation.measure import Evaluation, ImageRun, Rules
    from vj.html.evaluation import Measured
    from vj.html.operating import Search
    from vj.html.page import Section

SCALE_FACTORS = (1.2, 1.4)
"""Ratios of scales that are measured as well as the one asked for, if they are coarser: they cost less."""

# A page may take the run's time divided by this.
_SHARE = 50

Wrap = Callable[[Iterable[Any], str], Iterable[Any]]


def searches(
    detector: Detector, cascade: str, images: Sequence[LabelledImage], rules: Rules, result: Evaluation, wrap: Wrap
) -> list[Search]:
    """Measure what the settings of a cascade buy.

    Parameters
    ----------
    detector : Detector
    cascade : str
        How a command line names the cascade.
    images : sequence of LabelledImage
    rules : Rules
    result : Evaluation
        Whose alignment is used.
    wrap : callable
        Shows progress: from images and a text to the images.
    """
    from vj.evaluation.operating import operating_curves
    from vj.html.operating import Search

    found = []
    factors = (detector.scale_factor, *(f for f in SCALE_FACTORS if f > detector.scale_factor))
    # And the rule for groups that was not asked for.
    other = SUPPRESSION if detector.suppression is None else None
    tried = [(f, detector.suppression) for f in factors] + [(detector.scale_factor, other)]
    for factor, suppression in tried:
        one = detector.replace(scale_factor=factor, suppression=suppression)
        looked = wrap(images, f"{result.name}, scale factor {factor:g}")
        found.append(Search(one, cascade, operating_curves(one, looked, rules, alignment=result.alignment)))
    return found


def measure(
    detector: Detector,
    cascade: str,
    images: Sequence[LabelledImage],
    runs: Sequence[ImageRun],
    rules: Rules,
    wrap: Wrap,
) -> Measured:
    """Return what a page shows of a cascade that was run on labelled images; parameters as for `searches`."""
    from vj.evaluation.measure import evaluate

    result = evaluate(detector.cascade.name.removeprefix("haarcascade_"), runs, rules)
    return measured(result, runs, detector, searches(detector, cascade, images, rules, result, wrap))


def measured(
    result: Evaluation, runs: Sequence[ImageRun], detector: Detector | None = None, found: Sequence[Search] = ()
) -> Measured:
    """Return what a page shows of a detector; for what is no cascade without `detector`."""
    from vj.evaluation.rejection import profile_of
    from vj.html.evaluation import Measured

    paths = [run.image.path for run in runs if run.found is not None]
    profile = None
    if detector is not None:
        profile = profile_of(detector.cascade, (run.cost for run in runs if run.cost is not None))
    return Measured(result, paths, found, profile, detector)


class TrainingPage:
    """The page ``report.html`` of a run, rewritten while the run continues; never in its way.

    Writing takes at most a fiftieth of the run's time, and an error is reported once and ends nothing.

    Parameters
    ----------
    folder : Path
        Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "report.html"
        self.training: Training | None = None
        self.ended = self._failed = False
        self._hardest: Any = None
        self._last, self._cost = float("-inf"), 0.0

    def __enter__(self) -> TrainingPage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if not self.ended and self.training is not None and self.training.reports:
            self.end(f"ended early: {error or (kind.__name__ if kind else 'stopped')}")

    def heard(self, tell: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """Return a progress callback that also keeps the page up to date."""

        def step(done: Progress) -> None:
            tell(done)
            # Before, there are no samples to show.
            if done.kind in ("mining", "round", "pruning"):
                from vj.html.training import REFRESH

                self._refresh(REFRESH, done)

        return step

    def stage(self) -> None:
        """Show a finished stage."""
        self._hardest = None
        self._refresh(1.0, None)

    def end(self, status: str, sections: Sequence[Section] = ()) -> None:
        """Write the page for the last time; it no longer reloads itself."""
        self.ended, self._hardest = True, None
        self._write(status, running=False, sections=sections)

    def _refresh(self, seconds: float, step: Progress | None) -> None:
        if perf_counter() - self._last > max(seconds, _SHARE * self._cost):
            self._write(_doing(step), running=True)

    def _write(self, status: str, *, running: bool, sections: Sequence[Section] = ()) -> None:
        start = perf_counter()
        try:
            from vj.html.training import Run, training_page

            training = self.training
            if training is None:
                return
            reports = training.reports
            if self._hardest is None:
                self._hardest = training.hardest_negatives(60)
            run = Run(
                name=str(self.path.parent),
                reports=reports,
                cascade=training.cascade if reports else None,
                positives=training.positives.windows,
                hardest=self._hardest,
                notes=tuple(training.notes),
                stages=training.config.stages,
            )
            page = training_page(run, status=status, running=running, measured=sections)
            write_text(self.path, page.render())
        except Exception as error:  # whatever it is, hours of training must not end for a page
            if not self._failed:
                _common.report("vj-train", f"{self.path}: could not be written, training continues: {error}")
            self._failed = True
        self._last = perf_counter()
        self._cost = self._last - start


def _doing(step: Progress | None) -> str:
    from datetime import datetime

    text = "training"
    if step is not None:
        text = f"stage {step.stage + 1}: "
        if step.kind == "mining":
            text += f"mining, {step.found:,} of {step.wanted:,} negatives found"
        elif step.round is not None:
            rate = step.round.false_alarm_rate
            text += f"boosting, {step.round.weak_count} weak classifiers, false alarm rate {rate:.3f}"
        else:
            text += step.kind
    return f"{text} (as of {datetime.now():%H:%M:%S}; this page refreshes itself)"
