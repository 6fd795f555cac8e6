"""OpenCV's file storage, read into one tree: XML as OpenCV reads it, YAML or JSON, compressed by gzip or not.

OpenCV's XML is a smaller and laxer language than XML: ``--`` may stand inside a comment, comments may hold bytes of
any encoding, and NULs may follow the root. There are no entities but the five predefined ones, and a document type is
refused. Laxer than OpenCV, a file may start with a byte order mark or without a declaration, and any text may follow
the root: cv2 4.14 refuses all three. Every pass is linear in the input, and all sizes are bounded.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

from vj.cascade.storage_node import MAX_BYTES, MAX_ELEMENTS, MAX_VALUES, Budget, Node, bounded
from vj.cascade.storage_yaml import read_yaml
from vj.errors import InputError

MAX_TAG = 4096
"""Most characters between ``<`` and ``>``."""

_TAG = re.compile(r"(/?)([A-Za-z_][\w.\-]*)(\s[^<]*)?", re.ASCII)
# An element without attributes, elements and entities: nearly all of a cascade, and half the time to read one.
_LEAF = re.compile(r"(\s*+)<([A-Za-z_][\w.\-]{0,200}+)>([^<&]*+)</\2\s*+>", re.ASCII)
_ENTITY = re.compile(r"&([^;&]{0,8};?)")
_PREDEFINED = {"lt;": "<", "gt;": ">", "amp;": "&", "quot;": '"', "apos;": "'"}


def read_tree(data: bytes, *, place: str = "cascade") -> Node:
    """Read a file storage.

    Parameters
    ----------
    data : bytes
        XML, YAML or JSON, plain or compressed by gzip.
    place : str
        What error messages call the source.

    Returns
    -------
    Node
        The root, named ``opencv_storage`` in all forms.

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
        if text.startswith("%YAML"):
            return read_yaml(text)
        return _read_json(text) if text.lstrip()[:1] == "{" else _read_xml(text)
    except (ValueError, RecursionError) as error:
        message = " ".join(str(error).split())[:200]
        raise InputError(f"{place}: expected an OpenCV cascade in XML, YAML or JSON, got {message}") from None


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
    at, budget = 0, Budget()
    while True:
        while stack and (leaf := _LEAF.match(text, at)):
            blank, tag, content = leaf.groups()
            stack[-1][1].append(blank)
            stack[-1][0].children.append(budget.node(tag, len(stack), bounded(content)))
            at = leaf.end()
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
            node = budget.node(tag, len(stack))
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
    def character(match: re.Match[str]) -> str:
        if match[1] not in _PREDEFINED:
            raise ValueError("a document type or entities")
        return _PREDEFINED[match[1]]

    return _ENTITY.sub(character, bounded(text)) if "&" in text else bounded(text)


def _read_json(text: str) -> Node:
    # Counted first: the decoder has no limits, and makes up to 30 bytes of every one that it reads.
    if text.count("[") + text.count("{") > MAX_ELEMENTS or text.count(",") > MAX_VALUES:
        raise ValueError(f"more than {MAX_ELEMENTS} elements or {MAX_VALUES} values")
    # Numbers stay text: the cascade's reader converts them, and long ones cost nothing here.
    value, _ = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).raw_decode(text.lstrip())
    return _node("opencv_storage", value, Budget(), 0)


def _node(tag: str, value: Any, budget: Budget, depth: int) -> Node:
    node = budget.node(tag, depth)
    if isinstance(value, dict):
        node.children = [_node(key, item, budget, depth + 1) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        node.children = [_node("_", item, budget, depth + 1) for item in value]
    else:
        node.text = bounded(" ".join(map(str, value)) if isinstance(value, list) else str(value))
    return node
