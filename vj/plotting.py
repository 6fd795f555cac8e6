"""Plots: what cascades reject and cost, how detectors compare, and a look inside one cascade.

The one module that imports matplotlib. Every function writes one image file, whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from vj._files import replacing
from vj._types import Gray
from vj.cascade.haar import HaarFeatures, corners_of
from vj.cascade.model import Cascade
from vj.detector import WindowMap
from vj.errors import InputError
from vj.evaluation.curves import Curve
from vj.evaluation.inspection import deepest
from vj.evaluation.rejection import RejectionProfile
from vj.tiers.calibration import Reliability
from vj.tiers.curves import DeferralCurves

# Okabe and Ito's palette, told apart by colour-blind eyes too; yellow left out, it vanishes on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_FEATURES_IN_A_ROW = 6


def plot_rejection(path: str | os.PathLike[str], profiles: Mapping[str, RejectionProfile]) -> None:
    """Plot, for cascades on the same images, how fast they reject and what that costs.

    Parameters
    ----------
    path : str or path
        File to write; its ending names the format.
    profiles : mapping of str to RejectionProfile
        By the cascade's name.
    """
    figure = Figure(figsize=(12.5, 4.2), layout="constrained")
    alive, stages, cost = figure.subplots(1, 3)
    for k, (name, profile) in enumerate(profiles.items()):
        style: dict[str, Any] = {"color": _color(k), "marker": ".", "lw": 1.5, "label": name}
        share = np.concatenate([[profile.entered[0]], profile.passed]) / profile.windows
        drawn = share > 0
        weak = np.concatenate([[0], np.cumsum(profile.stage_sizes)])
        alive.plot(weak[drawn], 100 * share[drawn], **style)
        numbers = np.arange(1, len(profile.entered) + 1)
        stages.plot(numbers, 100 * profile.rejection_rates, **style)
        cost.plot(numbers, np.cumsum(profile.features) / profile.windows, **style)
    alive.set(yscale="log", xlabel="weak classifiers up to here", ylabel="windows still alive, %")
    alive.yaxis.set_major_formatter("{x:g}")
    alive.set_xscale("symlog", linthresh=10)
    alive.set_xticks([0, 3, 10, 100, 1000], ["0", "3", "10", "100", "1000"])
    alive.minorticks_off()
    alive.set_xlim(0, None)
    alive.set_title("How fast windows are rejected")
    stages.set(xlabel="stage", ylabel="rejected of those entering, %", ylim=(0, 100), xlim=(0, None))
    stages.set_title("What each stage rejects")
    cost.set(xlabel="stage", ylabel="features per window, up to here", ylim=(0, None), xlim=(0, None))
    cost.set_title("What that costs")
    for axes in (stages, cost):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (alive, stages, cost):
        _tidy(axes)
    stages.legend(frameon=False)
    _save(figure, path)


def plot_curves(path: str | os.PathLike[str], curves: Mapping[str, Curve]) -> None:
    """Plot recall against false positives, and precision against recall.

    Parameters
    ----------
    path : str or path
        File to write; its ending names the format.
    curves : mapping of str to Curve
        By the detector's name, on the same images.
    """
    rows = -(-len(curves) // 2)
    figure = Figure(figsize=(10.5, 4.2 + 0.25 * rows), layout="constrained")
    roc, pr = figure.subplots(1, 2)
    most = min(1000.0, max([10.0, *(float(c.false[-1]) for c in curves.values() if len(c.false))]))
    for k, (name, curve) in enumerate(curves.items()):
        label = f"{name} (AP {100 * curve.average_precision:.1f})"
        # Dashed where the colours begin again.
        style = {"color": _color(k), "lw": 1.5, "ls": "-" if k < len(_COLORS) else "--"}
        false = np.concatenate([[0.0], curve.false, [most]])
        recall = 100 * np.concatenate([[0.0], curve.recall, [curve.recall[-1] if len(curve.recall) else 0.0]])
        roc.step(false, recall, where="post", label=label, **style)
        pr.plot(100 * curve.recall, 100 * curve.precision, **style)
    roc.set_xscale("symlog", linthresh=10)
    roc.set(xlabel="false positives in the whole set", ylabel="faces found, %", ylim=(0, 100), xlim=(0, most))
    ticks = [t for t in (0, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if t <= most]
    roc.set_xticks(ticks, [str(t) for t in ticks])
    roc.minorticks_off()
    roc.set_title("Recall against false positives")
    pr.set(xlabel="faces found, %", ylabel="detections that are faces, %", xlim=(0, 100), ylim=(0, 101))
    pr.set_title("Precision against recall")
    for axes in (roc, pr):
        _tidy(axes)
    # Below the axes, where names of any length have room.
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    _save(figure, path)


def plot_features(
    path: str | os.PathLike[str], cascade: Cascade, background: Gray | None = None, n_stages: int = 3
) -> None:
    """Draw the first features of the first stages, a row for each stage, in the order in which they are evaluated.

    Light parts are added, dark parts subtracted. For an LBP feature the nine cells are outlined.

    Parameters
    ----------
    path : str or path
        File to write; its ending names the format.
    cascade : Cascade
    background : ndarray of uint8, shape (h, w), optional
        What to draw on, stretched over the window: the mean of the objects that the cascade finds.
    n_stages : int
        How many stages; at most as many as there are.
    """
    rows = min(n_stages, cascade.n_stages)
    if rows < 1:
        raise InputError(f"expected at least one stage to draw, got {n_stages}")
    nodes = cascade.tree_starts[cascade.stage_starts[: rows + 1]]
    columns = min(_FEATURES_IN_A_ROW, int(np.diff(nodes).max()))
    width, height = cascade.window
    # All on one pair of axes, 0.12 s: a pair for each feature takes 0.6 s, felt at the end of a short training.
    gap, head = 0.05 * width, 0.16 * width
    across, down = columns * (width + gap) + gap, rows * (height + head + gap)
    figure = Figure(figsize=(1.9 * columns, 1.9 * columns * down / across))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for stage in range(rows):
        first, last = int(nodes[stage]), int(nodes[stage + 1])
        for k in range(min(columns, last - first)):
            left, top = gap + k * (width + gap), head + stage * (height + head + gap)
            _draw_background(axes, cascade, background, (left, top))
            _draw_feature(axes, cascade, int(cascade.node_features[first + k]), (left, top))
            text = f"stage {stage + 1}: {k + 1} of {last - first}"
            axes.text(left + width / 2, top - 0.3 * head, text, ha="center", fontsize=8)
    axes.set(xlim=(0, across), ylim=(down, 0))
    _save(figure, path)


def plot_depth(path: str | os.PathLike[str], gray: Gray, maps: Sequence[WindowMap], n_stages: int) -> None:
    """Show how deep the windows of an image get: over the image, and at four of its scales.

    One of the four is the scale at which most windows pass.

    Parameters
    ----------
    path : str or path
        File to write; its ending names the format.
    gray : ndarray of uint8, shape (h, w)
    maps : sequence of WindowMap
        Of all scales, see `vj.Detector.windows`.
    n_stages : int
        Stages of the cascade.
    """
    if not maps:
        raise InputError("expected an image of at least the size of the window, got a smaller one")
    height, width = gray.shape
    # The largest windows leave a handful of positions and nothing to see.
    large_enough = [one for one in maps if one.depth.size >= 400] or list(maps)
    picked = {round(k * (len(large_enough) - 1) / 3) for k in range(4)}
    best = max(range(len(large_enough)), key=lambda k: int((large_enough[k].depth == n_stages).sum()))
    if (large_enough[best].depth == n_stages).any():
        # The scale at which most windows pass takes the place of the one nearest to it.
        picked = picked - {min(picked, key=lambda k: abs(k - best))} | {best}
    shown = [large_enough[k] for k in sorted(picked)]
    figure = Figure(figsize=(11, 5.2 * min(1.6, max(0.6, height / width))), layout="constrained")
    grid = figure.add_gridspec(2, 4)
    large = figure.add_subplot(grid[:, :2])
    large.imshow(gray, cmap="gray", vmin=0, vmax=255)
    depths = deepest(gray.shape, maps)
    # The deeper the more opaque: what dies early leaves the image to be seen.
    opacity = np.clip(0.15 + 0.75 * depths / n_stages, 0.0, 0.9) * (depths > 0)
    large.imshow(np.maximum(depths, 0), cmap="inferno", alpha=opacity, vmin=0, vmax=n_stages)
    large.set_title("Deepest window centred on each pixel, all scales", fontsize=10)
    for k, one in enumerate(shown):
        axes = figure.add_subplot(grid[k // 2, 2 + k % 2])
        side = round(one.window[0] * one.scale)
        axes.imshow(np.maximum(one.depth, 0), cmap="inferno", vmin=0, vmax=n_stages, interpolation="nearest")
        passed = int((one.depth == n_stages).sum())
        axes.set_title(f"{side} px: {one.depth.size:,} windows, {passed} pass", fontsize=8)
        axes.set_axis_off()
    large.set_axis_off()
    scale = ScalarMappable(Normalize(0, n_stages), "inferno")
    bar = figure.colorbar(scale, ax=large, label=f"stages passed (of {n_stages})", shrink=0.8, location="left")
    bar.locator = MaxNLocator(integer=True)
    _save(figure, path)


def plot_deferral(path: str | os.PathLike[str], curves: DeferralCurves) -> None:
    """Plot accuracy against mean cost: the policies, Chow's rule, the oracle, random deferral, every tier alone.

    Parameters
    ----------
    path : str or path
        File to write; its ending names the format.
    curves : DeferralCurves
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    styles = {"random": ":", "oracle of two tiers": "--"}
    for k, (name, (cost, accuracy)) in enumerate(curves.lines.items()):
        style: dict[str, Any] = {"color": _color(k), "lw": 1.5, "ls": styles.get(name, "-"), "label": name}
        axes.plot(cost, 100 * accuracy, marker="." if name == "policy" else None, **style)
    for name, (right, price) in curves.singles.items():
        axes.plot([price], [100 * right], "k^", ms=7)
        axes.annotate(name, (price, 100 * right), (6, -11), textcoords="offset points", fontsize=8)
    axes.set(xlabel="mean cost of a query", ylabel="right answers, %", xlim=(0, None))
    axes.set_title(f"Accuracy against cost, {curves.rows_measured:,} held-out rows")
    axes.margins(x=0.08)
    _tidy(axes)
    axes.legend(frameon=False, loc="lower right")
    _save(figure, path)


def plot_reliability(path: str | os.PathLike[str], found: Mapping[str, Reliability]) -> None:
    """Plot how often answers were right against the probability that was stated, with the counts below.

    Parameters
    ----------
    path : str or path
        File to write; its ending names the format.
    found : mapping of str to Reliability
        By name, such as before and after calibration.
    """
    figure = Figure(figsize=(5.6, 6.2), layout="constrained")
    top, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    top.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--", label="perfect")
    for k, (name, one) in enumerate(found.items()):
        top.plot(one.probability, one.frequency, color=_color(k), marker="o", ms=4, lw=1.5, label=name)
        below.plot(one.probability, one.counts, color=_color(k), marker="o", ms=4, lw=1.5)
    top.set(ylabel="share that was right", xlim=(0, 1), ylim=(0, 1))
    top.set_title("Reliability")
    below.set(xlabel="stated probability", ylabel="answers", yscale="log")
    for axes in (top, below):
        _tidy(axes)
    top.legend(frameon=False, loc="upper left")
    _save(figure, path)


def plot_stages(
    path: str | os.PathLike[str],
    hit_rates: Sequence[float],
    false_alarm_rates: Sequence[float],
    weak_per_window: Sequence[float],
) -> None:
    """Plot the results of the stages of a training run.

    Parameters
    ----------
    path : str or path
        File to write; its ending names the format.
    hit_rates : sequence of float
        Share of the held-out objects that each stage kept.
    false_alarm_rates : sequence of float
        Share of its negatives that each stage let through.
    weak_per_window : sequence of float
        Weak classifiers that a background window costs, up to and including each stage.
    """
    # Fixed margins: a constrained layout takes 0.4 s more, which is felt at the end of a short training.
    figure = Figure(figsize=(12.5, 3.8))
    hits, alarms, cost = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.14, top=0.91, wspace=0.28)
    stages = np.arange(1, len(hit_rates) + 1)
    style: dict[str, Any] = {"color": _color(0), "marker": ".", "lw": 1.5}
    hits.plot(stages, 100 * np.asarray(hit_rates), label="each stage", **style)
    hits.plot(stages, 100 * np.cumprod(hit_rates), label="together", **{**style, "color": _color(1)})
    hits.set(xlabel="stage", ylabel="held-out objects kept, %")
    hits.set_title("Hit rate")
    hits.legend(frameon=False)
    alarms.plot(stages, 100 * np.asarray(false_alarm_rates), label="each stage", **style)
    alarms.plot(stages, 100 * np.cumprod(false_alarm_rates), label="together", **{**style, "color": _color(1)})
    alarms.set(xlabel="stage", ylabel="negatives let through, %", yscale="log")
    alarms.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if np.prod(false_alarm_rates) > 1e-3 else (1.0,)))
    alarms.yaxis.set_major_formatter("{x:g}")
    alarms.yaxis.set_minor_formatter(NullFormatter())
    alarms.set_title("False alarm rate")
    cost.plot(stages, weak_per_window, **style)
    cost.set(xlabel="stage", ylabel="weak classifiers per window, up to here", ylim=(0, None))
    cost.set_title("Cost of a background window")
    for axes in (hits, alarms, cost):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _tidy(axes)
    _save(figure, path)


def _draw_background(axes: Axes, cascade: Cascade, background: Gray | None, place: tuple[float, float]) -> None:
    width, height = cascade.window
    x, y = place
    where = (x, x + width, y + height, y)
    if background is None:
        axes.imshow(np.full((height, width), 150), cmap="gray", vmin=0, vmax=255, extent=where)
    else:
        axes.imshow(background, cmap="gray", extent=where, interpolation="bilinear")


def _draw_feature(axes: Axes, cascade: Cascade, index: int, place: tuple[float, float]) -> None:
    features = cascade.features
    style: dict[str, Any] = {"edgecolor": "#D55E00", "lw": 1}
    if isinstance(features, HaarFeatures):
        for rect, weight in zip(features.rects[index].tolist(), features.weights[index].tolist(), strict=True):
            if weight:
                corners = np.array(corners_of(rect, bool(features.tilted[index]))) + place
                axes.add_patch(Polygon(corners, facecolor="white" if weight > 0 else "black", alpha=0.62, **style))
        return
    x, y, w, h = features.rects[index].tolist()
    for row in range(3):
        for column in range(3):
            corners = np.array(corners_of([x + column * w, y + row * h, w, h], False)) + place
            color = "#D55E00" if row == column == 1 else "none"
            axes.add_patch(Polygon(corners, facecolor=color, alpha=0.6, **style))


def _color(k: int) -> str:
    return _COLORS[k % len(_COLORS)]


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    target = Path(path)
    known = figure.canvas.get_supported_filetypes()
    if target.suffix.lower().lstrip(".") not in known:
        raise InputError(f"{target}: expected an ending such as .png or .svg, got {target.suffix!r}")
    with replacing(target) as temporary:
        figure.savefig(temporary, format=target.suffix.lower().lstrip("."), dpi=120)
