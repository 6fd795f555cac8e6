"""Options about labelled images that several commands have."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vj.datasets.labelled import LabelledImage, Wanted

FORMATS = ("annotations", "coco", "voc", "yolo", "csv", "info", "wider", "fddb", "mitcmu")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add a group of options that say where the labels are, and which objects are asked for."""
    data = parser.add_argument_group("labels")
    data.add_argument("--dataset", required=True, metavar="PATH", help="annotation file or folder")
    data.add_argument("--format", choices=FORMATS, help="of the annotations (default: guessed from the file)")
    data.add_argument(
        "--class", dest="classes", action="append", metavar="NAME", help="objects to measure; may be repeated"
    )
    data.add_argument(
        "--where",
        action="append",
        metavar="COLUMN=VALUE",
        help="CSV: objects to measure, ignore others; repeatable",
    )
    data.add_argument("--images", metavar="DIR", help="folder that image names are relative to")
    data.add_argument(
        "--frontal",
        action="store_true",
        help="count only WIDER FACE's frontal faces: at least 30 px, little blur and occlusion",
    )
    data.add_argument("--min-height", type=float, metavar="PX", help="ignore objects less high than this")
    for name in ("blur", "occlusion", "pose", "invalid"):
        data.add_argument(f"--max-{name}", type=int, metavar="CODE", help=f"ignore objects with a higher {name} code")
    data.add_argument("--iou", type=float, default=0.5, metavar="T", help="overlap that makes a match (default: 0.5)")


def read(args: argparse.Namespace) -> list[LabelledImage]:
    """Read the labelled images that the options name."""
    from vj.cli._settings import pair
    from vj.datasets.formats import read_labelled

    where = dict(pair("--where COLUMN=VALUE", text) for text in args.where or ())
    return read_labelled(args.dataset, args.format, args.images, classes=args.classes or (), where=where)


def wanted(args: argparse.Namespace) -> Wanted:
    """Return which objects the options ask for."""
    from vj.datasets.labelled import FRONTAL, Wanted

    names = ("min_height", "max_blur", "max_occlusion", "max_pose", "max_invalid")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return replace(FRONTAL if args.frontal else Wanted(), **given)
