"""The .vec writer against the reader and the format's bytes."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from vj.datasets.opencv_samples import read_vec
from vj.datasets.vec_files import write_vec
from vj.errors import InputError


def test_bytes_and_round_trip(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (7, 10, 20), dtype=np.uint8)
    path = tmp_path / "a.vec"
    assert write_vec(path, iter(samples)) == 7
    assert np.array_equal(read_vec(path, (20, 10)), samples)
    data = path.read_bytes()
    assert struct.unpack_from("<iihh", data) == (7, 200, 0, 0)
    assert len(data) == 12 + 7 * (1 + 2 * 200)
    assert data[12] == 0 and struct.unpack_from("<200h", data, 13) == tuple(samples[0].ravel().tolist())


@pytest.mark.parametrize("shapes", [[], [(4, 4), (4, 5)], [(4,)], [(0, 4)]])
def test_a_refusal_leaves_the_old_file(shapes: list[tuple[int, ...]], tmp_path: Path) -> None:
    path = tmp_path / "a.vec"
    path.write_bytes(b"old")
    with pytest.raises(InputError):
        write_vec(path, (np.zeros(shape, np.uint8) for shape in shapes))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
