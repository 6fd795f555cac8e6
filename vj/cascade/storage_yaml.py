"""OpenCV's dialect of YAML, which is not YAML: ``%YAML:1.0``, ``{ a:1 }`` without a space, sequences deeper than keys.

Block maps and sequences, flow maps and sequences, plain and quoted scalars, comments and type tags are read; anchors,
multi-line scalars and base64 data are refused, as a cascade has none. Every pass is linear in the input.
"""

from __future__ import annotations

import re

from vj.cascade.storage_node import MAX_VALUES, Budget, Node, bounded

# Possessive: a repeated group that may be given back costs 300 bytes of memory for each repetition.
_BLANK = re.compile(r"(?:[ \r\n]++|#[^\n]*+)*+")
_TYPE = re.compile(r"!!?[^\s]+")
_KEY = re.compile(r"([^\s:\-][^:\n]*):")
_BLOCK_SCALAR = re.compile(r"[^\n#]*")
_FLOW_SCALAR = re.compile(r"[^,\]}\n]*")
_QUOTED = re.compile(r'"(?:[^"\\\n]++|\\.)*+"|\'(?:[^\'\n]++|\'\')*+\'')
# A flow sequence of plain numbers, as nearly all are: taken in one step.
_NUMBERS = re.compile(r"\[([-+.\w\s,]*)\]", re.ASCII)
_ESCAPE = re.compile(r"\\(.)")


def read_yaml(text: str) -> Node:
    """Read the first stream of a file.

    Raises
    ------
    ValueError
        If it is not of this dialect, or exceeds a limit.
    """
    if text.count(",") > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values")
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at, self.budget = text, 0, Budget()

    def read(self) -> Node:
        self.skip()
        if self.text.startswith("%YAML", self.at):
            if not re.compile(r"%YAML[: ]1\.").match(self.text, self.at):
                raise ValueError("YAML of another version than 1.x")
            self.at = self.text.find("\n", self.at) % (len(self.text) + 1)
            self.skip()
        if self.text.startswith("---", self.at):
            self.at += 3
            self.skip()
        root = self.value("opencv_storage", 0, 0)
        if not root.children:
            raise ValueError("YAML without a collection")
        return root

    # --- places -------------------------------------------------------------------------------------------------------

    def skip(self) -> None:
        """Move past blanks, line ends and comments."""
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at
        if self.text.startswith("\t", self.at):
            raise self.wrong("a tab")

    def column(self) -> int:
        return self.at - (self.text.rfind("\n", 0, self.at) + 1)

    def at_end(self) -> bool:
        """Whether the stream ends here."""
        return self.at >= len(self.text) or (self.column() == 0 and self.text.startswith(("...", "---"), self.at))

    def wrong(self, what: str) -> ValueError:
        line = self.text.count("\n", 0, self.at) + 1
        return ValueError(f"{what} in line {line} of the YAML")

    # --- values -------------------------------------------------------------------------------------------------------

    def value(self, tag: str, indent: int, depth: int) -> Node:
        """Read what stands here, at least `indent` columns in."""
        node = self.budget.node(tag, depth)
        if self.at_end() or self.column() < indent:
            return node
        match = _TYPE.match(self.text, self.at)
        if match:
            if match[0].startswith("!!binary"):
                raise self.wrong("base64 data")
            self.at = match.end()
            self.skip()
            if self.at_end() or self.column() < indent:
                return node
        first, second = self.text[self.at], self.text[self.at + 1 : self.at + 2]
        if first in "[{":
            self.flow(node, depth)
        elif first in "\"'" and not self.quoted_key():
            node.text = self.quoted()
        elif first in "&*|>?":
            raise self.wrong(f"{first!r}")
        elif first == "-" and second in " \r\n":
            self.block(node, depth, sequence=True)
        elif _KEY.match(self.text, self.at):
            self.block(node, depth, sequence=False)
        else:
            node.text = self.scalar(_BLOCK_SCALAR)
        return node

    def block(self, node: Node, depth: int, *, sequence: bool) -> None:
        indent = self.column()
        while True:
            tag = "_"
            if not sequence:
                tag = self.key()
            elif self.text.startswith("-", self.at):
                self.at += 1
            else:
                raise self.wrong("a sequence whose element does not start with '-'")
            self.skip()
            node.children.append(self.value(tag, indent + 1, depth + 1))
            self.skip()
            if self.at_end() or self.column() < indent:
                return
            if self.column() > indent:
                raise self.wrong("a wrong indentation")

    def key(self) -> str:
        match = _KEY.match(self.text, self.at)
        if match is None:
            raise self.wrong("no key")
        self.at = match.end()
        return match[1].rstrip().strip("\"'")

    def quoted_key(self) -> bool:
        match = _QUOTED.match(self.text, self.at)
        return match is not None and self.text[match.end() : match.end() + 1] == ":"

    def quoted(self) -> str:
        match = _QUOTED.match(self.text, self.at)
        if match is None:
            raise self.wrong("a string without an end")
        self.at = match.end()
        inside = bounded(match[0][1:-1])
        return inside.replace("''", "'") if match[0][0] == "'" else _ESCAPE.sub(r"\1", inside)

    def scalar(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None or match.end() == self.at:
            raise self.wrong("no value")
        self.at = match.end()
        return bounded(match[0].strip())

    def flow(self, node: Node, depth: int) -> None:
        """Read ``[ ... ]`` or ``{ ... }``; a sequence of scalars becomes one text, as in OpenCV's XML."""
        numbers = _NUMBERS.match(self.text, self.at)
        if numbers:
            self.at = numbers.end()
            node.text = " ".join(bounded(numbers[1]).replace(",", " ").split())
            return
        mapping = self.text[self.at] == "{"
        end = "}" if mapping else "]"
        self.at += 1
        self.skip()
        while not self.text.startswith(end, self.at):
            tag = "_"
            if mapping:
                tag = self.key()
                self.skip()
            item = self.budget.node(tag, depth + 1)
            node.children.append(item)
            first = self.text[self.at : self.at + 1]
            if first and first in "[{":
                self.flow(item, depth + 1)
            elif first and first in "\"'":
                item.text = self.quoted()
            else:
                item.text = self.scalar(_FLOW_SCALAR)
            self.skip()
            if self.text.startswith(",", self.at):
                self.at += 1
                self.skip()
            elif not self.text.startswith(end, self.at):
                raise self.wrong("a collection without an end")
        self.at += 1
        if not mapping and not any(child.children for child in node.children):
            node.text = bounded(" ".join(child.text for child in node.children))
            node.children = []
