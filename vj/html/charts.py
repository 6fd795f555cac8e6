"""Charts: what the script of the charts draws, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vj.html.page import part, text


def line_chart(
    title: str,
    x: tuple[str, Sequence[float]],
    series: Mapping[str, npt.ArrayLike],
    *,
    unit: str = "",
    log: bool = False,
    span: tuple[float | None, float | None] = (None, None),
) -> str:
    """Return a line chart.

    Parameters
    ----------
    title : str
    x : (str, sequence of float)
        Name and values of the abscissa.
    series : mapping of str to sequence of float
        Values by the series' name; what is not finite is left out, and so is what a logarithm has no value for.
    unit : str
        After each value, such as " %".
    log : bool
        Whether the ordinate is logarithmic.
    span : (float or None, float or None)
        Ends of the ordinate; by default they follow the values.
    """
    data = {
        "title": title,
        "x": {"label": x[0], "values": list(x[1])},
        "series": [{"label": name, "values": _numbers(values, log)} for name, values in series.items()],
        "unit": unit,
        "log": log,
        "span": list(span),
    }
    body = f"<h3>{text(title)}</h3>" + '<div class="plot"></div>'
    return part("chart", data, body, f"Chart: {title}. Left and right arrow keys read the values.")


def charts(items: Sequence[str]) -> str:
    """Return charts next to each other where there is room."""
    return f'<div class="charts">{"".join(items)}</div>'


def _numbers(values: npt.ArrayLike, log: bool) -> list[float | None]:
    return [
        # Six digits: more than a chart shows.
        float(f"{v:.6g}") if np.isfinite(v) and (v > 0 or not log) else None
        for v in np.asarray(values, dtype=np.float64).tolist()
    ]


def number(value: float, digits: int = 3) -> str:
    """Return a number for people to read, such as 12,345, 0.0123 or 1.2e-05."""
    if value == 0 or not np.isfinite(value):
        return "0" if value == 0 else "–"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))}f}"


def percent(share: float) -> str:
    """Return a share as a percentage; below 0.001 % in words such as 1 in 4,350,000."""
    value = 100 * share
    if 0 < value < 1e-3:
        return f"1 in {float(f'{1 / share:.3g}'):,.0f}"
    return f"{value:.2f} %" if value >= 0.1 or value == 0 else f"{value:.2g} %"


def duration(seconds: float) -> str:
    """Return a time for people to read."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def plain(values: npt.NDArray[Any]) -> list[Any]:
    """Return an array of numbers as a list, with at most six digits each."""
    if values.dtype.kind == "f":
        return [float(f"{v:.6g}") for v in values.ravel().tolist()]
    return list(values.ravel().tolist())
