"""Raise all stage thresholds together at the end of a run, so that a window is rejected where that costs least.

A stage is trained without knowing which positives later stages will lose; rejecting those earlier makes the cascade
cheaper. So does giving up a few more, chosen where they save the most.

References
----------
C. Zhang and P. Viola, "Multiple-instance pruning for learning efficient cascade detectors", NIPS 2007: thresholds are
set from the positives that the whole cascade finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vj._types import Floats
from vj.boosting.feature_values import FeatureTable
from vj.boosting.progress import StageReport
from vj.boosting.samples import Windows, prepare
from vj.boosting.stage import Stage, stage_limit, stage_threshold

# Windows evaluated at a time: 10 MB of integral images at 24x24.
_CHUNK = 4096

# A step uses one of this many parts of the budget, so that stages take turns.
_STEPS = 64


def stage_sums(table: FeatureTable, stages: Sequence[Stage], windows: Windows, *, tilted: bool) -> Floats:
    """Return every window's sum in every stage that it reaches.

    Parameters
    ----------
    table : FeatureTable
    stages : sequence of Stage
    windows : ndarray of uint8, shape (n, height, width)
    tilted : bool
        Whether any feature is tilted.

    Returns
    -------
    ndarray of float64, shape (n, n_stages)
        Minus infinity in the stages after the one that rejects the window.
    """
    sums = np.full((len(windows), len(stages)), -np.inf)
    for first in range(0, len(windows), _CHUNK):
        alive = np.arange(first, min(first + _CHUNK, len(windows)))
        for k, stage in enumerate(stages):
            if not len(alive):
                break
            sums[alive, k] = stage.sums(table, prepare(windows[alive], tilted=tilted))
            alive = alive[sums[alive, k] >= stage_limit(stage.threshold)]
    return sums


def depths(table: FeatureTable, stages: Sequence[Stage], windows: Windows, *, tilted: bool) -> npt.NDArray[np.int64]:
    """Return how many stages each window passes, from the first on; shape (n,). See `stage_sums` for the parameters."""
    limits = [stage_limit(stage.threshold) for stage in stages]
    return np.asarray((stage_sums(table, stages, windows, tilted=tilted) >= limits).sum(axis=1), dtype=np.int64)


def prune(
    table: FeatureTable, stages: Sequence[Stage], groups: tuple[Windows, Windows], share: float, *, tilted: bool
) -> tuple[list[Stage], str]:
    """Raise the thresholds of trained stages together.

    Parameters
    ----------
    table : FeatureTable
    stages : sequence of Stage
    groups : (ndarray of uint8, ndarray of uint8)
        Held-out positives that pass all stages, and background windows that no stage has seen.
    share : float
        Of the positives, 0 to 1, that may be lost.
    tilted : bool

    Returns
    -------
    (list of Stage, str)
        The raised stages, and one line on the effect.
    """
    positives, negatives = (stage_sums(table, stages, windows, tilted=tilted) for windows in groups)
    costs = [sum(len(tree.splits) for tree in stage.added) for stage in stages]
    thresholds = pruned_thresholds([stage.threshold for stage in stages], costs, positives, negatives, share)
    raised = [replace(stage, threshold=t) for stage, t in zip(stages, thresholds, strict=True)]
    limits = [np.array([stage_limit(stage.threshold) for stage in kind]) for kind in (stages, raised)]
    before, after = (cost_of_window(costs, negatives, one) for one in limits)
    lost = 1 - float((positives >= limits[1]).all(axis=1).mean())
    return raised, (
        f"thresholds raised together: a window with contrast costs {after:.2f} features instead of {before:.2f}; "
        f"{100 * lost:.1f} % of the held-out positives that were found are lost; reports describe the raised stages"
    )


def measured(
    reports: Sequence[StageReport],
    stages: Sequence[Stage],
    positives: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    reached: npt.NDArray[np.float64],
) -> list[StageReport]:
    """Return reports that describe raised stages.

    Numbers of samples, windows scanned and times stay as they were in training. The rates on backgrounds come from a
    scan and not from each stage's negatives, which the earlier stages chose before they were raised, and which the
    stage was boosted on: in a small run they underestimated the share of windows that reach a stage by a factor of 2
    to 10.

    Parameters
    ----------
    reports : sequence of StageReport
        Of the stages as they were trained.
    stages : sequence of Stage
        Raised.
    positives : (ndarray of int64, ndarray of int64)
        How many raised stages the positives pass, those held out and the others.
    reached : ndarray of float64, shape (n_stages + 1,)
        Shares of background windows that reach each stage, and that pass all of them.

    Returns
    -------
    list of StageReport
    """
    result = []
    for k, (report, stage) in enumerate(zip(reports, stages, strict=True)):
        held, training = ((depth[depth >= k] > k).mean() if (depth >= k).any() else 0.0 for depth in positives)
        result.append(
            replace(
                report,
                threshold=float(stage.threshold),
                hit_rate=float(held),
                training_hit_rate=float(training),
                false_alarm_rate=float(reached[k + 1] / reached[k]) if reached[k] else 0.0,
                acceptance_ratio=float(reached[k]),
            )
        )
    return result


def cost_of_window(costs: Sequence[int], sums: Floats, limits: Floats) -> float:
    """Return the features that a window costs on average, from the windows' `stage_sums` and the stage limits."""
    passed = np.logical_and.accumulate(sums >= limits, axis=1)[:, :-1]
    entered = np.column_stack([np.ones(len(sums), dtype=np.bool_), passed])
    return float(entered.mean(axis=0) @ np.asarray(costs, dtype=np.float64)) if len(sums) else 0.0


def pruned_thresholds(
    thresholds: Sequence[np.float32], costs: Sequence[int], positives: Floats, negatives: Floats, share: float
) -> list[np.float32]:
    """Raise thresholds so that negatives cost the least while all but a share of the positives found is still found.

    Greedy: each step raises the threshold that saves the most per positive lost.

    Parameters
    ----------
    thresholds : sequence of float32, length n_stages
    costs : sequence of int, length n_stages
        Features evaluated in each stage.
    positives, negatives : ndarray of float64, shape (n, n_stages)
        From `stage_sums`.
    share : float
        Of the positives that pass all stages, 0 to 1.

    Returns
    -------
    list of float32
        Each at least as high as before.
    """
    result = list(thresholds)
    limits = np.array([stage_limit(t) for t in thresholds])
    positives = positives[(positives >= limits).all(axis=1)]
    budget = int(share * len(positives) + 1e-9)
    step = max(1, budget // _STEPS)
    kept = len(positives) - budget
    cost = np.asarray(costs, dtype=np.float64)
    # Every window costs the first stage; thresholds decide about the rest.
    entered = np.column_stack([np.ones(len(negatives), dtype=np.bool_), (negatives >= limits)[:, :-1]])
    entered = np.logical_and.accumulate(entered, axis=1)
    while len(positives):
        best: tuple[float, int, np.float32] | None = None
        after = np.cumsum((entered * cost)[:, ::-1], axis=1)[:, ::-1] - entered * cost
        for k in range(len(result)):
            ordered = np.sort(positives[:, k])
            # Longer steps as well: there may be no negative between one positive and the next.
            for lost in sorted({min(n, len(positives) - kept) for n in (0, 1, step, 4 * step, budget)}):
                raised = stage_threshold(ordered[lost:], 1.0)
                if raised <= result[k]:
                    continue
                gone = entered[:, k] & (negatives[:, k] < stage_limit(raised))
                saved = float(after[gone, k].sum()) / (np.count_nonzero(ordered < stage_limit(raised)) + 0.1)
                if saved > 0 and (best is None or saved > best[0]):
                    best = (saved, k, raised)
        if best is None:
            break
        _, k, raised = best
        result[k] = raised
        positives = positives[positives[:, k] >= stage_limit(raised)]
        entered[:, k + 1 :] &= (negatives[:, k] >= stage_limit(raised))[:, None]
    return result
