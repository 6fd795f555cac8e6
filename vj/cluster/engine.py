"""The engine of a training whose mining, and exact search, happen on the workers of a cluster."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Any

from distributed import Client

from vj.boosting.engine import Engine as _Engine
from vj.boosting.feature_values import FeatureTable
from vj.boosting.mining import Miner
from vj.boosting.samples import Samples
from vj.boosting.search import Arena, Search
from vj.boosting.workers import Workers
from vj.cluster import urls
from vj.cluster.mining import ClusterMiner
from vj.cluster.search import ClusterSearch, forget
from vj.datasets.backgrounds import Backgrounds


class Engine(_Engine):
    """Mines and searches on the workers of a cluster; the cascade is the one that is trained without.

    Positives and backgrounds may be URLs once there is an engine. Checkpoints are those of the trainer: a run that was
    stopped goes on on another cluster, or on none.

    Parameters
    ----------
    client : distributed.Client
        See `vj.cluster.connect`.

    Examples
    --------
    >>> with connect("local:2") as client:  # doctest: +SKIP
    ...     vj.train("recipe.toml", engine=Engine(client))
    """

    def __init__(self, client: Client) -> None:
        self._client, self._key = client, secrets.token_hex(6)
        self._miner: ClusterMiner | None = None
        self._search: ClusterSearch | None = None
        self._stages = 0
        urls.install()

    def miner(self, backgrounds: Backgrounds, window: tuple[int, int], workers: Workers, **settings: Any) -> Miner:
        """Return a miner whose visits happen on the workers."""
        self._miner = ClusterMiner(self._client, self._key, backgrounds, window, workers, **settings)
        return self._miner

    def search(
        self,
        table: FeatureTable,
        groups: tuple[Samples, Samples],
        workers: Workers,
        memory: int,
        arena: Arena,
        *,
        window: tuple[int, int],
        exact: bool,
    ) -> Search:
        """Return a search on the workers if it is exact; the fast kind looks at too few features to be worth it."""
        if not exact:
            return super().search(table, groups, workers, memory, arena, window=window, exact=exact)
        if self._search is not None:
            self._search.release()
        self._stages += 1
        self._search = ClusterSearch(self._client, self._key, f"stage {self._stages}", table, groups, workers, window)
        return self._search

    def close(self) -> None:
        """Have the workers forget the run."""
        with suppress(Exception):
            if self._search is not None:
                self._search.release()
                self._client.run(forget, self._key)
            if self._miner is not None:
                self._miner.take_back()
