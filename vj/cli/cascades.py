"""``vj-cascades``: list the cascades on this machine; install OpenCV's stock cascades for OpenCV 5."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from vj.cli._common import BAD_INPUT, OK, SOME_FAILED, add_version, report, run
from vj.errors import InputError

DESCRIPTION = "List the cascades that this machine has, and get OpenCV's stock cascades where OpenCV 5 has none."

# The smallest wheel that has the files, and one that exists whatever this machine is.
_WHEEL = "opencv-python-headless>=4.8,<5"
_ANY_SYSTEM = ("--platform", "manylinux2014_x86_64", "--python-version", "3.11", "--implementation", "cp", "--abi")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, 1 if a file listed is no cascade, 2 if the files cannot be had."""
    return run("vj-cascades", _command, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vj-cascades", description=DESCRIPTION)
    add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="list the cascades that are found by name, and where")
    install = commands.add_parser(
        "install", help="download the wheel of opencv-python 4 with pip, take its cascades out and verify them"
    )
    install.add_argument("--wheel", metavar="FILE", help="use this wheel instead of downloading one")
    install.add_argument("--folder", metavar="PATH", help="where to put them (default: the user's data folder)")
    return parser


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.command == "list":
        return _list()
    return _install(arguments.wheel, arguments.folder)


def _list() -> int:
    from vj.cascade.opencv_xml import load
    from vj.cascade.stock import known

    rows, failed = [("name", "kind", "window", "stages", "file")], OK
    for path in known():
        try:
            cascade = load(path)
        except InputError as error:
            report("vj-cascades", str(error))
            failed = SOME_FAILED
            continue
        size = f"{cascade.window[0]}x{cascade.window[1]}"
        rows.append((path.stem, cascade.kind, size, str(cascade.n_stages), str(path)))
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    for row in rows:
        print("  ".join([*(word.ljust(width) for word, width in zip(row, widths, strict=False)), row[4]]))
    return failed


def _install(wheel: str | None, folder: str | None) -> int:
    from vj.cascade.opencv_data import unpack
    from vj.cascade.stock import user_folder

    target = Path(folder) if folder else user_folder()
    if wheel:
        written = unpack(Path(wheel), target)
    else:
        with TemporaryDirectory(prefix="vj-cascades-") as place:
            found = _download(Path(place))
            if found is None:
                return BAD_INPUT
            written = unpack(found, target)
    print(f"{len(written)} cascades, verified, in {target}")
    if folder:
        print("for them to be found by name, VJ_CASCADES must name that folder")
    return OK


def _download(place: Path) -> Path | None:
    """Let pip fetch the wheel: for this system, or where there is none, for another; the cascades are the same."""
    import subprocess

    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(place)]
    pip += ["--quiet", "--disable-pip-version-check", _WHEEL]
    print("downloading a wheel of opencv-python-headless 4 (about 50 MB); nothing is installed", file=sys.stderr)
    for more in ([], [*_ANY_SYSTEM, "abi3"]):
        done = subprocess.run([*pip, *more], capture_output=True, text=True, check=False)
        wheels = sorted(place.glob("*.whl"))
        if done.returncode == 0 and wheels:
            return wheels[0]
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
    report("vj-cascades", f"pip could not download {_WHEEL}: {lines[-1]}")
    report("vj-cascades", "where there is no network, fetch that wheel elsewhere: vj-cascades install --wheel FILE")
    return None


if __name__ == "__main__":
    sys.exit(main())
