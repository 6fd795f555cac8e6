"""``vj-detect``: find objects in images and videos; print, draw, cut out or mask them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vj.cli import _cluster, _common, _detect_options
from vj.cli._formats import Rows, rows_as
from vj.cli._inputs import find_inputs
from vj.cli._outputs import Outputs
from vj.cli._progress import Progress

if TYPE_CHECKING:
    from vj.cli._outputs import WriteFrame
    from vj.detector import Detector
    from vj.rows import Search
    from vj.videos import Video

PROGRAM = "vj-detect"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `_common.run`. With a camera, Ctrl-C is the usual end, and the video is written then."""
    live = any(word.startswith("--cam") for word in (sys.argv[1:] if argv is None else argv))
    return _common.run(PROGRAM, _detect, argv, keeps=live)


def _parser() -> argparse.ArgumentParser:
    return _detect_options.parser(PROGRAM)


def _detect(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    from vj.errors import InputError
    from vj.rows import Search
    from vj.videos import is_video

    if bool(args.images) == (args.camera is not None):
        raise InputError("expected images, videos or --camera, got " + ("both" if args.images else "none of them"))
    _fill_in(args)
    search = Search(_detector(args), args.threshold, args.min_score, args.max_pixels)
    if args.cluster:
        return _cluster.detect(PROGRAM, args, search)
    inputs = find_inputs(args.images) if args.images else None
    paths = inputs.paths if inputs else [Path(f"camera-{args.camera}")]
    videos = {path for path in paths if is_video(path)} if inputs else set(paths)
    outputs = Outputs(args, paths, videos)
    with Progress(PROGRAM, len(paths), quiet=args.quiet, verbose=args.verbose) as progress:
        _remark(args, progress)
        work = _Work(args, search, outputs, rows_as(args.format, progress.say), progress)
        work.failed += inputs.failed if inputs else []
        for folder, count in inputs.left_out.items() if inputs else []:
            progress.note(f"{folder}: left out {count} files that are no image or video by their names")
        try:
            for path in paths:
                work.take(path, path in videos)
        except KeyboardInterrupt:
            work.interrupted = True
            work.end()
            raise
        finally:
            work.rows.close()
    return work.end()


class _Work:
    """What was done so far, and what failed."""

    def __init__(
        self, args: argparse.Namespace, search: Search, outputs: Outputs, rows: Rows, progress: Progress
    ) -> None:
        self.args, self.search, self.outputs, self.rows, self.progress = args, search, outputs, rows, progress
        self.done = 0
        self.failed: list[str] = []
        self.interrupted = False

    def take(self, path: Path, video: bool) -> None:
        """Look at one input; what goes wrong with it is kept for the end."""
        from vj.errors import InputError

        try:
            self._video(path) if video else self._image(path)
            self.done += 1
        except InputError as error:
            self._fail(path, str(error))
        except OSError as error:
            if error.filename is None:  # not a file: what we print to
                raise
            self._fail(path, f"{error.filename}: {error.strerror}")
        self.progress.advance()

    def _fail(self, path: Path, message: str) -> None:
        self.failed.append(message + self.outputs.stale(path))

    def _image(self, path: Path) -> None:
        from vj.rows import row

        try:
            image = self.search.read(path, opaque=bool(self.args.anonymize))
            start = time.perf_counter()
            found = self.search.find(image)
            seconds = time.perf_counter() - start
            self.outputs.image(path, image, found)
        except Exception:
            self.rows.skip()
            raise
        self.rows.write(row(str(path), (image.shape[1], image.shape[0]), found))
        self.progress.detail(f"{path}: {len(found)} found in {1000 * seconds:.0f} ms")

    def _video(self, path: Path) -> None:
        from vj.videos import open_video

        video = open_video(path if self.args.camera is None else self.args.camera)
        steady = not self.args.no_smoothing
        with self.outputs.video(path, video.rate, live=video.live, steady=steady) as write:
            try:
                self._frames(path, video, write)
            except KeyboardInterrupt:
                if not video.live:
                    raise
                # A camera ends no other way: what was recorded is whole.
                self.interrupted = True

    def _frames(self, path: Path, video: Video, write: WriteFrame) -> None:
        from vj.errors import InputError
        from vj.rows import row
        from vj.smoothing import Smoothing

        smoothing = None if self.args.no_smoothing else Smoothing()
        name = str(path) if self.args.camera is None else f"camera {self.args.camera}"
        start, count = time.perf_counter(), 0
        for frame in self.progress.frames(video.frames(), video.count, path.name):
            if frame.image is None:
                raise InputError(frame.error)
            found = self.search.find(self.search.checked(frame.image, name))
            shown = smoothing.update(found) if smoothing else found
            write(frame.number, frame.seconds or 0.0, frame.image, found, shown)
            size = (frame.image.shape[1], frame.image.shape[0])
            self.rows.write(row(name, size, shown, frame.number, frame.seconds))
            count += 1
        self.progress.detail(f"{path}: {count} frames in {time.perf_counter() - start:.1f} s")

    def end(self) -> int:
        """List what failed; return the exit code."""
        if not self.done and not self.failed and not self.interrupted:
            self.failed.append("expected images or videos, got no names")
        for line in self.failed:
            _common.report(PROGRAM, line)
        if self.failed and self.done:
            _common.report(PROGRAM, f"{len(self.failed)} of {len(self.failed) + self.done} images could not be used")
        if self.interrupted:
            return _common.INTERRUPTED
        return _common.OK if self.done and not self.failed else _common.SOME_FAILED if self.done else _common.BAD_INPUT


def _fill_in(args: argparse.Namespace) -> None:
    """Set what decides which detections are kept, where it was not given: see the help of --min-neighbors."""
    from vj.rows import ANONYMIZING, OPENCV, PACKAGED

    mode, args.lenient, args.coarse = OPENCV, False, None
    if args.min_neighbors is args.suppression is args.threshold is None:
        if args.anonymize and args.min_score is None:
            mode, args.lenient = ANONYMIZING, not args.cascade
        elif not args.cascade:
            mode = PACKAGED | ({} if args.min_score is None else {"threshold": None})
    for name, value in mode.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def _detector(args: argparse.Namespace) -> Detector:
    from vj.cli._detectors import named_cascades
    from vj.detector import Detector
    from vj.rows import lenient

    cascades = named_cascades(args.cascade)
    return Detector(
        lenient(cascades[0]) if args.lenient else cascades,
        scale_factor=args.scale_factor,
        min_neighbors=args.min_neighbors,
        min_size=args.min_size,
        max_size=args.max_size,
        stride=args.stride,
        suppression=args.suppression,
        threads=args.threads,
        coarse=args.coarse,
    )


def _remark(args: argparse.Namespace, progress: Progress) -> None:
    """Say how the search is done, and if no size fits: as OpenCV does, the one nearest scale is scanned then."""
    low, high = args.min_size, args.max_size
    if low and high and any(0 < most < least for least, most in zip(low, high, strict=True)):
        progress.note(
            f"--min-size {low[0]}x{low[1]} is larger than --max-size {high[0]}x{high[1]}: "
            f"only the scale nearest to the smallest size is scanned"
        )
    progress.detail(
        f"more than {args.min_neighbors} hits a box, suppression {args.suppression}, "
        f"probability of at least {args.threshold or 0}, score of at least {args.min_score}"
    )


if __name__ == "__main__":
    sys.exit(main())
