"""Where a command writes what belongs to its inputs: never over an input, and no name twice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


class Targets:
    """Names files in output folders after inputs.

    Parameters
    ----------
    inputs : sequence of Path
    """

    def __init__(self, inputs: Sequence[Path]) -> None:
        self._inputs: dict[tuple[int, int], Path] = {}
        for path in inputs:
            if (key := _identity(path)) is not None:
                self._inputs.setdefault(key, path)

    def names(self, paths: Sequence[Path], videos: set[Path], folder: Path, option: str) -> dict[Path, Path]:
        """Return a file in a folder for each input: its name, with -2, -3, ... where an earlier one has taken it.

        Names that differ only in case count as the same, as on Windows and macOS.

        Raises
        ------
        InputError
            If one of them is, by any name or link, an input.
        """
        from vj.errors import InputError

        named: dict[Path, Path] = {}
        taken: set[str] = set()
        for path in paths:
            suffix = _suffix(path, path in videos)
            number, target = 1, folder / f"{path.stem}{suffix}"
            while (key := os.path.realpath(target).casefold()) in taken:
                number += 1
                target = folder / f"{path.stem}-{number}{suffix}"
            if (source := self.replaces(target)) is not None:
                raise InputError(
                    f"{path}: expected {option} to name another folder than that of the images, "
                    f"got one where {target} would replace the input {source}"
                )
            taken.add(key)
            named[path] = target
        return named

    def replaces(self, target: Path) -> Path | None:
        """Return the input that a target would replace, or None."""
        key = _identity(target)
        return None if key is None else self._inputs.get(key)


def _suffix(path: Path, video: bool) -> str:
    from vj.video_files import SUFFIXES

    known = SUFFIXES if video else (".jpg", ".jpeg", ".png")
    return path.suffix if path.suffix.lower() in known else ".mp4" if video else ".png"


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what all names of one file share, or None if there is no such file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
