"""``vj-detect``: find objects in pictures; one line of JSON for each picture."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vj.cli import _common

if TYPE_CHECKING:
    from vj.detector import Detections, Detector

PROGRAM = "vj-detect"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `_common.run`."""
    return _common.run(PROGRAM, _detect, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Find objects in pictures. Prints one line of JSON for each picture: "
        '{"image", "width", "height", "detections": [{"box": [x, y, width, height], "score", "neighbors"}]}.',
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a picture, or a folder of them")
    parser.add_argument(
        "--cascade",
        metavar="FILE",
        help="cascade to use: a file, or a name such as frontalface_alt2 (default: the face cascade of this package)",
    )
    parser.add_argument("--annotate", metavar="DIR", help="also write each picture with its boxes into this folder")
    parser.add_argument("--scale-factor", type=float, default=1.1, metavar="F", help="ratio of scales (default: 1.1)")
    parser.add_argument(
        "--min-neighbors",
        type=int,
        default=3,
        metavar="N",
        help="report a box if more than N raw hits agree on it (default: 3)",
    )
    parser.add_argument("--min-size", type=_common.size, metavar="SIZE", help="smallest object: 24 or 24x32")
    parser.add_argument("--max-size", type=_common.size, metavar="SIZE", help="largest object: 200 or 200x300")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use (default: one for each processor)")
    return parser


def _detect(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    from vj.errors import InputError

    detector = _detector(args)
    annotate = Path(args.annotate) if args.annotate else None
    if annotate:
        annotate.mkdir(parents=True, exist_ok=True)
    _compile(detector)
    done = failed = 0
    written: set[Path] = set()
    for path in _pictures(args.images):
        try:
            found, image = _run(detector, path)
            if annotate:
                _annotate(path, image, found, annotate, written)
        except InputError as error:
            _common.report(PROGRAM, str(error))
            failed += 1
            continue
        print(json.dumps(_record(path, image, found)), flush=True)
        done += 1
    if failed and done:
        _common.report(PROGRAM, f"{failed} of {failed + done} pictures could not be used")
    return _common.OK if not failed else _common.SOME_FAILED if done else _common.BAD_INPUT


def _detector(args: argparse.Namespace) -> Detector:
    from vj.cascade import stock
    from vj.cascade.opencv_xml import load
    from vj.detector import Detector

    return Detector(
        load(args.cascade or stock.find(stock.DEFAULT)),
        scale_factor=args.scale_factor,
        min_neighbors=args.min_neighbors,
        min_size=args.min_size,
        max_size=args.max_size,
        threads=args.threads,
    )


def _compile(detector: Detector) -> None:
    """Run once on an empty picture: cached kernels answer at once, new ones take seconds, and then it says so."""
    import numpy as np

    notice = threading.Timer(
        1.5, _common.report, (PROGRAM, "compiling for this processor, once; the next start will be quick")
    )
    notice.daemon = True
    notice.start()
    width, height = detector.cascade.window
    detector.detect(np.zeros((2 * height, 2 * width), dtype=np.uint8))
    notice.cancel()


def _pictures(names: Sequence[str]) -> Iterator[Path]:
    from vj.images import list_images

    for name in names:
        path = Path(name)
        if path.is_dir():
            yield from list_images(path)
        else:
            yield path


def _run(detector: Detector, path: Path) -> tuple[Detections, Any]:
    from vj.errors import InputError
    from vj.images import read_bgr

    image = read_bgr(path)
    height, width = image.shape[:2]
    window = detector.cascade.window
    if width < window[0] or height < window[1]:
        raise InputError(
            f"{path}: expected a picture of at least the window's {window[0]}x{window[1]} pixels, got {width}x{height}"
        )
    return detector.detect(image), image


def _record(path: Path, image: Any, found: Detections) -> dict[str, Any]:
    return {
        "image": str(path),
        "width": int(image.shape[1]),
        "height": int(image.shape[0]),
        "detections": [
            {"box": box.tolist(), "score": round(float(score), 4), "neighbors": int(count)}
            for box, score, count in zip(found.boxes, found.scores, found.neighbors, strict=True)
        ],
    }


def _annotate(path: Path, image: Any, found: Detections, folder: Path, written: set[Path]) -> None:
    from vj.errors import InputError
    from vj.images import draw_boxes, write_image

    suffix = path.suffix if path.suffix.lower() in (".jpg", ".jpeg", ".png") else ".png"
    target = folder / f"{path.stem}{suffix}"
    number = 1
    while target in written:
        number += 1
        target = folder / f"{path.stem}-{number}{suffix}"
    if target.exists() and target.samefile(path):
        raise InputError(f"{path}: expected --annotate to name another folder than the picture's own")
    write_image(target, draw_boxes(image, found.boxes))
    written.add(target)


if __name__ == "__main__":
    sys.exit(main())
