"""The part that shows a detector's errors, as small images sorted by score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vj._types import Floats
from vj.evaluation.matching import FALSE, TRUE, overlaps
from vj.evaluation.measure import Evaluation
from vj.evaluation.sheets import tile
from vj.html.charts import number
from vj.html.page import Section, data_uri, text

SHOWN = 48
"""Most errors of a kind."""


@dataclass(frozen=True)
class Error:
    """One error.

    Parameters
    ----------
    path : Path
        The image.
    box : ndarray of float64, shape (4,)
    score : float
        Of the detection; of a missed object: of the best detection that overlaps it by half of what a match needs or
        more, nan if there is none.
    words : str
    """

    path: Path
    box: Floats
    score: float
    words: str


def false_positives(result: Evaluation, paths: Sequence[Path]) -> list[Error]:
    """Return the detections that found no object, the most confident first."""
    rows = [
        Error(paths[k], found.boxes[i], float(found.scores[i]), f"overlap {matches.overlap[i]:.2f}")
        for k, (found, matches) in enumerate(zip(result.found, result.matches, strict=True))
        for i in np.flatnonzero(matches.outcome == FALSE)
    ]
    return sorted(rows, key=lambda row: -row.score)


def misses(result: Evaluation, paths: Sequence[Path]) -> list[Error]:
    """Return the wanted objects that no detection found, first those without any, then by the score of the nearest."""
    rows = []
    for k, (found, truth) in enumerate(zip(result.found, result.truth, strict=True)):
        table = overlaps(truth.boxes, found.boxes)
        free = result.matches[k].outcome != TRUE
        for i in result.missed(k):
            near = (table[i] > 0.25) & free
            score = float(found.scores[near].max()) if near.any() else float("nan")
            size = f"{truth.boxes[i, 2]:.0f}×{truth.boxes[i, 3]:.0f} px"
            rows.append(Error(paths[k], truth.boxes[i], score, f"{size}, overlap {table[i].max(initial=0.0):.2f}"))
    return sorted(rows, key=lambda row: (not np.isnan(row.score), row.score, -row.box[3]))


def errors_section(result: Evaluation, paths: Sequence[Path], name: str = "errors") -> Section:
    """Show the errors of a detector.

    Parameters
    ----------
    result : Evaluation
    paths : sequence of Path
        Of the images, in the order of the evaluation.
    name : str
        Of the section.
    """
    wrong, missed = false_positives(result, paths), misses(result, paths)
    order = "first those that nothing overlaps, then by the score of the nearest detection"
    body = (
        f"<h3>False positives</h3>{_gallery(wrong, 'the most confident first')}"
        f"<h3>Missed objects</h3>{_gallery(missed, order, 'nearest ')}"
    )
    return Section(name, f"Errors: {result.name}", body)


def _gallery(errors: Sequence[Error], order: str, prefix: str = "") -> str:
    if not errors:
        return "<p>None.</p>"
    shown = errors[:SHOWN]
    which = f"all {len(errors):,}" if len(errors) == len(shown) else f"{len(shown)} of {len(errors):,}"
    return f'<p>{which}, {order}</p><ul class="gallery">{"".join(_item(one, prefix) for one in shown)}</ul>'


def _item(error: Error, prefix: str) -> str:
    score = "no detection" if np.isnan(error.score) else f"{prefix}score {number(error.score)}"
    name = text(error.path.name)
    source = data_uri(tile(error.path, error.box), quality=75)
    return (
        f'<li><figure><img alt="{name}: {text(score)}" src="{source}" width="112" height="112">'
        f"<figcaption><b>{text(score)}</b><br>{text(error.words)}<br>"
        f'<span class="name" title="{text(error.path)}">{name}</span></figcaption></figure></li>'
    )
