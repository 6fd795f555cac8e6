"""Where images come from: folders, patterns, lists, tar shards and URLs, named here and read on the workers."""

from __future__ import annotations

import glob
import os
import posixpath
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import fsspec

from vj._files import read_bounded
from vj.errors import InputError
from vj.images import MAX_BYTES, SUFFIXES

SHARDS = (".tar", ".tar.gz", ".tgz")
"""Endings of tar files of images, as WebDataset makes them."""

LISTS = (".txt", ".lst", ".list")
"""Endings of texts that name an image, a shard or another source but a list in each line."""

READS_AHEAD = 8
"""Images that are fetched from URLs while earlier ones are searched."""

_LIST_BYTES = 1 << 30
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::.*|://.*)")


class Chunk(NamedTuple):
    """The images of one job.

    Parameters
    ----------
    number : int
        From 0.
    names : tuple of str
        Files and URLs, or one shard.
    base : str
        Folder that names of files are relative to.
    """

    number: int
    names: tuple[str, ...]
    base: str

    @property
    def is_shard(self) -> bool:
        """Whether it is all images of a tar shard; how many is not known before it is read."""
        return len(self.names) == 1 and is_shard(self.names[0])


class Entry(NamedTuple):
    """An image of a chunk: its name and what returns its bytes, or raises `InputError`."""

    name: str
    read: Callable[[], bytes]


def is_url(name: str) -> bool:
    """Whether a name is for fsspec rather than a file of this machine."""
    return _URL.fullmatch(name) is not None


def is_shard(name: str) -> bool:
    """Whether a name is that of a tar file."""
    return name.lower().endswith(SHARDS)


def find(sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the names of all images and shards of sources, each once, in order; each folder sorted.

    Parameters
    ----------
    sources : path, str, or a sequence of them
        Each an image, a tar shard, a folder (with all that is below it), a pattern, a list, or the URL of one of
        these. What a list names relatively lies next to it.

    Returns
    -------
    list of str

    Raises
    ------
    InputError
        If a source cannot be listed, or there is nothing in one.
    """
    return list(dict.fromkeys(name for group in listed(sources) for name in group))


def listed(sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[list[str]]:
    """Return the names of the images and shards of each source; see `find`.

    Raises
    ------
    InputError
        As `find`.
    """
    given = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    groups = []
    for one in given:
        name = os.fspath(one)
        groups.append(_below(name))
        if not groups[-1]:
            raise InputError(f"{name}: expected images, got a source without any")
    if not groups:
        raise InputError("expected sources of images, got none")
    return groups


def chunks(names: Sequence[str], size: int) -> Iterator[Chunk]:
    """Yield names in chunks of at most `size` images; a shard is a chunk of its own."""
    base, number = str(Path.cwd()), 0
    waiting: list[str] = []
    for name in names:
        full = len(waiting) == size or (waiting and is_shard(name))
        if full:
            yield Chunk(number, tuple(waiting), base)
            number, waiting = number + 1, []
        if is_shard(name):
            yield Chunk(number, (name,), base)
            number += 1
        else:
            waiting.append(name)
    if waiting:
        yield Chunk(number, tuple(waiting), base)


# --- listing ----------------------------------------------------------------------------------------------------------


def _below(name: str, nested: bool = False) -> list[str]:
    try:
        found = _below_url(name) if is_url(name) else _below_path(name)
        if found is not None:
            return found
        if nested:
            raise InputError(f"{name}: expected images and shards in a list, got a list")
        text = _text(name)
    except InputError:
        raise
    except Exception as error:  # each kind of store has exceptions of its own
        raise InputError(f"{name}: expected a source of images, got {reason(error)}") from None
    lines = [line.strip() for line in text.splitlines()]
    return [one for line in lines if line and not line.startswith("#") for one in _below(_beside(name, line), True)]


def _below_path(name: str) -> list[str] | None:
    """Return what is below a path; None for a list."""
    path = Path(name)
    if path.is_dir():
        # Raises where the folder is closed; searching below it would find nothing and say nothing.
        os.listdir(path)  # noqa: PTH208
        wanted = (*SUFFIXES, *SHARDS)
        return sorted(str(p) for p in path.rglob("*") if p.name.lower().endswith(wanted) and p.is_file())
    if glob.has_magic(name) and not path.exists():
        return sorted(glob.glob(name, recursive=True))  # noqa: PTH207 (absolute patterns)
    return None if name.lower().endswith(LISTS) else [name]


def _below_url(url: str) -> list[str] | None:
    if url.lower().endswith(LISTS):
        return None
    # The query of a signed address is no pattern.
    magic = glob.has_magic(url.split("?")[0] if url.startswith("http") else url)
    if not magic and url.lower().split("?")[0].endswith((*SUFFIXES, *SHARDS)):
        return [url]
    fs, path = fsspec.core.url_to_fs(url)
    if magic:
        return [_full(fs, one) for one in sorted(fs.glob(path))]
    if not url.startswith("http") and not fs.isdir(path):
        fs.info(path)  # raises where nothing is there
        return [url]
    # Raises where a folder is closed; searching below it would find nothing and say nothing.
    fs.ls(path, detail=False)
    wanted = (*SUFFIXES, *SHARDS)
    found = [_full(fs, one) for one in sorted(fs.find(path)) if one.lower().endswith(wanted)]
    # A page without links may be an image whose address has no ending.
    return found or ([url] if url.startswith("http") and not url.endswith("/") else [])


def _full(fs: Any, path: str) -> str:
    return str(fs.unstrip_protocol(path))


def _text(name: str) -> str:
    data = fetch(name) if is_url(name) else read_bounded(name, _LIST_BYTES, "list of images")
    if b"\0" in data:
        raise InputError(f"{name}: expected a list of images as text, got other bytes")
    return data.decode("utf-8", "surrogateescape")


def _beside(source: str, line: str) -> str:
    """Return what a line of a list names: a URL or an absolute path as it is, another one next to the list."""
    if is_url(line) or Path(line).is_absolute():
        return line
    if is_url(source):
        return posixpath.join(posixpath.dirname(source), line)
    beside = Path(source).parent / line
    return line if not beside.exists() and Path(line).exists() else str(beside)


# --- reading ----------------------------------------------------------------------------------------------------------


def fetch(url: str, limit: int = MAX_BYTES) -> bytes:
    """Return what a URL holds, with one request.

    Raises
    ------
    InputError
        If it cannot be read or is larger than `limit` bytes.
    """
    try:
        fs, path = fsspec.core.url_to_fs(url)
        data = bytes(fs.cat_file(path, start=0, end=limit + 1))
    except Exception as error:  # each kind of store has exceptions of its own
        raise InputError(f"{url}: expected a readable image, got {reason(error)}") from None
    if len(data) > limit:
        raise InputError(f"{url}: expected at most {limit} bytes, got more")
    return data


def entries(chunk: Chunk) -> Iterator[Entry]:
    """Yield the images of a chunk in order; those of URLs are fetched ahead.

    Raises
    ------
    InputError
        If a shard cannot be read to its end; its images up to there have been yielded.
    """
    if chunk.is_shard:
        yield from _members(chunk.names[0], chunk.base)
        return
    ahead: deque[tuple[str, Future[bytes]]] = deque()
    with ThreadPoolExecutor(READS_AHEAD, thread_name_prefix="vj-fetch") as pool:
        upcoming = iter([name for name in chunk.names if is_url(name)])
        for name in chunk.names:
            if not is_url(name):
                yield Entry(name, lambda name=name: _file(name, chunk.base))  # type: ignore[misc]
                continue
            while len(ahead) < READS_AHEAD and (url := next(upcoming, None)) is not None:
                ahead.append((url, pool.submit(fetch, url)))
            yield Entry(name, ahead.popleft()[1].result)


def _file(name: str, base: str) -> bytes:
    path = os.path.join(base, name)  # noqa: PTH118 (the name is to stay as it was given)
    try:
        return read_bounded(path, MAX_BYTES, "image")
    except InputError as error:
        # The row calls an image what the user called it.
        raise InputError(str(error).replace(path, name, 1)) from None


def _members(shard: str, base: str) -> Iterator[Entry]:
    """Yield the images of a tar file as it streams by; what is no image is left out."""
    try:
        with closing(_opened(shard, base)) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                if not member.isfile() or not member.name.lower().endswith(SUFFIXES):
                    continue
                name = f"{shard}/{member.name}"
                if member.size > MAX_BYTES:
                    text = f"{name}: expected an image of at most {MAX_BYTES} bytes, got {member.size}"
                    yield Entry(name, lambda text=text: _raise(text))  # type: ignore[misc]
                    continue
                part = tar.extractfile(member)
                data = part.read() if part is not None else b""
                yield Entry(name, lambda data=data: data)  # type: ignore[misc]
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise InputError(f"{shard}: expected a tar file of images, got {reason(error)}") from None
    except InputError:
        raise
    except Exception as error:  # each kind of store has exceptions of its own
        raise InputError(f"{shard}: expected a readable tar file, got {reason(error)}") from None


def _raise(text: str) -> bytes:
    raise InputError(text)


def _opened(name: str, base: str) -> BinaryIO:
    url = name if is_url(name) else os.path.join(base, name)  # noqa: PTH118
    fs, path = fsspec.core.url_to_fs(url)
    file: BinaryIO = fs.open(path, "rb")
    return file


def refusal(name: str, base: str) -> str:
    """Return why a source cannot be opened, in words; empty if it can, or the reason is another than permission.

    Returns
    -------
    str
        Begins with ``no permission`` where that is the reason, and ``nothing there`` where there is nothing.
    """
    try:
        with closing(_opened(name, base)) as file:
            file.read(1)
    except Exception as error:
        if not is_url(name):
            return reason(error)
    else:
        return ""
    # Opening asks for the size first, and a server that refuses that says less about why.
    try:
        fs, path = fsspec.core.url_to_fs(name)
        fs.cat_file(path, start=0, end=1)
    except Exception as error:
        return reason(error)
    return ""


def reason(error: BaseException) -> str:
    """Return what went wrong with a file or a store, in a few words."""
    status = getattr(error, "status", None)
    text = " ".join(str(error).split())[:200]
    if isinstance(error, PermissionError) or status in (401, 403):
        return f"no permission ({text})"
    if isinstance(error, FileNotFoundError) or status == 404:
        return "nothing there"
    if isinstance(error, ImportError):
        return f"a kind of address whose package is missing ({text})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {text}"
