"""Spoilt cascades and images, and what is done with one."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data

import vj
from benchmarks import _mutants as mutants
from benchmarks._cases import Case, Wrong, pick
from vj.cascade import stock
from vj.cascade.file_storage import read_tree
from vj.cascade.model import Cascade
from vj.cascade.opencv_xml import parse, to_xml
from vj.errors import InputError
from vj.images import read_bgr
from vj.scanning.planes import layout
from vj.scanning.pyramid import levels
from vj.scanning.scanner import Scanner

MAX_PIXELS = 20_000_000
"""Pixels allowed in an image, as with ``--max-pixels``: 60 MB in colour; the default allows 600 MB."""

REAL = ("frontalface", "frontalface_alt2", "eye_tree_eyeglasses", "smile", "license_plate_rus_16stages")
"""Cascades that mutants are made of, as far as they are here: stumps, trees, tilted features, the old layout."""


def first_stages(cascade: Cascade, n: int) -> Cascade:
    """Return a cascade of the first stages of another, without the features that only later ones use."""
    trees = cascade.stage_starts[n]
    nodes = cascade.tree_starts[trees]
    used, places = np.unique(cascade.node_features[:nodes], return_inverse=True)
    return replace(
        cascade,
        features=cascade.features.take(used),
        stage_starts=cascade.stage_starts[: n + 1],
        stage_thresholds=cascade.stage_thresholds[:n],
        tree_starts=cascade.tree_starts[: trees + 1],
        node_features=places,
        node_children=cascade.node_children[:nodes],
        node_thresholds=cascade.node_thresholds[:nodes],
        node_subsets=cascade.node_subsets[:nodes],
        leaves=cascade.leaves[: nodes + trees],
    )


@cache
def cascades() -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return the first stages of real cascades as files, and the whole files."""
    lbp = Path(skimage.__file__).parent / "data" / "lbpcascade_frontalface_opencv.xml"
    found = [lbp] if lbp.is_file() else []
    for name in REAL:
        with contextlib.suppress(InputError):
            found.append(stock.find(name))
    whole = [path.read_bytes() for path in found]
    small = []
    for data in whole:
        if b"opencv-haar-classifier" in data:
            root = ElementTree.fromstring(data)
            stages = root[0].find("stages")
            assert stages is not None
            for stage in list(stages)[3:]:
                stages.remove(stage)
            small.append(ElementTree.tostring(root))
        else:
            small.append(to_xml(first_stages(parse(data), 3)).encode())
    tree = {"cascade": _plain(read_tree(small[1]).children[0])}
    small += [json.dumps(tree).encode(), b"%YAML:1.0\n---\n" + "\n".join(_yaml(tree)).encode()]
    return (*small, gzip.compress(small[0])), tuple(whole)


def _plain(node: Any) -> Any:
    """Return a node of a file storage as JSON has it."""
    if len(node):
        if all(child.tag == "_" for child in node):
            return [_plain(child) for child in node]
        return {child.tag: _plain(child) for child in node}
    words = node.text.split()
    try:
        numbers = [int(word) if word.lstrip("-").isdigit() else float(word) for word in words]
    except ValueError:
        return node.text.strip()
    return numbers[0] if len(numbers) == 1 else numbers


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Write plain values as OpenCV writes YAML: numbers in brackets, all else in blocks."""
    items = value.items() if isinstance(value, dict) else (("-", item) for item in value)
    for key, item in items:
        head = indent + ("- " if key == "-" else f"{key}: ")
        if isinstance(item, dict) or (isinstance(item, list) and any(isinstance(one, dict | list) for one in item)):
            yield head.rstrip()
            yield from _yaml(item, indent + "   ")
        else:
            yield head + (f"[ {', '.join(map(str, item))} ]" if isinstance(item, list) else str(item))


@cache
def scenes() -> tuple[Any, ...]:
    """Return grey images small enough to scan thousands of times: a face, a texture, noise."""
    face = skimage.data.astronaut()[40:160, 160:280, 1]
    rng = np.random.default_rng(1)
    return (
        cv2.resize(face, (64, 56), interpolation=cv2.INTER_AREA),
        np.ascontiguousarray(skimage.data.brick()[:48, :72]),
        rng.integers(0, 256, (45, 70), dtype=np.uint8),
    )


def make_cascade(rng: mutants.Rng) -> Case:
    small, whole = cascades()
    data = pick(rng, whole if rng.random() < 0.005 else small)
    kind = rng.random()
    if kind < 0.35 or data.startswith(b"\x1f\x8b"):
        data = mutants.spoil_bytes(rng, data, small)
    elif kind < 0.7:
        data = mutants.spoil_numbers(rng, data)
    elif data.startswith(b"{"):
        data = mutants.spoil_json(rng, data)
    else:
        data = (mutants.spoil_lines if data.startswith(b"%YAML") else mutants.spoil_xml)(rng, data)
    return Case({"cascade.xml": data})


def try_cascade(case: Case, folder: Path) -> None:
    cascade = vj.load(folder / "cascade.xml")
    for k, image in enumerate(scenes()):
        compare(cascade, image, 1 + k % 2)
    vj.Detector(cascade, threads=1, min_neighbors=1).detect(scenes()[0])
    vj.save(cascade, folder / "again.xml")
    again = vj.load(folder / "again.xml")
    if replace(again, name=cascade.name) != cascade:
        raise Wrong("a cascade that reads back as another one")


def compare(cascade: vj.Cascade, image: Any, stride: int) -> None:
    """Compare the lane scan of an image at its own scale with the plain one, window by window."""
    height, width = image.shape
    if width < cascade.window[0] or height < cascade.window[1]:
        return
    scanner = Scanner(cascade)
    level = levels((width, height), cascade.window, 2.0, stride=stride)[0]
    planes = level.planes(image, (0, level.rows), layout(width, stride, cascade.has_tilted))
    scan, count = (find(planes, level.rows, level.columns, False) for find in (scanner.scan, scanner.count))
    depth, sums, _ = scanner.depths(planes, level.rows, level.columns)
    ys, xs = np.nonzero(depth == cascade.n_stages)
    entered = [int((depth >= s).sum()) for s in range(cascade.n_stages)]
    if not (
        np.array_equal(scan.xs, xs * stride)
        and np.array_equal(scan.ys, ys * stride)
        and np.array_equal(scan.sums, sums[ys, xs])
        and count.entered.tolist() == entered
        and count.hits == len(xs)
    ):
        raise Wrong("the lane scan differs from the plain one")


# --- images -----------------------------------------------------------------------------------------------------------


@cache
def images() -> tuple[tuple[str, bytes], ...]:
    """Return a small photo in every format that is read."""
    photo = np.ascontiguousarray(skimage.data.astronaut()[60:120, 180:260, ::-1])
    found = []
    for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm", ".pgm"):
        image = photo if suffix != ".pgm" else photo[:, :, 1]
        found.append((suffix, cv2.imencode(suffix, image)[1].tobytes()))
    from PIL import Image

    for kind, mode in (("GIF", "P"), ("PNG", "P"), ("PNG", "I;16"), ("PNG", "1"), ("TIFF", "RGBA"), ("JPEG", "CMYK")):
        file = io.BytesIO()
        base = Image.fromarray(photo[:, :, ::-1].copy())
        base = base.convert("L").convert("I;16") if mode == "I;16" else base.convert(mode)
        base.save(file, kind)
        found.append((f".{kind.lower()}", file.getvalue()))
    return tuple(found)


@cache
def quick_detector() -> vj.Detector:
    return vj.Detector(parse(cascades()[0][0]), threads=1, scale_factor=1.5)


def make_image(rng: mutants.Rng) -> Case:
    suffix, data = pick(rng, images())
    return Case({f"image{suffix}": mutants.spoil_image(rng, data, [other for _, other in images()])})


def try_image(case: Case, folder: Path) -> None:
    (name,) = case.files
    image = read_bgr(folder / name, MAX_PIXELS)
    if image.size < 3_000_000:
        quick_detector().detect(image)
