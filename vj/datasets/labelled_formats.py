"""Labelled pictures in the formats that other tools and benchmarks write.

====================  ====================================================================================
``annotations``       the project's own ``annotations.json``, see `vj.datasets.labelled`
``coco``              one JSON with ``images`` and ``annotations``; crowds are ignored
``voc``               Pascal VOC: a folder of XML files; objects marked difficult are ignored
``yolo``              a folder with ``images`` and ``labels``: class, centre and size as shares of the picture
``csv``               a table with the columns file, x, y, w, h; a row without numbers is a picture without objects
``wider``             WIDER FACE: ``wider_face_val_bbx_gt.txt`` with its attributes
``fddb``              FDDB: ``FDDB-fold-NN-ellipseList.txt``; boxes are those around the ellipses
``mitcmu``            MIT+CMU: a line for each face with its file and six landmarks
====================  ====================================================================================
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vj.datasets.labelled import MAX_BYTES, LabelledPicture, inside, numbers, read_annotations, read_json
from vj.errors import InputError

_PLACES = (".", "images", "JPEGImages", "../images", "../JPEGImages", "../WIDER_val/images", "../WIDER_train/images")
"""Where pictures lie, seen from the annotations, in the layouts that the sets are handed out in."""

_ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")


def read_labelled(
    path: str | os.PathLike[str], kind: str | None = None, images: str | os.PathLike[str] | None = None
) -> list[LabelledPicture]:
    """Read labelled pictures.

    Parameters
    ----------
    path : str or path
        The annotation file or folder.
    kind : str, optional
        One of `FORMATS`; by default it is told from the file.
    images : str or path, optional
        Folder that picture names are relative to; by default the usual places beside the annotations are tried.

    Returns
    -------
    list of LabelledPicture
        The pictures themselves are opened for ``yolo`` alone, whose boxes are shares of their size.

    Raises
    ------
    InputError
        If the file cannot be read or is not of that format, or if it names no picture.
    """
    source = Path(path)
    if not source.exists():
        raise InputError(f"{source}: expected an annotation file or folder, got nothing there")
    name = kind or _guess(source)
    if name not in FORMATS:
        raise InputError(f"expected a format out of {', '.join(FORMATS)}, got {name!r}")
    if name == "annotations":
        found = read_annotations(source)
    else:
        found = FORMATS[name](source, Path(images) if images else None)
    if not found:
        raise InputError(f"{source}: expected labelled pictures, got none")
    return found


def _guess(source: Path) -> str:
    """Tell the format from the names in a folder, or from the first lines of a file."""
    if source.is_dir():
        if (source / "annotations.json").is_file():
            return "annotations"
        if (source / "labels").is_dir():
            return "yolo"
        if next(_xml_files(source), None):
            return "voc"
        raise InputError(f"{source}: expected annotations.json, labels/ or XML files in the folder, got none of them")
    if source.suffix.lower() == ".json":
        return "coco" if isinstance(read_json(source), dict) else "annotations"
    if source.suffix.lower() == ".csv":
        return "csv"
    lines = [line.split() for line in _lines(source)[:3]]
    if lines and len(lines[0]) == 13:
        return "mitcmu"
    if len(lines) == 3 and len(lines[1]) == 1:
        return "wider" if len(lines[2]) >= 10 else "fddb"
    raise InputError(f"{source}: expected annotations in a known format, got others; say which with --format")


def _coco(source: Path, images: Path | None) -> list[LabelledPicture]:
    table = read_json(source)
    rows = table.get("images") if isinstance(table, dict) else None
    notes = table.get("annotations") if isinstance(table, dict) else None
    if not isinstance(rows, list) or not isinstance(notes, list):
        raise InputError(f"{source}: expected 'images' and 'annotations', got {str(table)[:60]!r}")
    boxes: dict[Any, list[list[float]]] = {}
    crowds: dict[Any, list[bool]] = {}
    for k, note in enumerate(notes):
        if not isinstance(note, dict) or not isinstance(note.get("image_id"), int | str):
            raise InputError(f"{source}: annotation {k}: expected an object with an image_id, got {str(note)[:60]!r}")
        with _place(source, f"annotation {k}"):
            boxes.setdefault(note["image_id"], []).append(numbers(note.get("bbox"), 4, "bbox"))
        crowds.setdefault(note["image_id"], []).append(bool(note.get("iscrowd")) or bool(note.get("ignore")))
    if not all(isinstance(r, dict) and isinstance(r.get("file_name"), str) and "id" in r for r in rows):
        raise InputError(f"{source}: expected images with id and file_name, got others")
    root = _root(source.parent, images, [row["file_name"] for row in rows])
    return [
        LabelledPicture(
            inside(root, row["file_name"]),
            _array(boxes.get(row["id"], [])),
            ignored=np.array(crowds.get(row["id"], []), bool),
        )
        for row in rows
    ]


def _voc(source: Path, images: Path | None) -> list[LabelledPicture]:
    files = sorted(_xml_files(source)) if source.is_dir() else [source]
    parsed = [(path, _voc_file(path)) for path in files]
    folder = files[0].parent if files else source
    root = _root(folder, images, [name for _, (name, _, _) in parsed])
    return [
        LabelledPicture(inside(root, name), _array(boxes), ignored=np.array(difficult, bool))
        for _, (name, boxes, difficult) in parsed
    ]


def _voc_file(path: Path) -> tuple[str, list[list[float]], list[bool]]:
    """File name, boxes and difficult marks of one XML file; its corners are whole pixels counted from 1."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        tree = fromstring(_bytes(path))
    except (ParseError, DefusedXmlException) as error:
        raise InputError(f"{path}: expected Pascal VOC XML, got {' '.join(str(error).split())}") from None
    name = tree.findtext("filename")
    if tree.tag != "annotation" or not name:
        raise InputError(f"{path}: expected an <annotation> with a <filename>, got <{tree.tag}>")
    boxes, difficult = [], []
    for k, item in enumerate(tree.findall("object")):
        corners = [_number(item.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
        with _place(path, f"object {k}"):
            x1, y1, x2, y2 = numbers(corners, 4, "xmin, ymin, xmax, ymax")
        boxes.append([x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1])
        difficult.append((item.findtext("difficult") or "0").strip() not in ("", "0"))
    return name.strip(), boxes, difficult


def _yolo(source: Path, images: Path | None) -> list[LabelledPicture]:
    from vj.images import list_images, read_gray

    folder = source if source.is_dir() else source.parent
    root = images or (folder / "images" if (folder / "images").is_dir() else folder)
    found = []
    for picture in list_images(root):
        label = (folder / "labels" / picture.relative_to(root)).with_suffix(".txt")
        rows = []
        if label.is_file():
            height, width = read_gray(picture).shape
            for k, line in enumerate(_lines(label)):
                with _place(label, f"line {k + 1}"):
                    _, cx, cy, w, h = numbers([_number(v) for v in line.split()[:5]], 5, "class, centre and size")
                rows.append([(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height])
        found.append(LabelledPicture(picture, _array(rows)))
    return found


def _csv(source: Path, images: Path | None) -> list[LabelledPicture]:
    reader = csv.DictReader(_text(source).splitlines())
    wanted = ("file", "x", "y", "w", "h")
    if not set(wanted) <= set(reader.fieldnames or ()):
        raise InputError(f"{source}: expected the columns {', '.join(wanted)}, got {reader.fieldnames}")
    boxes: dict[str, list[list[float]]] = {}
    for row in reader:
        own = boxes.setdefault(row["file"] or "", [])
        if any((row[name] or "").strip() for name in wanted[1:]):
            with _place(source, f"line {reader.line_num}"):
                own.append(numbers([_number(row[name]) for name in wanted[1:]], 4, "x, y, w, h"))
    root = _root(source.parent, images, list(boxes))
    return [LabelledPicture(inside(root, name), _array(rows)) for name, rows in boxes.items()]


def _wider(source: Path, images: Path | None) -> list[LabelledPicture]:
    groups = list(_groups(source, 10))
    root = _root(source.parent, images, [name for name, _ in groups])
    found = []
    for name, rows in groups:
        table = _array(rows, 10)
        # A picture without faces has one line of zeros all the same.
        table = table[(table[:, 2] > 0) | (table[:, 3] > 0) | (len(table) > 1)]
        codes = {key: table[:, 4 + k].astype(np.int64) for k, key in enumerate(_ATTRIBUTES)}
        found.append(LabelledPicture(inside(root, name), table[:, :4], codes))
    return found


def _fddb(source: Path, images: Path | None) -> list[LabelledPicture]:
    groups = [(name if Path(name).suffix else f"{name}.jpg", rows) for name, rows in _groups(source, 5)]
    root = _root(source.parent, images, [name for name, _ in groups])
    found = []
    for name, rows in groups:
        ellipses = _array(rows, 5)
        found.append(LabelledPicture(inside(root, name), ellipse_boxes(ellipses), ellipses=ellipses))
    return found


def _mitcmu(source: Path, images: Path | None) -> list[LabelledPicture]:
    faces: dict[str, list[list[float]]] = {}
    for k, line in enumerate(_lines(source)):
        name, *values = line.split()
        with _place(source, f"line {k + 1}"):
            points = np.array(numbers([_number(v) for v in values], 12, "six landmarks")).reshape(6, 2)
        faces.setdefault(name, []).append(landmark_box(points[:2], points[[3, 5]]))
    root = _root(source.parent, images, list(faces))
    return [LabelledPicture(inside(root, name), _array(rows)) for name, rows in faces.items()]


def landmark_box(eyes: Any, mouth: Any) -> list[float]:
    """Return the square that OpenCV's frontal cascades answer with, from landmarks.

    Measured on faces found by ``frontalface_alt2``: 2.66 u wide and centred 0.305 u below the middle of the eyes, where
    u is the larger of the distance between the eyes and 0.95 times that from their middle to the mouth's.

    Parameters
    ----------
    eyes, mouth : array_like, shape (2, 2)
        x, y of both eyes, and of both corners of the mouth.

    Returns
    -------
    list of float
        x, y, width, height.
    """
    eyes, mouth = np.asarray(eyes, dtype=np.float64), np.asarray(mouth, dtype=np.float64)
    between, middle = eyes[1] - eyes[0], eyes.mean(axis=0)
    down = mouth.mean(axis=0) - middle
    u = max(float(np.hypot(*between)), 0.95 * float(np.hypot(*down)))
    centre = middle + 0.305 * u * down / max(float(np.hypot(*down)), 1e-9)
    return [float(centre[0]) - 1.33 * u, float(centre[1]) - 1.33 * u, 2.66 * u, 2.66 * u]


def ellipse_boxes(ellipses: Any) -> Any:
    """Return the boxes (n, 4) around ellipses (n, 5): major and minor radius, angle in radians, centre x, centre y."""
    major, minor, angle, x, y = np.asarray(ellipses, dtype=np.float64).reshape(-1, 5).T
    half_w = np.hypot(major * np.cos(angle), minor * np.sin(angle))
    half_h = np.hypot(major * np.sin(angle), minor * np.cos(angle))
    return np.stack([x - half_w, y - half_h, 2 * half_w, 2 * half_h], axis=1)


FORMATS: dict[str, Callable[[Path, Path | None], list[LabelledPicture]]] = {
    "annotations": lambda source, _: read_annotations(source),
    "coco": _coco,
    "voc": _voc,
    "yolo": _yolo,
    "csv": _csv,
    "wider": _wider,
    "fddb": _fddb,
    "mitcmu": _mitcmu,
}
"""Readers by the name of their format."""


@contextmanager
def _place(path: Path, where: str) -> Iterator[None]:
    """Put file and line in front of an `InputError`'s message."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {where}: {error}") from None


def _groups(source: Path, columns: int) -> Iterator[tuple[str, list[list[float]]]]:
    """Read a name, a count and that many lines of numbers, again and again; WIDER has a line even where it is 0."""
    lines = _lines(source)
    at = 0
    while at < len(lines):
        name = lines[at]
        count = lines[at + 1] if at + 1 < len(lines) else ""
        if not count.isdecimal() or int(count) > len(lines):
            raise InputError(f"{source}: {name[:60]}: expected a number of faces, got {count[:40]!r}")
        n = int(count)
        follows = lines[at + 2] if at + 2 < len(lines) else ""
        if n == 0 and columns == 10 and len(follows.split()) == columns:
            n = 1
        block = lines[at + 2 : at + 2 + n]
        if len(block) < n:
            raise InputError(
                f"{source}: {name[:60]}: expected {n} lines of faces, got {len(block)}: is the file cut off?"
            )
        with _place(source, name[:60]):
            yield name, [numbers([_number(v) for v in row.split()[:columns]], columns, "a face") for row in block]
        at += 2 + n


def _root(folder: Path, images: Path | None, names: list[str]) -> Path:
    """Return the folder that picture names are relative to: the one given, or the first usual place that has one."""
    if images is not None:
        return images
    for place in _PLACES:
        for name in names[:3]:
            if inside(folder / place, name).is_file():
                return folder / place
    return folder


def _xml_files(folder: Path) -> Iterator[Path]:
    below = folder / "Annotations"
    return (below if below.is_dir() else folder).glob("*.xml")


def _array(rows: list[list[float]], columns: int = 4) -> Any:
    return np.array(rows, dtype=np.float64).reshape(-1, columns)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected annotations as text, got other bytes") from None


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: expected annotations of at most {MAX_BYTES} bytes, got {path.stat().st_size}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected a readable annotation file, got {error.strerror or error}") from None
