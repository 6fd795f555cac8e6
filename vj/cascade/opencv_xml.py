"""The model's file format: OpenCV's cascade files, read and written.

XML, YAML and JSON are read, compressed or not (`vj.cascade.file_storage`); XML is written. Both layouts are read and
written: the one of OpenCV's current detector (``opencv-cascade-classifier``, Haar and LBP) and the one before it
(``opencv-haar-classifier``), whose stage trees are flattened to a chain in file order as OpenCV does.
A file is hostile until proven otherwise: its size is bounded, document types and entities are refused, and nothing
leaves this module that `Cascade` has not validated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._files import exists, is_file, read_bounded, write_text
from vj.cascade import calibration, soft, stock
from vj.cascade.file_storage import read_tree
from vj.cascade.haar import MAX_RECTANGLES, HaarFeatures
from vj.cascade.lbp import SUBSET_WORDS, LbpFeatures
from vj.cascade.model import Cascade
from vj.cascade.new_xml import to_xml
from vj.cascade.old_xml import to_old_xml
from vj.cascade.storage_node import MAX_BYTES, Node
from vj.cascade.storage_values import FormatError, child_int, children, float32, floats, int32, ints, one, text_of
from vj.errors import InputError

MAX_STAGES = 1000
"""Most stages read; Viola and Jones used 38, OpenCV's longest file has 47."""


def load(source: str | os.PathLike[str] = stock.DEFAULT) -> Cascade:
    """Read a cascade.

    Parameters
    ----------
    source : str or path
        A file written by this package, by OpenCV's trainers or by their converters: XML, YAML or JSON, compressed by
        gzip or not, recognised by its contents; or the name of a cascade that `vj.cascade.stock.find` knows, such as
        ``frontalface`` or ``frontalface_alt2``. A path at which there is nothing is looked up by the file's name in the
        same places. By default the packaged face cascade, which is also the default of
        every command.

    Returns
    -------
    Cascade
        Named after the file.

    Raises
    ------
    InputError
        If the file is not a regular file that can be read, or does not hold a valid cascade.
    """
    path = resolve(source)
    return parse(read_bounded(path, MAX_BYTES, "cascade file"), name=name_of(path), place=str(path))


def name_of(path: Path) -> str:
    """Return what a cascade is called after its file."""
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def resolve(source: str | os.PathLike[str]) -> Path:
    """Return the path meant: a plain word that is no file is a name, and so is the end of a path to nowhere.

    Raises
    ------
    InputError
        If a name is not known.
    """
    path = Path(source)
    if is_file(path):
        return path
    if isinstance(source, str) and re.fullmatch(r"\w+", source):
        return stock.find(source)
    if not exists(path):
        found = stock.find_elsewhere(path)
        if found is not None:
            return found
        if hint := stock.missing(path):
            raise InputError(f"{path}: expected a readable cascade file, got nothing there{hint}")
    return path


def parse(data: bytes, *, name: str = "cascade", place: str = "cascade") -> Cascade:
    """Read a cascade from the bytes of a file.

    Parameters
    ----------
    data : bytes
    name : str
        Name of the cascade.
    place : str
        What error messages call the source.

    Raises
    ------
    InputError
        If the bytes do not hold a valid cascade.
    """
    return from_tree(read_tree(data, place=place), name=name, place=place)


def from_tree(root: Node, *, name: str = "cascade", place: str = "cascade") -> Cascade:
    """Build a cascade from a tree of the file storage.

    Parameters
    ----------
    root : Node
        Named ``opencv_storage``; its first child is the cascade.
    name : str
        Name of the cascade.
    place : str
        What error messages call the source.

    Raises
    ------
    InputError
        If the tree does not hold a valid cascade.
    """
    try:
        return _read_root(root, name)
    except (FormatError, InputError) as error:
        raise InputError(f"{place}: {error}") from None


# --- reading -----------------------------------------------------------------------------------------------------


@dataclass
class _Tables:
    """Flat tables in the making."""

    stage_starts: list[int] = field(default_factory=lambda: [0])
    stage_thresholds: list[float] = field(default_factory=list)
    tree_starts: list[int] = field(default_factory=lambda: [0])
    node_features: list[int] = field(default_factory=list)
    node_children: list[tuple[int, int]] = field(default_factory=list)
    node_thresholds: list[float] = field(default_factory=list)
    node_subsets: list[list[int]] = field(default_factory=list)
    leaves: list[float] = field(default_factory=list)

    def end_tree(self) -> None:
        self.tree_starts.append(len(self.node_features))

    def end_stage(self, threshold: float) -> None:
        self.stage_thresholds.append(threshold)
        self.stage_starts.append(len(self.tree_starts) - 1)

    def renumber(self, numbers: npt.NDArray[np.int64]) -> None:
        """Replace the numbers of features by their places in `numbers`."""
        found = int32(self.node_features)
        at = np.minimum(np.searchsorted(numbers, found), len(numbers) - 1)
        if (unknown := numbers[at] != found).any():
            raise FormatError(f"expected features of the pool, got number {found[unknown][0]}")
        self.node_features = at.tolist()

    def cascade(self, window: tuple[int, int], features: HaarFeatures | LbpFeatures, **more: Any) -> Cascade:
        return Cascade(
            window=window,
            features=features,
            stage_starts=int32(self.stage_starts),
            stage_thresholds=float32(self.stage_thresholds),
            tree_starts=int32(self.tree_starts),
            node_features=int32(self.node_features),
            node_children=int32(self.node_children).reshape(-1, 2),
            node_thresholds=float32(self.node_thresholds),
            node_subsets=int32(self.node_subsets).reshape(-1, SUBSET_WORDS),
            leaves=float32(self.leaves),
            **more,
        )


def _read_root(root: Any, name: str) -> Cascade:
    node = root[0] if root.tag == "opencv_storage" and len(root) else None
    if node is None:
        raise FormatError(f"expected <opencv_storage> holding a cascade, got <{root.tag[:60]}>")
    if node.find("stageType") is not None or node.find("featureType") is not None:
        return _read_new(node, name)
    if is_old(root):
        return _read_old(node, name)
    raise FormatError(f"expected a cascade classifier, got <{node.tag[:60]}> without featureType or size")


def is_old(root: Node) -> bool:
    """Whether a tree holds a cascade of the layout before the current one."""
    node = root[0] if len(root) else root
    return node.find("featureType") is None and node.find("size") is not None and node.find("stages") is not None


def _read_new(node: Any, name: str) -> Cascade:
    stage_type = text_of(node, "stageType", "the cascade")
    if stage_type != "BOOST":
        raise FormatError(f"expected stageType BOOST, got {stage_type[:40]!r}")
    kind = text_of(node, "featureType", "the cascade")
    if kind not in ("HAAR", "LBP"):
        raise FormatError(f"expected featureType HAAR or LBP, got {kind[:40]!r}")
    window = (child_int(node, "width"), child_int(node, "height"))
    tables = _Tables()
    for s, stage in enumerate(_stages(node)):
        _read_stage(tables, stage, s, kind == "LBP")
    features = _read_haar(node) if kind == "HAAR" else _read_lbp(node)
    more = {
        "provenance": _read_provenance(node),
        "calibration": calibration.read_element(node),
        "soft": soft.read_element(node),
    }
    return tables.cascade(window, features, name=name, **more)


def read_stages(
    nodes: Iterable[Node],
    window: tuple[int, int],
    features: HaarFeatures | LbpFeatures,
    numbers: npt.NDArray[np.int64] | None = None,
) -> Cascade:
    """Build a cascade from stages that refer to a pool of features by number, as OpenCV's trainer leaves them.

    Parameters
    ----------
    nodes : iterable of Node
        One for each stage.
    window : (int, int)
    features : HaarFeatures or LbpFeatures
        The pool; the cascade holds all of it.
    numbers : ndarray of int64, shape (n_features,), optional
        The number by which stages refer to each feature, ascending; by default its place in `features`.

    Raises
    ------
    InputError
        If a stage is malformed.
    """
    tables = _Tables()
    try:
        for s, node in enumerate(nodes):
            _read_stage(tables, node, s, isinstance(features, LbpFeatures))
        if numbers is not None:
            tables.renumber(numbers)
        return tables.cascade(window, features)
    except FormatError as error:
        raise InputError(str(error)) from None


def _read_stage(tables: _Tables, stage: Any, s: int, lbp: bool) -> None:
    # OpenCV takes the eight words of an LBP node from featureParams/maxCatCount; the kind of feature says the same,
    # and scikit-image's file, where that element is misspelt, can be read.
    step = 3 + (SUBSET_WORDS if lbp else 1)
    for t, tree in enumerate(children(stage, "weakClassifiers", f"stage {s}")):
        _read_tree(tables, tree, step, f"stage {s}, weak classifier {t}")
    tables.end_stage(one(floats(text_of(stage, "stageThreshold", f"stage {s}"), f"stage {s}"), f"stage {s}"))


def _read_tree(tables: _Tables, tree: Any, step: int, place: str) -> None:
    numbers = text_of(tree, "internalNodes", place).split()
    leaves = floats(text_of(tree, "leafValues", place), place)
    if not numbers or len(numbers) % step:
        raise FormatError(f"expected internalNodes in groups of {step} numbers in {place}, got {len(numbers)}")
    if len(leaves) != len(numbers) // step + 1:
        raise FormatError(f"expected {len(numbers) // step + 1} leafValues in {place}, got {len(leaves)}")
    for i in range(0, len(numbers), step):
        left, right, feature = ints(numbers[i : i + 3], place)
        tables.node_children.append((left, right))
        tables.node_features.append(feature)
        if step == 4:
            tables.node_thresholds.append(floats(numbers[i + 3], place)[0])
        else:
            tables.node_thresholds.append(0.0)
            tables.node_subsets.append(ints(numbers[i + 3 : i + step], place))
    tables.leaves.extend(leaves)
    tables.end_tree()


def _read_haar(node: Any) -> HaarFeatures:
    return _haar_table(enumerate(children(node, "features", "the cascade")), lambda i: f"feature {i}")


def _haar_table(items: Iterable[tuple[Any, Any]], place: Callable[[Any], str]) -> HaarFeatures:
    """Build the table from pairs of (index, element with <rects> and <tilted>)."""
    rects, weights, tilted = [], [], []
    for index, element in items:
        row, weight = [[0, 0, 0, 0]] * MAX_RECTANGLES, [0.0] * MAX_RECTANGLES
        parts = list(children(element, "rects", place(index)))
        if not 1 <= len(parts) <= MAX_RECTANGLES:
            raise FormatError(f"expected 1 to {MAX_RECTANGLES} rectangles in {place(index)}, got {len(parts)}")
        for k, part in enumerate(parts):
            numbers = (part.text or "").split()
            if len(numbers) != 5:
                raise FormatError(
                    f"expected x, y, width, height and weight in {place(index)}, got {len(numbers)} values"
                )
            row[k] = ints(numbers[:4], place(index))
            weight[k] = floats(numbers[4], place(index))[0]
        flag = element.find("tilted")
        rects.append(row)
        weights.append(weight)
        tilted.append(flag is not None and ints((flag.text or "0").split(), place(index)) != [0])
    return HaarFeatures(
        int32(rects).reshape(-1, MAX_RECTANGLES, 4),
        float32(weights).reshape(-1, MAX_RECTANGLES),  # type: ignore[arg-type]
        np.array(tilted, dtype=np.bool_),
    )


def _read_lbp(node: Any) -> LbpFeatures:
    rects = []
    for i, element in enumerate(children(node, "features", "the cascade")):
        rect = ints(text_of(element, "rect", f"feature {i}").split(), f"feature {i}")
        if len(rect) != 4:
            raise FormatError(f"expected x, y, width and height in feature {i}, got {len(rect)} values")
        rects.append(rect)
    return LbpFeatures(int32(rects).reshape(-1, 4))


def _read_old(node: Any, name: str) -> Cascade:
    size = ints(text_of(node, "size", "the cascade").split(), "the size")
    if len(size) != 2:
        raise FormatError(f"expected a size of two numbers, got {len(size)}")
    tables = _Tables()
    features: list[tuple[str, Any]] = []
    for s, stage in enumerate(_stages(node)):
        for t, tree in enumerate(children(stage, "trees", f"stage {s}")):
            place = f"stage {s}, tree {t}"
            n_leaves = 0
            for item in tree:
                left, n_leaves = _read_old_child(tables, item, "left", n_leaves, place)
                right, n_leaves = _read_old_child(tables, item, "right", n_leaves, place)
                tables.node_children.append((left, right))
                # Every node has a feature of its own in this layout.
                tables.node_features.append(len(features))
                threshold = floats(text_of(item, "threshold", place), place)
                tables.node_thresholds.append(one(threshold, place))
                feature = item.find("feature")
                if feature is None:
                    raise FormatError(f"expected a feature in {place}, got none")
                features.append((place, feature))
            tables.end_tree()
        tables.end_stage(one(floats(text_of(stage, "stage_threshold", f"stage {s}"), f"stage {s}"), f"stage {s}"))
    table = _haar_table(features, str)
    return tables.cascade((size[0], size[1]), table, name=name, calibration=calibration.read_element(node))


def _read_old_child(tables: _Tables, item: Any, side: str, n_leaves: int, place: str) -> tuple[int, int]:
    """Return the child in the current layout's numbering and the number of leaves met so far in the tree."""
    value, node = item.find(f"{side}_val"), item.find(f"{side}_node")
    if value is not None:
        tables.leaves.append(one(floats(value.text or "", place), place))
        return -n_leaves, n_leaves + 1
    if node is None:
        raise FormatError(f"expected {side}_val or {side}_node in {place}, got neither")
    index = one(ints((node.text or "").split(), place), place)
    if index < 1:
        raise FormatError(f"expected {side}_node above 0 in {place}, got {index}")
    return index, n_leaves


def _stages(node: Any) -> list[Any]:
    stages = list(children(node, "stages", "the cascade"))
    if not 1 <= len(stages) <= MAX_STAGES:
        raise FormatError(f"expected 1 to {MAX_STAGES} stages, got {len(stages)}")
    return stages


def _read_provenance(node: Any) -> dict[str, str]:
    found = node.find("provenance")
    return (
        {}
        if found is None
        else {item.tag: (item.text or "").strip().removeprefix('"').removesuffix('"') for item in found}
    )


# --- writing -----------------------------------------------------------------------------------------------------


FORMATS = ("opencv-cascade-classifier", "opencv-haar-classifier")
"""Layouts that `save` writes."""


def save(cascade: Cascade, path: str | os.PathLike[str], *, format: str = FORMATS[0]) -> None:
    """Write a cascade as XML that OpenCV's `CascadeClassifier` reads; the file appears whole or not at all.

    Parameters
    ----------
    cascade : Cascade
    path : str or path
    format : str
        ``opencv-cascade-classifier``, or ``opencv-haar-classifier`` for programs that read only the layout before it,
        such as jsfeat and tracking.js; that one holds Haar-like features only, and no provenance,
        calibration or soft thresholds.

    Raises
    ------
    InputError
        If the format is another, cannot hold the cascade, or the name promises something else than XML.
    OSError
        If the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix in (".yml", ".yaml", ".json", ".gz"):
        raise InputError(f"{os.fspath(path)}: expected a name that ends in .xml, got {suffix}")
    if format not in FORMATS:
        raise InputError(f"expected format as one of {', '.join(FORMATS)}, got {format!r}")
    write_text(path, to_xml(cascade) if format == FORMATS[0] else to_old_xml(cascade))
