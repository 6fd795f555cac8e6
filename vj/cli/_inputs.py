"""The images and videos that a command is given: names, folders, patterns, names on stdin."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MORE_SUFFIXES = {
    ".avif",
    ".dib",
    ".gif",
    ".heic",
    ".heif",
    ".hif",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jxl",
    ".pbm",
    ".pnm",
    ".tga",
}
"""Endings of further images: some cannot be read, and are listed then rather than left out."""


class Inputs(NamedTuple):
    """What was named.

    Parameters
    ----------
    paths : list of Path
        Each once, in the order given; of folders and patterns what is in them.
    failed : list of str
        One line for each folder or pattern without any, and for each folder that cannot be read.
    left_out : dict of Path to int
        How many files of a folder are neither image nor video by their endings.
    """

    paths: list[Path]
    failed: list[str]
    left_out: dict[Path, int]


def find_inputs(names: Sequence[str]) -> Inputs:
    """Return the images and videos named; ``-`` stands for names on stdin.

    Raises
    ------
    InputError
        If there is no name.
    """
    from vj.errors import InputError

    given: list[str] = []
    for name in names:
        given += [line.rstrip("\r\n") for line in sys.stdin] if name == "-" else [name]
    if not given:
        raise InputError("expected names of images on stdin, got none")
    made = Inputs([], [], {})
    found: dict[Path, None] = {}
    for name in filter(None, given):
        below = [path for one in _named(name) for path in (_in_folder(one, made) if one.is_dir() else [one])]
        if not below:
            made.failed.append(f"{Path(name)}: expected images, got a folder or a pattern without any")
        found |= dict.fromkeys(below)
    made.paths.extend(found)
    return made


def _named(name: str) -> list[Path]:
    import glob

    if glob.has_magic(name) and not Path(name).exists():
        # A quoted pattern, or a shell that does not expand them, as on Windows.
        return [Path(one) for one in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207 (absolute patterns)
    return [Path(name)]


def _in_folder(folder: Path, made: Inputs) -> list[Path]:
    from vj.images import list_images
    from vj.videos import list_videos

    def closed(error: OSError) -> None:
        made.failed.append(f"{error.filename}: expected a folder that can be read, got {error.strerror}")

    files = sum(len(names) for _, _, names in os.walk(folder, onerror=closed))
    more = (path for path in folder.rglob("*") if path.suffix.lower() in MORE_SUFFIXES and path.is_file())
    below = sorted([*list_images(folder), *list_videos(folder), *more])
    if below and files > len(below):
        made.left_out[folder] = files - len(below)
    return below
