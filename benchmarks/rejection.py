"""What each stage of a cascade sees, rejects and costs, next to OpenCV's own cascades on the same images.

    python -m benchmarks.rejection [--cascade NAME_OR_FILE ...] [--images DIR]

Counts every window of the grid, and those that OpenCV's detector visits. Where opencv-python 4 is installed, each count
is verified against it: the cascade cut off after stage k, run by cv2 with minNeighbors 0, must find exactly the windows
that we say pass stage k.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _runner
from vj.cascade.model import Cascade
from vj.cascade.opencv_xml import load, save
from vj.evaluation.rejection import RejectionProfile, rejection_profile
from vj.images import list_images, read_gray

CASCADES = (
    "frontalface",
    "frontalface_default",
    "frontalface_alt",
    "frontalface_alt2",
    "lbpcascade_frontalface_opencv",
)
"""Ours, OpenCV's frontal faces, and the LBP one that comes with scikit-image."""

PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "rocket")
"""Photos inside scikit-image's wheel: whoever has vj has them."""


def photos() -> dict[str, Any]:
    """Grey photos of scikit-image by name, as OpenCV would convert them."""
    from skimage import data

    from vj.images import to_gray

    found = {}
    for name in PHOTOS:
        photo = getattr(data, name)()
        found[name] = to_gray(photo if photo.ndim == 2 else photo[:, :, ::-1])
    return found


def hits_in_opencv(cascade: Cascade, images: list[Any], scale_factor: float) -> list[int]:
    """Windows that pass stages 1, 2, ... of a cascade as cv2's own detector finds them, cut off after each."""
    import cv2

    counts = []
    with tempfile.TemporaryDirectory() as folder:
        for k in range(1, cascade.n_stages + 1):
            path = Path(folder) / f"{k}.xml"
            save(cascade.truncated(k), path)
            peer = cv2.CascadeClassifier(str(path))
            counts.append(sum(len(peer.detectMultiScale(p, scale_factor, 0)) for p in images))
    return counts


def _figures(profile: RejectionProfile, in_opencv: list[int] | None) -> dict[str, Any]:
    """Plain numbers of a profile."""
    out: dict[str, Any] = {
        "windows": profile.windows,
        "flat": profile.flat,
        "weak_classifiers_per_window": round(profile.weak_classifiers_per_window, 3),
        "features_per_window": round(profile.features_per_window, 3),
        "stages": [
            {
                "weak_classifiers": int(n),
                "entered": int(e),
                "passed": int(p),
                "rejected": int(e - p),
                "features": int(f),
            }
            for n, e, p, f in zip(profile.stage_sizes, profile.entered, profile.passed, profile.features, strict=True)
        ],
    }
    if in_opencv is not None:
        out["passed_in_opencv"] = in_opencv
        out["equal_to_opencv"] = in_opencv == profile.passed.tolist()
    return out


def table(figures: dict[str, Any]) -> str:
    """Markdown table of a result file: what a window costs each cascade, and how soon windows are gone."""
    rows = []
    for name, rules in figures["cascades"].items():
        seen, grid = rules["opencv"], rules["grid"]
        passed = [stage["passed"] for stage in seen["stages"]]
        gone = 1 - passed[min(2, len(passed) - 1)] / max(seen["stages"][0]["entered"], 1)
        rows.append(
            [
                name,
                f"{seen['windows']:,}",
                f"{100 * seen['flat'] / seen['windows']:.1f} %",
                f"{100 * gone:.1f} %",
                f"{passed[-1]:,}",
                f"{seen['weak_classifiers_per_window']:.2f}",
                f"{seen['features_per_window']:.2f}",
                f"{grid['features_per_window']:.2f}",
                {True: "equal", False: "DIFFERENT", None: ""}[seen.get("equal_to_opencv")],
            ]
        )
    header = ["cascade", "windows", "flat", "gone after 3 stages", "pass all", "weak per window", "features per window"]
    return _runner.table([*header, "on the whole grid", "counts in cv2"], rows)


def stages(profile: RejectionProfile) -> str:
    """Return the table of one cascade, a line for each stage."""
    rows = [
        [k + 1, n, f"{e:,}", f"{e - p:,}", f"{100 * (e - p) / e:.1f} %" if e else "", f"{f / profile.windows:.3f}"]
        for k, (n, e, p, f) in enumerate(
            zip(profile.stage_sizes, profile.entered, profile.passed, profile.features, strict=True)
        )
    ]
    return _runner.table(["stage", "weak", "windows in", "rejected", "rejected", "features/window"], rows)


def measure(cascades: list[str], images: list[Any], scale_factor: float, verify: bool) -> tuple[Any, Any]:
    """Profiles by name and rule, and their plain figures."""
    profiles: dict[str, dict[str, RejectionProfile]] = {}
    results: dict[str, Any] = {}
    for given in cascades:
        cascade = load(given)
        name = cascade.name.removeprefix("haarcascade_")
        profiles[name], results[name] = {}, {}
        for rule in ("opencv", "grid"):
            profile = rejection_profile(cascade, images, scale_factor=scale_factor, rule=rule)
            in_opencv = hits_in_opencv(cascade, images, scale_factor) if verify and rule == "opencv" else None
            profiles[name][rule], results[name][rule] = profile, _figures(profile, in_opencv)
            print(f"{name}, {rule}: {profile.windows:,} windows, {profile.features_per_window:.2f} features each")
    return profiles, results


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rejection", description=__doc__.split("\n\n")[0])
    parser.add_argument("--cascade", action="append", metavar="NAME", help="file or known name; may be given again")
    parser.add_argument("--images", metavar="DIR", help="folder of images (default: scikit-image's photos)")
    parser.add_argument("--scale-factor", type=float, default=1.1)
    parser.add_argument("--output", metavar="DIR", default=str(_runner.RESULTS), help="where JSON and plot go")
    parser.add_argument("--stages", action="store_true", help="print the table of stages of every cascade")
    args = parser.parse_args(argv)
    return _runner.run("rejection", _run, args)


def _run(args: argparse.Namespace) -> int:
    import cv2

    from vj.plotting import plot_rejection

    if args.images:
        paths = list_images(args.images)
        images = [read_gray(path) for path in paths]
        data = {"name": Path(args.images).name, "pictures": len(paths), "sha256": _runner.data_hash(paths)}
    else:
        found = photos()
        images = list(found.values())
        data = {"name": "scikit-image: " + ", ".join(found), "pictures": len(found)}
        data["sha256"] = _runner.array_hash(images)
    data["megapixels"] = round(float(sum(np.prod(p.shape) for p in images)) / 1e6, 3)
    verify = hasattr(cv2, "CascadeClassifier")
    profiles, results = measure(args.cascade or _runner.available(CASCADES), images, args.scale_factor, verify)
    folder = Path(args.output)
    result = {"scale_factor": args.scale_factor, "cascades": results}
    path = _runner.write_result("rejection", result, data=data, folder=folder)
    plot_rejection(folder / "rejection.png", {name: rules["opencv"] for name, rules in profiles.items()})
    if args.stages:
        for name, rules in profiles.items():
            print(f"\n{name}: windows as OpenCV visits them\n{stages(rules['opencv'])}")
    print(f"\n{table(result)}\n\nWritten: {path} and {folder / 'rejection.png'}")
    equal = all(rules["opencv"].get("equal_to_opencv", True) for rules in results.values())
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
