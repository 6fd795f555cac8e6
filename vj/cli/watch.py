"""``vj-watch``: run a command when an object comes into view of a camera, a video or a folder, and when it is gone."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vj.cli import _common, _detectors
from vj.cli._commands import Commands

if TYPE_CHECKING:
    from vj.detector import Detections
    from vj.tiers.wakeup import Hysteresis, Look, WakeUp
    from vj.videos import Frame

PROGRAM = "vj-watch"
PROGRESS_SECONDS = 5.0
"""With -v, what was asked so far is printed this often."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `_common.run`. What it runs matters more than its report, and Ctrl-C is its usual end."""
    return _common.run(PROGRAM, _watch, argv, keeps=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Run a command when an object comes into view, and when it is gone. Cheap tiers look first: the "
        "difference from the last image, the first stages of the cascade at coarse steps, the whole cascade, and a "
        "heavy detector if one is given. At the end, also after Ctrl-C, prints one line of JSON: how often each tier "
        "was asked, and how much time that saved compared with asking the last tier about every image.",
        epilog="CMD is split into words as a shell would, but no shell runs it. It finds in its environment VJ_EVENT "
        "(wake or sleep), VJ_SOURCE, VJ_FRAME (from 0), VJ_SECONDS (place in the video, or since the camera was "
        "opened; empty in a folder), VJ_FILE (in a folder) and VJ_BOXES (JSON: x, y, width, height of each detection). "
        "Commands run in the background, one after another; what they print goes to stderr. One that fails is "
        "reported, and the watch continues. A watch that ends awake sends sleep.",
    )
    parser.add_argument("source", metavar="SOURCE", help="number of a camera, video file, stream, or folder of images")
    parser.add_argument("--run", metavar="CMD", help="command to run on wake and on sleep (default: none)")
    parser.add_argument(
        "--cascade", metavar="FILE", help="a file or a name (default: the face cascade of this package)"
    )
    parser.add_argument(
        "--heavy", metavar="DETECTOR", help="last tier, such as yunet.onnx: any detector that vj-evaluate takes"
    )
    parser.add_argument(
        "--threshold",
        type=_common.probability,
        metavar="P",
        help="probability that a detection of the last tier needs (default: 0.5; of a cascade without a calibration, "
        "any detection will do)",
    )
    parser.add_argument(
        "--min-size",
        type=_common.size,
        metavar="SIZE",
        help="smallest object: 24 or 24x32 (default: a tenth of the first image's shorter side)",
    )
    parser.add_argument(
        "--wake-after", type=_of, default=(2, 3), metavar="N/M", help="wake if it is in N of M images (default: 2/3)"
    )
    parser.add_argument(
        "--sleep-after", type=int, default=15, metavar="K", help="sleep after K images without it (default: 15)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use (default: one for each processor)")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="also print a line of JSON for each event, and a report every 5 s"
    )
    _common.add_version(parser)
    return parser


def _of(text: str) -> tuple[int, int]:
    parts = text.split("/")
    if len(parts) in (1, 2) and all(part.isdecimal() for part in parts):
        return int(parts[0]), int(parts[-1])
    raise argparse.ArgumentTypeError(f"expected N or N/M such as 2/3, got {text!r}")


def _watch(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    from vj.tiers.wakeup import Hysteresis
    from vj.videos import read_frames

    words = _words(args.run)
    on, of = args.wake_after
    hysteresis = Hysteresis(on, of, args.sleep_after)
    # Whatever is wrong with the detectors is said before a camera is opened.
    tiers = _Tiers(args)
    frames = read_frames(args.source)
    watch = _Watch(args, tiers, hysteresis, Commands(PROGRAM, words))
    with _ended_by_sigterm():
        try:
            for frame in frames:
                watch.take(frame)
        except KeyboardInterrupt:
            watch.interrupted = True
        return watch.end()


def _words(text: str | None) -> list[str]:
    from vj.errors import InputError

    try:
        words = shlex.split(text or "")
    except ValueError as error:
        raise InputError(f"--run: expected a command, got {text!r}: {str(error).lower()}") from None
    if text is not None and not words:
        raise InputError("--run: expected a command, got an empty one")
    return words


class _Tiers:
    """The cascade and the heavy detector, as looks once the size of the images is known."""

    def __init__(self, args: argparse.Namespace) -> None:
        from vj.cascade import stock
        from vj.cascade.opencv_xml import load
        from vj.detector import Detector
        from vj.errors import InputError

        self.args = args
        self.cascade = load(args.cascade or stock.DEFAULT)
        # A bad number of threads is refused now.
        Detector(self.cascade, threads=args.threads)
        self.heavy = _detectors.named_detector(args.heavy, {"threads": args.threads}) if args.heavy else None
        last = self.heavy.cascade if self.heavy else self.cascade
        self.calibrated = last is not None and last.calibration is not None
        if args.threshold is not None and last is not None and not self.calibrated:
            raise InputError(f"--threshold: expected a cascade with a calibration, got {last.name} without one")

    def looks(self, smallest: int | tuple[int, int]) -> list[Look]:
        """Return the tiers for objects of at least this size."""
        from vj.tiers.detectors import YuNet
        from vj.tiers.wakeup import Look, cascade_looks

        found = cascade_looks(self.cascade, smallest, self.args.threads)
        if self.heavy:
            found.append(Look(self.heavy.name, self.heavy.detector))
        last = found[-1]
        least = self.args.threshold
        if least is None and (self.calibrated or isinstance(last.detector, YuNet)):
            least = 0.5
        return [*found[:-1], last._replace(least=least)]


class _Watch:
    """The state of a watch."""

    def __init__(self, args: argparse.Namespace, tiers: _Tiers, hysteresis: Hysteresis, commands: Commands) -> None:
        self.args, self.tiers, self.hysteresis, self.commands = args, tiers, hysteresis, commands
        self.wake_up: WakeUp | None = None
        self.events: list[dict[str, Any]] = []
        self.unreadable = 0
        self.interrupted = False
        self.last: Frame | None = None
        self.start = self.shown = time.monotonic()

    def take(self, frame: Frame) -> None:
        """Look at one image."""
        if frame.image is None:
            self.unreadable += 1
            _common.report(PROGRAM, frame.error)
            return
        self.last = frame
        if self.wake_up is None:
            self.wake_up = self._prepared(frame.image)
            self.start = self.shown = time.monotonic()
        seen = self.wake_up.see(frame.image)
        if seen.event:
            self._tell(seen.event, frame, seen.detections)
        if self.args.verbose and time.monotonic() - self.shown >= PROGRESS_SECONDS:
            self.shown = time.monotonic()
            _print({"type": "progress"} | self._report())

    def _prepared(self, image: Any) -> WakeUp:
        from vj.tiers.wakeup import Motion, WakeUp, smallest_object

        smallest = self.args.min_size or smallest_object(image.shape, self.tiers.cascade.window)
        side = smallest if isinstance(smallest, int) else min(smallest)
        wake_up = WakeUp(self.tiers.looks(smallest), Motion(max(1, side // 4)), self.hysteresis)
        wake_up.measure(image)
        return wake_up

    def _tell(self, event: str, frame: Frame, found: Detections) -> None:
        """Keep an event, and run the command."""
        seconds = None if frame.seconds is None else round(frame.seconds, 3)
        self.events.append({"event": event, "frame": frame.number, "seconds": seconds} | _file(frame))
        boxes = found.boxes.tolist()
        if self.args.verbose:
            _print({"type": "event"} | self.events[-1] | {"boxes": boxes})
        self.commands.send(
            f"{event} at image {frame.number}",
            {
                "VJ_EVENT": event,
                "VJ_SOURCE": str(self.args.source),
                "VJ_FRAME": str(frame.number),
                "VJ_SECONDS": "" if seconds is None else f"{seconds:g}",
                "VJ_FILE": frame.name,
                "VJ_BOXES": json.dumps(boxes),
            },
        )

    def end(self) -> int:
        """Send sleep if it is awake, wait for the commands, and report."""
        from vj.tiers.wakeup import SLEEP, nothing

        seconds = time.monotonic() - self.start
        if self.hysteresis.awake and self.last is not None:
            self._tell(SLEEP, self.last, nothing())
        self.commands.finish()
        report = self._report() | {"interrupted": self.interrupted, "events": self.events}
        _print({"type": "report"} | report | {"wall_seconds": round(seconds, 3)})
        if self.wake_up is None and not self.interrupted:
            return _common.BAD_INPUT
        return _common.SOME_FAILED if self.unreadable or self.commands.failed else _common.OK

    def _report(self) -> dict[str, Any]:
        asked = self.wake_up.report() if self.wake_up else {"frames": 0}
        commands = {"run": self.commands.run, "failed": self.commands.failed}
        return {"source": str(self.args.source), **asked, "unreadable": self.unreadable, "commands": commands}


def _file(frame: Frame) -> dict[str, str]:
    return {"file": frame.name} if frame.name else {}


def _print(record: dict[str, Any]) -> None:
    print(json.dumps(record, ensure_ascii=False), flush=True)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, by which services are stopped, end a watch as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
