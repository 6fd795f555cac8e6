"""Waking up: how often a face in view is noticed, and what asking cheap tiers first saves.

    python -m benchmarks.wakeup FACES BACKGROUNDS --yunet MODEL.onnx

FACES is a set of labelled images with a face in each, BACKGROUNDS a folder of images without. A shot shows a
background for 50 frames, an image with a face in front of it for 30, and the background again, all 640x480 with the
noise of a sensor; no two shots share an image. Costs are processor time of one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _runner
from vj.cascade.opencv_xml import load
from vj.datasets.formats import read_labelled
from vj.errors import InputError
from vj.images import list_images, read_bgr
from vj.tiers.detectors import YuNet
from vj.tiers.wakeup import WAKE, Hysteresis, Look, Motion, WakeUp, cascade_looks, smallest_object

SHOTS = 30
PARTS = (50, 30, 50)
"""Frames without a face, with one, and without."""
SIZE = (640, 480)
NOISE = 5.0
"""Standard deviation in grey levels."""


def shot(background: Any, face: Any, seed: int) -> Any:
    """Yield the frames of a shot, and whether a face is in them."""
    rng = np.random.default_rng(seed)
    # Noise is drawn a few times only: drawing it takes longer than looking at it.
    noises = [rng.normal(0, NOISE, background.shape).astype(np.int16) for _ in range(5)]
    for count, image, there in zip(PARTS, (background, face, background), (False, True, False), strict=True):
        for _ in range(count):
            noise = noises[int(rng.integers(len(noises)))]
            yield np.clip(image + noise, 0, 255).astype(np.uint8), there


def stretched(image: Any) -> Any:
    """Return an image in the size of the frames."""
    import cv2

    return np.asarray(cv2.resize(image, SIZE), dtype=np.uint8)


def in_front(image: Any, background: Any) -> Any:
    """Return a frame with an image in front of its middle, as large as it goes."""
    import cv2

    factor = min(SIZE[0] / image.shape[1], SIZE[1] / image.shape[0])
    size = (min(SIZE[0], round(image.shape[1] * factor)), min(SIZE[1], round(image.shape[0] * factor)))
    out = background.copy()
    left, top = (SIZE[0] - size[0]) // 2, (SIZE[1] - size[1]) // 2
    out[top : top + size[1], left : left + size[0]] = cv2.resize(image, size)
    return out


def measure(faces: list[Any], backgrounds: list[Any], heavy: Any) -> dict[str, Any]:
    """Run all shots, with the heavy tier or without."""
    cascade = load("frontalface")
    smallest = smallest_object((SIZE[1], SIZE[0]), cascade.window)
    looks = cascade_looks(cascade, smallest, threads=1) + ([Look("YuNet", heavy)] if heavy else [])
    # As `vj-watch` does.
    looks[-1] = looks[-1]._replace(least=0.5)
    hysteresis = Hysteresis()
    wake_up = WakeUp(looks, Motion(smallest // 4), hysteresis, time.thread_time)
    wake_up.measure(backgrounds[0])
    woken, alone, false, delays = 0, 0, 0, []
    for k, (face, background) in enumerate(zip(faces, backgrounds, strict=True)):
        alone += sees(looks[-1], face)
        for n, (frame, there) in enumerate(shot(background, face, k)):
            if wake_up.see(frame).event == WAKE:
                woken, false = woken + there, false + (not there)
                delays += [n - PARTS[0]] if there else []
    report = wake_up.report()
    share = {one["name"]: one["asked"] / report["frames"] for one in report["tiers"]}
    each = {one["name"]: one["milliseconds"] for one in report["tiers"]}
    return {
        "shots": len(faces),
        "woken": woken / len(faces),
        "last_tier_alone": alone / len(faces),
        "false_wakes": false,
        "frames_until_awake": float(np.median(delays)) if delays else None,
        "frames": report["frames"],
        "asked": share,
        "milliseconds": each,
        "milliseconds_a_frame": 1000 * report["seconds"] / report["frames"],
        "saved": report["saved"],
    }


def sees(look: Look, image: Any) -> bool:
    """Whether a tier alone sees something."""
    return WakeUp([look], Motion(1)).see(image).present


def table(figures: dict[str, Any]) -> str:
    """Markdown table of a result file."""
    rows = []
    for name, one in figures.items():
        asked = ", ".join(f"{tier} {100 * share:.1f} %" for tier, share in list(one["asked"].items())[1:])
        wakes = f"{100 * one['woken']:.0f} % ({100 * one['last_tier_alone']:.0f} %)"
        cost = f"{one['milliseconds_a_frame']:.1f} ms"
        rows.append([name, wakes, one["false_wakes"], asked, cost, f"{100 * one['saved']:.0f} %"])
    return _runner.table(
        ["last tier", "faces noticed (by it alone)", "false wakes", "asked", "each frame", "time saved"], rows
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wakeup", description=__doc__.split("\n\n")[0])
    parser.add_argument("faces", metavar="FACES", help="labelled images: folder with annotations.json")
    parser.add_argument("backgrounds", metavar="BACKGROUNDS", help="folder of images without faces")
    parser.add_argument("--yunet", required=True, metavar="MODEL.onnx")
    parser.add_argument("--output", metavar="DIR", default=str(_runner.RESULTS))
    args = parser.parse_args(argv)
    return _runner.run("wakeup", _run, args)


def _run(args: argparse.Namespace) -> int:
    import cv2

    cv2.setNumThreads(1)
    # Faces of at least the smallest size that is looked for.
    large = [one.path for one in read_labelled(args.faces) if len(one.boxes) and one.boxes[:, 3].max() >= 60]
    empty = list_images(args.backgrounds)
    count = min(SHOTS, len(large), len(empty))
    if not count:
        raise InputError("expected images with faces of 60 px, and images without, got none")
    order = np.random.default_rng(0)
    paths = [large[k] for k in order.permutation(len(large))[:count]]
    others = [empty[k] for k in order.permutation(len(empty))[:count]]
    backgrounds = [stretched(read_bgr(path)) for path in others]
    faces = [in_front(read_bgr(path), background) for path, background in zip(paths, backgrounds, strict=True)]
    figures = {
        "frontalface": measure(faces, backgrounds, None),
        "YuNet": measure(faces, backgrounds, YuNet(args.yunet)),
    }
    data = {"name": "shots made of FDDB and of images without faces", "pictures": 2 * count}
    data["sha256"] = _runner.data_hash([*paths, *others])
    path = _runner.write_result("wakeup", figures, data=data, folder=Path(args.output))
    print(f"\n{table(figures)}\n\nWritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
