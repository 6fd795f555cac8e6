"""The page of one cascade: what it is made of, what it rejects and costs, and how deep windows get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vj._types import Gray
from vj.detector import Detector
from vj.evaluation.rejection import RejectionProfile
from vj.html.charts import line_chart
from vj.html.cost import cost_section
from vj.html.depth import Shown, depth_section
from vj.html.page import Page, Section
from vj.html.windows import features_section


def inspection_page(
    detector: Detector,
    described: dict[str, Any],
    mean: tuple[Gray | None, int],
    images: Sequence[Shown] = (),
    costs: tuple[RejectionProfile, Sequence[float]] | None = None,
) -> Page:
    """Return the page of a cascade.

    Parameters
    ----------
    detector : Detector
    described : dict
        What `vj.evaluation.inspection.describe` says of it.
    mean : (ndarray of uint8 or None, int)
        What `vj.evaluation.inspection.mean_object` returned.
    images : sequence of Shown
    costs : (RejectionProfile, sequence of float), optional
        Over the images, and what each stage adds to the milliseconds of an image.
    """
    cascade = detector.cascade
    sizes = described["weak_per_stage"]
    drawn = line_chart("Weak classifiers in each stage", ("stage", list(range(1, len(sizes) + 1))), {"weak": sizes})
    what = f"On the mean of {mean[1]} objects found in the images." if mean[1] else "The first ones of each stage."
    sections = [Section("stages", "Stages", drawn), features_section(cascade, mean[0], what)]
    if costs is not None:
        sections.append(cost_section(*costs))
    if images:
        sections.append(depth_section(detector, images))
    facts = [
        ("kind", described["kind"].upper()),
        ("window", "{}×{}".format(*described["window"])),
        ("stages", f"{described['stages']}"),
        ("weak classifiers", f"{described['weak_classifiers']:,}"),
        ("features", f"{described['features']:,}"),
    ]
    notes = [f"{key}: {' '.join(str(value).split())}" for key, value in described["provenance"].items()]
    return Page(f"Cascade: {described['name']}", sections, facts, notes=notes)
