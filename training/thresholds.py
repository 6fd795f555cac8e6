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
import itertools
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
from vj.scanning._kernels import LANES
from vj.scanning.grouping import suppress_groups
from vj.scanning.pyramid import levels, resize
from vj.scanning.scanner import Scanner

TREE = 5.0
"""Time of a tree of depth 2 relative to a stump: 10 and 1.9 ns for a vector of windows of FDDB's images."""
SAMPLE, EVERY = 150, 3
"""Windows of each image that are kept of those that pass one stage, four stages, and so on: they say what thresholds
cost."""
NEAR = {0.5: 0.1, 0.8: 0.3, 1.0: 1.0, 1.33: 0.3}
"""Parts of the budget, and how much the share touched by so many proposals counts: one alone is noisy."""
FALSE = {10: 0.25, 50: 0.25}
"""Numbers of false positives in a set, and the weight of the share found there; that of average precision is 1."""


class Sample(NamedTuple):
    """Windows that pass the first stages of the cascade with low thresholds.

    `sums` (n, n_stages) are theirs, minus infinity after the stage that rejects one, and `weights` how many windows
    each stands for.
    """

    passed: int
    sums: Floats
    weights: Floats


class Images(NamedTuple):
    """A labelled set, and all that the cascade with low thresholds says about it.

    `budget` is 0 if detections are counted, not proposals. Each image is there `copies` times; `boxes` and `sums` are
    its hits.
    """

    budget: float
    copies: int
    shapes: list[tuple[int, ...]]
    truth: list[Truth]
    boxes: list[npt.NDArray[np.int32]]
    sums: list[Floats]
    samples: list[Sample]
    visited: int


def with_limits(cascade: Cascade, limits: Floats) -> Cascade:
    """Return the cascade with other stage limits."""
    return replace(cascade, stage_thresholds=(limits + 1e-5).astype(np.float32), calibration=None, soft=None)


def stage_sums(scanner: Scanner, detector: Detector, image: Gray, boxes: npt.NDArray[np.int32]) -> Floats:
    """Return the sums of windows of an image at every stage (n, n_stages), minus infinity after the one that rejects.

    The boxes are hits of a detector whose cascade begins as the scanner's.
    """
    (width, height), given = scanner.cascade.window, detector
    sizes: Any = (given.scale_factor, given.min_size, given.max_size, given.stride)
    sums = np.empty((len(boxes), scanner.cascade.n_stages))
    for level in levels((image.shape[1], image.shape[0]), (width, height), *sizes):
        here = np.flatnonzero(boxes[:, 2] == np.rint(np.float32(width) * np.float32(level.scale)))
        if len(here):
            corners = np.rint(boxes[here, :2] / (level.scale * level.stride)).astype(np.int64) * level.stride
            windows = np.lib.stride_tricks.sliding_window_view(resize(image, level.size), (height, width))
            sums[here] = scanner.part_sums(windows[corners[:, 1], corners[:, 0]])
    return sums


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


def collect(cascade: Cascade, limits: Floats, path: str, budget: float, *, varied: bool = True) -> Images:
    """Scan a labelled set with low limits, `varied` or each image only as it is."""
    wanted = FRONTAL if path.startswith("frontal:") else Wanted()
    labelled = read_labelled(path.removeprefix("frontal:"), None)
    low = with_limits(cascade, limits)
    scanner, whole = Scanner(low), Detector(low, **settings(budget))
    first = {n: Detector(low.truncated(n), **settings(budget)) for n in range(1, max(2, low.n_stages), EVERY)}
    parts: dict[int, list[tuple[Floats, Floats]]] = {n: [] for n in first}
    rng, visited = np.random.default_rng(0), 0
    result = Images(budget, 3 if varied else 1, [], [], [], [], [], 0)
    for one in labelled:
        given = np.asarray(one.boxes, dtype=np.float64)
        found = variants(to_gray(read_bgr(one.path)), given, whole.scale_factor)
        for image, labels in itertools.islice(found, result.copies):
            boxes = whole.hits(image).boxes
            result.shapes.append(image.shape)
            result.truth.append(Truth(labels, wanted.ignored(one)))
            result.boxes.append(boxes)
            result.sums.append(stage_sums(scanner, whole, image, boxes))
            for n, detector in first.items():
                boxes = detector.hits(image).boxes
                kept = rng.permutation(len(boxes))[:SAMPLE]
                sums = stage_sums(scanner, whole, image, boxes[kept])
                parts[n].append((sums, np.full(len(kept), len(boxes) / max(1, len(kept)))))
            visited += int(first[1].cost(image).windows.sum())
    samples = [Sample(n, *(np.concatenate(p) for p in zip(*of, strict=True))) for n, of in parts.items()]
    return result._replace(samples=samples, visited=visited)


def cost(images: Images, limits: Floats, costs: Floats) -> float:
    """Return what a vector of neighbouring windows costs after the first stage, in stumps.

    The scan evaluates a stage for a whole vector if any of its windows gets there. On FDDB the time of a stage grows
    like this from the fourth on (1.9 ns a stump); counted by windows, the second would seem to cost most.
    """
    spent = 0.0
    for n, sums, weights in images.samples:
        passed = np.logical_and.accumulate(sums >= limits, axis=1)[:, n - 1 : min(n - 1 + EVERY, len(costs) - 1)]
        share = np.minimum(weights @ passed / images.visited, 1)
        spent += float((1 - (1 - share) ** LANES) @ costs[n : n + EVERY])
    return spent


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
    """Return how good the detections at these limits are, as a number and in words."""
    found = [Found(alignment.apply(one.boxes), one.scores) for one in detections(images, limits)]
    if images.budget:
        shares = touched(images, found)
        words = ", ".join(f"{100 * share:.1f} % by {part * images.budget:.0f}" for part, share in shares.items())
        return sum(NEAR[part] * share for part, share in shares.items()), words
    given = precision(images, found)
    # In the set as it is.
    recall = {n: given.recall_at(images.copies * n) for n in FALSE}
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
    parser.add_argument("--as-given", action="store_true", help="scan each image once, as it is")
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
    sets = [collect(cascade, base - reach, path, budget, varied=not args.as_given) for path, budget in given]
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
