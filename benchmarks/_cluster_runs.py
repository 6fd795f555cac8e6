"""The runs that the benchmark of the cluster measures: detection, deaths, mining, a million jobs, exact search."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from vj.boosting.feature_values import feature_table
from vj.boosting.mining import Miner
from vj.boosting.recipe import TrainingConfig
from vj.boosting.samples import prepare
from vj.boosting.search import Search
from vj.boosting.stage import train_stage
from vj.boosting.workers import Workers
from vj.cascade.haar import feature_pool
from vj.cascade.opencv_xml import load
from vj.cluster import detect, encoding
from vj.cluster.connection import connect
from vj.cluster.detection import Runner, chunk_size
from vj.cluster.mining import ClusterMiner
from vj.cluster.parts import Parts
from vj.cluster.search import ClusterSearch
from vj.cluster.sources import Chunk
from vj.cluster.tasks import Job, Result, Setup
from vj.datasets.backgrounds import Backgrounds
from vj.detector import Detector
from vj.errors import InputError
from vj.rows import Search as ImageSearch
from vj.rows import row

ROW_BYTES = 220
"""Bytes of a row in the rehearsal without images, as rows with one detection have."""


# --- detection --------------------------------------------------------------------------------------------------------


def alone(paths: Sequence[Path], detector: Detector, folder: Path) -> tuple[float, list[float], list[dict[str, Any]]]:
    """Search images on the threads of this process; returns the seconds, those of each image, and the rows."""
    search, each, rows = ImageSearch(detector), [], []
    start = time.perf_counter()
    with (folder / "alone.jsonl").open("w") as out:
        for path in paths:
            begun = time.perf_counter()
            try:
                image = search.read(path)
                found = row(str(path), (image.shape[1], image.shape[0]), search.find(image))
            except InputError:
                continue
            rows.append(found)
            out.write(json.dumps(found) + "\n")
            each.append(time.perf_counter() - begun)
    return time.perf_counter() - start, each, rows


def together(client: Any, paths: Sequence[Path], detector: Detector, folder: Path) -> tuple[float, Any, list[Any]]:
    """Search images on a cluster; returns the seconds, the summary and the rows without those of failed images."""
    start = time.perf_counter()
    done = detect(client, [str(path) for path in paths], detector, output=folder)
    seconds = time.perf_counter() - start
    return seconds, done, [one for one in encoding.read_rows(folder) if "error" not in one]


def same_rows(first: list[Any], second: list[Any]) -> bool:
    """Whether rows are the same and each image has one."""
    names = [[one["image"] for one in rows] for rows in (first, second)]
    unique = all(len(set(one)) == len(one) for one in names)
    return unique and sorted(first, key=lambda one: one["image"]) == sorted(second, key=lambda one: one["image"])


@contextmanager
def killing(client: Any, seconds: float) -> Iterator[list[int]]:
    """Kill one worker every so often, in turn; yields the list of those killed."""
    killed: list[int] = []
    done = threading.Event()

    def kill() -> None:
        while not done.wait(seconds):
            with suppress(Exception):
                pids = sorted(client.run(os.getpid).values())
                victim = pids[len(killed) % len(pids)]
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join(timeout=5)


def detection(client: Any, paths: Sequence[Path], every: float) -> dict[str, Any]:
    """Measure detection on two threads, on two workers, and on these while one of them is killed every so often.

    Threads and workers take turns, A B B A with halves of the images: what disturbs the machine disturbs both.
    """
    cascade = load("frontalface")
    halves = [paths[::2], paths[1::2]]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        # Everything is loaded before it is timed.
        together(client, paths[:64], Detector(cascade), folder / "warm")
        alone(paths[:32], Detector(cascade, threads=2), folder)
        base, rows, runs, found = 0.0, [], [], []
        for threads, k in ((True, 0), (False, 0), (False, 1), (True, 1)):
            if threads:
                seconds, _, some = alone(halves[k], Detector(cascade, threads=2), folder)
                base, rows = base + seconds, rows + some
            elif halves[k]:
                seconds, done, some = together(client, halves[k], Detector(cascade), folder / f"two-{k}")
                runs.append(_measured(seconds, done, len(halves[k])))
                found += some
        both = _sum(runs)
        figures = {
            "two_threads": {"seconds": base, "images_a_second": len(paths) / base},
            "local_2": both | {"of_two_threads": base / both["seconds"], "same_rows": same_rows(rows, found)},
            "row_bytes": float(np.mean([len(json.dumps(one)) + 1 for one in rows])) if rows else 0.0,
        }
        with killing(client, every) as killed:
            seconds, done, found = together(client, paths, Detector(cascade), folder / "killed")
        figures["killed"] = _measured(seconds, done, len(paths)) | {
            "of_two_threads": base / seconds,
            "same_rows": same_rows(rows, found),
            "kills": len(killed),
            "every_seconds": every,
        }
    return figures


def one_worker(client: Any, paths: Sequence[Path]) -> dict[str, Any]:
    """Measure detection on one worker and on one thread, and what a run takes besides its images."""
    cascade = load("frontalface")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        together(client, paths[:32], Detector(cascade), folder / "warm")
        seconds, done, _ = together(client, paths, Detector(cascade), folder / "one")
        figures = {"local_1": _measured(seconds, done, len(paths))}
        seconds, tiny, _ = together(client, paths[:1], Detector(cascade), folder / "start")
        figures["start_seconds"] = seconds - sum(tiny.seconds.values())
        seconds, each, _ = alone(paths, Detector(cascade, threads=1), folder)
    spread = float(np.std(each) / np.mean(each)) if each else 0.0
    return figures | {"one_thread": {"seconds": seconds, "images": len(paths), "spread": spread}}


def _measured(seconds: float, done: Any, images: int) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "images": images,
        "images_a_second": images / seconds,
        "runs": 1,
        "chunks": done.chunks,
        "chunk": chunk_size(images),
        "busy_seconds": done.seconds,
    }


def _sum(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return runs of equal size as one."""
    total = {name: sum(one[name] for one in runs) for name in ("seconds", "images", "runs", "chunks")}
    busy = {name: sum(one["busy_seconds"][name] for one in runs) for name in runs[0]["busy_seconds"]}
    rate = {"images_a_second": total["images"] / total["seconds"], "chunk": runs[0]["chunk"]}
    return total | rate | {"busy_seconds": busy}


# --- mining -----------------------------------------------------------------------------------------------------------


def mining(client: Any, paths: Sequence[Path], wanted: int, depths: Sequence[int]) -> list[dict[str, Any]]:
    """Mine with the first stages of the packaged cascade on two threads and on two workers."""
    cascade = load("frontalface")
    settings: dict[str, Any] = {"seed": 1, "scale_factor": 1.1, "lbp": False}
    backgrounds = Backgrounds(list(paths))
    here = Miner(backgrounds, cascade.window, Workers(2), **settings)
    rows = []
    there = ClusterMiner(client, "benchmark", backgrounds, cascade.window, Workers(2), **settings)
    for miner in (here, there):
        miner.mine(cascade.truncated(max(depths)), 4, 1e-9)
    for depth in depths:
        stages = cascade.truncated(depth)
        first, second = here.mine(stages, wanted, 1e-9), there.mine(stages, wanted, 1e-9)
        rows.append(
            {
                "stages": depth,
                "windows": int(first.found),
                "visits": int(first.visits),
                "two_threads_seconds": first.seconds,
                "local_2_seconds": second.seconds,
                "of_two_threads": first.seconds / second.seconds,
                "same_windows": bool(np.array_equal(first.windows, second.windows))
                and (first.visits, first.scanned, first.hits) == (second.visits, second.scanned, second.hits),
            }
        )
    there.take_back()
    here.workers.close()
    return rows


# --- a million jobs ---------------------------------------------------------------------------------------------------


@contextmanager
def processes(workers: int) -> Iterator[tuple[str, psutil.Process]]:
    """Start a scheduler and workers, each a process of its own; yields the address and the scheduler's process."""
    with tempfile.TemporaryDirectory() as place:
        file, started = Path(place) / "scheduler.json", []

        def start(*words: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "dask", *words, "--scheduler-file", str(file), "--no-dashboard"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            started.append(subprocess.Popen(command, cwd=place, **quiet))
            return started[-1]

        try:
            scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0")
            while not file.exists():
                if scheduler.poll() is not None:
                    raise InputError("expected a Dask scheduler that starts, got one that ended")
                time.sleep(0.05)
            for _ in range(workers):
                start("worker", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
            yield json.loads(file.read_text())["address"], psutil.Process(scheduler.pid)
        finally:
            for one in reversed(started):
                one.kill()
                one.wait()


def rehearsal(jobs: int, size: int, recorded: Sequence[float]) -> dict[str, Any]:
    """Send jobs through a cluster without doing them: each returns a row and the time that one like it took.

    Parameters
    ----------
    jobs, size : int
        Jobs in all, and in a chunk.
    recorded : sequence of float
        Seconds of jobs that were done.
    """
    times = np.resize(np.asarray(recorded or [0.0], dtype=np.float64), jobs)
    filler = "x" * (ROW_BYTES - 30)

    def work(key: str, chunk: Chunk, first: int, last: int | None, careful: bool) -> Result:
        n, seconds = len(chunk.names), float(chunk.base)
        data = "".join(f'{{"image": "{name}", "x": "{filler}"}}\n' for name in chunk.names).encode()
        return Result(data, (), n, 0, (), {"detect": seconds})

    chunks = [
        Chunk(k, tuple(map(str, range(a, min(a + size, jobs)))), repr(float(times[a : a + size].sum())))
        for k, a in enumerate(range(0, jobs, size))
    ]
    memory: list[int] = []
    with tempfile.TemporaryDirectory() as place, processes(2) as (address, scheduler), connect(address) as client:
        client.wait_for_workers(2, timeout=60)
        done = threading.Event()

        def look() -> None:
            while not done.wait(0.1):
                with suppress(psutil.Error):
                    memory.append(scheduler.memory_info().rss)

        threading.Thread(target=look, daemon=True).start()
        job = Job(ImageSearch(Detector(load("frontalface"), threads=1)), "jsonl", 60.0)
        parts = Parts(Path(place) / "out", {"rehearsal": jobs}, "jsonl", len(chunks))
        before = messages(client)
        rows, seconds, writing = 0, 0.0, 0.0
        start = first = time.perf_counter()
        with parts.open():
            for number, found in Runner(client, Setup("rehearsal", job), work).results(chunks):
                begun = time.perf_counter()
                parts.write(number, found.data)
                writing += time.perf_counter() - begun
                first = first if rows else time.perf_counter()
                rows, seconds = rows + found.images, seconds + found.seconds["detect"]
        took, steady = time.perf_counter() - start, time.perf_counter() - first
        after = messages(client)
        done.set()
    return {
        "jobs": jobs,
        "rows": rows,
        "chunk": size,
        "chunks": len(chunks),
        "seconds": took,
        "seconds_a_chunk": steady / max(len(chunks) - 1, 1),
        "writing_seconds": writing,
        "recorded_job_seconds": seconds,
        "scheduler_bytes": max(memory, default=0),
        "scheduler_bytes_before": memory[0] if memory else 0,
        "messages": {name: after[name] - before[name] for name in after},
    }


def messages(client: Any) -> dict[str, int]:
    """Return how many messages and bytes have gone to workers and back, and between scheduler and client."""

    def sent(dask_scheduler: Any) -> list[int]:
        streams = [*dask_scheduler.stream_comms.values()]
        clients = [*dask_scheduler.client_comms.values()]
        return [
            sum(one.message_count for one in streams),
            sum(one.byte_count for one in streams),
            sum(one.message_count for one in clients),
            sum(one.byte_count for one in clients),
        ]

    def answered(dask_worker: Any) -> list[int]:
        return [dask_worker.batched_stream.message_count, dask_worker.batched_stream.byte_count]

    out = client.run_on_scheduler(sent)
    back = np.sum(list(client.run(answered).values()), axis=0).tolist()
    own = client.scheduler_comm
    return {
        "to_workers": out[0],
        "bytes_to_workers": out[1],
        "from_workers": back[0],
        "bytes_from_workers": back[1],
        "to_client": out[2],
        "bytes_to_client": out[3],
        "from_client": own.message_count,
        "bytes_from_client": own.byte_count,
    }


# --- exact search -----------------------------------------------------------------------------------------------------


def exact_search(client: Any, paths: Sequence[Path], samples: int, rounds: int) -> dict[str, Any]:
    """Boost a few rounds over all features of 24x24 windows on two threads and on two workers."""
    positives, negatives = _windows(paths, samples)
    table = feature_table(feature_pool((24, 24), "basic"), (24, 24))
    groups = prepare(positives), prepare(negatives)
    config = TrainingConfig.from_mapping({"max_weak_count": rounds, "max_false_alarm_rate": 0.001, "holdout": 0.0})
    timed: dict[str, float] = {}
    here = Search(table, groups, Workers(2), 4 << 30)
    there = ClusterSearch(client, "benchmark", "stage", table, groups, Workers(2), (24, 24))
    trees = {}
    for name, search in (("two_threads", here), ("local_2", there)):
        # Bins are made in the first round.
        first = train_stage(search, None, _shorter(config))
        assert first is not None
        start = time.perf_counter()
        before = messages(client)
        stage = train_stage(search, None, config, trees=first[0].trees)
        after = messages(client)
        assert stage is not None
        timed[name] = (time.perf_counter() - start) / max(len(stage[0].trees) - 1, 1)
        trees[name] = stage[0].trees
    there.release()
    n = max(len(trees["local_2"]) - 1, 1)
    wire = (after["bytes_to_workers"] - before["bytes_to_workers"]) / (2 * n)
    return {
        "features": len(table),
        "samples": [len(positives), len(negatives)],
        "rounds": n,
        "same_splits": [_split(tree) for tree in trees["two_threads"]] == [_split(tree) for tree in trees["local_2"]],
        "seconds_a_round": timed,
        "packed_bytes_a_round": float(np.mean(there.sent)),
        "wire_bytes_a_round_and_worker": wire,
        "most_packed_bytes": max(there.sent),
    }


def _shorter(config: TrainingConfig) -> TrainingConfig:
    return config.replaced({"max_weak_count": 1})


def _split(tree: Any) -> Any:
    return [(one.feature, float(one.threshold), one.loss) for one in tree.splits], tree.leaves.tolist()


def _windows(paths: Sequence[Path], samples: int) -> tuple[Any, Any]:
    """Return windows of two kinds that features can tell apart: whole images made small, and parts of images."""
    import cv2

    from vj.images import read_gray

    rng = np.random.default_rng(0)
    whole, parts = [], []
    for path in paths:
        try:
            gray = read_gray(path)
        except InputError:
            continue
        if min(gray.shape) < 48:
            continue
        whole.append(cv2.resize(gray, (24, 24), interpolation=cv2.INTER_AREA))
        for _ in range(3):
            y, x = (int(rng.integers(side - 24)) for side in gray.shape)
            parts.append(gray[y : y + 24, x : x + 24])
        if len(whole) + len(parts) >= samples:
            break
    if not parts:
        raise InputError("expected images of at least 48 pixels, got none")
    return np.array(whole), np.array(parts)
