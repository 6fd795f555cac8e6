"""Run a detector over labelled images and measure how good it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vj.cascade.model import Cascade
from vj.datasets.labelled import LabelledImage, Wanted
from vj.detector import Cost, Detector
from vj.errors import InputError
from vj.evaluation.curves import FALSE_POSITIVES, Curve, curve
from vj.evaluation.fddb import fddb_curves
from vj.evaluation.matching import TRUE, Alignment, Found, Matches, Truth, fit_alignment, match
from vj.images import read_bgr

Detect = Callable[[npt.NDArray[np.uint8]], Found]
"""From a BGR image (h, w, 3) to what is found in it."""


@dataclass(frozen=True, eq=False)
class ImageRun:
    """What a detector found in one image.

    Parameters
    ----------
    image : LabelledImage
    found : Found or None
        None if the image could not be read.
    seconds : float
        Wall time of the detector alone.
    error : str
        Why the image could not be read.
    cost : Cost, optional
        For a cascade: what scanning the image took.
    """

    image: LabelledImage
    found: Found | None
    seconds: float = 0.0
    error: str = ""
    cost: Cost | None = None


def run_detector(
    detect: Detect, images: Iterable[LabelledImage], cost: Callable[[npt.NDArray[np.uint8]], Cost] | None = None
) -> Iterator[ImageRun]:
    """Yield what a detector finds in each image; for one that cannot be read, the error is yielded, not raised.

    Parameters
    ----------
    detect : callable
        From a BGR image to `Found`.
    images : iterable of LabelledImage
    cost : callable, optional
        From a BGR image to its `Cost`, such as the `cost` of a `vj.Detector`; not part of the time reported.
    """
    warm = False
    for image in images:
        try:
            pixels = read_bgr(image.path)
        except InputError as error:
            yield ImageRun(image, None, error=str(error))
            continue
        if not warm:
            # The first call may compile, or load what was compiled.
            warm = detect(pixels) is not None
        start = time.perf_counter()
        found = detect(pixels)
        seconds = time.perf_counter() - start
        yield ImageRun(image, found, seconds, cost=None if cost is None else cost(pixels))


def cascade_detector(cascade: Cascade, **settings: Any) -> Detect:
    """Return a cascade as a detector to be measured; settings as for `vj.Detector`."""
    return measurable(Detector(cascade, **settings))


def measurable(detector: Any) -> Detect:
    """Return a detector so that `run_detector` takes it.

    Parameters
    ----------
    detector : object
        Whatever has ``detect(image)`` and returns `vj.Detections`: `vj.Detector`, `vj.tiers.Regions`,
        `vj.tiers.Escalating`, `vj.tiers.YuNet`, ... What several cascades found is ranked by probability if there is
        one, since their scores are not comparable; of equal probabilities the higher score.
    """

    def detect(image: npt.NDArray[np.uint8]) -> Found:
        found = detector.detect(image)
        scores = found.scores
        if found.sources is not None and found.probabilities is not None:
            # Far less than the probabilities of two blocks of a calibration differ by.
            scores = found.probabilities + _TIE * np.tanh(scores / _LARGE)
        return Found(found.boxes.astype(np.float64), scores)

    return detect


_TIE, _LARGE = 1e-6, 100.0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good a detector is on a set of images.

    Parameters
    ----------
    name : str
        Of the detector.
    curve : Curve
    alignment : Alignment
        Applied to its boxes before they were matched.
    found : list of Found
        Detections of each image, aligned.
    truth : list of Truth
    matches : list of Matches
    milliseconds : float
        Mean wall time of the detector for an image.
    fddb : (Curve, Curve) or None
        Discrete and continuous scores, where every object has its ellipse.
    cost : WindowCost or None
        For a cascade: what it evaluates for each window visited.
    """

    name: str
    curve: Curve
    alignment: Alignment
    found: list[Found]
    truth: list[Truth]
    matches: list[Matches]
    milliseconds: float
    fddb: tuple[Curve, Curve] | None = None
    cost: WindowCost | None = None

    def missed(self, k: int) -> npt.NDArray[np.int64]:
        """Return the wanted objects of image `k` that no detection found, whatever its score."""
        found = self.matches[k].face[self.matches[k].outcome == TRUE]
        wanted = np.flatnonzero(~self.truth[k].ignored)
        return np.setdiff1d(wanted, found)


class WindowCost(NamedTuple):
    """What a cascade evaluates for each window it visits, on average; the two differ if it has trees of several nodes.

    Parameters
    ----------
    weak_classifiers, features : float
    """

    weak_classifiers: float
    features: float


@dataclass(frozen=True)
class Rules:
    """How detections are compared with labels.

    Parameters
    ----------
    wanted : Wanted
        Which objects are asked for.
    iou_threshold : float
        Smallest overlap of a match.
    align : bool
        Whether to fit one shift and scale to all boxes of a detector first: what a box holds differs between them.
    """

    wanted: Wanted = field(default_factory=Wanted)
    iou_threshold: float = 0.5
    align: bool = False


def evaluate(name: str, runs: Sequence[ImageRun], rules: Rules) -> Evaluation:
    """Compare what a detector found with the labels.

    Parameters
    ----------
    name : str
        Of the detector.
    runs : sequence of ImageRun
        Images that could not be read are left out, with their objects.
    rules : Rules

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If no image could be read, or no object is asked for.
    """
    usable = [(run.image, run.found, run.seconds) for run in runs if run.found is not None]
    if not usable:
        raise InputError(f"expected images that can be read, got none of {len(runs)}")
    truth = [Truth(image.boxes, rules.wanted.ignored(image)) for image, _, _ in usable]
    found = [one for _, one, _ in usable]
    alignment = fit_alignment(found, truth, rules.iou_threshold) if rules.align else Alignment()
    found = [Found(alignment.apply(one.boxes), one.scores) for one in found]
    matches = [match(f, t, rules.iou_threshold) for f, t in zip(found, truth, strict=True)]
    result = curve([f.scores for f in found], matches, sum(t.n_wanted for t in truth))
    costs = [run.cost for run in runs if run.cost is not None]
    return Evaluation(
        name=name,
        curve=result,
        alignment=alignment,
        found=found,
        truth=truth,
        matches=matches,
        milliseconds=1000 * float(np.mean([seconds for _, _, seconds in usable])),
        fddb=_fddb(found, [image for image, _, _ in usable]),
        cost=window_cost(costs) if costs else None,
    )


def _fddb(found: list[Found], images: list[LabelledImage]) -> tuple[Curve, Curve] | None:
    ellipses = [np.zeros((0, 5)) if image.ellipses is None else image.ellipses for image in images]
    # Scored only where every face has its ellipse.
    if any(len(e) != len(image) for e, image in zip(ellipses, images, strict=True)):
        return None
    return fddb_curves(found, ellipses)


def window_cost(costs: Iterable[Cost]) -> WindowCost:
    """Return what a cascade evaluates for each window it visits, over all windows of all images.

    Parameters
    ----------
    costs : iterable of Cost
        What `vj.Detector.cost` returned for each image.
    """
    windows = weak_classifiers = features = 0
    for cost in costs:
        windows += int(cost.windows.sum())
        weak_classifiers += int(cost.weak_classifiers.sum())
        features += int(cost.features.sum())
    return WindowCost(weak_classifiers / max(windows, 1), features / max(windows, 1))


def as_figures(
    result: Evaluation,
    false_positives_per_image: Sequence[float] = (0.1, 1.0),
    false_positives: Sequence[int] = FALSE_POSITIVES,
) -> dict[str, Any]:
    """Return the plain figures of an evaluation: what goes into JSON and tables.

    Parameters
    ----------
    result : Evaluation
    false_positives_per_image : sequence of float
        Rates at which recall is reported.
    false_positives : sequence of int
        Counts in the whole set at which it is reported, too.
    """
    found = result.curve
    figures: dict[str, Any] = {
        "name": result.name,
        "average_precision": round(found.average_precision, 5),
        "recall_at": {str(k): round(found.recall_at(k), 5) for k in false_positives},
        "recall_at_per_image": {
            f"{rate:g}": round(found.recall_at(rate * found.n_images), 5) for rate in false_positives_per_image
        },
        "detections": {"true": int(found.true[-1]), "false": int(found.false[-1])} if len(found.true) else None,
        "alignment": {"dx": result.alignment.dx, "dy": result.alignment.dy, "scale": result.alignment.scale},
        "milliseconds_per_image": round(result.milliseconds, 3),
    }
    if result.cost is not None:
        figures["weak_classifiers_per_window"] = round(result.cost.weak_classifiers, 3)
        figures["features_per_window"] = round(result.cost.features, 3)
    if result.fddb is not None:
        for kind, scores in zip(("discrete", "continuous"), result.fddb, strict=True):
            figures[f"fddb_{kind}_at"] = {str(k): round(scores.recall_at(k), 5) for k in false_positives}
    return figures
