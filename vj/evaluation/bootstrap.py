"""How far figures would move with other images of the same kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vj.evaluation.curves import Curve, curve
from vj.evaluation.measure import Evaluation


def interval(
    result: Evaluation, figure: Callable[[Curve], float], *, samples: int = 400, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of a figure under resampling of whole images.

    Images, not objects, are drawn: the objects and errors of one image belong together (Efron and Tibshirani 1993,
    chapter 13). The alignment is kept.

    Parameters
    ----------
    result : Evaluation
    figure : callable
        From a `Curve` to the figure, such as ``lambda c: c.average_precision``. Counts of false positives refer to as
        many images as the set has.
    samples, seed : int
        Number of resamplings, and where their drawing starts.

    Returns
    -------
    low, high : float
    """
    rng = np.random.default_rng(seed)
    n = len(result.truth)
    wanted = np.array([truth.n_wanted for truth in result.truth])
    values: list[float] = []
    while len(values) < samples:
        drawn = rng.integers(0, n, n)
        # A draw without any object has no figure.
        if wanted[drawn].sum() == 0:
            continue
        scores = [result.found[k].scores for k in drawn]
        values.append(figure(curve(scores, [result.matches[k] for k in drawn], int(wanted[drawn].sum()))))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
