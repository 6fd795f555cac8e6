"""A training run: its inputs, the loop over its stages, its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from vj import _notebook
from vj.boosting.advice import data_advice
from vj.boosting.annotated import overlap
from vj.boosting.checkpoint import FINISHED, Checkpoint, State
from vj.boosting.engine import Engine
from vj.boosting.fingerprints import fingerprint
from vj.boosting.inputs import AnyPath, BackgroundsGiven, PositivesGiven, Recipe, gather
from vj.boosting.learner import Learner
from vj.boosting.lock import locked
from vj.boosting.mining import Harvest
from vj.boosting.output import Output
from vj.boosting.positives import Positives, load_positives, positives_from_arrays, without_held_out_copies
from vj.boosting.progress import Progress, StageReport, reports_html
from vj.boosting.recipe import ANNOTATED, TrainingConfig
from vj.boosting.stage import Stage, resolves, same_stage
from vj.boosting.workers import Workers
from vj.cascade.model import Cascade
from vj.errors import InputError

CHECKPOINT_SECONDS = 30.0
"""Longest time between two checkpoints, to within one weak classifier or one image."""


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training run.

    Parameters
    ----------
    cascade : Cascade
    reports : tuple of StageReport
        One for each stage of the cascade.
    config : TrainingConfig
        All settings of the run.
    notes : tuple of str
        Messages of the run, such as why it ended early.
    """

    cascade: Cascade
    reports: tuple[StageReport, ...]
    config: TrainingConfig
    notes: tuple[str, ...]

    def _repr_html_(self) -> str:
        return reports_html(_caption(self.reports), self.reports, self.notes)


def _caption(reports: Sequence[StageReport]) -> str:
    weak = _notebook.count(sum(one.weak_classifiers for one in reports), "weak classifier")
    return f"training: {_notebook.count(len(reports), 'stage')}, {weak}"


class Training:
    """A training run, stage by stage: iterate over it to train.

    The loop may be left and entered again, even after an exception or Ctrl-C in the middle of a stage: training
    resumes where it stopped. With an output folder it can also resume in another process.

    Parameters
    ----------
    recipe : path or TrainingConfig, optional
        A TOML file or a configuration; by default all settings have their defaults.
    positives : ndarray of uint8, sequence of ndarray, path, or sequence of path or `PositiveSource`, optional
        The objects: crops as an array of shape (n, h, w) or a list of arrays (h, w) or (h, w, 3) BGR, in any size; or
        folders and files to read them from. By default those of the recipe.
    backgrounds : ndarray of uint8, sequence of ndarray or path, or path, optional
        Images without the object: an array of shape (n, h, w), a list of images, or files, folders, lists and
        patterns. By default those of the recipe.
    output : path, optional
        Folder for the cascade, reports, plots and a checkpoint: a run with the same settings and data resumes from the
        checkpoint and gives the same cascade as an uninterrupted run. By default that of the recipe; without one,
        nothing is written.
    progress : callable, optional
        Called with a `Progress` at every step within stages.
    engine : vj.cluster.Engine, optional
        Where to mine and search; by default on threads here. The cascade is the same everywhere.
    **settings
        Fields of `TrainingConfig`, which replace those of the recipe.

    Attributes
    ----------
    config : TrainingConfig
        The settings of the run.
    notes : list of str
        Messages so far, such as why the run ended.

    Raises
    ------
    InputError
        On construction, for an invalid recipe, setting or array, or missing data; in the loop, for data that cannot
        be read or an output folder that belongs to another run.

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
        output: AnyPath | None = None,
        progress: Callable[[Progress], None] | None = None,
        engine: Any = None,
        **settings: Any,
    ) -> None:
        if output is not None:
            settings["output"] = output
        self._inputs = gather(recipe, positives, backgrounds, settings)
        self.config = config = self._inputs.config
        self.notes: list[str] = []
        self._tell = progress or (lambda _: None)
        self._workers, self._engine = Workers(config.threads), engine or Engine()
        self._output = Output(config)
        self._learner: Learner | None = None
        self._checkpoint: Checkpoint | None = None
        self._lock, self._loops = ExitStack(), 0
        self._busy = self._unwritten = False
        # Reports that the loop has yielded, or that a checkpoint held.
        self._yielded = 0
        self._saved = perf_counter()

    def _repr_html_(self) -> str:
        return reports_html(_caption(self.reports), self.reports, self.notes)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self._learner is not None and self._learner.state.phase == FINISHED

    @property
    def reports(self) -> tuple[StageReport, ...]:
        """Reports of the stages trained so far; after pruning they describe the stages as they were raised."""
        return tuple(self._learner.state.reports) if self._learner is not None else ()

    @property
    def cascade(self) -> Cascade:
        """The cascade of the stages trained so far, as many as there are `reports`.

        Raises
        ------
        InputError
            If there is no stage yet.
        """
        if self._learner is None or not self.reports:
            raise InputError("expected at least one trained stage, got none")
        return self._learner.cascade()

    @property
    def negatives(self) -> npt.NDArray[np.uint8]:
        """Negatives of the current stage, in the end those that pass all stages; shape (n, height, width)."""
        if self._learner is None:
            return np.zeros((0, self.config.window[1], self.config.window[0]), dtype=np.uint8)
        return self._learner.state.harvest.windows

    def hardest_negatives(self, n: int) -> npt.NDArray[np.uint8]:
        """Return those of `negatives` that pass all stages with the highest last sums, at most `n`, hardest first.

        Between stages; in the middle of one, `negatives` also holds windows that were mined since.
        """
        return self.negatives if self._learner is None else self._learner.hardest_negatives(n)

    @cached_property
    def positives(self) -> Positives:
        """The positives as windows, with their copies; read on first use."""
        self._tell(Progress("positives", 0))
        crops = self._inputs.crops
        if crops is not None:
            found = positives_from_arrays(crops, self.config)
        else:
            found = load_positives(self.config, self._workers)
            # Of an object that is held out, boosting must not see the copies of another source either.
            found = found.take(~(found.boosted_only & np.isin(found.groups, self._out(found))))
        if self.config.jitter >= 0:
            return found
        originals = 2 if self.config.mirror else 1
        kept = without_held_out_copies(found, np.isin(found.groups, self._out(found)), originals)
        objects = len(np.unique(found.groups))
        if len(found.windows) <= originals * objects:
            return kept
        text = f"jittered copies make {len(kept.windows):,} positives of {objects:,} (jitter=0 makes none)"
        return replace(kept, notes=(*kept.notes, text))

    @cached_property
    def held_out(self) -> npt.NDArray[np.bool_]:
        """Which positives boosting never sees; shape (n,). Copies of one object are held out together."""
        return np.isin(self.positives.groups, self._out(self.positives))

    def _out(self, positives: Positives) -> npt.NDArray[np.int64]:
        """Return the numbers of the objects held out, among those on which thresholds may be set."""
        groups = np.unique(positives.groups[~positives.boosted_only])
        rng = np.random.default_rng((self.config.seed, 4))
        return rng.choice(groups, int(self.config.holdout * len(groups)), replace=False)

    def held_out_names(self) -> list[str]:
        """Return the image files of the held-out positives, each once."""
        names = self.positives.names
        numbers = np.unique(self.positives.groups[self.held_out])
        return list(dict.fromkeys(names[k] for k in numbers if names and names[k]))

    def result(self) -> TrainingResult:
        """Return what has been trained so far.

        Raises
        ------
        InputError
            If there is no stage yet; the message says why if training has ended.
        """
        if self.finished and not self.reports:
            why = f": {self.notes[-1]}" if self.notes else ""
            raise InputError(f"expected samples that make at least one stage, got none{why}")
        return TrainingResult(self.cascade, self.reports, self.config, tuple(self.notes))

    def write(self) -> None:
        """Write the stages trained so far to the output folder, if there is one; the loop does so after each stage."""
        if self.reports:
            self._output.write(self.cascade, self.reports, self.positives, self.held_out_names())

    def __iter__(self) -> Iterator[StageReport]:
        """Train; yields the report of each stage as it is finished, not of those restored from a checkpoint."""
        with self._looping():
            while self._advance():
                self._yielded += 1
                yield self.reports[self._yielded - 1]

    @contextmanager
    def _looping(self) -> Iterator[None]:
        """Hold the checkpoint's lock, the threads and the memory for bins until the last loop is left."""
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
                self._engine.close()
                if self._learner is not None:
                    self._learner.release()
                self._lock.close()

    def _advance(self) -> bool:
        """Train until there is a report to yield; False if there are no more."""
        if self._busy:
            raise InputError("expected one loop over a training at a time, got a second one while a stage is trained")
        self._busy = True
        try:
            learner = self._learner = self._learner or self._open()
            # The time since the last step was the caller's.
            learner.start_clock()
            if self._unwritten:
                self._write()
            while self._yielded == len(self.reports) and not self.finished:
                learner.step()
                self._unwritten = True
                self._save()
                self._write()
        finally:
            self._busy = False
        return self._yielded < len(self.reports)

    def _write(self) -> None:
        """Write the current results to the output folder."""
        self.write()
        if self.finished and self._learner is not None and self.reports:
            self._output.finish(self.cascade, self.reports, self.positives, self._learner.hardest_negatives(200))
        elif self.finished and self._checkpoint is not None:
            # There is nothing to resume.
            self._checkpoint.clear()
        self._unwritten = False

    # --- the start ----------------------------------------------------------------------------------------------------

    def _open(self) -> Learner:
        """Get ready to train, and resume from the checkpoint if there is one."""
        learner, checkpoint = self._prepare()
        if checkpoint is not None:
            self._restore(learner, checkpoint.load())
        return learner

    def _prepare(self) -> tuple[Learner, Checkpoint | None]:
        """Load the positives, find the backgrounds, and find out what a checkpoint would have to agree with."""
        config = self.config
        self.notes.clear()
        for note in self.positives.notes:
            self._note(note)
        objects = len(np.unique(self.positives.groups))
        for note in data_advice(config, objects, self.positives.sizes, self.positives.at_border):
            self._note(note)
        found = self._inputs.backgrounds()
        if shared := overlap(self.positives.names, found):
            self._note(
                f"{len(shared)} backgrounds are images of positives, whose objects are mined as negatives, the first: "
                f"{shared[0]}; backgrounds {ANNOTATED!r} takes labelled images without their objects"
            )
        learner = Learner(config, self.positives, self.held_out, found, self._workers, self._hear, self._engine)
        n = int(self.held_out.sum())
        learner.describe_pool()
        learner.check_memory()
        hit_rate = config.of_stage(0).min_hit_rate
        if n and not resolves(n, hit_rate):
            self._note(
                f"{n} held-out positives are too few to set a hit rate of {hit_rate} on; "
                f"they are pooled with the training positives"
            )
        if config.output:
            self._tell(Progress("backgrounds", 0))
            data = {
                "positives": fingerprint([self.positives.windows, self.positives.groups]),
                "backgrounds": fingerprint([*found.items, *map(found.boxes, range(len(found)))], self._workers.map),
            }
            sizes = {"features": learner.n_features, "backgrounds": len(found)}
            self._checkpoint = Checkpoint(Path(config.output) / "checkpoint", config, data, **sizes)
        self._saved = perf_counter()
        return learner, self._checkpoint

    def _start_after(self, stages: Sequence[Stage], reports: Sequence[StageReport]) -> bool:
        """Begin after stages that were trained elsewhere, unless the checkpoint of this run agrees with them.

        A checkpoint knows more than the stages, such as the negatives; one of another run is replaced. To be called
        before the loop.

        Parameters
        ----------
        stages : sequence of Stage
            Of the features of this run; if empty, training begins with the first stage.
        reports : sequence of StageReport
            One for each of them.

        Returns
        -------
        bool
            Whether training begins after these stages.
        """
        with self._looping():
            learner, checkpoint = self._prepare()
            state = None
            if checkpoint is not None:
                try:
                    state = checkpoint.load()
                except InputError:
                    checkpoint.clear()
            agrees = state is not None and all(same_stage(a, b) for a, b in zip(state.stages, stages, strict=False))
            if not agrees and stages:
                harvest = Harvest(np.zeros((0, self.config.window[1], self.config.window[0]), dtype=np.uint8))
                state = State(harvest, stages=list(stages), reports=list(reports))
            self._learner = learner
            self._restore(learner, state)
            self._save()
            return not agrees and bool(stages)

    def _restore(self, learner: Learner, state: State | None) -> None:
        if state is None:
            return
        learner.restore(state)
        self._yielded = len(state.reports)
        self._unwritten = state.phase == FINISHED
        trees = f" and {len(state.trees)} weak classifiers of the next" if state.trees else ""
        self._note(f"resuming after {len(state.stages)} stages{trees}")

    # --- progress ---------------------------------------------------------------------------------------------------

    def _hear(self, step: Progress) -> None:
        """Keep notes, save a checkpoint if it is due, and pass the step on."""
        if step.kind == "note":
            self.notes.append(step.text)
        elif step.kind == "binning" or perf_counter() - self._saved > CHECKPOINT_SECONDS:
            self._save()
        self._tell(step)

    def _note(self, text: str) -> None:
        self._hear(Progress("note", len(self.reports), text=text))

    def _save(self) -> None:
        """Write a checkpoint now."""
        if self._learner is None or self._checkpoint is None:
            return
        self._learner.tick()
        self._checkpoint.save(self._learner.state)
        self._saved = perf_counter()


def train(
    recipe: Recipe | None = None,
    *,
    positives: PositivesGiven | None = None,
    backgrounds: BackgroundsGiven | None = None,
    output: AnyPath | None = None,
    progress: Callable[[Progress], None] | None = None,
    engine: Any = None,
    **settings: Any,
) -> TrainingResult:
    """Train a cascade, to the end.

    Parameters
    ----------
    recipe, positives, backgrounds, output, progress, engine, **settings
        As for `Training`. With an output folder an interrupted call resumes when it is repeated.

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
    training = Training(
        recipe,
        positives=positives,
        backgrounds=backgrounds,
        output=output,
        progress=progress,
        engine=engine,
        **settings,
    )
    for _ in training:
        pass
    return training.result()
