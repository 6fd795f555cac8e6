"""The output folder of a run: results after every stage, plots at the end."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vj._files import sweep, write_bytes, write_text
from vj.boosting.positives import Positives
from vj.boosting.progress import StageReport
from vj.boosting.recipe import TrainingConfig
from vj.boosting.samples import Windows
from vj.cascade.model import Cascade
from vj.cascade.opencv_xml import save
from vj.datasets.sheets import contact_sheet
from vj.images import write_image

# Number of positives on the contact sheet.
_SHOWN = 400


class Output:
    """The folder of a run.

    After every stage it holds ``cascade.xml``, ``report.jsonl`` (a line for each stage), ``recipe.toml`` with all
    settings, ``positives.png`` and, if positives come from image files, ``held_out.txt``; at the end also plots and a
    contact sheet of hard negatives.

    Parameters
    ----------
    config : TrainingConfig
        Its `output` is the folder; if it is empty, nothing is written.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.folder, self._config = Path(config.output) if config.output else None, config
        self._begun = False

    def write(
        self, cascade: Cascade, reports: Sequence[StageReport], positives: Positives, held_out: Sequence[str]
    ) -> None:
        """Write the results of the stages so far.

        Parameters
        ----------
        cascade : Cascade
        reports : sequence of StageReport
        positives : Positives
        held_out : sequence of str
            Images of the positives that boosting never sees.
        """
        if self.folder is None:
            return
        if not self._begun:
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep(self.folder)
            write_text(self.folder / "recipe.toml", self._config.to_toml())
            # Spread over all positives: neighbours are copies of the same object.
            shown = positives.windows[:: -(-len(positives.windows) // _SHOWN)]
            write_image(self.folder / "positives.png", contact_sheet(shown))
            if held_out:
                # Names as the file system has them, which need not be UTF-8.
                write_bytes(self.folder / "held_out.txt", b"".join(os.fsencode(name) + b"\n" for name in held_out))
            self._begun = True
        save(cascade, self.folder / "cascade.xml")
        lines = [json.dumps(dataclasses.asdict(report)) for report in reports]
        write_text(self.folder / "report.jsonl", "\n".join([*lines, ""]))

    def finish(self, cascade: Cascade, reports: Sequence[StageReport], positives: Positives, hardest: Windows) -> None:
        """Write plots and the hardest negatives.

        Parameters
        ----------
        cascade, reports, positives
        hardest : ndarray of uint8, shape (n, height, width)
            Negatives that pass all stages.
        """
        if self.folder is None:
            return
        # Importing matplotlib takes a second, and a run without an output folder needs no plots.
        from vj.plotting import plot_features, plot_stages

        mean = np.rint(positives.windows.mean(axis=0)).astype(np.uint8)
        plot_features(self.folder / "features.png", cascade, mean)
        cost = np.cumsum([r.weak_classifiers * r.acceptance_ratio for r in reports])
        plot_stages(
            self.folder / "stages.png",
            [r.hit_rate for r in reports],
            [r.false_alarm_rate for r in reports],
            cost.tolist(),
        )
        if len(hardest):
            write_image(self.folder / "hard-negatives.png", contact_sheet(hardest))
