"""Positives' own images as backgrounds: no negative may touch a labelled object."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage import data

import vj
from vj.boosting.annotated import annotated_backgrounds, backgrounds_of, overlap
from vj.boosting.masking import MaskedImage
from vj.boosting.mining import Miner
from vj.boosting.recipe import ANNOTATED, PositiveSource, TrainingConfig
from vj.boosting.run import Training
from vj.boosting.workers import Workers
from vj.cli.train import main
from vj.datasets.backgrounds import Backgrounds
from vj.errors import InputError
from vj.evaluation.matching import overlaps
from vj.scanning.pyramid import levels

WINDOW = (12, 10)
# Fractions, edges on pixels, overhanging, all of one corner, and one that is nothing.
BOXES = np.array([[30.5, 20.25, 40.5, 33.0], [100, 60, 24, 20], [-5, 70, 20, 40], [120, -3, 60, 30], [50, 80, 0, 0]])


def _marked(width=140, height=110):
    """An image of contrast everywhere: bright where a box covers a pixel or a part of it, dark elsewhere."""
    image = np.random.default_rng(0).integers(0, 100, (height, width)).astype(np.uint8)
    for x, y, w, h in BOXES:
        left, top = max(int(np.floor(x)), 0), max(int(np.floor(y)), 0)
        right, bottom = max(int(np.ceil(x + w)), 0), max(int(np.ceil(y + h)), 0)
        image[top:bottom, left:right] += 155
    return image


class AllPass:
    """In place of a cascade's scan: every window passes, so that nothing but the mask keeps one out."""

    class cascade:
        has_tilted = False

    def scan(self, planes, rows, columns, skip):
        ys, xs = np.divmod(np.arange(rows * columns), columns)

        class Result:
            windows = rows * columns

        Result.xs, Result.ys = xs, ys
        return Result


def _miner(backgrounds, threads=2):
    return Miner(backgrounds, WINDOW, Workers(threads), seed=3, scale_factor=1.3, lbp=False)


def test_windows_that_are_forbidden_are_those_that_touch_a_box():
    image = MaskedImage(_marked(), BOXES)
    for level in levels((140, 110), WINDOW, 1.3, stride=1):
        forbidden = image.forbidden(level)
        sx, sy = 140 / level.size[0], 110 / level.size[1]
        for y, x in np.ndindex(forbidden.shape):
            x0, y0, x1, y1 = x * sx, y * sy, (x + WINDOW[0]) * sx, (y + WINDOW[1]) * sy
            touching = any(
                x0 < bx + bw - 1e-9 and x1 > bx + 1e-9 and y0 < by + bh - 1e-9 and y1 > by + 1e-9
                for bx, by, bw, bh in BOXES
            )
            assert forbidden[y, x] or not touching
            # Rounded outwards, by less than a pixel of the level.
            near = any(
                x0 < bx + bw + sx and x1 > bx - sx and y0 < by + bh + sy and y1 > by - sy for bx, by, bw, bh in BOXES
            )
            assert near or not forbidden[y, x]


def test_windows_may_overlap_boxes_up_to_a_limit():
    image = MaskedImage(_marked(), BOXES, overlap=0.25)
    some = 0
    for level in levels((140, 110), WINDOW, 1.3, stride=1):
        forbidden = image.forbidden(level)
        scale = np.array([140 / level.size[0], 110 / level.size[1]])
        for y, x in np.ndindex(forbidden.shape):
            window = np.concatenate([np.array([x, y]) * scale, np.array(WINDOW) * scale])
            expected = (overlaps(window[None], BOXES) > 0.25 + 1e-9).any()
            assert forbidden[y, x] == expected
        some += np.count_nonzero(forbidden) < np.count_nonzero(MaskedImage(_marked(), BOXES).forbidden(level))
    assert some > 1
    assert image.mirrored().part(3, 4, 90, 80).resized((60, 60)).overlap == 0.25


def test_no_window_shows_a_pixel_of_a_box_at_any_scale_in_any_pass(monkeypatch):
    """Judged by the pixels alone: boxes are bright, all else is dark, and mirrored and shrunk passes keep that."""
    monkeypatch.setattr("vj.boosting.mining.Scanner", lambda cascade: AllPass())
    for cascade, wanted in ((None, 3000), (object(), 60_000)):
        for boxes, bright in ((BOXES, False), (np.zeros((0, 4)), True)):
            found = _miner(Backgrounds([_marked()], {0: boxes})).mine(cascade, wanted, 1e-9)
            windows = found.windows
            assert len(windows) > 1000
            # Bilinear samples at the edge of a window may lean on the next pixel of the image: the inner ones may not.
            assert (windows[:, 1:-1, 1:-1].max() > 110) == bright
            assert found.hits <= found.scanned


def test_mining_of_masked_images_is_the_same_on_more_threads_and_after_a_stop(monkeypatch):
    monkeypatch.setattr("vj.boosting.mining.Scanner", lambda cascade: AllPass())
    backgrounds = Backgrounds([_marked(), _marked(120, 90), np.ascontiguousarray(data.gravel()[:90, :80])], {0: BOXES})

    class Stop(Exception):
        pass

    whole = _miner(backgrounds).mine(object(), 60_000, 0.1)
    seen = []

    def note(harvest):
        seen.append(replace(harvest, parts=list(harvest.parts), unreadable=dict(harvest.unreadable)))
        if len(seen) == 2:
            raise Stop

    with pytest.raises(Stop):
        _miner(backgrounds, 1).mine(object(), 60_000, 0.1, progress=note)
    resumed = _miner(backgrounds, 3).mine(object(), 60_000, 0.1, seen[-1])
    assert np.array_equal(resumed.windows, whole.windows)
    assert (resumed.scanned, resumed.hits) == (whole.scanned, whole.hits)


def test_objects_are_not_counted_as_background():
    cascade = vj.load("frontalface")
    astronaut = np.ascontiguousarray(data.astronaut()[:200, 100:350])

    def count(boxes):
        miner = Miner(Backgrounds([astronaut], boxes), cascade.window, Workers(2), seed=1, scale_factor=1.2, lbp=False)
        return miner.count(cascade, 10**9, (0, 10**9))

    scanned, reached = count({})
    assert reached[-1] > 0
    # A box that touches no window changes nothing, whichever way windows are counted.
    outside = count({0: np.array([[-50.0, -50, 10, 10]])})
    assert outside[0] == scanned
    assert outside[1].tolist() == reached.tolist()
    masked = count({0: np.array([[75.0, 65, 100, 120]])})
    assert 0 < masked[0] < scanned
    assert masked[1][-1] < reached[-1] / 4
    assert (masked[1] <= reached).all()


# --- labelled images --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Six photos with faces pasted in, labelled as two classes in COCO: the second class is background."""
    folder = tmp_path_factory.mktemp("labelled")
    faces = np.rint(data.lfw_subset() * 255).astype(np.uint8)
    photos = [np.atleast_3d(getattr(data, name)())[:, :, 0] for name in ("coffee", "gravel", "rocket")]
    images, annotations = [], []
    for k in range(6):
        image = photos[k % 3][:180, :240].copy()
        for j in range(16):
            x, y = 10 + 55 * (j % 4), 5 + 42 * (j // 4)
            image[y : y + 25, x : x + 25] = faces[16 * k + j]
            kind = 2 if j == 15 else 1
            crowd = int(j == 14)
            annotations.append({"image_id": k, "category_id": kind, "bbox": [x, y, 25, 25], "iscrowd": crowd})
        cv2.imwrite(str(folder / f"{k}.png"), image)
        images.append({"id": k, "file_name": f"{k}.png"})
    images.append({"id": 6, "file_name": "empty.png"})
    cv2.imwrite(str(folder / "empty.png"), photos[0][180:300, :200])
    table = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (folder / "labels.json").write_text(json.dumps(table))
    return folder


def _arguments(folder, out, *more):
    settings = ["--window", "12x12", "--stages", "2", "--max-weak-count", "6", "--min-hit-rate", "0.9"]
    samples = ["--positives-per-stage", "60", "--negatives-per-stage", "150", "--class", "a"]
    return ["--positives", str(folder / "labels.json"), "--output", str(out), *settings, *samples, *more]


def test_which_boxes_are_masked(labelled):
    source = PositiveSource(str(labelled / "labels.json"), classes=("a",), min_size=30)
    found = annotated_backgrounds([source, source])
    assert [found.name(k) for k in range(7)] == [str(labelled / f"{k}.png") for k in range(6)] + [
        str(labelled / "empty.png")
    ]
    # Of class a those that are too small to be positives and the crowd as well; not the one of class b.
    assert len(np.unique(found.boxes(0), axis=0)) == 15
    assert len(found.boxes(6)) == 0
    with pytest.raises(InputError, match="expected positives in labelled images for backgrounds 'annotated'"):
        annotated_backgrounds([PositiveSource("skimage:faces")])


def test_rows_that_where_leaves_out_are_masked_too(tmp_path):
    cv2.imwrite(str(tmp_path / "i.png"), data.gravel()[:90, :90])
    (tmp_path / "b.csv").write_text("file,x,y,w,h,frontal\ni.png,1,2,30,30,1\ni.png,50,50,30,30,0\n")
    source = PositiveSource(str(tmp_path / "b.csv"), where={"frontal": "1"})
    assert annotated_backgrounds([source]).boxes(0).tolist() == [[1, 2, 30, 30], [50, 50, 30, 30]]


def test_annotated_is_kept_as_it_is_in_recipes_and_mixes_with_places(labelled, tmp_path):
    cv2.imwrite(str(tmp_path / "more.png"), data.brick()[:60, :60])
    (tmp_path / "r.toml").write_text(
        f'backgrounds = ["more.png", "annotated"]\npositives = [{{path = "{labelled}/labels.json", classes = ["a"]}}]\n'
    )
    config = TrainingConfig.from_toml(tmp_path / "r.toml")
    assert config.backgrounds == (str(tmp_path / "more.png"), ANNOTATED)
    (tmp_path / "again.toml").write_text(config.to_toml())
    assert TrainingConfig.from_toml(tmp_path / "again.toml") == config
    found = backgrounds_of(config)
    assert len(found) == 8
    assert [len(found.boxes(k)) for k in range(8)] == [0, *[15] * 6, 0]


def test_annotated_backgrounds_of_other_images(labelled, tmp_path):
    (tmp_path / "r.toml").write_text('backgrounds = "annotated:{data}/labels.json"\npositives = "faces"\n')
    config = TrainingConfig.from_toml(tmp_path / "r.toml", data=str(labelled))
    assert config.backgrounds == (f"annotated:{labelled / 'labels.json'}",)
    (tmp_path / "again.toml").write_text(config.to_toml())
    assert TrainingConfig.from_toml(tmp_path / "again.toml") == config
    found = backgrounds_of(config)
    assert len(found) == 7
    assert len(found.boxes(0)) > 15
    with pytest.raises(InputError, match=r"none\.csv"):
        backgrounds_of(TrainingConfig.from_mapping({"backgrounds": ["annotated:none.csv"], "positives": "faces"}))


def test_a_run_on_annotated_backgrounds(labelled, tmp_path, capsys, monkeypatch):
    seen = []
    original = Miner._visit

    def visit(self, scanner, job):
        result = original(self, scanner, job)
        seen.append(result.windows)
        return result

    monkeypatch.setattr(Miner, "_visit", visit)
    assert main(_arguments(labelled, tmp_path / "out", "--backgrounds", "annotated")) == 0
    told = capsys.readouterr().err
    assert "images of positives" not in told
    assert vj.load(tmp_path / "out/cascade.xml").n_stages == 2
    assert sum(map(len, seen)) > 150
    # It resumes; with other boxes it is another run.
    assert main(_arguments(labelled, tmp_path / "out", "--backgrounds", "annotated", "--quiet")) == 0
    labels = json.loads((labelled / "labels.json").read_text())
    crowd = next(one for one in labels["annotations"] if one["iscrowd"])
    crowd["bbox"][2] += 1
    (labelled / "other.json").write_text(json.dumps(labels))
    arguments = _arguments(labelled, tmp_path / "out", "--backgrounds", "annotated", "--quiet")
    (labelled / "labels.json").write_text(json.dumps(labels))
    assert main(arguments) == 2
    assert "backgrounds: other images" in capsys.readouterr().err


def test_images_in_both_lists_are_named(labelled, tmp_path, capsys):
    """Whatever path leads to them."""
    (tmp_path / "link").symlink_to(labelled)
    arguments = _arguments(labelled, tmp_path / "out", "--backgrounds", str(tmp_path / "link"), "--stages", "1")
    assert main(arguments) == 0
    told = capsys.readouterr().err
    assert "6 backgrounds are images of positives" in told
    assert f"the first: {tmp_path / 'link/0.png'}" in told
    assert "'annotated'" in told
    both = Backgrounds([labelled / "0.png", "missing.png", data.brick()], {})
    assert overlap([str(labelled / "0.png"), "", "missing.png"], both) == [str(labelled / "0.png")]


def test_positives_as_arrays_have_no_annotated_images():
    faces = np.rint(data.lfw_subset()[:60] * 255).astype(np.uint8)
    training = Training(positives=faces, backgrounds="annotated", window="12x12")
    with pytest.raises(InputError, match="labelled images"):
        list(training)
