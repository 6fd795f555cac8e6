"""Parts that show windows: features on the mean object, and sheets of small images."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from vj._types import Gray
from vj.cascade.haar import HaarFeatures, corners_of
from vj.cascade.model import Cascade
from vj.html.page import Section, data_uri, text

STAGES, FEATURES = 4, 6
"""Stages whose first features are drawn, and how many of each."""

SHOWN = 60
"""Windows on a sheet."""


def features_section(cascade: Cascade, mean: Gray | None, what: str) -> Section:
    """Draw the first features of the first stages on the mean object.

    Parameters
    ----------
    cascade : Cascade
    mean : ndarray of uint8, shape (h, w), or None
        Stretched over the window; a plain grey if there is none.
    what : str
        What the mean is of; ends in a full stop.
    """
    background = np.full((1, 1), 150, dtype=np.uint8) if mean is None else mean
    width, height = cascade.window
    # One image for all drawings.
    shared = (
        '<svg class="hidden" aria-hidden="true"><defs><g id="mean"><image '
        f'width="{width}" height="{height}" preserveAspectRatio="none" href="{data_uri(background)}"/></g></defs></svg>'
    )
    nodes = cascade.tree_starts[cascade.stage_starts[: STAGES + 1]].tolist()
    rows = []
    for stage, (first, last) in enumerate(itertools.pairwise(nodes)):
        shown = range(first, min(last, first + FEATURES))
        drawn = "".join(_drawing(cascade, node, f"Feature {node - first + 1} of {last - first}") for node in shown)
        rows.append(f'<li><h3>Stage {stage + 1}, {last - first} features</h3><div class="row">{drawn}</div></li>')
    legend = (
        "Light parts are added, dark parts subtracted." if cascade.kind == "haar" else "The nine cells of each feature."
    )
    body = f'<p>{text(what)} {legend}</p>{shared}<ol class="features">{"".join(rows)}</ol>'
    return Section("features", "First features", body)


def _drawing(cascade: Cascade, node: int, label: str) -> str:
    width, height = cascade.window
    shapes = "".join(
        f'<polygon class="{kind}" points="{" ".join(f"{x},{y}" for x, y in corners)}"/>'
        for corners, kind in shapes_of(cascade, int(cascade.node_features[node]))
    )
    return (
        f'<svg role="img" aria-label="{text(label)}" viewBox="0 0 {width} {height}"><use href="#mean"/>{shapes}</svg>'
    )


def shapes_of(cascade: Cascade, index: int) -> list[tuple[list[tuple[int, int]], str]]:
    """Return the polygons of a feature, in pixels of the window, each with its kind: plus, minus or cell."""
    features = cascade.features
    if isinstance(features, HaarFeatures):
        return [
            (corners_of(rect, bool(features.tilted[index])), "plus" if weight > 0 else "minus")
            for rect, weight in zip(features.rects[index].tolist(), features.weights[index].tolist(), strict=True)
            if weight
        ]
    x, y, w, h = features.rects[index].tolist()
    cells = [(row, column) for row in range(3) for column in range(3)]
    return [
        (corners_of([x + column * w, y + row * h, w, h], False), "plus" if row == column == 1 else "cell")
        for row, column in cells
    ]


def sheet(windows: npt.NDArray[np.uint8], label: str) -> str:
    """Return a sheet of windows that wraps to the width of the page.

    Parameters
    ----------
    windows : ndarray of uint8, shape (n, h, w)
    label : str
        What they show.
    """
    shown = windows[:SHOWN]
    n, height, width = shown.shape
    if not n:
        return "<p>None.</p>"
    strip = data_uri(np.ascontiguousarray(shown.transpose(1, 0, 2).reshape(height, n * width)))
    # One background image for all tiles, shifted by whole windows.
    tiles = "".join(f'<i style="--k:{k}"></i>' for k in range(n))
    style = f"--strip:url({strip});--n:{n};--ratio:{width / height:.4f}"
    return f'<div class="sheet" role="img" aria-label="{text(label)}" style="{style}">{tiles}</div>'


def spread(windows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return windows spread evenly over all of them: neighbours are copies of one object."""
    return windows[:: max(1, -(-len(windows) // SHOWN))]
