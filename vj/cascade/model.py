"""The model: a cascade of boosted stages, flat, frozen and validated.

Everything that runs a cascade trusts a `Cascade`: it cannot be built with a rectangle outside its window, an index out
of range, a cycle in a tree or a number that is not finite.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vj import _notebook
from vj._types import Floats
from vj.cascade.calibration import ScoreCalibration
from vj.cascade.haar import HaarFeatures
from vj.cascade.lbp import SUBSET_WORDS, LbpFeatures, mirrored_subsets
from vj.cascade.soft import SoftThresholds
from vj.errors import InputError

FeatureKind = Literal["haar", "lbp"]

MAX_WINDOW = 1024
"""Largest side of a window: far above any cascade in use, small enough for 32-bit sums."""


def stage_limits(thresholds: npt.ArrayLike) -> Floats:
    """Return the smallest sums that pass stages with these thresholds, as float64 of the same shape.

    OpenCV subtracts 1e-5 from a threshold when it loads it, in single precision; sums are in double precision.
    """
    return np.asarray(np.asarray(thresholds, dtype=np.float32) - np.float32(1e-5), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Cascade:
    """A cascade of stages; a stage is a sum of weak classifiers against a threshold.

    Trees and stages are flat. Stage ``s`` owns the weak trees ``stage_starts[s]:stage_starts[s + 1]``; tree ``t`` owns
    the nodes ``tree_starts[t]:tree_starts[t + 1]`` and, having one leaf more than it has nodes, the leaves from
    ``tree_starts[t] + t``. A child above 0 is a node of the same tree; a child c <= 0 is its leaf -c.

    Parameters
    ----------
    window : (int, int)
        Width and height in pixels.
    features : HaarFeatures or LbpFeatures
        The features that nodes refer to by index.
    stage_starts : ndarray of int32, shape (n_stages + 1,)
    stage_thresholds : ndarray of float32, shape (n_stages,)
        What a file holds. A window passes a stage if its sum is at least the stage's limit; see `stage_limits`.
    tree_starts : ndarray of int32, shape (n_trees + 1,)
    node_features : ndarray of int32, shape (n_nodes,)
    node_children : ndarray of int32, shape (n_nodes, 2)
        Left and right child.
    node_thresholds : ndarray of float32, shape (n_nodes,)
        Haar: a value below the threshold goes left. Zero for LBP.
    node_subsets : ndarray of int32, shape (n_nodes, 8) or (0, 8)
        LBP: code c goes left if bit ``c & 31`` of word ``c >> 5`` is set. No rows for Haar.
    leaves : ndarray of float32, shape (n_nodes + n_trees,)
    name : str
        What the cascade is called in reports.
    provenance : dict
        Where it came from: free text by key.
    calibration : ScoreCalibration, optional
        From the score of a detection to the probability that it is an object.
    soft : SoftThresholds, optional
        Rejection thresholds inside stages, which OpenCV does not know.

    Raises
    ------
    InputError
        If anything is out of range; the message says where.
    """

    window: tuple[int, int]
    features: HaarFeatures | LbpFeatures
    stage_starts: npt.NDArray[np.int32]
    stage_thresholds: npt.NDArray[np.float32]
    tree_starts: npt.NDArray[np.int32]
    node_features: npt.NDArray[np.int32]
    node_children: npt.NDArray[np.int32]
    node_thresholds: npt.NDArray[np.float32]
    node_subsets: npt.NDArray[np.int32]
    leaves: npt.NDArray[np.float32]
    name: str = "cascade"
    provenance: dict[str, str] = field(default_factory=dict)
    calibration: ScoreCalibration | None = None
    soft: SoftThresholds | None = None

    def __post_init__(self) -> None:
        dtypes: dict[str, Any] = {
            "stage_starts": np.int32,
            "stage_thresholds": np.float32,
            "tree_starts": np.int32,
            "node_features": np.int32,
            "node_children": np.int32,
            "node_thresholds": np.float32,
            "node_subsets": np.int32,
            "leaves": np.float32,
        }
        for name, dtype in dtypes.items():
            with np.errstate(over="ignore"):
                array = np.array(getattr(self, name), dtype=dtype, order="C")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "window", (int(self.window[0]), int(self.window[1])))
        _check_window(self.window)
        self.features.check(self.window)
        _check_shapes(self)
        _check_trees(self)
        _check_numbers(self)
        if self.soft is not None:
            self.soft.check(self.stage_starts)

    @property
    def kind(self) -> FeatureKind:
        """Kind of the features: ``haar`` or ``lbp``."""
        return "haar" if isinstance(self.features, HaarFeatures) else "lbp"

    @property
    def n_stages(self) -> int:
        """Number of stages."""
        return len(self.stage_thresholds)

    @property
    def n_trees(self) -> int:
        """Number of weak classifiers."""
        return len(self.tree_starts) - 1

    @property
    def stage_sizes(self) -> npt.NDArray[np.int32]:
        """Number of weak classifiers of each stage; shape (n_stages,)."""
        return np.diff(self.stage_starts)

    @property
    def carried(self) -> npt.NDArray[np.int32]:
        """Weak classifiers of the stage before with which each stage begins, all of them or none; shape (n_stages,).

        Such a stage goes on from the sum of the one before, so that they are evaluated once. Stages of a boosting chain
        are made so. None are carried where there are soft thresholds.
        """
        found = np.zeros(self.n_stages, dtype=np.int32)
        for k in range(1, self.n_stages if self.soft is None else 0):
            first, begin, end = (int(n) for n in self.stage_starts[k - 1 : k + 2])
            size = begin - first
            if size < end - begin and _same_trees(self, first, begin, size):
                found[k] = size
        return found

    @property
    def added(self) -> npt.NDArray[np.int32]:
        """Number of weak classifiers of each stage without those it carries; shape (n_stages,)."""
        return self.stage_sizes - self.carried

    @property
    def stage_limits(self) -> Floats:
        """Smallest sum that passes each stage; shape (n_stages,); see the function `stage_limits`."""
        return stage_limits(self.stage_thresholds)

    @property
    def node_roots(self) -> npt.NDArray[np.int64]:
        """Root of every node's tree; shape (n_nodes,)."""
        return np.repeat(self.tree_starts[:-1].astype(np.int64), np.diff(self.tree_starts))

    @property
    def node_depths(self) -> npt.NDArray[np.int64]:
        """Branches between each node and its root, at most; at least 1 if it is not the root; shape (n_nodes,)."""
        roots = self.node_roots
        depths = np.arange(len(roots)) > roots
        if self.is_stumps:
            return depths.astype(np.int64)
        children = np.where(self.node_children > 0, self.node_children + roots[:, None], 0).tolist()
        found = depths.astype(np.int64).tolist()
        # Children come after their parents.
        for node, pair in enumerate(children):
            for child in pair:
                if child:
                    found[child] = max(found[child], found[node] + 1)
        return np.array(found, dtype=np.int64)

    @property
    def has_tilted(self) -> bool:
        """Whether any feature is tilted."""
        return isinstance(self.features, HaarFeatures) and bool(self.features.tilted.any())

    @property
    def is_stumps(self) -> bool:
        """Whether every weak classifier is a stump, that is a tree of one node."""
        return len(self.node_features) == self.n_trees

    def truncated(self, n_stages: int) -> Cascade:
        """Return the cascade of the first `n_stages` stages (1 to `n_stages`), with the features they use."""
        if not 1 <= n_stages <= self.n_stages:
            raise InputError(f"expected 1 to {self.n_stages} stages, got {n_stages}")
        trees = int(self.stage_starts[n_stages])
        nodes = int(self.tree_starts[trees])
        used, index = np.unique(self.node_features[:nodes], return_inverse=True)
        return replace(
            self,
            features=self.features.take(used),
            stage_starts=self.stage_starts[: n_stages + 1],
            stage_thresholds=self.stage_thresholds[:n_stages],
            tree_starts=self.tree_starts[: trees + 1],
            node_features=index.astype(np.int32),
            node_children=self.node_children[:nodes],
            node_thresholds=self.node_thresholds[:nodes],
            node_subsets=self.node_subsets[:nodes],
            leaves=self.leaves[: nodes + trees],
            # Scores are those of the last stage.
            calibration=self.calibration if n_stages == self.n_stages else None,
            soft=self.soft and self.soft.before(trees),
        )

    def mirrored(self) -> Cascade:
        """Return the cascade of the mirrored object: it sees in a mirrored window what this one sees in the window.

        Sums are equal to the bit. Scores, calibration and soft thresholds are therefore those of this cascade.

        Raises
        ------
        InputError
            If a tilted feature touches the left edge of the window: OpenCV's tilted features, and so these, never reach
            the last column of pixels, where its mirror image would lie.
        """
        subsets = self.node_subsets if self.kind == "haar" else mirrored_subsets(self.node_subsets)
        return replace(
            self,
            features=self.features.mirrored(self.window[0]),
            node_subsets=subsets,
            name=f"{self.name} mirrored",
        )

    def _repr_html_(self) -> str:
        facts = [
            ("window", f"{self.window[0]}x{self.window[1]} pixels"),
            ("features", f"{len(self.features):,} {'tilted and upright ' * self.has_tilted}{self.kind}"),
            ("weak classifiers", f"{self.n_trees:,} {'stumps' if self.is_stumps else 'trees'}"),
            ("calibration", "yes" if self.calibration is not None else "no"),
            ("soft thresholds", f"{len(self.soft.trees):,}" if self.soft is not None else "no"),
            *self.provenance.items(),
        ]
        shown = zip(self.stage_sizes.tolist(), self.stage_thresholds.tolist(), strict=True)
        rows = [[k + 1, size, f"{threshold:.4g}"] for k, (size, threshold) in enumerate(shown)][: _notebook.MAX_ROWS]
        return _notebook.card(
            f"{self.name}: a cascade of {_notebook.count(self.n_stages, 'stage')}",
            ["stage", "weak classifiers", "threshold"],
            rows,
            facts,
            more=self.n_stages - len(rows),
        )

    def exact(self) -> Cascade:
        """Return the cascade without soft thresholds: what OpenCV sees in its file."""
        return self if self.soft is None else replace(self, soft=None)

    def __eq__(self, other: object) -> bool:
        """Whether both make the same decisions: everything equal to the bit but name, provenance and calibration."""
        if not isinstance(other, Cascade):
            return NotImplemented
        return (
            self.window == other.window
            and self.kind == other.kind
            and self.soft == other.soft
            and all(np.array_equal(a, b) for a, b in zip(_arrays(self), _arrays(other), strict=True))
        )

    __hash__ = None  # type: ignore[assignment]


def _same_trees(cascade: Cascade, a: int, b: int, size: int) -> bool:
    """Whether `size` weak classifiers from `a` on are equal to those from `b` on."""
    starts = cascade.tree_starts
    if not np.array_equal(starts[a : a + size + 1] - starts[a], starts[b : b + size + 1] - starts[b]):
        return False
    i, j, nodes = int(starts[a]), int(starts[b]), int(starts[a + size] - starts[a])
    # Of a Haar cascade no subsets, which are equal too.
    arrays = (cascade.node_features, cascade.node_children, cascade.node_thresholds, cascade.node_subsets)
    leaves, n = cascade.leaves, nodes + size
    return np.array_equal(leaves[i + a : i + a + n], leaves[j + b : j + b + n]) and all(
        np.array_equal(array[i : i + nodes], array[j : j + nodes]) for array in arrays
    )


def _arrays(cascade: Cascade) -> list[npt.NDArray[Any]]:
    features = cascade.features
    table: list[npt.NDArray[Any]] = [features.rects]
    if isinstance(features, HaarFeatures):
        table += [features.weights, features.tilted]
    return [
        *table,
        cascade.stage_starts,
        cascade.stage_thresholds,
        cascade.tree_starts,
        cascade.node_features,
        cascade.node_children,
        cascade.node_thresholds,
        cascade.node_subsets,
        cascade.leaves,
    ]


def _check_window(window: tuple[int, int]) -> None:
    if not all(3 <= side <= MAX_WINDOW for side in window):
        raise InputError(f"expected a window of 3 to {MAX_WINDOW} pixels a side, got {window[0]}x{window[1]}")


def _check_shapes(c: Cascade) -> None:
    n_stages, n_trees, n_nodes = len(c.stage_thresholds), len(c.tree_starts) - 1, len(c.node_features)
    if n_stages < 1:
        raise InputError("expected at least one stage, got none")
    for name, starts, count in (("stage", c.stage_starts, n_stages), ("tree", c.tree_starts, n_trees)):
        if starts.shape != (count + 1,) or count < 1 or starts[0] != 0:
            raise InputError(f"expected {name}_starts of shape ({count + 1},) from 0, got {starts.shape}")
        if (np.diff(starts.astype(np.int64)) < 1).any():
            raise InputError(f"expected at least one item in every {name}, got an empty or negative one")
    if c.stage_starts[-1] != n_trees or c.tree_starts[-1] != n_nodes:
        raise InputError(
            f"expected starts that end at {n_trees} trees and {n_nodes} nodes, "
            f"got {c.stage_starts[-1]} and {c.tree_starts[-1]}"
        )
    n_subsets = n_nodes if isinstance(c.features, LbpFeatures) else 0
    expected = {
        "node_children": (n_nodes, 2),
        "node_thresholds": (n_nodes,),
        "node_subsets": (n_subsets, SUBSET_WORDS),
        "leaves": (n_nodes + n_trees,),
    }
    for name, shape in expected.items():
        got = getattr(c, name).shape
        if got != shape:
            raise InputError(f"expected {name} of shape {shape}, got {got}")


def _check_trees(c: Cascade) -> None:
    """Every child must be a leaf of its tree or a later node of it: later, so that no path can cycle."""
    bad = (c.node_features < 0) | (c.node_features >= len(c.features))
    if bad.any():
        node = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"expected feature indexes 0 to {len(c.features) - 1}, got {c.node_features[node]} at node {node}"
        )
    sizes = np.diff(c.tree_starts)
    size = np.repeat(sizes, sizes)[:, None]
    position = (np.arange(len(c.node_features)) - np.repeat(c.tree_starts[:-1], sizes))[:, None]
    child = c.node_children.astype(np.int64)
    bad_child = np.where(child > 0, (child >= size) | (child <= position), -child > size)
    if bad_child.any():
        node = int(np.flatnonzero(bad_child.any(axis=1))[0])
        raise InputError(
            f"expected children that are later nodes or leaves of a tree of {size[node, 0]} nodes, "
            f"got {c.node_children[node].tolist()} at node {position[node, 0]}"
        )


def _check_numbers(c: Cascade) -> None:
    for name in ("stage_thresholds", "node_thresholds", "leaves"):
        bad = ~np.isfinite(getattr(c, name))
        if bad.any():
            raise InputError(f"expected finite {name}, got {getattr(c, name)[bad][0]} at {int(np.flatnonzero(bad)[0])}")
