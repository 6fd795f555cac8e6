"""Images that are not what their first bytes say."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from photos import gray

from vj.errors import InputError
from vj.images import read_bgr


def png(*chunks):
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def test_a_png_chunk_that_claims_gigabytes_is_refused(tmp_path):
    """OpenCV 4.14 reserves and fills what a chunk claims to hold: 4 GB and 5 s for a file of 700 bytes."""
    data = bytearray(cv2.imencode(".png", gray("camera", (20, 20)))[1].tobytes())
    at = data.find(b"IDAT") - 4
    for claimed in (2**32 - 1, 2**30, len(data) + 1):
        data[at : at + 4] = struct.pack(">I", claimed)
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(InputError, match=f"got a PNG of {len(data)} bytes with a chunk of {claimed}"):
            read_bgr(tmp_path / "a.png")


def test_a_png_of_nothing_but_chunks_is_refused(tmp_path):
    head = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(png((b"IHDR", head)) + png((b"teXt", b""))[8:] * 1_000_001)
    with pytest.raises(InputError, match="more than 1000000 chunks"):
        read_bgr(tmp_path / "a.png")


def test_a_png_with_many_chunks_and_more_behind_its_end_is_read(tmp_path):
    image = np.array(gray("camera", (20, 20)))
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    packed = zlib.compress(rows)
    parts = [(b"IDAT", packed[k : k + 7]) for k in range(0, len(packed), 7)]
    head = struct.pack(">IIBBBBB", 20, 20, 8, 0, 0, 0, 0)
    data = png((b"IHDR", head), *parts, (b"IEND", b"")) + b"\xff" * 50
    (tmp_path / "a.png").write_bytes(data)
    assert np.array_equal(read_bgr(tmp_path / "a.png")[:, :, 0], image)
