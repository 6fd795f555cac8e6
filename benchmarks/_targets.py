"""What the robustness campaign attacks: for each kind of input how spoilt ones are made, and what is done with one.

An attempt returns if the input was used, raises `InputError` if it was refused, and `Wrong` if it was used wrongly;
anything else it raises or does is a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import re
import struct
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data

import vj
from benchmarks import _mutants as mutants
from vj.boosting.checkpoint import Checkpoint
from vj.boosting.recipe import TrainingConfig
from vj.boosting.run import Training
from vj.cascade import stock
from vj.cascade.file_storage import read_tree
from vj.cascade.model import Cascade
from vj.cascade.opencv_xml import parse, to_xml
from vj.datasets.backgrounds import find_backgrounds
from vj.datasets.crops import cut, region_of_box, region_of_landmarks
from vj.datasets.formats import FORMATS, read_labelled
from vj.datasets.opencv_samples import read_vec
from vj.errors import InputError
from vj.images import read_bgr
from vj.scanning.scanner import Scanner

MAX_PIXELS = 20_000_000
"""Pixels allowed in an image, as with ``--max-pixels``: 60 MB in colour; the default allows 600 MB."""

REAL = ("frontalface", "frontalface_alt2", "eye_tree_eyeglasses", "smile", "license_plate_rus_16stages")
"""Cascades that mutants are made of, as far as they are here: stumps, trees, tilted features, the old layout."""


class Wrong(Exception):
    """An input was used and gave another result than it must."""


@dataclass(frozen=True)
class Case:
    """One input: files by name, and what to do with them."""

    files: dict[str, bytes] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Parameters
    ----------
    make : callable
        Makes a case from a random generator.
    attempt : callable
        Takes a case and the folder that its files were written to.
    share : float
        Part of the campaign's inputs that it gets.
    """

    make: Callable[[mutants.Rng], Case]
    attempt: Callable[[Case, Path], None]
    share: float


def _pick(rng: mutants.Rng, items: Sequence[Any]) -> Any:
    return items[int(rng.integers(len(items)))]


# --- cascades ---------------------------------------------------------------------------------------------------------


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


def _make_cascade(rng: mutants.Rng) -> Case:
    small, whole = cascades()
    data = _pick(rng, whole if rng.random() < 0.005 else small)
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


def _try_cascade(case: Case, folder: Path) -> None:
    cascade = vj.load(folder / "cascade.xml")
    scanner = Scanner(cascade)
    for k, image in enumerate(scenes()):
        stride = 1 + k % 2
        _compare(scanner.scan(image, stride), *scanner.depths(image, stride), cascade.n_stages, stride)
    vj.Detector(cascade, threads=1, min_neighbors=1).detect(scenes()[0])
    vj.save(cascade, folder / "again.xml")
    again = vj.load(folder / "again.xml")
    if replace(again, name=cascade.name) != cascade:
        raise Wrong("a cascade that reads back as another one")


def _compare(scan: Any, depth: Any, sums: Any, n_stages: int, stride: int) -> None:
    """Compare the lane scan with the plain one, window by window."""
    ys, xs = np.nonzero(depth == n_stages)
    entered = [int((depth >= s).sum()) for s in range(n_stages)]
    if not (
        np.array_equal(scan.xs, xs * stride)
        and np.array_equal(scan.ys, ys * stride)
        and np.array_equal(scan.sums, sums[ys, xs])
        and scan.entered.tolist() == entered
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
def _quick_detector() -> vj.Detector:
    return vj.Detector(parse(cascades()[0][0]), threads=1, scale_factor=1.5)


def _make_image(rng: mutants.Rng) -> Case:
    suffix, data = _pick(rng, images())
    return Case({f"image{suffix}": mutants.spoil_image(rng, data, [other for _, other in images()])})


def _try_image(case: Case, folder: Path) -> None:
    (name,) = case.files
    image = read_bgr(folder / name, MAX_PIXELS)
    if image.size < 3_000_000:
        _quick_detector().detect(image)


# --- labels, lists, samples -------------------------------------------------------------------------------------------

_VOC = (
    b"<annotation><folder>images</folder><filename>a.png</filename><size><width>80</width><height>60</height></size>"
    b"<object><name>face</name><difficult>0</difficult><bndbox><xmin>11</xmin><ymin>12</ymin><xmax>40</xmax>"
    b"<ymax>50</ymax></bndbox></object><object><name>face</name><difficult>1</difficult><bndbox><xmin>1.5</xmin>"
    b"<ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
)
_COLUMNS = "sq_x,sq_y,sq_size,leye_x,leye_y,reye_x,reye_y,lmouth_x,lmouth_y,rmouth_x,rmouth_y"


@cache
def labels() -> dict[str, dict[str, bytes]]:
    """Return the files of a small set in every format; the first one is the one that is spoilt."""
    boxes = [{"bbox": [10, 12, 30, 38], "landmarks": [[15, 20], [30, 20], [18, 40], [28, 40]]}, {"bbox": [1, 2, 8, 9]}]
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 80, "height": 60}, {"id": 2, "file_name": "b.png"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 12, 30, 38], "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 3, "bbox": [1.5, 2, 8, 9.5], "iscrowd": 1},
        ],
        "categories": [{"id": 3, "name": "face"}],
    }
    row = "10,12,30,38,9,11,40,15,20,30,20,18,40,28,40"
    wider = "0--Parade/a.png\n2\n10 12 30 38 0 0 0 0 0 0\n1 2 8 9 2 0 0 1 2 1\nb.png\n0\n0 0 0 0 0 0 0 0 0 0\n"
    return {
        "annotations": {
            "annotations.json": json.dumps(
                [{"file": "a.png", "faces": boxes}, {"file": "b.png", "faces": [], "width": 80, "height": 60}]
            ).encode()
        },
        "coco": {"labels.json": json.dumps(coco).encode()},
        "voc": {"a.xml": _VOC},
        "yolo": {"a.txt": b"0 0.3 0.5 0.35 0.6\n0 0.1 0.1 0.1 0.15 0.9\n", "data.yaml": b"names:\n  0: face\n"},
        "yaml": {
            "data.yaml": b"path: ..\ntrain: images\nnc: 2\nnames:\n  0: face\n  1: 'a dog'\n",
            "a.txt": b"0 0.3 0.5 0.35 0.6\n",
        },
        "csv": {"boxes.csv": f"file,x,y,w,h,{_COLUMNS}\na.png,{row}\nb.png,{row}\na.png,1,2,3,4,,,,,,,,,,,\n".encode()},
        "info": {"info.dat": b"a.png 2 10 12 30 38 1 2 8 9\nb.png 0\n"},
        "wider": {"wider.txt": wider.encode()},
        "fddb": {
            "FDDB-fold-01-ellipseList.txt": b"a\n2\n20 15 1.57 25 30 1\n5 4 -1.4 6 7  1\nb\n1\n9 8 0.1 30 30  1\n"
        },
        "mitcmu": {"list.txt": b"a.png 15 20 30 20 22 30 18 40 23 41 28 40\nb.png 1 2 3 4 5 6 7 8 9 10 11 12\n"},
        "vec": {"samples.vec": struct.pack("<iihh", 3, 64, 0, 0) + (b"\0" + bytes(range(64)) * 2) * 3},
        "backgrounds": {"bg.txt": b"# images\na.png\nb.png\n\n"},
    }


def _make_labels(rng: mutants.Rng, only: str | None = None) -> Case:
    name = only or _pick(rng, list(labels()))
    files = dict(labels()[name])
    spoilt = next(iter(files))
    data, suffix, kind = files[spoilt], Path(spoilt).suffix, rng.random()
    if kind < 0.3:
        data = mutants.spoil_bytes(rng, data, [next(iter(files.values())) for files in labels().values()])
    elif kind < 0.6:
        data = mutants.spoil_numbers(rng, data)
    elif suffix == ".json":
        data = mutants.spoil_json(rng, data)
    elif suffix == ".xml":
        data = mutants.spoil_xml(rng, data)
    else:
        data = mutants.spoil_lines(rng, data)
    if rng.random() < 0.003:
        data = data * int(2_000_000 / max(1, len(data)))
    png = images()[0][1]
    return Case({spoilt: data, **{k: v for k, v in files.items() if k != spoilt}, "a.png": png, "b.png": png}, (name,))


def _try_labels(case: Case, folder: Path) -> None:
    (name,) = case.arguments
    source = folder / next(iter(case.files))
    if name == "vec":
        windows = read_vec(source, (8, 8))
        if windows.dtype != np.uint8 or windows.ndim != 3:
            raise Wrong(f"samples of {windows.dtype}, shape {windows.shape}")
        return
    if name == "backgrounds":
        for image in find_backgrounds([str(source)]):
            image.sum()
        return
    kind = {"yaml": "yolo"}.get(name, name)
    place = folder if kind in ("voc", "yolo") else source
    assert kind in FORMATS
    try:
        found = read_labelled(place, kind, folder)
    except InputError as error:
        if "--class" not in str(error):
            raise
        found = read_labelled(place, kind, folder, classes=["face"])
    for image in found[:20]:
        for box in image.boxes[:20].tolist():
            cut(scenes()[0], region_of_box(tuple(box), (8, 8), 0.1), (8, 8))
        for points in [] if image.landmarks is None else image.landmarks[:20]:
            if np.isfinite(points).all():
                cut(scenes()[0], region_of_landmarks(points, (8, 8)), (8, 8))


# --- recipes ----------------------------------------------------------------------------------------------------------


@cache
def recipes() -> tuple[bytes, ...]:
    """Return recipes with every kind of value."""
    plain = TrainingConfig.from_mapping({"positives": [{"path": "a"}], "backgrounds": ["b"]}, data="x")
    every = plain.to_toml()
    tables = '\n[[positives]]\npath = "{data}/x.csv"\nwhere = { yaw = "-0.6..0.6" }\nclasses = ["face"]\njitter = 2\n'
    steps = 'window = "20x24"\nstages = 15\nmax_depth = [1, 1, 2]\nmin_hit_rate = [0.98, 0.99]\nmirror = true\n'
    return every.encode(), (steps + tables).encode()


def _make_recipe(rng: mutants.Rng) -> Case:
    data, kind = _pick(rng, recipes()), rng.random()
    spoil: Callable[[mutants.Rng, bytes], bytes] = mutants.spoil_bytes
    if kind > 0.65:
        spoil = mutants.spoil_numbers
    elif kind > 0.3:
        spoil = mutants.spoil_lines
    return Case({"recipe.toml": spoil(rng, data)})


def _try_recipe(case: Case, folder: Path) -> None:
    config = TrainingConfig.from_toml(folder / "recipe.toml", data="pictures")
    if TrainingConfig.from_mapping(tomllib.loads(config.to_toml())) != config:
        raise Wrong("a recipe that reads back as another one")


# --- checkpoints ------------------------------------------------------------------------------------------------------

TINY = {
    "window": "8x8",
    "stages": 2,
    "positives_per_stage": 40,
    "negatives_per_stage": 50,
    "max_false_alarm_rate": 0.4,
    "max_weak_count": 3,
    "features": "basic",
    "threads": 1,
}
"""A recipe that trains in a fraction of a second."""


@cache
def samples() -> tuple[Any, list[Any]]:
    """Return faces of 8x8 and backgrounds for `TINY`."""
    faces = np.rint(skimage.data.lfw_subset()[:60] * 255).astype(np.uint8)
    small = np.stack([cv2.resize(face, (8, 8), interpolation=cv2.INTER_AREA) for face in faces])
    return small, [np.ascontiguousarray(skimage.data.gravel()[:60, :60]), skimage.data.coffee()[:80, :80, 0].copy()]


def training(folder: Path, progress: Callable[[Any], None] | None = None, **more: Any) -> Training:
    """Return a run of `TINY` with its output in a folder, but for the plots at the end, which take a second."""
    faces, backgrounds = samples()
    config = TrainingConfig.from_mapping({**TINY, **more, "output": str(folder)})
    run = Training(config, positives=faces, backgrounds=backgrounds, progress=progress)
    run._output.finish = lambda *given: None  # type: ignore[method-assign]
    return run


@cache
def checkpoints() -> tuple[dict[str, bytes], ...]:
    """Return what a run leaves in its checkpoint after each of its saves."""
    found: list[dict[str, bytes]] = []
    save = Checkpoint.save

    def kept(self: Checkpoint, state: Any) -> None:
        save(self, state)
        found.append({path.name: path.read_bytes() for path in sorted(self.folder.iterdir()) if path.is_file()})

    with tempfile.TemporaryDirectory() as place:
        Checkpoint.save = kept  # type: ignore[method-assign]
        try:
            list(training(Path(place)))
        finally:
            Checkpoint.save = save  # type: ignore[method-assign]
    return tuple(found)


def _make_checkpoint(rng: mutants.Rng) -> Case:
    files = dict(_pick(rng, checkpoints()))
    array = next((name for name in files if name.endswith(".npy")), None)
    kind, state = rng.random(), files["state.json"]
    if kind < 0.1 and array:
        files[array] = mutants.spoil_bytes(rng, files[array])
    elif kind < 0.2 and array:
        # As a partner in crime would: the hash agrees.
        import hashlib

        data = mutants.spoil_bytes(rng, files[array][:128]) + files[array][128:]
        before = hashlib.sha256(files[array]).hexdigest().encode()
        files[array] = data
        files["state.json"] = state.replace(before, hashlib.sha256(data).hexdigest().encode())
    elif kind < 0.4:
        files["state.json"] = mutants.spoil_bytes(rng, state)
    elif kind < 0.6:
        files["state.json"] = mutants.spoil_numbers(rng, state)
    else:
        files["state.json"] = mutants.spoil_json(rng, state)
    return Case(files)


def _try_checkpoint(case: Case, folder: Path) -> None:
    """Resume from it; four of five only up to the second step, since training costs a tenth of a second."""
    whole = zlib.crc32(case.files["state.json"]) % 5 == 0
    steps = []

    def step(progress: Any) -> None:
        steps.append(progress)
        if len(steps) > 2 and not whole:
            raise _EnoughError

    (folder / "checkpoint").mkdir()
    for name in case.files:
        (folder / name).rename(folder / "checkpoint" / name)
    with contextlib.suppress(_EnoughError):
        list(training(folder, step))


class _EnoughError(Exception):
    """Stops a run that was resumed."""


# --- command lines ----------------------------------------------------------------------------------------------------

ODD_WORDS = (
    *("", " ", "-", "--", "-1", "0", "1", "1.0", "1.1", "1.5", "2", "3", "nan", "inf", "-inf", "1e9", "1e400", "x"),
    *("24", "24x24", "0x0", "1x", "-5x5", "99999999999x1", "\0", "\udcff", "ä", "%s", "{}", "a" * 300, "../..", "."),
    *("a.png", "b.png", "none.png", "model.xml", "labels.json", "outcomes.csv", "policy.json", "out", "out/x.json"),
    *("/dev/null", "/dev/zero", "yunet:x.onnx", "a:b=c", "a=1", "fast=1", "slow=10", "=", "--help", "--version"),
)


@cache
def _parsers() -> dict[str, tuple[Callable[..., int], tuple[str, ...], tuple[tuple[str, ...], ...]]]:
    """Return each command: its main, its options, and good command lines to start from."""
    from vj.cli import detect, evaluate, inspect, tiers, train

    # Training needs a path that is there; without one nothing is trained, whatever the options are.
    lines: dict[Any, tuple[tuple[str, ...], ...]] = {
        detect: (
            ("a.png", "--cascade", "model.xml", "--annotate", "out"),
            ("a.png", "b.png", "--cascade", "model.xml"),
        ),
        evaluate: (("model.xml", "--dataset", "labels.json", "--json", "out/x.json"), ("--dataset", "labels.json")),
        inspect: (("model.xml", "a.png", "--json", "out/x.json"), ("model.xml",)),
        tiers: (
            ("fit", "outcomes.csv", "--costs", "fast=1", "slow=10", "--loss", "0.01", "--output", "policy.json"),
            ("replay", "outcomes.csv", "policy.json"),
        ),
        train: (("--positives", "none", "--backgrounds", "none", "--output", "out"), ("recipe.toml", "--data", "none")),
    }
    return {
        module.__name__.rpartition(".")[2]: (module.main, tuple(_options(module._parser())), good)
        for module, good in lines.items()
    }


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """Return all options of a parser and of its commands; a training that starts would take its time."""
    found = []
    for action in parser._actions:
        found += [name for name in action.option_strings if name.startswith("--") and name != "--demo"]
        if isinstance(action.choices, dict):
            for inner in action.choices.values():
                found += _options(inner)
    return found


@cache
def _command_files() -> dict[str, bytes]:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 60)
    rows = ["truth,fast.label,fast.confidence,slow.label,slow.confidence"]
    for t in truth:
        fast, slow = (int(t if rng.random() < p else (t + 1) % 3) for p in (0.7, 0.9))
        rows.append(f"{t},{fast},{rng.uniform(0.4, 1):.3f},{slow},{rng.uniform(0.6, 1):.3f}")
    return {
        "a.png": images()[0][1],
        "b.png": b"no image",
        "model.xml": cascades()[0][0],
        "labels.json": labels()["coco"]["labels.json"],
        "outcomes.csv": "\n".join(rows).encode(),
        "recipe.toml": b'positives = [{ path = "none" }]\nbackgrounds = ["none"]\noutput = "out"\n',
    }


def _make_command(rng: mutants.Rng) -> Case:
    name = _pick(rng, list(_parsers()))
    _, options, good = _parsers()[name]
    words = list(_pick(rng, good))
    for _ in range(int(rng.choice([1, 1, 2, 3, 5]))):
        at = int(rng.integers(len(words) + 1))
        match int(rng.integers(5)):
            case 0 if words:
                del words[min(at, len(words) - 1)]
            case 1 if words:
                words[min(at, len(words) - 1)] = _pick(rng, ODD_WORDS)
            case 2:
                words.insert(at, _pick(rng, ODD_WORDS))
            case 3:
                words += [_pick(rng, options), _pick(rng, ODD_WORDS)]
            case _:
                words.append(f"{_pick(rng, options)}={_pick(rng, ODD_WORDS)}")
    return Case(_command_files(), (name, *words))


def _try_command(case: Case, folder: Path) -> None:
    name, *words = case.arguments
    main = _parsers()[name][0]
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status: Any = main(words)
            except SystemExit as left:
                status = left.code
    finally:
        os.chdir(before)
    said = err.getvalue()
    if status not in (0, 1, 2) or "Traceback" in said:
        raise Wrong(f"exit {status}: {said[-300:]}")
    if status and not re.search(rf"^vj-{name}( \w+)?: |\[ *\d", said, re.M):
        raise Wrong(f"exit {status} without a word: {said[-300:]!r}")
    if status == 2:
        raise InputError("exit 2")


TARGETS = {
    "cascades": Target(_make_cascade, _try_cascade, 0.25),
    "images": Target(_make_image, _try_image, 0.32),
    "labels": Target(_make_labels, _try_labels, 0.27),
    "recipes": Target(_make_recipe, _try_recipe, 0.10),
    "command lines": Target(_make_command, _try_command, 0.03),
    "checkpoints": Target(_make_checkpoint, _try_checkpoint, 0.03),
}


def make_seeds() -> None:
    """Make all that mutants are made of, and compile, once for all workers."""
    cascades(), images(), labels(), recipes(), checkpoints(), _parsers(), _command_files()
    for data in cascades()[0]:
        cascade = parse(data)
        scanner = Scanner(cascade)
        for stride in (1, 2):
            _compare(scanner.scan(scenes()[0], stride), *scanner.depths(scenes()[0], stride), cascade.n_stages, stride)
        vj.Detector(cascade, threads=1, min_neighbors=1).detect(scenes()[0])
    _quick_detector().detect(scenes()[0])
