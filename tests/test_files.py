"""Files come to their names whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from vj._files import read_bounded, replacing, write_bytes, write_text
from vj.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "cascade.xml"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    target = tmp_path / "a"
    write_text(target, "old")
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == tmp_path
    assert target.read_text() == "new"


def test_new_files_have_the_permissions_of_any_new_file(tmp_path):
    write_bytes(tmp_path / "ours", b"x")
    (tmp_path / "theirs").write_bytes(b"x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "theirs")]
    assert modes[0] == modes[1]


def test_the_longest_legal_name_can_be_written(tmp_path):
    target = tmp_path / ("a" * 251 + ".png")
    write_bytes(target, b"x")
    assert target.read_bytes() == b"x"


def test_a_symbolic_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_text_is_written_as_utf8_with_unix_line_ends(tmp_path):
    write_text(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == "é\n".encode()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_only_regular_files_up_to_the_limit_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "fits").write_bytes(b"abc")
    assert read_bounded(tmp_path / "fits", 3) == b"abc"
    for name, limit in (("pipe", 9), ("fits", 2), ("none", 9), ("", 9), ("a" * 300, 9), ("a\0b", 9)):
        with pytest.raises(InputError, match="expected a"):
            read_bounded(tmp_path / name, limit)


def test_reading_reserves_no_memory_for_the_limit(tmp_path):
    """One read of 8 GB at most, of a file of three bytes, fails where memory is bounded."""
    resource = pytest.importorskip("resource")
    (tmp_path / "fits").write_bytes(b"abc")
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), before[1]))
    try:
        assert read_bounded(tmp_path / "fits", 8 << 30) == b"abc"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_file_that_grows_is_read_up_to_the_limit():
    """Those of /proc say that they are empty."""
    place = Path("/proc/self/status")
    if not place.exists():
        pytest.skip("needs /proc")
    assert read_bounded(place, 1 << 20).startswith(b"Name:")
    with pytest.raises(InputError, match="at most 10 bytes, got more"):
        read_bounded(place, 10)


def test_a_name_no_file_can_have_is_shown_by_its_beginning():
    with pytest.raises(InputError) as raised:
        read_bounded("x" * 9000, 9)
    assert str(raised.value) == f"{'x' * 200}...: expected a readable file, got File name too long"
