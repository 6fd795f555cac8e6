"""Videos out: a file that appears whole or not at all, with the sound of another where ffmpeg is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._files import replacing
from vj.errors import InputError

SUFFIXES = (".mp4", ".mov", ".mkv")
"""Endings of the files that are written."""

MAX_GAP = 600
"""Seconds for which a frame is shown at most: what comes later has a wrong time."""

MAX_RATE = 250
"""Frames a second of a file at most: some files with frames at any time say 1000, and mean their clock."""


class EncoderError(Exception):
    """A video cannot be encoded; one line."""


class VideoWriter:
    """Takes the frames of a video, one after another; `writing_video` makes it.

    Attributes
    ----------
    written : int
        Frames in the file; a frame that is shown for longer counts more than once.
    """

    def __init__(self, rate: float, encoder: _Ffmpeg | _OpenCV) -> None:
        self.rate, self.written = rate, 0
        self._encoder = encoder
        self._shape: tuple[int, ...] | None = None

    def write(self, image: npt.NDArray[np.uint8], seconds: float | None = None) -> None:
        """Add a frame, and the one before again for as long as it was shown if this one comes later than the rate says.

        Parameters
        ----------
        image : ndarray of uint8, shape (h, w, 3)
            BGR, of the first frame's size.
        seconds : float, optional
            When it is shown; by default right after the last one.

        Raises
        ------
        InputError
            If its size is another.
        EncoderError
            If the encoder fails.
        """
        if self._shape not in (None, image.shape):
            raise InputError(f"expected frames of one size {self._shape}, got {image.shape}")
        late = 0 if seconds is None or self._shape is None else round(seconds * self.rate) - self.written
        late = late if 0 < late <= MAX_GAP * self.rate else 0
        for _ in range(late):
            self._encoder.again()
        # Most encoders take even sizes only.
        height, width = image.shape[:2]
        self._encoder.write(np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
        self.written += 1 + late
        self._shape = image.shape


@contextmanager
def writing_video(
    path: str | os.PathLike[str], rate: float, sound: str | os.PathLike[str] | None = None
) -> Iterator[VideoWriter]:
    """Yield the writer of a video that takes its name once the block ends without an error.

    With ffmpeg on the PATH it is H.264 and has the sound of another file; otherwise MPEG-4 by OpenCV, without sound.
    Nothing else of the other file is kept: no titles, places, subtitles or thumbnails.

    Parameters
    ----------
    path : str or path
        With one of `SUFFIXES`.
    rate : float
        Frames a second; above `MAX_RATE`, 60 are written.
    sound : str or path, optional
        The file whose sound it gets, if it has any.

    Raises
    ------
    OSError
        If the file cannot be written.
    InputError
        If there is no frame, or the encoder cannot write the video.
    """
    target = Path(path)
    rate = rate if rate <= MAX_RATE else 60.0
    program = shutil.which("ffmpeg")
    with replacing(target, target.suffix) as temporary:
        encoder = _Ffmpeg(program, temporary, rate, sound) if program else _OpenCV(temporary, rate)
        writer = VideoWriter(rate, encoder)
        try:
            yield writer
            encoder.close()
        except EncoderError as error:
            raise InputError(f"{target}: {error}") from None
        finally:
            encoder.give_up()
        _check(target, temporary, writer.written)


def _check(target: Path, temporary: Path, written: int) -> None:
    """Read the number of frames back: an encoder on a full disk may say nothing."""
    import cv2

    capture = cv2.VideoCapture(str(temporary))
    count = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    # Matroska says how long it is, sound and all, not how many frames there are.
    right = count >= written - 2 - written // 100 if target.suffix.lower() == ".mkv" else count == written
    if written == 0 or not right:
        raise InputError(f"{target}: expected a video of {written} frames to be written, got {count}")


class _OpenCV:
    """OpenCV's own encoder."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self._writer: Any = None
        self._last: Any = None

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        import cv2

        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), code, self.rate, image.shape[1::-1])
            if not self._writer.isOpened():
                raise EncoderError("expected a video that OpenCV can write, got none; ffmpeg writes more")
        self._writer.write(image)
        self._last = image

    def again(self) -> None:
        self._writer.write(self._last)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    give_up = close


@cache
def _codec(program: str) -> list[str]:
    """Return the options for H.264, or for MPEG-4 where this ffmpeg is built without it."""
    known = subprocess.run([program, "-hide_banner", "-encoders"], capture_output=True, check=False).stdout
    if b" libx264 " in known:
        return ["-c:v", "libx264", "-crf", "18", "-preset", "veryfast"]
    return ["-c:v", "mpeg4", "-q:v", "2"]


class _Ffmpeg:
    """The program ffmpeg, which frames are piped to."""

    def __init__(self, program: str, path: Path, rate: float, sound: str | os.PathLike[str] | None) -> None:
        self.program, self.path, self.rate, self.sound = program, path, rate, sound
        self._process: subprocess.Popen[bytes] | None = None
        self._last = b""
        self._said: Any = None

    def _start(self, size: tuple[int, int]) -> subprocess.Popen[bytes]:
        command = [self.program, "-y", "-nostdin", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "bgr24"]
        command += ["-s", f"{size[0]}x{size[1]}", "-r", f"{self.rate:.6f}", "-i", "pipe:0"]
        if self.sound is not None:
            command += ["-i", f"file:{os.fspath(self.sound)}"]
        command += ["-map", "0:v", *(["-map", "1:a?"] if self.sound is not None else [])]
        # Sound goes over as it is where the container is the same, so that it can hold it.
        same = self.sound is not None and Path(self.sound).suffix.lower() == self.path.suffix.lower()
        command += ["-c:a", "copy" if same else "aac", "-map_metadata", "-1", "-map_chapters", "-1"]
        command += [*_codec(self.program), "-pix_fmt", "yuv420p", f"file:{self.path}"]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed when it is done)
        # A session of its own: Ctrl-C at the terminal is for us, and what is written then is ours to decide.
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._said, start_new_session=True
        )

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        if self._process is None:
            self._process = self._start((image.shape[1], image.shape[0]))
        self._last = image.tobytes()
        self.again()

    def again(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(self._last)
        except OSError:
            self._fail()

    def close(self) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with suppress(OSError):
            self._process.stdin.close()
        if self._process.wait():
            self._fail()

    def give_up(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
            self._said.close()

    def _fail(self) -> None:
        assert self._process is not None
        code = self._process.wait()
        self._said.seek(0)
        said = " ".join(self._said.read(2000).decode("utf-8", "replace").split())
        raise EncoderError(f"expected a video that ffmpeg can write, got exit code {code}: {said[-300:]}")
