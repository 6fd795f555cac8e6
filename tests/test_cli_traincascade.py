"""``vj-traincascade``: OpenCV's command lines, and the folder they leave."""

import re
import shutil

import cv2
import numpy as np
import pytest
from skimage import data

import vj
from vj.boosting.opencv_run import cascade_of, read_run, searching_all, write_stages
from vj.boosting.recipe import TrainingConfig
from vj.cascade.file_storage import read_tree
from vj.cascade.haar import feature_pool
from vj.cli.traincascade import OPTIONS, main
from vj.datasets.vec_files import write_vec
from vj.errors import InputError


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """A folder as a tutorial has it: faces.vec, negatives and their list."""
    folder = tmp_path_factory.mktemp("tutorial")
    faces = np.rint(data.lfw_subset()[:100] * 255).astype(np.uint8)
    write_vec(folder / "faces.vec", (cv2.resize(face, (12, 12), interpolation=cv2.INTER_AREA) for face in faces))
    (folder / "neg").mkdir()
    for name in ("gravel", "coffee", "grass"):
        cv2.imwrite(str(folder / f"neg/{name}.jpg"), getattr(data, name)()[:200, :200])
    (folder / "bg.info").write_text("neg/gravel.jpg\r\nneg/coffee.jpg\n#neg/none.jpg\nneg/grass.jpg\n\n")
    return folder


LINE = "-data out -vec faces.vec -bg bg.info -numPos 90 -numNeg 100 -w 12 -h 12 -maxWeakCount 6 -minHitRate 0.95"


def trained(samples, tmp_path, monkeypatch, line):
    monkeypatch.chdir(samples)
    return main(line.replace("-data out", f"-data {tmp_path / 'out'}").split())


@pytest.fixture(scope="module")
def whole(samples, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("whole")
        assert trained(samples, folder, patch, f"{LINE} -numStages 3 -featureType LBP") == 0
    return folder / "out"


def test_the_folder_holds_what_opencv_leaves(whole):
    cascade = vj.load(whole / "cascade.xml")
    assert (cascade.kind, cascade.window, cascade.n_stages) == ("lbp", (12, 12), 3)
    params = read_tree((whole / "params.xml").read_bytes())[0]
    assert params.tag == "params"
    stage = params.find("stageParams")
    assert [(n.tag, n.text) for n in stage][:3] == [
        ("boostType", "GAB"),
        ("minHitRate", "0.95"),
        ("maxFalseAlarm", "0.5"),
    ]
    for s in range(3):
        node = read_tree((whole / f"stage{s}.xml").read_bytes())[0]
        assert node.tag == f"stage{s}"
        assert float(node.find("stageThreshold").text) == pytest.approx(cascade.stage_thresholds[s], abs=1e-6)
    assert not (whole / "stage3.xml").exists()


@pytest.mark.opencv4
@pytest.mark.parametrize("mode", ["BASIC", "ALL"])
def test_opencv_loads_either_layout(mode, samples, tmp_path, monkeypatch):
    line = f"{LINE} -numStages 1 -mode {mode} -maxDepth 2 -bt RAB -baseFormatSave -precalcValBufSize 512"
    assert trained(samples, tmp_path, monkeypatch, line) == 0
    path = tmp_path / "out/cascade.xml"
    assert "opencv-haar-classifier" in path.read_text()
    cv2.setNumThreads(1)
    theirs = cv2.CascadeClassifier(str(path))
    assert theirs.getOriginalWindowSize() == (12, 12)
    image = cv2.resize(data.astronaut()[:220, 120:320, 0], None, fx=0.5, fy=0.5)
    ours = vj.CascadeClassifier(str(path)).detectMultiScale(image, 1.2, 0)
    np.testing.assert_array_equal(np.array(ours), np.array(theirs.detectMultiScale(image, 1.2, 0)))


def test_stages_refer_to_features_by_opencvs_numbers(tmp_path):
    """Independent twin: the trainer's nested loops over x, y, dx, dy and shapes, as its documentation lists them."""
    names = []
    for x in range(12):
        for y in range(12):
            for dx in range(1, 13):
                for dy in range(1, 13):
                    shapes = {"x2": (2, 1), "y2": (1, 2), "x3": (3, 1), "y3": (1, 3), "x2y2": (2, 2)}
                    for a, b in shapes.values():
                        if x + a * dx <= 12 and y + b * dy <= 12:
                            names.append((x, y, a * dx, b * dy))
    config = TrainingConfig(window=(12, 12), features="basic")
    rng = np.random.default_rng(0)
    picks = rng.choice(len(names), 20, replace=False)
    trees = "".join(
        f"<_><internalNodes>0 -1 {k} {0.25 * k:.3f}</internalNodes><leafValues>-1. 0.5</leafValues></_>" for k in picks
    )
    (tmp_path / "stage0.xml").write_text(
        f'<?xml version="1.0"?>\n<opencv_storage>\n<stage0><maxWeakCount>20</maxWeakCount>'
        f"<stageThreshold>-1.5</stageThreshold><weakClassifiers>{trees}</weakClassifiers></stage0></opencv_storage>"
    )
    cascade = cascade_of(config, read_run(tmp_path, config))
    wholes = [tuple(cascade.features.rects[f, 0]) for f in cascade.node_features]
    assert wholes == [names[k] for k in picks]
    # Written again, the numbers are the same.
    (tmp_path / "again").mkdir()
    write_stages(tmp_path / "again", cascade, config)
    text = (tmp_path / "again/stage0.xml").read_text()
    assert [int(n) for n in re.findall(r"<internalNodes>0 -1 (\d+) ", text)] == picks.tolist()


def test_every_feature_of_a_pool_is_told_from_the_others():
    from vj.boosting.build import pool
    from vj.boosting.opencv_run import _hashes

    for kind in ("all", "lbp"):
        for window in ((24, 24), (12, 40)):
            features = pool(window, kind)
            assert len(np.unique(_hashes(features))) == len(features)


def test_a_run_continues_from_its_stages_alone(whole, samples, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoint")
    (out / "stage2.xml").unlink()
    # As OpenCV writes it: other blanks, the same stage. It must stay as it is.
    text = (out / "stage0.xml").read_text()
    (out / "stage0.xml").write_text(text.replace("<internalNodes>", "<internalNodes>\n            "))
    first = {name: (out / name).read_bytes() for name in ("stage0.xml", "stage1.xml")}
    assert trained(samples, tmp_path, monkeypatch, f"{LINE} -numStages 3 -featureType LBP") == 0
    assert "continuing after 2 stages" in capsys.readouterr().err
    assert {name: (out / name).read_bytes() for name in first} == first
    cascade = vj.load(out / "cascade.xml")
    assert cascade.n_stages == 3
    assert cascade.truncated(2) == vj.load(whole / "cascade.xml").truncated(2)


def test_the_params_in_the_folder_decide_and_more_stages_may_be_asked_for(
    whole, samples, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    params = (out / "params.xml").read_text()
    # As OpenCV writes a hit rate of single precision.
    (out / "params.xml").write_text(params.replace(">0.95<", ">9.4999998807907104e-01<", 1))
    line = f"{LINE} -numStages 4 -featureType HAAR -maxFalseAlarmRate 0.4"
    assert trained(samples, tmp_path, monkeypatch, line) == 0
    told = capsys.readouterr().err
    assert re.search(r"-featureType and -mode: params.xml in \S+ decides, lbp in place of basic", told)
    assert re.search(r"-maxFalseAlarmRate: params.xml in \S+ decides, 0.5 in place of 0.4", told)
    assert "-minHitRate" not in told
    cascade = vj.load(out / "cascade.xml")
    assert (cascade.kind, cascade.n_stages) == ("lbp", 4)
    assert cascade.truncated(3) == vj.load(whole / "cascade.xml")


def test_fewer_stages_make_a_cascade_without_training(whole, samples, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("params.xml", "stage0.xml", "stage1.xml", "stage2.xml"):
        shutil.copy(whole / name, out / name)
    assert trained(samples, tmp_path, monkeypatch, f"{LINE} -numStages 2 -featureType LBP") == 0
    assert "nothing is trained" in capsys.readouterr().err
    assert vj.load(out / "cascade.xml") == vj.load(whole / "cascade.xml").truncated(2)
    assert (out / "stage2.xml").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("-numpos 5", "got '-numpos' (did you mean -numPos?)"),
        ("-featureType HOG", "HAAR or LBP, got HOG"),
        ("-featureType SURF", "one of HAAR, LBP, HOG, got 'SURF'"),
        ("-numNeg many", "a whole number after -numNeg, got 'many'"),
        ("-numStages", "a value after -numStages, got none"),
        ("-minHitRate 1.5", "-minHitRate between 0.5 and 1.0, got 1.5"),
        ("-w 4", "between 8x8 and 128x128, got 4x12"),
        ("-vec none.vec", "none.vec"),
        ("-bg none.txt", "none.txt"),
    ],
)
def test_bad_lines_are_one_line_on_stderr(change, message, samples, tmp_path, monkeypatch, capsys):
    assert trained(samples, tmp_path, monkeypatch, f"{LINE} {change}") == 2
    told = capsys.readouterr().err
    assert message in told.splitlines()[-1]
    assert not (tmp_path / "out/cascade.xml").exists()


def test_damaged_stages_are_named(whole, samples, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    text = (out / "stage1.xml").read_text()
    (out / "stage1.xml").write_text(re.sub(r"(<internalNodes>0 -1) \d+", r"\1 99999", text))
    before = (out / "cascade.xml").read_bytes()
    assert trained(samples, tmp_path, monkeypatch, f"{LINE} -numStages 3 -featureType LBP") == 2
    assert "feature indexes 0 to" in capsys.readouterr().err
    assert (out / "cascade.xml").read_bytes() == before


def test_usage_lists_every_option_of_opencvs_program(capsys):
    assert main([]) == 0
    told = capsys.readouterr().out
    # From the usage text of OpenCV 3.4's program.
    theirs = [
        "-data",
        "-vec",
        "-bg",
        "-numPos",
        "-numNeg",
        "-numStages",
        "-precalcValBufSize",
        "-precalcIdxBufSize",
        "-baseFormatSave",
        "-numThreads",
        "-acceptanceRatioBreakValue",
        "-stageType",
        "-featureType",
        "-w",
        "-h",
        "-bt",
        "-minHitRate",
        "-maxFalseAlarmRate",
        "-weightTrimRate",
        "-maxDepth",
        "-maxWeakCount",
        "-mode",
    ]
    assert set(OPTIONS) == set(theirs)
    assert all(f"  {name} " in told for name in theirs)
    assert main(["--version"]) == 0


def test_a_dash_from_a_web_page_is_a_dash(capsys):
    assert main(["–data", "x", "—vec", "y"]) == 2
    assert "got no -bg" in capsys.readouterr().err


def test_stages_of_a_thinned_pool_have_opencvs_numbers_and_are_continued(tmp_path):
    """Window and step are small so that the whole pool is, too: what is written is the same as of the whole pool."""
    whole = TrainingConfig(window=(14, 12), features="all", feature_step=1)
    thin = TrainingConfig(window=(14, 12), features="all", feature_step=2)
    every, few = (feature_pool((14, 12), "all", step) for step in (1, 2))
    picks = np.arange(3, len(few), 40)

    def node(number):
        return f"<_><internalNodes>0 -1 {number} 0.5</internalNodes><leafValues>-1. 0.5</leafValues></_>"

    def stage(numbers):
        trees = "".join(map(node, numbers))
        return (
            f'<?xml version="1.0"?>\n<opencv_storage>\n<stage0><maxWeakCount>{len(numbers)}</maxWeakCount>'
            f"<stageThreshold>-1.5</stageThreshold><weakClassifiers>{trees}</weakClassifiers></stage0></opencv_storage>"
        )

    rows = {(r.tobytes(), w.tobytes(), bool(t)): k for k, (r, w, t) in enumerate(_rows(every))}
    numbers = [rows[r.tobytes(), w.tobytes(), bool(t)] for r, w, t in _rows(few.take(picks))]
    (tmp_path / "stage0.xml").write_text(stage(numbers))
    (read,), (as_whole,) = (read_run(tmp_path, config) for config in (thin, whole))
    assert [tree.splits[0].feature for tree in read.trees] == picks.tolist()
    assert [tree.splits[0].feature for tree in as_whole.trees] == numbers
    (tmp_path / "again").mkdir()
    write_stages(tmp_path / "again", cascade_of(thin, [read]), thin)
    text = (tmp_path / "again/stage0.xml").read_text()
    assert [int(n) for n in re.findall(r"<internalNodes>0 -1 (\d+) ", text)] == numbers
    # A stage of OpenCV's may have any feature: then all of them are searched.
    assert searching_all(tmp_path, thin) == thin
    (tmp_path / "stage0.xml").write_text(stage([n for n in range(len(every)) if n not in set(numbers)][:3]))
    assert searching_all(tmp_path, thin) == whole
    # What fits no pool is refused, whichever is searched.
    (tmp_path / "stage0.xml").write_text(stage([len(every)]))
    with pytest.raises(InputError, match="feature indexes 0 to"):
        read_run(tmp_path, searching_all(tmp_path, thin))


def _rows(features):
    return zip(features.rects, features.weights, features.tilted, strict=True)


def test_opencvs_buffers_bound_the_memory():
    from vj.cli._opencv_options import parse
    from vj.cli.traincascade import _config

    def memory(line):
        return _config(parse("", OPTIONS, f"-data a -vec b -bg c {line}".split(), ""), {})[0].memory_mb

    base = memory("-precalcValBufSize 1")
    assert memory("-precalcValBufSize 512 -precalcIdxBufSize 256") - base == pytest.approx(767, abs=20)
    assert memory("") - base == pytest.approx(2047, abs=20)
    assert memory("-w 80 -h 40 -numPos 10000 -precalcValBufSize 1") > base + 50
