"""The part that shows what each stage of a cascade sees, rejects and costs on images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vj.evaluation.rejection import RejectionProfile
from vj.html.charts import charts, line_chart, number, percent
from vj.html.page import Section, table


def cost_section(profile: RejectionProfile, milliseconds: Sequence[float] | None = None) -> Section:
    """Show a profile stage by stage.

    Parameters
    ----------
    profile : RejectionProfile
    milliseconds : sequence of float, optional
        What each stage adds to the time of an image.
    """
    n = len(profile.entered)
    numbers = list(range(1, n + 1))
    arriving = profile.entered / max(profile.windows, 1)
    features = profile.features / max(profile.windows, 1)
    drawn = charts(
        [
            line_chart("Windows that arrive", ("stage", numbers), {"arriving": 100 * arriving}, unit=" %", log=True),
            line_chart(
                "Rejected of those that arrive",
                ("stage", numbers),
                {"rejected": 100 * profile.rejection_rates},
                unit=" %",
                span=(0, 100),
            ),
            line_chart(
                "Features per window",
                ("stage", numbers),
                {"in each stage": features, "up to here": np.cumsum(features)},
                span=(0, None),
            ),
        ]
    )
    head = [
        "stage",
        "weak classifiers",
        "windows in",
        "arriving",
        "rejected",
        "of those arriving",
        "features per window",
    ]
    rows = []
    for k in range(n):
        rate = profile.rejection_rates[k]
        rows.append(
            [
                f"{k + 1}",
                f"{profile.stage_sizes[k]}",
                f"{profile.entered[k]:,}",
                percent(float(arriving[k])),
                f"{profile.rejected[k]:,}",
                percent(float(rate)) if np.isfinite(rate) else "",
                number(float(features[k])),
            ]
        )
    if milliseconds is not None:
        head.append("ms per image")
        for row, value in zip(rows, milliseconds, strict=True):
            row.append(f"{value:.2f}")
    intro = (
        f"<p>{profile.windows:,} windows, {percent(profile.flat / max(profile.windows, 1))} of them too flat to enter. "
        f"{profile.features_per_window:.2f} features and {profile.weak_classifiers_per_window:.2f} weak classifiers "
        f"per window; {int(profile.passed[-1]):,} windows pass all stages.</p>"
    )
    return Section("cost", "Cost per window", f"{intro}{drawn}{table(head, rows, 'Cost per window')}")
