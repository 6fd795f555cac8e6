"""The recipe of a training run: every setting with its range, from TOML, from the command line or from Python."""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from vj.errors import InputError

FEATURE_KINDS = ("basic", "core", "all", "lbp")
BOOSTINGS = ("gentle", "real", "discrete", "logit")
SEARCHES = ("exact", "fast")
LABELLED = ("annotations", "coco", "voc", "yolo", "wider", "fddb", "mitcmu")
FORMATS = ("auto", "crops", "csv", "info", "vec", *LABELLED)
CROPS = ("box", "square", "landmarks")
ASPECTS = ("grow", "shrink", "stretch")


def _integer(default: int, low: int, high: int, help: str, per_stage: bool = False) -> Any:
    meta = {"type": int, "low": low, "high": high, "help": help, "per_stage": per_stage}
    return field(default=default, metadata=meta)


def _number(default: float, low: float, high: float, help: str, per_stage: bool = False) -> Any:
    meta = {"type": float, "low": low, "high": high, "help": help, "per_stage": per_stage}
    return field(default=default, metadata=meta)


def _choice(default: str, choices: tuple[str, ...], help: str) -> Any:
    return field(default=default, metadata={"type": str, "choices": choices, "help": help})


def _flag(default: bool, help: str) -> Any:
    return field(default=default, metadata={"type": bool, "help": help})


def _text(default: str, help: str) -> Any:
    return field(default=default, metadata={"type": str, "help": help})


@dataclass(frozen=True)
class PositiveSource:
    """Where positives come from and what part of them is the object.

    Parameters
    ----------
    path : str
        Folder or file.
    format : str
        One of `FORMATS`; ``auto`` looks at the path.
    crop : {'box', 'square', 'landmarks'}
        ``box``: the annotated box, see `aspect`; ``square``: the columns ``sq_*`` of a CSV;
        ``landmarks``: a square from the eyes and the mouth (columns ``leye_x`` and so on).
    margin : float
        Added on each side of a box, in parts of its size.
    aspect : {'grow', 'shrink', 'stretch'}
        How a box comes to the window's aspect: its short side grows, its long side shrinks, both about its centre, or
        the picture in it is stretched, as opencv_createsamples does.
    side : float
        Landmarks: side of the square in units u, where u is the larger of the distance between the eyes and 0.95 times
        the distance from the middle of the eyes to the middle of the mouth.
    drop : float
        Landmarks: how far below the middle of the eyes the square is centred, in u.
    where : mapping of str to str
        CSV: keep the rows whose columns have these values, or lie in a range such as ``"-0.5..0.5"``.
    classes : tuple of str
        Classes of the objects to take, where the annotations have classes; needed if there are several.
    jitter : int
        Jittered copies of each of its objects; -1 for as many as the run's.
    images : str
        Folder that the names in the annotations are relative to; empty for the usual places beside them.
    min_size : int
        Boxes with a shorter side, in pixels, are left out.
    frontal : bool
        WIDER FACE: only clear, upright, frontal faces of at least 30 pixels.
    limit : int
        Most positives taken, 0 for all.
    """

    path: str = _text("", "folder or file of positives")
    format: str = _choice("auto", FORMATS, "how the positives are annotated")
    crop: str = _choice("box", CROPS, "what part of an annotation is the object")
    margin: float = _number(0.0, -0.4, 2.0, "added on each side of a box, in parts of its size")
    aspect: str = _choice("grow", ASPECTS, "how a box comes to the window's aspect")
    side: float = _number(2.66, 0.5, 8.0, "landmarks: side of the square in units of the face (see PositiveSource)")
    drop: float = _number(0.305, -2.0, 2.0, "landmarks: distance of the square's centre below the eyes, same units")
    where: Mapping[str, str] = field(default_factory=dict, metadata={"type": dict, "help": "CSV: columns and values"})
    classes: tuple[str, ...] = field(default=(), metadata={"type": tuple, "help": "classes of the objects to take"})
    jitter: int = _integer(-1, -1, 1000, "jittered copies of this source's objects; -1: as many as the run's")
    images: str = _text("", "folder that names in annotations are relative to")
    min_size: int = _integer(0, 0, 10000, "boxes with a shorter side, in pixels, are left out")
    frontal: bool = _flag(False, "WIDER FACE: only clear frontal faces")
    limit: int = _integer(0, 0, 10**9, "most positives taken from a source; 0 takes all")

    def __post_init__(self) -> None:
        _check_fields(self, "positives.")
        if not self.path:
            raise InputError("expected a path for every source of positives, got none")


@dataclass(frozen=True)
class TrainingConfig:
    """Every setting of a training run. Fields are the keys of a recipe and, with dashes, options of ``vj-train``.

    ``min_hit_rate``, ``max_false_alarm_rate``, ``max_weak_count`` and ``max_depth`` may be lists (tuples, once read):
    one value for each stage, the last one for all later stages. `of_stage` puts the number in their place.

    Raises
    ------
    InputError
        For a value out of range; the message names key, value and allowed range.
    """

    positives: tuple[PositiveSource, ...] = field(default=(), metadata={"type": tuple, "help": "sources of positives"})
    backgrounds: tuple[str, ...] = field(default=(), metadata={"type": tuple, "help": "folders, globs or list files"})
    screen_backgrounds: str = _text("", "cascade (file or name) that sets aside backgrounds it finds its object in")
    output: str = _text("", "folder for the cascade, its report, plots and checkpoints")

    window: tuple[int, int] = field(default=(24, 24), metadata={"type": tuple, "help": "size of the window, as 24x24"})
    features: str = _choice("basic", FEATURE_KINDS, "pool of features to choose from")
    stages: int = _integer(20, 1, 200, "most stages trained")
    positives_per_stage: int = _integer(2000, 2, 10**7, "positives a stage is trained on")
    negatives_per_stage: int = _integer(4000, 2, 10**7, "negatives a stage is trained on")
    min_hit_rate: float = _number(0.995, 0.5, 1.0, "share of positives that every stage must keep", True)
    max_false_alarm_rate: float = _number(0.5, 0.001, 0.999, "share of negatives a stage may let through", True)
    overall_false_alarm_rate: float = _number(0.0, 0.0, 1.0, "training ends when so few windows pass; 0: never")
    max_weak_count: int = _integer(200, 1, 10000, "most weak classifiers in a stage", True)
    pruning: float = _number(0.0, 0.0, 0.5, "share of the positives found that is given up, at the end, for speed")
    holdout: float = _number(0.2, 0.0, 0.8, "share of positives kept from boosting, on which thresholds are set")

    boosting: str = _choice("gentle", BOOSTINGS, "kind of AdaBoost")
    max_depth: int = _integer(1, 1, 8, "depth of the weak trees; 1: stumps", True)
    weight_trim_rate: float = _number(1.0, 0.5, 1.0, "share of weight a round is searched on; 1: all samples")
    search: str = _choice("fast", SEARCHES, "exact: all features; fast: a sample of them, then their neighbours")
    search_share: float = _number(0.05, 0.0001, 1.0, "fast search: part of the features that is sampled")

    mirror: bool = _flag(False, "add every positive mirrored")
    jitter: int = _integer(0, 0, 1000, "jittered copies added for every positive")
    shift: float = _number(0.04, 0.0, 0.5, "jitter: largest shift, in parts of the window")
    scale: float = _number(0.06, 0.0, 0.5, "jitter: largest change of size, in parts")
    rotation: float = _number(6.0, 0.0, 90.0, "jitter: largest rotation in degrees")
    contrast: float = _number(0.0, 0.0, 0.9, "jitter: largest change of contrast, in parts")
    detail: float = _number(1.0, 0.0, 1.0, "jitter: least size, in windows, resampled like a picture; 0: antialiased")
    brightness: float = _number(0.0, 0.0, 128.0, "jitter: largest change of brightness in grey levels")

    scale_factor: float = _number(1.1, 1.01, 4.0, "step between the scales that backgrounds are mined at")
    seed: int = _integer(1, 0, 2**63 - 1, "seed of everything random")
    threads: int = _integer(0, 0, 1024, "threads; 0: one for each core. Results do not depend on it")
    memory_mb: int = _integer(0, 0, 10**7, "memory to stay within; 0: half of what is free")

    def __post_init__(self) -> None:
        given = {item.name: value for item in fields(self) if (value := getattr(self, item.name)) != ""}
        for name, value in _resolved(given, Path(), None).items():
            object.__setattr__(self, name, value)
        _check_fields(self, "")
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
        try:
            with place.open("rb") as file:
                table = tomllib.load(file)
        except OSError as error:
            raise InputError(f"{place}: expected a readable recipe, got {error.strerror or error}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
            What ``{data}`` stands for in paths.
        override : mapping, optional
            Values that replace the table's; their relative paths start from the working directory.
        """
        values = dict(_resolved(table, Path(base), data))
        values.update(_resolved(override or {}, Path(), data))
        return cls(**values)

    def replaced(self, override: Mapping[str, Any]) -> TrainingConfig:
        """Return the configuration with other values; their relative paths start from the working directory."""
        return dataclasses.replace(self, **_resolved(override, Path(), None))

    def of_stage(self, index: int) -> TrainingConfig:
        """Return the configuration with the values of stage `index` in place of lists."""
        lists = {
            f.name: v for f in fields(self) if f.metadata.get("per_stage") and _is_list(v := getattr(self, f.name))
        }
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
        """Return what makes this recipe another one, as ``key: mine, not theirs``; empty if they train alike.

        The output folder, the number of threads and the memory limit change no result and are left out.
        """
        skipped = {"output", "threads", "memory_mb"}
        return [
            f"{item.name}: {_toml(mine)}, not {_toml(theirs)}"
            for item in fields(self)
            if item.name not in skipped and (mine := getattr(self, item.name)) != (theirs := getattr(other, item.name))
        ]


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
            raise InputError(f"expected a key of a recipe (one of {names}), got {key!r} = {_shown(value)}")
        if key == "positives":
            items = value if isinstance(value, list | tuple) else [value]
            values[key] = tuple(_source(item, base, data) for item in items)
        elif key == "backgrounds":
            items = value if isinstance(value, list | tuple) else [value]
            values[key] = tuple(_path(item, key, base, data) for item in items)
        elif key == "output" or (key == "screen_backgrounds" and str(value).endswith(".xml")):
            values[key] = _path(value, key, base, data)
        elif key == "window":
            values[key] = _window(value)
        elif known[key].metadata.get("per_stage") and isinstance(value, list | tuple):
            values[key] = tuple(_number_of(known[key], item) for item in value)
        else:
            values[key] = _number_of(known[key], value)
    return values


def _number_of(item: Any, value: Any) -> Any:
    """Take a whole number where a real one is wanted, and NumPy's numbers as plain ones."""
    value = value.item() if hasattr(value, "item") else value
    return float(value) if item.metadata["type"] is float and type(value) is int else value


def _source(item: Any, base: Path, data: str | None) -> PositiveSource:
    if isinstance(item, PositiveSource):
        return item
    table = dict(item) if isinstance(item, Mapping) else {"path": item}
    known = {f.name: f for f in fields(PositiveSource)}
    for key, value in table.items():
        if key not in known:
            raise InputError(f"expected a key of positives (one of {', '.join(known)}), got {key!r} = {_shown(value)}")
        if known[key].metadata["type"] is float and type(value) is int:
            table[key] = float(value)
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
        raise InputError(f"expected {key} to be a path, got {_shown(value)}")
    text = os.fspath(value)
    if text.startswith("skimage:"):
        return text
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
        raise InputError(f'expected window as "24x24", got {_shown(value)}') from None
    return width, height


def _check_fields(config: Any, prefix: str) -> None:
    for item in fields(config):
        value = getattr(config, item.name)
        each = value if item.metadata.get("per_stage") and _is_list(value) else (value,)
        if not each:
            raise InputError(f"expected {prefix + item.name} to be a number or a list of them, got an empty list")
        for one in each:
            _check_value(one, prefix + item.name, item.metadata)


def _is_list(value: Any) -> bool:
    return isinstance(value, tuple)


def _check_value(value: Any, name: str, meta: Mapping[str, Any]) -> None:
    kind = meta["type"]
    if type(value) is not kind and not (kind is dict and isinstance(value, Mapping)):
        raise InputError(f"expected {name} to be {_KIND_NAMES[kind]}, got {_shown(value)}")
    if "choices" in meta and value not in meta["choices"]:
        raise InputError(f"expected {name} to be one of {', '.join(meta['choices'])}, got {value!r}")
    if "low" in meta and not meta["low"] <= value <= meta["high"]:
        raise InputError(f"expected {name} between {meta['low']} and {meta['high']}, got {value}")


_KIND_NAMES = {
    int: "an integer",
    float: "a number",
    str: "a text",
    bool: "true or false",
    tuple: "a list",
    dict: "a table",
}


def _shown(value: Any) -> str:
    return repr(value)[:60]
