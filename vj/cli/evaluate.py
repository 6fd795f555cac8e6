"""``vj-evaluate``: how good are cascades, and other detectors, on labelled images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vj._files import write_text
from vj.cli import _common, _detectors, _labels

if TYPE_CHECKING:
    from vj.datasets.labelled import LabelledImage
    from vj.detector import Cost, Detector
    from vj.evaluation.measure import Detect, Evaluation, ImageRun, Rules
    from vj.html.evaluation import Measured

PROGRAM = "vj-evaluate"

SUPPRESSION = 0.3
"""Overlap of groups by default, groups of one hit included. On faces and on blood cells it ranks boxes better than
OpenCV's rule does: by 1 to 2 points of average precision and by 3 to 8."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `_common.run`."""
    return _common.run(PROGRAM, _evaluate, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Measure cascades and other detectors on labelled images: average precision (AP, the area under "
        "the curve of precision over recall), time, and the share of the objects found where the threshold on the "
        "score lets 0, 10, 50 or 100 false positives through in all images, or 0.1 or 1 for each image. Each "
        "detection, in order of score, matches at most one object; ignored objects count neither way.",
    )
    parser.add_argument(
        "cascades",
        nargs="*",
        metavar="DETECTOR",
        help=f"{_detectors.NAMES} (default: the cascade of this package)",
    )
    _common.add_version(parser)
    _labels.add_options(parser)
    run = parser.add_argument_group("detection")
    run.add_argument("--align", action="store_true", help="fit one shift and scale for each detector's boxes first")
    run.add_argument("--scale-factor", type=float, default=1.1, metavar="F", help="ratio of scales (default: 1.1)")
    run.add_argument(
        "--min-neighbors",
        type=int,
        metavar="N",
        help="group hits as OpenCV does and keep groups of more than N (a curve needs the doubtful ones too: 0 or 1); "
        "without --min-neighbors, of overlapping groups the best is kept, see --suppression",
    )
    run.add_argument("--min-size", type=_common.size, metavar="SIZE", help="smallest object (default: the window)")
    run.add_argument("--stride", type=int, choices=(1, 2), help="pixels between windows (default: as OpenCV)")
    run.add_argument(
        "--suppression",
        type=float,
        metavar="IOU",
        help=f"keep the best of groups that overlap more than this (default: {SUPPRESSION}, unless --min-neighbors)",
    )
    run.add_argument("--threads", type=int, metavar="N", help="threads to use (default: one for each processor)")
    out = parser.add_argument_group("results")
    out.add_argument("--json", metavar="FILE", help="write all figures and curves")
    out.add_argument("--csv", metavar="FILE", help="write the table")
    out.add_argument("--plot", metavar="FILE", help="draw recall against false positives and precision against recall")
    out.add_argument("--errors", metavar="DIR", help="write contact sheets of false positives and missed objects")
    out.add_argument("--html", metavar="FILE", help="write a page: curves, operating points, errors, depth maps")
    return parser


def _evaluate(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    from vj.evaluation.measure import Rules, evaluate

    for folder in (args.errors, *(Path(f).parent for f in (args.json, args.csv, args.plot, args.html) if f)):
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
    images = _labels.read(args)
    rules = Rules(_labels.wanted(args), args.iou, args.align)
    detectors = [_detector(given, args) for given in args.cascades or [_default()]]
    results: list[Evaluation] = []
    failed: dict[str, str] = {}
    pages: list[Measured] = []
    for name, detect, cascade in detectors:
        runs = list(_progress(name, detect, images, cascade and cascade.detector.cost))
        failed |= {str(run.image.path): run.error for run in runs if run.error}
        results.append(evaluate(_distinct(name, results), runs, rules))
        if args.errors:
            _write_errors(Path(args.errors), results[-1], [run.image.path for run in runs if run.found is not None])
        if args.html:
            pages.append(_for_page(results[-1], runs, cascade, images, rules))
    for message in failed.values():
        _common.report(PROGRAM, message)
    _tell(args, results)
    if pages:
        from vj.html.evaluation import evaluation_page

        write_text(args.html, evaluation_page(pages, args.dataset).render())
    return _common.SOME_FAILED if failed else _common.OK


def _default() -> str:
    from vj.cascade import stock

    return stock.DEFAULT


class _Cascade(NamedTuple):
    """A cascade with its settings, and how the command line named it."""

    detector: Detector
    given: str


def _detector(given: str, args: argparse.Namespace) -> tuple[str, Detect, _Cascade | None]:
    """Return name, detector and, for a cascade, what a page and the cost of an image take."""
    from vj.detector import Detector
    from vj.evaluation.measure import measurable

    settings: dict[str, Any] = {
        "scale_factor": args.scale_factor,
        "min_neighbors": args.min_neighbors or 0,
        "min_size": args.min_size,
        "stride": args.stride,
        "suppression": SUPPRESSION if args.suppression is None and args.min_neighbors is None else args.suppression,
        "threads": args.threads,
    }
    name, detector, cascade = _detectors.named_detector(given, settings)
    if cascade is None:
        return name, measurable(detector), None
    own = settings | {"min_size": args.min_size or cascade.window}
    return name, measurable(detector), _Cascade(Detector(cascade, **own), given)


def _distinct(name: str, results: list[Evaluation]) -> str:
    taken = {result.name for result in results}
    names = [name, *(f"{name} ({k})" for k in range(2, len(taken) + 2))]
    return next(candidate for candidate in names if candidate not in taken)


def _progress(
    name: str, detect: Detect, images: list[LabelledImage], cost: Callable[[Any], Cost] | None
) -> Iterator[ImageRun]:
    from tqdm import tqdm

    from vj.evaluation.measure import run_detector

    yield from tqdm(
        run_detector(detect, images, cost),
        name,
        len(images),
        unit="image",
        leave=False,
        disable=not sys.stderr.isatty(),
    )


def _tell(args: argparse.Namespace, results: list[Evaluation]) -> None:
    from vj.evaluation.report import csv_table, figures, text_table

    print(text_table(results))
    if args.json:
        write_text(args.json, json.dumps(figures(results), indent=1) + "\n")
    if args.csv:
        write_text(args.csv, csv_table(results))
    if args.plot:
        from vj.plotting import plot_curves

        plot_curves(args.plot, {result.name: result.curve for result in results})


def _for_page(
    result: Evaluation, runs: list[ImageRun], cascade: _Cascade | None, images: list[LabelledImage], rules: Rules
) -> Measured:
    from vj.cli._pages import measured, searches

    if cascade is None:
        return measured(result, runs)

    def shown(found: Any, text: str) -> Any:
        from tqdm import tqdm

        return tqdm(found, text, unit="image", leave=False, disable=not sys.stderr.isatty())

    found = searches(cascade.detector, cascade.given, images, rules, result, shown)
    return measured(result, runs, cascade.detector, found)


def _write_errors(folder: Path, result: Evaluation, paths: list[Path]) -> None:
    from vj.evaluation.sheets import error_sheets
    from vj.images import write_image

    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in result.name)
    for kind, sheet in error_sheets(result, paths).items():
        if sheet is not None:
            write_image(folder / f"{stem}-{kind}.png", sheet)


if __name__ == "__main__":
    sys.exit(main())
