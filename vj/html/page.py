"""A page: parts and assets in one file that needs no network and runs no script but ours.

Text from outside, such as names of files, goes through `text` into the page and through `payload` into scripts' data.
A policy in the page allows only the scripts written here, by their digests, and no request at all.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._version import __version__
from vj.images import encode_image

UPLOT = "1.6.32"
"""Version of the library that draws the charts; see the README of the assets."""


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Parameters
    ----------
    name : str
        Of its anchor.
    title : str
    body : str
        HTML.
    scripts : tuple of str
        The assets that bring it to life.
    """

    name: str
    title: str
    body: str
    scripts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """A page.

    Parameters
    ----------
    title : str
    sections : sequence of Section
    facts : sequence of (str, str)
        Names and values at the top: the few figures that matter most.
    status : str
        Current state; empty if there is none.
    refresh : int
        Seconds after which the page reloads itself; 0 for never.
    notes : sequence of str
        Lines below the facts.
    """

    title: str
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()
    status: str = ""
    refresh: int = 0
    notes: Sequence[str] = field(default_factory=tuple)

    def render(self) -> str:
        """Return the HTML file."""
        names = ["uPlot.iife.min.js", "charts.js", *dict.fromkeys(s for one in self.sections for s in one.scripts)]
        scripts = [_asset(name) for name in names]
        digests = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
        policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {digests}"
        refresh = f'<meta http-equiv="refresh" content="{self.refresh}">\n' if self.refresh else ""
        licence = _asset("uPlot.LICENSE").replace("--", "")
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n{refresh}'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>{text(self.title)}</title>\n"
            f'<link rel="icon" href="data:,">\n'
            f"<style>{_asset('uPlot.min.css')}\n{_asset('page.css')}</style>\n</head>\n"
            f"<body>\n{self._header()}\n<main>\n{''.join(map(_section, self.sections))}</main>\n"
            f"<footer>Made by vj {text(__version__)}. Charts: uPlot {UPLOT}, MIT licence.</footer>\n"
            f"<!--\nuPlot {UPLOT}\n{licence}\n-->\n"
            + "".join(f"<script>{script}</script>\n" for script in scripts)
            + "</body>\n</html>\n"
        )

    def _header(self) -> str:
        status = f'<p class="status" role="status">{text(self.status)}</p>' if self.status else ""
        facts = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in self.facts)
        links = "".join(f'<li><a href="#{one.name}">{text(one.title)}</a></li>' for one in self.sections)
        notes = "".join(f"<li>{text(note)}</li>" for note in self.notes)
        return (
            f"<header>\n<h1>{text(self.title)}</h1>\n{status}"
            + (f'<dl class="facts">{facts}</dl>\n' if facts else "")
            + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
            + (f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n' if len(self.sections) > 1 else "")
            + "</header>"
        )


def _section(one: Section) -> str:
    heading = f'<h2 id="{one.name}-h">{text(one.title)}</h2>'
    return f'<section id="{one.name}" aria-labelledby="{one.name}-h">\n{heading}\n{one.body}\n</section>\n'


@cache
def _asset(name: str) -> str:
    return (files("vj.html") / "assets" / name).read_text(encoding="utf-8").strip()


@cache
def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def text(value: object) -> str:
    """Return any value as text that is safe in a page, in an attribute too."""
    return html.escape(str(value), quote=True)


def payload(data: Any) -> str:
    """Return data for a script, which cannot end the element it stands in whatever its texts are."""
    words = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        words = words.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json">{words}</script>'


def part(kind: str, data: Any, body: str = "", label: str = "") -> str:
    """Return an element that a script finds by its kind and fills from its data."""
    named = f' role="group" aria-label="{text(label)}"' if label else ""
    return f'<div class="{kind}" data-part="{kind}"{named}>{payload(data)}{body}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], label: str) -> str:
    """Return a table of texts that scrolls by itself where the page is narrow; the first column names the row."""
    top = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{text(first)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{text(label)}">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def data_uri(image: npt.NDArray[np.uint8], *, quality: int | None = None) -> str:
    """Return an image as a data URI: a PNG, or a JPEG if there is a quality."""
    kind = "png" if quality is None else "jpeg"
    data = encode_image(".png" if quality is None else ".jpg", image, quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def packed(values: npt.NDArray[Any], dtype: str) -> str:
    """Return an array as base64 of little-endian numbers, such as ``<f4``."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode()
