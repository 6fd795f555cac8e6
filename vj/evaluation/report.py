"""Evaluations as tables and plain figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from vj.evaluation.bootstrap import interval
from vj.evaluation.curves import FALSE_POSITIVES, Curve
from vj.evaluation.measure import Evaluation, as_figures


def text_table(results: Sequence[Evaluation]) -> str:
    """Return what the terminal shows: a line for each detector, then how their boxes were aligned."""
    first = results[0]
    ignored = sum(int(t.ignored.sum()) for t in first.truth)
    wanted = "1 object" if first.curve.n_wanted == 1 else f"{first.curve.n_wanted} objects"
    lines = [
        f"{len(first.truth)} images, {wanted} to find, {ignored} ignored; AP, and objects found (%) with so many false "
        "positives (FP) in all images or per image",
    ]
    header = ["detector", "AP", *(f"{k} FP" for k in FALSE_POSITIVES), "0.1/image", "1/image", "ms/image"]
    header += ["weak/window", "features/window"]
    lines += _aligned([header, *(_cells(result) for result in results)])
    for result in results:
        low, high = interval(result, lambda curve: curve.average_precision)
        lines.append(f"{result.name}: 95 % interval of AP {100 * low:.1f}-{100 * high:.1f}, over resampled images")
    for result in results:
        if result.fddb is not None:
            for kind, scores in zip(("discrete", "continuous"), result.fddb, strict=True):
                cells = [f"{100 * scores.recall_at(k):.1f}" for k in FALSE_POSITIVES]
                lines.append(f"{result.name}, FDDB {kind} score in %: " + " ".join(cells))
    for result in results:
        a = result.alignment
        if (a.dx, a.dy, a.scale) != (0.0, 0.0, 1.0):
            lines.append(
                f"{result.name}: boxes moved by ({a.dx:+.2f}, {a.dy:+.2f}) of their size, scaled by {a.scale:.2f}"
            )
    return "\n".join(lines)


def csv_table(results: Sequence[Evaluation]) -> str:
    """Return the table as CSV: shares, not percentages."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "detector",
            "average_precision",
            *(f"recall_at_{k}" for k in FALSE_POSITIVES),
            *(f"recall_at_{rate}_per_image" for rate in as_figures(results[0])["recall_at_per_image"]),
            "ms_per_image",
            "weak_per_window",
            "features_per_window",
        ]
    )
    for result in results:
        row = as_figures(result)
        writer.writerow(
            [
                result.name,
                row["average_precision"],
                *row["recall_at"].values(),
                *row["recall_at_per_image"].values(),
                row["milliseconds_per_image"],
                row.get("weak_classifiers_per_window", ""),
                row.get("features_per_window", ""),
            ]
        )
    return out.getvalue()


def figures(results: Sequence[Evaluation]) -> dict[str, Any]:
    """Return everything measured, curves included, as plain values for JSON."""
    first = results[0]
    return {
        "images": len(first.truth),
        "objects": first.curve.n_wanted,
        "ignored": sum(int(t.ignored.sum()) for t in first.truth),
        "detectors": [as_figures(result) | {"curve": _points(result.curve)} for result in results],
    }


def _points(curve: Curve) -> dict[str, list[float]]:
    return {
        "score": [round(float(v), 6) for v in curve.scores],
        "true": [int(v) for v in curve.true],
        "false": [int(v) for v in curve.false],
    }


def _cells(result: Evaluation) -> list[str]:
    found = result.curve
    return [
        result.name,
        f"{100 * found.average_precision:.1f}",
        *(f"{100 * found.recall_at(k):.1f}" for k in FALSE_POSITIVES),
        *(f"{100 * found.recall_at(rate * found.n_images):.1f}" for rate in (0.1, 1.0)),
        f"{result.milliseconds:.1f}",
        *(["", ""] if result.cost is None else [f"{value:.2f}" for value in result.cost]),
    ]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
