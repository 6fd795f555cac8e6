"""The file storage's reader against cv2 and against the strict reader."""

from __future__ import annotations

import contextlib
import gzip
import random
from pathlib import Path

import numpy as np
import pytest
from cascades import random_cascade

from vj.cascade import opencv_xml
from vj.cascade.file_storage import read_tree
from vj.cascade.new_xml import to_xml
from vj.cascade.old_xml import to_old_xml
from vj.cascade.storage_node import MAX_BYTES
from vj.errors import InputError

SMALL = to_xml(opencv_xml.load("frontalface")).encode()


def same(a: object, b: object) -> bool:
    return to_xml(a) == to_xml(b)  # type: ignore[arg-type]


def cascade(data: bytes) -> object:
    return opencv_xml._read_root(read_tree(data), "c")


VARIANTS = {
    "as it is": SMALL,
    "dashes in a comment": SMALL.replace(b"<opencv_storage>", b"<!-------- a -- b --------->\n<opencv_storage>", 1),
    "Latin-1 in a comment": SMALL.replace(b"<opencv_storage>", b"<!-- M\xfcller -->\n<opencv_storage>", 1),
    "trailing NULs": SMALL + b"\0\0\0",
    "trailing text": SMALL + b"the end <",
    "no declaration": SMALL.split(b"\n", 1)[1],
    "byte order mark": b"\xef\xbb\xbf" + SMALL,
    "Windows line ends": SMALL.replace(b"\n", b"\r\n"),
    "a second root": SMALL + b"<opencv_storage></opencv_storage>",
    "gzip": gzip.compress(SMALL),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_lax_forms_hold_the_same_cascade(name: str) -> None:
    expected = opencv_xml.parse(SMALL, name="c")
    assert same(cascade(VARIANTS[name]), expected)


@pytest.mark.parametrize(
    "data",
    [b"", b"%YAML:1.0", b"%YAML:1.0\n---\n", b"%YAML:2.0\n---\na: 1\n", b"%YAML:1.0\n---\n\ta: 1\n",
     b"%YAML:1.0\n---\na: [ 1, 2\n", b"%YAML:1.0\n---\na: { b:1, c }\n", b"%YAML:1.0\na: &x 1\nb: *x\n",
     b"%YAML:1.0\na: |\n   text\n", b"%YAML:1.0\na: !!binary |\n   AAAA\n", b'%YAML:1.0\na: "b\n',
     b"%YAML:1.0\na: " + b"[" * 99999, b"%YAML:1.0\n" + b"- " * 99999, b"%YAML:1.0\na:\n   b: 1\n  c: 2\n",
     b"%YAML:1.0\na: [ " + b"1, " * 2_000_001 + b"]", b"%YAML:1.0\na: [ " + b"1 " * 140_000 + b"]",
     b"%YAML:1.0\na:\n" + b" -\n" * 500_001, b"[" * 2_000_000, b'{"a":[' + b"1," * 2_000_001 + b"1]}",
     b'{"a":[' + b"[]," * 500_001 + b"1]}", b'{"a":"' + b"1" * 270_000 + b'"}', b'{"a":',
     gzip.compress(b"%YAML:1.0\n" + b" " * (MAX_BYTES + 1), mtime=0),
     b"<a>", b"<a></b>", b"<!DOCTYPE a><a/>", b"<a>&x;</a>", b"<!-- <a/>", b"<a>" * 60, b"{" * 99999,
     b"[1", gzip.compress(b"<a/>", mtime=0)[:-9], gzip.compress(b" " * (MAX_BYTES + 1), mtime=0)],
)  # fmt: skip
def test_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        read_tree(data)
    assert "\n" not in str(caught.value)


def test_mutations_raise_nothing_else() -> None:
    rng = random.Random(0)
    text = SMALL[:3000] + b"</stages></cascade></opencv_storage>"
    for _ in range(300):
        data = bytearray(text)
        for _ in range(rng.randint(1, 5)):
            data[rng.randrange(len(data))] = rng.choice(b'<>&/!-?"{}\0\xff_ 1')
        with contextlib.suppress(InputError):
            read_tree(bytes(data))


# cv2 4.14 itself refuses these; our reader is laxer there.
LAXER = ("no declaration", "trailing text", "byte order mark")


@pytest.mark.parametrize("name", LAXER)
def test_cv2_refuses_what_the_module_says_it_refuses(name: str, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "CascadeClassifier"):
        pytest.skip("this OpenCV has no CascadeClassifier")
    (tmp_path / "c.xml").write_bytes(VARIANTS[name])
    with pytest.raises((cv2.error, SystemError)):
        cv2.CascadeClassifier(str(tmp_path / "c.xml"))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in LAXER])
def test_cv2_finds_the_same_in_each_form(name: str, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "CascadeClassifier"):
        pytest.skip("this OpenCV has no CascadeClassifier")
    data = pytest.importorskip("skimage.data")
    path = tmp_path / ("c.xml.gz" if name == "gzip" else "c.xml")
    path.write_bytes(VARIANTS[name])
    theirs = cv2.CascadeClassifier(str(path))
    assert not theirs.empty()
    again = tmp_path / "again.xml"
    opencv_xml.save(cascade(VARIANTS[name]), again)  # type: ignore[arg-type]
    gray = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)
    boxes = [np.asarray(c.detectMultiScale(gray)) for c in (theirs, cv2.CascadeClassifier(str(again)))]
    assert len(boxes[0]) and np.array_equal(*boxes)


# --- YAML and JSON ---------------------------------------------------------------------------------------------------


def put(out: object, tag: str, node: object, cv2: object) -> None:
    """Write a node with OpenCV's own writer: sequences of numbers on one line, as OpenCV writes them."""
    words = node.text.split()  # type: ignore[attr-defined]
    if len(node):  # type: ignore[arg-type]
        kind = cv2.FILE_NODE_SEQ if node[0].tag == "_" else cv2.FILE_NODE_MAP  # type: ignore[attr-defined, index]
        out.startWriteStruct(tag, kind)  # type: ignore[attr-defined]
        for child in node:  # type: ignore[attr-defined]
            put(out, "" if child.tag == "_" else child.tag, child, cv2)
        out.endWriteStruct()  # type: ignore[attr-defined]
    elif node.text.startswith('"'):  # type: ignore[attr-defined]
        out.write(tag, node.text.strip('"'))  # type: ignore[attr-defined]
    elif len(words) != 1:
        out.startWriteStruct(tag, cv2.FILE_NODE_SEQ | cv2.FILE_NODE_FLOW)  # type: ignore[attr-defined]
        for word in words:
            write(out, "", word)
        out.endWriteStruct()  # type: ignore[attr-defined]
    else:
        write(out, tag, words[0])


def write(out: object, tag: str, word: str) -> None:
    number = word.lstrip("+-")
    value = int(word) if number.isdecimal() else float(word) if number[:1].isdigit() else word
    out.write(tag, value)  # type: ignore[attr-defined]


def stored(data: bytes, path: Path) -> Path:
    """Write a cascade's XML again with cv2.FileStorage, in the form that the name says."""
    cv2 = pytest.importorskip("cv2")
    out = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for child in read_tree(data):
        put(out, child.tag, child, cv2)
    out.release()
    return path


CASCADES = {
    "packaged": SMALL,
    "trees, tilted": to_xml(random_cascade(1, kind="all", nodes=(1, 2, 4))).encode(),
    "LBP": to_xml(random_cascade(2, kind="lbp", nodes=(1, 3))).encode(),
    "old layout": to_old_xml(random_cascade(3, kind="all", nodes=(1, 2))).encode(),
}


@pytest.mark.parametrize("form", ["yml", "yaml", "json", "yml.gz", "json.gz", "xml", "xml.gz"])
@pytest.mark.parametrize("name", CASCADES)
def test_every_form_that_opencv_writes_holds_the_same(name: str, form: str, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    path = stored(CASCADES[name], tmp_path / f"some.{form}")
    found = opencv_xml.load(path)
    assert found == opencv_xml.parse(CASCADES[name])
    assert found.name == "some"
    if hasattr(cv2, "CascadeClassifier"):
        theirs = cv2.CascadeClassifier(str(path))
        assert theirs.getOriginalWindowSize() == found.window


@pytest.mark.parametrize("text", [
    "%YAML 1.1\n---\n# a comment\na: { b:1, c: \"x, y\" }  # b\nd:\n   - [ 1, 2,\n      3 ]\n   -\n      e: 'it''s'\n",
    "%YAML:1.0\na: !!map { b:1, c:'x, y' }\nd:\n - [1 ,2,3]\n - e: \"it's\"\n...\n",
])  # fmt: skip
def test_the_dialect(text: str) -> None:
    cv2 = pytest.importorskip("cv2")
    root = read_tree(text.encode())
    assert [(n.tag, n.text) for n in root[0]] == [("b", "1"), ("c", "x, y")]
    assert root[1][0].text == "1 2 3"
    assert root[1][1][0].text == "it's"
    theirs = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
    assert theirs.getNode("a").getNode("c").string() == "x, y"
    assert theirs.getNode("d").at(1).getNode("e").string() == "it's"


@pytest.mark.parametrize("form", ["yml", "json"])
def test_mutations_of_yaml_and_json_raise_nothing_else(form: str, tmp_path: Path) -> None:
    rng = random.Random(1)
    text = stored(CASCADES["old layout"], tmp_path / f"c.{form}").read_bytes()
    for _ in range(200):
        data = bytearray(text[: rng.choice([len(text), 3000])])
        for _ in range(rng.randint(1, 5)):
            data[rng.randrange(10, len(data))] = rng.choice(b"-:[]{},\n \t\"'#&|.\0\xff_ 1")
        with contextlib.suppress(InputError):
            opencv_xml.parse(bytes(data))
