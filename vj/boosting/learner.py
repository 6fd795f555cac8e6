"""Train one stage after another: choose positives, mine negatives, boost, keep the samples that pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import numpy as np
import numpy.typing as npt

from vj._version import __version__
from vj.boosting.advice import stage_advice
from vj.boosting.build import build_cascade, pool, scaled, short_leaves
from vj.boosting.checkpoint import BOOSTING, FINISHED, MINING, State
from vj.boosting.engine import Engine
from vj.boosting.fast_search import FastCandidates, Neighbours
from vj.boosting.feature_values import FeatureTable, feature_table
from vj.boosting.memory import SampleCounts, least_memory, memory_budget, memory_for_bins
from vj.boosting.mining import Harvest
from vj.boosting.positives import Positives
from vj.boosting.progress import Progress, StageReport
from vj.boosting.pruning import depths, measured, prune
from vj.boosting.recipe import TrainingConfig
from vj.boosting.samples import Samples, Windows, prepare
from vj.boosting.search import Arena
from vj.boosting.soft import soften
from vj.boosting.stage import Round, Stage, stage_limit, train_stage
from vj.boosting.trees import LEAF_STEPS, Chooser, WeakTree, fixed
from vj.boosting.workers import Workers
from vj.cascade.haar import HaarFeatures, pool_size, pool_step
from vj.cascade.model import Cascade
from vj.datasets.backgrounds import Backgrounds
from vj.errors import InputError

# Background windows on which the cost is counted when thresholds are raised together.
_PRUNING_WINDOWS = 100_000

# Raised stages are measured until this many background windows have reached the last one, whose false alarm rate is
# then known to about 0.015, and on at least this many windows in all, which takes about a third of a second.
_REACHED, _LEAST_SCANNED = 1000, 20_000_000


class Learner:
    """Trains stages; everything that must survive an interruption is in its `state`.

    Parameters
    ----------
    config : TrainingConfig
    positives : Positives
    held_out : ndarray of bool, shape (n,)
        Positives that boosting never sees.
    backgrounds : Backgrounds
    workers : Workers
    hear : callable
        Called with a `Progress` at every step; the state may be saved then.
    engine : Engine, optional
        Where to mine and search; by default on the threads of `workers`.

    Attributes
    ----------
    state : State
        The stages so far and the work on the next one.
    """

    def __init__(
        self,
        config: TrainingConfig,
        positives: Positives,
        held_out: npt.NDArray[np.bool_],
        backgrounds: Backgrounds,
        workers: Workers,
        hear: Callable[[Progress], None],
        engine: Engine | None = None,
    ) -> None:
        self.config, self.positives, self.held_out = config, positives, held_out
        self._features = pool(config.window, config.features, config.feature_step)
        self._table: FeatureTable = feature_table(self._features, config.window)
        self._tilted = isinstance(self._features, HaarFeatures) and bool(self._features.tilted.any())
        self._engine = engine or Engine()
        self._miner = self._engine.miner(
            backgrounds,
            config.window,
            workers,
            seed=config.seed,
            scale_factor=config.scale_factor,
            lbp=config.features == "lbp",
            overlap=config.annotated_overlap,
        )
        self._workers, self._hear = workers, hear
        self._neighbours: Neighbours | None = None
        self._memory, self._arena = memory_budget(config.memory_mb), Arena()
        self._alive = np.ones(len(positives.windows), dtype=np.bool_)
        self.state = State(self._miner.harvest())
        self._since = perf_counter()
        self._softened: Cascade | None = None

    @property
    def n_features(self) -> int:
        """Number of features in the pool."""
        return len(self._table)

    def describe_pool(self) -> None:
        """Say so if only some of the features that fit the window are searched."""
        config = self.config
        if config.features == "lbp" or config.feature_step:
            return
        every = pool_size(config.window, config.features)  # type: ignore[arg-type]
        if every > len(self._table):
            step = pool_step(config.window, config.features)  # type: ignore[arg-type]
            self._note(
                f"a window of {config.window[0]}x{config.window[1]} has {every:,} features; {len(self._table):,} are "
                f"searched, whose positions and sizes are multiples of {step} pixels (feature_step)"
            )

    def check_memory(self) -> None:
        """Refuse a run that cannot stay within the memory asked for, before hours are spent on it."""
        config, held_out = self.config, int(self.held_out.sum())
        positives = min(len(self.held_out) - held_out, config.positives_per_stage) + held_out
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

    def restore(self, state: State) -> None:
        """Continue from a saved state."""
        self.state = state
        self._alive = self._depths(state.stages, self.positives.windows) == len(state.stages)

    def start_clock(self) -> None:
        """Start counting time."""
        self._since = perf_counter()

    def tick(self) -> None:
        """Add the time since the last call to the current stage."""
        now = perf_counter()
        self.state.seconds += now - self._since
        self._since = now

    def release(self) -> None:
        """Free the memory that is only kept for the next stage."""
        self._arena = Arena()

    def cascade(self) -> Cascade:
        """Return the cascade of the stages so far, of which there must be one.

        At the end its leaves are scaled and rounded, see `short_leaves`, and it may have soft thresholds.
        """
        if self.state.phase != FINISHED or not self.config.soft_loss:
            return self._cascade(self.state.stages)
        if self._softened is None:
            self._soften()
        return self._softened or self._cascade(self.state.stages)

    def _cascade(self, stages: list[Stage]) -> Cascade:
        provenance = {"trainer": f"vj {__version__}", "boosting": self.config.boosting, "seed": str(self.config.seed)}
        found = build_cascade(self.config.window, self._features, stages, provenance)
        return short_leaves(scaled(found, self.config.margin_scale)) if self.state.phase == FINISHED else found

    def hardest_negatives(self, n: int) -> Windows:
        """Return the negatives that pass all stages with the highest last sums, at most `n`, the hardest first."""
        negatives = self.state.harvest.windows
        if not self.state.stages or not len(negatives):
            return negatives[:0]
        sums = self.state.stages[-1].sums(self._table, self._prepare(negatives))
        return negatives[np.argsort(-sums, kind="stable")[:n]]

    def step(self) -> None:
        """Train the next stage; after the last one, or if there cannot be another, prune and finish."""
        ended = len(self.state.stages) == self.config.stages or not self._stage()
        if ended or len(self.state.stages) == self.config.stages:
            self._finish()
            if self.state.stages and self.config.soft_loss and (note := self._soften()):
                self._note(note)

    # --- one stage ----------------------------------------------------------------------------------------------------

    def _stage(self) -> bool:
        """Train the next stage; False if training ends before it."""
        state = self.state
        config = self.config.of_stage(len(state.stages))
        training = self._choose_positives()
        held = np.flatnonzero(self._alive & self.held_out)
        if len(training) < 2 or self.positives.boosted_only[training].all():
            self._note("training ends: fewer than two positives are left; more positives or a higher min_hit_rate help")
            return False
        if state.phase == MINING and not self._refill():
            return False
        self._hear(Progress("binning", len(state.stages)))
        groups = self._prepare(self.positives.windows[training]), self._prepare(state.harvest.windows)
        held_samples = self._prepare(self.positives.windows[held]) if len(held) else None
        bins = memory_for_bins(self._memory, self._arena.size, sum(group.count for group in groups) + len(held))
        search = self._engine.search(
            self._table,
            groups,
            self._workers,
            bins,
            self._arena,
            window=config.window,
            exact=config.search == "exact",
        )
        result = train_stage(
            search,
            held_samples,
            config,
            deciding=~self.positives.boosted_only[training],
            before=state.stages[-1].trees if config.chain and state.stages else (),
            trees=state.trees,
            chooser=self._chooser(),
            progress=self._round,
        )
        if result is None:
            self._note("training ends: no feature separates positives from negatives")
            return False
        stage, last = result
        if last.false_alarm_rate >= 1.0:
            self._note(
                f"training ends: {last.weak_count} weak classifiers reject nothing at a hit rate of "
                f"{config.min_hit_rate}; a lower min_hit_rate or cleaner positives help"
            )
            return False
        self._accept(stage, last, groups[1], (len(training), len(held)))
        return True

    def _note(self, text: str) -> None:
        self._hear(Progress("note", len(self.state.stages), text=text))

    def _prepare(self, windows: Windows) -> Samples:
        return prepare(windows, tilted=self._tilted)

    def _depths(self, stages: list[Stage], windows: Windows) -> npt.NDArray[np.int64]:
        return depths(self._table, stages, windows, tilted=self._tilted)

    def _chooser(self) -> Callable[[int], Chooser] | None:
        """Return what chooses the candidates of each search of the fast kind, each with its own seed."""
        if self.config.search == "exact":
            return None
        near = self._neighbours = self._neighbours or Neighbours(self._features)
        index, n = len(self.state.stages), len(self._table)
        seed, share = (self.config.seed, 6, index), self.config.of_stage(index).search_share
        return lambda round: lambda search: FastCandidates(near, n, share, (*seed, round, search))

    def _round(self, done: Round, trees: tuple[WeakTree, ...]) -> None:
        self.state.trees = trees
        self._hear(Progress("round", len(self.state.stages), round=done))

    def _choose_positives(self) -> npt.NDArray[np.int64]:
        """Return the positives of the next stage: a random choice of those left that are not held out."""
        left = np.flatnonzero(self._alive & ~self.held_out)
        wanted = self.config.positives_per_stage
        if len(left) < 0.9 * wanted and not self.state.stages:
            self._note(f"{len(left)} positives for each stage, fewer than positives_per_stage ({wanted})")
        if len(left) <= wanted:
            return left
        rng = np.random.default_rng((self.config.seed, 5, len(self.state.stages)))
        return np.sort(rng.choice(left, wanted, replace=False))

    def _refill(self) -> bool:
        """Mine negatives to add to those that the last stage let through; False if training ends."""
        state, index = self.state, len(self.state.stages)
        harvest = state.harvest
        expected = state.reports[-1].acceptance_ratio * state.reports[-1].false_alarm_rate if state.reports else 1.0
        wanted = self.config.negatives_per_stage - harvest.kept

        def hear(now: Harvest) -> None:
            self._hear(Progress("mining", index, found=now.found, wanted=wanted, scanned=now.scanned, hits=now.hits))

        known = len(harvest.unreadable)
        self._miner.mine(self.cascade() if index else None, wanted, expected, harvest, hear)
        if unusable := list(harvest.unreadable.values())[known:]:
            self._note(f"{len(unusable)} backgrounds could not be used, the first: {unusable[0]}")
        if not self._enough(harvest):
            return False
        state.phase = BOOSTING
        return True

    def _enough(self, harvest: Harvest) -> bool:
        config, found = self.config, harvest.kept + harvest.found
        if self.state.stages and harvest.scanned and harvest.acceptance < config.overall_false_alarm_rate:
            self._note(
                f"training ends: {harvest.acceptance:.1e} of the background windows pass, "
                f"the overall_false_alarm_rate asked for is {config.overall_false_alarm_rate:.1e}"
            )
            return False
        if harvest.exhausted:
            text = f"backgrounds are used up: {found} of {config.negatives_per_stage} negatives were found"
            if found < max(2, config.negatives_per_stage // 20):
                self._note(f"training ends: {text}; with more backgrounds it could continue")
                return False
            self._note(f"{text}; the stage is trained with them, more backgrounds would help")
        return True

    def _accept(self, stage: Stage, last: Round, negatives: Samples, positives: tuple[int, int]) -> None:
        """Keep the stage; drop the positives it loses and the negatives it rejects."""
        self.tick()
        state, harvest = self.state, self.state.harvest
        report = StageReport(
            index=len(state.stages),
            weak_classifiers=last.weak_count,
            threshold=float(stage.threshold),
            hit_rate=last.hit_rate,
            training_hit_rate=last.training_hit_rate,
            false_alarm_rate=last.false_alarm_rate,
            positives=positives[0],
            held_out=positives[1],
            negatives=negatives.count,
            windows_scanned=harvest.scanned,
            acceptance_ratio=harvest.acceptance,
            mining_seconds=harvest.seconds,
            seconds=state.seconds,
        )
        report = replace(report, advice=stage_advice(report, self.config.of_stage(report.index)))
        windows = harvest.windows
        kept = windows[stage.sums(self._table, negatives) >= stage_limit(stage.threshold)]
        alive = self._alive.copy()
        alive[alive] = self._depths([stage], self.positives.windows[alive]) == 1
        after = State(harvest.next_stage(kept), stages=[*state.stages, stage], reports=[*state.reports, report])
        # Assigned together: an interrupt finds the stage either accepted or not.
        self._alive, self.state = alive, after

    # --- the end ------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Prune and loosen if asked for. The state changes at once, so that a run is changed once or not at all."""
        state = self.state
        stages, notes = self._loosened(*self._pruned(state.stages))
        if stages is state.stages:
            state.phase = FINISHED
            return
        depth = self._depths(stages, self.positives.windows)
        positives = depth[self.held_out], depth[~self.held_out]
        reports = measured(state.reports, stages, positives, self._reached(stages))
        negatives = state.harvest.windows
        kept = negatives[self._depths(stages, negatives) == len(stages)]
        after = replace(state, harvest=state.harvest.next_stage(kept), phase=FINISHED, stages=stages, reports=reports)
        self._alive, self.state = depth == len(stages), after
        for note in notes:
            self._note(note)

    def _pruned(self, stages: list[Stage]) -> tuple[list[Stage], list[str]]:
        """Return the stages with raised thresholds, if asked for, and what there is to say about it."""
        config, found = self.config, self.positives.windows[self._alive & self.held_out]
        if not config.pruning or not stages:
            return stages, []
        if not len(found):
            self._note("thresholds were not raised: that takes held-out positives that pass all stages")
            return stages, []
        self._hear(Progress("pruning", len(stages) - 1))
        wanted = min(_PRUNING_WINDOWS, 10 * config.negatives_per_stage)
        fresh = self._miner.mine(None, wanted, 1.0, self._miner.unseen()).windows
        raised, note = prune(self._table, stages, (found, fresh), config.pruning, tilted=self._tilted)
        return raised, [note]

    def _loosened(self, stages: list[Stage], notes: list[str]) -> tuple[list[Stage], list[str]]:
        """Return the stages with lowered or raised thresholds, if asked for, and what there is to say."""
        amounts = np.array([self.config.of_stage(k).loosening for k in range(len(stages))], dtype=np.float32)
        if self.config.fixed_point:
            amounts = fixed(amounts, LEAF_STEPS)
        if not amounts.any():
            return stages, notes
        changed = [
            replace(one, threshold=np.float32(one.threshold - by)) for one, by in zip(stages, amounts, strict=True)
        ]
        return changed, [*notes, "thresholds changed at the end (loosening); reports describe the changed stages"]

    def _soften(self) -> str:
        """Set soft thresholds; return one line on them. They follow from the state: no checkpoint holds them."""
        cascade = self._cascade(self.state.stages)
        found = self.positives.windows[self._alive & self.held_out]
        try:
            self._softened = soften(cascade, found, self.config.soft_loss)
        except InputError as error:
            self._softened = cascade
            return f"soft thresholds were not set: {error}"
        n = len(self._softened.soft or ())
        share = 100 * self.config.soft_loss
        return f"soft thresholds after {n} weak classifiers lose at most {share:g} % of {len(found)} held-out positives"

    def _reached(self, stages: list[Stage]) -> npt.NDArray[np.float64]:
        """Return the shares of background windows that reach each stage, and that pass them all.

        Scans no more windows than the mining of a single stage did.
        """
        most = max(_LEAST_SCANNED, *(report.windows_scanned for report in self.state.reports))

        def hear(scanned: int) -> None:
            self._hear(Progress("pruning", len(stages) - 1, scanned=scanned))

        scanned, reached = self._miner.count(self._cascade(stages), _REACHED, (_LEAST_SCANNED, most), hear)
        return reached / max(scanned, 1)
