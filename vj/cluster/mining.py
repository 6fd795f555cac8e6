"""Mining on the workers: a visit is a function of cascade, image and visit, so it may happen anywhere.

Which windows are taken, and in which order, is decided where the trainer runs, as on one machine: visits are gone
through in their order, and what was found beyond the last one needed is dropped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import cloudpickle
import numpy as np
from distributed import Client
from distributed.diagnostics.plugin import WorkerPlugin

from vj.boosting.mining import Count, Found, Harvest, Job, Miner
from vj.boosting.workers import Workers
from vj.cascade.model import Cascade
from vj.cluster import urls
from vj.cluster.connection import PACKAGES, disagreement, versions_here
from vj.cluster.ordered import Batches, give
from vj.datasets.backgrounds import Backgrounds
from vj.errors import InputError
from vj.scanning.scanner import Scanner


class _Visitor(Miner):
    """The miner of a worker."""

    def results(self, scanner: Scanner | None, kind: str, jobs: Sequence[Job]) -> list[Any]:
        if kind == "visit":
            return [self._visit(scanner, job) for job in jobs]
        assert scanner is not None
        return [self._count(scanner, job) for job in jobs]


_visitors: dict[str, _Visitor | str] = {}
_scanners: dict[str, tuple[str, Scanner | None]] = {}
"""By run: its miner, or why this process cannot have it; its cascade's name and scanner."""


class MinerSetup(WorkerPlugin):  # type: ignore[misc]
    """Gives every worker the backgrounds of a run."""

    idempotent = False

    def __init__(self, key: str, visitor: _Visitor) -> None:
        self.name, self.key = f"vj-miner-{key}", key
        self.payload = cloudpickle.dumps(visitor)
        self.versions = versions_here(PACKAGES)

    def setup(self, worker: Any) -> None:
        """Unpack the miner; a worker that joined with other versions says so when it is asked for a visit."""
        urls.install()
        text = disagreement(self.versions, versions_here([name for name in self.versions if name != "python"]))
        _visitors[self.key] = f"{worker.address}: {text}" if text else cloudpickle.loads(self.payload)

    def teardown(self, worker: Any) -> None:
        """Forget the run."""
        _visitors.pop(self.key, None)
        _scanners.pop(self.key, None)


class CascadeSetup(WorkerPlugin):  # type: ignore[misc]
    """Gives every worker the stages so far, in place of those it had."""

    idempotent = False

    def __init__(self, key: str, stage: str, cascade: Cascade | None) -> None:
        self.name, self.key, self.stage = f"vj-cascade-{key}", key, stage
        self.payload = cloudpickle.dumps(cascade)

    def setup(self, worker: Any) -> None:
        """Make the scanner."""
        cascade = cloudpickle.loads(self.payload)
        _scanners[self.key] = self.stage, None if cascade is None else Scanner(cascade)


def run_jobs(key: str, stage: str, kind: str, jobs: Sequence[Job]) -> tuple[list[Any], float]:
    """Return what visits come to on this worker, and the seconds they took.

    Raises
    ------
    InputError
        If this worker has not been given the run or its stage.
    """
    visitor = _visitors.get(key, "expected a worker that was set up for this run, got another one")
    if isinstance(visitor, str):
        raise InputError(visitor)
    found, scanner = _scanners.get(key, ("", None))
    if found != stage:
        raise InputError(f"expected a worker with the cascade of {stage}, got one with {found or 'none'}")
    start = time.perf_counter()
    results = visitor.results(scanner, kind, jobs)
    return results, time.perf_counter() - start


class ClusterMiner(Miner):
    """A `Miner` whose visits happen on the workers of a cluster.

    Parameters
    ----------
    client : distributed.Client
    key : str
        Of the run.
    backgrounds, window, workers, **settings
        As for `Miner`.
    """

    def __init__(
        self,
        client: Client,
        key: str,
        backgrounds: Backgrounds,
        window: tuple[int, int],
        workers: Workers,
        **settings: Any,
    ) -> None:
        super().__init__(backgrounds, window, workers, **settings)
        self._client, self._key, self._stages = client, key, 0
        self._given = False

    def _visits(
        self, cascade: Cascade | None, jobs: Iterator[Job], harvest: Harvest, wanted: int
    ) -> Generator[tuple[Job, Found], None, None]:
        first, had = harvest.visits, harvest.found

        def needed() -> float:
            """How many visits it takes at the rate so far; as many as there are room for as long as none is known."""
            visits, found = harvest.visits - first, harvest.found - had
            return np.inf if not found else 1.1 * (wanted - harvest.found) * visits / found + 1

        yield from Batches(self._client, run_jobs, self._key, self._give(cascade), "visit").run(jobs, needed)

    def _counts(self, cascade: Cascade, jobs: Iterator[Job]) -> Generator[Count, None, None]:
        batches = Batches(self._client, run_jobs, self._key, self._give(cascade), "count")
        for _, found in batches.run(jobs, lambda: np.inf):
            yield found

    def _give(self, cascade: Cascade | None) -> str:
        """Give the cascade to the workers; returns what it is called there."""
        if not self._given:
            given = self.backgrounds
            items = [one if isinstance(one, np.ndarray) else _anywhere(os.fspath(one)) for one in given.items]
            boxes = {k: found for k in range(len(items)) if len(found := given.boxes(k))}
            visitor = _Visitor(
                Backgrounds(items, boxes),
                self.window,
                Workers(1),
                seed=self.seed,
                scale_factor=self.scale_factor,
                lbp=self.lbp,
                overlap=self.overlap,
            )
            give(self._client, MinerSetup(self._key, visitor))
            self._given = True
        self._stages += 1
        stage = f"stage {self._stages}"
        give(self._client, CascadeSetup(self._key, stage, cascade))
        return stage

    def take_back(self) -> None:
        """Have the workers forget the run; they are given it again if it goes on."""
        if self._given and self._client.status == "running":
            for name in (f"vj-cascade-{self._key}", f"vj-miner-{self._key}"):
                self._client.unregister_worker_plugin(name)
        self._given = False


def _anywhere(name: str) -> str:
    """Return a file's name as it is known from every folder."""
    return name if urls.is_url(name) else os.path.abspath(name)  # noqa: PTH100 (symbolic links stay as they are)
