"""The file storage's reader against cv2 and against the strict reader."""

from __future__ import annotations

import contextlib
import gzip
import random
from pathlib import Path

import numpy as np
import pytest

from vj.cascade import opencv_xml
from vj.cascade.file_storage import MAX_BYTES, read_tree
from vj.errors import InputError

SMALL = opencv_xml.to_xml(opencv_xml.load("frontalface")).encode()


def same(a: object, b: object) -> bool:
    return opencv_xml.to_xml(a) == opencv_xml.to_xml(b)  # type: ignore[arg-type]


def cascade(data: bytes) -> object:
    return opencv_xml._read_root(read_tree(data), "c")


VARIANTS = {
    "as it is": SMALL,
    "dashes in a comment": SMALL.replace(b"<opencv_storage>", b"<!-------- a -- b --------->\n<opencv_storage>", 1),
    "Latin-1 in a comment": SMALL.replace(b"<opencv_storage>", b"<!-- M\xfcller -->\n<opencv_storage>", 1),
    "trailing NULs": SMALL + b"\0\0\0",
    "trailing text": SMALL + b"the end <",
    "no declaration": SMALL.split(b"\n", 1)[1],
    "gzip": gzip.compress(SMALL),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_lax_forms_hold_the_same_cascade(name: str) -> None:
    expected = opencv_xml.parse(SMALL, name="c")
    assert same(cascade(VARIANTS[name]), expected)


@pytest.mark.parametrize(
    "data",
    [b"", b"<a>", b"<a></b>", b"<!DOCTYPE a><a/>", b"<a>&x;</a>", b"<!-- <a/>", b"<a>" * 60, b"{" * 99999,
     b"[1", gzip.compress(b"<a/>")[:-9], gzip.compress(b" " * (MAX_BYTES + 1))],
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


# cv2 4.14 itself refuses a file without a declaration, and this text after the root; our reader is laxer there.
@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("no declaration", "trailing text")])
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
