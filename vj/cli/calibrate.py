"""``vj-calibrate``: learn what a cascade's scores are worth, and store that with the cascade."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vj._files import read_bounded, write_text
from vj.cli import _common, _labels

if TYPE_CHECKING:
    from vj.cascade.calibration import ScoreCalibration
    from vj.evaluation.measure import Evaluation
    from vj.tiers.score_calibration import HeldOut

PROGRAM = "vj-calibrate"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `_common.run`."""
    return _common.run(PROGRAM, _calibrate, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Learn from labelled images the probability that a detection is an object, and store it in the "
        "cascade's file, where OpenCV ignores it; all else in the file stays as it is. Prints one line of JSON with "
        "how good it is on images that it was not fitted on (half fitted, half measured, ten times).",
    )
    _common.add_version(parser)
    parser.add_argument("cascade", metavar="CASCADE", help="a cascade file, or a name such as frontalface_alt2")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="where to write (default: the file itself; for a name, NAME.xml in this folder)",
    )
    _labels.add_options(parser)
    parser.add_argument(
        "--plot", metavar="FILE", help="draw how often detections were objects against the probability stated"
    )
    run = parser.add_argument_group("detection")
    run.add_argument("--no-align", action="store_true", help="take boxes as they are, without fitting shift and scale")
    run.add_argument("--scale-factor", type=float, default=1.1, metavar="F", help="ratio of scales (default: 1.1)")
    run.add_argument(
        "--min-neighbors",
        type=int,
        default=0,
        metavar="N",
        help="keep boxes with more hits than this (default: 0, since doubtful boxes are what it learns from)",
    )
    run.add_argument("--min-size", type=_common.size, metavar="SIZE", help="smallest object (default: the window)")
    run.add_argument("--stride", type=int, choices=(1, 2), help="pixels between windows (default: as OpenCV)")
    run.add_argument(
        "--suppression", type=float, default=0.3, metavar="IOU", help="overlap of boxes that compete (default: 0.3)"
    )
    run.add_argument("--threads", type=int, metavar="N", help="threads to use (default: one for each processor)")
    return parser


def _calibrate(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    from vj.cascade import calibration, opencv_xml
    from vj.cascade.storage_node import MAX_BYTES
    from vj.errors import InputError
    from vj.tiers.score_calibration import FEW, SPLITS, fit_scores, held_out

    source = opencv_xml.resolve(args.cascade)
    cascade = opencv_xml.load(args.cascade)
    target = Path(args.output or (args.cascade if source == Path(args.cascade) else f"{args.cascade}.xml"))
    if args.plot:
        Path(args.plot).parent.mkdir(parents=True, exist_ok=True)
    result, failed = _evaluation(args, cascade)
    fitted = fit_scores(result, _words(args))
    quality = held_out(result)
    try:
        data = read_bounded(source, MAX_BYTES, "cascade file")
        text = calibration.put_into(data.decode("utf-8"), fitted)
    except UnicodeDecodeError:
        raise InputError(f"{source}: expected a file in UTF-8, got another encoding") from None
    again = opencv_xml.parse(text.encode(), place=str(source))
    if again != cascade or again.calibration != fitted:
        raise InputError(f"{source}: expected a file that takes a calibration, got one that reads back differently")
    if args.plot:
        from vj.plotting import plot_reliability

        label = f"half fitted, half measured, {SPLITS} times: error {quality.error:.3f}"
        plot_reliability(args.plot, {label: quality.reliability})
    write_text(target, text)
    if min(quality.true, quality.false) < FEW:
        _common.report(
            PROGRAM,
            f"{quality.true} true and {quality.false} false detections are few (fewer than {FEW}): "
            "the probabilities are rough, and so is their error",
        )
    print(json.dumps(_record(target, fitted, quality)))
    return _common.SOME_FAILED if failed else _common.OK


def _evaluation(args: argparse.Namespace, cascade: Any) -> tuple[Evaluation, int]:
    from tqdm import tqdm

    from vj.evaluation.measure import Rules, cascade_detector, evaluate, run_detector

    images = _labels.read(args)
    names = ("scale_factor", "min_neighbors", "stride", "suppression", "threads")
    settings = {name: getattr(args, name) for name in names} | {"min_size": args.min_size or cascade.window}
    found = run_detector(cascade_detector(cascade, **settings), images)
    runs = list(tqdm(found, cascade.name, len(images), unit="image", leave=False, disable=not sys.stderr.isatty()))
    failures = [run.error for run in runs if run.error]
    for message in failures:
        _common.report(PROGRAM, message)
    return evaluate(cascade.name, runs, Rules(_labels.wanted(args), args.iou, not args.no_align)), len(failures)


def _words(args: argparse.Namespace) -> str:
    """Which images and settings: the folder's own name, not where it lies on this machine."""
    path = Path(args.dataset).resolve()
    name = path.parent.name if path.name == "annotations.json" else path.name
    words = [f"{name}{', frontal part' if args.frontal else ''}", f"scale factor {args.scale_factor:g}"]
    words += [f"min_neighbors {args.min_neighbors}", f"suppression {args.suppression:g}", f"IoU {args.iou:g}"]
    return "; ".join(words)


def _record(target: Path, fitted: ScoreCalibration, quality: HeldOut) -> dict[str, Any]:
    return {
        "cascade": str(target),
        "detections": fitted.detections,
        "true": quality.true,
        "false": quality.false,
        "knots": len(fitted.scores),
        "held_out": {
            "calibration_error": round(quality.error, 4),
            "of_a_perfect_predictor": round(quality.perfect, 4),
            "brier_score": round(quality.brier, 4),
        },
    }


if __name__ == "__main__":
    sys.exit(main())
