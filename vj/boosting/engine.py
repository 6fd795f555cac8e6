"""Where a run mines and searches: on threads here, or wherever another engine does the same."""

from __future__ import annotations

from typing import Any

from vj.boosting.feature_values import FeatureTable
from vj.boosting.mining import Miner
from vj.boosting.samples import Samples
from vj.boosting.search import Arena, Search
from vj.boosting.workers import Workers
from vj.datasets.backgrounds import Backgrounds


class Engine:
    """Mines and searches on the threads of this process.

    `vj.cluster.Engine` does so on the workers of a cluster; a run gives the same cascade on every engine.
    """

    def miner(self, backgrounds: Backgrounds, window: tuple[int, int], workers: Workers, **settings: Any) -> Miner:
        """Return the miner of a run; see `Miner`."""
        return Miner(backgrounds, window, workers, **settings)

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
        """Return the search of a stage; `exact` says that it is always asked for all features. See `Search`."""
        return Search(table, groups, workers, memory, arena)

    def close(self) -> None:
        """Free what is kept elsewhere; called whenever the loop over a run is left."""
