"""YOLO: a text file for each image with class, centre and size as fractions of the image, one object a line.

Labels are searched where the tools put them: under ``labels`` next to ``images``, at any depth, or next to the image.
Names of classes are read from ``classes.txt`` or ``obj.names`` (one a line) or from the ``names`` of a YAML file
(``data.yaml``), in the folder or the one above; without them a class is its number.
"""

from __future__ import annotations

from pathlib import Path

from vj._files import read_bounded
from vj.datasets.labelled import LabelledImage
from vj.datasets.reading import array, count, located, number, numbers, read_lines, read_text
from vj.errors import InputError
from vj.images import list_images, read_gray

NAMES = ("classes.txt", "obj.names", "data.yaml", "dataset.yaml", "data.yml")
# A thousand names take 30 KB; PyYAML needs 6 s for a megabyte.
_MAX_YAML = 1 << 17


def read(source: Path, images: Path | None = None) -> list[LabelledImage]:
    """Read a YOLO folder; images are opened, since boxes are fractions of their size. No label file: no objects."""
    folder = source if source.is_dir() else source.parent
    place = images or (folder / "images" if (folder / "images").is_dir() else folder)
    names = read_class_names(folder)
    found = []
    for path in list_images(place):
        label = _label_file(path, place, folder)
        rows: list[list[float]] = []
        classes = []
        if label.is_file() and (lines := read_lines(label)):
            height, width = read_gray(path).shape
            for k, line in lines:
                with located(label, f"line {k}"):
                    number_of_class, cx, cy, w, h = _object(line)
                rows.append([(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height])
                classes.append(names.get(int(number_of_class), str(int(number_of_class))))
        found.append(LabelledImage(path, array(rows), classes=tuple(classes)))
    return found


def is_yolo(folder: Path) -> bool:
    """Whether a folder looks like a YOLO set."""
    return (folder / "labels").is_dir() or any((folder / name).is_file() for name in NAMES)


def _object(line: str) -> list[float]:
    """Read class, centre x, centre y, width, height and, ignored, the confidence that a detector may have added."""
    words = line.split()
    if len(words) > 6:
        raise InputError(
            f"expected 5 numbers (class, centre, size), got {len(words)}: polygons and key points are not read"
        )
    values = numbers([number(word) for word in words[:5]], 5, "class, centre and size")
    if values[0] < 0 or values[0] != int(values[0]):
        raise InputError(f"expected the number of a class, got {words[0][:40]!r}")
    return values


def _label_file(path: Path, place: Path, folder: Path) -> Path:
    inner = path.relative_to(place)
    parts = list(inner.parts)
    if "images" in parts[:-1]:
        at = len(parts) - 1 - parts[::-1].index("images")
        own = place.joinpath(*parts[:at], "labels", *parts[at + 1 :])
    else:
        own = folder / "labels" / inner
    label = own.with_suffix(".txt")
    return label if label.is_file() else path.with_suffix(".txt")


def read_class_names(folder: Path) -> dict[int, str]:
    """Read the names of classes by their numbers; none if no file holds them.

    Raises
    ------
    InputError
        If the first file found cannot be read.
    """
    for place in (folder, folder.absolute().parent):
        for name in NAMES:
            if (place / name).is_file():
                return _yaml_names(place / name) if name.endswith("ml") else _listed_names(place / name)
    return {}


def _listed_names(path: Path) -> dict[int, str]:
    return {k: line.strip()[:200] for k, line in enumerate(read_text(path).splitlines()) if line.strip()}


def _yaml_names(path: Path) -> dict[int, str]:
    import yaml

    data = read_bounded(path, _MAX_YAML)
    try:
        # The loader that knows nothing but texts, lists and tables.
        table = yaml.load(data, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected YAML, got {' '.join(str(error).split())[:200]}") from None
    names = table.get("names") if isinstance(table, dict) else None
    rows = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
    found: dict[int, str] = {}
    for key, name in rows:
        k = count(str(key)[:20])
        if k is None or not isinstance(name, str):
            raise InputError(f"{path}: expected names by class number, got {str(key)[:40]!r}: {str(name)[:40]!r}")
        found[k] = name[:200]
    return found
