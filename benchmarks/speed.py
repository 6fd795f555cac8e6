"""How long detection takes, next to cv2's own detector on the same images: `python -m benchmarks.speed`.

One process calls ours and cv2's in turn, warm; a figure is the median of seven. Before anything is timed, both must
have found the same boxes. Two faces near the camera take longest; there the packaged cascade also meets YuNet, if its
model is given with ``--yunet``, from 24 and from 80 px, and is timed from coarse to fine as well; `frontalface_fast`
proposes regions there in the coarse steps of `benchmarks.accuracy`. Also: the pyramid alone, whole processes of
`vj-detect` with kernels cached and without, and the memory that one image of 48 million pixels takes. Needs
opencv-python 4.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

import vj
from benchmarks import _runner
from benchmarks.accuracy import PROPOSALS
from vj.cascade import stock
from vj.cascade.model import Cascade
from vj.errors import InputError
from vj.images import to_gray
from vj.scanning._geometry import split
from vj.scanning.planes import Planes, Workspace, layout
from vj.scanning.pyramid import Level, levels
from vj.scanning.whole import BAND_PIXELS
from vj.tiers.detectors import open_yunet

Gray = npt.NDArray[np.uint8]

PHOTOS = ("astronaut", "coffee", "chelsea")
"""Photos inside scikit-image's wheel: a figure is the mean over them."""
SIZES = {"640x480": (640, 480), "1920x1080": (1920, 1080)}
MIN_SIZES = (24, 30)
CASCADES = {
    "frontalface_default": (1, 2),
    "frontalface_alt2": (1, 2),
    "lbpcascade_frontalface_opencv": (1,),
}
"""OpenCV's cascades, and the numbers of threads that each is timed with."""
SCALE_FACTOR = 1.1
COARSE = 14
"""Stages that a window must pass where the packaged cascade is timed from coarse to fine; see `vj.Detector`."""
REPEATS = 7
LARGE = (8000, 6000)


class DifferenceError(Exception):
    """Ours and cv2's results differ: there is nothing to time."""


def frames(size: tuple[int, int]) -> list[Gray]:
    """Return the photos in grey, resized to width and height."""
    from skimage import data

    found = []
    for name in PHOTOS:
        gray = to_gray(np.ascontiguousarray(getattr(data, name)()[..., ::-1]))
        shrinks = size[0] * size[1] < gray.size
        found.append(np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)))
    return found


def opencv_classifier(name: str) -> Any:
    """Load a cascade in cv2 by its name; scikit-image's file misspells a tag for which cv2 would refuse it."""
    text = stock.find(name).read_text(encoding="utf-8").replace("featuhreParams", "featureParams")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cascade.xml"
        path.write_text(text, encoding="utf-8")
        return cv2.CascadeClassifier(str(path))


def timing(ours: Callable[[], object], theirs: Callable[[], object], images: int = len(PHOTOS)) -> dict[str, Any]:
    """Time two calls in turn, on this many images each: milliseconds an image and their ratio."""
    times = _runner.alternating_seconds([ours, theirs], REPEATS)
    each = [[1e3 * t / images for t in part] for part in times]
    median, least = [statistics.median(part) for part in each], [min(part) for part in each]
    return {
        "vj_ms": median[0],
        "cv2_ms": median[1],
        "ratio": median[1] / median[0],
        "least_ms": least,
        "ratio_of_least": least[1] / least[0],
    }


def check_equal(ours: Gray, theirs: Any, what: str, ordered: bool) -> None:
    """Raise unless boxes are equal; cv2's threads report them in an order of chance."""
    rows, peers = ours.tolist(), np.array(theirs).reshape(-1, 4).tolist()
    if (rows if ordered else sorted(rows)) != (peers if ordered else sorted(peers)):
        raise DifferenceError(f"{what}: expected the boxes of cv2, {peers}, got {rows}")


def detection() -> list[dict[str, Any]]:
    """Time every cascade on every size, with every minimum size and number of threads."""
    rows = []
    for name in _runner.available(CASCADES):
        cascade, peer = vj.load(name), opencv_classifier(name)
        for size_name, size in SIZES.items():
            photos = frames(size)
            for least in MIN_SIZES:
                for threads in CASCADES[name]:
                    row = {"cascade": name, "size": size_name, "min_size": least, "threads": threads}
                    rows.append(row | compare(cascade, peer, photos, (least, least), threads))
                    print(f"{name} {size_name} {least} {threads}: {rows[-1]['ratio']:.2f}", file=sys.stderr)
    return rows


def compare(cascade: Cascade, peer: Any, photos: list[Gray], least: tuple[int, int], threads: int) -> dict[str, Any]:
    """Check that ours and cv2's find the same, then time them."""
    cv2.setNumThreads(threads)
    detector = vj.Detector(cascade, scale_factor=SCALE_FACTOR, min_size=least, threads=threads)

    def theirs(image: Gray) -> Any:
        return peer.detectMultiScale(image, SCALE_FACTOR, 3, 0, least)

    for image in photos:
        check_equal(detector.detect(image).boxes, theirs(image), cascade.name, threads == 1)  # type: ignore[arg-type]
    return timing(lambda: [detector.detect(p) for p in photos], lambda: [theirs(p) for p in photos])


def packaged() -> list[dict[str, Any]]:
    """Time the packaged cascade against alt2 in cv2, each from its own window on, one thread, 640x480.

    As it is by default, whose boxes are checked against cv2's, and from coarse to fine.
    """
    cv2.setNumThreads(1)
    photos = frames((640, 480))
    cascade, peer = vj.load(stock.DEFAULT), opencv_classifier("frontalface_alt2")
    own = opencv_classifier(stock.DEFAULT)
    detector = vj.Detector(cascade, scale_factor=SCALE_FACTOR, min_size=cascade.window, threads=1)
    for image in photos:
        theirs = own.detectMultiScale(image, SCALE_FACTOR, detector.min_neighbors, 0, cascade.window)
        check_equal(detector.detect(image).boxes, theirs, stock.DEFAULT, True)  # type: ignore[arg-type]
    least = peer.getOriginalWindowSize()

    def row(coarse: int) -> dict[str, Any]:
        ours = detector.replace(coarse=coarse)
        found = timing(
            lambda: [ours.detect(p) for p in photos],
            lambda: [peer.detectMultiScale(p, SCALE_FACTOR, 3, 0, least) for p in photos],
        )
        return {"coarse": coarse} | found

    return [row(coarse) for coarse in (0, COARSE)]


def faces_near() -> Gray:
    """Return two large faces, in colour, 640x480: part of a photo of scikit-image next to its mirror image."""
    from skimage import data

    half = data.astronaut()[16:496, :320, ::-1]
    return np.ascontiguousarray(np.hstack([half, half[:, ::-1]]))


def one_face() -> Gray:
    """Return the whole of that photo, in colour, resized to 640x480."""
    from skimage import data

    photo = np.ascontiguousarray(data.astronaut()[..., ::-1])
    return np.asarray(cv2.resize(photo, (640, 480), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def near(yunet: str | None = None) -> list[dict[str, Any]]:
    """Time detection of near faces: stock cascades against cv2, the packaged one against alt2 in cv2 and YuNet."""
    rows: list[dict[str, Any]] = []

    def add(what: str, peer: str, cascade: Cascade, image: Gray, theirs: Callable[[], object], **settings: Any) -> None:
        detector = vj.Detector(cascade, **{"scale_factor": SCALE_FACTOR} | settings)
        found = timing(lambda: detector.detect(image), theirs, 1)
        name = cascade.name.removeprefix("haarcascade_")
        row = {"what": what, "cascade": name, "peer": peer} | settings
        rows.append(row | {"vj_ms": found["vj_ms"], "peer_ms": found["cv2_ms"], "ratio": found["ratio"]})
        print(f"{what}, {name} against {peer}, {settings}: {found['ratio']:.2f}", file=sys.stderr)

    two, one = faces_near(), one_face()
    gray, ours = to_gray(two), vj.load(stock.DEFAULT)
    alt2 = opencv_classifier("frontalface_alt2")
    for threads in (1, 2):
        cv2.setNumThreads(threads)
        for name in _runner.available(["frontalface_default", "frontalface_alt2"]):
            cascade, peer = vj.load(name), opencv_classifier(name)
            detector = vj.Detector(cascade, scale_factor=SCALE_FACTOR, min_size=24, threads=threads)
            theirs = peer.detectMultiScale(gray, SCALE_FACTOR, 3, 0, (24, 24))
            check_equal(detector.detect(gray).boxes, theirs, name, threads == 1)  # type: ignore[arg-type]

            def call(peer: Any = peer) -> object:
                return peer.detectMultiScale(gray, SCALE_FACTOR, 3, 0, (24, 24))

            add("two faces near", f"{name} in cv2", cascade, gray, call, min_size=24, threads=threads)
    cv2.setNumThreads(1)

    def by_alt2() -> object:
        return alt2.detectMultiScale(gray, SCALE_FACTOR, 3, 0, (24, 24))

    for coarse in (0, COARSE):
        add("two faces near", "frontalface_alt2 in cv2", ours, gray, by_alt2, min_size=24, threads=1, coarse=coarse)
    for what, image, least in (("two faces near", two, 24), ("two faces near", two, 80), ("one face", one, 80)):
        if yunet is None:
            break
        model = open_yunet(yunet, 0.6)
        model.setInputSize((image.shape[1], image.shape[0]))

        def by_yunet(model: Any = model, image: Gray = image) -> object:
            return model.detect(image)

        for coarse in (0, COARSE):
            add(what, "YuNet", ours, image, by_yunet, min_size=least, threads=1, coarse=coarse)
        if least == 24 or image is one:
            add(what, "YuNet", vj.load("frontalface_fast"), image, by_yunet, threads=1, **PROPOSALS)
    return rows


def pyramid() -> list[dict[str, Any]]:
    """Time what the scan reads (resampled, integrated, in planes) against cv2's resize and integral of each level."""
    cv2.setNumThreads(1)
    rows = []
    for name, size in SIZES.items():
        photos = frames(size)
        found = levels(size, (24, 24), SCALE_FACTOR)
        found = [level for level in found if level.rows]
        space = Workspace()

        def ours(found: list[Level] = found, photos: list[Gray] = photos, space: Workspace = space) -> None:
            for image in photos:
                for level in found:
                    for band in bands(level):
                        level.planes(image, band, layout(level.size[0], level.stride, False), space)

        out = [tuple(np.empty((h + 1, w + 1), np.int32) for _ in range(2)) for w, h in (lv.size for lv in found)]

        def theirs(found: list[Level] = found, photos: list[Gray] = photos, out: Any = out) -> None:
            for image in photos:
                for level, (sums, squares) in zip(found, out, strict=True):
                    resized = cv2.resize(image, level.size, interpolation=cv2.INTER_LINEAR_EXACT)
                    cv2.integral2(resized, sums, squares, cv2.CV_32S, cv2.CV_32S)

        for level in found:
            check_planes(level, photos[0])
        megapixels = sum(level.size[0] * level.size[1] for level in found) / 1e6
        rows.append({"size": name, "levels": len(found), "megapixels": megapixels} | timing(ours, theirs))
    return rows


def bands(level: Level) -> list[tuple[int, int]]:
    """Split a level's rows of windows as the detector does."""
    table = np.array([(*level.size, level.stride, level.rows)])
    found = split(table, table[:, 3], np.array([level.window[1]]), BAND_PIXELS)
    return [(first, last) for _, first, last in found.tolist()]


def check_planes(level: Level, image: Gray) -> None:
    """Raise unless the planes of a level hold what cv2 makes of it."""
    for first, last in bands(level):
        planes = level.planes(image, (first, last), layout(level.size[0], level.stride, False))
        resized = cv2.resize(image, level.size, interpolation=cv2.INTER_LINEAR_EXACT)
        top = first * level.stride
        part = np.ascontiguousarray(resized[top : top + len(planes.image)])
        sums, squares = cv2.integral2(part, sdepth=cv2.CV_32S, sqdepth=cv2.CV_32S)
        pairs = (
            (planes.image, part),
            (in_order(planes, planes.sums), sums),
            (in_order(planes, planes.squares), np.asarray(squares).view(np.uint32)),
        )
        if not all(np.array_equal(a, b) for a, b in pairs):
            raise DifferenceError(f"expected the integral images of cv2 at scale {level.scale}, got others")


def in_order(planes: Planes, plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an integral image with its columns in order."""
    height, width = planes.image.shape
    columns = np.arange(width + 1)
    if planes.layout.odd:
        columns = (columns >> 1) + (columns & 1) * planes.layout.odd
    return plane[np.arange(height + 1)[:, None] * planes.layout.row_stride + columns]


def process() -> dict[str, Any]:
    """Time whole processes of `vj-detect` on one 640x480 photo: the first ever, which compiles, and later ones."""
    firsts, seconds, said = [], [], ""
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        cv2.imwrite(str(photo), frames((640, 480))[0])
        for k in range(3):
            where = {"NUMBA_CACHE_DIR": str(Path(folder) / f"cache-{k}")}
            first, said, _ = run([sys.executable, "-m", "vj.cli.detect", str(photo)], where)
            if "compiling" not in said:
                raise DifferenceError(f"expected vj-detect to say on stderr that it compiles, got {said!r}")
            firsts.append(first)
        for _ in range(REPEATS):
            seconds.append(run([sys.executable, "-m", "vj.cli.detect", str(photo)], where)[0])
    return {
        "first_seconds": statistics.median(firsts),
        "first_says": said.strip(),
        "second_seconds": statistics.median(seconds),
        "all_seconds": {"first": firsts, "second": seconds},
    }


def run(command: list[str], variables: dict[str, str] | None = None) -> tuple[float, str, int]:
    """Run a process; return its wall seconds, what it wrote to stderr and its peak memory in bytes."""
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        child = subprocess.Popen(
            command, env=os.environ | (variables or {}), stdout=subprocess.DEVNULL, stderr=errors, text=True
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        said = errors.read()
    if child.returncode != 0:
        raise InputError(f"expected {' '.join(command[:3])} to succeed, got exit code {child.returncode}: {said}")
    return seconds, said, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


_LARGE_OURS = "import sys, numpy, vj; vj.Detector(vj.load(sys.argv[2])).detect(numpy.load(sys.argv[1]))"
_LARGE_CV2 = "import sys, numpy, cv2; cv2.CascadeClassifier(sys.argv[2]).detectMultiScale(numpy.load(sys.argv[1]))"


def memory() -> dict[str, Any]:
    """Measure the peak memory of processes that find faces in one large grey image, itself included."""
    name = "frontalface_default"
    with tempfile.TemporaryDirectory() as folder:
        image = cv2.resize(frames((640, 480))[0], LARGE, interpolation=cv2.INTER_CUBIC)
        array, path = Path(folder) / "large.npy", Path(folder) / "large.png"
        np.save(array, image)
        cv2.imwrite(str(path), image)
        commands = {
            "detector": [sys.executable, "-c", _LARGE_OURS, str(array), name],
            "cv2": [sys.executable, "-c", _LARGE_CV2, str(array), str(stock.find(name))],
            "vj_detect": [sys.executable, "-m", "vj.cli.detect", str(path), "--cascade", name],
        }
        peaks = {key: run(command)[2] / 1e9 for key, command in commands.items()}
    return {"size": list(LARGE), "cascade": name, "peak_gb": peaks}


def table(figures: dict[str, Any]) -> str:
    """Markdown tables of a result file: detection, then the rest."""
    by_case: dict[tuple[str, str, int], dict[int, dict[str, Any]]] = {}
    for row in figures["detection"]:
        by_case.setdefault((row["cascade"], row["size"], row["min_size"]), {})[row["threads"]] = row
    rows = []
    for (cascade, size, least), by_threads in by_case.items():
        cells: list[str] = []
        for threads in (1, 2):
            row = by_threads.get(threads)
            cells += [f"{row['vj_ms']:.1f}", f"{row['cv2_ms']:.1f}", f"{row['ratio']:.1f}"] if row else ["", "", ""]
        rows.append([cascade, size, least, *cells])
    header = ["one thread: vj, ms", "cv2, ms", "times faster", "two threads: vj, ms", "cv2, ms", "times faster"]
    first = _runner.table(["cascade", "image", "min. size", *header], rows)
    return f"{first}\n\n{_rest(figures)}"


def _named(cascade: str, row: dict[str, Any]) -> str:
    """Name a cascade and how it is scanned."""
    return f"{cascade}, coarse {row['coarse']}," if row.get("coarse") else cascade


def _rest(figures: dict[str, Any]) -> str:
    run, peak = figures["process"], figures["memory"]["peak_gb"]
    rows = [
        *(
            [
                f"640x480, one thread: {_named('frontalface', own)} against frontalface_alt2 in cv2",
                f"{own['vj_ms']:.1f} ms",
                f"{own['cv2_ms']:.1f} ms",
                f"{own['ratio']:.1f}",
            ]
            for own in figures["packaged"]
        ),
        *(
            [
                f"640x480, {row['what']}, min. size {row['min_size']}, {row['threads']} thread"
                f"{'s' if row['threads'] > 1 else ''}: {_named(row['cascade'], row)} against {row['peer']}",
                f"{row['vj_ms']:.1f} ms",
                f"{row['peer_ms']:.1f} ms",
                f"{row['ratio']:.1f}",
            ]
            for row in figures.get("near", ())
        ),
        *(
            [
                f"pyramid of {row['size']}: {row['levels']} levels, resized and integrated",
                f"{row['vj_ms']:.2f} ms",
                f"{row['cv2_ms']:.2f} ms",
                f"{row['ratio']:.1f}",
            ]
            for row in figures["pyramid"]
        ),
        ["`vj-detect` of a 640x480 photo, whole process", f"{run['second_seconds']:.2f} s", "", ""],
        ["the same, first run ever (compiles)", f"{run['first_seconds']:.1f} s", "", ""],
        ["peak memory, 8000x6000 grey", f"{peak['detector']:.2f} GB", f"{peak['cv2']:.2f} GB", ""],
    ]
    return _runner.table(["", "vj", "cv2", "times faster"], rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", metavar="DIR", default=str(_runner.RESULTS), help="where the result goes")
    parser.add_argument("--yunet", metavar="MODEL.onnx", help="also time this model on the same images")
    args = parser.parse_args(argv)
    if not hasattr(cv2, "CascadeClassifier"):
        print("benchmarks.speed: needs the CascadeClassifier of opencv-python 4", file=sys.stderr)
        return 2
    try:
        figures = {
            "scale_factor": SCALE_FACTOR,
            "repeats": REPEATS,
            "detection": detection(),
            "packaged": packaged(),
            "near": near(args.yunet),
            "pyramid": pyramid(),
            "process": process(),
            "memory": memory(),
        }
    except DifferenceError as error:
        print(f"benchmarks.speed: {error}", file=sys.stderr)
        return 1
    except InputError as error:
        print(f"benchmarks.speed: {error}", file=sys.stderr)
        return 2
    shown = [image for size in SIZES.values() for image in frames(size)]
    data = {"name": "scikit-image: " + ", ".join(PHOTOS), "pictures": len(PHOTOS), "sha256": _runner.array_hash(shown)}
    path = _runner.write_result("speed", figures, data=data, folder=Path(args.output))
    print(f"{table(figures)}\n\nWritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
