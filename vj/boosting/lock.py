"""One run in a folder: a lock that dies with the process that holds it."""

from __future__ import annotations

import errno
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from vj.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
"""The file that is locked; it says who holds the lock and is removed when the lock is released."""

_BUSY = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
# Windows locks bytes against reading, too: one far after the text leaves the text readable.
_FAR = 1 << 30


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of a folder, which is made if there is none.

    The system releases the lock when the process ends, however it ends: a file that is left over locks nothing. On a
    file system without locks the block runs without one. Folders made for the lock are removed if they are empty
    afterwards.

    Parameters
    ----------
    folder : str or path

    Raises
    ------
    InputError
        If it is held, by this process or by another one; the message names the holder.
    OSError
        If the folder cannot be written to.
    """
    place = Path(folder)
    made = [path for path in (place, *place.parents) if not path.exists()]
    descriptor = _acquire(place / NAME)
    try:
        yield
    finally:
        _release(place / NAME, descriptor)
        with suppress(OSError):
            for path in made:
                path.rmdir()


def _acquire(path: Path) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another run has just ended and removed its folder
            continue
        try:
            if not _lock(descriptor):
                raise InputError(
                    f"{path.parent}: expected a folder that no other run uses, got one in use by {_holder(path)}; "
                    f"stop that run or choose another folder"
                )
            if _is_at(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, _self())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # The holder removed the file between our opening and our locking it.
        os.close(descriptor)


def _release(path: Path, descriptor: int) -> None:
    # Removed while still locked: who waits with this file open finds that it is no longer the folder's. Windows keeps
    # open files, so there it stays.
    with suppress(OSError):
        path.unlink()
    # A forked child would keep the lock if it were only closed.
    with suppress(OSError):
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open file; False if somebody else holds it."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError as error:
        return error.errno not in _BUSY
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _self() -> bytes:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}).encode()


def _holder(path: Path) -> str:
    """Return who holds the lock, in words; the holder may not have written it yet."""
    try:
        with path.open("rb") as file:
            text = file.read(1000)
        found = json.loads(text)
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
