"""``vj-detect``: find objects in images; one line of JSON for each image."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vj.cli import _cluster, _common

if TYPE_CHECKING:
    from vj.detector import Detector

PROGRAM = "vj-detect"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `_common.run`."""
    return _common.run(PROGRAM, _detect, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Find objects in images. Prints one line of JSON for each image: "
        '{"image", "width", "height", "detections": [{"box": [x, y, width, height], "score", "neighbors", '
        '"probability"}]}; the probability only if the cascade has a calibration (see vj-calibrate); with several '
        'cascades also "source", the number of the one that found it, from 0.',
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="an image, a folder of them, a pattern such as 'photos/*.jpg', or - for names on stdin",
    )
    parser.add_argument(
        "--cascade",
        action="append",
        metavar="FILE",
        help="cascade to use: a file, or a name such as frontalface_alt2, with mirrored: in front for the mirrored "
        "object; repeatable: several share one scan (default: the face cascade of this package)",
    )
    parser.add_argument("--annotate", metavar="DIR", help="also write each image with its boxes into this folder")
    parser.add_argument("--scale-factor", type=float, default=1.1, metavar="F", help="ratio of scales (default: 1.1)")
    parser.add_argument(
        "--min-neighbors",
        type=int,
        default=3,
        metavar="N",
        help="report a box if more than N hits were merged into it (default: 3)",
    )
    parser.add_argument(
        "--min-size", type=_common.size, metavar="SIZE", help="minimum object size, such as 24 or 24x32 px"
    )
    parser.add_argument(
        "--max-size", type=_common.size, metavar="SIZE", help="maximum object size, such as 200 or 200x300 px"
    )
    parser.add_argument(
        "--threshold",
        type=_common.probability,
        metavar="P",
        help="keep detections with a probability of at least P, 0 to 1; needs a cascade with a calibration",
    )
    parser.add_argument(
        "--min-score", type=_common.number, metavar="S", help="keep detections with a score of at least S"
    )
    parser.add_argument(
        "--stride", type=int, choices=(1, 2), metavar="N", help="pixels between windows: 1 or 2 (default: as OpenCV)"
    )
    parser.add_argument(
        "--suppression", type=float, metavar="IOU", help="suppress overlapping boxes instead of grouping, such as 0.3"
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=200_000_000,
        metavar="N",
        help="refuse larger images before decoding them (default: 200000000)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use (default: one for each processor)")
    _cluster.add_options(parser)
    _common.add_version(parser)
    return parser


def _detect(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    from vj.errors import InputError
    from vj.images import draw_boxes, write_image
    from vj.rows import Search, row

    search = Search(_detector(args), args.threshold, args.min_score, args.max_pixels)
    _check_sizes(args)
    if args.cluster:
        return _cluster.detect(PROGRAM, args, search)
    paths = _images(args.images)
    targets: dict[Path, Path] = {}
    if args.annotate:
        Path(args.annotate).mkdir(parents=True, exist_ok=True)
        targets = _targets(paths, Path(args.annotate))
    done = failed = 0
    for path in paths:
        try:
            image = search.read(path)
            found = search.find(image)
            if path in targets:
                write_image(targets[path], draw_boxes(image, found.boxes))
        except InputError as error:
            _common.report(PROGRAM, str(error))
            failed += 1
            continue
        print(json.dumps(row(str(path), (image.shape[1], image.shape[0]), found)), flush=True)
        done += 1
    if failed and done:
        _common.report(PROGRAM, f"{failed} of {failed + done} images could not be used")
    return _common.OK if done and not failed else _common.SOME_FAILED if done else _common.BAD_INPUT


def _detector(args: argparse.Namespace) -> Detector:
    from vj.cli._detectors import named_cascades
    from vj.detector import Detector

    return Detector(
        named_cascades(args.cascade),
        scale_factor=args.scale_factor,
        min_neighbors=args.min_neighbors,
        min_size=args.min_size,
        max_size=args.max_size,
        stride=args.stride,
        suppression=args.suppression,
        threads=args.threads,
    )


def _check_sizes(args: argparse.Namespace) -> None:
    """Say so if no size fits: as OpenCV does, the detector then scans the one scale nearest to the smallest size."""
    low, high = args.min_size, args.max_size
    if low and high and any(0 < most < least for least, most in zip(low, high, strict=True)):
        _common.report(
            PROGRAM,
            f"--min-size {low[0]}x{low[1]} is larger than --max-size {high[0]}x{high[1]}: "
            f"only the scale nearest to the smallest size is scanned",
        )


def _images(names: Sequence[str]) -> list[Path]:
    """Return the images named, each once, those of folders and patterns included; ``-`` stands for names on stdin."""
    import glob

    from vj.errors import InputError
    from vj.images import list_images

    given: list[str] = []
    for name in names:
        given += [line.rstrip("\r\n") for line in sys.stdin] if name == "-" else [name]
    found: dict[Path, None] = {}
    for name in filter(None, given):
        path = Path(name)
        if path.is_dir():
            below = list_images(path)
        elif glob.has_magic(name) and not path.exists():
            # A quoted pattern, or a shell that does not expand them, as on Windows.
            below = [Path(one) for one in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207 (absolute patterns)
        else:
            below = [path]
        if not below:
            _common.report(PROGRAM, f"{path}: expected images, got a folder or a pattern without any")
        found |= dict.fromkeys(below)
    if not given:
        raise InputError("expected names of images on stdin, got none")
    return list(found)


def _targets(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Return the annotated file of each image: its name, with -2, -3, ... where an earlier image has taken it.

    Names that differ only in case count as the same, as on Windows and macOS.

    Raises
    ------
    InputError
        If one of them is, by any name or link, an input.
    """
    from vj.errors import InputError

    inputs: dict[tuple[int, int], Path] = {}
    for path in paths:
        if (key := _identity(path)) is not None:
            inputs.setdefault(key, path)
    targets: dict[Path, Path] = {}
    taken: set[str] = set()
    for path in paths:
        suffix = path.suffix if path.suffix.lower() in (".jpg", ".jpeg", ".png") else ".png"
        number, target = 1, folder / f"{path.stem}{suffix}"
        while (key_name := os.path.realpath(target).casefold()) in taken:
            number += 1
            target = folder / f"{path.stem}-{number}{suffix}"
        key = _identity(target)
        if key is not None and key in inputs:
            raise InputError(
                f"{path}: expected --annotate to name another folder than that of the images, "
                f"got one where {target} would replace the input {inputs[key]}"
            )
        taken.add(key_name)
        targets[path] = target
    return targets


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what all names of one file share, or None if there is no such file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


if __name__ == "__main__":
    sys.exit(main())
