"""The layout of OpenCV's current detector, ``opencv-cascade-classifier``, written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from vj.cascade import calibration, soft
from vj.cascade.lbp import LbpFeatures
from vj.cascade.model import Cascade
from vj.cascade.old_xml import decimal, feature_xml


def to_xml(cascade: Cascade) -> str:
    """Return a cascade as the text of an OpenCV cascade file (its current layout)."""
    lbp = isinstance(cascade.features, LbpFeatures)
    out = ['<?xml version="1.0"?>', "<opencv_storage>", '<cascade type_id="opencv-cascade-classifier">']
    out += [
        "  <stageType>BOOST</stageType>",
        f"  <featureType>{'LBP' if lbp else 'HAAR'}</featureType>",
        f"  <height>{cascade.window[1]}</height>",
        f"  <width>{cascade.window[0]}</width>",
        f"  <stageParams><maxWeakCount>{int(cascade.stage_sizes.max())}</maxWeakCount></stageParams>",
        f"  <featureParams><maxCatCount>{256 if lbp else 0}</maxCatCount></featureParams>",
        f"  <stageNum>{cascade.n_stages}</stageNum>",
        "  <stages>",
    ]
    for s in range(cascade.n_stages):
        out += ["    <_>", *stage_lines(cascade, s), "    </_>"]
    out += ["  </stages>", "  <features>", *_feature_lines(cascade), "  </features>"]
    if cascade.provenance:
        out += ["  <provenance>", *_provenance_lines(cascade.provenance), "  </provenance>"]
    if cascade.calibration is not None:
        out += calibration.to_lines(cascade.calibration)
    if cascade.soft is not None:
        out += soft.to_lines(cascade.soft)
    return "\n".join([*out, "</cascade>", "</opencv_storage>", ""])


def stage_lines(cascade: Cascade, stage: int, numbers: npt.NDArray[np.int64] | None = None) -> Iterator[str]:
    """Yield the lines of one stage, which refer to the cascade's features by number.

    Parameters
    ----------
    cascade : Cascade
    stage : int
    numbers : ndarray of int64, shape (n_features,), optional
        The number of each feature; by default its place in the cascade's table.
    """
    trees = range(int(cascade.stage_starts[stage]), int(cascade.stage_starts[stage + 1]))
    yield f"      <maxWeakCount>{len(trees)}</maxWeakCount>"
    yield f"      <stageThreshold>{decimal(cascade.stage_thresholds[stage])}</stageThreshold>"
    yield "      <weakClassifiers>"
    for tree in trees:
        yield from _tree_lines(cascade, tree, numbers)
    yield "      </weakClassifiers>"


def _tree_lines(cascade: Cascade, tree: int, numbers: npt.NDArray[np.int64] | None) -> list[str]:
    first, last = int(cascade.tree_starts[tree]), int(cascade.tree_starts[tree + 1])
    nodes = []
    for n in range(first, last):
        feature = cascade.node_features[n]
        words = [str(c) for c in cascade.node_children[n]] + [str(feature if numbers is None else numbers[feature])]
        if len(cascade.node_subsets):
            words += [str(w) for w in cascade.node_subsets[n]]
        else:
            words.append(decimal(cascade.node_thresholds[n]))
        nodes.append(" ".join(words))
    leaves = " ".join(decimal(v) for v in cascade.leaves[first + tree : last + tree + 1])
    return [
        "        <_>",
        f"          <internalNodes>{' '.join(nodes)}</internalNodes>",
        f"          <leafValues>{leaves}</leafValues></_>",
    ]


def _feature_lines(cascade: Cascade) -> Iterator[str]:
    features = cascade.features
    if isinstance(features, LbpFeatures):
        for rect in features.rects.tolist():
            yield f"    <_><rect>{' '.join(map(str, rect))}</rect></_>"
        return
    for index in range(len(features)):
        yield f"    <_>{feature_xml(features, index)}</_>"


def _provenance_lines(provenance: dict[str, str]) -> Iterator[str]:
    for key, value in provenance.items():
        tag = re.sub(r"\W", "_", key, flags=re.ASCII)
        text = escape(" ".join(str(value).split()), {'"': "&quot;", "'": "&apos;"})
        yield f'    <{tag}>"{text}"</{tag}>'
