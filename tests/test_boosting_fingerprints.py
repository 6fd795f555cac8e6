"""Fingerprints follow contents, order, shape and nothing else."""

import os

import numpy as np
import pytest

from vj.boosting.fingerprints import fingerprint

LARGE = 700_000


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(1)
    for name, size in (("a.jpg", 5000), ("b.jpg", LARGE), ("c.jpg", 0)):
        (tmp_path / name).write_bytes(rng.bytes(size))
    return sorted(tmp_path.iterdir())


def test_files(files):
    first = fingerprint(files)
    assert fingerprint([str(path) for path in files]) == first
    assert fingerprint(files[::-1]) != first
    assert fingerprint(files[:2]) != first
    moved = files[0].rename(files[0].with_name("d.jpg"))
    assert fingerprint([moved, *files[1:]]) == first
    content = files[1].read_bytes()
    seen = {first}
    for place in (0, 65_535, LARGE // 3, 2 * LARGE // 3, LARGE - 1):
        files[1].write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        seen.add(fingerprint([moved, *files[1:]]))
    files[1].write_bytes(content + b"x")
    seen.add(fingerprint([moved, *files[1:]]))
    assert len(seen) == 7


def test_what_cannot_be_read_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    gone = fingerprint([tmp_path / "missing"])
    assert fingerprint([tmp_path / "pipe"]) == fingerprint(["a\0b"]) == fingerprint([tmp_path]) == gone
    (tmp_path / "missing").write_bytes(b"")
    assert fingerprint([tmp_path / "missing"]) != gone


def test_arrays():
    array = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert fingerprint([array]) == fingerprint([np.asfortranarray(array)])
    others = [array.reshape(6, 4), array.view(np.int8), array[::-1], array[:3]]
    assert len({fingerprint([one]) for one in [array, *others]}) == 5
