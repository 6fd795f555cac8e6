"""Tables of the benchmark of detectors as tiers."""

from __future__ import annotations

from typing import Any

from benchmarks import _runner


def table(figures: dict[str, Any]) -> str:
    """Markdown tables of a result file."""
    parts = [_calibration_table(figures["calibration"])]
    parts += [_escalation_table(figures["escalation"])]
    if "regions" in figures:
        parts.append(_regions_table(figures["regions"]))
    rows = [[name, f"{value:.1f} us"] for name, value in figures["overhead"].items()]
    parts.append(_runner.table(["overhead of the layer, for each image", "median"], rows))
    return "\n\n".join(parts)


def _calibration_table(figures: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{one['half_to_half']:.3f} ({one['half_to_half_perfect']:.3f})",
            f"{one['to_wider']:.3f} ({one['to_wider_perfect']:.3f})",
        ]
        for name, one in figures.items()
        if isinstance(one, dict)
    ]
    return _runner.table(
        ["calibration error (a perfect predictor's)", "fddb283, half to half", "fddb283 to wider_dev"], rows
    )


def _pair(one: dict[str, float]) -> str:
    return f"{100 * one['ap']:.1f} / {one['cost']:.2f}"


def _escalation_table(figures: dict[str, Any]) -> str:
    names = list(figures)
    rows = [
        [f"YuNet at {scale}"] + [_pair(figures[n]["single"][scale]) for n in names]
        for scale in ("1", "0.75", "0.5", "0.25")
    ]
    words = {
        "tuned": "1/2, then full where in doubt, threshold tuned on the other half",
        "least": "the same, the least cost on each half that loses .5",
        "curve": "the same, the least cost on all images that loses .5",
        "random": "1/2, then full at random, the least cost that loses .5",
    }
    for key, text in words.items():
        rows.append([text] + [_pair(figures[n][key]) if key in figures[n] else "" for n in names])
    return _runner.table(["AP / cost of full size", *names], rows)


def _regions_table(figures: dict[str, Any]) -> str:
    rows = [
        ["dlib's CNN, whole image", _pair(figures["dlib"]), ""],
        *([name, _pair(one), ""] for name, one in figures.items() if name.startswith(("ours", "yunet"))),
    ]
    words = {
        "verified": "ours, 14 stages, then dlib on regions: dlib decides",
        "all fused": "the same, both fused",
        "all fused, smaller": "the same, smaller regions",
        "doubtful fused": "the same, dlib asked only between 2 and 98 %",
    }
    own = figures["regions"]
    rows += [[text, _pair(own[k]), f"{own[k]['chips']:.1f}"] for k, text in words.items() if k in own]
    return _runner.table(["fddb283", "AP / cost of dlib", "regions an image"], rows)
