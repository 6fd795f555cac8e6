"""What lies at URLs, for the trainer: read, listed, stamped and copied through fsspec."""

from __future__ import annotations

import atexit
import hashlib
import posixpath
import shutil
import tempfile
from pathlib import Path

import fsspec

from vj import _files
from vj.cluster import sources
from vj.cluster.sources import is_shard, is_url, reason
from vj.errors import InputError

__all__ = ["install", "is_url"]

# What stores say of a file that changes with its contents; times of change differ between copies.
_STAMPS = ("size", "ETag", "etag", "md5Hash", "content_md5", "checksum")


class Urls:
    """Reads URLs; a `vj._files.Store`."""

    def __init__(self) -> None:
        self._copies: dict[str, str] = {}
        self._folder: Path | None = None

    def read(self, url: str, limit: int) -> bytes:
        """Return what a URL holds, of at most `limit` bytes.

        Raises
        ------
        InputError
            If it cannot be read or is larger.
        """
        return sources.fetch(url, limit)

    def find(self, url: str) -> list[str]:
        """Return the images that a URL stands for.

        Raises
        ------
        InputError
            If it cannot be listed, or names tar shards.
        """
        found = sources.find(url)
        if shard := next((name for name in found if is_shard(name)), None):
            raise InputError(f"{shard}: expected images, each at its own address, got a tar shard")
        return found

    def stamp(self, url: str) -> bytes:
        """Return bytes that change when what a URL holds does: from its size and what the store says of it."""
        try:
            fs, path = fsspec.core.url_to_fs(url)
            found = fs.info(path)
        except Exception:  # each kind of store has exceptions of its own; what cannot be read has a stamp, too
            return bytes(32)
        known = {key: str(found[key]) for key in _STAMPS if found.get(key) is not None}
        return hashlib.sha256(repr(sorted(known.items())).encode()).digest()

    def copy(self, url: str) -> str:
        """Return a file or folder of this machine with what a URL holds; kept until the process ends.

        Raises
        ------
        InputError
            If it cannot be read.
        """
        if url in self._copies:
            return self._copies[url]
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="vj-urls-"))
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        name = posixpath.basename(url.split("?")[0].rstrip("/")) or "files"
        place = self._folder / str(len(self._copies)) / name
        place.parent.mkdir()
        try:
            fs, path = fsspec.core.url_to_fs(url)
            if fs.isfile(path):
                fs.get_file(path, str(place))
            else:
                fs.get(path.rstrip("/") + "/", f"{place}/", recursive=True)
            if not place.exists():
                raise FileNotFoundError(url)
        except Exception as error:  # each kind of store has exceptions of its own
            raise InputError(f"{url}: expected positives, got {reason(error)}") from None
        self._copies[url] = str(place)
        return str(place)

    def original(self, path: str) -> str:
        """Return the URL of a file that `copy` made, or the path itself."""
        for url, place in self._copies.items():
            if path == place:
                return url
            if path.startswith(f"{place}/"):
                return f"{url.rstrip('/')}/{path[len(place) + 1 :]}"
        return path


def install() -> None:
    """Have this process read URLs wherever it reads files."""
    if not _files.stores:
        _files.stores.append(Urls())
