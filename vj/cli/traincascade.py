"""``vj-traincascade``: train a cascade with the options of opencv_traincascade."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vj.cli._common import INTERRUPTED, OK, counted, run
from vj.cli._opencv_options import Option, one_of, parse
from vj.errors import InputError

ABOUT = """Train a cascade with the options of opencv_traincascade. The folder -data then holds cascade.xml, stageN.xml
and params.xml; the same command resumes an interrupted run, of this program or of OpenCV's.
vj-train has more options: recipes, copies, held-out positives."""

OPTIONS = {
    "-data": Option(str, "", "folder for the cascade; made if missing", "FOLDER"),
    "-vec": Option(str, "", "positives, a .vec file", "FILE"),
    "-bg": Option(str, "", "list of background images, or a folder of them", "FILE"),
    "-numPos": Option(int, 2000, "positives for each stage; all of them if there are fewer", "N"),
    "-numNeg": Option(int, 1000, "negatives for each stage", "N"),
    "-numStages": Option(int, 20, "maximum number of stages", "N"),
    "-stageType": Option(one_of("BOOST"), "BOOST", "kind of stages", "BOOST"),
    "-featureType": Option(one_of("HAAR", "LBP", "HOG"), "HAAR", "kind of features: HAAR or LBP", "KIND"),
    "-w": Option(int, 24, "width of the window", "PIXELS"),
    "-h": Option(int, 24, "height of the window", "PIXELS"),
    "-bt": Option(
        one_of("DAB", "RAB", "LB", "GAB"),
        "GAB",
        "discrete, real or gentle AdaBoost; LB is GAB",
        "KIND",
    ),
    "-minHitRate": Option(float, 0.995, "share of positives that every stage keeps", "X"),
    "-maxFalseAlarmRate": Option(float, 0.5, "share of negatives a stage may let through", "X"),
    "-weightTrimRate": Option(float, 0.95, "share of the weight a round is trained on", "X"),
    "-maxDepth": Option(int, 1, "depth of the weak trees", "N"),
    "-maxWeakCount": Option(int, 100, "maximum number of weak classifiers in a stage", "N"),
    "-mode": Option(one_of("BASIC", "CORE", "ALL"), "BASIC", "pool of Haar-like features", "POOL"),
    "-acceptanceRatioBreakValue": Option(float, -1.0, "training ends when the acceptance ratio falls below this", "X"),
    "-numThreads": Option(int, 0, "threads; 0: one for each core", "N"),
    "-baseFormatSave": Option(None, False, "write cascade.xml in OpenCV's older layout"),
    "-precalcValBufSize": Option(int, None, "memory for feature values, together with the next", "MB"),
    "-precalcIdxBufSize": Option(int, None, "as above; without either 2048 together", "MB"),
}

# Fields of the trainer's configuration, as this command line spells them.
_NAMES = {
    "positives_per_stage": "-numPos",
    "negatives_per_stage": "-numNeg",
    "min_hit_rate": "-minHitRate",
    "max_false_alarm_rate": "-maxFalseAlarmRate",
    "overall_false_alarm_rate": "-acceptanceRatioBreakValue",
    "weight_trim_rate": "-weightTrimRate",
    "max_weak_count": "-maxWeakCount",
    "max_depth": "-maxDepth",
    "boosting": "-bt",
    "features": "-featureType and -mode",
    "stages": "-numStages",
    "threads": "-numThreads",
    "window": "-w and -h",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 if there is a cascade, 2 for bad input, 130 if stopped before the first stage."""
    return run("vj-traincascade", _command, argv, keeps=True)


def _command(argv: Sequence[str] | None) -> int:
    options = parse("vj-traincascade", OPTIONS, argv, ABOUT)
    if options is None:
        return OK
    for name in ("data", "vec", "bg"):
        if not options[name]:
            raise InputError(f"expected -data, -vec and -bg, got no -{name}")
    if options["featureType"] == "HOG":
        raise InputError("expected -featureType HAAR or LBP, got HOG, which no cascade detector loads since OpenCV 3")
    from vj.boosting.opencv_run import read_params
    from vj.cli._training_output import Log

    folder = Path(options["data"])
    saved = read_params(folder)
    config, ignored = _config(options, saved)
    if options["bt"] == "LB":
        ignored.append("-bt LB: trained with gentle AdaBoost (GAB), which fits the same kind of trees")
    with Log(config) as log:
        for note in [*options["notes"], *ignored]:
            log.line(note)
        cascade = _train(config, folder, log)
        if cascade is None:
            return INTERRUPTED
        if options["baseFormatSave"]:
            from vj.cascade.opencv_xml import FORMATS, save

            save(cascade, folder / "cascade.xml", format=FORMATS[1])
        log.line(f"{counted(cascade.n_stages, 'stage')} in {folder / 'cascade.xml'}")
    return OK


def _config(options: dict[str, Any], saved: dict[str, Any]) -> tuple[Any, list[str]]:
    """Return the trainer's configuration, and notes on what the folder decides against the command line."""
    import numpy as np

    from vj.boosting.opencv_run import BOOSTINGS
    from vj.boosting.recipe import TrainingConfig

    settings = {
        "window": (options["w"], options["h"]),
        "features": "lbp" if options["featureType"] == "LBP" else options["mode"].lower(),
        "boosting": BOOSTINGS[options["bt"]],
        "min_hit_rate": options["minHitRate"],
        "max_false_alarm_rate": options["maxFalseAlarmRate"],
        "weight_trim_rate": options["weightTrimRate"],
        "max_depth": options["maxDepth"],
        "max_weak_count": options["maxWeakCount"],
    }
    notes = []
    for name, value in saved.items():
        # OpenCV keeps the hit rate in single precision.
        if settings[name] == value or (isinstance(value, float) and np.float32(settings[name]) == np.float32(value)):
            continue
        notes.append(f"{_NAMES[name]}: params.xml in {options['data']} decides, {value} in place of {settings[name]}")
        settings[name] = value
    if notes:
        notes.append("train into another folder to use new settings")
    rate = settings["max_false_alarm_rate"] ** options["numStages"] / settings["max_depth"]
    table = {
        **settings,
        "positives": [{"path": options["vec"], "format": "vec"}],
        "backgrounds": [options["bg"]],
        "output": options["data"],
        "stages": options["numStages"],
        "positives_per_stage": options["numPos"],
        "negatives_per_stage": options["numNeg"],
        "overall_false_alarm_rate": max(rate, options["acceptanceRatioBreakValue"]),
        # OpenCV sets thresholds on the positives that it trains on.
        "holdout": 0.0,
        "jitter": 0,
        "threads": options["numThreads"],
    }
    try:
        config = TrainingConfig.from_mapping(table)
        return config.replaced({"memory_mb": _memory(options, config)}), notes
    except InputError as error:
        text = str(error)
        for ours, theirs in _NAMES.items():
            text = text.replace(f"expected {ours} ", f"expected {theirs} ")
        raise InputError(text) from None


# What OpenCV's two buffers take together if nothing else is asked for.
_MEMORY_MB = 2048


def _memory(options: dict[str, Any], config: Any) -> int:
    """Return the memory of a run in MB: OpenCV's buffers, and what the run takes without them."""
    from vj._system import processors
    from vj.boosting.memory import SampleCounts, least_memory

    asked = sum(options[name] or 0 for name in ("precalcValBufSize", "precalcIdxBufSize"))
    counts = SampleCounts(config.negatives_per_stage, config.positives_per_stage)
    threads, tilted = config.threads or processors(), config.features == "all"
    least = least_memory(counts, config.window, tilted=tilted, threads=threads) >> 20
    return least + (asked or _MEMORY_MB)


def _train(config: Any, folder: Path, log: Any) -> Any:
    """Train, or take the stages that are there; None if stopped before there is a cascade."""
    from vj.boosting.lock import locked
    from vj.boosting.opencv_run import cascade_of, continue_run, read_run, searching_all, write_params, write_stages
    from vj.boosting.run import Training
    from vj.cascade.opencv_xml import save
    from vj.cli.train import _ctrl_c

    with locked(folder), _ctrl_c() as checked:
        config = searching_all(folder, config)
        stages = read_run(folder, config)
        if len(stages) >= config.stages:
            log.line(f"the folder has {len(stages)} stages already, as many as were asked for; nothing is trained")
            cascade = cascade_of(config, stages)
            save(cascade, folder / "cascade.xml")
            return cascade
        training = Training(config, progress=checked(log.progress))

        def write() -> None:
            write_params(folder, config)
            write_stages(folder, training.cascade, config)

        try:
            if continue_run(training, stages):
                log.line(f"continuing after {counted(len(stages), 'stage')} in {folder}")
            for report in training:
                write()
                log.stage(report)
        except KeyboardInterrupt:
            if not training.reports:
                log.line("stopped before the first stage was finished; there is no cascade yet")
                return None
            log.line("stopped; the same command resumes")
            training.write()
            write()
            return training.cascade
        result = training.result()
        write()
        return result.cascade


if __name__ == "__main__":
    sys.exit(main())
