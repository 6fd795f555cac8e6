"""One run in a folder at a time, and no lock that outlives its holder."""

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vj.boosting.lock import NAME, locked
from vj.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
HOLD = """
import sys, time
from vj.boosting.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def _holder(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_is_the_first_and_a_killed_one_holds_nothing(tmp_path):
    process = _holder(tmp_path / "out")
    with pytest.raises(InputError) as error, locked(tmp_path / "out"):
        pass
    assert f"process {process.pid} on {platform.node()} since 20" in str(error.value)
    assert "\n" not in str(error.value)
    process.kill()
    process.communicate()
    assert (tmp_path / "out" / NAME).exists()
    with locked(tmp_path / "out"):
        assert f'"pid": {os.getpid()}' in (tmp_path / "out" / NAME).read_text()
        # Nor twice in one process.
        with pytest.raises(InputError, match=f"process {os.getpid()} on"), locked(tmp_path / "out"):
            pass
    # The folder was there before; the file is gone.
    assert list((tmp_path / "out").iterdir()) == []


def test_folders_made_for_the_lock_go_with_it_if_nothing_is_in_them(tmp_path):
    with locked(tmp_path / "a/b"):
        assert (tmp_path / "a/b" / NAME).is_file()
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a/b"):
        (tmp_path / "a/kept").touch()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["kept"]


def test_a_holder_that_has_not_written_its_name_yet(tmp_path):
    with locked(tmp_path):
        for text in ("", "[1]", "{}", "[" * 900):
            (tmp_path / NAME).write_text(text)
            with pytest.raises(InputError, match="in use by another process"), locked(tmp_path):
                pass


def test_never_two_at_once_while_the_file_comes_and_goes(tmp_path):
    """Whoever opened a file that its holder then removed must not take it for the lock."""
    inside, most, held = [], 0, 0
    guard = threading.Lock()

    def work():
        nonlocal most, held
        for _ in range(300):
            try:
                with locked(tmp_path / "out"):
                    inside.append(1)
                    with guard:
                        most, held = max(most, len(inside)), held + 1
                    inside.pop()
            except InputError:
                pass

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert held > 6
    assert not list(tmp_path.rglob(NAME))


def test_the_lock_of_windows(tmp_path, monkeypatch):
    """With a stand-in for msvcrt: it locks a byte after the text, and is busy as Windows is."""
    import errno
    import types

    taken = []

    def locking(descriptor, mode, n):
        assert (mode, n, os.lseek(descriptor, 0, os.SEEK_CUR)) == (2, 1, 1 << 30)
        if taken:
            raise OSError(errno.EACCES, "Permission denied")
        taken.append(descriptor)

    monkeypatch.setattr("vj.boosting.lock.fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    with locked(tmp_path):
        assert (tmp_path / NAME).stat().st_size < 200
        with pytest.raises(InputError, match=f"process {os.getpid()} on"), locked(tmp_path):
            pass


def test_without_locks_in_the_file_system_runs_go_on(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path), locked(tmp_path):
        pass
