"""Search for the stage thresholds of a cascade on labelled images: the amounts of a recipe's `loosening`.

    python -m training.thresholds CASCADE IMAGES[=BUDGET] [IMAGES[=BUDGET] ...] [--cost X] [--minutes M]

With a budget, a number of proposals per image, the search raises the share of the objects that the best proposals
touch; without one, the average precision and the share found with 10 and 50 false positives, and the first stage is
left as it is. `frontal:` before a path asks for WIDER FACE's frontal part alone. All hits of the cascade with much
lower thresholds are kept with their sums at every stage, and so is a sample of all windows, so that what any thresholds
would find and cost follows without another scan. Every image is scanned three times, mirrored and half a step of the
scales larger as well: thresholds searched for on the images alone touched 95 % of FDDB's faces at a scale factor of
1.2, and 92 to 93 % at 1.19 and 1.21. Random steps cost at most X times what the cascade does as given; worse steps are
taken less and less often (simulated annealing). It prints the amounts, and what they give.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy import PROPOSALS, SUPPRESSED, TOUCHED
from vj._types import Floats, Gray
from vj.cascade.model import Cascade
from vj.cascade.opencv_xml import load
from vj.datasets.formats import read_labelled
from vj.datasets.labelled import FRONTAL, Wanted
from vj.detector import Detector, clip_boxes
from vj.evaluation.curves import Curve, curve
from vj.evaluation.matching import Alignment, Found, Truth, fit_alignment, match, overlaps
from vj.images import read_bgr, to_gray
from vj.scanning.grouping import suppress_groups
from vj.scanning.planes import resize

TREE = 4.0
"""Time of a tree of depth 2, in those of a stump: 4.0 and 1.0 ns for a window of FDDB's images."""
SAMPLE = 150
"""Windows of each image that are kept for every stage they reach."""
NEAR = {0.5: 0.1, 0.8: 0.3, 1.0: 1.0, 1.33: 0.3}
"""Parts of the budget, and how much the share touched by so many proposals counts: one alone is noisy."""
FALSE = {10: 0.25, 50: 0.25}
"""Numbers of false positives in a set, and how much the share found with so many counts; average precision counts 1."""


class Images(NamedTuple):
    """A labelled set, and all that the cascade with low thresholds says about it.

    `budget` is 0 if detections are counted, not proposals. `windows` (n, n_stages) are sums of sampled windows, minus
    infinity after the stage that rejects one, and `weights` how many windows each stands for.
    """

    budget: float
    shapes: list[tuple[int, ...]]
    truth: list[Truth]
    boxes: list[npt.NDArray[np.int32]]
    sums: list[Floats]
    windows: Floats
    weights: Floats
    visited: int


def with_limits(cascade: Cascade, limits: Floats) -> Cascade:
    """Return the cascade with other stage limits."""
    return replace(cascade, stage_thresholds=(limits + 1e-5).astype(np.float32), calibration=None)


def scan(detectors: list[Detector], image: Gray) -> tuple[npt.NDArray[np.int32], Floats, int]:
    """Return the windows that pass the first of some detectors, their sums in each, and the number visited.

    Each has the cascade of the one before with a stage more.
    """
    found = [one.hits(image) for one in detectors]
    # No two windows have the same corner and width. In 64 bits: rows from 2,048 on would not fit.
    corners = [one.boxes.astype(np.int64) for one in found]
    keys = [box[:, 2] << 40 | box[:, 1] << 20 | box[:, 0] for box in corners]
    order = np.argsort(keys[0])
    sums = np.full((len(order), len(detectors)), -np.inf)
    for k, one in enumerate(found):
        sums[order[np.searchsorted(keys[0][order], keys[k])], k] = one.sums
    return found[0].boxes, sums, int(detectors[0].cost(image).windows.sum())


def settings(budget: float) -> dict[str, Any]:
    """Return what images are scanned with, for proposals or for detections."""
    return PROPOSALS if budget else {"scale_factor": 1.1, **SUPPRESSED}


def variants(image: Gray, boxes: Floats, scale_factor: float) -> Iterator[tuple[Gray, Floats]]:
    """Yield an image and its boxes as they are, mirrored, and half a step of the scales larger."""
    yield image, boxes
    mirrored = boxes.copy()
    mirrored[:, 0] = image.shape[1] - boxes[:, 0] - boxes[:, 2]
    yield np.ascontiguousarray(image[:, ::-1]), mirrored
    factor = scale_factor**0.5
    height, width = (round(side * factor) for side in image.shape)
    yield resize(image, (width, height)), boxes * factor


def collect(cascade: Cascade, limits: Floats, path: str, budget: float) -> Images:
    """Scan a labelled set with low limits."""
    wanted = FRONTAL if path.startswith("frontal:") else Wanted()
    labelled = read_labelled(path.removeprefix("frontal:"), None)
    low = with_limits(cascade, limits)
    detectors = [Detector(low.truncated(k + 1), **settings(budget)) for k in range(low.n_stages)]
    rng, sampled, visited = np.random.default_rng(0), [], 0
    result = Images(budget, [], [], [], [], np.zeros(0), np.zeros(0), 0)
    for one in labelled:
        given = np.asarray(one.boxes, dtype=np.float64)
        for image, labels in variants(to_gray(read_bgr(one.path)), given, detectors[0].scale_factor):
            boxes, sums, seen = scan(detectors, image)
            hits = np.isfinite(sums[:, -1])
            result.shapes.append(image.shape)
            result.truth.append(Truth(labels, wanted.ignored(one)))
            result.boxes.append(boxes[hits])
            result.sums.append(sums[hits])
            depth = np.isfinite(sums).sum(axis=1)
            reached = np.bincount(depth, minlength=low.n_stages + 1)[::-1].cumsum()[::-1]
            chance = np.minimum(1, SAMPLE / np.maximum(reached, 1))[depth]
            kept = rng.random(len(depth)) < chance
            sampled.append((sums[kept], 1 / chance[kept]))
            visited += seen
    windows, weights = (np.concatenate(parts) for parts in zip(*sampled, strict=True))
    return result._replace(windows=windows, weights=weights, visited=visited)


def cost(images: Images, limits: Floats, costs: Floats) -> float:
    """Return what a window costs after the first stage, in stumps."""
    passed = np.logical_and.accumulate(images.windows >= limits, axis=1)[:, :-1]
    return float((images.weights @ passed) @ costs[1:]) / images.visited


def detections(images: Images, limits: Floats) -> list[Found]:
    """Return what a cascade of these limits finds or proposes in each image."""
    found = []
    for boxes, sums, shape in zip(images.boxes, images.sums, images.shapes, strict=True):
        passed = (sums >= limits).all(axis=1)
        overlap = settings(images.budget)["suppression"]
        groups = suppress_groups(boxes[passed], 0, overlap, sums[passed, -1], limit=float(limits[-1]))
        clipped, kept = clip_boxes(groups.boxes, shape)
        found.append(Found(clipped.astype(np.float64), groups.evidence[kept]))
    return found


def touched(images: Images, found: list[Found]) -> dict[float, float]:
    """Return the share of the faces that the best proposals touch, for each part of the budget."""
    best, scores = [], []
    for one, truth in zip(found, images.truth, strict=True):
        near = overlaps(one.boxes, truth.boxes[~truth.ignored]) >= TOUCHED
        best.append(np.where(near, one.scores[:, None], -np.inf).max(axis=0, initial=-np.inf))
        scores.append(one.scores)
    ordered, reached = np.sort(np.concatenate(scores))[::-1], np.concatenate(best)
    shares = {}
    for part in NEAR:
        n = min(int(part * images.budget * len(images.truth)), len(ordered))
        shares[part] = float((reached >= ordered[n - 1]).mean()) if n else 0.0
    return shares


def precision(images: Images, found: list[Found]) -> Curve:
    """Return the precision and recall of detections."""
    matches = [match(one, truth) for one, truth in zip(found, images.truth, strict=True)]
    return curve([one.scores for one in found], matches, sum(one.n_wanted for one in images.truth))


def worth(images: Images, limits: Floats, alignment: Alignment) -> tuple[float, str]:
    """Return how good what limits find is, and that in words."""
    found = [Found(alignment.apply(one.boxes), one.scores) for one in detections(images, limits)]
    if images.budget:
        shares = touched(images, found)
        words = ", ".join(f"{100 * share:.1f} % by {part * images.budget:.0f}" for part, share in shares.items())
        return sum(NEAR[part] * share for part, share in shares.items()), words
    given = precision(images, found)
    # Of the whole set: it is there three times.
    recall = {n: given.recall_at(3 * n) for n in FALSE}
    words = " / ".join(f"{100 * share:.1f}" for share in recall.values())
    value = given.average_precision + sum(FALSE[n] * share for n, share in recall.items())
    return value, f"AP {100 * given.average_precision:.1f} ({words})"


def alignments(sets: list[Images], limits: Floats) -> list[Alignment]:
    """Fit the box convention on each set."""
    return [fit_alignment(detections(one, limits), one.truth, TOUCHED if one.budget else 0.5) for one in sets]


def search(
    sets: list[Images], start: Floats, bounds: tuple[Floats, Floats], costs: Floats, dear: float, seconds: float
) -> Iterator[tuple[Floats, str, float]]:
    """Yield better and better limits, what they give in words, and what they cost."""
    rng, limits, aligned = np.random.default_rng(0), start, alignments(sets, start)

    def total(limits: Floats) -> tuple[float, str, float]:
        spent = float(np.mean([cost(one, limits, costs) for one in sets]))
        values, words = zip(*(worth(one, limits, fit) for one, fit in zip(sets, aligned, strict=True)), strict=True)
        dearer = np.log(spent / dear)
        return sum(values) - 0.4 * max(0.0, dearer) - 0.01 * dearer, "; ".join(words), spent

    now, begin, n = total(limits), time.monotonic(), 0
    best = (now, limits)
    while (passed := (time.monotonic() - begin) / seconds) < 1:
        n += 1
        step = np.zeros(len(start))
        chosen = rng.choice(len(start), rng.integers(1, 4), replace=False)
        step[chosen] = rng.normal(size=len(chosen)) * rng.choice([0.05, 0.15, 0.4], len(chosen))
        trial = np.clip(limits + step, *bounds)
        then = total(trial)
        if then[0] >= now[0] or rng.random() < np.exp((then[0] - now[0]) / (0.0025 * (1 - passed) ** 2 + 1e-9)):
            limits, now = trial, then
        if now[0] > best[0][0]:
            best = now, limits
        if n % 100 == 0:
            aligned = alignments(sets, best[1])
            now, best = total(limits), (total(best[1]), best[1])
            yield best[1], best[0][1], best[0][2]
    yield best[1], best[0][1], best[0][2]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.thresholds", description=__doc__.split("\n\n")[0])
    parser.add_argument("cascade", help="before loosening")
    parser.add_argument("images", nargs="+", metavar="IMAGES[=BUDGET]")
    parser.add_argument(
        "--cost", type=float, default=1.0, help="largest cost after the first stage, relative to the cascade as given"
    )
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--reach", type=float, default=0.7, help="how far thresholds may be lowered; the last twice")
    parser.add_argument("--start", type=float, nargs="+", default=[0.0], metavar="AMOUNT")
    args = parser.parse_args(argv)
    cascade: Any = load(args.cascade)
    base, reach = cascade.stage_limits, np.full(cascade.n_stages, args.reach)
    reach[-1] *= 2
    rise = np.full(cascade.n_stages, 2.0)
    given = [(path, float(budget or 0)) for path, _, budget in (one.partition("=") for one in args.images)]
    if not all(budget for _, budget in given):
        # Detections are scanned as OpenCV does, which leaves out windows next to those that the first stage rejects.
        reach[0] = rise[0] = 0
    sets = [collect(cascade, base - reach, path, budget) for path, budget in given]
    trees = np.where(np.diff(cascade.tree_starts) == 1, 1.0, TREE)
    ends = cascade.stage_starts[1:]
    costs = np.array([trees[end - n : end].sum() for n, end in zip(cascade.added, ends, strict=True)])
    dear = args.cost * float(np.mean([cost(one, base, costs) for one in sets]))
    amounts = np.array((args.start + args.start[-1:] * cascade.n_stages)[: cascade.n_stages])
    start = np.maximum(base - amounts, base - reach)
    for limits, words, spent in search(sets, start, (base - reach, base + rise), costs, dear, 60 * args.minutes):
        print(f"cost {spent:.1f} stumps; {words}\nloosening = {np.round(base - limits, 2).tolist()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
