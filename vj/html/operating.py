"""The part that shows recall against false positives, with controls for the operating point and its command line."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vj.detector import Detector
from vj.evaluation.curves import Curve
from vj.evaluation.measure import Evaluation
from vj.evaluation.operating import OperatingCurve, Threshold, thinned
from vj.html.charts import plain
from vj.html.page import Section, part, text

OPTIONS = {"score": "--min-score", "probability": "--threshold"}
"""The option of ``vj-detect`` for each kind of threshold."""

POINTS = 400
"""Most points of a curve: each is exact, others between them are left out."""


@dataclass(frozen=True)
class Search:
    """A cascade with one way of searching images, measured.

    Parameters
    ----------
    detector : Detector
    cascade : str
        How a command line names the cascade.
    curves : sequence of OperatingCurve
    """

    detector: Detector
    cascade: str
    curves: Sequence[OperatingCurve]

    def command(self, min_neighbors: int, threshold: Threshold | None) -> str:
        """Return the command line that detects with these settings; without a threshold, whatever the score."""
        before, after = self.parts(min_neighbors)
        return f"{before} {OPTIONS[threshold.kind]} {threshold.value}{after}" if threshold else f"{before}{after}"

    def parts(self, min_neighbors: int) -> tuple[str, str]:
        """Return the command line up to the threshold, and what follows it."""
        one = self.detector
        words = ["vj-detect", "--cascade", self.cascade, "--min-neighbors", str(min_neighbors)]
        after = ["--scale-factor", f"{one.scale_factor!r}"] if one.scale_factor != 1.1 else []
        for option, size in (("--min-size", one.min_size), ("--max-size", one.max_size)):
            if isinstance(size, tuple) and any(size):
                after += [option, f"{size[0]}x{size[1]}"]
        after += ["--stride", str(one.stride)] if one.stride else []
        after += ["--suppression", f"{one.suppression!r}"] if one.suppression is not None else []
        return shlex.join(words), "".join(f" {word}" for word in after) + " IMAGES"


def operating_section(searches: Sequence[Search], result: Evaluation, name: str = "operating") -> Section:
    """Show the operating points of a cascade.

    Parameters
    ----------
    searches : sequence of Search
        At least one.
    result : Evaluation
        Of the same cascade on the same images; says how many objects and images there are.
    name : str
        Of the section.
    """
    data = {
        "wanted": result.curve.n_wanted,
        "images": result.curve.n_images,
        "options": OPTIONS,
        "searches": [_search(one) for one in searches],
    }
    a = result.alignment
    moved = (
        f"<p>Before they were compared, all boxes were moved by ({a.dx:+.2f}, {a.dy:+.2f}) of their size and scaled by "
        f"{a.scale:.2f}; the command's boxes are not.</p>"
        if (a.dx, a.dy, a.scale) != (0.0, 0.0, 1.0)
        else ""
    )
    intro = (
        f"<p>{result.curve.n_wanted:,} objects in {result.curve.n_images:,} images, average precision "
        f"{100 * result.curve.average_precision:.1f}. Move the controls to choose what a detection has to be; the "
        f"command below finds exactly what the figures say.</p>{moved}"
    )
    body = intro + part("operating", data, _CONTROLS.replace("$", text(name)), "Operating point")
    return Section(name, f"Operating point: {result.name}", body, ("operating.js",))


def _search(one: Search) -> dict[str, Any]:
    return {
        "label": f"{one.detector.scale_factor:g}, {_rule(one.detector)}",
        # Where the controls begin: as vj-detect, or with every group.
        "usual": 3 if one.detector.suppression is None else 0,
        "curves": [_curve(one, each) for each in one.curves],
    }


def _rule(detector: Detector) -> str:
    if detector.suppression is None:
        return "OpenCV's grouping"
    return f"suppression {detector.suppression:g}"


def _curve(search: Search, one: OperatingCurve) -> dict[str, Any]:
    points = thinned(one.useful, POINTS)
    thresholds = [one.threshold(k) for k in points.tolist()]
    return {
        "min_neighbors": one.min_neighbors,
        "milliseconds": round(one.milliseconds, 3),
        "kind": ["" if one is None else one.kind for one in thresholds],
        "threshold": ["" if one is None else one.value for one in thresholds],
        "lowest": plain(one.curve.scores[points]),
        "true": [int(v) for v in one.curve.true[points]],
        "false": [int(v) for v in one.curve.false[points]],
        "command": search.parts(one.min_neighbors),
    }


def roc_section(results: Sequence[Evaluation]) -> Section:
    """Show recall against false positives, and precision against recall, of all detectors."""
    data = {
        "images": results[0].curve.n_images,
        "detectors": [{"name": one.name, **_points(one.curve)} for one in results],
    }
    body = part(
        "roc",
        data,
        '<div class="charts"><div><h3>Recall against false positives</h3><div class="plot"></div></div>'
        '<div><h3>Precision against recall</h3><div class="plot"></div></div></div>',
        "Curves",
    )
    return Section("curves", "Curves", body, ("operating.js",))


def _points(curve: Curve) -> dict[str, Any]:
    points = thinned(np.flatnonzero(np.diff(curve.true, prepend=0.0) > 0), POINTS)
    return {
        "recall": plain(100 * curve.recall[points]),
        "precision": plain(100 * curve.precision[points]),
        "false": [int(v) for v in curve.false[points]],
    }


_CONTROLS = """
<div class="plot" role="img" aria-label="Recall against false positives per image; the controls below choose a point">
</div>
<div class="controls">
<label class="search" for="$-search">scale factor, groups <select id="$-search"></select></label>
<label for="$-n">min_neighbors <output></output><input type="range" id="$-n" min="0" step="1"></label>
<label for="$-t">threshold <output></output><input type="range" id="$-t" min="0" step="1"></label>
</div>
<dl class="facts" aria-live="polite">
<div><dt>recall</dt><dd data-is="recall"></dd></div>
<div><dt>false positives</dt><dd data-is="false"></dd></div>
<div><dt>precision</dt><dd data-is="precision"></dd></div>
<div><dt>time per image</dt><dd data-is="time"></dd></div>
</dl>
<div class="command"><code tabindex="0" aria-label="Command line"></code>
<button type="button">Copy</button></div>
"""
