"""Spoilt inputs: what a disk, a careless editor or an attacker makes of a good file; all follows from the seed."""

from __future__ import annotations

import copy
import json
import re
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

Rng = np.random.Generator

_WORDS = (
    "0 -0 1 -1 2 3 7 8 9 10 100 255 256 32767 65535 65536 2147483647 2147483648 -2147483648 -2147483649 4294967295 "
    "4294967296 9223372036854775807 99999999999999999999 0. -0. 0.5 -1.5 1e-5 1e-46 1e-320 1e38 3.5e38 1e300 1e999 "
    "-1e999 nan -nan inf -inf Infinity 0x10 1_000 ٣ ½ 1e 1.2.3 +5 1,5"
)
NUMBERS = (*_WORDS.split(), "", " ", "9" * 400, "9" * 5000, "0." + "1" * 3000)
"""What a number is replaced with: bounds of types, values out of range, and what only some parsers call a number."""

ODD_BYTES = (
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"<",
    b">",
    b"&",
    b'"',
    b"'",
    b"\n",
    b"\r",
    b"\t",
    b" ",
    b"%s",
    b"\x1b[0m",
)
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1e308,
    2**31,
    2**63,
    10**400,
    "",
    "x",
    "\0",
    [],
    {},
    [[]],
    {"": 0},
)

_NUMBER = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def spoil_bytes(rng: Rng, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change bytes with no idea of the format: flip, overwrite, cut, repeat, insert, swap, splice, truncate."""
    out = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 4, 16]))):
        n = len(out)
        if n == 0:
            break
        at, length = int(rng.integers(n)), int(min(n, 2 ** rng.integers(0, 10)))
        match int(rng.integers(9)):
            case 0:
                out[at] ^= 1 << int(rng.integers(8))
            case 1:
                out[at] = int(rng.integers(256))
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = out[at : at + length] * int(rng.choice([1, 1, 2, 50]))
            case 4:
                out[at:at] = rng.bytes(length)
            case 5:
                out[at:at] = ODD_BYTES[int(rng.integers(len(ODD_BYTES)))]
            case 6:
                other = int(rng.integers(n))
                part = out[at : at + length]
                out[at : at + length] = out[other : other + length]
                out[other : other + length] = part
            case 7:
                source = others[int(rng.integers(len(others)))] if len(others) else data
                start = int(rng.integers(max(1, len(source))))
                out[at : at + length] = source[start : start + length]
            case _:
                if rng.random() < 0.3:
                    del out[at:]
    return bytes(out)


def spoil_numbers(rng: Rng, data: bytes) -> bytes:
    """Replace some of the numbers in a text."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return spoil_bytes(rng, data)
    chosen = {int(rng.integers(len(found))) for _ in range(int(rng.choice([1, 1, 2, 5])))}
    for k in sorted(chosen, reverse=True):
        match = found[k]
        word = str(rng.choice(NUMBERS)).encode()
        if rng.random() < 0.3:
            # Near misses: one more, one less, the sign, a tenth.
            try:
                value = float(match.group())
                word = repr(value + float(rng.choice([-1, 1, -2 * value, -0.9 * value]))).removesuffix(".0").encode()
            except (ValueError, OverflowError):
                pass
        data = data[: match.start()] + word + data[match.end() :]
    return data


def spoil_lines(rng: Rng, data: bytes) -> bytes:
    """Delete, repeat, swap or cut lines and their words."""
    lines = data.split(b"\n")
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        k, other = int(rng.integers(len(lines))), int(rng.integers(len(lines)))
        words = lines[k].split(b" ")
        match int(rng.integers(6)):
            case 0:
                del lines[k]
            case 1:
                lines[k:k] = [lines[k]] * int(rng.choice([1, 2, 200]))
            case 2:
                lines[k], lines[other] = lines[other], lines[k]
            case 3:
                del words[int(rng.integers(len(words)))]
                lines[k] = b" ".join(words)
            case 4:
                lines[k] = b" ".join(words * int(rng.choice([2, 3, 500])))
            case _:
                lines[k] = (
                    lines[k].replace(b",", b" ") if rng.random() < 0.5 else lines[other][: len(lines[other]) // 2]
                )
        if not lines:
            break
    return b"\n".join(lines)


def spoil_xml(rng: Rng, data: bytes) -> bytes:
    """Change the structure: delete, repeat, move, rename, nest or empty elements; rarely, make the file huge."""
    root = ElementTree.fromstring(data)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        parents = [element for element in root.iter() if len(element)]
        if not parents:
            break
        parent = parents[int(rng.integers(len(parents)))]
        k = int(rng.integers(len(parent)))
        child = parent[k]
        match int(rng.integers(9)):
            case 0:
                parent.remove(child)
            case 1:
                for _ in range(int(rng.choice([1, 2, 30]))):
                    parent.append(copy.deepcopy(child))
            case 2:
                elsewhere = parents[int(rng.integers(len(parents)))]
                elsewhere.append(copy.deepcopy(child))
            case 3:
                every = list(root.iter())
                child.tag = every[int(rng.integers(len(every)))].tag
            case 4:
                child.text = str(rng.choice(NUMBERS))
            case 5:
                child.text = (child.text or "") * int(rng.choice([2, 3, 100]))
            case 6:
                child.attrib.update({f"a{i}": "1" for i in range(int(rng.choice([1, 3, 20])))})
            case 7:
                inner = ElementTree.SubElement(child, child.tag)
                for _ in range(int(rng.choice([1, 5, 500]))):
                    inner = ElementTree.SubElement(inner, child.tag)
            case _:
                for element in list(child):
                    child.remove(element)
    out = ElementTree.tostring(root)
    return _huge_xml(rng, out) if rng.random() < 0.004 else out


def _huge_xml(rng: Rng, data: bytes) -> bytes:
    """Up to some megabytes of one thing, put where an element ends."""
    at = data.rfind(b"</")
    n = int(rng.choice([10_000, 100_000, 1_000_000]))
    filling = [
        b"<_>" * n,
        b"<_/>" * n,
        b"1 " * n,
        b"<_ " + b" ".join(b'a%d=""' % i for i in range(n)) + b"/>",
        b"<_>" + b"0 0 1 1 1. " * n + b"</_>",
        b"<!--" + b"x" * n + b"-->",
        b"&#65;" * n,
    ]
    return data[:at] + filling[int(rng.integers(len(filling)))] + data[at:]


def spoil_json(rng: Rng, data: bytes) -> bytes:
    """Replace, delete or repeat a value anywhere in a JSON document."""
    table = json.loads(data)
    places: list[tuple[Any, Any]] = []
    queue = [table]
    while queue:
        here = queue.pop()
        keys: Any = here.keys() if isinstance(here, dict) else range(len(here))
        for key in keys:
            places.append((here, key))
            if isinstance(here[key], dict | list):
                queue.append(here[key])
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        here, key = places[int(rng.integers(len(places)))]
        if (isinstance(here, list) and key >= len(here)) or (isinstance(here, dict) and key not in here):
            continue
        match int(rng.integers(5)):
            case 0:
                del here[key]
            case 1 if isinstance(here, list):
                here.extend([here[key]] * int(rng.choice([1, 2, 300])))
            case 2 if isinstance(here[key], int | float | str):
                here[key] = str(rng.choice(NUMBERS)) if rng.random() < 0.5 else _odd_number(rng)
            case 3:
                value: Any = here[key]
                for _ in range(int(rng.choice([1, 2, 300]))):
                    value = [value]
                here[key] = value
            case _:
                here[key] = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
    return json.dumps(table).encode()


def _odd_number(rng: Rng) -> float | int:
    return (0, -1, 2**31, 2**64, 1e300, float("nan"), float("inf"), 0.5, -0.0, 1 << 1000)[int(rng.integers(10))]


def spoil_image(rng: Rng, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change an image: any bytes, or numbers of its header, whose checks are then put right."""
    if rng.random() < 0.5:
        return spoil_bytes(rng, data, others)
    out = bytearray(data)
    end = min(len(out) - 4, 200)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        at = int(rng.integers(max(1, end)))
        form = str(rng.choice(["<H", ">H", "<I", ">I", "B"]))
        top = 2 ** (8 * struct.calcsize(form))
        value = int(rng.choice([0, 1, 2, 7, 255, 4096, 20000, 65535, top // 2, top - 1])) % top
        out[at : at + struct.calcsize(form)] = struct.pack(form, value)
    return fix_png(bytes(out)) if data.startswith(b"\x89PNG") else bytes(out)


def fix_png(data: bytes) -> bytes:
    """Compute the check sums of a PNG's chunks again, as far as their lengths lead through the file."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        length = int.from_bytes(out[at : at + 4], "big")
        if at + 12 + length > len(out):
            break
        check = zlib.crc32(out[at + 4 : at + 8 + length])
        out[at + 8 + length : at + 12 + length] = check.to_bytes(4, "big")
        at += 12 + length
    return bytes(out)
