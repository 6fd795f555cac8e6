"""The options of ``vj-detect``."""

from __future__ import annotations

import argparse
import math

from vj.cli import _cluster, _common
from vj.cli._formats import CSV_COLUMNS, FORMATS

DESCRIPTION = """Find objects in images and videos. Prints one line of JSON for each image: {"image", "width", "height",
"detections": [{"box": [x, y, width, height], "score", "neighbors", "probability"}]}; the probability only if the
cascade has a calibration (see vj-calibrate); with several cascades also "source", the number of the one that found it,
from 0. Each frame of a video has a line, with "frame" (from 0) and "seconds" besides."""

EPILOG = """Exit code: 0 if all went well; 1 if some inputs failed, which are listed at the end; 2 for wrong use or if
nothing could be done; 130 after Ctrl-C. Files are written whole or not at all, and never over an input. Copies are
upright, 8-bit, opaque and without metadata. --anonymize misses faces: benchmarks/README.md says how many. Look the
copies through before you pass them on."""


def parser(program: str) -> argparse.ArgumentParser:
    """Return the parser."""
    made = argparse.ArgumentParser(prog=program, description=DESCRIPTION, epilog=EPILOG)
    made.add_argument(
        "images",
        nargs="*",
        metavar="INPUT",
        help="an image, a video, a folder of them, a pattern such as 'photos/*.jpg', or - for names on stdin",
    )
    made.add_argument("--camera", type=_index, metavar="N", help="look at a camera, until Ctrl-C; the first is 0")
    made.add_argument(
        "--cascade",
        action="append",
        metavar="FILE",
        help="cascade to use: a file, or a name such as frontalface_alt2, with mirrored: in front for the mirrored "
        "object; repeatable: several share one scan (default: the face cascade of this package)",
    )
    _add_search(made.add_argument_group("what is looked for"))
    _add_outputs(made.add_argument_group("what is written"))
    _cluster.add_options(made)
    made.add_argument(
        "--max-pixels",
        type=int,
        default=200_000_000,
        metavar="N",
        help="refuse larger images before decoding them (default: 200000000)",
    )
    made.add_argument("--threads", type=int, metavar="N", help="threads to use (default: one for each processor)")
    made.add_argument("-q", "--quiet", action="store_true", help="no progress bar, no remarks; only what failed")
    made.add_argument("-v", "--verbose", action="store_true", help="say how the search is done, and each input's time")
    _common.add_version(made)
    return made


def _add_search(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--scale-factor", type=float, default=1.1, metavar="F", help="ratio of scales (default: 1.1)")
    group.add_argument(
        "--min-neighbors",
        type=int,
        metavar="N",
        help="report a box if more than N hits were merged into it. Default: 3, as in OpenCV. For the packaged "
        "cascade, if none of --cascade, --min-neighbors, --suppression and --threshold is given: its best mode, that "
        "is 0 with --suppression 0.3 --threshold 0.2, from coarse to fine scales. With --anonymize, if none of the "
        "last three and no --min-score is given: 0 with --suppression 0.3 and no threshold, since a box too many does "
        "less harm than a face missed; the packaged cascade then runs without its last stage, and mirrored too",
    )
    group.add_argument(
        "--suppression", type=float, metavar="IOU", help="suppress overlapping boxes instead of grouping, such as 0.3"
    )
    group.add_argument(
        "--threshold",
        type=_common.probability,
        metavar="P",
        help="keep detections with a probability of at least P, 0 to 1; needs a cascade with a calibration",
    )
    group.add_argument(
        "--min-score", type=_common.number, metavar="S", help="keep detections with a score of at least S"
    )
    group.add_argument(
        "--min-size", type=_common.size, metavar="SIZE", help="minimum object size, such as 24 or 24x32 px"
    )
    group.add_argument(
        "--max-size", type=_common.size, metavar="SIZE", help="maximum object size, such as 200 or 200x300 px"
    )
    group.add_argument(
        "--stride", type=int, choices=(1, 2), metavar="N", help="pixels between windows: 1 or 2 (default: as OpenCV)"
    )
    group.add_argument(
        "--no-smoothing",
        action="store_true",
        help="of videos: show each frame's boxes as found. By default a box moves half the way to the next one that "
        "overlaps it by 0.3, and stays for 5 frames when there is none; --anonymize also masks the 5 frames before it",
    )


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--format",
        choices=FORMATS,
        default="jsonl",
        help=f"jsonl (default); csv with the columns {', '.join(CSV_COLUMNS)}, a line for each detection, and one "
        "without numbers for an image without any; coco: one list of results, whose image_id counts the inputs, and "
        "the frames of videos, from 1 in their order, with file_name besides",
    )
    group.add_argument(
        "--annotate", metavar="DIR", help="write each image or video with its boxes and how sure they are"
    )
    group.add_argument("--crops", metavar="DIR", help="write each detection as an image: NAME-1.jpg, NAME-2.jpg, ...")
    group.add_argument(
        "--anonymize",
        metavar="DIR",
        help="write each image or video with its detections masked. What fails has no copy, is listed, and the exit "
        "code says so. Videos keep their sound if ffmpeg is there",
    )
    group.add_argument(
        "--mask", choices=("blur", "pixelate", "fill"), default="blur", help="how (default: blur); fill leaves nothing"
    )
    group.add_argument(
        "--mask-margin",
        type=_share,
        default=0.2,
        metavar="M",
        help="also mask this share of the box on each side (default: 0.2)",
    )


def _index(text: str) -> int:
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"expected the number of a camera, from 0, got {text!r}")


def _share(text: str) -> float:
    value = _common.number(text)
    if 0 <= value < math.inf:
        return value
    raise argparse.ArgumentTypeError(f"expected a share of 0 or more, got {text!r}")
