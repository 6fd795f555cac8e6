"""Attack the readers and commands with a hundred thousand corrupt inputs, and kill training runs at injected points.

Inputs that are not refused in one line or used rightly are kept below FOLDER/failing, which lies outside the project.
Nothing may crash, take more than two seconds of processor time or more than 512 MB. A campaign that was stopped resumes
from FOLDER/state. The tests run the first few hundred of the same inputs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from benchmarks import _campaign, _fuzz, _kills, _runner
from benchmarks._targets import TARGETS, make_seeds
from vj._files import write_text

FUZZ_SHARE = 0.2
"""Inputs that each fuzzed reader gets on top, as a part of all."""
COLUMNS = ("tried", "refused", "loaded", "foreign", "wrong", "crashed", "slow", "heavy", "seconds", "peak_mb")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="for the state and failing inputs; outside the project")
    parser.add_argument("--count", type=int, default=100_000, metavar="N", help="inputs in all (default: 100000)")
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="runs to kill (default: 50)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all that is drawn (default: 1)")
    parser.add_argument("--only", action="append", choices=[*TARGETS, "fuzz", "kills"], help="leave out the others")
    parser.add_argument("--output", default=str(_runner.RESULTS), metavar="DIR", help="where the result goes")
    args = parser.parse_args(argv)
    folder = Path(args.folder).resolve()
    if Path(__file__).resolve().parent.parent in (folder, *folder.parents):
        print(f"robustness: expected a folder outside the project, got {folder}", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    # Workers are forked, which threads of OpenCV's would not survive.
    cv2.setNumThreads(1)
    figures = campaign(args, folder, lambda text: print(text, file=sys.stderr, flush=True))
    print(table(figures))
    if not args.only:
        _runner.write_result(
            "robustness", figures, data={"name": f"inputs drawn with seed {args.seed}"}, folder=Path(args.output)
        )
    kills = figures["kills"]
    faults = sum(row["faults"] for row in figures["targets"].values())
    return int(faults > 0 or kills["kills"] != kills["resumed to the same bytes"])


def campaign(args: argparse.Namespace, folder: Path, note: Callable[[str], None]) -> dict[str, Any]:
    """Run what is asked for and return the figures."""
    chosen = args.only or [*TARGETS, "fuzz", "kills"]
    make_seeds()
    (folder / "state").mkdir(exist_ok=True)
    targets: dict[str, Any] = {}
    for name, target in TARGETS.items():
        if name in chosen:
            tally = _campaign.run(name, args.seed, round(args.count * target.share), folder, note)
            targets[name] = {**asdict(tally), "faults": tally.faults}
            note(f"{name}: {tally.tried} tried, {tally.faults} faults")
    fuzzed = "fuzz" in chosen and _fuzz.available()
    for reader in _fuzz.READERS if fuzzed else ():
        found, coverage = _fuzz.run(reader, folder, round(args.count * FUZZ_SHARE), args.seed)
        tally = _campaign.Tally(**found)
        targets[f"fuzzed {reader}"] = {**found, "faults": tally.faults, "coverage": coverage}
        note(f"fuzzed {reader}: {tally.tried} tried, {tally.faults} faults, coverage {coverage}")
    kills = {"kills": 0, "resumed to the same bytes": 0, "points": 0}
    if "kills" in chosen:
        place = folder / "state" / f"kills-{args.kills}-{args.seed}.json"
        if not place.is_file():
            write_text(place, json.dumps(_kills.kills(args.kills, args.seed, note)))
        kills = json.loads(place.read_text())
    return {"targets": targets, "kills": kills, "fuzzer": "atheris" if fuzzed else "none"}


def table(figures: dict[str, Any]) -> str:
    """Markdown of the figures."""
    header = ["input", "tried", "refused", "used", "foreign error", "wrong", "crashed", "> 2 s", "> 512 MB"]
    rows = [
        [name, *(f"{row[key]:,}" for key in COLUMNS[:-2]), f"{row['seconds']:.2f}", f"{row['peak_mb']:.0f}"]
        for name, row in figures["targets"].items()
    ]
    text = _runner.table([*header, "slowest, s", "peak, MB"], rows)
    kills = figures["kills"]
    text += f"\n\n{kills['kills']} runs killed, {kills['resumed to the same bytes']} resumed to the same bytes"
    if figures["fuzzer"] == "none":
        text += "\n\nNot fuzzed by coverage: needs `pip install atheris`."
    return text


if __name__ == "__main__":
    sys.exit(main())
