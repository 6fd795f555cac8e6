"""Spoilt label files in every format, lists, samples and recipes, and what is done with one."""

from __future__ import annotations

import json
import struct
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import _mutants as mutants
from benchmarks._attack_cascades import images, scenes
from benchmarks._cases import Case, Wrong, pick
from vj.boosting.recipe import TrainingConfig
from vj.datasets.backgrounds import find_backgrounds
from vj.datasets.crops import cut, region_of_box, region_of_landmarks
from vj.datasets.formats import FORMATS, read_labelled
from vj.datasets.opencv_samples import read_vec
from vj.errors import InputError

_VOC = (
    b"<annotation><folder>images</folder><filename>a.png</filename><size><width>80</width><height>60</height></size>"
    b"<object><name>face</name><difficult>0</difficult><bndbox><xmin>11</xmin><ymin>12</ymin><xmax>40</xmax>"
    b"<ymax>50</ymax></bndbox></object><object><name>face</name><difficult>1</difficult><bndbox><xmin>1.5</xmin>"
    b"<ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
)
_COLUMNS = "sq_x,sq_y,sq_size,leye_x,leye_y,reye_x,reye_y,lmouth_x,lmouth_y,rmouth_x,rmouth_y"


@cache
def labels() -> dict[str, dict[str, bytes]]:
    """Return the files of a small set in every format; the first one is the one that is corrupt."""
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


def make_labels(rng: mutants.Rng, only: str | None = None) -> Case:
    name = only or pick(rng, list(labels()))
    files = dict(labels()[name])
    broken = next(iter(files))
    data, suffix, kind = files[broken], Path(broken).suffix, rng.random()
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
        data = data * int(500_000 / max(1, len(data)))
    png = images()[0][1]
    return Case({broken: data, **{k: v for k, v in files.items() if k != broken}, "a.png": png, "b.png": png}, (name,))


def try_labels(case: Case, folder: Path) -> None:
    (name,) = case.arguments
    source = folder / next(iter(case.files))
    if name == "vec":
        windows = read_vec(source, (8, 8))
        if windows.dtype != np.uint8 or windows.ndim != 3:
            raise Wrong(f"samples of {windows.dtype}, shape {windows.shape}")
        return
    if name == "backgrounds":
        found = find_backgrounds([str(source)])
        for k in range(min(len(found), 20)):
            found[k].sum()
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
    plain = TrainingConfig.from_mapping({"positives": [{"path": "a"}], "backgrounds": ["b"]}, base="/images")
    every = plain.to_toml()
    tables = '\n[[positives]]\npath = "{data}/x.csv"\nwhere = { yaw = "-0.6..0.6" }\nclasses = ["face"]\njitter = 2\n'
    steps = 'window = "20x24"\nstages = 15\nmax_depth = [1, 1, 2]\nmin_hit_rate = [0.98, 0.99]\nmirror = true\n'
    return every.encode(), (steps + tables).encode()


def make_recipe(rng: mutants.Rng) -> Case:
    data, kind = pick(rng, recipes()), rng.random()
    spoil: Callable[[mutants.Rng, bytes], bytes] = mutants.spoil_bytes
    if kind > 0.65:
        spoil = mutants.spoil_numbers
    elif kind > 0.3:
        spoil = mutants.spoil_lines
    return Case({"recipe.toml": spoil(rng, data)})


def try_recipe(case: Case, folder: Path) -> None:
    config = TrainingConfig.from_toml(folder / "recipe.toml", data="images")
    if TrainingConfig.from_mapping(tomllib.loads(config.to_toml())) != config:
        raise Wrong("a recipe that reads back as another one")
