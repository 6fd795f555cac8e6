"""The training loop: stage after stage, with new negatives mined in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from vj._version import __version__
from vj.boosting.candidates import FastCandidates, Neighbours
from vj.boosting.config import TrainingConfig
from vj.boosting.memory import memory_budget
from vj.boosting.mining import Mined, Miner
from vj.boosting.positives import Positives, load_positives
from vj.boosting.search import Arena, Search
from vj.boosting.stage import Round, Stage, limit, train_stage
from vj.boosting.values import FeatureTable, feature_table, prepare
from vj.boosting.weak import Chooser, WeakTree
from vj.boosting.workers import Workers
from vj.cascade import Cascade
from vj.datasets.backgrounds import Backgrounds, find_backgrounds
from vj.errors import InputError
from vj.haar import HaarFeatures, feature_pool
from vj.lbp import SUBSET_WORDS, LbpFeatures, lbp_pool


@dataclass(frozen=True)
class StageReport:
    """What one stage came to.

    Parameters
    ----------
    index : int
    weak_classifiers : int
    threshold : float
    hit_rate : float
        Share of the held-out positives (of all, if none were held out) that pass this stage.
    training_hit_rate : float
        The same of the positives it was boosted on.
    false_alarm_rate : float
        Share of the stage's negatives that pass it.
    positives, held_out, negatives : int
        Numbers of samples.
    windows_scanned : int
        Background windows looked at to find the stage's new negatives.
    acceptance_ratio : float
        Share of them that passed all stages before this one.
    mining_seconds, seconds : float
        Wall time of the mining and of the whole stage.
    """

    index: int
    weak_classifiers: int
    threshold: float
    hit_rate: float
    training_hit_rate: float
    false_alarm_rate: float
    positives: int
    held_out: int
    negatives: int
    windows_scanned: int
    acceptance_ratio: float
    mining_seconds: float
    seconds: float


@dataclass(frozen=True)
class Progress:
    """A step within a stage, for whoever shows it.

    Parameters
    ----------
    kind : {'note', 'positives', 'mining', 'binning', 'round'}
    stage : int
    text : str
        For a note: one sentence.
    found, wanted, scanned : int
        While mining.
    round : Round or None
        After a weak classifier.
    """

    kind: str
    stage: int
    text: str = ""
    found: int = 0
    wanted: int = 0
    scanned: int = 0
    round: Round | None = None


class Training:
    """A run of the trainer; iterate over it to train, stage by stage.

    Parameters
    ----------
    config : TrainingConfig
    positives : Positives, optional
        Ready windows; by default those that the configuration names.
    backgrounds : Backgrounds or sequence, optional
        By default those that the configuration names.
    progress : callable, optional
        Called with a `Progress` within stages.

    Attributes
    ----------
    stages : list of Stage
    reports : list of StageReport
    """

    def __init__(
        self,
        config: TrainingConfig,
        *,
        positives: Positives | None = None,
        backgrounds: Sequence[npt.NDArray[np.uint8]] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.config = config
        self.stages: list[Stage] = []
        self.reports: list[StageReport] = []
        self._tell = progress or (lambda _: None)
        self.features = _pool(config)
        self.table: FeatureTable = feature_table(self.features, config.window)
        self._tilted = isinstance(self.features, HaarFeatures) and bool(self.features.tilted.any())
        self.workers = Workers(config.threads)
        # Half for bins: samples, pictures and the compiler need their share.
        self._neighbours: Neighbours | None = None
        self._memory, self._arena = memory_budget(config.memory_mb) // 2, Arena()
        self._given = positives, backgrounds
        self._negatives = np.zeros((0, config.window[1], config.window[0]), dtype=np.uint8)

    @property
    def cascade(self) -> Cascade:
        """The cascade of the stages trained so far."""
        if not self.stages:
            raise InputError("expected at least one trained stage, got none")
        provenance = {"trainer": f"vj {__version__}", "boosting": self.config.boosting, "seed": str(self.config.seed)}
        return build_cascade(self.config.window, self.features, self.stages, provenance)

    def __iter__(self) -> Iterator[StageReport]:
        """Train; yields the report of each stage as it is finished."""
        try:
            self._open()
            while len(self.stages) < self.config.stages:
                report = self._stage()
                if report is None:
                    return
                self.reports.append(report)
                yield report
        finally:
            self.workers.close()

    def _note(self, text: str) -> None:
        self._tell(Progress("note", len(self.stages), text=text))

    def _open(self) -> None:
        """Load positives and find backgrounds."""
        config = self.config
        given, backgrounds = self._given
        self._tell(Progress("positives", 0))
        self.positives = given if given is not None else load_positives(config, self.workers)
        for note in self.positives.notes:
            self._note(note)
        found = find_backgrounds(config.backgrounds) if backgrounds is None else Backgrounds(list(backgrounds))
        if not len(found):
            raise InputError("expected backgrounds, got none")
        lbp = config.features == "lbp"
        self.miner = Miner(
            found, config.window, self.workers, seed=config.seed, scale_factor=config.scale_factor, lbp=lbp
        )
        groups = np.unique(self.positives.groups)
        rng = np.random.default_rng((config.seed, 4))
        out = rng.choice(groups, int(config.holdout * len(groups)), replace=False)
        self._held_out = np.isin(self.positives.groups, out)
        self._alive = np.ones(len(self.positives.windows), dtype=np.bool_)

    def _stage(self) -> StageReport | None:
        start, config = perf_counter(), self.config
        index = len(self.stages)
        training = self._choose_positives()
        held = np.flatnonzero(self._alive & self._held_out)
        if len(training) < 2:
            self._note(
                "training ends: fewer than two positives are left; more positives, or a higher min_hit_rate, help"
            )
            return None
        mined = self._refill()
        if not self._enough(mined):
            return None
        self._tell(Progress("binning", index))
        groups = (
            prepare(self.positives.windows[training], tilted=self._tilted),
            prepare(self._negatives, tilted=self._tilted),
        )
        held_samples = prepare(self.positives.windows[held], tilted=self._tilted) if len(held) else None
        search = Search(self.table, groups, self.workers, self._memory, self._arena)
        result = train_stage(search, held_samples, config, chooser=self._chooser(), progress=self._round)
        if result is None:
            self._note("training ends: no feature tells positives and negatives apart")
            return None
        stage, last = result
        if last.false_alarm_rate >= 1.0:
            self._note(
                f"training ends: {last.weak_count} weak classifiers reject nothing at a hit rate of "
                f"{config.min_hit_rate}; a lower min_hit_rate or cleaner positives help"
            )
            return None
        self._accept(stage, groups, search)
        return StageReport(
            index=index,
            weak_classifiers=last.weak_count,
            threshold=float(stage.threshold),
            hit_rate=last.hit_rate,
            training_hit_rate=last.training_hit_rate,
            false_alarm_rate=last.false_alarm_rate,
            positives=len(training),
            held_out=len(held),
            negatives=groups[1].count,
            windows_scanned=mined.scanned,
            acceptance_ratio=mined.acceptance,
            mining_seconds=mined.seconds,
            seconds=perf_counter() - start,
        )

    def _chooser(self) -> Callable[[int], Chooser] | None:
        """For the fast search: the candidates of each search, each with a seed of its own."""
        if self.config.search == "exact":
            return None
        self._neighbours = self._neighbours or Neighbours(self.features)
        seed, share = (self.config.seed, 6, len(self.stages)), self.config.search_share
        near, n = self._neighbours, len(self.table)
        return lambda round: lambda search: FastCandidates(near, n, share, (*seed, round, search))

    def _round(self, done: Round, trees: tuple[WeakTree, ...]) -> None:
        self._tell(Progress("round", len(self.stages), round=done))

    def _choose_positives(self) -> npt.NDArray[np.int64]:
        """Positives of the next stage: a random choice of those that are left and not held out."""
        left = np.flatnonzero(self._alive & ~self._held_out)
        wanted = self.config.positives_per_stage
        if len(left) < wanted and not self.stages:
            self._note(f"{wanted} positives a stage were asked for, {len(left)} are there; all of them are used")
        if len(left) <= wanted:
            return left
        rng = np.random.default_rng((self.config.seed, 5, len(self.stages)))
        return np.sort(rng.choice(left, wanted, replace=False))

    def _refill(self) -> Mined:
        """Add newly mined negatives to those of the last stage that still pass."""
        config, index = self.config, len(self.stages)
        cascade = self.cascade if self.stages else None
        expected = 1.0
        if self.reports:
            expected = self.reports[-1].acceptance_ratio * self.reports[-1].false_alarm_rate
        wanted = config.negatives_per_stage - len(self._negatives)

        def progress(found: int, scanned: int) -> None:
            self._tell(Progress("mining", index, found=found, wanted=wanted, scanned=scanned))

        mined = self.miner.mine(cascade, wanted, expected, progress)
        self._negatives = np.concatenate([self._negatives, mined.windows])
        return mined

    def _enough(self, mined: Mined) -> bool:
        config = self.config
        if self.stages and mined.acceptance < config.overall_false_alarm_rate and mined.scanned:
            self._note(
                f"training ends: {mined.acceptance:.1e} of the background windows pass, "
                f"the overall_false_alarm_rate asked for is {config.overall_false_alarm_rate:.1e}"
            )
            return False
        if mined.exhausted:
            text = (
                f"backgrounds are used up: {len(self._negatives)} of {config.negatives_per_stage} negatives were found"
            )
            if len(self._negatives) < max(2, config.negatives_per_stage // 20):
                self._note(f"training ends: {text}; more backgrounds would let it go on")
                return False
            self._note(f"{text}; the stage is trained with them, more backgrounds would help")
        return True

    def _accept(self, stage: Stage, groups: tuple[object, object], search: Search) -> None:
        """Keep the stage; drop the positives it loses and the negatives it rejects."""
        self.stages.append(stage)
        limits = limit(stage.threshold)
        self._negatives = self._negatives[stage.sums(self.table, search.groups[1]) >= limits]
        alive = np.flatnonzero(self._alive)
        for first in range(0, len(alive), 4096):
            part = alive[first : first + 4096]
            samples = prepare(self.positives.windows[part], tilted=self._tilted)
            self._alive[part] = stage.sums(self.table, samples) >= limits


def train(
    config: TrainingConfig,
    *,
    positives: Positives | None = None,
    backgrounds: Sequence[npt.NDArray[np.uint8]] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Training:
    """Train a cascade.

    Parameters
    ----------
    config, positives, backgrounds, progress
        As for `Training`.

    Returns
    -------
    Training
        Iterate over it to train: it yields a `StageReport` for each stage; its ``cascade`` is what has been trained.

    Examples
    --------
    >>> run = train(TrainingConfig.from_toml("recipe.toml"))  # doctest: +SKIP
    >>> for report in run:  # doctest: +SKIP
    ...     print(report.index, report.hit_rate, report.false_alarm_rate)
    >>> vj.save(run.cascade, "cascade.xml")  # doctest: +SKIP
    """
    return Training(config, positives=positives, backgrounds=backgrounds, progress=progress)


def _pool(config: TrainingConfig) -> HaarFeatures | LbpFeatures:
    if config.features == "lbp":
        return lbp_pool(config.window)
    return feature_pool(config.window, config.features)  # type: ignore[arg-type]


def build_cascade(
    window: tuple[int, int],
    features: HaarFeatures | LbpFeatures,
    stages: Sequence[Stage],
    provenance: dict[str, str],
) -> Cascade:
    """Flatten trained stages into a cascade that holds only the features it uses."""
    trees = [tree for stage in stages for tree in stage.trees]
    splits = [split for tree in trees for split in tree.splits]
    used, index = np.unique([split.feature for split in splits], return_inverse=True)
    lbp = isinstance(features, LbpFeatures)
    return Cascade(
        window=window,
        features=features.take(used),
        stage_starts=_starts([len(stage.trees) for stage in stages]),
        stage_thresholds=np.array([stage.threshold for stage in stages], dtype=np.float32),
        tree_starts=_starts([len(tree.splits) for tree in trees]),
        node_features=index.astype(np.int32),
        node_children=np.concatenate([tree.children for tree in trees]),
        node_thresholds=np.array([split.threshold for split in splits], dtype=np.float32),
        node_subsets=np.array([split.subset for split in splits] if lbp else [], dtype=np.int32).reshape(
            -1, SUBSET_WORDS
        ),
        leaves=np.concatenate([tree.leaves for tree in trees]),
        provenance=provenance,
    )


def _starts(sizes: list[int]) -> npt.NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
