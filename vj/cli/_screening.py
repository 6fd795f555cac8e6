"""``vj-train --screen-backgrounds``: sets backgrounds aside and leaves it to a person which of them come back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vj._files import write_text

if TYPE_CHECKING:
    from vj.boosting.recipe import TrainingConfig
    from vj.boosting.screening import Suspect
    from vj.cli._training_output import Log
    from vj.datasets.backgrounds import Backgrounds

LIST, SHEET = "set-aside.txt", "set-aside.png"
_SIDE, _COLUMNS, _SHOWN = 96, 12, 240
_HEAD = """\
# Backgrounds in which {cascade} finds its object, the surest first; training leaves them out.
# Delete the line of each picture that does not show the object after all, then run the same command again with
# --restart: pictures without a line are trained on, and no screening is done as long as this file is here.
# {sheet} shows where, in the same order, {columns} in a row.
"""


def screened(config: TrainingConfig, log: Log) -> Backgrounds:
    """Return the backgrounds of a run without those that are set aside.

    They are listed in the output folder, surest first; a list that is there already is a person's answer and is
    taken as it stands.
    """
    from vj.boosting.annotated import backgrounds_of
    from vj.errors import InputError

    found = backgrounds_of(config)
    place = Path(config.output) / LIST
    if not place.exists():
        _write(place, found, _suspects(config, found, log), config.screen_backgrounds)
    lines = [line.strip() for line in place.read_text(encoding="utf-8", errors="surrogateescape").split("\n")]
    aside = {line for line in lines if line and not line.startswith("#")}
    kept = [index for index in range(len(found)) if found.name(index) not in aside]
    log.line(f"{len(found) - len(kept)} of {len(found)} backgrounds are set aside, see {place}")
    if not kept:
        raise InputError(f"expected backgrounds without the object, got {config.screen_backgrounds}'s hits in all")
    return found.select(kept)


def _suspects(config: TrainingConfig, found: Backgrounds, log: Log) -> list[Suspect]:
    from vj.boosting.screening import screen
    from vj.boosting.workers import Workers
    from vj.cascade.opencv_xml import load

    workers, suspects = Workers(config.threads), []
    try:
        for done, suspect in enumerate(screen(found, load(config.screen_backgrounds), workers), 1):
            if suspect is not None:
                suspects.append(suspect)
            log.state(f"screening backgrounds: {done}/{len(found)}, {len(suspects)} set aside")
    finally:
        workers.close()
    return sorted(suspects, key=lambda suspect: -suspect.score)


def _write(place: Path, found: Backgrounds, suspects: list[Suspect], cascade: str) -> None:
    import cv2
    import numpy as np

    from vj.datasets.sheets import contact_sheet
    from vj.images import write_image

    place.parent.mkdir(parents=True, exist_ok=True)
    if suspects:
        crops = [cv2.resize(one.crop, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for one in suspects[:_SHOWN]]
        sheet = contact_sheet(np.array(crops, dtype=np.uint8), columns=_COLUMNS, zoom=1)
        write_image(place.with_name(SHEET), sheet)
    head = _HEAD.format(cascade=cascade, sheet=SHEET, columns=_COLUMNS)
    write_text(str(place), head + "".join(f"{found.name(one.index)}\n" for one in suspects))
