"""What to change when training goes badly: one line with the cause and what helps, or nothing."""

from __future__ import annotations

import numpy as np

from vj._types import Floats
from vj.boosting.progress import StageReport
from vj.boosting.recipe import TrainingConfig

# No stage gets below this share of its negatives: a smaller goal means that max_weak_count is to end the stage.
_NO_GOAL = 0.01

_FEW_OBJECTS = 100

# Share of the boxes.
_AT_BORDER = 0.05

# How far the objects' aspect may be from the window's: a quarter, as a square around a box of 4 to 5.
_ASPECT = 1.25


def stage_advice(report: StageReport, config: TrainingConfig) -> str:
    """Return why a stage missed its goal and what helps; empty if it did not.

    Parameters
    ----------
    report : StageReport
    config : TrainingConfig
        Of this stage; see `TrainingConfig.of_stage`.
    """
    rate, goal = report.false_alarm_rate, config.max_false_alarm_rate
    if rate > goal > _NO_GOAL:
        missed = f"{_percent(rate)} of the negatives pass, {_percent(goal)} were asked for"
        return f"{missed}: {_cause(report, config)}"
    if _far_below(report, config.min_hit_rate):
        return (
            f"only {_percent(report.hit_rate)} of the {report.held_out} held-out positives pass, "
            f"{_percent(config.min_hit_rate)} were asked for: the stage fits the training positives alone; "
            f"more positives help, as do copies (jitter, mirror)"
        )
    return ""


def _cause(report: StageReport, config: TrainingConfig) -> str:
    lost, held_lost = 1 - report.training_hit_rate, 1 - report.hit_rate
    # The threshold is set on the held-out positives, and the training positives have room to spare.
    if report.held_out and lost <= (1 - config.min_hit_rate) / 4 and held_lost > 2 * lost:
        return (
            f"the stage fits its training positives (hit rate {report.training_hit_rate:.4f}) better than the held-out "
            f"ones ({report.hit_rate:.4f}), which set the threshold; more positives, copies (jitter, mirror) or a "
            f"lower min_hit_rate help"
        )
    if report.weak_classifiers < config.max_weak_count:
        return (
            "no feature separates what is left; positives that do not show the object, or negatives that do, are the "
            "usual reason"
        )
    return (
        f"{report.weak_classifiers} weak classifiers are too few; a larger max_weak_count, a larger max_depth or a "
        f"lower min_hit_rate helps"
    )


def _far_below(report: StageReport, min_hit_rate: float) -> bool:
    """Whether more held-out positives are lost than chance explains: two standard deviations and one more."""
    expected = (1 - min_hit_rate) * report.held_out
    return (1 - report.hit_rate) * report.held_out > expected + 2 * float(np.sqrt(expected)) + 1


def data_advice(config: TrainingConfig, objects: int, sizes: Floats, at_border: int = 0) -> list[str]:
    """Return what to change about the positives before training.

    Parameters
    ----------
    config : TrainingConfig
    objects : int
        Number of positives without their copies.
    sizes : ndarray of float64, shape (n, 2)
        Width and height of the objects whose box is known.
    at_border : int
        Objects whose box touches the border of the image.

    Returns
    -------
    list of str
        Empty if nothing stands out.
    """
    found = []
    if objects < _FEW_OBJECTS:
        found.append(
            f"{objects} positives are few: a cascade needs hundreds to find objects it has not seen; label more, and "
            f"add copies (jitter, mirror)"
        )
    if at_border > _AT_BORDER * objects:
        found.append(
            f"{at_border} of {objects} boxes touch the border of their image, which may cut the object off; leave out "
            f"those that show less than most of it"
        )
    sizes = sizes[(sizes > 0).all(axis=1)]
    if len(sizes):
        width, height = config.window
        ratio = float(np.exp(np.median(np.log(sizes[:, 0] / sizes[:, 1]))))
        if max(ratio * height / width, width / height / ratio) > _ASPECT:
            fit = _window(width * height, ratio)
            found.append(
                f"the typical object is {ratio:.2f} times as wide as it is high, the window {width}x{height} "
                f"{width / height:.2f} times; window {fit[0]}x{fit[1]} fits better"
            )
    return found


def _window(area: int, ratio: float) -> tuple[int, int]:
    """Return the window of about this area whose width is `ratio` times its height, within the sizes allowed."""
    width = float(np.clip(np.sqrt(area * ratio), 8, 128))
    height = float(np.clip(width / ratio, 8, 128))
    return round(np.clip(height * ratio, 8, 128)), round(height)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
