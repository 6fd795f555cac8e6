"""The part that shows a detector's errors, as small images sorted by score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vj.evaluation.errors import Error, false_positives, misses
from vj.evaluation.measure import Evaluation
from vj.evaluation.sheets import tile
from vj.html.charts import number
from vj.html.page import Section, data_uri, text

SHOWN = 48
"""Most errors of a kind."""


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
        f"<h3>Missed objects</h3>{_gallery(missed, order, missed=True)}"
    )
    return Section(name, f"Errors: {result.name}", body)


def _gallery(errors: Sequence[Error], order: str, *, missed: bool = False) -> str:
    if not errors:
        return "<p>None.</p>"
    shown = errors[:SHOWN]
    which = f"all {len(errors):,}" if len(errors) == len(shown) else f"{len(shown)} of {len(errors):,}"
    return f'<p>{which}, {order}</p><ul class="gallery">{"".join(_item(one, missed) for one in shown)}</ul>'


def _item(error: Error, missed: bool) -> str:
    score = f"{'nearest ' * missed}score {number(error.score)}"
    if np.isnan(error.score):
        score = "no detection"
    words = f"{error.box[2]:.0f}×{error.box[3]:.0f} px, " * missed + f"overlap {error.overlap:.2f}"
    name = text(error.path.name)
    source = data_uri(tile(error.path, error.box), quality=75)
    return (
        f'<li><figure><img alt="{name}: {text(score)}" src="{source}" width="112" height="112">'
        f"<figcaption><b>{text(score)}</b><br>{text(words)}<br>"
        f'<span class="name" title="{text(error.path)}">{name}</span></figcaption></figure></li>'
    )
