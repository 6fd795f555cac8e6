"""Detection and training on a Dask cluster, measured on this machine and projected to larger ones by a model.

    python -m benchmarks.cluster IMAGES [IMAGES ...] --backgrounds DIR --yunet MODEL.onnx

Detection with two workers against two threads without a cluster, also while a worker is killed every ten seconds;
mining on workers against threads; a million jobs that return at once; exact search over two workers. Takes about eight
minutes with 3,000 images on two idle cores. `--quick` tries everything on little.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _cluster_model as model
from benchmarks import _cluster_runs as runs
from benchmarks import _runner
from vj.cluster.connection import connect
from vj.cluster.detection import chunk_size
from vj.detector import Detector
from vj.errors import InputError
from vj.images import list_images, read_bgr

DEPTHS = (3, 10)
"""First stages of the packaged cascade that are mined with."""

FLOORS = {"detection": 0.85, "killed": 0.6, "mining": 0.8, "scheduler": 2.0, "round": 100.0}
GOALS = {"detection": 0.95, "killed": 0.75, "mining": 0.9, "scheduler": 1.0}


def yunet_seconds(path: str | None, images: list[Path]) -> dict[str, float] | None:
    """Return the mean seconds of one thread that decodes an image and searches it, with YuNet and with ours."""
    if not path:
        return None
    import cv2

    from vj.cascade.opencv_xml import load
    from vj.tiers.detectors import YuNet

    cv2.setNumThreads(1)
    heavy, ours = YuNet(path), Detector(load("frontalface"), threads=1)
    times: dict[str, list[float]] = {"YuNet": [], "vj": []}
    for k, image in enumerate(images):
        for name, detector in (("YuNet", heavy), ("vj", ours)):
            start = time.perf_counter()
            try:
                detector.detect(read_bgr(image))
            except InputError:
                continue
            if k >= 3:
                times[name].append(time.perf_counter() - start)
    return {name: float(np.mean(found)) for name, found in times.items() if found}


def parts_of(figures: dict[str, Any], run: str, image_bytes: float) -> model.Parts:
    """Return the parts of the model: a worker's times from a run of detection, the others from the rehearsals."""
    one = figures["detection"][run]
    busy, images = one["busy_seconds"], one["images"]
    # Small chunks, of which there are many: what is left of each but for writing is what handing it out takes.
    many = figures["rehearsals"][-1]
    return model.Parts(
        read=busy["read"] / images,
        detect=busy["detect"] / images,
        encode=busy["encode"] / images,
        spread=figures["detection"]["one_thread"]["spread"],
        schedule=max(many["seconds_a_chunk"] - many["writing_seconds"] / many["chunks"], 0.0),
        write=many["writing_seconds"] / many["chunks"],
        image_bytes=image_bytes,
        row_bytes=figures["detection"]["row_bytes"],
    )


def checked(figures: dict[str, Any], image_bytes: float) -> list[dict[str, float]]:
    """Return what the model says of the runs on one worker and on two.

    Once with what an image took a worker in the run itself, so that everything else is put to the test; once with what
    it took the single worker, so that the difference is what two of them take from each other.
    """
    rows = []
    start = figures["detection"]["start_seconds"]
    first = parts_of(figures, "local_1", image_bytes)
    for workers, name in ((1, "local_1"), (2, "local_2")):
        run, own = figures["detection"][name], parts_of(figures, name, image_bytes)
        each = run["images"] // run["runs"]
        said = [each / (start + model.simulate(parts, workers, run["chunk"], each)) for parts in (own, first)]
        rows.append(
            {
                "workers": workers,
                "image_seconds": own.image,
                "measured": run["images_a_second"],
                "model": said[0],
                "model_from_one": said[1],
            }
        )
    return rows


# --- tables -----------------------------------------------------------------------------------------------------------


def table(figures: dict[str, Any]) -> str:
    """Markdown tables of a result file."""
    parts = (_reached, _checked, _projected, _sizes, _limits)
    return "\n\n".join(part(figures) for part in parts)


def _reached(figures: dict[str, Any]) -> str:
    found, mined, search = figures["detection"], figures["mining"], figures["exact_search"]
    two, killed, million = found["local_2"], found["killed"], figures["rehearsals"][0]
    images = f"{two['images']:,} images"
    mining = sum(one["two_threads_seconds"] for one in mined) / sum(one["local_2_seconds"] for one in mined)
    same = all(one["same_windows"] for one in mined)
    sent = million["messages"]
    messages = sum(count for name, count in sent.items() if not name.startswith("bytes"))
    windows = f"{sum(one['windows'] for one in mined):,} windows"
    rows = [
        [
            f"detection, {images}: local:2 against two threads",
            f"{two['of_two_threads']:.2f} of the throughput",
            "the same rows" if two["same_rows"] else "other rows",
            FLOORS["detection"],
            GOALS["detection"],
        ],
        [
            f"the same, a worker killed every {killed['every_seconds']:g} s (kills: {killed['kills']})",
            f"{killed['of_two_threads']:.2f}",
            "the same rows, each once" if killed["same_rows"] else "other rows",
            FLOORS["killed"],
            GOALS["killed"],
        ],
        [
            f"mining {windows}: local:2 against two threads",
            f"{mining:.2f}",
            "the same windows" if same else "other windows",
            FLOORS["mining"],
            GOALS["mining"],
        ],
        [
            f"{million['jobs']:,} jobs that return at once, in {million['chunks']:,} chunks",
            f"{million['scheduler_bytes'] / 1e9:.2f} GB of the scheduler",
            f"{million['seconds']:.0f} s, {messages:,} messages, {million['rows']:,} rows",
            f"{FLOORS['scheduler']:g} GB",
            f"{GOALS['scheduler']:g} GB",
        ],
        [
            f"exact search of {search['features']:,} features, {sum(search['samples']):,} samples, over 2 workers",
            f"{search['wire_bytes_a_round_and_worker'] / 1e3:.1f} kB a round to a worker",
            "the same splits" if search["same_splits"] else "other splits",
            f"{FLOORS['round']:g} kB",
            "",
        ],
    ]
    return _runner.table(["measured on two cores", "result", "", "floor", "goal"], rows)


def _checked(figures: dict[str, Any]) -> str:
    rows = [
        [
            one["workers"],
            f"{1000 * one['image_seconds']:.1f} ms",
            f"{one['measured']:.1f}",
            f"{one['model']:.1f} ({one['model'] / one['measured'] - 1:+.0%})",
            f"{one['model_from_one']:.1f} ({one['model_from_one'] / one['measured'] - 1:+.0%})",
        ]
        for one in figures["model"]["checked"]
    ]
    header = ["workers", "an image takes", "measured, images a second", "the model", "with one worker's times"]
    return _runner.table(header, rows)


def _projected(figures: dict[str, Any]) -> str:
    found = figures["model"]
    rows = [
        [
            one["workers"],
            f"{one['chunk']:,}",
            f"{one['images_a_second']:,.0f}",
            f"{100 * one['share_of_linear']:.0f} %",
            f"{one['store_bytes_a_second'] / 1e6:,.1f} MB/s",
            f"{one['row_bytes_a_second'] / 1e6:,.2f} MB/s",
            f"{model.BILLION / one['images_a_second'] / 86400:,.1f} days",
        ]
        for one in found["rows"]
        if one["workers"] >= 10
    ]
    header = [
        "workers (extrapolated)",
        "chunk",
        "images a second",
        "of linear",
        "read",
        "written",
        "a billion takes",
    ]
    return _runner.table(header, rows)


def _sizes(figures: dict[str, Any]) -> str:
    found = figures["model"]
    full = found["workers_at_which_the_scheduler_is_full"]
    rows = [
        [
            f"{int(size):,}",
            f"{int(size) * found['image_seconds']:.1f} s",
            *(f"{one['by_chunk'][size]:,.0f}" for one in found["rows"] if one["workers"] >= 10),
            f"{full[size]:,.0f}",
        ]
        for size in full
    ]
    counts = [f"{one['workers']:,} workers, images a second" for one in found["rows"] if one["workers"] >= 10]
    return _runner.table(["chunk", "takes a worker", *counts, "workers that fill the scheduler"], rows)


def _limits(figures: dict[str, Any]) -> str:
    found = figures["model"]
    rows = [
        [f"a billion images with {name}, one thread of a machine that does nothing else", f"{hours:,.0f} core-hours"]
        for name, hours in found["core_hours_of_a_billion"].items()
    ]
    rows += [
        [
            f"workers whose reading fills a store that gives {found['store_bytes_assumed'] / 1e9:g} GB/s (assumed)",
            f"{found['workers_at_which_the_store_is_full']:,.0f}",
        ],
        ["a chunk takes of the scheduler and the client", f"{1000 * found['parts']['schedule']:.1f} ms"],
        ["and to be written", f"{1000 * found['parts']['write']:.1f} ms"],
    ]
    return _runner.table(["costs and limits (extrapolated, from measured parts)", ""], rows)


# --- the command ------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__.split("\n\n")[0])
    parser.add_argument("folders", nargs="+", metavar="IMAGES", help="folders of images to search")
    parser.add_argument("--backgrounds", required=True, metavar="DIR", help="folder of images to mine in")
    parser.add_argument("--yunet", metavar="MODEL.onnx", help="also say what a billion images cost with it")
    parser.add_argument("--images", type=int, default=3000, metavar="N", help="images to search (default: 3000)")
    parser.add_argument("--few", type=int, default=600, metavar="N", help="images for one worker (default: 600)")
    parser.add_argument("--kill", type=float, default=10.0, metavar="S", help="seconds between deaths (default: 10)")
    parser.add_argument("--wanted", type=int, default=3000, metavar="N", help="windows to mine (default: 3000)")
    parser.add_argument("--jobs", type=int, default=10**6, metavar="N", help="jobs of the rehearsal (default: 1000000)")
    parser.add_argument("--samples", type=int, default=9000, metavar="N", help="of the exact search (default: 9000)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="of the exact search (default: 10)")
    parser.add_argument("--quick", action="store_true", help="small numbers for all of these")
    parser.add_argument("--output", metavar="DIR", default=str(_runner.RESULTS))
    args = parser.parse_args(argv)
    if args.quick:
        args.images, args.few, args.kill, args.wanted = 240, 60, 3.0, 100
        args.jobs, args.samples, args.rounds = 50_000, 900, 3
    return _runner.run("cluster", _run, args)


def _run(args: argparse.Namespace) -> int:
    paths = [path for folder in args.folders for path in list_images(folder)][: args.images]
    backgrounds = list_images(args.backgrounds)
    if not paths or not backgrounds:
        raise InputError("expected folders with images to search and to mine in, got none")
    # Reads every file once, so that none is read from the disk in one run and from memory in the next.
    digest = _runner.data_hash([*paths, *backgrounds])
    figures: dict[str, Any] = {"distributed": importlib.metadata.version("distributed")}

    def part(name: str, value: Any) -> Any:
        figures[name] = value
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        return value

    start = time.perf_counter()
    with connect("local:2") as client:
        found = part("detection", runs.detection(client, paths, args.kill))
        part("mining", runs.mining(client, backgrounds, args.wanted, DEPTHS))
        part("exact_search", runs.exact_search(client, paths, args.samples, args.rounds))
    with connect("local:1") as client:
        found |= runs.one_worker(client, paths[: args.few])
    each = found["local_1"]["busy_seconds"]["detect"] / found["local_1"]["images"]
    # The sizes that a run of so many images has, and the smallest, of fewer jobs.
    sizes = ((args.jobs, chunk_size(args.jobs)), (max(args.jobs // 20, 16), 16))
    part("rehearsals", [runs.rehearsal(jobs, size, [each]) for jobs, size in sizes])
    yunet = part("single_thread", yunet_seconds(args.yunet, paths[:: max(1, len(paths) // 150)]))
    image_bytes = float(np.mean([path.stat().st_size for path in paths]))
    # A cluster's machines are busy on all cores, as this one is with two workers.
    parts = parts_of(figures, "local_2", image_bytes)
    single = yunet or {"vj": parts_of(figures, "local_1", image_bytes).detect}
    projected = model.projection(parts, single)
    figures["model"] = projected | {"checked": checked(figures, image_bytes), "image_seconds": parts.image}
    data = {"name": "portraits and photos", "pictures": len(paths), "backgrounds": len(backgrounds), "sha256": digest}
    path = _runner.write_result("cluster", figures, data=data, folder=Path(args.output))
    print(f"\n{table(figures)}\n\nWritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
