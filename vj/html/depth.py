"""The part with maps of depths: how far the windows of an image get, and the way of each one chosen.

Of every cell of an image and every range of sizes, the window that gets deepest is embedded with all that was evaluated
on it, so that the script needs no pixels and computes nothing but sums of votes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vj._types import Gray
from vj.cascade.model import Cascade
from vj.detector import Detector, WindowMap
from vj.evaluation.inspection import deepest
from vj.evaluation.tracing import Place, Trace, deepest_in_cells, trace, window_pixels
from vj.html.charts import plain
from vj.html.page import Section, data_uri, packed, part, text
from vj.html.windows import shapes_of

IMAGES = 4
"""Most images with a map."""

SIDE, MAP_SIDE = 900, 240
"""Longer side of the embedded image and of a map, in pixels, at most."""

CELLS = 400
"""Cells of an image at most."""

NODES = 150_000
"""Most nodes evaluated on the windows embedded of one image, 0.8 MB; cells grow until that is enough."""


@dataclass(frozen=True, eq=False)
class Shown:
    """An image to show.

    Parameters
    ----------
    path : Path
    gray : ndarray of uint8, shape (h, w)
    """

    path: Path
    gray: Gray


def depth_section(detector: Detector, images: Iterable[Shown]) -> Section:
    """Show maps of depths.

    Parameters
    ----------
    detector : Detector
    images : iterable of Shown
        No more than `IMAGES` are taken; those smaller than the window are left out.
    """
    found: list[dict[str, Any]] = []
    used = 0
    cascade = detector.cascade.exact() if detector.exact else detector.cascade
    for shown in images:
        maps = list(detector.windows(shown.gray))
        if maps and len(found) < IMAGES:
            data, nodes = _image(cascade, shown, maps)
            found.append(data)
            used = max(used, nodes)
    if not found:
        return Section("depth", "Depth map", "<p>No image is as large as the window.</p>")
    data = {"cascade": _cascade(cascade, used), "images": found}
    intro = (
        "<p>How deep the windows centred at each place get: the brighter, the more stages they pass. Choose a place "
        "with the mouse or the arrow keys to see the deepest window there, and follow it through the cascade.</p>"
    )
    return Section("depth", "Depth map", intro + part("depth", data, _VIEW, "Depth map"), ("depth.js",))


def _image(cascade: Cascade, shown: Shown, maps: Sequence[WindowMap]) -> tuple[dict[str, Any], int]:
    """Return the data of one image, and how many nodes of the cascade they refer to."""
    import cv2

    gray = shown.gray
    height, width = gray.shape
    bands = _bands(maps)
    cells = CELLS
    while True:
        columns = max(1, round(np.sqrt(cells * width / height)))
        grid = columns, max(1, round(cells / columns))
        places = [deepest_in_cells(gray.shape, maps[first:last], grid) for first, last in bands]
        # Levels are counted from the first map of all.
        shifted = [
            [None if p is None else Place(p.level + first, p.row, p.column) for p in row]
            for (first, _), row in zip(bands, places, strict=True)
        ]
        wanted = {p for row in shifted for p in row if p is not None}
        if cells <= 25 or _most_nodes(cascade, maps, wanted) <= NODES:
            break
        cells //= 2
    traces = _traces(cascade, gray, maps, wanted)
    zoom = min(1.0, MAP_SIDE / max(height, width))
    small = min(1.0, SIDE / max(height, width))
    seen = cv2.resize(gray, None, fx=small, fy=small, interpolation=cv2.INTER_AREA) if small < 1 else gray
    order = {place: k for k, place in enumerate(traces)}
    data = {
        "name": shown.path.name,
        "size": [width, height],
        "uri": data_uri(np.asarray(seen, dtype=np.uint8), quality=82),
        "grid": list(grid),
        "bands": [
            {
                "label": _label(maps[first:last]) if k else f"all sizes, {_label(maps)}",
                "map": _map(gray.shape, maps[first:last], zoom),
                "cells": [-1 if place is None else order[place] for place in row],
            }
            for k, ((first, last), row) in enumerate(zip(bands, shifted, strict=True))
        ],
        "windows": [_window(one, maps[place.level], place) for place, one in traces.items()],
    }
    return data, max((int(one.nodes.max(initial=-1)) + 1 for one in traces.values()), default=0)


def _bands(maps: Sequence[WindowMap]) -> list[tuple[int, int]]:
    """Return ranges of maps: all of them, then those whose scales are within a factor of two."""
    octaves = np.floor(np.log2([one.scale for one in maps]) + 1e-6).astype(int)
    starts = [0, *(np.flatnonzero(np.diff(octaves)) + 1).tolist(), len(maps)]
    parts = list(itertools.pairwise(starts))
    return [(0, len(maps)), *(parts if len(parts) > 1 else [])]


def _label(maps: Sequence[WindowMap]) -> str:
    first, last = (round(one.window[0] * one.scale) for one in (maps[0], maps[-1]))
    return f"{first} to {last} px wide" if first != last else f"{first} px wide"


def _map(shape: tuple[int, ...], maps: Sequence[WindowMap], zoom: float) -> dict[str, Any]:
    depths = deepest(shape, maps, zoom)
    # 255 for a pixel without a window; 1 more than the depth, so that a flat window has 0.
    bytes_ = np.where(depths < -1, 255, np.minimum(depths + 1, 254))
    return {"size": [depths.shape[1], depths.shape[0]], "depths": packed(bytes_, "u1")}


def _most_nodes(cascade: Cascade, maps: Sequence[WindowMap], places: set[Place]) -> int:
    """Return how many nodes are evaluated on windows at most: all those of the stages that they reach."""
    ends = cascade.tree_starts[cascade.stage_starts[1:]]
    depths = [int(maps[place.level].depth[place.row, place.column]) for place in places]
    return sum(int(ends[min(depth, cascade.n_stages - 1)]) for depth in depths if depth >= 0)


def _traces(cascade: Cascade, gray: Gray, maps: Sequence[WindowMap], places: set[Place]) -> dict[Place, Trace]:
    found: dict[Place, Trace] = {}
    for level, one in enumerate(maps):
        here = sorted(place for place in places if place.level == level)
        if here:
            pixels = window_pixels(gray, one, [(place.row, place.column) for place in here])
            found |= {place: trace(cascade, window) for place, window in zip(here, pixels, strict=True)}
    return found


def _window(one: Trace, level: WindowMap, place: Place) -> dict[str, Any]:
    width, height = (round(side * level.scale, 1) for side in level.window)
    return {
        "box": [
            round(place.column * level.stride * level.scale, 1),
            round(place.row * level.stride * level.scale, 1),
            width,
            height,
        ],
        "depth": one.depth,
        "margin": round(one.margin, 4),
        "n": len(one.nodes),
        "values": packed(one.values, "<f4"),
        "left": packed(np.packbits(one.left, bitorder="little"), "u1"),
    }


def _cascade(cascade: Cascade, nodes: int) -> dict[str, Any]:
    """Return what the script has to know of a cascade: the trees whose nodes are below a number."""
    trees = int(np.searchsorted(cascade.tree_starts, nodes))
    soft = [] if cascade.soft is None else plain(cascade.soft.sums)
    nodes = int(cascade.tree_starts[trees])
    shapes = [
        [[kind[0], *(v for corner in corners for v in corner)] for corners, kind in one]
        for one in (shapes_of(cascade, int(k)) for k in cascade.node_features[:nodes])
    ]
    return {
        "kind": cascade.kind,
        "window": list(cascade.window),
        "stage_starts": cascade.stage_starts.tolist(),
        "limits": plain(cascade.stage_limits),
        "tree_starts": cascade.tree_starts[: trees + 1].tolist(),
        "children": cascade.node_children[:nodes].tolist(),
        "thresholds": plain(cascade.node_thresholds[:nodes]),
        "leaves": plain(cascade.leaves[: nodes + trees]),
        "shapes": shapes,
        "soft": {} if cascade.soft is None else dict(zip(cascade.soft.trees.tolist(), soft, strict=True)),
    }


_VIEW = f"""
<div class="controls">
<label>image <select class="which"></select></label>
<label>size of windows <select class="band"></select></label>
<label class="check"><input type="checkbox" class="overlay" checked> show depths</label>
</div>
<div class="look">
<div class="map">
<div class="canvas" tabindex="0" role="application" aria-roledescription="map"
 aria-label="{text("Map of depths: arrow keys choose a place, Page Up and Page Down the size of windows")}">
<canvas></canvas></div>
<div class="scale" aria-hidden="true"><span>0</span>
<canvas width="256" height="1"></canvas><span class="most"></span></div>
</div>
<div class="way">
<p class="told" aria-live="polite"></p>
<div class="close"><canvas role="img" aria-label="The window with the feature"></canvas>
<div><label for="depth-step">weak classifier <output></output></label>
<input type="range" class="step" id="depth-step" min="0" step="1">
<p class="evaluated" aria-live="polite"></p></div></div>
<div class="chart sums"><h3>Sum minus the stage limit</h3><div class="plot"></div></div>
</div>
</div>
"""
