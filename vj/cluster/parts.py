"""The results of a run: parts written whole, and a manifest that says which run they belong to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vj._files import read_json, sweep, write_bytes, write_text
from vj.boosting.lock import locked
from vj.cluster.encoding import KINDS
from vj.errors import InputError

MANIFEST = "manifest.json"
VERSION = 1
_MANIFEST_BYTES = 1 << 24


class Parts:
    """The folder of a run's results.

    Parameters
    ----------
    folder : path
    run : dict
        What a run that goes on with these results must agree with: plain values by name.
    kind : str
        One of `vj.cluster.encoding.KINDS`.
    chunks : int
        How many parts there will be.
    """

    def __init__(self, folder: str | os.PathLike[str], run: dict[str, Any], kind: str, chunks: int) -> None:
        self.folder, self.run, self.kind, self.chunks = Path(folder), run, kind, chunks
        self._suffix = KINDS[kind]

    @contextmanager
    def open(self) -> Iterator[set[int]]:
        """Hold the folder, which is made if there is none; yields the numbers of the parts that are there.

        Raises
        ------
        InputError
            If it holds parts of another run, is in use, or cannot be written to.
        """
        self._compare()
        try:
            with locked(self.folder):
                # Again: another run may have begun there in between.
                begun = self._compare()
                sweep(self.folder)
                if not begun:
                    self._write_manifest({"finished": False})
                yield self._finished()
        except OSError as error:
            raise self._error(error) from None

    def there(self) -> set[int]:
        """Return the numbers of the parts that are there.

        Raises
        ------
        InputError
            If they are of another run.
        """
        self._compare()
        return self._finished()

    def write(self, number: int, data: bytes) -> None:
        """Write a part, whole or not at all.

        Raises
        ------
        InputError
            If it cannot be written, as on a full disk.
        """
        try:
            write_bytes(self.path(number), data)
        except OSError as error:
            raise self._error(error) from None

    def path(self, number: int) -> Path:
        """Return the file of a part."""
        return self.folder / f"part-{number:08d}{self._suffix}"

    def finish(self, summary: dict[str, Any]) -> None:
        """Say in the manifest that all parts are there."""
        try:
            self._write_manifest({"finished": True, **summary})
        except OSError as error:
            raise self._error(error) from None

    def _finished(self) -> set[int]:
        found = {path.name for path in self.folder.glob("part-*")}
        return {number for number in range(self.chunks) if self.path(number).name in found}

    def _compare(self) -> bool:
        """Whether this run has begun in the folder; raises if another one has."""
        path = self.folder / MANIFEST
        if not os.path.lexists(path):
            if part := next(self.folder.glob("part-*"), None):
                raise InputError(f"{part}: expected a folder without results, or with a manifest, got neither")
            return False
        found = read_json(path, _MANIFEST_BYTES, "manifest")
        before = found.get("run") if isinstance(found, dict) and found.get("version") == VERSION else None
        if not isinstance(before, dict):
            raise InputError(f"{path}: expected a manifest of version {VERSION}, got something else")
        differing = [key for key, value in self.run.items() if before.get(key) != value]
        if differing:
            raise InputError(
                f"{self.folder}: expected the run begun there, got another {' and '.join(differing)} "
                f"(finish that run, or choose another folder)"
            )
        return True

    def _write_manifest(self, more: dict[str, Any]) -> None:
        table = {"version": VERSION, "run": self.run, "parts": self.kind, "chunks": self.chunks, **more}
        write_text(self.folder / MANIFEST, json.dumps(table, indent=1) + "\n")

    def _error(self, error: OSError) -> InputError:
        return InputError(
            f"{error.filename or self.folder}: expected a folder for results that can be written to, "
            f"got {error.strerror or error}; the same command goes on from the parts that are there"
        )


def digest(value: Any) -> str:
    """Return a text that changes when a value does: plain values, arrays, and data classes of these."""
    total = hashlib.sha256()
    _add(total, value)
    return total.hexdigest()[:32]


def _add(total: Any, value: Any) -> None:
    total.update(type(value).__name__.encode() + b"(")
    if isinstance(value, np.ndarray):
        total.update(f"{value.dtype.str} {value.shape}".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            if not one.name.startswith("_"):
                total.update(one.name.encode())
                _add(total, getattr(value, one.name))
    elif isinstance(value, dict):
        for key in sorted(value):
            total.update(repr(key).encode())
            _add(total, value[key])
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for item in value:
            _add(total, item)
    else:
        total.update(repr(value).encode("utf-8", "backslashreplace"))
    total.update(b")")
