"""What every command does about its surroundings: closed or full outputs, Ctrl-C, versions, warnings."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import cv2
import pytest
from cascades import random_cascade
from photos import gray

import vj
from vj._files import replacing, write_bytes
from vj.cli import _common, calibrate, detect, evaluate, inspect, tiers, train, watch
from vj.errors import CacheWarning, InputError

COMMANDS = {
    "calibrate": calibrate,
    "detect": detect,
    "evaluate": evaluate,
    "inspect": inspect,
    "tiers": tiers,
    "train": train,
    "watch": watch,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A photo, a large one, and what the detector compiles for them."""
    folder = tmp_path_factory.mktemp("place")
    cv2.imwrite(str(folder / "a.png"), gray("camera", (120, 100)))
    vj.save(random_cascade(3), folder / "model.xml")
    vj.Detector(vj.load(folder / "model.xml")).detect(gray("camera", (120, 100)))
    return folder


def shell(line, **more):
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, **more)


def command(name, *arguments):
    return " ".join([sys.executable, "-m", f"vj.cli.{name}", *map(str, arguments)])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_version(name, capsys):
    with pytest.raises(SystemExit) as left:
        COMMANDS[name].main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"vj {vj.__version__}\n"


def test_a_closed_stdout_is_an_error(place):
    done = shell(command("detect", place / "a.png", "--cascade", place / "model.xml") + " >&-")
    assert done.returncode == 2
    assert done.stderr == "vj-detect: standard output: expected one that is open, got a closed one\n"


def test_a_closed_stderr_does_not_send_errors_to_stdout(place):
    done = shell(command("detect", place / "nothing.png", "--cascade", place / "model.xml") + " 2>&-")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("detect", "a.png", "--cascade", "model.xml"), ("inspect", "model.xml")])
def test_a_full_stdout_is_an_error(place, arguments):
    done = shell(command(*arguments) + " >/dev/full", cwd=place)
    assert done.returncode == 2
    # A first run announces before it that it compiles.
    assert done.stderr.splitlines()[-1] == f"vj-{arguments[0]}: No space left on device: standard output"


def test_output_into_a_reader_that_leaves_ends_quietly(place):
    # 3000 provenance lines do not fit into a pipe.
    text = (place / "model.xml").read_text()
    lines = "".join(f"<k{i}>{'x' * 90}</k{i}>" for i in range(3000))
    (place / "long.xml").write_text(text.replace("</cascade>", f"<provenance>{lines}</provenance></cascade>"))
    done = shell("set -o pipefail; " + command("inspect", place / "long.xml") + " | head -1")
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")
    done = shell(command("inspect", place / "model.xml") + " | sleep 0; exit ${PIPESTATUS[0]}")
    assert done.stderr == ""


def test_an_error_of_a_file_names_it(tmp_path):
    with pytest.raises(OSError) as raised, replacing(tmp_path / "x.npy"):
        raise OSError(28, "No space left on device")
    assert raised.value.filename == str(tmp_path / "x.npy")
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError) as raised:
            write_bytes(tmp_path / "y", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(tmp_path / "y")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(capsys):
    def full(argv):
        raise OSError(28, "No space left on device", "out/x.npy")

    assert _common.run("vj-x", full) == 2
    assert capsys.readouterr().err == "vj-x: No space left on device: out/x.npy\n"


def test_a_warning_of_the_cache_is_one_line_and_others_stay(capsys):
    def warned(argv):
        for _ in range(2):
            warnings.warn("compiled code cannot be kept", CacheWarning, stacklevel=1)
        return 0

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert _common.run("vj-x", warned) == 0
    assert capsys.readouterr().err == "vj-x: compiled code cannot be kept\n"


@pytest.mark.parametrize("text", ["ä", "\udcff"])
def test_what_the_terminal_cannot_show_is_no_reason_to_stop(text):
    code = f"import sys; from vj.cli._common import run; sys.exit(run('vj-x', lambda argv: print({text!r}) or 0))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() in (r"\xe4", r"\udcff")


def interrupted(arguments, ready, **more):
    """Seconds until a command is gone after Ctrl-C, once `ready` is in what it printed on stderr."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    while ready not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, err, time.monotonic() - start


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("busy", ["time.sleep(60)", "hashlib.pbkdf2_hmac('sha256', b'x', b'y', 1 << 30)"])
def test_ctrl_c_ends_a_command_whatever_it_is_in(busy):
    """Python sees no interrupt before a call into C returns: decoding, compressing or grouping may take long."""
    code = (
        "import hashlib, sys, time\nfrom vj.cli import _common\n_common.GRACE = 0.3\n"
        "def command(argv):\n"
        f"    print('ready', file=sys.stderr, flush=True)\n    {busy}\n    return 0\n"
        "sys.exit(_common.run('vj-x', command))\n"
    )
    status, err, seconds = interrupted([sys.executable, "-c", code], "ready")
    assert (status, err) == (130, "vj-x: interrupted\n")
    assert seconds < 10


def test_detector_leaves_the_rest_of_an_image_when_it_is_interrupted(monkeypatch):
    monkeypatch.setattr("vj.scanning.whole.CALL_PIXELS", 1)
    detector = vj.Detector(random_cascade(3), threads=2)
    image = gray("camera", (500, 400))
    calls = []
    scan = detector._scanner().scan_bands

    def counted(*given):
        calls.append(threading.get_ident())
        time.sleep(0.02)
        if calls.count(threading.main_thread().ident) == 3:
            raise KeyboardInterrupt
        return scan(*given)

    expected = detector.detect(image).boxes.tolist()
    monkeypatch.setattr(detector._scanner(), "scan_bands", counted)
    with pytest.raises(KeyboardInterrupt):
        detector.detect(image)
    time.sleep(0.1)
    assert 3 <= len(calls) <= 6
    # The threads are still there, and nothing of the image that was left.
    monkeypatch.undo()
    assert detector.detect(image).boxes.tolist() == expected


def test_input_error_is_one_line(capsys):
    def bad(argv):
        raise InputError("expected this,\ngot that")

    assert _common.run("vj-x", bad) == 2
    assert capsys.readouterr().err == "vj-x: expected this, got that\n"


@pytest.mark.parametrize("arguments", [["detect", "a.png", "--annotate", "\0"], ["inspect", "model.xml", "--json=\0"]])
def test_arguments_that_no_file_can_be_named_by_are_refused(arguments, capsys, monkeypatch, place):
    """No shell can pass a NUL, but Python can."""
    monkeypatch.chdir(place)
    command, *rest = arguments
    assert importlib.import_module(f"vj.cli.{command}").main(rest) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"vj-{command}: expected arguments without NUL")


FIRST_RUNS = {
    "detect": ["a.png", "--cascade", "model.xml"],
    "inspect": ["model.xml", "a.png"],
    "watch": ["photos", "--cascade", "model.xml"],
    "evaluate": ["model.xml", "--dataset", "boxes.csv"],
    "calibrate": ["model.xml", "--dataset", "boxes.csv"],
    "train": ["--demo", "--output", "out"],
}


@pytest.mark.parametrize("name", FIRST_RUNS)
def test_a_first_run_says_so_before_the_compiler_is_even_imported(name, place, tmp_path):
    """Importing it takes up to seconds: here it is replaced by something that ends the process."""
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba/__init__.py").write_text("raise SystemExit(7)")
    (tmp_path / "photos").mkdir()
    for file in (place / "a.png", place / "model.xml"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "photos/a.png").write_bytes((place / "a.png").read_bytes())
    (tmp_path / "boxes.csv").write_text("file,x,y,w,h\na.png,10,10,40,40\n")
    paths = [str(tmp_path), str(Path(vj.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    variables = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(paths)}
    arguments = [sys.executable, "-m", f"vj.cli.{name}", *FIRST_RUNS[name]]
    for cached, notices in ((False, 1), (True, 0)):
        if cached:
            (tmp_path / "cache/scanning_0").mkdir(parents=True)
            (tmp_path / "cache/scanning_0/_kernels.scan-1.nbi").touch()
        done = subprocess.run(arguments, cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True)
        assert done.returncode == 7, done.stderr
        assert done.stderr.count("compiling for this processor") == notices
