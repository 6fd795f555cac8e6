"""What a run tells: a report for each stage, and the steps in between."""

from __future__ import annotations

from dataclasses import dataclass

from vj.boosting.stage import Round


@dataclass(frozen=True)
class StageReport:
    """What one stage came to.

    Parameters
    ----------
    index : int
    weak_classifiers : int
    threshold : float
    hit_rate : float
        Share of the held-out positives (of all, if none were held out) that pass this stage.
    training_hit_rate : float
        The same of the positives it was boosted on.
    false_alarm_rate : float
        Share of the stage's negatives that pass it.
    positives, held_out, negatives : int
        Numbers of samples.
    windows_scanned : int
        Background windows looked at to find the stage's new negatives.
    acceptance_ratio : float
        Share of them that passed all stages before this one.
    mining_seconds, seconds : float
        Wall time of the mining and of the whole stage.
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


@dataclass(frozen=True)
class Progress:
    """A step within a stage, for whoever shows it.

    Parameters
    ----------
    kind : {'note', 'positives', 'backgrounds', 'mining', 'binning', 'round', 'pruning'}
    stage : int
    text : str
        For a note: one sentence.
    found, wanted, scanned, accepted : int
        While mining: negatives taken and wanted, windows scanned and, of these, accepted by the stages so far.
    round : Round or None
        After a weak classifier.
    """

    kind: str
    stage: int
    text: str = ""
    found: int = 0
    wanted: int = 0
    scanned: int = 0
    accepted: int = 0
    round: Round | None = None
