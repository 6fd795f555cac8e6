"""The images and videos that ``vj-detect`` writes: with boxes, masked, and crops."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vj.cli._targets import Targets

if TYPE_CHECKING:
    from vj.detections import Detections
    from vj.video_files import VideoWriter

DEFAULT_RATE = 25.0
"""Frames a second of a video that does not say."""

LOOK_BACK = 5
"""Frames before it in which a detection is masked too: as many as it is held for after it."""

WriteFrame = Callable[[int, float, Any, "Detections", "Detections"], None]
"""Takes number, seconds, image, what was found in it alone, and what is shown."""


class Outputs:
    """Writes the files that were asked for.

    Parameters
    ----------
    args : argparse.Namespace
        With annotate, anonymize and crops: a folder or None; mask and mask_margin.
    paths : sequence of Path
        The inputs.
    videos : set of Path
        Those of them that are videos.

    Raises
    ------
    InputError
        If two folders are one, or an input would be replaced.
    """

    def __init__(self, args: argparse.Namespace, paths: Sequence[Path], videos: set[Path]) -> None:
        from vj.errors import InputError

        self.mask, self.margin = args.mask, args.mask_margin
        self._guard = Targets(paths)
        folders = {name: Path(given) for name in ("annotate", "anonymize", "crops") if (given := getattr(args, name))}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        # Whoever passes on the masked copies must find nothing else among them.
        if len({folder.resolve() for folder in folders.values()}) < len(folders):
            raise InputError(
                f"expected a folder of its own for each of {', '.join(f'--{f}' for f in folders)}, got one"
            )
        self._named = {name: self._guard.names(paths, videos, folder, f"--{name}") for name, folder in folders.items()}

    def stale(self, path: Path) -> str:
        """Return a remark if there is a file under the name of a masked copy that could not be made, or nothing."""
        target = self._named.get("anonymize", {}).get(path)
        return f"; {target} is of an earlier run" if target is not None and target.exists() else ""

    def image(self, path: Path, image: Any, found: Detections) -> None:
        """Write what belongs to an image.

        Raises
        ------
        OSError
            If a file cannot be written.
        InputError
            If it cannot be encoded.
        """
        from vj.images import write_image

        if (target := self._target("annotate", path)) is not None:
            write_image(target, annotated(image, found))
        if (target := self._target("anonymize", path)) is not None:
            write_image(target, self._masked(image, found))
        self._crops(path, "", image, found)

    @contextmanager
    def video(self, path: Path, rate: float, *, live: bool, steady: bool) -> Iterator[WriteFrame]:
        """Yield what takes the frames of a video; its files appear if the block ends without an error.

        Parameters
        ----------
        path : Path
        rate : float
            Frames a second; 0 if unknown.
        live : bool
            Whether it is a camera, of which there is no sound.
        steady : bool
            Mask what is found in a frame in those just before it too.
        """
        from vj.video_files import writing_video

        with ExitStack() as files:
            writers = {}
            for name in ("annotate", "anonymize"):
                if (target := self._target(name, path)) is not None:
                    sound = None if live or not path.is_file() else path
                    writers[name] = files.enter_context(writing_video(target, rate or DEFAULT_RATE, sound))

            masked = _MaskedFrames(self._masked, writers.get("anonymize"), LOOK_BACK if steady else 0)

            def write(number: int, seconds: float, image: Any, found: Detections, shown: Detections) -> None:
                if "annotate" in writers:
                    writers["annotate"].write(annotated(image, shown), seconds)
                masked.add(image, seconds, found.boxes, shown.boxes)
                self._crops(path, f"-frame{number:06d}", image, shown)

            yield write
            masked.finish()

    def _target(self, name: str, path: Path) -> Path | None:
        return self._named[name][path] if name in self._named else None

    def _masked(self, image: Any, found: Any) -> Any:
        from vj.masking import anonymize

        return anonymize(image, found, self.mask, self.margin)

    def _crops(self, path: Path, place: str, image: Any, found: Detections) -> None:
        from vj.errors import InputError
        from vj.images import write_image
        from vj.masking import areas

        if (base := self._target("crops", path)) is None:
            return
        suffix = base.suffix if base.suffix.lower() in (".jpg", ".jpeg", ".png") else ".jpg"
        for k, (x0, y0, x1, y1) in enumerate(areas(found, image.shape, 0), 1):
            target = base.with_name(f"{base.stem}{place}-{k}{suffix}")
            if (source := self._guard.replaces(target)) is not None:
                raise InputError(f"{path}: expected --crops not to replace the input {source}, got its name")
            write_image(target, image[y0:y1, x0:x1])


class _MaskedFrames:
    """Writes masked frames a little later than they come, so that what is found then can be masked before too.

    Parameters
    ----------
    mask : callable
        Takes an image and boxes.
    writer : VideoWriter or None
        Without one, nothing is done.
    back : int
        Frames that wait.
    """

    def __init__(self, mask: Callable[[Any, Any], Any], writer: VideoWriter | None, back: int) -> None:
        self._mask, self._writer, self._back = mask, writer, back
        self._waiting: deque[tuple[Any, float, list[Any]]] = deque()

    def add(self, image: Any, seconds: float, found: Any, shown: Any) -> None:
        """Take a frame with the boxes found in it, and those shown: a smoothed box lags behind one that moves fast."""
        if self._writer is None:
            return
        for _, _, boxes in self._waiting:
            boxes.append(found)
        self._waiting.append((image, seconds, [found, shown]))
        if len(self._waiting) > self._back:
            self._write()

    def finish(self) -> None:
        """Write what waits."""
        while self._waiting:
            self._write()

    def _write(self) -> None:
        import numpy as np

        image, seconds, boxes = self._waiting.popleft()
        if self._writer is not None:
            self._writer.write(self._mask(image, np.concatenate(boxes)), seconds)


def annotated(image: Any, found: Detections) -> Any:
    """Return a copy of an image with the boxes and how sure each is: the probability where there is one, or score."""
    from vj.images import draw_boxes

    if found.probabilities is not None:
        labels = [f"{100 * p:.0f} %" for p in found.probabilities]
    else:
        labels = [f"{score:.1f}" for score in found.scores]
    return draw_boxes(image, found.boxes, labels=labels)
