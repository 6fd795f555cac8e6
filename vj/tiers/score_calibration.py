"""Calibrating a detector: from the scores of its detections to the probability that they are objects."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vj.cascade.calibration import ScoreCalibration
from vj.errors import InputError
from vj.evaluation.matching import NEITHER, TRUE
from vj.evaluation.measure import Evaluation
from vj.tiers.calibration import Reliability, brier_score, expected_calibration_error, isotonic, reliability

FEW = 30
"""With fewer true or fewer false detections than this the curve is a rough one, and its error is not known."""

SPLITS = 10
"""Times that the images are split into halves to measure the error."""


class Judged(NamedTuple):
    """Detections that count, of all images together.

    Parameters
    ----------
    image : ndarray of int64, shape (n,)
        Index of the image.
    scores : ndarray of float64, shape (n,)
    true : ndarray of float64, shape (n,)
        1 if it found an object, 0 if not. Detections of ignored objects are left out.
    """

    image: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    true: npt.NDArray[np.float64]


def judged(result: Evaluation) -> Judged:
    """Return the detections of an evaluation with what became of them."""
    counts = [len(found.scores) for found in result.found]
    image = np.repeat(np.arange(len(counts)), counts)
    scores = np.concatenate([np.zeros(0), *(found.scores for found in result.found)])
    outcome = np.concatenate([np.zeros(0), *(matches.outcome for matches in result.matches)])
    keep = outcome != NEITHER
    return Judged(image[keep], scores[keep], (outcome[keep] == TRUE).astype(np.float64))


def fit_scores(result: Evaluation, source: str = "") -> ScoreCalibration:
    """Fit the calibration of a detector's scores by isotonic regression.

    Detections of every score should be in it: run the detector without a limit on neighbours.

    Parameters
    ----------
    result : Evaluation
        The detector on labelled images.
    source : str
        Words about the images and settings, kept with it.

    Raises
    ------
    InputError
        If there are no true or no false detections to learn from.
    """
    found = judged(result)
    true = int(found.true.sum())
    if not 0 < true < len(found.true):
        raise InputError(
            f"expected true and false detections to calibrate with, got {true} true and {len(found.true) - true} false"
        )
    curve = isotonic(found.scores, found.true)
    return ScoreCalibration(np.array(curve.scores), np.array(curve.probabilities), len(found.true), source)


class HeldOut(NamedTuple):
    """How good a calibration is on images that it was not fitted on.

    Parameters
    ----------
    error : float
        Expected calibration error, mean over the halves.
    perfect : float
        What a perfect predictor with the same probabilities shows on as many detections: nobody gets below it.
    brier : float
        Mean squared distance between probability and outcome.
    true, false : int
        Detections of all images.
    reliability : Reliability
        How often detections of about the same probability were true, all halves together; a detection counts once for
        each split.
    """

    error: float
    perfect: float
    brier: float
    true: int
    false: int
    reliability: Reliability


def held_out(result: Evaluation, *, splits: int = SPLITS, seed: int = 0) -> HeldOut:
    """Fit on half of the images and measure on the others, again and again with other halves.

    Parameters
    ----------
    result : Evaluation
    splits : int
        Each gives two measurements, one for each half.
    seed : int

    Raises
    ------
    InputError
        If there are too few images to make halves that each hold detections.
    """
    found = judged(result)
    rng = np.random.default_rng(seed)
    n = len(result.found)
    errors, perfect, brier = [], [], []
    measured: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = []
    for _ in range(splits):
        first = np.isin(found.image, rng.permutation(n)[: n // 2])
        for fit, test in ((first, ~first), (~first, first)):
            if not fit.any() or not test.any():
                continue
            stated = isotonic(found.scores[fit], found.true[fit])(found.scores[test])
            errors.append(expected_calibration_error(stated, found.true[test]))
            brier.append(brier_score(stated, found.true[test]))
            measured.append((stated, found.true[test]))
            # Outcomes drawn from the probabilities themselves.
            perfect.append(expected_calibration_error(stated, rng.random(len(stated)) < stated))
    if not errors:
        raise InputError(f"expected detections in several images, got {len(found.scores)} in {n}")
    true = int(found.true.sum())
    error, least, squared = (float(np.mean(values)) for values in (errors, perfect, brier))
    together = reliability(np.concatenate([p for p, _ in measured]), np.concatenate([true for _, true in measured]))
    return HeldOut(error, least, squared, true, len(found.true) - true, together)
