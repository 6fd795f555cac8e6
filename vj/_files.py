"""Reading files of bounded size, and writing files whole or not at all: the one place where a file gets its name."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vj.errors import InputError


def read_bounded(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Devices and named pipes are refused, since reading them may never end; the bound holds whatever size the file says
    it has.

    Parameters
    ----------
    path : str or path
    limit : int
        Largest number of bytes.

    Raises
    ------
    InputError
        If there is no such file, it cannot be read, it is not regular, or it is larger.
    """
    name = os.fspath(path)
    try:
        # Without O_NONBLOCK, opening a named pipe waits for its writer.
        handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InputError(f"{name}: expected a regular file, got another kind")
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: expected a readable file, got {getattr(error, 'strerror', None) or error}") from None
    if len(data) > limit:
        raise InputError(f"{name}: expected at most {limit:,} bytes, got more")
    return data


@contextmanager
def replacing(path: str | os.PathLike[str], suffix: str = ".tmp") -> Iterator[Path]:
    """Yield the name of an empty file next to `path` that takes its place once the block ends without an error.

    The data are on the disk before the new file takes the name, so that a power cut leaves the old file or the new
    one. The temporary name is random: process ids recur in containers. It is short, so that any legal target works.

    Parameters
    ----------
    path : str or path
        The file to write; a symbolic link is followed, so that its target is replaced and the link stays.
    suffix : str
        Ending of the temporary file, for writers that go by it.

    Yields
    ------
    Path
        What the block should write to.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".vj-{secrets.token_hex(8)}{suffix}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, whole or not at all; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file as UTF-8 with Unix line ends, whole or not at all; see `replacing`."""
    write_bytes(path, text.encode("utf-8"))
