"""The training loop: stage after stage, with new negatives mined in between."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from time import perf_counter

import numpy as np
import numpy.typing as npt

from vj._version import __version__
from vj.boosting.build import build_cascade
from vj.boosting.checkpoint import BOOSTING, FINISHED, MINING, Checkpoint, State
from vj.boosting.fast_search import FastCandidates, Neighbours
from vj.boosting.feature_values import FeatureTable, feature_table
from vj.boosting.fingerprints import fingerprint
from vj.boosting.lock import locked
from vj.boosting.memory import SampleCounts, least_memory, memory_budget, memory_for_bins
from vj.boosting.mining import Harvest, Miner
from vj.boosting.positives import Positives, load_positives
from vj.boosting.progress import Progress, StageReport
from vj.boosting.pruning import cost_of_window, pruned_thresholds, stage_sums
from vj.boosting.recipe import TrainingConfig
from vj.boosting.samples import Samples, prepare
from vj.boosting.search import Arena, Search
from vj.boosting.stage import Round, Stage, limit, resolves, train_stage
from vj.boosting.trees import Chooser, WeakTree
from vj.boosting.workers import Workers
from vj.cascade.haar import HaarFeatures, feature_pool
from vj.cascade.lbp import LbpFeatures, lbp_pool
from vj.cascade.model import Cascade
from vj.datasets.backgrounds import Backgrounds, find_backgrounds
from vj.errors import InputError

CHECKPOINT_SECONDS = 30.0
"""Most time between two checkpoints, give or take one weak classifier or one picture."""

# Windows on which costs are counted when thresholds are raised together.
_PRUNING_WINDOWS = 100_000

# Positives are measured on a new stage this many at a time: 10 MB of integral images at 24x24.
_CHUNK = 4096


class Training:
    """A run of the trainer; iterate over it to train, stage by stage.

    Parameters
    ----------
    config : TrainingConfig
    positives : Positives, optional
        Ready windows; by default those that the configuration names.
    backgrounds : sequence of ndarray of uint8 or path, optional
        By default those that the configuration names.
    progress : callable, optional
        Called with a `Progress` within stages.
    checkpoint : path, optional
        Folder for checkpoints. If it holds one of the same recipe and pictures, the run goes on from there, and ends
        with the very cascade that an uninterrupted run ends with.

    Attributes
    ----------
    stages : list of Stage
    reports : list of StageReport
    negatives : ndarray of uint8, shape (n, height, width)
        Negatives of the stage at hand, or those that the last stage let through.
    finished : bool
        Whether there is nothing left to train.
    """

    def __init__(
        self,
        config: TrainingConfig,
        *,
        positives: Positives | None = None,
        backgrounds: Sequence[npt.NDArray[np.uint8] | str | os.PathLike[str]] | None = None,
        progress: Callable[[Progress], None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        self.config = config
        self.features = _pool(config)
        self.finished = False
        self._state = State(MINING, np.zeros((0, config.window[1], config.window[0]), dtype=np.uint8))
        self._tell = progress or (lambda _: None)
        self._table: FeatureTable = feature_table(self.features, config.window)
        self._tilted = isinstance(self.features, HaarFeatures) and bool(self.features.tilted.any())
        self._workers = Workers(config.threads)
        self._neighbours: Neighbours | None = None
        self._memory, self._arena = memory_budget(config.memory_mb), Arena()
        self._given = positives, backgrounds
        self._place = checkpoint
        self._checkpoint: Checkpoint | None = None
        self._saved = self._begun = perf_counter()

    @property
    def stages(self) -> list[Stage]:
        """Finished stages."""
        return self._state.stages

    @property
    def reports(self) -> list[StageReport]:
        """Reports of the finished stages."""
        return self._state.reports

    @property
    def negatives(self) -> npt.NDArray[np.uint8]:
        """Negatives of the stage at hand, or those that the last stage let through."""
        return self._state.negatives

    @property
    def cascade(self) -> Cascade:
        """The cascade of the stages trained so far."""
        if not self.stages:
            raise InputError("expected at least one trained stage, got none")
        provenance = {"trainer": f"vj {__version__}", "boosting": self.config.boosting, "seed": str(self.config.seed)}
        return build_cascade(self.config.window, self.features, self.stages, provenance)

    def hardest_negatives(self, n: int) -> npt.NDArray[np.uint8]:
        """Return the negatives that pass all stages with the highest last sums, at most `n`, the hardest first."""
        if not self.stages or not len(self.negatives):
            return self.negatives[:0]
        sums = self.stages[-1].sums(self._table, self._prepare(self.negatives))
        return self.negatives[np.argsort(-sums, kind="stable")[:n]]

    def held_out_names(self) -> list[str]:
        """Return the pictures of the positives that boosting never sees, each once: faces to measure groups on."""
        names = self.positives.names
        numbers = np.unique(self.positives.groups[self.held_out])
        return list(dict.fromkeys(names[k] for k in numbers if names and names[k]))

    def forget(self) -> None:
        """Remove the run's checkpoint."""
        if self._checkpoint is not None:
            self._checkpoint.clear()

    def __iter__(self) -> Iterator[StageReport]:
        """Train; yields the report of each stage as it is finished, not of those restored from a checkpoint."""
        try:
            # One run for a checkpoint: two would delete each other's arrays.
            with nullcontext() if self._place is None else locked(self._place):
                self._open()
                while not self.finished:
                    report = self._stage()
                    self.finished = report is None or len(self.stages) == self.config.stages
                    if self.finished:
                        self._prune()
                        self._state.phase = FINISHED
                    self._save()
                    if report is not None:
                        yield report
        finally:
            self._workers.close()
            self._arena = Arena()

    def _note(self, text: str) -> None:
        self._tell(Progress("note", len(self.stages), text=text))

    # --- what is there at the start -----------------------------------------------------------------------------------

    def _open(self) -> None:
        """Load positives, find backgrounds, and go on from the checkpoint if there is one."""
        config = self.config
        given, backgrounds = self._given
        self._tell(Progress("positives", 0))
        self.positives = given if given is not None else load_positives(config, self._workers)
        for note in self.positives.notes:
            self._note(note)
        found = find_backgrounds(config.backgrounds) if backgrounds is None else Backgrounds(list(backgrounds))
        if not len(found):
            raise InputError("expected backgrounds, got none")
        lbp = config.features == "lbp"
        self._miner = Miner(
            found, config.window, self._workers, seed=config.seed, scale_factor=config.scale_factor, lbp=lbp
        )
        groups = np.unique(self.positives.groups)
        rng = np.random.default_rng((config.seed, 4))
        out = rng.choice(groups, int(config.holdout * len(groups)), replace=False)
        self.held_out = np.isin(self.positives.groups, out)
        self._alive = np.ones(len(self.positives.windows), dtype=np.bool_)
        n = int(self.held_out.sum())
        self._check_memory(min(len(self.held_out) - n, config.positives_per_stage) + n)
        hit_rate = config.of_stage(0).min_hit_rate
        if n and not resolves(n, hit_rate):
            self._note(
                f"{n} positives held out are too few to set a hit rate of {hit_rate} on; "
                f"training positives are counted with them"
            )
        if self._place is not None:
            self._tell(Progress("backgrounds", 0))
            data = {
                "positives": fingerprint([self.positives.windows, self.positives.groups]),
                "backgrounds": fingerprint(found.items, self._workers.map),
            }
            self._checkpoint = Checkpoint(self._place, config, data, features=len(self._table), backgrounds=len(found))
            self._restore(self._checkpoint.load())
        self._begun = self._saved = perf_counter()

    def _check_memory(self, positives: int) -> None:
        """Refuse a run that cannot stay within the memory asked for, before hours are spent on it."""
        config = self.config
        counts = SampleCounts(config.negatives_per_stage, positives)
        least = least_memory(counts, config.window, tilted=self._tilted, threads=self._workers.threads)
        if least <= self._memory:
            return
        # What the process itself takes differs by some MB from run to run: the number named is one that will do.
        enough = -(-((least >> 20) + 25) // 50) * 50
        text = f"{counts.negatives} negatives and {positives} positives of {config.window[0]}x{config.window[1]}"
        if config.memory_mb:
            raise InputError(f"expected memory_mb of at least {enough} for {text}, got {config.memory_mb}")
        self._note(f"{text} take about {enough} MB, more than half of the memory that is free")

    def _restore(self, state: State | None) -> None:
        if state is None:
            return
        self._state = state
        self._miner.visits, self._miner.unreadable = state.visits, state.unreadable
        for stage in state.stages:
            self._lose_positives(stage)
        self.finished = state.phase == FINISHED
        trees = f" and {len(state.trees)} weak classifiers of the next" if state.trees else ""
        self._note(f"going on after {len(state.stages)} stages{trees}")

    def _save(self) -> None:
        """Write a checkpoint now."""
        now = perf_counter()
        self._state.seconds += now - self._begun
        self._saved = self._begun = now
        if self._checkpoint is not None:
            self._state.visits, self._state.unreadable = self._miner.visits, self._miner.unreadable
            self._checkpoint.save(self._state)

    def _save_if_due(self) -> bool:
        due = self._checkpoint is not None and perf_counter() - self._saved > CHECKPOINT_SECONDS
        if due:
            self._save()
        return due

    def _prune(self) -> None:
        """Raise all stage thresholds together; part of the last step, so that a run is pruned once or not at all."""
        share, stages = self.config.pruning, self.stages
        found = self.positives.windows[self._alive & self.held_out]
        if not share or not stages or not len(found):
            return
        self._tell(Progress("pruning", len(stages) - 1))
        other = self._miner.another()
        windows = other.mine(None, min(_PRUNING_WINDOWS, 10 * self.config.negatives_per_stage), 1.0).windows(
            other.window
        )
        sums = [stage_sums(self._table, stages, w, tilted=self._tilted) for w in (found, windows)]
        costs = [sum(len(tree.splits) for tree in stage.trees) for stage in stages]
        thresholds = pruned_thresholds([stage.threshold for stage in stages], costs, sums[0], sums[1], share)
        self._state.stages = [replace(stage, threshold=t) for stage, t in zip(stages, thresholds, strict=True)]
        limits = [np.array([limit(stage.threshold) for stage in kind]) for kind in (stages, self.stages)]
        before, after = (cost_of_window(costs, sums[1], one) for one in limits)
        lost = 1 - float((sums[0] >= limits[1]).all(axis=1).mean())
        self._note(
            f"thresholds raised together: {before:.2f} features for a window with contrast, now {after:.2f}; "
            f"{100 * lost:.1f} % of the held-out positives that were found are given up"
        )

    # --- one stage ----------------------------------------------------------------------------------------------------

    def _stage(self) -> StageReport | None:
        """Train the next stage; None if the training ends before it."""
        config = self.config.of_stage(len(self.stages))
        training = self._choose_positives()
        held = np.flatnonzero(self._alive & self.held_out)
        if len(training) < 2:
            self._note("training ends: fewer than two positives are left; more positives or a higher min_hit_rate help")
            return None
        if self._state.phase == MINING and not self._refill():
            return None
        self._tell(Progress("binning", len(self.stages)))
        groups = self._prepare(self.positives.windows[training]), self._prepare(self._state.negatives)
        held_samples = self._prepare(self.positives.windows[held]) if len(held) else None
        bins = memory_for_bins(self._memory, self._arena.size)
        search = Search(self._table, groups, self._workers, bins, self._arena)
        result = train_stage(
            search, held_samples, config, trees=self._state.trees, chooser=self._chooser(), progress=self._round
        )
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
        return self._accept(stage, last, groups[1], (len(training), len(held)))

    def _prepare(self, windows: npt.NDArray[np.uint8]) -> Samples:
        return prepare(windows, tilted=self._tilted)

    def _chooser(self) -> Callable[[int], Chooser] | None:
        """For the fast search: the candidates of each search, each with a seed of its own."""
        if self.config.search == "exact":
            return None
        near = self._neighbours = self._neighbours or Neighbours(self.features)
        seed, share, n = (self.config.seed, 6, len(self.stages)), self.config.search_share, len(self._table)
        return lambda round: lambda search: FastCandidates(near, n, share, (*seed, round, search))

    def _round(self, done: Round, trees: tuple[WeakTree, ...]) -> None:
        self._state.trees = trees
        self._save_if_due()
        self._tell(Progress("round", len(self.stages), round=done))

    def _choose_positives(self) -> npt.NDArray[np.int64]:
        """Positives of the next stage: a random choice of those that are left and not held out."""
        left = np.flatnonzero(self._alive & ~self.held_out)
        wanted = self.config.positives_per_stage
        if len(left) < wanted and not self.stages:
            self._note(f"{wanted} positives a stage were asked for, {len(left)} are there; all of them are used")
        if len(left) <= wanted:
            return left
        rng = np.random.default_rng((self.config.seed, 5, len(self.stages)))
        return np.sort(rng.choice(left, wanted, replace=False))

    def _refill(self) -> bool:
        """Add newly mined negatives to those of the last stage that still pass; False if training ends."""
        config, index, state = self.config, len(self.stages), self._state
        cascade = self.cascade if self.stages else None
        expected = 1.0
        if self.reports:
            expected = self.reports[-1].acceptance_ratio * self.reports[-1].false_alarm_rate
        # Copied, or it would hold the array that it is a part of.
        kept = state.negatives[: state.kept].copy()
        wanted = config.negatives_per_stage - len(kept)
        harvest = Harvest(
            [state.negatives[state.kept :]], state.first_visit, state.scanned, state.accepted, state.mining_seconds
        )
        if not harvest.scanned:
            harvest.first_visit = self._miner.visits

        def note(now: Harvest, force: bool = False) -> None:
            if force or perf_counter() - self._saved > CHECKPOINT_SECONDS:
                # What was there before goes first: with the parts found these are two copies as it is.
                state.negatives = kept
                state.negatives = np.concatenate([kept, *now.parts])
                state.first_visit, state.scanned, state.accepted = now.first_visit, now.scanned, now.accepted
                state.mining_seconds = now.seconds
                self._save()
            self._tell(
                Progress("mining", index, found=now.found, wanted=wanted, scanned=now.scanned, accepted=now.accepted)
            )

        known = len(self._miner.unreadable)
        self._miner.mine(cascade, wanted, expected, harvest=harvest, progress=note)
        if unusable := list(self._miner.unreadable.values())[known:]:
            self._note(f"{len(unusable)} backgrounds could not be used, the first: {unusable[0]}")
        if not self._enough(harvest, len(kept) + harvest.found):
            return False
        state.phase = BOOSTING
        note(harvest, force=True)
        return True

    def _enough(self, harvest: Harvest, found: int) -> bool:
        config = self.config
        if self.stages and harvest.scanned and harvest.acceptance < config.overall_false_alarm_rate:
            self._note(
                f"training ends: {harvest.acceptance:.1e} of the background windows pass, "
                f"the overall_false_alarm_rate asked for is {config.overall_false_alarm_rate:.1e}"
            )
            return False
        if harvest.exhausted:
            text = f"backgrounds are used up: {found} of {config.negatives_per_stage} negatives were found"
            if found < max(2, config.negatives_per_stage // 20):
                self._note(f"training ends: {text}; more backgrounds would let it go on")
                return False
            self._note(f"{text}; the stage is trained with them, more backgrounds would help")
        return True

    def _accept(self, stage: Stage, last: Round, negatives: Samples, positives: tuple[int, int]) -> StageReport:
        """Keep the stage; drop the positives it loses and the negatives it rejects."""
        state = self._state
        report = StageReport(
            index=len(self.stages),
            weak_classifiers=last.weak_count,
            threshold=float(stage.threshold),
            hit_rate=last.hit_rate,
            training_hit_rate=last.training_hit_rate,
            false_alarm_rate=last.false_alarm_rate,
            positives=positives[0],
            held_out=positives[1],
            negatives=negatives.count,
            windows_scanned=state.scanned,
            acceptance_ratio=state.accepted / state.scanned if state.scanned else 0.0,
            mining_seconds=state.mining_seconds,
            seconds=state.seconds + perf_counter() - self._begun,
        )
        kept = state.negatives[stage.sums(self._table, negatives) >= limit(stage.threshold)]
        self._lose_positives(stage)
        self._state = State(
            MINING, kept, kept=len(kept), stages=[*state.stages, stage], reports=[*state.reports, report]
        )
        self._begun = perf_counter()
        return report

    def _lose_positives(self, stage: Stage) -> None:
        alive = np.flatnonzero(self._alive)
        for first in range(0, len(alive), _CHUNK):
            part = alive[first : first + _CHUNK]
            samples = self._prepare(self.positives.windows[part])
            self._alive[part] = stage.sums(self._table, samples) >= limit(stage.threshold)


def train(
    config: TrainingConfig,
    *,
    positives: Positives | None = None,
    backgrounds: Sequence[npt.NDArray[np.uint8] | str | os.PathLike[str]] | None = None,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Training:
    """Train a cascade.

    Parameters
    ----------
    config, positives, backgrounds, progress, checkpoint
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
    return Training(config, positives=positives, backgrounds=backgrounds, progress=progress, checkpoint=checkpoint)


def _pool(config: TrainingConfig) -> HaarFeatures | LbpFeatures:
    if config.features == "lbp":
        return lbp_pool(config.window)
    return feature_pool(config.window, config.features)  # type: ignore[arg-type]
