"""What the readers of OpenCV's file storage share: the tree, and the limits that keep hostile files cheap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_BYTES = 16 * 1024 * 1024
"""Most bytes read, after decompression; the largest cascade known to be in use has 2.7 MB as XML, 3.7 MB as JSON."""
MAX_ELEMENTS = 500_000
"""Most elements read: about 100 MB of memory; the largest cascade known to be in use has 85,000."""
MAX_VALUES = 2_000_000
"""Most numbers and words read from YAML or JSON: about 120 MB; the largest cascade known to be in use has 250,000."""
MAX_TEXT = 1 << 18
"""Most characters in one element: a tree of 10,000 nodes. Fifteen million numbers took 24 s and 1.3 GB to convert."""
MAX_DEPTH = 50
"""Deepest nesting read; a cascade needs eight levels."""


@dataclass(slots=True)
class Node:
    """One element: its name (``_`` in a sequence), its text and its children; walked as an ElementTree element is."""

    tag: str
    text: str = ""
    children: list[Node] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.children)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.children)

    def __getitem__(self, index: int) -> Node:
        return self.children[index]

    def find(self, tag: str) -> Node | None:
        """Return the first child of this name."""
        return next((child for child in self.children if child.tag == tag), None)

    def findtext(self, tag: str) -> str | None:
        """Return the text of the first child of this name."""
        child = self.find(tag)
        return None if child is None else child.text


class Budget:
    """Counts elements as they are made; raises ValueError beyond the limits."""

    def __init__(self) -> None:
        self.left = MAX_ELEMENTS

    def node(self, tag: str, depth: int, text: str = "") -> Node:
        """Return a new node at a depth."""
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_ELEMENTS} elements or {MAX_DEPTH} levels")
        return Node(tag, text)


def bounded(text: str) -> str:
    """Return the text of one element if it is short enough."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"{len(text)} characters in one element, at most {MAX_TEXT} are read")
    return text
