"""Write the result files' tables into the pages that show them: `python -m benchmarks.readme`.

A block of a page between `<!-- benchmark: NAME -->` and `<!-- end -->` is the table of `results/NAME.json`. It is
made by `table(figures)` of the benchmark's module: NAME up to the first hyphen. `<!-- summary: NAME -->` is made by
`summary(folder)` of the module NAME, from several result files. `--check` writes nothing and fails if a
block differs.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks import _runner

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = (README, ROOT / "benchmarks" / "README.md", ROOT / "vj" / "models" / "frontalface.md")
_BLOCK = re.compile(r"(<!-- (?P<kind>benchmark|summary): (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def block(name: str, folder: Path = _runner.RESULTS) -> str:
    """Return the table of a result file and a line that says where its figures come from."""
    result = _runner.read_result(name, folder)
    table = importlib.import_module(f"benchmarks.{name.split('-')[0]}").table(result["figures"])
    return f"{table}\n\n{origin(result)}\n"


def origin(result: dict[str, Any]) -> str:
    """Return one line: images, processor, versions, date."""
    where, data = result["environment"], result["data"]
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items() if name in _SHOWN)
    counts = [f"{data[key]:,} {word}" for key, word in (("pictures", "images"), ("faces", "faces")) if key in data]
    named = ": ".join([str(data["name"]), ", ".join(counts)] if counts else [str(data["name"])])
    return f"<sub>{named}. {where['processor']}, {versions}, {where['date']}.</sub>"


_SHOWN = ("python", "numba", "opencv-python")


def rendered(text: str, folder: Path = _runner.RESULTS) -> str:
    """Return a page's text with every block made again."""

    def made(found: re.Match[str]) -> str:
        if found["kind"] == "benchmark":
            return found[1] + block(found["name"], folder) + found[4]
        return found[1] + importlib.import_module(f"benchmarks.{found['name']}").summary(folder) + found[4]

    return _BLOCK.sub(made, text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether the pages are up to date")
    args = parser.parse_args(argv)
    differ = 0
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = rendered(old)
        differ += new != old
        if args.check:
            print(f"{page.relative_to(ROOT)} {'is up to date' if new == old else 'differs from benchmarks/results'}")
        else:
            page.write_text(new, encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: {len(_BLOCK.findall(new))} tables written")
    return int(args.check and differ > 0)


if __name__ == "__main__":
    sys.exit(main())
