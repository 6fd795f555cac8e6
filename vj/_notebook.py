"""What a notebook shows of an object: a caption, facts and a table as HTML that needs no style sheet and no script."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

MAX_ROWS = 20
"""Most rows that a table should have; the rest are counted."""


def escape(value: object) -> str:
    """Return any value as text that is safe in HTML, in an attribute too."""
    return html.escape(str(value), quote=True)


def card(
    caption: str,
    head: Sequence[str] = (),
    rows: Sequence[Sequence[object]] = (),
    facts: Iterable[tuple[str, object]] = (),
    more: int = 0,
) -> str:
    """Return HTML of an object.

    Parameters
    ----------
    caption : str
    head : sequence of str
        Titles of the columns.
    rows : sequence of sequence
        Rows of a table; without any there is none.
    facts : iterable of (str, object)
        Names and values above the table.
    more : int
        Rows left out.

    Returns
    -------
    str
        All text is escaped.
    """
    lines = "".join(f"<div>{escape(name)}: {escape(value)}</div>" for name, value in facts)
    if rows:
        lines += _table(head, rows)
    if more:
        lines += f"<div>and {more:,} more</div>"
    return f"<div><strong>{escape(caption)}</strong>{lines}</div>"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    top = "".join(f"<th>{escape(one)}</th>" for one in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(one)}</td>" for one in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 stage``, ``20 stages``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
