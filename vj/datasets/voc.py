"""Pascal VOC: a folder of XML files, one for each image; objects marked difficult are ignored.

The source is one XML file, the folder of them, the folder that holds ``Annotations`` and ``JPEGImages``, or one of the
lists in ``ImageSets/Main``, which names the images of a part such as ``train`` or ``val``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vj._files import is_file, read_bounded
from vj.datasets.labelled import LabelledImage
from vj.datasets.reading import array, existing, inside, located, number, numbers, read_lines, root
from vj.errors import InputError

_MAX_BYTES = 4 << 20
"""Largest XML file read: the objects of one image, some 10,000 of them; as many bytes of elements take 0.2 GB."""


@dataclass(frozen=True)
class _File:
    name: str
    boxes: list[list[float]]
    difficult: list[bool]
    classes: list[str]


def read(source: Path, images: Path | None = None) -> list[LabelledImage]:
    """Read Pascal VOC; a class is the object's ``<name>``."""
    paths = _paths(source)
    parsed = [(path, _read_file(path)) for path in paths]
    folder = root(paths[0].parent if paths else source, images, [file.name for _, file in parsed])
    found = []
    for path, file in parsed:
        with located(path, "filename"):
            image = existing(inside(folder, file.name))
        # Files that were renamed often keep their old <filename>, but the XML goes by the name of its image.
        if not is_file(image) and is_file(own := existing(folder / path.stem)):
            image = own
        ignored = np.array(file.difficult, dtype=np.bool_)
        classes = tuple(file.classes) if any(file.classes) else ()
        found.append(LabelledImage(image, array(file.boxes), classes=classes, ignored=ignored))
    return found


def xml_files(folder: Path) -> Iterator[Path]:
    """Yield the XML files of a folder, or of the ``Annotations`` in it."""
    below = folder / "Annotations"
    return (below if below.is_dir() else folder).glob("*.xml")


def is_image_set(source: Path) -> bool:
    """Whether a file is one of the lists that VOC keeps in ``ImageSets/Main``."""
    parents = source.absolute().parents
    return (
        source.suffix == ".txt"
        and len(parents) > 2
        and (parents[2] / "Annotations").is_dir()
        and (parents[1].name == "ImageSets")
    )


def _paths(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(xml_files(source))
    if not is_image_set(source):
        return [source]
    folder = source.absolute().parents[2] / "Annotations"
    with located(source, "image names"):
        # The lists of one class have a second column, which says whether it is in the image.
        return [inside(folder, line.split()[0] + ".xml") for _, line in read_lines(source)]


def _read_file(path: Path) -> _File:
    """Read one XML file; its corners are whole pixels counted from 1, both inside the box."""
    tree = _tree(path)
    name = tree.findtext("filename")
    if tree.tag != "annotation" or not name:
        raise InputError(f"{path}: expected an <annotation> with a <filename>, got <{str(tree.tag)[:40]}>")
    file = _File(name.strip(), [], [], [])
    for k, item in enumerate(tree.findall("object")):
        corners = [number(item.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
        with located(path, f"object {k}"):
            x1, y1, x2, y2 = numbers(corners, 4, "xmin, ymin, xmax, ymax")
            if x2 < x1 or y2 < y1:
                raise InputError(f"expected xmin <= xmax and ymin <= ymax, got {x1:g}, {y1:g}, {x2:g}, {y2:g}")
        file.boxes.append([x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1])
        file.difficult.append((item.findtext("difficult") or "0").strip() not in ("", "0"))
        file.classes.append((item.findtext("name") or "").strip()[:200])
    return file


def _tree(path: Path) -> Any:
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    data = read_bounded(path, _MAX_BYTES)
    try:
        return fromstring(data)
    # LookupError and ValueError: encodings that Python does not know, or that expat cannot use.
    except (ParseError, DefusedXmlException, LookupError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected Pascal VOC XML, got {' '.join(str(error).split())}") from None
