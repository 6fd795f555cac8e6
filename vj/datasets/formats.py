"""Labelled images in the formats that other tools and benchmarks write.

====================  ====================================================================================
``annotations``       the project's own ``annotations.json``, see `vj.datasets.annotations_json`
``coco``              one JSON with ``images`` and ``annotations``; crowds are ignored
``voc``               Pascal VOC: a folder of XML files, or a list of an image set; difficult objects are ignored
``yolo``              a folder with ``images`` and ``labels``: class, centre and size as fractions of the image
``csv``               a table with the columns file, x, y, w, h or filename, xmin, ymin, xmax, ymax
``info``              the list that ``opencv_createsamples`` reads: file, count and boxes on one line
``wider``             WIDER FACE: ``wider_face_val_bbx_gt.txt`` with its attributes
``fddb``              FDDB: ``FDDB-fold-NN-ellipseList.txt``; boxes are those around the ellipses
``mitcmu``            MIT+CMU: a line for each face with its file and six landmarks
====================  ====================================================================================

The trainer and the evaluator read all of them. Ready crops (``crops``) and ``.vec`` files hold no labelled images: only
the trainer takes them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vj.datasets import annotations_json, coco, csv_table, fddb, mitcmu, opencv_samples, voc, wider, yolo
from vj.datasets.labelled import LabelledImage
from vj.datasets.reading import number, read_json, read_lines
from vj.errors import InputError

FORMATS: dict[str, Callable[[Path, Path | None], list[LabelledImage]]] = {
    "annotations": annotations_json.read,
    "coco": coco.read,
    "voc": voc.read,
    "yolo": yolo.read,
    "csv": csv_table.read,
    "info": opencv_samples.read_info,
    "wider": wider.read,
    "fddb": fddb.read,
    "mitcmu": mitcmu.read,
}
"""Readers by the name of their format."""

_UNLABELLED = {
    "crops": "annotations.json, labels/ or XML files in the folder, got none of them",
    "vec": "labelled images, got a .vec file of ready samples",
}


def read_labelled(
    path: str | os.PathLike[str],
    format: str | None = None,
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = (),
    where: Mapping[str, str] | None = None,
) -> list[LabelledImage]:
    """Read labelled images.

    Parameters
    ----------
    path : str or path
        The annotation file or folder.
    format : str, optional
        One of `FORMATS`; by default found out from the file.
    images : str or path, optional
        Folder that image names are relative to; by default the usual places next to the annotations are tried.
    classes : sequence of str, or None
        Classes of the objects to keep; needed if the annotations have several. None: all.
    where : mapping, optional
        CSV: columns and the values that a row must have, see `vj.datasets.csv_table.read`.

    Returns
    -------
    list of LabelledImage
        Images without an object of the classes are among them. The images are opened for ``yolo`` alone, whose boxes
        are fractions of their size.

    Raises
    ------
    InputError
        If the file cannot be read or is not of that format, if it names no image, if a filter cannot apply to it, or
        if it has several classes and none is chosen.
    """
    source = Path(path)
    name = format or guess_format(source)
    if format is None and name in _UNLABELLED:
        raise InputError(f"{source}: expected {_UNLABELLED[name]}")
    if name not in FORMATS:
        raise InputError(f"{source}: expected one of the formats {', '.join(FORMATS)}, got {name!r}")
    if not source.exists():
        raise InputError(f"{source}: expected an annotation file or folder, got nothing there")
    folder = Path(images) if images else None
    if where and name != "csv":
        raise InputError(f"{source}: expected a CSV file for --where {shown(where)}, got the format {name}")
    found = csv_table.read(source, folder, where) if where else FORMATS[name](source, folder)
    if not found:
        raise InputError(f"{source}: expected labelled images, got none")
    return found if classes is None else _of_classes(source, found, classes)


def guess_format(source: Path) -> str:
    """Return the format of a source by the names in a folder, or by the first lines of a file.

    Returns
    -------
    str
        One of `FORMATS`, or ``crops`` (a folder of images without annotations) or ``vec``.

    Raises
    ------
    InputError
        If there is nothing, or nothing known.
    """
    if source.is_dir():
        return _guess_folder(source)
    if not source.exists():
        raise InputError(f"{source}: expected an annotation file or folder, got nothing there")
    suffix = source.suffix.lower()
    if suffix == ".json":
        return "coco" if isinstance(read_json(source), dict) else "annotations"
    by_suffix = {".csv": "csv", ".xml": "voc", ".vec": "vec", ".dat": "info", ".info": "info"}
    if suffix in by_suffix:
        return by_suffix[suffix]
    if voc.is_image_set(source):
        return "voc"
    name = _guess_lines([line.split() for _, line in read_lines(source)[:3]])
    if name is None:
        raise InputError(f"{source}: expected annotations in a known format, got others; name it with --format")
    return name


def shown(where: Mapping[str, str]) -> str:
    """Return a filter as it is typed on the command line."""
    return " ".join(f"{column}={value}" for column, value in where.items())


def _guess_folder(folder: Path) -> str:
    if (folder / annotations_json.NAME).is_file():
        return "annotations"
    if next(voc.xml_files(folder), None):
        return "voc"
    return "yolo" if yolo.is_yolo(folder) else "crops"


def _guess_lines(lines: Sequence[Sequence[str]]) -> str | None:
    """Return the format of a text by the words of its first three lines."""
    if not lines:
        return None
    if len(lines[0]) == 13 and all(number(word) is not None for word in lines[0][1:]):
        return "mitcmu"
    if opencv_samples.parse_info_line(lines[0]) is not None:
        return "info"
    if len(lines) == 3 and len(lines[1]) == 1:
        return "wider" if len(lines[2]) >= 10 else "fddb"
    return None


def _of_classes(source: Path, images: list[LabelledImage], classes: Sequence[str]) -> list[LabelledImage]:
    """Keep the objects of the classes chosen; refuse not to choose among several."""
    counts = Counter(name for image in images for name in image.classes)
    table = ", ".join(f"{name or '(none)'} ({n})" for name, n in sorted(counts.items())[:40])
    if not classes:
        if len(counts) > 1:
            raise InputError(f"{source}: expected --class NAME, since there are several classes: {table}")
        return images
    if not counts:
        raise InputError(f"{source}: expected annotations with classes for --class {' '.join(classes)}, got none")
    for name in classes:
        if name not in counts:
            raise InputError(f"{source}: expected one of the classes {table}, got {name!r}")
    return [image.select(np.isin(image.classes, classes)) if image.classes else image for image in images]
