"""How many faces the masked copies of `vj-detect --anonymize` still show, and how much of the images they hide.

    python -m benchmarks.anonymize DATASET ... [--mode NAME ...]

A face counts as missed if less than half of its labelled box is masked. The modes: "packaged" is what `vj-detect` keeps
without `--anonymize`; "all stages" is every box of the cascade; "anonymize" is what `vj-detect --anonymize` masks, for
which the cascade runs without its last stage and mirrored too; "finer" is that with `--scale-factor 1.05 --stride 1`.
Where labels say which faces are frontal, these are counted by themselves too: the cascade was trained on no others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _runner
from vj.cascade.opencv_xml import load
from vj.datasets.formats import read_labelled
from vj.datasets.labelled import FRONTAL, LabelledImage, Wanted
from vj.detector import Detector
from vj.masking import areas
from vj.rows import ANONYMIZING, PACKAGED, Search, lenient

MARGIN = 0.2
LEAST = 20
"""Height of the smallest faces that count, in pixels."""

MODES = ("packaged", "all stages", "anonymize", "finer")


def search_of(mode: str, threads: int | None) -> Search:
    """Return what `vj-detect` searches with in a mode."""
    kept = PACKAGED if mode == "packaged" else ANONYMIZING
    settings = {name: kept[name] for name in ("min_neighbors", "suppression")}
    settings |= {"scale_factor": 1.05, "stride": 1} if mode == "finer" else {}
    cascade = load("frontalface")
    detector = Detector(lenient(cascade) if mode in ("anonymize", "finer") else cascade, **settings, threads=threads)
    return Search(detector, kept["threshold"])


def masked_shares(mask: Any, boxes: Any) -> Any:
    """Return which share of each labelled box, cut at the image's borders, is masked; 1 for one outside the image."""
    shares = []
    for x0, y0, x1, y1 in np.rint(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)).astype(int):
        part = mask[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        shares.append(part.mean() if part.size else 1.0)
    return np.array(shares)


def measure(images: list[LabelledImage], search: Search) -> dict[str, Any]:
    """Return the faces counted and missed, frontal and all, and the share of the pixels that is masked."""
    rules = {f"at least {LEAST} px": Wanted(min_height=LEAST, max_pose=9)}
    if any("pose" in image.attributes for image in images):
        rules["frontal"] = FRONTAL
    faces = dict.fromkeys(rules, 0)
    missed = dict.fromkeys(rules, 0)
    hidden = pixels = 0
    for image in images:
        photo = search.read(image.path)
        mask = np.zeros(photo.shape[:2], dtype=bool)
        for x0, y0, x1, y1 in areas(search.find(photo), photo.shape, MARGIN):
            mask[y0:y1, x0:x1] = True
        hidden += int(mask.sum())
        pixels += mask.size
        shares = masked_shares(mask, image.boxes)
        for name, rule in rules.items():
            wanted = ~rule.ignored(image)
            faces[name] += int(wanted.sum())
            missed[name] += int((shares[wanted] < 0.5).sum())
    return {"faces": faces, "missed": missed, "masked": round(hidden / pixels, 5)}


def table(figures: dict[str, Any]) -> str:
    """Markdown table of a result file."""
    rows = []
    for mode, sets in figures.items():
        for name, one in sets.items():
            for rule, count in one["faces"].items():
                missed = one["missed"][rule]
                share = f"{100 * missed / count:.1f} %" if count else ""
                rows.append([mode, f"{name}, {rule}", count, missed, share, f"{100 * one['masked']:.1f} %"])
    return _runner.table(["mode", "faces", "labelled", "missed", "missed, share", "image area masked"], rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.anonymize", description=__doc__.split("\n\n")[0])
    parser.add_argument("datasets", nargs="+", metavar="DATASET", help="labelled images; see vj-evaluate")
    parser.add_argument("--mode", action="append", choices=MODES, help="only this one; may be given again")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", metavar="DIR", default=str(_runner.RESULTS))
    return _runner.run("anonymize", _run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> int:
    sets = {Path(given).stem: read_labelled(given) for given in args.datasets}
    figures: dict[str, Any] = {}
    for mode in args.mode or MODES:
        search = search_of(mode, args.threads)
        figures[mode] = {name: measure(images, search) for name, images in sets.items()}
        print(f"{mode}: {figures[mode]}", flush=True)
    images = [image for one in sets.values() for image in one]
    data = {"name": " and ".join(sets), "pictures": len(images), "faces": sum(len(image) for image in images)}
    data["sha256"] = _runner.data_hash([image.path for image in images])
    path = _runner.write_result("anonymize", figures, data=data, folder=Path(args.output))
    print(f"\n{table(figures)}\n\nWritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
