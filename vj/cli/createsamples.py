"""``vj-createsamples``: make training samples with the options of opencv_createsamples."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vj.cli._common import OK, SOME_FAILED, report, run
from vj.cli._opencv_options import Option, parse
from vj.errors import InputError

PROGRAM = "vj-createsamples"

ABOUT = """Make samples with the options of opencv_createsamples:
  -img and -vec           distorted copies of one object, for training
  -img, -bg and -info     scenes with the object placed on backgrounds, and the list of its boxes
  -info and -vec          the marked objects of a collection of images
  -vec                    a contact sheet of what is in a .vec file"""

OPTIONS = {
    "-info": Option(str, "", "list of images and boxes to read; with -img and -bg, the list to write", "FILE"),
    "-img": Option(str, "", "image of the object", "FILE"),
    "-vec": Option(str, "", ".vec file to write; without -img and -info, the one to show", "FILE"),
    "-bg": Option(str, "", "list of background images, or a folder of them", "FILE"),
    "-num": Option(int, 1000, "maximum number of samples", "N"),
    "-bgcolor": Option(int, 0, "grey level that is transparent", "LEVEL"),
    "-bgthresh": Option(int, 80, "levels within this distance of -bgcolor are transparent as well", "LEVELS"),
    "-inv": Option(None, False, "invert the grey levels of the object"),
    "-randinv": Option(None, False, "invert the grey levels of the object at random"),
    "-maxidev": Option(int, 40, "largest change of intensity", "LEVELS"),
    "-maxxangle": Option(float, 1.1, "largest turn about the x axis in radians", "ANGLE"),
    "-maxyangle": Option(float, 1.1, "largest turn about the y axis in radians", "ANGLE"),
    "-maxzangle": Option(float, 0.5, "largest turn about the z axis in radians", "ANGLE"),
    "-show": Option(
        float, None, "write a contact sheet next to the .vec file, enlarged by this factor", "SCALE", "", True
    ),
    "-w": Option(int, 24, "width of the samples", "PIXELS"),
    "-h": Option(int, 24, "height of the samples", "PIXELS"),
    "-maxscale": Option(
        float, -1.0, "scenes: maximum size of the object, as a multiple of -w; -1: 0.7 of the image", "X"
    ),
    "-rngseed": Option(int, 12345, "seed of everything random", "N"),
    "-pngoutput": Option(str, None, "scenes as PNG in place of JPEG; a word after it is ignored", "", "", True),
}

_RANGES = {
    "num": (1, 10_000_000),
    "bgcolor": (0, 255),
    "bgthresh": (0, 255),
    "maxidev": (0, 255),
    "maxxangle": (0.0, 3.2),
    "maxyangle": (0.0, 3.2),
    "maxzangle": (0.0, 3.2),
    "w": (1, 1024),
    "h": (1, 1024),
    "rngseed": (0, 2**63 - 1),
}

# Samples on a contact sheet.
_SHOWN = 400


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, 1 if some images or objects could not be used, 2 for bad input."""
    return run(PROGRAM, _command, argv, keeps=True)


def _command(argv: Sequence[str] | None) -> int:
    options = parse(PROGRAM, OPTIONS, argv, ABOUT)
    if options is None:
        return OK
    for name, (low, high) in _RANGES.items():
        if not low <= options[name] <= high:
            raise InputError(f"expected -{name} between {low} and {high}, got {options[name]}")
    if options["show"] is not None and not 0 < options["show"] <= 100:
        raise InputError(f"expected -show between 0 and 100, got {options['show']}")
    for note in options["notes"]:
        report(PROGRAM, note)
    image, vec, info, bg = (bool(options[name]) for name in ("img", "vec", "info", "bg"))
    if image and vec:
        return _distorted(options)
    if image and bg and info:
        return _scenes(options)
    if info and vec:
        return _collected(options)
    if vec and not image:
        _sheet(options, options["show"] or 4.0)
        return OK
    raise InputError("expected -img and -vec, or -img, -bg and -info, or -info and -vec, or -vec, got none of them")


def _distorted(options: dict[str, Any]) -> int:
    import numpy as np

    rng = np.random.default_rng(options["rngseed"])
    cutout, distortion = _object(options)
    size = (options["w"], options["h"])
    scenery = _scenery(options, rng) if options["bg"] else None

    def samples() -> Iterator[Any]:
        parts = scenery.parts(size) if scenery else None
        for _ in range(options["num"]):
            plain = np.full((size[1], size[0]), options["bgcolor"], dtype=np.uint8)
            yield cutout.placed(next(parts) if parts else plain, distortion, rng, whole=False)

    _write(options, samples())
    return _failures(list(scenery.unreadable.values()) if scenery else [], "backgrounds")


def _scenes(options: dict[str, Any]) -> int:
    import numpy as np

    from vj._files import write_text
    from vj.images import write_image

    rng = np.random.default_rng(options["rngseed"])
    cutout, distortion = _object(options)
    scenery = _scenery(options, rng)
    info = Path(options["info"])
    info.parent.mkdir(parents=True, exist_ok=True)
    ending = "jpg" if options["pngoutput"] is None else "png"
    lines = []
    for k in range(min(options["num"], len(scenery.images))):
        scene = scenery.image((options["w"], options["h"])).copy()
        room = 0.7 * min(scene.shape[1] / options["w"], scene.shape[0] / options["h"])
        largest = options["maxscale"] if options["maxscale"] > 0 else room
        scale = float(rng.uniform(1.0, max(1.0, min(largest, room))))
        width, height = int(scale * options["w"]), int(scale * options["h"])
        x = int(rng.uniform(0.1, 0.8) * (scene.shape[1] - width))
        y = int(rng.uniform(0.1, 0.8) * (scene.shape[0] - height))
        part = scene[y : y + height, x : x + width]
        scene[y : y + height, x : x + width] = cutout.placed(part, distortion, rng, whole=True)
        name = f"{k + 1:04d}_{x:04d}_{y:04d}_{width:04d}_{height:04d}.{ending}"
        write_image(info.parent / name, scene)
        lines.append(f"{name} 1 {x} {y} {width} {height}\n")
    write_text(info, "".join(lines))
    if options["num"] > len(lines):
        report(PROGRAM, f"{options['num']} scenes were asked for, {len(lines)} made: one for each background")
    print(f"{len(lines)} scenes in {info.parent}, listed in {info}")
    return _failures(list(scenery.unreadable.values()), "backgrounds")


def _collected(options: dict[str, Any]) -> int:
    from vj.datasets.distortion import cut_box
    from vj.datasets.opencv_samples import read_info
    from vj.images import read_gray

    images = read_info(Path(options["info"]))
    there = sum(len(image.boxes) for image in images)
    failures: list[str] = []

    def samples() -> Iterator[Any]:
        left = options["num"]
        for image in images:
            if not left:
                return
            try:
                gray = read_gray(image.path) if len(image.boxes) else None
            except InputError as error:
                failures.append(str(error))
                continue
            for box in image.boxes[:left]:
                try:
                    sample = cut_box(gray, box, (options["w"], options["h"]))  # type: ignore[arg-type]
                except InputError as error:
                    failures.append(f"{image.path}: {error}")
                    continue
                left -= 1
                yield sample

    if not there:
        raise InputError(f"{options['info']}: expected objects, got none")
    count = _write(options, samples())
    if there > count + len(failures):
        report(PROGRAM, f"{count} of {there} objects are taken; -num {there} takes all")
    return _failures(failures, "images or objects")


def _object(options: dict[str, Any]) -> Any:
    """Return the object cut out of its image, and its distortions."""
    from vj.datasets.distortion import Cutout, Distortion
    from vj.images import read_gray

    cutout = Cutout.from_color(read_gray(options["img"]), options["bgcolor"], options["bgthresh"])
    angles = options["maxxangle"], options["maxyangle"], options["maxzangle"]
    invert = "random" if options["randinv"] else "always" if options["inv"] else "never"
    return cutout, Distortion(angles, options["maxidev"], invert)  # type: ignore[arg-type]


def _scenery(options: dict[str, Any], rng: Any) -> Any:
    from vj.datasets.backgrounds import find_backgrounds
    from vj.datasets.distortion import Scenery

    return Scenery(find_backgrounds([options["bg"]]), rng)


def _write(options: dict[str, Any], samples: Iterator[Any]) -> int:
    """Write the .vec file, its folder if missing, and the contact sheet if one is wanted."""
    from vj.datasets.vec_files import write_vec

    path = Path(options["vec"])
    path.parent.mkdir(parents=True, exist_ok=True)
    count = write_vec(path, _shown(samples, options["num"]))
    print(f"{count} samples of {options['w']}x{options['h']} pixels in {path}")
    if options["show"] is not None:
        _sheet(options, options["show"])
    return count


def _shown(samples: Iterator[Any], total: int) -> Iterator[Any]:
    """Show progress on a terminal."""
    if not sys.stderr.isatty():
        return samples
    from tqdm import tqdm

    progress: Callable[..., Any] = tqdm
    return iter(progress(samples, total=total, unit="samples", leave=False))


def _sheet(options: dict[str, Any], scale: float) -> None:
    from vj.datasets.opencv_samples import read_vec
    from vj.datasets.sheets import contact_sheet
    from vj.images import write_image

    windows = read_vec(Path(options["vec"]), (options["w"], options["h"]))
    # From first to last: neighbours may be similar.
    shown = windows[:: -(-len(windows) // _SHOWN)]
    path = Path(f"{options['vec']}.png")
    write_image(path, contact_sheet(shown, zoom=max(1, round(scale))))
    print(f"{len(shown)} of {len(windows)} samples in {path}")


def _failures(failures: list[str], what: str) -> int:
    if not failures:
        return OK
    report(PROGRAM, f"{len(failures)} {what} could not be used, the first: {failures[0]}")
    return SOME_FAILED


if __name__ == "__main__":
    sys.exit(main())
