"""What a checkpoint holds, read back and checked: nothing gets to compiled code that the trainer cannot have written.

Every function raises `ValueError` with a few words on what it found in place of what it expected.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vj.boosting.progress import StageReport
from vj.boosting.recipe import TrainingConfig
from vj.boosting.samples import Windows
from vj.boosting.search import Split
from vj.boosting.stage import Stage
from vj.boosting.trees import WeakTree
from vj.cascade.lbp import SUBSET_WORDS

HEADER_BYTES = 1024
"""More than the header of an array of windows takes."""

_LARGEST = 1.7e308


@dataclass(frozen=True)
class Limits:
    """What bounds the values of a checkpoint.

    Parameters
    ----------
    config : TrainingConfig
    features : int
        Size of the feature pool.
    backgrounds : int
        Number of backgrounds.
    """

    config: TrainingConfig
    features: int
    backgrounds: int

    @property
    def array_bytes(self) -> int:
        """Largest size of the file of negatives."""
        return HEADER_BYTES + self.config.negatives_per_stage * self.config.window[0] * self.config.window[1]


def integer(value: Any, low: int, high: int, what: str) -> int:
    """Return a whole number between two bounds."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} {_shown(value)} (expected {low} to {high})")
    return value


def number(value: Any, what: str, low: float = -np.inf, high: float = np.inf) -> float:
    """Return a finite number."""
    if type(value) not in (int, float) or not max(low, -_LARGEST) <= value <= min(high, _LARGEST):
        raise ValueError(f"{what} {_shown(value)}")
    return float(value)


def items(value: Any, most: int, what: str, least: int = 0) -> list[Any]:
    """Return a list of a length within bounds."""
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise ValueError(f"{what}: {_shown(value)} (expected a list of {least} to {most})")
    return value


def read_windows(data: bytes, window: tuple[int, int]) -> Windows:
    """Return the windows in a file that `numpy.save` wrote; the header must be the one that belongs to its size.

    Parameters
    ----------
    data : bytes
    window : (int, int)
        Width and height.

    Returns
    -------
    ndarray of uint8, shape (n, height, width)
    """
    width, height = window
    start = 10 + int.from_bytes(data[8:10], "little")
    n, rest = divmod(max(len(data) - start, 0), width * height)
    # Compared, not parsed: numpy reads headers as Python code, and makes what they ask for.
    if rest or data[:start] != header((n, height, width)):
        raise ValueError(f"an array of {len(data)} bytes with the header {_shown(data[10:start], 120)}")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(n, height, width).copy()


def header(shape: tuple[int, ...]) -> bytes:
    """Return the header of a ``.npy`` file of windows of this shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def read_stages(tables: Any, limits: Limits) -> list[Stage]:
    """Return finished stages."""
    found: list[Stage] = []
    for k, table in enumerate(items(tables, limits.config.stages, "stages")):
        threshold = _float32([number(table["threshold"], f"threshold of stage {k}")])[0]
        trees = read_trees(table["trees"], limits, k)
        if not trees:
            raise ValueError(f"stage {k} without weak classifiers")
        before = found[-1].trees if limits.config.chain and found else ()
        found.append(Stage((*before, *trees), threshold, len(before)))
    return found


def read_reports(tables: Any, stages: Sequence[Stage]) -> list[StageReport]:
    """Return the reports of these stages."""
    names = {field.name: field.type for field in dataclasses.fields(StageReport)}
    found = []
    for k, table in enumerate(items(tables, len(stages), "reports", len(stages))):
        if not isinstance(table, dict) or set(table) != set(names):
            raise ValueError(f"report {k}: {_shown(table)}")
        for name in names:
            what, rate = f"report {k}: {name}", name.endswith(("rate", "ratio"))
            if names[name] == "str":
                if not isinstance(table[name], str):
                    raise ValueError(f"{what} {_shown(table[name])}")
            elif names[name] == "int":
                integer(table[name], 0, 2**62, what)
            else:
                number(table[name], what, -np.inf if name == "threshold" else 0.0, 1.0 if rate else np.inf)
        report = StageReport(**table)
        if (report.index, report.weak_classifiers) != (k, len(stages[k].added)):
            raise ValueError(f"report {k} of stage {report.index} with {report.weak_classifiers} weak classifiers")
        found.append(report)
    return found


def read_trees(tables: Any, limits: Limits, stage: int) -> tuple[WeakTree, ...]:
    """Return the weak classifiers of a stage."""
    config = limits.config.of_stage(stage)
    most = items(tables, config.max_weak_count, f"weak classifiers of stage {stage}")
    return tuple(_tree(table, limits.features, 2**config.max_depth - 1) for table in most)


def _tree(table: Any, n_features: int, most: int) -> WeakTree:
    splits = tuple(_split(values, n_features) for values in items(table["splits"], most, "splits", 1))
    n = len(splits)
    pairs = items(table["children"], n, "children", n)
    children = np.array([[_child(c, k, n) for c in items(pair, 2, "children", 2)] for k, pair in enumerate(pairs)])
    leaves = [number(value, "leaf") for value in items(table["leaves"], n + 1, "leaves", n + 1)]
    return WeakTree(splits, children.astype(np.int32), _float32(leaves))


def _split(values: Any, n_features: int) -> Split:
    feature, threshold, subset, loss = items(values, 4, "split", 4)
    words = [integer(word, -(2**31), 2**31 - 1, "subset") for word in items(subset, SUBSET_WORDS, "subset", 8)]
    return Split(
        integer(feature, 0, n_features - 1, "feature"),
        _float32([number(threshold, "threshold of a split")])[0],
        np.array(words, dtype=np.int32),
        number(loss, "loss"),
    )


def _child(value: Any, node: int, n: int) -> int:
    """Return a later split, or a leaf as minus its number."""
    child = integer(value, -n, n - 1, "child")
    if 0 < child <= node:
        raise ValueError(f"child {child} of split {node}")
    return child


def _float32(values: list[float]) -> Any:
    with np.errstate(over="ignore"):
        found = np.array(values, dtype=np.float32)
    if not np.isfinite(found).all():
        raise ValueError(f"numbers {_shown(values)} beyond single precision")
    return found


def _shown(value: Any, most: int = 60) -> str:
    return " ".join(repr(value)[:most].split())
