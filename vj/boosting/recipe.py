"""The recipe of a training run: every setting and its range, from TOML, the command line or Python."""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from vj._files import as_url, read_bounded
from vj.boosting.fields import (
    check_fields,
    choice,
    documented,
    flag,
    integer,
    is_list,
    number,
    plain_number,
    shown,
    string,
)
from vj.boosting.fields import describe as describe
from vj.errors import InputError

FEATURE_KINDS = ("basic", "core", "all", "lbp")
BOOSTINGS = ("gentle", "real", "discrete")
SEARCHES = ("exact", "fast")
LABELLED = ("annotations", "coco", "voc", "yolo", "wider", "fddb", "mitcmu")
FORMATS = ("auto", "crops", "csv", "info", "vec", *LABELLED)
# No recipe is longer than a list of backgrounds.
_MAX_BYTES = 1 << 26

ANNOTATED = "annotated"
"""In place of a path to backgrounds: the labelled images of the positives without the labelled objects."""

CROPS = ("box", "square", "landmarks")
ASPECTS = ("grow", "shrink", "stretch")


@dataclass(frozen=True)
class PositiveSource:
    """A source of positives, and which part of its images is the object.

    Parameters
    ----------
    path : str
        Folder or file.
    format : str
        How the objects are annotated: ``crops``, ``csv``, ``info``, ``vec``, ``annotations``, ``coco``, ``voc``,
        ``yolo``, ``wider``, ``fddb`` or ``mitcmu``; ``auto`` looks at the path.
    crop : {'box', 'square', 'landmarks'}
        ``box``: the annotated box, see `aspect`; ``square``: the columns ``sq_*`` of a CSV;
        ``landmarks``: a square placed by the eyes and the mouth (columns ``leye_x`` and so on).
    margin : float
        Added on each side of a box, as a fraction of its size.
    aspect : {'grow', 'shrink', 'stretch'}
        How a box gets the window's aspect ratio: its short side grows, its long side shrinks, both about its centre,
        or its content is stretched, as opencv_createsamples does.
    side : float
        Landmarks: side of the square in units u, where u is the larger of the distance between the eyes and 0.95 times
        the distance from the middle of the eyes to the middle of the mouth.
    drop : float
        Landmarks: how far below the middle of the eyes the square is centred, in u.
    offset : float
        Landmarks: how far to the right of the middle of the eyes the square is centred, in u; negative is to the left.
        The eyes of a head in profile are at its front, 0.45 u from the middle of its box.
    flip : bool
        Flip its images left and right, for heads that look the other way.
    where : mapping of str to str
        CSV: keep the rows whose columns have these values, or lie in a range such as ``"-0.5..0.5"``.
    classes : tuple of str
        Classes of the objects to take, where the annotations have classes; needed if there are several.
    jitter : int
        Jittered copies of each of its objects; -1 for as many as the run makes.
    rotation : float
        Largest rotation of these copies in degrees; -1 for that of the run.
    thresholds : bool
        Whether stage thresholds are set on its objects, too. If not, only boosting sees them, and none is held out:
        for objects so hard or doubtful that passing them would let too much through.
    images : str
        Folder that the names in the annotations are relative to; empty for the usual places next to them.
    min_size : int
        Boxes with a shorter side, in pixels, are left out.
    frontal : bool
        WIDER FACE: only clear, upright, frontal faces of at least 30 pixels.
    limit : int
        Most positives taken, 0 for all.
    """

    path: str = string("", "folder or file")
    format: str = choice("auto", FORMATS, "how the objects are annotated; auto looks at the path")
    crop: str = choice("box", CROPS, "what is cut out")
    margin: float = number(0.0, -0.4, 2.0, "added on each side, fraction of the box")
    aspect: str = choice("grow", ASPECTS, "how a box gets the window's aspect ratio")
    side: float = number(
        2.66, 0.5, 8.0, "landmarks: side of the square, in units of about the distance between the eyes"
    )
    drop: float = number(
        0.305, -2.0, 2.0, "landmarks: how far the square's centre is below the eyes, in the same units"
    )
    offset: float = number(
        0.0, -2.0, 2.0, "landmarks: how far the square's centre is to the right of the eyes, in the same units"
    )
    flip: bool = flag(False, "flip its images left and right")
    where: Mapping[str, str] = field(
        default_factory=dict, metadata={"type": dict, "help": "CSV: values that columns must have"}
    )
    classes: tuple[str, ...] = field(default=(), metadata={"type": tuple, "help": "classes of the objects to take"})
    jitter: int = integer(-1, -1, 1000, "jittered copies per object; -1: as for the run")
    rotation: float = number(-1.0, -1.0, 90.0, "largest rotation of copies in degrees; -1: as for the run")
    thresholds: bool = flag(True, "set stage thresholds on its objects; false: only boosting sees them")
    images: str = string("", "folder that annotated names are relative to")
    min_size: int = integer(0, 0, 10000, "smallest side of a box that is taken, in pixels")
    frontal: bool = flag(False, "WIDER FACE: only clear, frontal faces of at least 30 pixels")
    limit: int = integer(0, 0, 10**9, "maximum number of objects, chosen at random; 0: all")

    def __post_init__(self) -> None:
        check_fields(self, "positives.")
        if not self.path:
            raise InputError("expected a path for every source of positives, got none")


@documented
@dataclass(frozen=True)
class TrainingConfig:
    """Every setting of a training run; the fields are the keys of a recipe.

    Values may be plain, as in a recipe: ``window="24x24"``, ``positives="faces/"``, ``max_weak_count=[3, 6, 12]``.
    Where a field may be a list there is one value for each stage, the last one for all later stages; `of_stage` puts
    the number in its place. Relative paths start from the working directory.

    Raises
    ------
    InputError
        For a value out of range; the message names key, value and allowed range.
    """

    positives: tuple[PositiveSource, ...] = field(
        default=(), metadata={"type": tuple, "type_name": "tuple of PositiveSource", "help": "sources of positives"}
    )
    backgrounds: tuple[str, ...] = field(
        default=(),
        metadata={
            "type": tuple,
            "type_name": "tuple of str",
            "help": "images without the object: folders, patterns, lists, annotated, annotated:PATH",
        },
    )
    annotated_overlap: float = number(
        0.0, 0.0, 0.5, "largest intersection over union of a negative with a labelled object"
    )
    output: str = string("", "folder for the cascade, its report, plots and checkpoints")

    window: tuple[int, int] = field(
        default=(24, 24), metadata={"type": tuple, "type_name": "(int, int)", "help": "size of the window, as 24x24"}
    )
    features: str = choice("basic", FEATURE_KINDS, "pool of features to choose from")
    feature_step: int = integer(
        0,
        0,
        16,
        "Haar: step of positions and sizes, in pixels; 0: 1, or more if a million fit",
    )
    stages: int = integer(20, 1, 200, "maximum number of stages")
    positives_per_stage: int = integer(2000, 2, 10**7, "positives a stage is trained on")
    negatives_per_stage: int = integer(4000, 2, 10**7, "negatives a stage is trained on")
    min_hit_rate: float = number(0.995, 0.5, 1.0, "share of positives that a stage must keep", True)
    max_false_alarm_rate: float = number(0.5, 0.001, 0.999, "share of negatives at which a stage ends", True)
    overall_false_alarm_rate: float = number(
        0.0, 0.0, 1.0, "training ends when fewer background windows pass; 0: never"
    )
    max_weak_count: int = integer(200, 1, 10000, "maximum number of weak classifiers in a stage", True)
    chain: bool = flag(False, "stages continue the previous stage's sum")
    pruning: float = number(
        0.0, 0.0, 0.5, "share of the positives found that may be lost when all thresholds are raised at the end"
    )
    loosening: float = number(
        0.0,
        -100.0,
        100.0,
        "lowers a stage's threshold at the end; negative: raises it",
        True,
    )
    margin_scale: float = number(1.0, 0.01, 100.0, "factor on all margins, applied at the end")
    soft_loss: float = number(
        0.0, 0.0, 0.5, "share of the positives found that soft thresholds, set at the end, may lose; 0: none are set"
    )
    holdout: float = number(0.2, 0.0, 0.8, "share of positives that boosting never sees; thresholds are set on them")

    boosting: str = choice("gentle", BOOSTINGS, "kind of AdaBoost")
    max_depth: int = integer(1, 1, 8, "depth of the weak classifiers; 1: stumps", True)
    fixed_point: bool = flag(
        False,
        "fit 16 bits: thresholds of features in 1/4096, leaves and stage thresholds in 1/256",
    )
    weight_trim_rate: float = number(
        1.0, 0.5, 1.0, "share of the sample weight that a round uses, heaviest samples first; 1: all", True
    )
    search: str = choice("fast", SEARCHES, "features a round tries: all, or a sample and then its neighbours")
    search_share: float = number(0.05, 0.0001, 1.0, "fast search: share of features in the sample", True)

    mirror: bool = flag(False, "add every positive mirrored")
    jitter: int = integer(
        -1,
        -1,
        1000,
        "jittered copies of every positive; -1: enough for positives_per_stage, at most 15; none of .vec",
    )
    shift: float = number(0.04, 0.0, 0.5, "jitter: largest shift, in windows")
    scale: float = number(0.06, 0.0, 0.5, "jitter: largest change of size, fraction")
    rotation: float = number(6.0, 0.0, 90.0, "jitter: largest rotation in degrees")
    contrast: float = number(0.0, 0.0, 0.9, "jitter: largest change of contrast, fraction")
    detail: float = number(
        1.0, 0.0, 1.0, "jitter: smallest size, in windows, that is resampled as the detector does; 0: antialiased"
    )
    brightness: float = number(0.0, 0.0, 128.0, "jitter: largest change in grey levels")

    scale_factor: float = number(1.1, 1.01, 4.0, "step between the scales of mining")
    seed: int = integer(1, 0, 2**63 - 1, "seed of everything random")
    threads: int = integer(0, 0, 1024, "threads; results do not depend on them; 0: one per core")
    memory_mb: int = integer(0, 0, 10**7, "memory limit in MB; 0: half of what is free")

    def __post_init__(self) -> None:
        given = {item.name: value for item in fields(self) if (value := getattr(self, item.name)) != ""}
        for name, value in _resolved(given, Path(), None).items():
            object.__setattr__(self, name, value)
        check_fields(self, "")
        if self.fixed_point and self.margin_scale != 1:
            raise InputError("expected fixed_point or margin_scale, got both: scaled sums would not fit its steps")
        if self.chain and self.soft_loss:
            raise InputError("expected chain or soft_loss, got both: no sum is carried past a soft threshold")
        width, height = self.window
        if not (8 <= width <= 128 and 8 <= height <= 128):
            raise InputError(f"expected window between 8x8 and 128x128, got {width}x{height}")

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], **options: Any) -> TrainingConfig:
        """Read a recipe; its relative paths are relative to the recipe's folder.

        Parameters
        ----------
        path : str or path
        **options
            As for `from_mapping`.

        Raises
        ------
        InputError
            If the file cannot be read, is not TOML, has an unknown key or a value out of range.
        """
        place = Path(path)
        data = read_bounded(place, _MAX_BYTES, "recipe")
        try:
            # TOML is UTF-8, names of files need not be: theirs are the only other bytes that to_toml writes.
            table = tomllib.loads(data.decode("utf-8", "surrogateescape"))
        except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
            raise InputError(f"{place}: expected TOML, got {' '.join(str(error).split())}") from None
        try:
            return cls.from_mapping(table, base=place.parent, **options)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None

    @classmethod
    def from_mapping(
        cls,
        table: Mapping[str, Any],
        *,
        base: str | os.PathLike[str] = ".",
        data: str | None = None,
        override: Mapping[str, Any] | None = None,
    ) -> TrainingConfig:
        """Build a configuration from plain values.

        Parameters
        ----------
        table : mapping
            Keys are field names. ``positives`` is a path, a list of paths, or a list of tables of `PositiveSource`;
            ``window`` is ``"24x24"`` or ``[24, 24]``.
        base : path
            Folder that relative paths start from.
        data : str, optional
            Replaces ``{data}`` in paths.
        override : mapping, optional
            Values that replace those of the table; their relative paths start from the working directory.
        """
        values = dict(_resolved(table, Path(base), data))
        values.update(_resolved(override or {}, Path(), data))
        return cls(**values)

    def replaced(self, override: Mapping[str, Any]) -> TrainingConfig:
        """Return a copy with other values; their relative paths start from the working directory."""
        return dataclasses.replace(self, **_resolved(override, Path(), None))

    def with_positives(self, values: Mapping[str, Any]) -> TrainingConfig:
        """Return a copy with other values in every source of positives."""
        return self.replaced({"positives": [{**dataclasses.asdict(source), **values} for source in self.positives]})

    def of_stage(self, index: int) -> TrainingConfig:
        """Return the configuration of stage `index`, with its value in place of each list."""
        lists = {f.name: v for f in fields(self) if f.metadata.get("per_stage") and is_list(v := getattr(self, f.name))}
        return dataclasses.replace(self, **{name: v[min(index, len(v) - 1)] for name, v in lists.items()})

    def to_toml(self) -> str:
        """Return the recipe as TOML that reads back to an equal configuration."""
        lines = []
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "positives" or value == "":
                continue
            if item.name == "window":
                value = f"{value[0]}x{value[1]}"
            lines.append(f"{item.name} = {_toml(value)}")
        for source in self.positives:
            lines += ["", "[[positives]]"]
            values = {item.name: getattr(source, item.name) for item in fields(source)}
            lines += [f"{name} = {_toml(value)}" for name, value in values.items() if value != ""]
        return "\n".join([*lines, ""])

    def differences(self, other: TrainingConfig) -> list[str]:
        """Return the settings that differ, as ``key: mine, not theirs``; empty if both train the same cascade.

        The output folder, the number of threads and the memory limit do not change the result and are ignored.
        """
        skipped = {"output", "threads", "memory_mb"}
        pairs = [(f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.name not in skipped]
        return [text for name, mine, theirs in pairs for text in _differences(name, mine, theirs)]


def _differences(name: str, mine: Any, theirs: Any) -> list[str]:
    """Say where two values differ: of sources of positives and lists of backgrounds only the parts that do."""
    if mine == theirs:
        return []
    if name == "window":
        return ["window: {}x{}, not {}x{}".format(*mine, *theirs)]
    if isinstance(mine, PositiveSource):
        parts = [(f"{name}.{f.name}", getattr(mine, f.name), getattr(theirs, f.name)) for f in fields(mine)]
    elif name in ("positives", "backgrounds"):
        if len(mine) != len(theirs):
            return [f"{name}: {len(mine)} of them, not {len(theirs)}"]
        parts = [(f"{name}[{k}]", *pair) for k, pair in enumerate(zip(mine, theirs, strict=True))]
    else:
        return [f"{name}: {_toml(mine)}, not {_toml(theirs)}"]
    return [text for part in parts for text in _differences(*part)]


def _toml(value: Any) -> str:
    """Format a value as TOML; JSON's strings, numbers and arrays of them are TOML too."""
    if isinstance(value, PositiveSource):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _resolved(table: Mapping[str, Any], base: Path, data: str | None) -> Mapping[str, Any]:
    known = {item.name: item for item in fields(TrainingConfig)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            names = ", ".join(known)
            raise InputError(f"expected a key of a recipe (one of {names}), got {key!r} = {shown(value)}")
        if key == "positives":
            items = value if isinstance(value, list | tuple) else [value]
            values[key] = tuple(_source(item, base, data) for item in items)
        elif key == "backgrounds":
            items = value if isinstance(value, list | tuple) else [value]
            values[key] = tuple(_path(item, key, base, data) for item in items)
        elif key == "output":
            values[key] = _path(value, key, base, data)
        elif key == "window":
            values[key] = _window(value)
        elif known[key].metadata.get("per_stage") and isinstance(value, list | tuple):
            values[key] = tuple(plain_number(known[key], item) for item in value)
        else:
            values[key] = plain_number(known[key], value)
    return values


def _source(item: Any, base: Path, data: str | None) -> PositiveSource:
    if isinstance(item, PositiveSource):
        return item
    table = dict(item) if isinstance(item, Mapping) else {"path": item}
    known = {f.name: f for f in fields(PositiveSource)}
    for key, value in table.items():
        if key not in known:
            raise InputError(f"expected a key of positives (one of {', '.join(known)}), got {key!r} = {shown(value)}")
        table[key] = plain_number(known[key], value)
    if "classes" in table:
        names = table["classes"]
        table["classes"] = (names,) if isinstance(names, str) else tuple(map(str, names))
    if isinstance(table.get("where"), Mapping):
        table["where"] = {str(k): str(v) for k, v in table["where"].items()}
    table["path"] = _path(table.get("path"), "positives", base, data)
    if table.get("images"):
        table["images"] = _path(table["images"], "positives.images", base, data)
    return PositiveSource(**table)


def _path(value: Any, key: str, base: Path, data: str | None) -> str:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise InputError(f"expected {key} to be a path, got {shown(value)}")
    text = os.fspath(value)
    if text.startswith("skimage:") or (key == "backgrounds" and text == ANNOTATED):
        return text
    if key == "backgrounds" and text.startswith(ANNOTATED + ":"):
        return f"{ANNOTATED}:{_path(text.removeprefix(ANNOTATED + ':'), 'positives', base, data)}"
    if (url := as_url(text)) is not None:
        return url
    if "{data}" in text:
        if data is None:
            raise InputError(f"expected a data folder (--data PATH) for {key} = {text!r}, got none")
        text = text.replace("{data}", str(Path(data).resolve()))
    return str((base / text).absolute())


def _window(value: Any) -> tuple[int, int]:
    parts = value.lower().split("x") if isinstance(value, str) else value
    try:
        width, height = (int(part) for part in parts)
    except (TypeError, ValueError):
        raise InputError(f'expected window as "24x24", got {shown(value)}') from None
    return width, height
