import random
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from cascades import LBP_FILE, random_cascade
from photos import gray
from scans import depths, scan

import vj
from vj.cascade import opencv_xml, stock
from vj.cascade.new_xml import to_xml
from vj.cascade.opencv_xml import parse
from vj.errors import InputError
from vj.scanning.scanner import Scanner

STOCK = sorted(Path(cv2.__file__).parent.glob("data/*.xml"))
SHAPES = [("basic", (1,)), ("all", (1, 2, 5)), ("lbp", (1,)), ("lbp", (1, 3))]


def old_layout(cascade):
    """The layout before the current one, written by hand: for each node its feature, its threshold, its sides."""
    window = " ".join(map(str, cascade.window))
    out = ['<?xml version="1.0"?><opencv_storage><haar type_id="opencv-haar-classifier">']
    out.append(f"<size>{window}</size><stages>")
    for s in range(cascade.n_stages):
        out.append("<_><trees>")
        for t in range(cascade.stage_starts[s], cascade.stage_starts[s + 1]):
            out.append("<_>")
            root = cascade.tree_starts[t]
            for n in range(root, cascade.tree_starts[t + 1]):
                f = cascade.node_features[n]
                features = cascade.features
                rects = zip(features.rects[f].tolist(), features.weights[f].tolist(), strict=True)
                parts = "".join(f"<_>{' '.join(map(str, r))} {w}</_>" for r, w in rects if w)
                out.append(f"<_><feature><rects>{parts}</rects><tilted>{int(features.tilted[f])}</tilted></feature>")
                out.append(f"<threshold>{cascade.node_thresholds[n]:.9g}</threshold>")
                for side, child in zip(("left", "right"), cascade.node_children[n], strict=True):
                    leaf = f"<{side}_val>{cascade.leaves[root + t - child]:.9g}</{side}_val>"
                    out.append(f"<{side}_node>{child}</{side}_node>" if child > 0 else leaf)
                out.append("</_>")
            out.append("</_>")
        out.append(f"</trees><stage_threshold>{cascade.stage_thresholds[s]:.9g}</stage_threshold>")
        out.append(f"<parent>{s - 1}</parent><next>-1</next></_>")
    return "\n".join([*out, "</stages></haar></opencv_storage>"])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_written_is_read_again(shape, tmp_path):
    for seed in range(5):
        cascade = random_cascade(seed, kind=shape[0], nodes=shape[1])
        cascade = replace(cascade, provenance={"recipe": """5 "faces" & <more> don't""", "seed": "7"})
        path = tmp_path / "some name.xml"
        vj.save(cascade, path)
        again = vj.load(path)
        assert again == cascade
        assert again.name == "some name"
        assert again.provenance == cascade.provenance
        assert to_xml(again) == to_xml(cascade)


@pytest.mark.opencv4
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_written_opencv_reads_and_finds_the_same_with(shape, tmp_path):
    hits = 0
    for seed in range(4):
        cascade = random_cascade(seed, kind=shape[0], nodes=shape[1])
        cascade = replace(cascade, provenance={"note": """a "quoted" <thing> & don't"""})
        path = str(tmp_path / "cascade.xml")
        vj.save(cascade, path)
        cv2.setNumThreads(1)
        theirs = cv2.CascadeClassifier(path)
        assert theirs.getOriginalWindowSize() == cascade.window
        image = gray("camera", (60, 50))
        found = np.array(theirs.detectMultiScale(image, 1.2, 0)).reshape(-1, 4)
        np.testing.assert_array_equal(
            vj.Detector(cascade, scale_factor=1.2, min_neighbors=0, threads=1).detect(image).boxes, found
        )
        hits += len(found)
    assert hits > 0


@pytest.mark.parametrize("path", STOCK, ids=lambda path: path.stem)
def test_stock_cascades_are_read_and_written_again(path):
    cascade = vj.load(path)
    assert parse(to_xml(cascade).encode()) == cascade
    # Facts about OpenCV's files: stages, weak classifiers, nodes, nodes with tilted features.
    facts = {
        "haarcascade_eye_tree_eyeglasses": (30, 851, 2553, 577),
        "haarcascade_frontalface_alt2": (20, 1047, 2094, 0),
        "haarcascade_frontalface_alt_tree": (47, 8468, 8468, 0),
        "haarcascade_frontalface_default": (25, 2913, 2913, 0),
        "haarcascade_license_plate_rus_16stages": (16, 91, 91, 0),
        "haarcascade_upperbody": (30, 2423, 2423, 474),
    }
    tilted = int(cascade.features.tilted[cascade.node_features].sum())
    found = (cascade.n_stages, cascade.n_trees, len(cascade.node_features), tilted)
    assert facts.get(path.stem, found) == found


@pytest.mark.parametrize("nodes", [(1,), (1, 2, 4)])
def test_the_old_layout_is_read(nodes):
    for seed in range(5):
        cascade = random_cascade(seed, kind="all", nodes=nodes)
        read = parse(old_layout(cascade).encode())
        # Every node has a feature of its own there.
        index = cascade.node_features
        np.testing.assert_array_equal(read.features.rects, cascade.features.rects[index])
        image = gray("camera", (40, 30))
        for ours, theirs in zip(depths(Scanner(read), image), depths(Scanner(cascade), image), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("nodes", [(1,), (1, 2, 4)])
def test_the_old_layout_is_written(nodes, tmp_path):
    for seed in range(5):
        cascade = random_cascade(seed, kind="all", nodes=nodes)
        path = tmp_path / "old.xml"
        vj.save(cascade, path, format="opencv-haar-classifier")
        # The hand-written layout above is the independent twin; a second round changes nothing.
        assert vj.load(path) == parse(old_layout(cascade).encode())
        again = tmp_path / "again.xml"
        vj.save(vj.load(path), again, format="opencv-haar-classifier")
        assert again.read_bytes() == path.read_bytes()


def test_what_cannot_be_written_is_refused_before_a_file_is_touched(tmp_path):
    path = tmp_path / "c.xml"
    path.write_text("old")
    with pytest.raises(InputError, match="Haar-like features for opencv-haar-classifier, got lbp"):
        vj.save(random_cascade(0, kind="lbp"), path, format="opencv-haar-classifier")
    with pytest.raises(InputError, match="one of opencv-cascade-classifier, opencv-haar-classifier, got 'json'"):
        vj.save(random_cascade(0), path, format="json")
    with pytest.raises(InputError, match=r"ends in .xml, got .gz"):
        vj.save(random_cascade(0), tmp_path / "c.xml.gz")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.opencv4
@pytest.mark.parametrize("written", ["by hand", "by save"])
def test_the_old_layout_is_read_as_opencv_reads_it(written, tmp_path):
    cascade = random_cascade(3, kind="all", nodes=(1, 2, 3))
    path = tmp_path / "old.xml"
    if written == "by hand":
        path.write_text(old_layout(cascade))
    else:
        vj.save(cascade, path, format="opencv-haar-classifier")
    image = gray("camera", (60, 50))
    cv2.setNumThreads(1)
    theirs = np.array(cv2.CascadeClassifier(str(path)).detectMultiScale(image, 1.2, 0)).reshape(-1, 4)
    ours = vj.Detector(vj.load(path), scale_factor=1.2, min_neighbors=0).detect(image).boxes
    assert len(theirs) > 0
    np.testing.assert_array_equal(ours, theirs)


def test_scikit_images_cascade_is_read_despite_its_misspelt_tag():
    assert "featuhreParams" in LBP_FILE.read_text()
    cascade = vj.load(LBP_FILE)
    assert (cascade.kind, cascade.window, cascade.n_stages, cascade.n_trees) == ("lbp", (24, 24), 20, 139)


def test_names_stand_for_the_files_that_this_machine_has(tmp_path, monkeypatch):
    monkeypatch.setenv("VJ_CASCADES", str(tmp_path))
    vj.save(random_cascade(0), tmp_path / "mine.xml")
    assert vj.load("mine") == random_cascade(0)
    assert vj.load("lbpcascade_frontalface_opencv") == vj.load(LBP_FILE)
    with pytest.raises(InputError, match=r"known name, got 'none'.*vj-cascades install.*VJ_CASCADES"):
        vj.load("none")


@pytest.mark.opencv4
def test_opencvs_cascades_are_found_by_short_and_full_name():
    path = Path(cv2.data.haarcascades) / "haarcascade_frontalface_alt2.xml"
    assert stock.find("frontalface_alt2") == stock.find("haarcascade_frontalface_alt2") == path


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "cascade.xml"
    vj.save(random_cascade(0), path)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        vj.save(random_cascade(1), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["cascade.xml"]


# --- hostile files -------------------------------------------------------------------------------------------------

VALID = to_xml(random_cascade(0, kind="all", nodes=(1, 2)))
ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
HOSTILE = {
    "nothing": ("", "in XML, YAML or JSON, got"),
    "text": ("hello", "in XML, YAML or JSON, got"),
    "truncated": (VALID[: len(VALID) // 2], "in XML, YAML or JSON, got"),
    "another kind": ("<html><body/></html>", "expected <opencv_storage>"),
    "no cascade": ("<opencv_storage><matrix/></opencv_storage>", "without featureType or size"),
    "HOG": (VALID.replace("HAAR", "HOG"), "HAAR or LBP, got 'HOG'"),
    "not boosted": (VALID.replace("BOOST", "TREE"), "BOOST, got 'TREE'"),
    "entities": (ENTITIES + VALID.split("?>", 1)[1].replace("BOOST", "&b;"), "got a document type or entities"),
    "no stages": (re.sub(r"<stages>.*</stages>", "<stages></stages>", VALID, flags=re.S), "1 to 1000 stages, got 0"),
    "many stages": (re.sub(r"<stages>", "<stages>" + "<_/>" * 1001, VALID), "1 to 1000 stages, got"),
    "many elements": (VALID.replace("<stages>", "<stages>" + "<_/>" * 600_000), "more than 500000 elements"),
    "endless list": (re.sub(r"<leafValues>", "<leafValues>" + "1 " * 140_000, VALID), "characters in one element"),
    "endless number": (re.sub(r"<stageThreshold>", "<stageThreshold>" + "1" * 270_000, VALID), "characters in one"),
    "deep nesting": ("<opencv_storage>" + "<a>" * 100_000 + "</a>" * 100_000 + "</opencv_storage>", "or 50 levels"),
    "NaN threshold": (re.sub(r"<stageThreshold>[^<]*", "<stageThreshold>nan", VALID), "finite stage_thresholds"),
    "huge leaf": (re.sub(r"<leafValues>\S+", "<leafValues>1e99", VALID), "finite leaves"),
    "huge integer": (re.sub(r"<width>\d+", "<width>" + "9" * 30, VALID), "integers of 32 bits"),
    "endless integer": (re.sub(r"<width>\d+", "<width>" + "9" * 5000, VALID), "integers in <width>"),
    "huge window": (re.sub(r"<width>\d+", "<width>1000000", VALID), "3 to 1024 pixels"),
    "outside the window": (VALID.replace("<rects><_>0 ", "<rects><_>7 ", 1), "inside the 8x9 window"),
    "feature index": (re.sub(r"<internalNodes>0 -1 \d+", "<internalNodes>0 -1 999", VALID), "feature indexes 0 to 39"),
    "node cycle": (re.sub(r"<internalNodes>0 -1", "<internalNodes>0 1", VALID), "later nodes or leaves"),
    "missing leaf": (re.sub(r"<leafValues>\S+ ", "<leafValues>", VALID), "leafValues in stage 0, weak classifier 0"),
    "word for number": (re.sub(r"<leafValues>\S+", "<leafValues>many", VALID), "numbers in stage 0"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_with_one_line_that_names_file_and_place(name, tmp_path):
    text, message = HOSTILE[name]
    assert text != VALID
    path = tmp_path / "hostile.xml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        vj.load(path)
    assert str(error.value).startswith(f"{path}: expected")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 300


def test_files_that_are_too_large_or_absent_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="readable cascade file, got Is a directory"):
        vj.load(tmp_path)
    path = tmp_path / "large.xml"
    path.write_text(VALID)
    monkeypatch.setattr(opencv_xml, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match=r"large.xml: expected a cascade file of at most 1000 bytes, got \d+"):
        vj.load(path)
    with pytest.raises(InputError, match=r"none.xml: expected a readable cascade file, got No such file"):
        vj.load(tmp_path / "none.xml")


NUMBERS = [
    "nan",
    "inf",
    "-inf",
    "1e39",
    "-1",
    "0",
    "1",
    "255",
    "2147483647",
    "-2147483648",
    "99999999999",
    "0.5",
    "x",
    "",
]


def mutate(text, rng):
    """One to three random changes of a file: bytes, numbers, elements, length."""
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(6)
        if kind < 3:
            numbers = list(re.finditer(r"-?\d+(\.\d+(e[+-]\d+)?)?", text))
            if numbers:
                found = rng.choice(numbers)
                other = rng.choice(NUMBERS) if rng.random() < 0.5 else rng.choice(numbers).group()
                text = text[: found.start()] + other + text[found.end() :]
        elif kind == 3:
            tags = list(re.finditer(r"<(\w+)>[^<>]*</\1>", text))
            if tags:
                found = rng.choice(tags)
                text = text[: found.start()] + found.group() * rng.choice([0, 2]) + text[found.end() :]
        elif kind == 4:
            place = rng.randrange(len(text))
            text = text[:place] + rng.choice("<>/&_ 09.-eA\x00\x7f") + text[place + 1 :]
        else:
            place = rng.randrange(len(text))
            text = text[: place - rng.randrange(200)] + text[place:]
    return text


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files_load_into_valid_cascades_or_are_refused(seed):
    """Thousands of damaged files: each is refused cleanly, or loads and detects; nothing else may happen."""
    rng = random.Random(seed)
    shape = SHAPES[seed]
    cascade = random_cascade(seed, kind=shape[0], nodes=shape[1], stages=3)
    text = to_xml(cascade) if seed != 1 else old_layout(cascade)
    image = gray("camera", (40, 36))
    loaded = 0
    for _ in range(1000):
        try:
            cascade = parse(mutate(text, rng).encode("utf-8", "replace"))
        except InputError as error:
            assert "\n" not in str(error)
            continue
        loaded += 1
        if max(cascade.window) <= 40:
            scanner = Scanner(cascade)
            found = scan(scanner, image, 1, True)
            depth, sums = depths(scanner, image)
            assert found.windows <= depth.size
            assert set(zip(found.ys, found.xs, strict=True)) <= set(
                zip(*np.nonzero(depth == cascade.n_stages), strict=True)
            )
            assert np.isfinite(sums).all()
    assert 50 < loaded < 950


@pytest.mark.parametrize("nothing", ["0.", "-0.", "1e-46"])
def test_a_rectangle_without_weight_far_outside_the_window_is_harmless(nothing, tmp_path):
    """Read by the kernels, its corners crashed the process; the file must also read back as equal."""
    path = tmp_path / "cascade.xml"
    vj.save(random_cascade(0), path)
    text = path.read_text()
    end = text.index("</rects>")
    path.write_text(f"{text[:end]}<_>0 100000 5 5 {nothing}</_>{text[end:]}")
    cascade = vj.load(path)
    vj.save(cascade, tmp_path / "again.xml")
    assert vj.load(tmp_path / "again.xml") == cascade == random_cascade(0)
    image = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    found, wanted = (vj.Detector(c, min_neighbors=0).detect(image) for c in (cascade, random_cascade(0)))
    assert np.array_equal(found.boxes, wanted.boxes)
