"""What a run reports: a `StageReport` for each stage, and the steps in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vj import _notebook
from vj.boosting.stage import Round


@dataclass(frozen=True)
class StageReport:
    """Results of one stage.

    After pruning, threshold, rates and ratio are those of the raised stage; the rest is as in training.

    Parameters
    ----------
    index : int
    weak_classifiers : int
    threshold : float
    hit_rate : float
        Share of the held-out positives reaching this stage that pass it; of the training positives if none are held
        out.
    training_hit_rate : float
        Same for the positives it was boosted on; after pruning, for all that are not held out.
    false_alarm_rate : float
        Share of the stage's negatives that pass it; after pruning, of the background windows that reach it.
    positives, held_out, negatives : int
        Numbers of samples.
    windows_scanned : int
        Background windows scanned to find the stage's new negatives.
    acceptance_ratio : float
        Share of the background windows that reach this stage, that is, pass all earlier ones.
    mining_seconds, seconds : float
        Wall time of the mining and of the whole stage.
    advice : str
        One line on why the stage missed its goal and what helps; empty if it did not.
    """

    index: int
    weak_classifiers: int
    threshold: float
    hit_rate: float
    training_hit_rate: float
    false_alarm_rate: float
    positives: int
    held_out: int
    negatives: int
    windows_scanned: int
    acceptance_ratio: float
    mining_seconds: float
    seconds: float
    advice: str = ""

    def _repr_html_(self) -> str:
        return reports_html(f"stage {self.index + 1}", [self], [self.advice] * bool(self.advice))


def reports_html(caption: str, reports: Sequence[StageReport], notes: Sequence[str] = ()) -> str:
    """Return what a notebook shows of some stages: a row for each, below the notes."""
    head = ["stage", "weak classifiers", "hit rate", "on training positives", "false alarm rate", "negatives"]
    head += ["windows scanned", "seconds"]
    rows = [
        [
            r.index + 1,
            r.weak_classifiers,
            f"{r.hit_rate:.4f}",
            f"{r.training_hit_rate:.4f}",
            f"{r.false_alarm_rate:.4f}",
            f"{r.negatives:,}",
            f"{r.windows_scanned:,}",
            f"{r.seconds:.1f}",
        ]
        for r in reports
    ]
    return _notebook.card(caption, head, rows, [("note", note) for note in notes])


@dataclass(frozen=True)
class Progress:
    """One step of a run, for progress displays.

    Parameters
    ----------
    kind : {'note', 'positives', 'backgrounds', 'mining', 'binning', 'round', 'pruning'}
    stage : int
    text : str
        For a note: one line.
    found, wanted, scanned, hits : int
        While mining: negatives found and wanted, windows scanned, and how many of these passed all stages so far.
        While pruning: windows scanned to measure the raised stages.
    round : Round or None
        After a weak classifier.
    """

    kind: str
    stage: int
    text: str = ""
    found: int = 0
    wanted: int = 0
    scanned: int = 0
    hits: int = 0
    round: Round | None = None
