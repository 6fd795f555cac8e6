"""How long training takes, how good the fast search is, and how far from the floor both are.

    python -m benchmarks.training DIR

DIR holds the workload: ``pos24.vec`` (faces of 24x24) and ``bg.txt`` (a list of images without any), which OpenCV's
trainer was timed on. The larger workload is made from the same images: 7,000 jittered faces and as many
windows of the backgrounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _runner
from vj.boosting.fast_search import FastCandidates, Neighbours
from vj.boosting.feature_values import feature_table
from vj.boosting.mining import Miner
from vj.boosting.positives import Positives, positives_from_arrays
from vj.boosting.recipe import TrainingConfig
from vj.boosting.run import Training
from vj.boosting.samples import prepare
from vj.boosting.search import Search
from vj.boosting.stage import train_stage
from vj.boosting.trees import sample_weights
from vj.boosting.workers import Workers
from vj.cascade.haar import feature_pool
from vj.cascade.opencv_xml import load
from vj.cascade.stock import find
from vj.datasets.backgrounds import Backgrounds, find_backgrounds
from vj.datasets.opencv_samples import read_vec
from vj.errors import InputError

WINDOW = (24, 24)
ROUND_SAMPLES = 7000
SMALL = (
    *("--window=24x24", "--stages=5", "--positives-per-stage=1000", "--negatives-per-stage=2000"),
    *("--min-hit-rate=0.995", "--max-false-alarm-rate=0.5", "--set=holdout=0.09", "--threads=2", "--seed=1"),
)

# opencv_traincascade 3.4.18 on the same workload, two cores of a machine of the same kind, measured once.
PEER = {"basic": {"seconds": 203.0, "peak_gb": 3.8, "weak": 27}, "lbp": {"seconds": 5.5, "peak_gb": 0.12, "weak": 19}}


def whole_process(folder: Path, *options: str) -> dict[str, Any]:
    """Run ``vj-train`` on the small workload, kernels cached; wall seconds, peak memory, weak classifiers by stage."""
    walls, peaks, report = [], [], ""
    # The first run fills the cache of compiled kernels and is not counted.
    for _ in range(4):
        with tempfile.TemporaryDirectory() as out:
            where = ["--positives", str(folder / "pos24.vec"), "--backgrounds", str(folder / "bg.txt")]
            command = [sys.executable, "-m", "vj.cli.train", *where, "--output", out, *SMALL, *options]
            start = time.perf_counter()
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            walls.append(time.perf_counter() - start)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                raise InputError(f"expected vj-train to succeed, got exit code {process.returncode}")
            peaks.append(usage.ru_maxrss * 1024 / 1e9)
            report = (Path(out) / "report.jsonl").read_text()
    weak = [line.split('"weak_classifiers": ')[1].split(",")[0] for line in report.splitlines()]
    return {
        "seconds": statistics.median(walls[1:]),
        "all_seconds": walls[1:],
        "peak_gb": max(peaks),
        "weak": [int(n) for n in weak],
    }


HIT_RATES = (0.9, 0.95, 0.98)


def quality(folder: Path, workers: Workers, splits: int = 4) -> dict[str, Any]:
    """Compare held-out false alarm rates of one hard stage, fast against exact, at the same held-out hit rate.

    The stage follows three others; its samples and those it is tested on come from other faces and other images. Each
    split holds out another quarter of the faces; the ratio is the geometric mean over splits and hit rates.
    """
    runs = [_split(folder, workers, k, splits) for k in range(splits)]
    ratios = np.log([[run["fast"][rate] / run["exact"][rate] for rate in map(str, HIT_RATES)] for run in runs])
    return {
        "rounds": 40,
        "share": TrainingConfig().search_share,
        "splits": runs,
        "ratio": float(np.exp(ratios.mean())),
        # Splits are the independent repetitions.
        "standard_error_of_log_ratio": float(ratios.mean(axis=1).std(ddof=1) / np.sqrt(splits)),
    }


def _split(folder: Path, workers: Workers, k: int, splits: int) -> dict[str, Any]:
    faces = read_vec(folder / "pos24.vec", WINDOW)
    backgrounds = find_backgrounds([str(folder / "bg.txt")]).items
    out = np.arange(len(faces)) % splits == k
    away = [k % 2 == n % 2 for n in range(len(backgrounds))]
    halves = [[p for p, test in zip(backgrounds, away, strict=True) if test == wanted] for wanted in (False, True)]
    table = {"window": "24x24", "stages": 3, "positives_per_stage": 1000, "negatives_per_stage": 2000, "holdout": 0.0}
    config = TrainingConfig.from_mapping({**table, "search": "exact"})
    run = Training(config, positives=faces[~out], backgrounds=halves[0])
    list(run)
    negatives = [_mine(part, run.cascade, count, workers) for part, count in zip(halves, (2000, 4000), strict=True)]
    features = feature_pool(WINDOW, "basic")
    compiled, near = feature_table(features, WINDOW), Neighbours(features)
    search = Search(compiled, (prepare(faces[~out]), prepare(negatives[0])), workers, 4 << 30)
    tests = prepare(faces[out]), prepare(negatives[1])
    rounds = TrainingConfig.from_mapping({**table, "max_weak_count": 40, "max_false_alarm_rate": 0.001})
    share = rounds.search_share

    def alarm(chooser: Any) -> dict[str, float]:
        result = train_stage(search, None, rounds, chooser=chooser)
        assert result is not None
        hits, false = (result[0].sums(compiled, part) for part in tests)
        return {str(rate): float((false >= np.quantile(hits, 1 - rate)).mean()) for rate in HIT_RATES}

    def choose(r: int) -> Any:
        return lambda search_number: FastCandidates(near, len(compiled), share, (k, r, search_number))

    return {"held_out": [int(out.sum()), len(negatives[1])], "exact": alarm(None), "fast": alarm(choose)}


def _mine(backgrounds: Any, cascade: Any, count: int, workers: Workers) -> Any:
    miner = Miner(Backgrounds(backgrounds), WINDOW, workers, seed=5, scale_factor=1.1, lbp=False)
    return miner.mine(cascade, count, 0.0).windows


def rounds(folder: Path, workers: Workers) -> dict[str, Any]:
    """Time one round over all features of 7,000 + 7,000 samples: exact, and fast."""
    faces = read_vec(folder / "pos24.vec", WINDOW)
    jitter = TrainingConfig.from_mapping({"window": "24x24", "jitter": 6, "mirror": True})
    positives: Positives = positives_from_arrays(faces, jitter)
    backgrounds = find_backgrounds([str(folder / "bg.txt")])
    miner = Miner(backgrounds, WINDOW, workers, seed=5, scale_factor=1.1, lbp=False)
    windows = positives.windows[:ROUND_SAMPLES], miner.mine(None, ROUND_SAMPLES, 1.0).windows
    features = feature_pool(WINDOW, "basic")
    table, near = feature_table(features, WINDOW), Neighbours(features)
    groups = prepare(windows[0]), prepare(windows[1])
    rng = np.random.default_rng(0)
    weights = sample_weights("gentle", rng.normal(0.5, 1, ROUND_SAMPLES), rng.normal(-0.5, 1, ROUND_SAMPLES))
    pair = weights.first, weights.second
    search = Search(table, groups, workers, 16 << 30)
    start = time.perf_counter()
    search.best(pair, weights.criterion)
    first = time.perf_counter() - start
    exact = _runner.median_seconds(lambda: search.best(pair, weights.criterion))
    fast = _fast_rounds(Search(table, groups, workers, 16 << 30), near, pair, weights.criterion)
    updates = len(table) * 2 * ROUND_SAMPLES
    return {
        "features": len(table),
        "samples": 2 * ROUND_SAMPLES,
        "threads": workers.threads,
        "exact_seconds": exact,
        "first_exact_seconds_with_binning": first,
        **fast,
        "floor": {
            "bytes_of_bins": updates,
            "bytes_per_second": (speed := bandwidth(workers.threads)),
            "seconds_to_read_them": updates / speed,
            "histogram_updates": updates,
            "nanoseconds_per_update_and_thread": exact * 1e9 * workers.threads / updates,
        },
    }


def _fast_rounds(search: Search, near: Neighbours, weights: Any, criterion: int) -> dict[str, Any]:
    """Time forty rounds of the fast search and count the features they look at; bins are made when first wanted."""
    times, looked, share = [], [], TrainingConfig().search_share
    for k in range(40):
        chosen = FastCandidates(near, len(search.table), share, (1, k))

        def candidates(evaluate: Any, chosen: FastCandidates = chosen) -> Any:
            found = chosen(evaluate)
            looked.append(len(found[0]))
            return found

        start = time.perf_counter()
        search.best(weights, criterion, candidates)
        times.append(time.perf_counter() - start)
    return {
        "fast_seconds": statistics.median(times),
        "fast_first_seconds": times[0],
        "fast_features": statistics.median(looked),
    }


def bandwidth(threads: int) -> float:
    """Bytes a second that threads together read from memory, by summing 1 GB as 64-bit integers."""
    blocks = [np.ones((1 << 30) // 8 // threads, dtype=np.int64) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        seconds = _runner.median_seconds(lambda: list(pool.map(np.sum, blocks)), 3)
    return (1 << 30) / seconds


def mining(folder: Path, workers: Workers) -> dict[str, Any]:
    """Scan all backgrounds, eight passes, with the first ten stages of the packaged cascade."""
    whole = load(find("frontalface"))
    cascade = whole.truncated(min(10, whole.n_stages))
    backgrounds = find_backgrounds([str(folder / "bg.txt")])

    def once() -> Any:
        miner = Miner(backgrounds, cascade.window, workers, seed=1, scale_factor=1.1, lbp=False)
        return miner.mine(cascade, 10**9, 0.0)

    once()
    harvests = [once() for _ in range(3)]
    seconds = statistics.median(h.seconds for h in harvests)
    return {
        "stages": cascade.n_stages,
        "windows": harvests[0].scanned,
        "seconds": seconds,
        "mwindows_per_second": harvests[0].scanned / seconds / 1e6,
        "acceptance": harvests[0].acceptance,
    }


def table(figures: dict[str, Any]) -> str:
    """Markdown table of a result file, with OpenCV's trainer where it was measured."""
    small, large, scan = figures["small"], figures["round"], figures["mining"]
    fast, exact, lbp = small["basic_fast"], small["basic_exact"], small["lbp"]
    peer, count = small["opencv_traincascade"], f"{large['features']:,} features, {large['samples']:,} samples"
    rows = [
        _process("five stages, 1,000 + 2,000 samples, basic features", fast, peer["basic"]),
        _process("the same, exact search", exact, peer["basic"]),
        _process("the same, LBP features", lbp, peer["lbp"]),
        ["peak memory, basic", f"{fast['peak_gb']:.2f} GB", f"{peer['basic']['peak_gb']:.1f} GB", ""],
        ["peak memory, basic, exact search", f"{exact['peak_gb']:.2f} GB", f"{peer['basic']['peak_gb']:.1f} GB", ""],
        [f"one exact round, {count}", f"{large['exact_seconds']:.2f} s", "", ""],
        ["one fast round, same", f"{large['fast_seconds']:.2f} s", "", ""],
        [f"mining, {scan['stages']} stages", f"{scan['mwindows_per_second']:.0f} Mwindows/s", "", ""],
    ]
    quality = figures["quality"]
    low, high = (100 * np.exp(np.log(quality["ratio"]) + k * quality["standard_error_of_log_ratio"]) for k in (-2, 2))
    text = _runner.table(["two threads", "vj", "opencv_traincascade", "times faster"], rows)
    return (
        f"{text}\n\nHeld-out false alarms of a stage at the same hit rate, fast search over exact search: "
        f"{100 * quality['ratio']:.0f} % ({low:.0f}-{high:.0f} %, two standard errors over "
        f"{len(quality['splits'])} splits)."
    )


def _process(what: str, own: dict[str, Any], peer: dict[str, Any]) -> list[str]:
    ratio = peer["seconds"] / own["seconds"]
    return [
        what,
        f"{own['seconds']:.1f} s",
        f"{peer['seconds']:g} s",
        f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}",
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", help="folder with pos24.vec and bg.txt")
    parser.add_argument("--output", default=str(_runner.RESULTS), metavar="DIR", help="where the result goes")
    args = parser.parse_args(argv)
    folder = Path(args.folder)
    workers = Workers(2)
    try:
        backgrounds = [Path(str(item)) for item in find_backgrounds([str(folder / "bg.txt")]).items]
        figures = {
            "small": {
                "basic_fast": whole_process(folder, "--features=basic", "--search=fast"),
                "basic_exact": whole_process(folder, "--features=basic", "--search=exact"),
                "lbp": whole_process(folder, "--features=lbp", "--search=fast"),
                "opencv_traincascade": PEER,
            },
            "round": rounds(folder, workers),
            "mining": mining(folder, workers),
            "quality": quality(folder, workers),
        }
    except InputError as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    finally:
        workers.close()
    data = {
        "name": "1,100 faces of 24x24",
        "pictures": len(backgrounds),
        "sha256": _runner.data_hash([folder / "pos24.vec", *backgrounds]),
    }
    path = _runner.write_result("training", figures, data=data, folder=Path(args.output))
    print(table(figures))
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
