"""``vj-train``: train a cascade from a recipe, from options, or from the images that come with scikit-image."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vj.cli import _cluster
from vj.cli._common import INTERRUPTED, OK, add_version, counted, run
from vj.errors import InputError

DEMO = """
# Faces of 25x25 pixels and photos that come with scikit-image: enough for a demonstration, not for a real model.
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

EXAMPLES = """\
examples:
  vj-train --demo
  vj-train recipe.toml --data /images --output out --set search_share=0.02
  vj-train --positives faces/ --backgrounds photos/ --output out --stages 15
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 if there is a cascade, 2 for bad input, 130 if stopped before the first stage."""
    return run("vj-train", _command, argv, keeps=True)


def _command(argv: Sequence[str] | None) -> int:
    return _run(_parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vj-train",
        usage="vj-train [RECIPE] [--positives PATH --backgrounds PATH --output PATH] [option ...]",
        description="Train a cascade of boosted features. Options replace what the recipe says.",
        epilog=_others() + EXAMPLES,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=29),
        add_help=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help=argparse.SUPPRESS)
    _add_images(parser.add_argument_group("images"))
    _add_learning(
        parser.add_argument_group("stages (a rate, count or depth may be a list with commas, one for each stage)")
    )
    _add_run(parser.add_argument_group("the run"))
    return parser


def _add_images(group: Any) -> None:
    add = group.add_argument
    add("--positives", action="append", metavar="PATH", help="the object: crops or annotations; repeatable")
    text = "images without it: folder, list, pattern; annotated: what is around labelled positives; repeatable"
    add("--backgrounds", action="append", metavar="PATH", help=text)
    add("--format", metavar="NAME", help="format of the annotations, if not recognised")
    add("--class", dest="classes", action="append", metavar="NAME", help="class of objects to take; repeatable")
    add("--where", action="append", metavar="COLUMN=VALUE", help="CSV: rows to take; repeatable")
    add("--mirror", action=argparse.BooleanOptionalAction, default=None, help="add mirrored positives")
    add("--jitter", type=int, metavar="N", help="shifted, scaled, turned copies per positive [enough for a stage]")
    add("--dataset", metavar="PATH", help="measure the result on these labels, for report.html")
    add("--demo", action="store_true", help="train on the faces that come with scikit-image")
    add("--data", metavar="PATH", help="replaces {data} in the paths of the recipe")


def _add_learning(group: Any) -> None:
    from vj.boosting.recipe import FEATURE_KINDS, SEARCHES

    add = group.add_argument
    add("--window", metavar="WxH", help="size of the detection window [24x24]")
    add("--features", choices=FEATURE_KINDS, help="upright Haar (few, more), also tilted, or LBP [basic]")
    add("--stages", type=int, metavar="N", help="maximum number of stages [20]")
    add("--positives-per-stage", type=int, metavar="N", help="positives that a stage is trained on [2000]")
    add("--negatives-per-stage", type=int, metavar="N", help="negatives, mined with the stages so far [4000]")
    add("--min-hit-rate", type=_numbers, metavar="X", help="share of positives a stage keeps [0.995]")
    add("--max-false-alarm-rate", type=_numbers, metavar="X", help="share of negatives at which a stage ends [0.5]")
    add("--max-weak-count", type=_numbers, metavar="N", help="maximum number of weak classifiers in a stage [200]")
    add("--max-depth", type=_numbers, metavar="N", help="depth of the weak classifiers; 1: stumps [1]")
    add("--search", choices=SEARCHES, help="each round tries all features, or a sample and then its neighbours [fast]")
    add(
        "--pruning",
        type=float,
        metavar="X",
        help="at the end, raise all thresholds for speed and lose this share of hits [0]",
    )


def _add_run(group: Any) -> None:
    add = group.add_argument
    add("--output", metavar="PATH", help="folder for cascade, report, plots and checkpoints")
    add("--restart", action="store_true", help="discard the run in the output folder and start again")
    text = "train nothing: set soft thresholds of this cascade on the recipe's held-out positives"
    add("--soften", metavar="CASCADE", help=text)
    add("--seed", type=int, metavar="N", help="seed of everything random [1]")
    add("--threads", type=int, metavar="N", help="results do not depend on it [one per core]")
    add("--cluster", metavar="ADDRESS", help="Dask scheduler whose workers mine and search, or local:N")
    add(
        "--set",
        dest="settings",
        action="append",
        metavar="KEY=VALUE",
        help="change any setting of a recipe; repeatable",
    )
    add("--quiet", action="store_true", help="print only errors")
    add("-v", "--verbose", action="store_true", help="print samples, windows and times of each stage, too")
    add_version(group)
    add("-h", "--help", action="help", help="show this help")


# Settings that have an option of the same meaning.
_OPTIONS = {"path", "format", "classes", "where"}


def _others() -> str:
    """List the settings that have no option, with what a recipe says of them."""
    from dataclasses import fields

    from vj.boosting.recipe import PositiveSource, TrainingConfig, describe

    known = {action.dest for action in _actions()}
    text = ["other settings, in a recipe or as --set KEY=VALUE:"]
    text += [_line(f.name, describe(f, ranges=False)) for f in fields(TrainingConfig) if f.name not in known]
    text += ["", "of a source of positives, as --set positives.KEY=VALUE, or positives.0.KEY for the first only:"]
    text += [_line(f.name, describe(f, ranges=False)) for f in fields(PositiveSource) if f.name not in _OPTIONS]
    return "\n".join([*text, "", ""])


def _actions() -> list[argparse.Action]:
    parser = argparse.ArgumentParser(add_help=False)
    for add in (_add_images, _add_learning, _add_run):
        add(parser)
    return parser._actions


def _line(name: str, text: str) -> str:
    width = shutil.get_terminal_size().columns - 2
    return textwrap.fill(text, width, initial_indent=f"  {name:<25} ", subsequent_indent=" " * 28)


def _numbers(text: str) -> Any:
    """Read one number, or numbers with commas: one for each stage."""
    try:
        values = [int(part) if part.strip().isdecimal() else float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, or numbers with commas, got {text!r}") from None
    return values if len(values) > 1 else values[0]


def _config(arguments: argparse.Namespace) -> Any:
    """Recipe and options together; options win."""
    import tomllib
    from dataclasses import fields

    from vj.boosting.recipe import TrainingConfig
    from vj.cli._settings import apply, pair

    given = {k: v for k, v in vars(arguments).items() if v is not None}
    override = {f.name: given[f.name] for f in fields(TrainingConfig) if f.name in given}
    if arguments.demo:
        override.setdefault("output", "vj-demo")
        config = TrainingConfig.from_mapping(tomllib.loads(DEMO), override=override)
    elif arguments.recipe:
        config = TrainingConfig.from_toml(arguments.recipe, data=arguments.data, override=override)
    else:
        config = TrainingConfig.from_mapping({}, data=arguments.data, override=override)
    source: dict[str, Any] = {key: given[key] for key in ("format", "classes") if key in given}
    if "where" in given:
        source["where"] = dict(pair("--where COLUMN=VALUE", text) for text in given["where"])
    return apply(config.with_positives(source) if source else config, arguments.settings or [])


def _run(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    if not config.positives:
        raise InputError("expected positives (--positives PATH, a recipe or --demo), got none")
    if not config.backgrounds:
        raise InputError("expected backgrounds (--backgrounds PATH, a recipe or --demo), got none")
    if not config.output:
        raise InputError("expected a folder for the results (--output PATH), got none")
    if arguments.soften is not None:
        return _soften(config, arguments)
    from vj.boosting.lock import locked
    from vj.boosting.run import Training
    from vj.cli._pages import TrainingPage
    from vj.cli._training_output import Log

    folder = Path(config.output)
    labelled = _labelled(arguments)
    # Locked from before anything is removed until the last plot is written.
    with (
        locked(folder),
        Log(config, quiet=arguments.quiet, verbose=arguments.verbose) as log,
        _ctrl_c() as checked,
        TrainingPage(folder) as page,
        _cluster.engine(arguments.cluster) as engine,
    ):
        if arguments.restart:
            _forget(folder)
        page.training = training = Training(config, progress=checked(page.heard(log.progress)), engine=engine)
        try:
            for report in training:
                log.stage(report)
                page.stage()
        except KeyboardInterrupt:
            page.end("stopped; the same command resumes")
            return _interrupted(training, log)
        result = training.result()
        page.end("finished", _measured(result.cascade, folder, labelled, log))
        log.line(f"{counted(len(result.reports), 'stage')} in {folder / 'cascade.xml'}; {page.path} shows them")
        if arguments.demo:
            _show(result.cascade, folder, log)
    return OK


def _soften(config: Any, arguments: argparse.Namespace) -> int:
    """Write a cascade with soft thresholds to the output folder, under its name and ``-soft``."""
    from vj.boosting.run import Training
    from vj.boosting.soft import soften
    from vj.cascade.opencv_xml import load, save
    from vj.cli._training_output import Log

    cascade = load(arguments.soften)
    if cascade.window != config.window:
        sizes = "{}x{}, got {}x{}".format(*config.window, *cascade.window)
        raise InputError(f"{arguments.soften}: expected a cascade of the recipe's window of {sizes}")
    if not config.soft_loss:
        raise InputError("expected the share of hits that --soften may lose (--set soft_loss=X), got 0")
    with Log(config, quiet=arguments.quiet) as log:
        training = Training(config, progress=log.progress)
        held = training.positives.windows[training.held_out]
        result = soften(cascade, held, config.soft_loss)
        path = Path(config.output) / f"{cascade.name}-soft.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(result, path)
        log.line(f"{len(result.soft or ())} soft thresholds from {len(held)} held-out positives in {path}")
    return OK


@contextmanager
def _ctrl_c() -> Iterator[Callable[[Callable[[Any], None]], Callable[[Any], None]]]:
    """Lose no Ctrl-C: Python ignores an interrupt that arrives in a finalizer or in the compiler's callbacks.

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

    # Only the main thread receives signals.
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

    # A run that was started in Python holds this lock alone.
    with locked(folder / "checkpoint"):
        for name in ("cascade.xml", "report.jsonl", "report.html", "recipe.toml"):
            (folder / name).unlink(missing_ok=True)
        for path in (folder / "checkpoint").glob("*"):
            if path.name != NAME:
                path.unlink(missing_ok=True)


def _labelled(arguments: argparse.Namespace) -> Any:
    """Read the labels to measure with: before the training, so that it does not end with an error in them."""
    if not arguments.dataset:
        return []
    from vj.datasets.formats import read_labelled

    return read_labelled(arguments.dataset, classes=arguments.classes or ())


def _measured(cascade: Any, folder: Path, labelled: Any, log: Any) -> Any:
    """Measure the cascade on labelled images; returns the parts of the page that show it."""
    if not labelled:
        return []
    from vj.cli._pages import measure
    from vj.cli.evaluate import SUPPRESSION
    from vj.detector import Detector
    from vj.evaluation.measure import Rules, measurable, run_detector
    from vj.html.depth import depth_section
    from vj.html.evaluation import measured_sections, worst

    def told(images: Any, text: str) -> Any:
        for k, image in enumerate(images):
            log.state(f"measuring, {text}: image {k + 1} of {len(images)}")
            yield image

    # As vj-evaluate measures.
    detector = Detector(cascade, min_neighbors=0, suppression=SUPPRESSION, min_size=cascade.window)
    runs = list(run_detector(measurable(detector), told(labelled, "cascade"), detector.cost))
    try:
        one = measure(detector, str(folder / "cascade.xml"), labelled, runs, Rules(), told)
    except InputError as error:
        log.line(f"not measured on labelled images: {error}")
        return []
    average = 100 * one.result.curve.average_precision
    log.line(f"{len(one.paths)} labelled images: average precision {average:.1f}")
    # What a window costs is told by the run itself.
    return [*measured_sections(replace(one, profile=None)), depth_section(detector, worst(one))]


def _show(cascade: Any, folder: Path, log: Any) -> None:
    """Find the face in scikit-image's photo of an astronaut and draw a box around it."""
    from vj.datasets.packaged import packaged_photo
    from vj.detector import Detector
    from vj.images import draw_boxes, read_bgr, write_image

    image = read_bgr(packaged_photo("astronaut.png"))
    found = Detector(cascade).detect(image)
    labels = [f"{score:.2f}" for score in found.scores]
    write_image(folder / "astronaut.png", draw_boxes(image, found.boxes, labels=labels))
    log.line(f"{len(found.boxes)} box(es) in {folder / 'astronaut.png'}: {found.boxes.tolist()}")


if __name__ == "__main__":
    sys.exit(main())
