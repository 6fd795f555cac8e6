"""The training loop: stage after stage, with new negatives mined in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._version import __version__
from vj.boosting.build import build_cascade
from vj.boosting.checkpoint import BOOSTING, FINISHED, MINING, Checkpoint, State, fingerprint
from vj.boosting.fast_search import FastCandidates, Neighbours
from vj.boosting.feature_values import FeatureTable, feature_table
from vj.boosting.inputs import BackgroundsGiven, PositivesGiven, Recipe, gather
from vj.boosting.lock import locked
from vj.boosting.memory import memory_budget, memory_for_bins
from vj.boosting.mining import Harvest, Miner
from vj.boosting.output import Output
from vj.boosting.positives import Positives, load_positives, positives_from_arrays
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
from vj.errors import InputError

CHECKPOINT_SECONDS = 30.0
"""Most time between two checkpoints, give or take one weak classifier or one picture."""

# Windows on which costs are counted when thresholds are raised together.
_PRUNING_WINDOWS = 100_000

# Positives are measured on a new stage this many at a time: 10 MB of integral images at 24x24.
_CHUNK = 4096


@dataclass(frozen=True)
class TrainingResult:
    """What a training run came to.

    Parameters
    ----------
    cascade : Cascade
    reports : tuple of StageReport
        One for each stage of the cascade.
    config : TrainingConfig
        All settings of the run.
    notes : tuple of str
        What the run had to say, such as why it ended before the last stage asked for.
    """

    cascade: Cascade
    reports: tuple[StageReport, ...]
    config: TrainingConfig
    notes: tuple[str, ...]


class Training:
    """A training run, stage by stage: iterate over it to train.

    The loop may be left and entered again, also after an exception or Ctrl-C in the middle of a stage: training
    resumes where it stopped. With an output folder it resumes in another process, too.

    Parameters
    ----------
    recipe : path or TrainingConfig, optional
        A TOML file or a configuration; without one, settings start from their defaults.
    positives : ndarray of uint8, sequence of ndarray, path, or sequence of path or `PositiveSource`, optional
        The objects: crops as an array of shape (n, h, w) or a list of arrays (h, w) or (h, w, 3) BGR, in any size; or
        folders and files to read them from. By default those of the recipe.
    backgrounds : ndarray of uint8, sequence of ndarray or path, or path, optional
        Images without the object: an array of shape (n, h, w), a list of images, or files, folders, lists and
        patterns. By default those of the recipe.
    progress : callable, optional
        Called with a `Progress` at every step within stages.
    **settings
        Any field of `TrainingConfig`, in place of the recipe's. `output` names a folder that then holds the cascade,
        reports, plots and a checkpoint: a run of the same settings and data resumes from it and ends with the very
        cascade of an uninterrupted run.

    Attributes
    ----------
    config : TrainingConfig
        The settings, recipe and keywords together.
    notes : list of str
        What the run has said so far, such as why it ended.

    Raises
    ------
    InputError
        When it is made, for a bad recipe, setting or array, or for no data; in the loop, for data that cannot be read
        or an output folder that belongs to another run.

    See Also
    --------
    train : Runs to the end in one call.

    Examples
    --------
    >>> training = vj.Training(positives="faces/", backgrounds="photos/", stages=12)  # doctest: +SKIP
    >>> for report in training:  # doctest: +SKIP
    ...     print(report.index, report.hit_rate, report.false_alarm_rate)
    >>> vj.save(training.cascade, "cascade.xml")  # doctest: +SKIP
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        *,
        positives: PositivesGiven | None = None,
        backgrounds: BackgroundsGiven | None = None,
        progress: Callable[[Progress], None] | None = None,
        **settings: Any,
    ) -> None:
        self._inputs = gather(recipe, positives, backgrounds, settings)
        self.config = config = self._inputs.config
        self.notes: list[str] = []
        self._features = _pool(config)
        self._state = State(MINING, np.zeros((0, config.window[1], config.window[0]), dtype=np.uint8))
        self._tell = progress or (lambda _: None)
        self._table: FeatureTable = feature_table(self._features, config.window)
        self._tilted = isinstance(self._features, HaarFeatures) and bool(self._features.tilted.any())
        self._workers = Workers(config.threads)
        self._neighbours: Neighbours | None = None
        self._memory, self._arena = memory_budget(config.memory_mb), Arena()
        self._output = Output(config)
        self._checkpoint: Checkpoint | None = None
        self._opened = self._busy = self._unwritten = False
        self._lock, self._loops = ExitStack(), 0
        # Reports that the loop has yielded, or that a checkpoint held.
        self._yielded = 0
        self._saved = self._begun = perf_counter()

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self._state.phase == FINISHED

    @property
    def reports(self) -> tuple[StageReport, ...]:
        """Reports of the stages trained so far; after pruning, of the stages as they were raised."""
        return tuple(self._state.reports)

    @property
    def cascade(self) -> Cascade:
        """The cascade of the stages trained so far.

        Raises
        ------
        InputError
            If there is no stage yet.
        """
        if not self._stages:
            raise InputError("expected at least one trained stage, got none")
        provenance = {"trainer": f"vj {__version__}", "boosting": self.config.boosting, "seed": str(self.config.seed)}
        return build_cascade(self.config.window, self._features, self._stages, provenance)

    @property
    def negatives(self) -> npt.NDArray[np.uint8]:
        """Negatives of the stage at hand, at the end those that pass all stages; shape (n, height, width)."""
        return self._state.negatives

    @cached_property
    def positives(self) -> Positives:
        """The positives as windows, with their copies; they are read when first asked for."""
        self._tell(Progress("positives", 0))
        crops = self._inputs.crops
        if crops is not None:
            return positives_from_arrays(crops, self.config)
        return load_positives(self.config, self._workers)

    @cached_property
    def held_out(self) -> npt.NDArray[np.bool_]:
        """Which positives boosting never sees; shape (n,). Copies of one object are held out together."""
        groups = np.unique(self.positives.groups)
        rng = np.random.default_rng((self.config.seed, 4))
        out = rng.choice(groups, int(self.config.holdout * len(groups)), replace=False)
        return np.isin(self.positives.groups, out)

    def held_out_names(self) -> list[str]:
        """Return the image files of the held-out positives, each once."""
        names = self.positives.names
        numbers = np.unique(self.positives.groups[self.held_out])
        return list(dict.fromkeys(names[k] for k in numbers if names and names[k]))

    def hardest_negatives(self, n: int) -> npt.NDArray[np.uint8]:
        """Return the negatives that pass all stages with the highest last sums, at most `n`, the hardest first."""
        if not self._stages or not len(self.negatives):
            return self.negatives[:0]
        sums = self._stages[-1].sums(self._table, self._prepare(self.negatives))
        return self.negatives[np.argsort(-sums, kind="stable")[:n]]

    def result(self) -> TrainingResult:
        """Return what has been trained so far.

        Raises
        ------
        InputError
            If there is no stage yet; the message says why if training has ended.
        """
        if self.finished and not self._stages:
            why = f": {self.notes[-1]}" if self.notes else ""
            raise InputError(f"expected samples that make at least one stage, got none{why}")
        return TrainingResult(self.cascade, self.reports, self.config, tuple(self.notes))

    def write(self) -> None:
        """Write the stages trained so far to the output folder, if there is one; the loop does so by itself."""
        if self._stages:
            self._output.write(self.cascade, self.reports, self.positives, self.held_out_names())

    def __iter__(self) -> Iterator[StageReport]:
        """Train; yields the report of each stage as it is finished, not of those restored from a checkpoint."""
        with self._looping():
            while self._advance():
                self._yielded += 1
                yield self._state.reports[self._yielded - 1]

    @contextmanager
    def _looping(self) -> Iterator[None]:
        """Hold the checkpoint's lock, the threads and the memory for bins as long as any loop is not left."""
        if not self._loops and self.config.output:
            # One run for a checkpoint: two would delete each other's arrays.
            self._lock.enter_context(locked(Path(self.config.output) / "checkpoint"))
        self._loops += 1
        try:
            yield
        finally:
            self._loops -= 1
            if not self._loops:
                self._workers.close()
                self._arena = Arena()
                self._lock.close()

    def _advance(self) -> bool:
        """Train until there is a report to yield; False if there is none left."""
        if self._busy:
            raise InputError("expected one loop over a training at a time, got a second one while a stage is trained")
        self._busy = True
        try:
            if not self._opened:
                self._open()
            if self._unwritten:
                self._write()
            while self._yielded == len(self._state.reports) and not self.finished:
                self._step()
        finally:
            self._busy = False
        return self._yielded < len(self._state.reports)

    def _step(self) -> None:
        """Train a stage; after the last one, prune and finish."""
        wanted = self.config.stages
        ended = len(self._stages) == wanted or not self._stage()
        if ended or len(self._stages) == wanted:
            self._prune()
            self._state.phase = FINISHED
        self._unwritten = True
        self._save()
        self._write()

    def _write(self) -> None:
        """Write what there is now to the output folder."""
        self.write()
        if self.finished and self._stages:
            self._output.finish(self.cascade, self.reports, self.positives, self.hardest_negatives(200))
        elif self.finished and self._checkpoint is not None:
            # Nothing came of it, so nothing stays.
            self._checkpoint.clear()
        self._unwritten = False

    @property
    def _stages(self) -> list[Stage]:
        return self._state.stages

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self._tell(Progress("note", len(self._stages), text=text))

    # --- what is there at the start -----------------------------------------------------------------------------------

    def _open(self) -> None:
        """Load positives, find backgrounds, and resume from the checkpoint if there is one."""
        config = self.config
        self.notes.clear()
        for note in self.positives.notes:
            self._note(note)
        found = self._inputs.backgrounds()
        lbp = config.features == "lbp"
        self._miner = Miner(
            found, config.window, self._workers, seed=config.seed, scale_factor=config.scale_factor, lbp=lbp
        )
        self._alive = np.ones(len(self.positives.windows), dtype=np.bool_)
        n = int(self.held_out.sum())
        hit_rate = config.of_stage(0).min_hit_rate
        if n and not resolves(n, hit_rate):
            self._note(
                f"{n} positives held out are too few to set a hit rate of {hit_rate} on; "
                f"training positives are counted with them"
            )
        if config.output:
            data = {"positives": fingerprint([self.positives.windows]), "backgrounds": fingerprint(found.items)}
            self._checkpoint = Checkpoint(Path(config.output) / "checkpoint", config, data)
            self._restore(self._checkpoint.load())
        self._begun = self._saved = perf_counter()
        self._opened, self._unwritten = True, self.finished

    def _restore(self, state: State | None) -> None:
        if state is None:
            return
        self._state = state
        self._miner.visits, self._miner.unreadable = state.visits, state.unreadable
        for stage in state.stages:
            self._alive = self._still_alive(stage)
        self._yielded = len(state.reports)
        trees = f" and {len(state.trees)} weak classifiers of the next" if state.trees else ""
        self._note(f"resuming after {len(state.stages)} stages{trees}")

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
        share, stages = self.config.pruning, self._stages
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
        limits = [np.array([limit(stage.threshold) for stage in kind]) for kind in (stages, self._stages)]
        before, after = (cost_of_window(costs, sums[1], one) for one in limits)
        lost = 1 - float((sums[0] >= limits[1]).all(axis=1).mean())
        self._note(
            f"thresholds raised together: {before:.2f} features for a window with contrast, now {after:.2f}; "
            f"{100 * lost:.1f} % of the held-out positives that were found are given up"
        )

    # --- one stage ----------------------------------------------------------------------------------------------------

    def _stage(self) -> bool:
        """Train the next stage; False if training ends before it."""
        config = self.config.of_stage(len(self._stages))
        training = self._choose_positives()
        held = np.flatnonzero(self._alive & self.held_out)
        if len(training) < 2:
            self._note("training ends: fewer than two positives are left; more positives or a higher min_hit_rate help")
            return False
        if self._state.phase == MINING and not self._refill():
            return False
        self._tell(Progress("binning", len(self._stages)))
        groups = self._prepare(self.positives.windows[training]), self._prepare(self._state.negatives)
        held_samples = self._prepare(self.positives.windows[held]) if len(held) else None
        bins = memory_for_bins(self._memory, self._arena.size)
        search = Search(self._table, groups, self._workers, bins, self._arena)
        result = train_stage(
            search, held_samples, config, trees=self._state.trees, chooser=self._chooser(), progress=self._round
        )
        if result is None:
            self._note("training ends: no feature tells positives and negatives apart")
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

    def _prepare(self, windows: npt.NDArray[np.uint8]) -> Samples:
        return prepare(windows, tilted=self._tilted)

    def _chooser(self) -> Callable[[int], Chooser] | None:
        """For the fast search: the candidates of each search, each with a seed of its own."""
        if self.config.search == "exact":
            return None
        near = self._neighbours = self._neighbours or Neighbours(self._features)
        seed, share, n = (self.config.seed, 6, len(self._stages)), self.config.search_share, len(self._table)
        return lambda round: lambda search: FastCandidates(near, n, share, (*seed, round, search))

    def _round(self, done: Round, trees: tuple[WeakTree, ...]) -> None:
        self._state.trees = trees
        self._save_if_due()
        self._tell(Progress("round", len(self._stages), round=done))

    def _choose_positives(self) -> npt.NDArray[np.int64]:
        """Positives of the next stage: a random choice of those that are left and not held out."""
        left = np.flatnonzero(self._alive & ~self.held_out)
        wanted = self.config.positives_per_stage
        if len(left) < wanted and not self._stages:
            self._note(f"{wanted} positives a stage were asked for, {len(left)} are there; all of them are used")
        if len(left) <= wanted:
            return left
        rng = np.random.default_rng((self.config.seed, 5, len(self._stages)))
        return np.sort(rng.choice(left, wanted, replace=False))

    def _refill(self) -> bool:
        """Add newly mined negatives to those of the last stage that still pass; False if training ends."""
        config, index, state = self.config, len(self._stages), self._state
        cascade = self.cascade if self._stages else None
        expected = 1.0
        if self._state.reports:
            expected = self._state.reports[-1].acceptance_ratio * self._state.reports[-1].false_alarm_rate
        kept = state.negatives[: state.kept]
        wanted = config.negatives_per_stage - len(kept)
        harvest = Harvest(
            [state.negatives[state.kept :]], state.first_visit, state.scanned, state.accepted, state.mining_seconds
        )
        if not harvest.scanned:
            harvest.first_visit = self._miner.visits

        def note(now: Harvest, force: bool = False) -> None:
            if force or perf_counter() - self._saved > CHECKPOINT_SECONDS:
                state.negatives = np.concatenate([kept, now.windows(config.window)])
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
        if self._stages and harvest.scanned and harvest.acceptance < config.overall_false_alarm_rate:
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

    def _accept(self, stage: Stage, last: Round, negatives: Samples, positives: tuple[int, int]) -> None:
        """Keep the stage; drop the positives it loses and the negatives it rejects."""
        state = self._state
        report = StageReport(
            index=len(self._stages),
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
        alive = self._still_alive(stage)
        after = State(MINING, kept, kept=len(kept), stages=[*state.stages, stage], reports=[*state.reports, report])
        # Nothing runs between the two: an interrupt finds the stage accepted or not begun.
        self._alive, self._state = alive, after
        self._begun = perf_counter()

    def _still_alive(self, stage: Stage) -> npt.NDArray[np.bool_]:
        """Return which positives pass `stage`, too; shape (n,)."""
        result = self._alive.copy()
        alive = np.flatnonzero(result)
        for first in range(0, len(alive), _CHUNK):
            part = alive[first : first + _CHUNK]
            samples = self._prepare(self.positives.windows[part])
            result[part] = stage.sums(self._table, samples) >= limit(stage.threshold)
        return result


def train(
    recipe: Recipe | None = None,
    *,
    positives: PositivesGiven | None = None,
    backgrounds: BackgroundsGiven | None = None,
    progress: Callable[[Progress], None] | None = None,
    **settings: Any,
) -> TrainingResult:
    """Train a cascade, to the end.

    Parameters
    ----------
    recipe, positives, backgrounds, progress, **settings
        As for `Training`; `output` names a folder for the results, from which an interrupted call resumes.

    Returns
    -------
    TrainingResult

    Raises
    ------
    InputError
        For input that cannot be used, or samples that do not make a single stage.

    Examples
    --------
    >>> result = vj.train("recipe.toml", output="out")  # doctest: +SKIP
    >>> result.reports[-1].hit_rate  # doctest: +SKIP
    0.9975
    >>> vj.Detector(result.cascade).detect(image)  # doctest: +SKIP
    """
    training = Training(recipe, positives=positives, backgrounds=backgrounds, progress=progress, **settings)
    for _ in training:
        pass
    return training.result()


def _pool(config: TrainingConfig) -> HaarFeatures | LbpFeatures:
    if config.features == "lbp":
        return lbp_pool(config.window)
    return feature_pool(config.window, config.features)  # type: ignore[arg-type]
