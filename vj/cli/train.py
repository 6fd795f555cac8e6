"""``vj-train``: train a cascade from a recipe, from options, or from the pictures that come with scikit-image."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from vj.cli._common import INTERRUPTED, OK, add_version, run
from vj.errors import InputError

DEMO = """
# Faces of 25x25 pixels and photos that come with scikit-image: enough to see everything work, not for a real model.
positives = [{ path = "skimage:faces", margin = -0.04 }]
backgrounds = "skimage:backgrounds"
window = "20x20"
stages = 13
positives_per_stage = 1000
negatives_per_stage = 2000
min_hit_rate = 0.98
max_false_alarm_rate = 0.4
max_weak_count = 60
mirror = true
jitter = 8
shift = 0.02
scale = 0.04
rotation = 4
contrast = 0.1
"""

EXAMPLES = """examples:
  vj-train --demo
  vj-train recipe.toml --data /pictures --output out
  vj-train --positives faces/ --backgrounds photos/ --output out --window 24x24 --stages 15
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 if there is a cascade, 2 for bad input, 130 if stopped before the first stage."""
    return run("vj-train", _command, argv, keeps=True)


def _command(argv: Sequence[str] | None) -> int:
    return _run(_parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    from vj.boosting.recipe import PositiveSource, TrainingConfig

    parser = argparse.ArgumentParser(
        prog="vj-train",
        description="Train a cascade of boosted features. Everything in a recipe can be said as an option, too.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", nargs="?", help="TOML file with the settings below (dashes as underscores)")
    parser.add_argument("--demo", action="store_true", help="train on the faces that come with scikit-image")
    parser.add_argument("--data", metavar="PATH", help="what {data} stands for in the paths of the recipe")
    parser.add_argument("--restart", action="store_true", help="forget an interrupted run in the output folder")
    parser.add_argument("--quiet", action="store_true", help="show nothing but errors")
    add_version(parser)
    _add_options(parser.add_argument_group("settings"), TrainingConfig, "", {"positives", "backgrounds", "window"})
    own = parser.add_argument_group("pictures")
    own.add_argument("--positives", action="append", metavar="PATH", help="folder or file; may be repeated")
    own.add_argument("--backgrounds", action="append", metavar="PATH", help="folder, list or pattern; may be repeated")
    own.add_argument("--window", metavar="WxH", help="size of the window, as 24x24")
    own.add_argument(
        "--class", dest="classes", action="append", metavar="NAME", help="objects to take; may be repeated"
    )
    own.add_argument("--where", action="append", metavar="COLUMN=VALUE", help="CSV: rows to keep; may be repeated")
    _add_options(own, PositiveSource, "positives_", {"path", "where", "classes"})
    return parser


def _add_options(group: Any, kind: type, prefix: str, skip: set[str]) -> None:
    from dataclasses import fields

    for item in fields(kind):
        if item.name in skip:
            continue
        meta = item.metadata
        words: dict[str, Any] = {"dest": prefix + item.name, "default": None, "help": _help(item)}
        name = "--" + (prefix + item.name).replace("_", "-")
        if meta["type"] is bool:
            group.add_argument(name, action=argparse.BooleanOptionalAction, **words)
        elif "choices" in meta:
            group.add_argument(name, choices=meta["choices"], **words)
        else:
            metavar = {int: "N", float: "X", str: "PATH"}[meta["type"]]
            read: Any = meta["type"]
            if meta.get("per_stage"):
                read, metavar = partial(_numbers, read), f"{metavar}[,{metavar}...]"
            group.add_argument(name, type=read, metavar=metavar, **words)


def _numbers(kind: type, text: str) -> Any:
    """Read one number, or numbers with commas: one for each stage."""
    values = [kind(part) for part in text.split(",")]
    return values if len(values) > 1 else values[0]


def _help(item: Any) -> str:
    text: str = item.metadata["help"]
    if "low" in item.metadata:
        text += f" ({item.metadata['low']} to {item.metadata['high']})"
    if item.metadata.get("per_stage"):
        text += "; or one for each stage, with commas"
    if item.default not in ("", None):
        text += f" [{item.default}]"
    return text.replace("%", "%%")


def _config(arguments: argparse.Namespace) -> Any:
    """Recipe and options together; options win."""
    import tomllib
    from dataclasses import fields

    from vj.boosting.recipe import PositiveSource, TrainingConfig

    given = {k: v for k, v in vars(arguments).items() if v is not None}
    override = {f.name: given[f.name] for f in fields(TrainingConfig) if f.name in given}
    if "positives" in override:
        source = {f.name: given[key] for f in fields(PositiveSource) if (key := f"positives_{f.name}") in given}
        if "classes" in given:
            source["classes"] = given["classes"]
        if "where" in given:
            source["where"] = dict(_pair(text) for text in given["where"])
        override["positives"] = [{"path": path, **source} for path in override["positives"]]
    if arguments.demo:
        override.setdefault("output", "vj-demo")
        return TrainingConfig.from_mapping(tomllib.loads(DEMO), override=override)
    if arguments.recipe:
        return TrainingConfig.from_toml(arguments.recipe, data=arguments.data, override=override)
    return TrainingConfig.from_mapping({}, data=arguments.data, override=override)


def _pair(text: str) -> tuple[str, str]:
    column, sign, value = text.partition("=")
    if not sign:
        raise InputError(f"expected --where COLUMN=VALUE, got {text!r}")
    return column, value


def _run(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    if not config.positives:
        raise InputError("expected positives (--positives PATH, a recipe or --demo), got none")
    if not config.backgrounds:
        raise InputError("expected backgrounds (--backgrounds PATH, a recipe or --demo), got none")
    if not config.output:
        raise InputError("expected a folder for the results (--output PATH), got none")
    from vj.boosting.lock import locked
    from vj.boosting.run import Training
    from vj.cli._screening import screened
    from vj.cli._training_output import Log

    folder = Path(config.output)
    # Held from before anything is removed until the last plot is written.
    with locked(folder), Log(config, quiet=arguments.quiet) as log, _ctrl_c() as checked:
        if arguments.restart:
            _forget(folder)
        backgrounds = screened(config, log) if config.screen_backgrounds else None
        training = Training(config, backgrounds=backgrounds, progress=checked(log.progress))
        try:
            for report in training:
                log.stage(report)
        except KeyboardInterrupt:
            return _interrupted(training, log)
        result = training.result()
        log.line(f"{len(result.reports)} stages in {folder / 'cascade.xml'}")
        if arguments.demo:
            _show(result.cascade, folder, log)
    return OK


@contextmanager
def _ctrl_c() -> Iterator[Callable[[Callable[[Any], None]], Callable[[Any], None]]]:
    """Let no Ctrl-C get lost: one that falls into a finalizer or the compiler's callbacks is ignored by Python.

    Yields a wrapper for the progress callback, which raises the interrupt again at the next step.
    """
    pressed: list[int] = []

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    def checked(progress: Callable[[Any], None]) -> Callable[[Any], None]:
        def step(done: Any) -> None:
            if pressed:
                raise KeyboardInterrupt
            progress(done)

        return step

    # Signals belong to the main thread; elsewhere there is nothing to catch.
    if threading.current_thread() is not threading.main_thread():
        yield checked
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield checked
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupted(training: Any, log: Any) -> int:
    """Leave the finished stages in the output folder."""
    if not training.reports:
        log.line("stopped before the first stage was finished; there is no cascade yet")
        return INTERRUPTED
    training.write()
    log.line(
        f"stopped; {Path(training.config.output) / 'cascade.xml'} holds the {len(training.reports)} finished stages, "
        f"the same command resumes after them"
    )
    return OK


def _forget(folder: Path) -> None:
    """Remove the checkpoint and the results of an earlier run."""
    from vj.boosting.lock import NAME, locked

    for name in ("cascade.xml", "report.jsonl", "recipe.toml"):
        (folder / name).unlink(missing_ok=True)
    with locked(folder / "checkpoint"):
        for path in (folder / "checkpoint").glob("*"):
            if path.name != NAME:
                path.unlink(missing_ok=True)


def _show(cascade: Any, folder: Path, log: Any) -> None:
    """Find the face in scikit-image's photo of an astronaut and draw it."""
    import cv2

    from vj.datasets.packaged import packaged_photo
    from vj.detector import Detector
    from vj.images import read_bgr, write_image

    picture = read_bgr(packaged_photo("astronaut.png")).copy()
    found = Detector(cascade).detect(picture)
    for (x, y, w, h), score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True):
        cv2.rectangle(picture, (x, y), (x + w, y + h), (0, 255, 0), 2)
        cv2.putText(picture, f"{score:.2f}", (x, max(y - 5, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 255, 0), 1)
    write_image(folder / "astronaut.png", picture)
    log.line(f"{len(found.boxes)} box(es) in {folder / 'astronaut.png'}: {found.boxes.tolist()}")


if __name__ == "__main__":
    sys.exit(main())
