"""Exact search on the workers: each holds the bins of a share of the features.

A round sends the weights and brings back the best split of each share. Weights and histograms are integers, a feature's
loss depends on nothing but its own histogram, and ties go to the lowest feature, so the shares change nothing. The
samples go to the workers once a stage; a worker that takes over the share of one that died makes its bins again.
"""

from __future__ import annotations

import threading
import time
import zlib
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from distributed import CancelledError, Client, Future, KilledWorker, get_worker
from distributed.client import ClosedClientError

from vj.boosting.feature_values import FeatureTable
from vj.boosting.memory import memory_budget
from vj.boosting.samples import Samples, Windows, prepare
from vj.boosting.search import Arena, Candidates, Search, Split, Weights
from vj.boosting.workers import Workers
from vj.cluster.ordered import gone
from vj.errors import InputError

_TRIES = 20


class Share(NamedTuple):
    """Features of one worker, and how many shares there are on its machine."""

    first: int
    last: int
    neighbours: int


class Best(NamedTuple):
    """The best split of a share: loss, feature and edge as `Search.evaluate` returns them, and the seconds it took."""

    loss: float
    feature: int
    edge: int
    seconds: float


Held = tuple[Windows, Windows, bool]


class _Held:
    """What this process holds of a run: the searches of one stage, by share, and memory that is used again."""

    def __init__(self) -> None:
        self.stage = ""
        self.searches: dict[Share, Search] = {}
        self.arenas: dict[Share, Arena] = {}


_held: dict[str, _Held] = {}
_lock = threading.Lock()


def forget(key: str) -> None:
    """Free what this process holds of a run."""
    _held.pop(key, None)


def best_of_share(
    key: str, stage: str, share: Share, table: FeatureTable, held: Held, packed: bytes, criterion: int
) -> Best:
    """Return the best split among a share of the features, on this worker.

    Parameters
    ----------
    key, stage : str
        Of the run and its stage: bins are made once for each.
    share : Share
    table : FeatureTable
        All features.
    held : tuple
        Windows of positives and negatives, and whether there are tilted features.
    packed : bytes
        The weights; see `pack`.
    criterion : int
    """
    start = time.perf_counter()
    with _lock:
        mine = _held.setdefault(key, _Held())
        if mine.stage != stage:
            mine.stage, mine.searches = stage, {}
        search = mine.searches.get(share)
        if search is None:
            search = mine.searches[share] = _search(share, table, held, mine.arenas.setdefault(share, Arena()))
        padded = search.padded(unpack(packed))
        features = np.arange(share.last - share.first)
        losses, edges = search.evaluate(features, padded, criterion)
        at = int(np.argmin(losses))
    return Best(float(losses[at]), share.first + at, int(edges[at]), time.perf_counter() - start)


def _search(share: Share, table: FeatureTable, held: Held, arena: Arena) -> Search:
    groups = prepare(held[0], tilted=held[2]), prepare(held[1], tilted=held[2])
    threads = 1
    memory = memory_budget() // share.neighbours
    with suppress(ValueError, AttributeError):
        worker = get_worker()
        threads = worker.state.nthreads
        memory = min(memory, int(worker.memory_manager.memory_limit or memory) // 2)
    return Search(table.take(np.arange(share.first, share.last)), groups, Workers(threads), memory, arena)


def pack(weights: Weights) -> bytes:
    """Return weights as bytes: the first of all, the second of all, ...; the high bytes are mostly equal."""
    parts = [np.array([len(one) for one in weights], dtype="<i8").tobytes()]
    parts += [np.ascontiguousarray(one.astype("<i4").view(np.uint8).reshape(-1, 4).T).tobytes() for one in weights]
    return zlib.compress(b"".join(parts), 1)


def unpack(data: bytes) -> Weights:
    """Return the weights that `pack` packed."""
    plain = np.frombuffer(zlib.decompress(data), dtype=np.uint8)
    first, second = plain[:16].view("<i8").tolist()
    found: list[npt.NDArray[np.int32]] = []
    for start, n in ((16, first), (16 + 4 * first, second)):
        bytes_ = np.ascontiguousarray(plain[start : start + 4 * n].reshape(4, n).T)
        found.append(bytes_.view("<i4").reshape(-1).astype(np.int32))
    return found[0], found[1]


def windows_of(samples: Samples, window: tuple[int, int]) -> Windows:
    """Return the windows that samples were prepared from, a tenth of their size.

    Returns
    -------
    ndarray of uint8, shape (n, height, width)
    """
    width, height = window
    upright = samples.tiles[:, : (width + 1) * (height + 1)].transpose(0, 2, 1).reshape(-1, height + 1, width + 1)
    pixels = np.diff(np.diff(upright[: samples.count], axis=1), axis=2)
    return np.ascontiguousarray(pixels.astype(np.uint8))


class ClusterSearch(Search):
    """A `Search` over all features whose shares are on the workers of a cluster.

    Parameters
    ----------
    client : distributed.Client
    key : str
        Of the run.
    stage : str
        Different for every stage.
    table, groups, workers
        As for `Search`.
    shared : Future or None
        The table, if the workers have it.
    window : (int, int)

    Attributes
    ----------
    sent : list of int
        Bytes of each round's message to a worker.
    """

    def __init__(
        self,
        client: Client,
        key: str,
        stage: str,
        table: FeatureTable,
        groups: tuple[Samples, Samples],
        workers: Workers,
        window: tuple[int, int],
    ) -> None:
        # Nothing is binned here but the feature that was chosen.
        super().__init__(table, groups, workers, 0)
        self._client, self._key, self._stage = client, key, stage
        tilted = groups[0].tiles.shape[1] > (window[0] + 1) * (window[1] + 1)
        self._samples: Held = windows_of(groups[0], window), windows_of(groups[1], window), tilted
        self._futures: list[Future] = []
        self._shares: list[tuple[str, Share]] = []
        self.sent: list[int] = []

    def best(self, weights: Weights, criterion: int, candidates: Candidates | None = None) -> Split | None:
        """Find the split with the smallest loss on the workers; see `Search.best`."""
        if candidates is not None:
            return super().best(weights, criterion, candidates)
        packed = pack(weights)
        found = min(self._round(packed, criterion), key=lambda one: (one.loss, one.feature))
        if not np.isfinite(found.loss):
            return None
        return self._split(found.feature, found.edge, found.loss, self.padded(weights))

    def _round(self, packed: bytes, criterion: int) -> list[Best]:
        """Return the best split of each share, whatever happens to workers.

        Raises
        ------
        InputError
            If the scheduler goes away, or workers die again and again.
        """
        self.sent.append(len(packed))
        for _ in range(_TRIES):
            try:
                if not self._futures or any(one.status != "finished" for one in self._futures):
                    self._share()
                futures = [
                    self._client.submit(
                        best_of_share,
                        self._key,
                        self._stage,
                        share,
                        *self._futures,
                        packed,
                        criterion,
                        workers=[where],
                        allow_other_workers=True,
                        pure=False,
                    )
                    for where, share in self._shares
                ]
                return [one.result() for one in futures]
            except ClosedClientError:
                raise gone() from None
            except (KilledWorker, CancelledError, TimeoutError, OSError):
                # Samples were on, or on their way to, workers that died, or a share's workers died again and again.
                if self._client.status != "running":
                    raise gone() from None
                self._futures = []
                time.sleep(0.2)
        raise InputError(f"expected workers that live, got {_TRIES} rounds of the search in which they died")

    def _share(self) -> None:
        """Divide the features between the workers there are, and give these the samples."""
        found = sorted(self._client.nthreads().items())
        if not found:
            self._client.wait_for_workers(1, timeout=60)
            found = sorted(self._client.nthreads().items())
        hosts = [address.rpartition(":")[0] for address, _ in found]
        ends = np.cumsum([0, *(threads for _, threads in found)])
        ends = ends * len(self.table) // ends[-1]
        self._shares = [
            (address, Share(int(ends[k]), int(ends[k + 1]), hosts.count(hosts[k])))
            for k, (address, _) in enumerate(found)
            if ends[k + 1] > ends[k]
        ]
        given = self._client.scatter([self.table, self._samples], broadcast=True, hash=False)
        self._futures = list(given)

    def release(self) -> None:
        """Have the workers forget the samples."""
        for one in self._futures:
            with suppress(Exception):
                one.release()
        self._futures = []
