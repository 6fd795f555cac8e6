"""The commands in the READMEs work: commands and Python of the main one and of the tutorial in
``training/README.md`` are run, those of the others are parsed."""

import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import takewhile
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from cascades import random_cascade

from benchmarks import charts
from vj.boosting.positives import load_positives
from vj.boosting.recipe import TrainingConfig
from vj.boosting.workers import Workers
from vj.cascade.opencv_xml import save
from vj.cli import evaluate
from vj.datasets.formats import FORMATS, read_labelled
from vj.images import write_image

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "training/README.md", "data/README.md", "benchmarks/README.md")
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

# Training is kept short; everything else runs as it stands.
SHORTER = {
    "vj-train": ["--stages", "2", "--max-weak-count", "5"],
    "vj-traincascade": ["-numStages", "2", "-maxWeakCount", "5"],
}


def _commands(page: str) -> list[list[str]]:
    """Every `vj-...` command of a page, in fenced and in indented blocks, without its comment."""
    text = re.sub(r"\\\n\s*", "", (ROOT / page).read_text(encoding="utf-8"))
    lines = re.findall(r"^(?: {4})?(vj-[a-z]+ .*)$", text, re.MULTILINE)
    # What a shell does with the output is not the command's.
    return [list(takewhile(lambda word: word != ">", shlex.split(line, comments=True))) for line in lines]


def _python(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with everything that the main README names."""
    place = tmp_path_factory.mktemp("user")
    astronaut = np.ascontiguousarray(skimage.data.astronaut()[:300, :, ::-1])
    write_image(place / "photo.jpg", astronaut)
    clip = cv2.VideoWriter(str(place / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, astronaut.shape[1::-1])
    for _ in range(3):
        clip.write(astronaut)
    clip.release()
    for name in ("photos", "faces"):
        (place / name).mkdir()
    for name in ("coffee", "chelsea", "rocket"):
        image = getattr(skimage.data, name)()[:300, :400, ::-1]
        write_image(place / "photos" / f"{name}.png", np.ascontiguousarray(image))
    for k, face in enumerate(skimage.data.lfw_subset()[:100]):
        write_image(place / "faces" / f"{k:03}.png", np.rint(255 * face).astype(np.uint8))
    # A face, and a box without one, so that there is an error to show.
    (place / "labels.csv").write_text("file,x,y,w,h\nphoto.jpg,176,67,96,96\nphotos/chelsea.png,5,5,60,60\n")
    save(random_cascade(9), place / "mine.xml")
    (place / "info.dat").write_text("".join(f"faces/{k:03}.png 1 0 0 25 25\n" for k in range(100)))
    (place / "bg.txt").write_text("".join(f"photos/{name}.png\n" for name in ("coffee", "chelsea", "rocket")))
    (place / "answers.csv").write_text(_answers())
    return place


def _answers() -> str:
    """300 answers of two models, of which the small one knows what it does not know."""
    rng = np.random.default_rng(0)
    lines = ["truth,small.label,small.confidence,large.label,large.confidence"]
    for truth, sure, right in zip(rng.choice(["cat", "dog"], 300), rng.random(300), rng.random(300), strict=True):
        other = "dog" if truth == "cat" else "cat"
        small, large = truth if right < 0.5 + sure / 2 else other, truth if right < 0.97 else other
        lines.append(f"{truth},{small},{0.5 + sure / 2:.3f},{large},0.9")
    return "\n".join(lines) + "\n"


def test_commands_of_the_main_readme_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    commands = _commands("README.md")
    assert {command[0] for command in commands} >= {"vj-detect", "vj-train", "vj-inspect", "vj-evaluate"}
    for command in commands:
        if any("frontalface_" in word for word in command) and not _stock():
            continue
        module, function = SCRIPTS[command[0]].split(":")
        done = getattr(importlib.import_module(module), function)([*command[1:], *SHORTER.get(command[0], [])])
        assert done == 0, f"{shlex.join(command)}\n{capsys.readouterr().err}"
    assert (folder / "out" / "cascade.xml").is_file()
    assert (folder / "run" / "params.xml").is_file()
    assert json.loads((folder / "policy.json").read_text())["tiers"].keys() == {"small", "large"}
    assert list((folder / "plots").glob("*.png"))
    assert (folder / "page.html").is_file() and (folder / "out" / "report.html").is_file()
    assert (folder / "safe" / "coffee.png").is_file()
    assert not _stock() or list((folder / "errors").iterdir())


def _stock() -> bool:
    """Whether OpenCV's cascades are on this machine; opencv-python 5 brings none."""
    from vj.cascade.stock import find
    from vj.errors import InputError

    try:
        find("frontalface_alt2")
    except InputError:
        return False
    return True


def test_python_of_the_main_readme_runs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    from vj.images import read_gray

    names = {"gray": read_gray("photo.jpg")}
    # The drop-in is put into cv2 for this test only; tests/test_cv2_compat.py looks at what it does.
    monkeypatch.setattr("vj.cv2_compat.install", list)
    for code in _python("README.md"):
        if "haarcascade_frontalface_default" in code and not _stock():
            continue
        exec(compile(code, "README.md", "exec"), names)
    assert len(names["found"].boxes) == 1
    if _stock():
        assert len(names["boxes"]) >= 1


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_options_that_exist(page):
    for command in _commands(page):
        module = importlib.import_module(SCRIPTS[command[0]].split(":")[0])
        if hasattr(module, "OPTIONS"):
            assert {word for word in command if word.startswith("-")} <= module.OPTIONS.keys()
            continue
        try:
            module._parser().parse_args(command[1:])
        except SystemExit as stop:
            pytest.fail(f"{page}: {shlex.join(command)}: exit {stop.code}")


@pytest.mark.parametrize("page", [*PAGES, "vj/README.md", ".github/CONTRIBUTING.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"(?:\]\(|src=\"|srcset=\")([^)\"]+)", text):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, f"{page}: {link}"


FILES = {
    "csv": "boxes.csv",
    "info": "info.dat",
    "coco": "boxes.json",
    "voc": "cat.xml",
    "yolo": "labels/cat.txt",
    "annotations": "annotations.json",
    "wider": "wider.txt",
    "fddb": "fddb.txt",
    "mitcmu": "mitcmu.txt",
}


@pytest.mark.parametrize("name", FORMATS)
def test_format_examples_are_read_without_naming_the_format(name, tmp_path):
    (text,) = re.findall(rf"```{name}\n(.*?)```", (ROOT / "data/README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "photos").mkdir()
    image = np.random.default_rng(0).integers(0, 256, (300, 451, 3), dtype=np.uint8)
    for file in ("images/cat.jpg", "photos/cat.jpg", "photos/garden.jpg", "photos/street.jpg"):
        write_image(tmp_path / file, image)
    (tmp_path / FILES[name]).write_text(text)
    source = tmp_path if name in ("yolo", "annotations") else tmp_path / FILES[name]
    classes = ["cat"] if name == "csv" else ["0"] if name == "yolo" else []
    found = read_labelled(source, classes=classes)
    assert found[0].path.name == "cat.jpg"
    # The evaluator and the trainer read it, too.
    (tmp_path / "model").mkdir()
    save(random_cascade(9), tmp_path / "model/model.xml")
    options = ["--dataset", str(source), "--min-size", "150", *(word for one in classes for word in ("--class", one))]
    assert evaluate.main([str(tmp_path / "model/model.xml"), *options]) == 0
    settings = {"window": "12x12", "features": "lbp", "jitter": 0}
    recipe = TrainingConfig.from_mapping({**settings, "positives": {"path": str(source), "classes": classes}})
    workers = Workers(1)
    assert len(load_positives(recipe, workers).windows) >= 1
    workers.close()
    x, y, width, height = found[0].boxes[0]
    if name == "mitcmu":  # made from landmarks
        assert abs(x + width / 2 - 211) < 5
    else:
        assert np.allclose([x, y, width, height], [143, 75, 150, 145], atol=3)


@pytest.mark.parametrize("theme", charts.THEMES)
@pytest.mark.parametrize("name", charts.CHARTS)
def test_charts_show_what_the_result_files_hold(name, theme):
    data, _ = charts.CHARTS[name]
    assert charts.drawn_from(charts.chart_path(name, theme)) == data(), "run: python -m benchmarks.charts"


TUTORIAL = "Your own detector in ten minutes"


def _steps():
    """The commands and the code of the tutorial, in order."""
    text = (ROOT / "training/README.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"## {TUTORIAL}\n(.*?)\n## ", text, re.DOTALL)
    section = re.sub(r"\\\n\s*", "", section)
    return re.findall(r"```python\n(.*?)```|^    ((?:vj-|python )[^\n]*)$", section, re.DOTALL | re.MULTILINE)


def test_the_tutorial_makes_a_detector(tmp_path, monkeypatch, capsys):
    """From nothing to an evaluated detector, as it is written; the index of packages must be within reach."""
    monkeypatch.chdir(tmp_path)
    steps = _steps()
    commands = [shlex.split(command) for _, command in steps if command]
    assert [command[0] for command in commands] == ["python", "vj-train", "vj-evaluate", "vj-detect"]
    for code, command in steps:
        if code:
            exec(compile(code, TUTORIAL, "exec"), {})
            continue
        words = shlex.split(command)
        if words[0] == "python":
            tool = [sys.executable, str(ROOT / words[1]), *words[2:], "--to", "data/downloads"]
            done = subprocess.run(tool, capture_output=True, text=True, check=False)
            if "expected pip to download" in done.stderr:
                pytest.skip(f"no index of packages: {done.stderr.strip()[-200:]}")
            assert done.returncode == 0, done.stderr
            continue
        extra = ["--json", "figures.json"] if words[0] == "vj-evaluate" else []
        module, function = SCRIPTS[words[0]].split(":")
        assert getattr(importlib.import_module(module), function)([*words[1:], *extra]) == 0, capsys.readouterr().err
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["images"], figures["objects"]) == (56, 112)
    text = (ROOT / "training/README.md").read_text(encoding="utf-8")
    found, precision = re.search(r"found ([\d.]+) % of the 112 eyes .*?precision ([\d.]+) %", text, re.DOTALL).groups()
    (detector,) = figures["detectors"]
    # Other versions of OpenCV and NumPy may round differently.
    assert detector["average_precision"] == pytest.approx(float(precision) / 100, abs=0.03)
    assert detector["recall_at"]["10"] == pytest.approx(float(found) / 100, abs=0.05)
    assert list((tmp_path / "found").iterdir())
    assert list((tmp_path / "errors").iterdir())
