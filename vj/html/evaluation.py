"""The page of an evaluation on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vj.detector import Detector
from vj.errors import InputError
from vj.evaluation.errors import false_positives, misses
from vj.evaluation.measure import Evaluation
from vj.evaluation.rejection import RejectionProfile
from vj.html.charts import number
from vj.html.cost import cost_section
from vj.html.depth import IMAGES, Shown, depth_section
from vj.html.errors import errors_section
from vj.html.operating import Search, operating_section, roc_section
from vj.html.page import Page, Section, table
from vj.images import read_gray


@dataclass(frozen=True, eq=False)
class Measured:
    """One detector, measured.

    Parameters
    ----------
    result : Evaluation
    paths : sequence of Path
        Of the images, in the order of the evaluation.
    searches : sequence of Search
        For a cascade: what its settings buy.
    profile : RejectionProfile, optional
        For a cascade: what its stages reject and cost.
    detector : Detector, optional
        For a cascade: with the settings that were measured.
    """

    result: Evaluation
    paths: Sequence[Path]
    searches: Sequence[Search] = field(default_factory=tuple)
    profile: RejectionProfile | None = None
    detector: Detector | None = None


def evaluation_page(measured: Sequence[Measured], dataset: str) -> Page:
    """Return the page of an evaluation.

    Parameters
    ----------
    measured : sequence of Measured
        At least one, on the same images.
    dataset : str
        Path of the labels.
    """
    first = measured[0].result.curve
    sections = [_table(measured), roc_section([one.result for one in measured])]
    for k, one in enumerate(measured):
        sections += measured_sections(one, "" if len(measured) == 1 else f"-{k + 1}")
    facts = [("images", f"{first.n_images:,}"), ("objects", f"{first.n_wanted:,}")]
    if len(measured) == 1:
        facts += [("average precision", f"{100 * first.average_precision:.1f}")]
        facts += [("time per image", f"{measured[0].result.milliseconds:.1f} ms")]
    # The maps, the largest part of a page, are those of the first cascade.
    cascade = next((one for one in measured if one.detector is not None), None)
    if cascade is not None and cascade.detector is not None:
        maps = depth_section(cascade.detector, worst(cascade))
        title = maps.title if len(measured) == 1 else f"{maps.title}: {cascade.result.name}"
        sections.append(replace(maps, title=title))
    return Page(f"Evaluation on {Path(dataset).name}", sections, facts, notes=[f"labels: {dataset}"])


def measured_sections(one: Measured, suffix: str = "") -> list[Section]:
    """Return the parts about one detector; `suffix` ends the names of their anchors."""
    sections = []
    if one.searches:
        sections.append(operating_section(one.searches, one.result, f"operating{suffix}"))
    sections.append(errors_section(one.result, one.paths, f"errors{suffix}"))
    if one.profile is not None:
        cost = cost_section(one.profile)
        title = f"{cost.title}: {one.result.name}" if suffix else cost.title
        sections.append(replace(cost, name=f"cost{suffix}", title=title))
    return sections


def worst(one: Measured) -> list[Shown]:
    """Return the images of the worst errors: in turn the most confident false positives and the largest misses."""
    wrong = [error.path for error in false_positives(one.result, one.paths)]
    missed = [error.path for error in sorted(misses(one.result, one.paths), key=lambda error: -error.box[3])]
    longest = max(len(wrong), len(missed))
    turns = [errors[k] for k in range(longest) for errors in (wrong, missed) if k < len(errors)]
    shown: list[Shown] = []
    for path in dict.fromkeys([*turns, *one.paths]):
        if len(shown) == IMAGES:
            break
        try:
            shown.append(Shown(path, read_gray(path)))
        except InputError:
            continue
    return shown


def _table(measured: Sequence[Measured]) -> Section:
    head = ["detector", "average precision", "found at 0.1 false positives per image", "at 1 per image"]
    head += ["found in all", "false positives in all", "ms per image", "features per window"]
    rows = []
    for one in measured:
        result, curve = one.result, one.result.curve
        true, false = (int(v[-1]) if len(v) else 0 for v in (curve.true, curve.false))
        rows.append(
            [
                result.name,
                f"{100 * curve.average_precision:.1f}",
                *(f"{100 * curve.recall_at(rate * curve.n_images):.1f} %" for rate in (0.1, 1.0)),
                f"{true:,} of {curve.n_wanted:,}",
                f"{false:,}",
                f"{result.milliseconds:.1f}",
                "" if result.cost is None else number(result.cost.features),
            ]
        )
    return Section("results", "Results", table(head, rows, "Results"))
