"""Draw the charts of the main README from the result files: `python -m benchmarks.charts`.

Each is drawn twice, for pages in light and in dark colours. A file holds the figures it was drawn from, so that a test
can compare them with the result files.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks import _runner

THEMES = {"light": ("#1f2328", "#0072B2", "#9aa4ae"), "dark": ("#e6edf3", "#56B4E9", "#6e7681")}
"""Colours of text, of ours and of the peer's."""

_SPEED = ("640x480", 24, 1)
_REJECTION = ("frontalface", "frontalface_default", "frontalface_alt2")


def speed_data(folder: Path = _runner.RESULTS) -> dict[str, list[float]]:
    """Milliseconds of cv2 and of ours by cascade: 640x480, one thread, minimum size 24 px."""
    figures = _runner.read_result("speed", folder)["figures"]
    rows = {
        row["cascade"]: [round(row["cv2_ms"], 1), round(row["vj_ms"], 1)]
        for row in figures["detection"]
        if (row["size"], row["min_size"], row["threads"]) == _SPEED
    }
    return rows


def rejection_data(folder: Path = _runner.RESULTS) -> dict[str, list[float]]:
    """Per cent of the windows that are left after each stage, flat windows included, by cascade."""
    cascades = _runner.read_result("rejection", folder)["figures"]["cascades"]
    found = {}
    for name in _REJECTION:
        one = cascades[name]["opencv"]
        alive = [one["windows"], *(stage["passed"] for stage in one["stages"])]
        found[name] = [round(100 * n / one["windows"], 4) for n in alive]
    return found


def draw_speed(path: Path, data: dict[str, list[float]], theme: str) -> None:
    """Draw two bars for each cascade."""
    text, ours, peer = THEMES[theme]
    figure, axes = _figure(6.4, 0.35 + 0.62 * len(data), text)
    for k, (peer_ms, our_ms) in enumerate(data.values()):
        for offset, ms, color, label in ((-0.19, peer_ms, peer, "cv2"), (0.19, our_ms, ours, "vj")):
            axes.barh(k + offset, ms, 0.36, color=color, label=label if k == 0 else None)
            note = f"{ms:.0f} ms" if label == "cv2" else f"{ms:.0f} ms, {peer_ms / our_ms:.1f} times as fast"
            axes.annotate(
                note, (ms, k + offset), (4, 0), textcoords="offset points", va="center", color=text, fontsize=9
            )
    axes.set_yticks(range(len(data)), list(data))
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_xlim(0, 1.15 * max(peer_ms for peer_ms, _ in data.values()))
    axes.legend(frameon=False, labelcolor=text, loc="lower right")
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    _save(figure, path, data)


def draw_rejection(path: Path, data: dict[str, list[float]], theme: str) -> None:
    """Draw a line for each cascade, falling from stage to stage."""
    text, ours, peer = THEMES[theme]
    figure, axes = _figure(6.4, 2.9, text)
    for k, (name, alive) in enumerate(data.items()):
        style = {"color": ours, "lw": 2.2} if k == 0 else {"color": peer, "lw": 1.6, "ls": ("-", "--")[k - 1]}
        axes.plot(range(len(alive)), alive, marker=".", label=name, **style)
    axes.set(yscale="log", xlabel="stage", ylabel="windows left, %", xlim=(0, None))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.xaxis.label.set_color(text)
    axes.yaxis.label.set_color(text)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, labelcolor=text)
    _save(figure, path, data)


CHARTS = {"speed": (speed_data, draw_speed), "rejection": (rejection_data, draw_rejection)}


def drawn_from(path: Path) -> Any:
    """Return the figures that a chart was drawn from."""
    found = re.search(r"<dc:description>(.*?)</dc:description>", path.read_text(encoding="utf-8"), re.DOTALL)
    if found is None:
        raise ValueError(f"{path}: expected a chart that holds its figures")
    return json.loads(found[1])


def chart_path(name: str, theme: str, folder: Path = _runner.RESULTS) -> Path:
    """Where a chart lies."""
    return folder / f"chart-{name}-{theme}.svg"


def _figure(width: float, height: float, text: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("none")
    axes.tick_params(colors=text)
    for spine in axes.spines.values():
        spine.set_color(text)
    return figure, axes


def _save(figure: Any, path: Path, data: Any) -> None:
    import matplotlib as mpl

    # Text stays text, and the same figures give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem, "font.family": "sans-serif"}):
        figure.savefig(path, transparent=True, metadata={"Date": None, "Description": json.dumps(data)})


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.charts", description=__doc__.split("\n\n")[0]).parse_args(argv)
    for name, (data, draw) in CHARTS.items():
        for theme in THEMES:
            path = chart_path(name, theme)
            draw(path, data(), theme)
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
