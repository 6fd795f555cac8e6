"""The layout before OpenCV's current one, ``opencv-haar-classifier``, written for programs that read no other."""

from __future__ import annotations

from collections.abc import Iterator

from vj.cascade.haar import HaarFeatures
from vj.cascade.model import Cascade
from vj.errors import InputError


def to_old_xml(cascade: Cascade) -> str:
    """Return a cascade as the text of an ``opencv-haar-classifier`` file.

    Every node holds its own feature there, so that a feature used twice is written twice. There is no place for
    provenance or a calibration.

    Raises
    ------
    InputError
        If the features are not Haar-like: the layout has no others.
    """
    if not isinstance(cascade.features, HaarFeatures):
        raise InputError(f"expected Haar-like features for opencv-haar-classifier, got {cascade.kind}")
    width, height = cascade.window
    out = [
        '<?xml version="1.0"?>',
        "<opencv_storage>",
        '<cascade type_id="opencv-haar-classifier">',
        f"  <size>{width} {height}</size>",
        "  <stages>",
    ]
    for s in range(cascade.n_stages):
        out += ["    <_>", "      <trees>"]
        for tree in range(int(cascade.stage_starts[s]), int(cascade.stage_starts[s + 1])):
            out += ["        <_>", *_node_lines(cascade, cascade.features, tree), "        </_>"]
        out += [
            "      </trees>",
            f"      <stage_threshold>{decimal(cascade.stage_thresholds[s])}</stage_threshold>",
            f"      <parent>{s - 1}</parent>",
            "      <next>-1</next></_>",
        ]
    return "\n".join([*out, "  </stages>", "</cascade>", "</opencv_storage>", ""])


def _node_lines(cascade: Cascade, features: HaarFeatures, tree: int) -> Iterator[str]:
    first, last = int(cascade.tree_starts[tree]), int(cascade.tree_starts[tree + 1])
    for n in range(first, last):
        index = int(cascade.node_features[n])
        sides = []
        for side, child in zip(("left", "right"), cascade.node_children[n].tolist(), strict=True):
            name, value = ("node", str(child)) if child > 0 else ("val", decimal(cascade.leaves[first + tree - child]))
            sides.append(f"<{side}_{name}>{value}</{side}_{name}>")
        yield f"          <_><feature>{feature_xml(features, index)}</feature>"
        yield f"            <threshold>{decimal(cascade.node_thresholds[n])}</threshold>"
        yield f"            {sides[0]}"
        yield f"            {sides[1]}</_>"


def feature_xml(features: HaarFeatures, index: int) -> str:
    """Return one feature's rectangles and whether it is tilted; both layouts write them the same way."""
    rects, weights = features.rects[index].tolist(), features.weights[index]
    parts = "".join(
        f"<_>{' '.join(map(str, rect))} {decimal(weight)}</_>"
        for rect, weight in zip(rects, weights, strict=True)
        if weight != 0
    )
    return f"<rects>{parts}</rects><tilted>{int(features.tilted[index])}</tilted>"


def decimal(value: object) -> str:
    """Format with nine significant digits: enough for every float32 to come back as it was."""
    return f"{float(value):.8e}"  # type: ignore[arg-type]
