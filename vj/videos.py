"""Videos, cameras and folders, image by image."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from vj.errors import InputError
from vj.images import MAX_PIXELS, list_images, read_bgr

SUFFIXES: tuple[str, ...] = (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts")
SUFFIXES += (".ogv", ".ts", ".webm", ".wmv")
"""Endings of video files."""

_MAX_BOXES = 100_000
_MP4 = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_IMAGE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"crx ")


class Frame(NamedTuple):
    """One image of a source.

    Parameters
    ----------
    number : int
        From 0.
    seconds : float or None
        Place in a video, or time since a camera was opened; None in a folder.
    image : ndarray of uint8, shape (h, w, 3), or None
        BGR; None if it could not be read.
    name : str
        The file, in a folder; else empty.
    error : str
        Why it could not be read, one line; else empty.
    """

    number: int
    seconds: float | None
    image: npt.NDArray[np.uint8] | None
    name: str = ""
    error: str = ""


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a video, by its first bytes, or by its ending where they say nothing; a GIF counts as image."""
    head = b""
    with suppress(OSError, ValueError):
        # Not of a pipe: it would have to be waited for, and what is read from it is gone.
        if Path(path).is_file():
            with Path(path).open("rb") as file:
                head = file.read(16)
    if head[4:8] == b"ftyp":
        return head[8:12] not in _IMAGE_BRANDS
    if head[:4] == b"RIFF":
        return head[8:12] == b"AVI "
    # Matroska and WebM, MPEG program streams, Flash, Ogg, Windows Media.
    if head.startswith((b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"FLV\x01", b"OggS", b"0&\xb2u\x8ef\xcf\x11")):
        return True
    image = head.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*"))
    return not image and Path(path).suffix.lower() in SUFFIXES


def list_videos(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the videos below a folder, by their endings, sorted by path."""
    return sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def read_frames(source: int | str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Iterator[Frame]:
    """Open a source and yield its images, one at a time.

    Parameters
    ----------
    source : int, str or path
        The index of a camera (as a number, or a text of digits where no such file exists), a video file, the address of
        a stream (with ``://`` in it), or a folder, whose images are taken in order of their paths.
    max_pixels : int
        Larger images of a folder are refused before they are decoded.

    Returns
    -------
    iterator of Frame
        The source is open when this returns. An image of a folder that cannot be read is yielded with its error, and so
        is the place where a video file breaks off, if its container says how long it should be (MPEG streams do not).

    Raises
    ------
    InputError
        If there is no such source, or it holds no image.
    """
    text = os.fspath(source) if not isinstance(source, int) else str(source)
    path = Path(text)
    if path.is_dir() and not isinstance(source, int):
        files = list_images(path)
        if not files:
            raise InputError(f"{text}: expected a folder with images, got none with an ending such as .jpg or .png")
        return _folder_frames(files, max_pixels)
    return open_video(source).frames()


def _folder_frames(files: list[Path], max_pixels: int) -> Iterator[Frame]:
    for k, file in enumerate(files):
        try:
            image = read_bgr(file, max_pixels)
        except InputError as error:
            yield Frame(k, None, None, str(file), str(error))
            continue
        yield Frame(k, None, image, str(file))


Read = Callable[[], tuple[Any, float] | None]
"""The next image and its place in seconds, or None at the end."""


class Video:
    """A video file, stream or camera that is open; `open_video` makes it.

    Attributes
    ----------
    name : str
    live : bool
        Whether it is a camera, whose frames have the time at which they came.
    rate : float
        Frames a second; 0 if unknown.
    count : int
        Frames, as the file says; 0 if unknown.
    """

    def __init__(self, name: str, live: bool, rate: float, count: int, read: Read, close: Callable[[], None]) -> None:
        self.name, self.live = name, live
        self.rate = rate if 0 < rate < 1e4 else 0.0
        self.count = 0 if live else max(0, count)
        self._read, self._close = read, close

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, once; the video is closed after the last. Where a file breaks off, the error is yielded."""
        start, number, place = time.monotonic(), 0, 0.0
        try:
            while (got := self._read()) is not None:
                place = got[1]
                if self.live or not (place > 0 or self.rate):
                    place = time.monotonic() - start
                elif place <= 0:
                    place = number / self.rate
                yield Frame(number, place, np.asarray(got[0], dtype=np.uint8))
                number += 1
            if error := self._broken(number, place):
                yield Frame(number, place, None, "", error)
        finally:
            self._close()

    def _broken(self, read: int, place: float) -> str:
        """Return why the end that was reached is not the end of the file, or nothing."""
        if self.live or not Path(self.name).is_file():
            return ""
        missing = missing_bytes(self.name)
        if missing:
            return f"{self.name}: expected a whole video, got one cut short by {missing} bytes, {read} frames of it"
        if self.count - read <= max(2, self.count // 100) or not self.rate:
            return ""
        seconds = _mp4_seconds(self.name)
        if seconds is not None:
            # MP4 counts its frames, also those that it tells players to leave out.
            expected = min(self.count, round(seconds * self.rate))
            # Where some are left out, the sound may go on for a little longer.
            slack = 0 if expected >= self.count - 2 else round(self.rate / 2)
            lost = expected - read > max(2, expected // 100) + slack
        else:
            # Others give a length, which sound may make longer.
            expected = self.count
            lost = expected / self.rate - place > max(1.0, 0.02 * expected / self.rate)
        return f"{self.name}: expected a video of {expected} frames, got {read} that can be read" if lost else ""


def open_video(source: int | str | os.PathLike[str]) -> Video:
    """Open a camera, a video file or a stream; see `read_frames`.

    What OpenCV cannot read is read by PyAV where that is installed.

    Raises
    ------
    InputError
        If there is no such source, or it holds no image.
    """
    text = os.fspath(source) if not isinstance(source, int) else str(source)
    path = Path(text)
    camera = isinstance(source, int) or (text.isdecimal() and not path.exists())
    if not camera and "://" not in text and not path.is_file():
        got = "something else" if path.exists() else "nothing there"
        raise InputError(f"{text}: expected a camera's number, a video file or a folder of images, got {got}")
    video = _by_opencv(text, camera) or (None if camera else _by_pyav(text))
    if video is None:
        what = f"camera {text}: expected one that can be opened" if camera else f"{text}: expected a video"
        more = "" if camera else " or PyAV" if _has_pyav() else " (pip install 'vj[video]' reads more)"
        raise InputError(f"{what}, got none that can be read by OpenCV{more}")
    return video


def _has_pyav() -> bool:
    return importlib.util.find_spec("av") is not None


def _by_opencv(text: str, camera: bool) -> Video | None:
    import cv2

    # What it prints about damaged frames; whether the video is whole, we say ourselves. OpenCV reads this once.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    with _quiet_opencv():
        capture = cv2.VideoCapture(int(text) if camera else text)
        opened, first = capture.read() if capture.isOpened() else (False, None)
    if not opened:
        capture.release()
        return None
    if camera:
        # Old frames would be shown late if the reader is slower than the camera.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    waiting = [first]

    def read() -> tuple[Any, float] | None:
        image = waiting.pop() if waiting else capture.read()[1]
        return None if image is None else (image, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)

    rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return Video(text, camera, float(rate), int(min(count, 2**31)), read, capture.release)


def _by_pyav(text: str) -> Video | None:
    if not _has_pyav():
        return None
    import av
    import av.error

    try:
        container = av.open(text)
        stream = container.streams.video[0]
        decoded = container.decode(stream)
        waiting = [next(decoded)]
    except (av.error.FFmpegError, IndexError, StopIteration):
        return None
    rate = float(stream.average_rate or 0)
    start = waiting[0].time or 0.0

    def read() -> tuple[Any, float] | None:
        try:
            frame = waiting.pop() if waiting else next(decoded, None)
        except av.error.FFmpegError:
            # What is missing then is told from the file's length.
            return None
        if frame is None:
            return None
        # Phones turn the camera and say so; OpenCV turns the image itself.
        image = np.rot90(frame.to_ndarray(format="bgr24"), round(getattr(frame, "rotation", 0) / 90) % 4)
        return np.ascontiguousarray(image), (frame.time or 0.0) - start

    seconds = (container.duration or 0) / av.time_base
    return Video(text, False, rate, stream.frames or round(seconds * rate), read, container.close)


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from printing about a source that it cannot open: the caller says so in one line."""
    import cv2

    log = getattr(getattr(cv2, "utils", None), "logging", None)
    if log is None:
        yield
        return
    before = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(before)


def missing_bytes(path: str | os.PathLike[str]) -> int:
    """Return by how many bytes a file is shorter than its own headers say: MP4, QuickTime, AVI, Matroska and WebM.

    0 for a whole file, and for containers that do not say.
    """
    size = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF":
            ends = _riff_ends(file, size)
        elif head[:4] == b"\x1aE\xdf\xa3":
            ends = _matroska_ends(file, size)
        elif head[4:8] in _MP4:
            ends = _mp4_ends(file, size)
        else:
            return 0
        return max(0, max(ends, default=0) - size)


def _mp4_ends(file: BinaryIO, size: int) -> Iterator[int]:
    """Yield where each box at the top of the file ends."""
    return (at + length for _, at, length in _boxes(file, 0, size))


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, place and length of the boxes of an MP4 from one place to another."""
    for _ in range(_MAX_BOXES):
        if at + 8 > end:
            return
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # up to the end of the file, or corrupt
            return
        yield head[4:8], at, length
        at += length


def _mp4_seconds(path: str | os.PathLike[str]) -> float | None:
    """Return how long an MP4 or QuickTime file plays, as it says; None if it does not say, and for other files."""
    with Path(path).open("rb") as file:
        if file.read(8)[4:8] not in _MP4:
            return None
        size = Path(path).stat().st_size
        movie = next((one for one in _boxes(file, 0, size) if one[0] == b"moov"), None)
        header = movie and next((one for one in _boxes(file, movie[1] + 8, size) if one[0] == b"mvhd"), None)
        if not header:
            return None
        file.seek(header[1] + 8)
        data = file.read(32)
        wide = data[:1] == b"\1"
        unit = int.from_bytes(data[20:24] if wide else data[12:16], "big")
        length = int.from_bytes(data[24:32] if wide else data[16:20], "big")
        return length / unit if unit and length else None


def _riff_ends(file: BinaryIO, size: int) -> Iterator[int]:
    """Yield where each chunk at the top of the file ends; a large AVI has several."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        head = file.read(8)
        if head[:4] != b"RIFF":
            return
        at += 8 + int.from_bytes(head[4:8], "little")
        yield at
        at += at % 2


def _matroska_ends(file: BinaryIO, size: int) -> Iterator[int]:
    """Yield where the header and the segment end; a segment of unknown length is left out, as a recorder makes it."""
    at = 0
    for _ in range(2):
        if at > size:
            return
        file.seek(at)
        data = file.read(12)
        # An identifier of 4 bytes, then a length whose first byte says by its leading zeros how many follow.
        more = 8 - data[4].bit_length() if len(data) > 4 and data[4] else 8
        length = int.from_bytes(data[4 : 5 + more], "big") & ((1 << 7 * (more + 1)) - 1)
        if more > 7 or length == (1 << 7 * (more + 1)) - 1:
            return
        at += 5 + more + length
        yield at
