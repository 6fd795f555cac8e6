"""OpenCV's file storage, read into one tree: XML as OpenCV reads it, JSON, and either of them compressed by gzip.

OpenCV's XML is a smaller and laxer language than XML: ``--`` may stand inside a comment, comments may hold bytes of
any encoding, the declaration may be missing, and whatever follows the root is ignored. There are no entities but the
five predefined ones, and a document type is refused. Every pass is linear in the input, and all sizes are bounded.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vj.errors import InputError

MAX_BYTES = 16 * 1024 * 1024
"""Most bytes read, after decompression; the largest cascade known to be in use has 2.7 MB."""
MAX_ELEMENTS = 500_000
"""Most elements read; the largest cascade known to be in use has 85,000."""
MAX_TEXT = 1 << 18
"""Most characters in one element."""
MAX_DEPTH = 50
"""Deepest nesting read; a cascade needs eight levels."""
MAX_TAG = 4096
"""Most characters between ``<`` and ``>``."""

_TAG = re.compile(r"(/?)([A-Za-z_][\w.\-]*)(\s[^<]*)?", re.ASCII)
_ENTITY = re.compile(r"&([^;&]{0,8};?)")
_PREDEFINED = {"lt;": "<", "gt;": ">", "amp;": "&", "quot;": '"', "apos;": "'"}


@dataclass
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


def read_tree(data: bytes, *, place: str = "cascade") -> Node:
    """Read a file storage.

    Parameters
    ----------
    data : bytes
        XML or JSON, plain or compressed by gzip.
    place : str
        What error messages call the source.

    Returns
    -------
    Node
        The root, named ``opencv_storage`` in both forms.

    Raises
    ------
    InputError
        If the bytes are not a file storage or exceed a limit.
    """
    try:
        if data[:2] == b"\x1f\x8b":
            data = _decompressed(data)
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        return _read_json(text) if text.lstrip()[:1] == "{" else _read_xml(text)
    except (ValueError, RecursionError) as error:
        message = " ".join(str(error).split())[:200]
        raise InputError(f"{place}: expected an OpenCV cascade in XML or JSON, got {message}") from None


def _decompressed(data: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    try:
        plain = stream.decompress(data, MAX_BYTES + 1)
    except zlib.error as error:
        raise ValueError(f"damaged gzip data ({error})") from None
    if len(plain) <= MAX_BYTES and not stream.eof:
        raise ValueError("gzip data that ends too early")
    return plain


def _read_xml(text: str) -> Node:
    stack: list[tuple[Node, list[str]]] = []
    at, elements = 0, 0
    while True:
        start = text.find("<", at)
        if start < 0:
            raise ValueError("a file that ends before its root does" if stack else "a file without elements")
        if stack:
            stack[-1][1].append(text[at:start])
        elif text[at:start].strip():
            raise ValueError(f"{text[at:start].strip()[:40]!r} before the first element")
        if text.startswith("<!--", start):
            at = _after(text, "-->", start + 4, "a comment")
            continue
        if text.startswith("<?", start):
            at = _after(text, "?>", start + 2, "a declaration")
            continue
        if text.startswith("<!", start):
            raise ValueError("a document type or entities")
        end = text.find(">", start, start + MAX_TAG)
        inside = text[start + 1 : end] if end > 0 else ""
        match = _TAG.fullmatch(inside.removesuffix("/"))
        if match is None:
            raise ValueError(f"a malformed tag <{text[start + 1 : start + 40]!r}")
        at = end + 1
        closing, tag = match[1], match[2]
        if not closing:
            elements += 1
            if elements > MAX_ELEMENTS or len(stack) >= MAX_DEPTH:
                raise ValueError(f"more than {MAX_ELEMENTS} elements or {MAX_DEPTH} levels")
            node = Node(tag)
            if stack:
                stack[-1][0].children.append(node)
            stack.append((node, []))
        if closing or inside.endswith("/"):
            if not stack or stack[-1][0].tag != tag:
                raise ValueError(f"</{tag[:40]}> where another element is open")
            node, pieces = stack.pop()
            node.text = _unescaped("".join(pieces))
            if not stack:
                return node


def _after(text: str, mark: str, at: int, what: str) -> int:
    end = text.find(mark, at)
    if end < 0:
        raise ValueError(f"{what} without an end")
    return end + len(mark)


def _unescaped(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise ValueError(f"{len(text)} characters in one element, at most {MAX_TEXT} are read")

    def character(match: re.Match[str]) -> str:
        if match[1] not in _PREDEFINED:
            raise ValueError("a document type or entities")
        return _PREDEFINED[match[1]]

    return _ENTITY.sub(character, text) if "&" in text else text


def _read_json(text: str) -> Node:
    # Numbers stay text: the cascade's reader converts them, and long ones cost nothing here.
    value, _ = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).raw_decode(text.lstrip())
    left = [MAX_ELEMENTS]
    return _node("opencv_storage", value, left, 0)


def _node(tag: str, value: Any, left: list[int], depth: int) -> Node:
    left[0] -= 1
    if left[0] < 0 or depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_ELEMENTS} elements or {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return Node(tag, children=[_node(key, item, left, depth + 1) for key, item in value.items()])
    if isinstance(value, list):
        if any(isinstance(item, dict | list) for item in value):
            return Node(tag, children=[_node("_", item, left, depth + 1) for item in value])
        value = " ".join(map(str, value))
    text = str(value)
    if len(text) > MAX_TEXT:
        raise ValueError(f"{len(text)} characters in one element, at most {MAX_TEXT} are read")
    return Node(tag, text)
