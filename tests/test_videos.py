"""Videos in and out: frames and their times, files that break off, sound, other readers."""

import shutil
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import photo

import vj
from vj import videos
from vj.images import write_image
from vj.video_files import writing_video
from vj.videos import is_video, missing_bytes, open_video, read_frames

FFMPEG = shutil.which("ffmpeg")
RATE, COUNT = 10, 30


def frame(k):
    """A photo that moves, 160x120."""
    return np.ascontiguousarray(photo("astronaut")[20 : 20 + 120, 150 + k : 310 + k])


def write(path, code, count=COUNT):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), RATE, (160, 120))
    assert writer.isOpened()
    for k in range(count):
        writer.write(frame(k))
    writer.release()
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return {
        "avi": write(folder / "a.avi", "MJPG"),
        "mp4": write(folder / "a.mp4", "mp4v"),
        "mkv": write(folder / "a.mkv", "mp4v"),
    }


@pytest.mark.parametrize("kind", ["avi", "mp4", "mkv"])
def test_frames_and_their_times(made, kind):
    video = open_video(made[kind])
    assert video.rate == RATE and abs(video.count - COUNT) <= 1 and not video.live
    frames = list(video.frames())
    assert [one.number for one in frames] == list(range(COUNT)) and not any(one.error for one in frames)
    np.testing.assert_allclose([one.seconds for one in frames], np.arange(COUNT) / RATE, atol=1e-3)
    for k in (0, 13, 29):
        assert np.abs(frames[k].image.astype(int) - frame(k)).mean() < 8


@pytest.mark.parametrize("kind", ["avi", "mp4", "mkv"])
def test_a_file_that_is_cut_short_says_so(made, tmp_path, kind):
    data = made[kind].read_bytes()
    assert missing_bytes(made[kind]) == 0
    cut = tmp_path / f"cut.{kind}"
    if kind == "mp4":
        # OpenCV writes the index at the end; players of the web want it first, where a cut leaves it.
        at = data.index(b"moov") - 4
        moov, media = data[at:], data[:at]
        data = _moved(moov, media)
        cut.write_bytes(data)
        assert len([one for one in read_frames(cut) if one.image is not None]) == COUNT
    cut.write_bytes(data[: len(data) * 2 // 3])
    assert missing_bytes(cut) >= len(data) // 3
    *frames, last = read_frames(cut)
    assert 5 < len(frames) < COUNT and all(one.image is not None for one in frames)
    assert last.image is None and f"{cut}: expected a whole video, got one cut short by" in last.error


def _moved(moov, media):
    """An MP4 with its index before the media: what is said of places in the file moves with them."""
    head = media[: struct.unpack(">I", media[:4])[0]]
    at = moov.index(b"stco") + 8
    (entries,) = struct.unpack(">I", moov[at : at + 4])
    places = np.frombuffer(moov, ">u4", entries, at + 4) + len(moov)
    moov = moov[: at + 4] + places.astype(">u4").tobytes() + moov[at + 4 + 4 * entries :]
    return head + moov + media[len(head) :]


def test_frames_that_cannot_be_read_in_a_file_of_the_right_length(made, tmp_path):
    data = bytearray(made["mp4"].read_bytes())
    half = data.index(b"mdat") + (data.index(b"moov") - data.index(b"mdat")) // 2
    data[half : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - half)
    (tmp_path / "hole.mp4").write_bytes(data)
    assert missing_bytes(tmp_path / "hole.mp4") == 0
    *frames, last = read_frames(tmp_path / "hole.mp4")
    assert len(frames) < COUNT
    assert last.error.endswith(f"expected a video of {COUNT} frames, got {len(frames)} that can be read")


def test_videos_are_known_by_content_then_by_name(made, tmp_path):
    for kind, path in made.items():
        other = tmp_path / f"{kind}.jpg"
        other.write_bytes(path.read_bytes())
        assert is_video(other) and is_video(path)
    write_image(tmp_path / "image.png", frame(0))
    (tmp_path / "image.png").rename(tmp_path / "image.mp4")
    (tmp_path / "still.avif").write_bytes(b"\0\0\0\x20ftypavif" + bytes(20))
    (tmp_path / "anim.gif").write_bytes(b"GIF89a" + bytes(20))
    (tmp_path / "photo.webp").write_bytes(b"RIFF\0\0\0\0WEBPVP8 ")
    assert not any(is_video(tmp_path / name) for name in ("image.mp4", "still.avif", "anim.gif", "photo.webp"))
    (tmp_path / "stream.ts").write_bytes(b"G" * 188)
    assert is_video(tmp_path / "stream.ts") and is_video(tmp_path / "nowhere.MP4") and not is_video(tmp_path / "no.jpg")


def test_what_is_no_video(tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    with pytest.raises(vj.InputError, match=r"no.mp4: expected a video, got none that can be read by OpenCV"):
        open_video(tmp_path / "no.mp4")


def test_without_pyav_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(videos, "_has_pyav", lambda: False)
    (tmp_path / "no.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    with pytest.raises(vj.InputError, match=r"pip install 'vj\[video\]'"):
        open_video(tmp_path / "no.mp4")


def test_pyav_reads_the_same_frames(made, monkeypatch):
    pytest.importorskip("av")
    expected = list(read_frames(made["mp4"]))
    monkeypatch.setattr(videos, "_by_opencv", lambda text, camera: None)
    frames = list(read_frames(made["mp4"]))
    assert [one.number for one in frames] == list(range(COUNT))
    np.testing.assert_allclose([one.seconds for one in frames], [one.seconds for one in expected], atol=1e-3)
    assert max(np.abs(a.image.astype(int) - b.image).mean() for a, b in zip(frames, expected, strict=True)) < 1


@pytest.fixture(params=["ffmpeg", "OpenCV"])
def encoder(request, monkeypatch):
    if request.param == "OpenCV":
        monkeypatch.setattr("vj.video_files.shutil.which", lambda name: None)
    elif FFMPEG is None:
        pytest.skip("no ffmpeg here")
    return request.param


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_what_is_written_can_be_read(tmp_path, encoder, suffix):
    with writing_video(tmp_path / f"out{suffix}", RATE) as writer:
        for k in range(12):
            writer.write(frame(k)[:119, :159])
    assert [path.name for path in tmp_path.iterdir()] == [f"out{suffix}"]
    frames = list(read_frames(tmp_path / f"out{suffix}"))
    assert len(frames) == 12 and frames[0].image.shape == (120, 160, 3)
    assert frames[5].seconds == pytest.approx(0.5, abs=1e-3)
    assert np.abs(frames[5].image[:119, :159].astype(int) - frame(5)[:119, :159]).mean() < 8


def test_late_frames_are_filled_in(tmp_path, encoder):
    with writing_video(tmp_path / "out.mp4", RATE) as writer:
        for seconds in (0, 0.1, 0.5, 0.62):
            writer.write(frame(round(10 * seconds)), seconds)
        assert writer.written == 7
    shown = [one.image.astype(int) for one in read_frames(tmp_path / "out.mp4")]
    assert len(shown) == 7
    for k, source in enumerate((0, 1, 1, 1, 1, 5, 6)):
        assert np.abs(shown[k] - frame(source)).mean() < 8


def test_wrong_times_and_clocks_for_rates_make_no_endless_video(tmp_path, encoder):
    with writing_video(tmp_path / "out.mp4", 1000) as writer:
        assert writer.rate == 60
        for seconds in (0, 95443.7, 95443.8, 0.05):
            writer.write(frame(0), seconds)
        assert writer.written == 4


@given(st.sampled_from([b"RIFF", b"\x1aE\xdf\xa3", b"\0\0\0\x18ftyp", b"\0\0\0\1mdat", b""]), st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_can_be_asked_how_much_is_missing(tmp_path_factory, head, rest):
    path = tmp_path_factory.getbasetemp() / "any.mp4"
    path.write_bytes(head + rest)
    assert missing_bytes(path) >= 0 and is_video(path) in (True, False)
    assert videos._mp4_seconds(path) is None or videos._mp4_seconds(path) >= 0


def test_a_video_that_fails_leaves_nothing_and_keeps_what_was_there(tmp_path, encoder):
    (tmp_path / "out.mp4").write_bytes(b"before")
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), writing_video(tmp_path / "out.mp4", RATE) as writer:
            writer.write(frame(0))
            raise error
    with pytest.raises(vj.InputError, match="of one size"), writing_video(tmp_path / "out.mp4", RATE) as writer:
        writer.write(frame(0))
        writer.write(frame(0)[:60])
    with pytest.raises(vj.InputError, match="0 frames"), writing_video(tmp_path / "out.mp4", RATE):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"before"
    with pytest.raises(OSError, match="No such file"), writing_video(tmp_path / "no/out.mp4", RATE):
        pass


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here")
def test_an_encoder_that_fails_is_told(tmp_path, made):
    with (
        pytest.raises(vj.InputError, match=r"expected a video that ffmpeg can write, got exit code"),
        writing_video(tmp_path / "out.mp4", RATE, sound=tmp_path / "nowhere.mp4") as writer,
    ):
        for k in range(200):
            writer.write(frame(k % 30))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here")
def test_sound_is_kept_and_nothing_else(made, tmp_path):
    source = tmp_path / "in.mp4"
    command = [FFMPEG, "-loglevel", "error", "-i", made["mp4"], "-f", "lavfi", "-i", "sine=d=3", "-c:v", "copy"]
    command += ["-metadata", "title=secret", "-metadata", "location=+48.1+011.5/", source]
    subprocess.run(command, check=True)
    assert b"secret" in source.read_bytes()
    for name in ("out.mp4", "out.mkv"):
        with writing_video(tmp_path / name, RATE, source) as writer:
            for k in range(COUNT if name == "out.mp4" else COUNT - 8):  # sound may go on for longer
                writer.write(frame(k), k / RATE)
        told = subprocess.run([FFMPEG, "-i", tmp_path / name], capture_output=True, text=True, check=False).stderr
        assert "Audio: aac" in told and "Duration: 00:00:03.0" in told
        data = (tmp_path / name).read_bytes()
        assert b"secret" not in data and b"+48.1" not in data
        wave = [FFMPEG, "-loglevel", "error", "-i", tmp_path / name, "-f", "s16le", "-ac", "1", "-"]
        sound = np.frombuffer(subprocess.run(wave, capture_output=True, check=True).stdout, np.int16)
        assert sound.std() > 1000
