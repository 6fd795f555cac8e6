"""What the commands do on a cluster; nothing of it is imported before ``--cluster`` is given."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vj.cli import _common
from vj.errors import InputError

if TYPE_CHECKING:
    from vj.rows import Search

HELP = "the address of a Dask scheduler, or local:N for N processes of this machine"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give ``vj-detect`` the options of a run on a cluster."""
    add = parser.add_argument_group(
        "on a cluster (needs vj[cluster])",
        "Images, no videos; inputs may also be lists (.txt), tar shards and URLs such as s3://bucket/photos. "
        "Rows go to parts in the output folder; the same command goes on where an earlier one stopped.",
    ).add_argument
    add("--cluster", metavar="ADDRESS", help=HELP)
    add("--output", metavar="DIR", help="folder for the parts and manifest.json")
    add("--parts", choices=("jsonl", "parquet"), default="jsonl", help="kind of the parts (default: jsonl)")
    add("--chunk", type=int, metavar="N", help="images in a part (default: 16 to 1024, by their number)")


@contextmanager
def connected(address: str, packages: tuple[str, ...] = ()) -> Iterator[Any]:
    """Yield a client of a cluster.

    Raises
    ------
    InputError
        If the packages are not installed, or for what `vj.cluster.connect` refuses.
    """
    try:
        import vj.cluster.connection
    except ModuleNotFoundError as error:
        raise InputError(f"--cluster: expected the packages of vj[cluster], got no module {error.name}") from None
    with vj.cluster.connection.connect(address, packages=packages) as client:
        yield client


@contextmanager
def engine(address: str | None) -> Iterator[Any]:
    """Yield what a training mines and searches with: the workers of a cluster, or None where there is no address.

    Raises
    ------
    InputError
        As `connected`.
    """
    if address is None:
        yield None
        return
    with connected(address) as client:
        from vj.cluster.engine import Engine

        yield Engine(client)


def detect(program: str, args: argparse.Namespace, search: Search) -> int:
    """Search images on a cluster as ``vj-detect`` was asked to; returns the exit code."""
    if not args.output:
        raise InputError("--cluster: expected a folder for the results (--output DIR), got none")
    for name in ("annotate", "crops", "anonymize", "camera"):
        if getattr(args, name) is not None:
            raise InputError(f"--cluster: expected rows only, got --{name}, which works here")
    if args.format != "jsonl":
        raise InputError(f"--cluster: expected --parts as the kind of the results, got --format {args.format}")
    sources: list[str] = []
    for name in args.images:
        sources += [line.rstrip("\r\n") for line in sys.stdin] if name == "-" else [name]
    with connected(args.cluster, ("pyarrow",) if args.parts == "parquet" else ()) as client:
        from vj.cluster.detection import detect as detect_on

        shown = Shown(program, quiet=args.quiet)
        done = detect_on(
            client,
            [name for name in sources if name],
            search,
            output=args.output,
            parts=args.parts,
            chunk=args.chunk,
            progress=shown.parts,
        )
    shown.end()
    for name in done.set_aside:
        _common.report(program, f"{name}: set aside, workers died of it")
    earlier = f", {done.before} of them from before" if done.before else ""
    failed = f", {done.failed} could not be used" if done.failed else ""
    if failed or not args.quiet:
        _common.report(program, f"{done.images} images{failed}; {done.chunks} parts in {args.output}{earlier}")
    if done.failed == done.images and done.images:
        return _common.BAD_INPUT
    return _common.SOME_FAILED if done.failed else _common.OK


class Shown:
    """How far a run is, on one line of a terminal.

    Parameters
    ----------
    program : str
    quiet : bool
    """

    def __init__(self, program: str, *, quiet: bool) -> None:
        self._program, self._terminal = program, sys.stderr.isatty() and not quiet
        self._last, self._start, self._width = 0.0, time.monotonic(), 0

    def parts(self, done: int, every: int, images: int) -> None:
        """Show how many parts there are, and how many images a second this run searches."""
        now = time.monotonic()
        if not self._terminal or (now - self._last < 0.5 and done < every):
            return
        self._last = now
        rate = images / max(now - self._start, 1e-3)
        text = f"{self._program}: {done} of {every} parts, {rate:.1f} images a second"
        print(f"\r{text:<{self._width}}", end="", file=sys.stderr, flush=True)
        self._width = len(text)

    def end(self) -> None:
        """Leave the line."""
        if self._width:
            print(file=sys.stderr)
