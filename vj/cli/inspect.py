"""``vj-inspect``: what a cascade is made of, what each stage sees, rejects and costs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vj._files import write_text
from vj.cli import _common

if TYPE_CHECKING:
    from vj.cascade.model import Cascade
    from vj.evaluation.rejection import RejectionProfile

PROGRAM = "vj-inspect"
TIMED_IMAGES = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `_common.run`."""
    return _common.run(PROGRAM, _inspect, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Look inside a cascade. With images: how many windows enter, pass and are rejected at each "
        "stage, how many features that takes per window, and the time each stage adds.",
    )
    _common.add_version(parser)
    parser.add_argument("cascade", metavar="CASCADE", help="a file, or a name such as frontalface_alt2")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="an image, or a folder of them")
    parser.add_argument(
        "--rule",
        choices=("opencv", "grid"),
        default="opencv",
        help="windows to count: those that OpenCV visits (default), or all",
    )
    parser.add_argument("--scale-factor", type=float, default=1.1, metavar="F", help="ratio of scales (default: 1.1)")
    parser.add_argument(
        "--min-size",
        type=_common.size,
        default=(0, 0),
        metavar="SIZE",
        help="minimum object size, such as 24 or 24x32 px",
    )
    parser.add_argument(
        "--plot", metavar="DIR", help="draw the first features, rejection and cost, and a map of depths"
    )
    parser.add_argument("--html", metavar="FILE", help="write a page; with images, maps of depths to click")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    return parser


def _inspect(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    from vj.cascade.opencv_xml import load
    from vj.evaluation.inspection import describe

    cascade = load(args.cascade)
    figures: dict[str, Any] = describe(cascade)
    _print_description(figures)
    paths, images, failed = _read(args.images)
    if args.images and not images:
        return _common.BAD_INPUT
    profile = None
    if images:
        profile, figures["images"] = _measure(args, cascade, images)
    if args.html:
        _write_page(args, cascade, list(zip(paths, images, strict=True)), profile, figures)
    if args.plot:
        _plot(args, cascade, images, profile)
    if args.json:
        write_text(args.json, json.dumps(figures, indent=1) + "\n")
    return _common.SOME_FAILED if failed else _common.OK


def _print_description(figures: dict[str, Any]) -> None:
    window, per_stage = figures["window"], figures["weak_per_stage"]
    trees = "stumps" if figures["depth"] == 1 else f"trees up to {figures['depth']} nodes deep"
    tilted = f", {100 * figures['tilted_share']:.0f} % of them tilted" if figures["tilted_share"] else ""
    print(f"{figures['name']}: {figures['kind'].upper()} cascade, window {window[0]}x{window[1]}")
    print(f"{figures['stages']} stages, {figures['weak_classifiers']} weak classifiers ({trees}), ", end="")
    print(f"{figures['features']} different features{tilted}")
    print("weak classifiers per stage: " + " ".join(map(str, per_stage)))
    if any(figures["carried_per_stage"]):
        print("of these, from the stage before: " + " ".join(map(str, figures["carried_per_stage"])))
    for key, value in figures["provenance"].items():
        print(f"{key}: {' '.join(str(value).split())}")


def _read(names: Sequence[str]) -> tuple[list[Path], list[Any], int]:
    from vj.errors import InputError
    from vj.images import list_images, read_gray

    paths: list[Path] = []
    found, failed = [], 0
    for name in names:
        for path in list_images(name) if Path(name).is_dir() else [Path(name)]:
            try:
                found.append(read_gray(path))
                paths.append(path)
            except InputError as error:
                _common.report(PROGRAM, str(error))
                failed += 1
    return paths, found, failed


def _measure(args: argparse.Namespace, cascade: Cascade, images: list[Any]) -> tuple[RejectionProfile, dict[str, Any]]:
    from vj.errors import InputError
    from vj.evaluation.inspection import stage_seconds
    from vj.evaluation.rejection import rejection_profile

    profile = rejection_profile(cascade, images, scale_factor=args.scale_factor, min_size=args.min_size, rule=args.rule)
    if profile.windows == 0:
        raise InputError(f"expected images of at least {cascade.window[0]}x{cascade.window[1]}, got smaller ones")
    timed = images[:TIMED_IMAGES]
    seconds = stage_seconds(cascade, timed, scale_factor=args.scale_factor, min_size=args.min_size)
    milliseconds = 1000 * seconds / len(timed)
    flat = f"{100 * profile.flat / profile.windows:.1f} % too flat to enter"
    count = f"{len(images)} image{'s' if len(images) > 1 else ''}"
    print(f"\n{count}, {profile.windows:,} windows ({args.rule} rule), {flat}")
    print(f"{profile.features_per_window:.2f} features and {profile.weak_classifiers_per_window:.2f} ", end="")
    print(f"weak classifiers per window, {milliseconds.sum():.1f} ms per image on one thread")
    print(
        f"{'stage':>5} {'weak':>5} {'windows in':>12} {'rejected':>12} {'rejected':>9} "
        f"{'features/window':>16} {'ms':>7}"
    )
    for k in range(cascade.n_stages):
        entered, rejected = int(profile.entered[k]), int(profile.rejected[k])
        share = f"{100 * rejected / entered:.1f} %" if entered else ""
        features = profile.features[k] / profile.windows
        print(
            f"{k + 1:>5} {profile.stage_sizes[k]:>5} {entered:>12,} {rejected:>12,} {share:>9} "
            f"{features:>16.3f} {milliseconds[k]:>7.2f}"
        )
    print(f"{int(profile.passed[-1]):,} windows pass all stages")
    figures = {
        "count": len(images),
        "rule": args.rule,
        "windows": profile.windows,
        "flat": profile.flat,
        "entered": profile.entered.tolist(),
        "passed": profile.passed.tolist(),
        "features_evaluated": profile.features.tolist(),
        "features_per_window": round(profile.features_per_window, 4),
        "weak_classifiers_per_window": round(profile.weak_classifiers_per_window, 4),
        "stage_milliseconds_per_image": [round(float(v), 4) for v in milliseconds],
    }
    return profile, figures


def _write_page(
    args: argparse.Namespace,
    cascade: Cascade,
    images: list[tuple[Path, Any]],
    profile: RejectionProfile | None,
    figures: dict[str, Any],
) -> None:
    from vj.detector import Detector
    from vj.evaluation.inspection import mean_object
    from vj.html.depth import Shown
    from vj.html.inspection import inspection_page

    detector = Detector(cascade, scale_factor=args.scale_factor, min_size=args.min_size)
    mean = mean_object(detector, [gray for _, gray in images])
    shown = [Shown(path, gray) for path, gray in images]
    costs = None if profile is None else (profile, figures["images"]["stage_milliseconds_per_image"])
    Path(args.html).parent.mkdir(parents=True, exist_ok=True)
    write_text(args.html, inspection_page(detector, figures, mean, shown, costs).render())
    print(f"\nWritten: {args.html}")


def _plot(args: argparse.Namespace, cascade: Cascade, images: list[Any], profile: RejectionProfile | None) -> None:
    from vj.detector import Detector
    from vj.evaluation.inspection import mean_object
    from vj.plotting import plot_depth, plot_features, plot_rejection

    folder = Path(args.plot)
    folder.mkdir(parents=True, exist_ok=True)
    detector = Detector(cascade, scale_factor=args.scale_factor, min_size=args.min_size)
    mean, count = mean_object(detector, images)
    plot_features(folder / "features.png", cascade, mean)
    written = ["features.png" + (f" (on the mean of {count} objects found)" if count else "")]
    if profile is not None:
        plot_rejection(folder / "rejection.png", {cascade.name.removeprefix("haarcascade_"): profile})
        plot_depth(folder / "depth.png", images[0], list(detector.windows(images[0])), cascade.n_stages)
        written += ["rejection.png", "depth.png (of the first image)"]
    print(f"\nWritten to {folder}: {', '.join(written)}")


if __name__ == "__main__":
    sys.exit(main())
