"""The page of a training run, while it runs and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vj.boosting.progress import StageReport
from vj.boosting.samples import Windows
from vj.cascade.model import Cascade
from vj.html.charts import charts, duration, line_chart, number, percent
from vj.html.page import Page, Section, table, text
from vj.html.windows import features_section, sheet, spread

REFRESH = 10
"""Seconds after which the page of an unfinished run reloads itself."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a page shows of a run.

    Parameters
    ----------
    name : str
        The folder.
    reports : sequence of StageReport
    cascade : Cascade or None
        Of these stages; None if there is none yet.
    positives : ndarray of uint8, shape (n, h, w)
    hardest : ndarray of uint8, shape (n, h, w)
        Negatives that pass all stages, the hardest first; while training, those found so far.
    notes : sequence of str
    stages : int
        Most stages the run may have.
    """

    name: str
    reports: Sequence[StageReport]
    cascade: Cascade | None
    positives: Windows
    hardest: Windows
    notes: Sequence[str] = ()
    stages: int = 0


def training_page(run: Run, *, status: str = "", running: bool = False, measured: Sequence[Section] = ()) -> Page:
    """Return the page of a run.

    Parameters
    ----------
    run : Run
    status : str
        What the run is doing, or how it ended.
    running : bool
        Whether the page should reload itself.
    measured : sequence of Section
        What was measured on labelled images.
    """
    sections = list(measured)
    if run.reports and run.cascade is not None:
        mean = np.rint(run.positives.mean(axis=0)).astype(np.uint8) if len(run.positives) else None
        features = features_section(run.cascade, mean, "On the mean of the positives.")
        sections += [_stages(run.reports), _cost(run.reports, run.cascade), features]
    sections += [_samples(run)]
    facts = _facts(run)
    notes = [f"folder: {run.name}", *run.notes]
    return Page(f"Training: {Path(run.name).name}", sections, facts, status, REFRESH if running else 0, notes)


def _facts(run: Run) -> list[tuple[str, str]]:
    reports = run.reports
    facts = [("stages", f"{len(reports)} of at most {run.stages}")]
    if not reports:
        return facts
    return [
        *facts,
        ("weak classifiers", f"{sum(r.weak_classifiers for r in reports):,}"),
        ("hit rate, all stages", percent(float(np.prod([r.hit_rate for r in reports])))),
        ("false alarm rate, all stages", percent(_alarms(reports)[-1])),
        ("weak classifiers per background window", number(float(_costs(reports)[-1]))),
        ("time", duration(sum(r.seconds for r in reports))),
    ]


def _alarms(reports: Sequence[StageReport]) -> list[float]:
    """Return the share of negatives that the stages up to each let through, as the product of their rates."""
    return [float(v) for v in np.cumprod([r.false_alarm_rate for r in reports])]


def _costs(reports: Sequence[StageReport]) -> list[float]:
    """Return the weak classifiers that a background window costs, up to and including each stage."""
    return [float(v) for v in np.cumsum([r.weak_classifiers * r.acceptance_ratio for r in reports])]


def _stages(reports: Sequence[StageReport]) -> Section:
    numbers = [r.index + 1 for r in reports]
    hits = [r.hit_rate for r in reports]
    alarms = [r.false_alarm_rate for r in reports]
    held = any(r.held_out for r in reports)
    drawn = charts(
        [
            line_chart(
                "Hit rate",
                ("stage", numbers),
                {
                    "each stage": 100 * np.array(hits),
                    "all stages so far": 100 * np.cumprod(hits),
                    "on training positives": 100 * np.array([r.training_hit_rate for r in reports]),
                },
                unit=" %",
                span=(None, 100),
            ),
            line_chart(
                "False alarm rate",
                ("stage", numbers),
                {"each stage": 100 * np.array(alarms), "all stages so far": 100 * np.array(_alarms(reports))},
                unit=" %",
                log=True,
            ),
        ]
    )
    head = ["stage", "weak classifiers", "hit rate", "on training positives", "false alarm rate", "all so far"]
    head += ["positives", "held out", "negatives", "windows scanned", "time"]
    rows = [
        [
            f"{r.index + 1}",
            f"{r.weak_classifiers}",
            percent(r.hit_rate),
            percent(r.training_hit_rate),
            percent(r.false_alarm_rate),
            percent(together),
            f"{r.positives:,}",
            f"{r.held_out:,}",
            f"{r.negatives:,}",
            f"{r.windows_scanned:,}",
            duration(r.seconds),
        ]
        for r, together in zip(reports, _alarms(reports), strict=True)
    ]
    on = "held-out positives, which boosting never sees" if held else "the training positives, as none are held out"
    advice = "".join(f"<li>Stage {r.index + 1}: {text(r.advice)}</li>" for r in reports if r.advice)
    body = (
        f"<p>Hit rates are shares of {on}; false alarm rates are shares of each stage's own negatives, which "
        f"all earlier stages let through.</p>{drawn}{table(head, rows, 'Stages')}"
        + (f'<ul class="advice">{advice}</ul>' if advice else "")
    )
    return Section("stages", "Stages", body)


def _cost(reports: Sequence[StageReport], cascade: Cascade) -> Section:
    numbers = [r.index + 1 for r in reports]
    arriving = [r.acceptance_ratio for r in reports]
    what = "features" if cascade.is_stumps else "weak classifiers"
    own = [r.weak_classifiers * r.acceptance_ratio for r in reports]
    drawn = charts(
        [
            line_chart(
                "Background windows that arrive",
                ("stage", numbers),
                {"arriving": 100 * np.array(arriving)},
                unit=" %",
                log=True,
            ),
            line_chart(
                f"{what.capitalize()} per window",
                ("stage", numbers),
                {"in each stage": own, "up to here": _costs(reports)},
                span=(0, None),
            ),
        ]
    )
    rows = [
        [f"{r.index + 1}", percent(r.acceptance_ratio), f"{r.weak_classifiers}", number(here), number(total)]
        for r, here, total in zip(reports, own, _costs(reports), strict=True)
    ]
    head = ["stage", "windows arriving", f"{what} in the stage", f"{what} per window", "up to here"]
    body = (
        "<p>What a background window costs on average: few windows reach the late stages, so that their many "
        f"{what} cost little. Shares are of the windows scanned for negatives.</p>{drawn}"
        f"{table(head, rows, 'Cost per window')}"
    )
    return Section("cost", "Cost per window", body)


def _samples(run: Run) -> Section:
    body = f"<h3>Positives</h3>{sheet(spread(run.positives), 'Some of the positives, as the trainer sees them')}"
    if len(run.hardest):
        body += (
            "<h3>Hardest negatives</h3><p>Windows of the backgrounds that pass the stages so far. "
            "If the object is among them, the backgrounds contain it.</p>"
            f"{sheet(run.hardest, 'The hardest negatives')}"
        )
    return Section("samples", "Samples", body)
