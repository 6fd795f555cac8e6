"""Files in and out: reading a regular file up to a bound, writing one whole or not at all."""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from vj.errors import InputError


class Store(Protocol):
    """Reads what lies at URLs; see `vj.cluster.urls`."""

    def read(self, url: str, limit: int) -> bytes:
        """Return what a URL holds, of at most `limit` bytes."""

    def find(self, url: str) -> list[str]:
        """Return the images that a URL of an image, a folder, a pattern or a list stands for."""

    def stamp(self, url: str) -> bytes:
        """Return bytes that change when what a URL holds does, without reading it."""

    def copy(self, url: str) -> str:
        """Return a file or folder of this machine with what a URL holds."""

    def original(self, path: str) -> str:
        """Return the URL of a file that `copy` made, or the path itself."""


stores: list[Store] = []
"""What reads URLs, at most one: none before `vj.cluster` is used."""

# A Path makes s3:/bucket of s3://bucket.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def as_url(name: str | os.PathLike[str]) -> str | None:
    """Return the URL that a name is, also after it has been a `Path`; None if it is that of a file."""
    found = _URL.fullmatch(os.fspath(name))
    if found is None:
        return None
    return f"{found[1]}://{'/' if found[1] == 'file' else ''}{found[2]}"


def store(url: str) -> Store:
    """Return what reads URLs.

    Raises
    ------
    InputError
        If nothing does.
    """
    if not stores:
        raise InputError(f"{url}: expected a file or folder, got a URL; those are read with --cluster")
    return stores[0]


def read_bounded(path: str | os.PathLike[str], limit: int, what: str = "file") -> bytes:
    """Return the contents of a regular file of at most `limit` bytes.

    A pipe would block and a device may never end, so neither is read. The size is checked on the open file, and no more
    than the limit is read even if the file grows.

    Parameters
    ----------
    path : str or path
    limit : int
        Largest size in bytes.
    what : str
        What error messages call the file, such as "image" or "cascade file".

    Returns
    -------
    bytes

    Raises
    ------
    InputError
        If the file cannot be read, is not a regular file, or is larger.
    """
    name, article = _shown(path), "an" if what[0] in "aeiou" else "a"
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    no_wait = getattr(os, "O_NONBLOCK", 0)
    if (url := as_url(path)) is not None:
        return store(url).read(url, limit)
    try:
        with open(path, "rb", opener=lambda found, flags: os.open(found, flags | no_wait)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{name}: expected a readable {what}, got {_kind(status.st_mode)}")
            if status.st_size > limit:
                raise InputError(f"{name}: expected {article} {what} of at most {limit} bytes, got {status.st_size}")
            data = _read(file, limit + 1, status.st_size + 1)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{name}: expected a readable {what}, got {error.strerror or error}") from None
    except ValueError as error:  # a name with a NUL byte
        raise InputError(f"{name!r}: expected a readable {what}, got {error}") from None
    if len(data) > limit:
        raise InputError(f"{name}: expected {article} {what} of at most {limit} bytes, got more")
    return data


def _shown(path: str | os.PathLike[str]) -> str:
    """Return a path as messages show it: whole, unless no file can have so long a name."""
    name = os.fspath(path)
    return name if len(name) <= 4096 else f"{name[:200]}..."


def _read(file: BinaryIO, most: int, expected: int) -> bytes:
    """Read until `most` bytes or the end; asking for all at once would reserve memory for the limit, not the file."""
    parts: list[bytes] = []
    while most > 0 and (part := file.read(min(most, max(expected, 1 << 16)))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def read_json(path: str | os.PathLike[str], limit: int, what: str) -> Any:
    """Return what a JSON file holds; see `read_bounded`.

    Raises
    ------
    InputError
        If the file cannot be read, is too large, or holds no JSON.
    """
    data = read_bounded(path, limit, what)
    try:
        return json.loads(data.decode("utf-8-sig"))
    # ValueError: besides what is no JSON or no UTF-8, an integer of more digits than Python converts.
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{os.fspath(path)}: expected a {what} as JSON, got {reason[:200]}") from None


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"


def is_file(path: Path) -> bool:
    """Whether a path leads to a file; False for names that no file can have and for closed folders."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Whether there is anything at a path; False for names that no file can have and for closed folders."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


_TEMPORARY = re.compile(r"\.vj-[0-9a-f]{16}\.\w+")
"""Names that `replacing` gives."""


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
    except OSError as error:
        # A write that fails, as on a full disk, does not say which file it was; and nobody knows the temporary name.
        error.filename = str(target) if error.filename in (None, str(temporary)) else error.filename
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove what `replacing` was writing in a folder when its process was killed.

    Only for a folder that nobody else writes to: the files of others that are writing look the same.
    """
    for path in Path(folder).glob(".vj-*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Put the names in a folder on the disk: without it, a power cut may undo a renaming that a removal followed.

    Where folders cannot be opened (Windows) or synced (some network file systems) nothing is done.
    """
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, whole or not at all; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file as UTF-8 with Unix line ends, whole or not at all; see `replacing`.

    Names of files that are not UTF-8 keep their bytes.
    """
    write_bytes(path, text.encode("utf-8", "surrogateescape"))
