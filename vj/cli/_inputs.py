"""The images and videos that a command is given: names, folders, patterns, names on stdin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Inputs(NamedTuple):
    """What was named.

    Parameters
    ----------
    paths : list of Path
        Each once, in the order given; of folders and patterns what is in them.
    empty : list of str
        One line for each folder or pattern without any.
    left_out : dict of Path to int
        How many files of a folder are neither image nor video by their endings.
    """

    paths: list[Path]
    empty: list[str]
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
    found: dict[Path, None] = {}
    empty: list[str] = []
    left_out: dict[Path, int] = {}
    for name in filter(None, given):
        path = Path(name)
        below = _below(name, left_out)
        if not below:
            empty.append(f"{path}: expected images, got a folder or a pattern without any")
        found |= dict.fromkeys(below)
    return Inputs(list(found), empty, left_out)


def _below(name: str, left_out: dict[Path, int]) -> list[Path]:
    import glob

    from vj.images import list_images
    from vj.videos import list_videos

    path = Path(name)
    if path.is_dir():
        below = sorted([*list_images(path), *list_videos(path)])
        if others := sum(p.is_file() for p in path.rglob("*")) - len(below):
            left_out[path] = others
        return below
    if glob.has_magic(name) and not path.exists():
        # A quoted pattern, or a shell that does not expand them, as on Windows.
        return [Path(one) for one in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207 (absolute patterns)
    return [path]
