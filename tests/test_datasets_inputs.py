"""Positives and backgrounds: where they are found, what is cut out, what is refused."""

import json
import struct

import cv2
import numpy as np
import pytest

from vj.boosting.positives import load_positives
from vj.boosting.recipe import TrainingConfig
from vj.boosting.workers import Workers
from vj.datasets.backgrounds import find_backgrounds
from vj.datasets.crops import Region, cut, region_of_box, region_of_landmarks
from vj.datasets.formats import read_labelled
from vj.datasets.opencv_samples import read_info, read_vec
from vj.datasets.sheets import contact_sheet
from vj.errors import InputError

HEADER = "file,x,y,w,h,sq_x,sq_y,sq_size,leye_x,leye_y,reye_x,reye_y,lmouth_x,lmouth_y,rmouth_x,rmouth_y,frontal\n"


@pytest.fixture
def ramp():
    """An image whose grey level is a known function of the place: 2x + y."""
    y, x = np.mgrid[:60, :80]
    return (2 * x + y).astype(np.uint8)


def _load(workers=2, **table):
    pool = Workers(workers)
    try:
        return load_positives(TrainingConfig.from_mapping({"window": "10x10", "jitter": 0, **table}), pool)
    finally:
        pool.close()


def test_cut_samples_the_right_place(ramp):
    """Against the function itself: window pixel (i, j) is centred at x0 + (i + 0.5) * step."""
    for times in (1, 2, 3, 3.5):
        region = Region(40.0, 30.0, 10 * times, 10 * times)
        got = cut(ramp, region, (10, 10)).astype(float)
        step = (np.arange(10) + 0.5) * times
        expected = 2 * (40 - 5 * times + step - 0.5)[None, :] + (30 - 5 * times + step - 0.5)[:, None]
        assert np.abs(got - expected).max() <= 1.0


def test_cut_mirrors_and_turns(ramp):
    region = Region(41.0, 29.0, 20, 20)
    plain = cut(ramp, region, (10, 10)).astype(int)
    assert np.abs(cut(ramp, region, (10, 10), mirror=True) - plain[:, ::-1]).max() <= 1
    turned = cut(ramp, Region(41.0, 29.0, 20, 20, angle=90), (10, 10)).astype(int)
    # Turning the region clockwise turns what is in it the other way.
    assert np.abs(turned - np.rot90(plain)).max() <= 1


def test_cut_is_antialiased():
    """A pattern of single lines shrinks to its mean; taking every fourth pixel would give 0 or 255."""
    lines = np.tile(np.array([0, 255], np.uint8), (64, 32))
    got = cut(lines, Region(32, 32, 64, 64), (16, 16))
    assert np.abs(got.astype(int) - 127.5).max() <= 1


def test_cut_repeats_the_edge(ramp):
    got = cut(ramp, Region(0, 30, 20, 20), (20, 20))
    assert (got[:, :10] == got[:, :1]).all()


def test_boxes_grow_to_the_aspect_of_the_window():
    assert region_of_box((10, 20, 30, 30), (20, 20), 0.0) == Region(25, 35, 30, 30)
    assert region_of_box((10, 20, 30, 30), (10, 20), 0.1) == Region(25, 35, 36, 72)
    assert region_of_box((0, 0, 10, 40), (20, 20), 0.0) == Region(5, 20, 40, 40)


def test_boxes_may_shrink_or_stretch_instead(tmp_path, ramp):
    assert region_of_box((0, 0, 10, 40), (20, 20), 0.0, "shrink") == Region(5, 20, 10, 10)
    assert region_of_box((10, 20, 40, 20), (10, 20), 0.0, "shrink") == Region(30, 30, 10, 20)
    assert region_of_box((0, 0, 10, 40), (20, 20), 0.1, "stretch") == Region(5, 20, 12, 48)
    cv2.imwrite(str(tmp_path / "a.png"), ramp)
    (tmp_path / "info.dat").write_text("a.png 1 16 12 30 20\n")
    found = _load(positives=[{"path": str(tmp_path / "info.dat"), "aspect": "stretch"}])
    # Three pixels wide and two high make one: what opencv_createsamples cuts out, but for rounding.
    expected = cv2.resize(ramp[12:32, 16:46], (10, 10), interpolation=cv2.INTER_AREA)
    assert np.abs(found.windows[0].astype(int) - expected).max() <= 2


def test_landmarks_give_the_square_of_the_rule():
    face = np.array([[10, 20], [30, 20], [14, 40], [26, 40.0]])
    # The eyes are 20 apart, the mouth 20 below: u = 20.
    assert region_of_landmarks(face, (20, 20), 2.5, 0.3) == Region(20, 26, 50, 50)
    assert region_of_landmarks(face, (20, 20), 2.5, 0.3).box == (-5, 1, 50, 50)
    turned = np.array([[10, 20], [20, 20], [12, 40], [18, 40.0]])
    assert region_of_landmarks(turned, (20, 20), 2.0, 0.0) == Region(15, 20, 38, 38)
    with pytest.raises(InputError, match="landmarks"):
        region_of_landmarks(np.full((4, 2), np.nan), (20, 20), 2.0, 0.0)


def test_landmarks_of_a_tilted_face_give_a_square_straight_below_its_eyes():
    """A face on its side, u = 40: the square is centred 0.305 u below the middle of the eyes, not towards the mouth."""
    face = np.array([[50, 30], [50, 70], [20, 40], [20, 60.0]])
    assert region_of_landmarks(face, (20, 20)) == Region(50, 50 + 0.305 * 40, 106.4, 106.4)


def test_csv_rows_and_conditions(tmp_path, ramp):
    cv2.imwrite(str(tmp_path / "a.png"), ramp)
    row = "a.png,5,6,20,20,4,5,24,10,12,20,12,11,24,19,24,{}\n"
    (tmp_path / "boxes.csv").write_text(HEADER + row.format(1) + row.format(0))
    (image,) = read_labelled(tmp_path / "boxes.csv", where={"frontal": "1"})
    assert image.ignored.tolist() == [False, True]
    assert image.boxes.tolist() == [[5, 6, 20, 20]] * 2
    assert image.squares.tolist() == [[4, 5, 24, 24]] * 2
    assert image.landmarks[0].tolist() == [[10, 12], [20, 12], [11, 24], [19, 24]]
    source = {"path": str(tmp_path / "boxes.csv"), "where": {"frontal": 1}}
    for crop, region in (
        ("box", Region(15, 16, 20, 20)),
        ("square", Region(16, 17, 24, 24)),
        ("landmarks", Region(15, 12 + 0.305 * 11.4, 2.66 * 11.4, 2.66 * 11.4)),
    ):
        found = _load(positives=[{**source, "crop": crop}])
        assert np.array_equal(found.windows, cut(ramp, region, (10, 10))[None])


def test_csv_rows_in_a_range(tmp_path, ramp):
    rows = "".join(f"{k}.png,{k},6,20,20,{yaw}\n" for k, yaw in enumerate(("-0.6", "-0.5", "0", "0.5", "", "a..b")))
    (tmp_path / "boxes.csv").write_text("file,x,y,w,h,yaw\n" + rows)
    path = tmp_path / "boxes.csv"
    assert [image.boxes[0, 0] for image in read_labelled(path, where={"yaw": "-0.5..0.5"})] == [1, 2, 3]
    assert [image.boxes[0, 0] for image in read_labelled(path, where={"yaw": "a..b"})] == [5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,x,y,w\na,1,2,3\n", "expected the columns file, x, y, w, h"),
        ("file,x,y,w,h\n", "expected labelled images, got none"),
        ("file,x,y,w,h\na.png,1,2,three,4\n", "line 2: expected x, y, w, h as 4 numbers"),
        ("file,x,y,w,h\na.png,1,2\n", "line 2: expected x, y, w, h as 4 numbers"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_labelled(tmp_path / "boxes.csv")


def test_folder_of_crops_mirror_and_jitter(tmp_path, ramp):
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"{k}.png"), ramp[k : k + 30, :30])
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    found = _load(positives=str(tmp_path), mirror=True, jitter=4)
    assert found.windows.shape == (3 * 6, 10, 10)
    assert found.groups.tolist() == [g for g in range(3) for _ in range(6)]
    assert "1 positives could not be read" in found.notes[0] and "broken.jpg" in found.notes[0]
    assert np.abs(found.windows[1] - found.windows[0][:, ::-1].astype(int)).max() <= 1
    assert len(np.unique(found.windows[:6], axis=0)) == 6
    assert np.array_equal(found.windows, _load(1, positives=str(tmp_path), mirror=True, jitter=4).windows)
    assert not np.array_equal(found.windows, _load(positives=str(tmp_path), mirror=True, jitter=4, seed=2).windows)


def test_a_source_may_have_jittered_copies_of_its_own(tmp_path, ramp):
    for name in ("few", "many"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), ramp[:30, :30])
    many = {"path": str(tmp_path / "many"), "jitter": 5}
    found = _load(positives=[str(tmp_path / "few"), many], jitter=1)
    assert found.groups.tolist() == [0] * 2 + [1] * 6


def test_jittered_copies_are_resampled_as_the_detector_does(tmp_path):
    """Single lines shrink to their mean in an antialiased copy; the pyramid samples them, and sees stripes or not."""
    lines = np.tile(np.array([90, 160], np.uint8), (64, 32))
    cv2.imwrite(str(tmp_path / "a.png"), lines)
    settings = {"window": "20x20", "features": "lbp", "jitter": 8, "shift": 0.0, "scale": 0.0, "rotation": 0.0}
    smooth = _load(positives=str(tmp_path), detail=0.0, **settings).windows[1:]
    assert np.ptp(smooth.astype(int), axis=(1, 2)).max() <= 24
    coarse = _load(positives=str(tmp_path), **settings).windows[1:].astype(int)
    assert (np.ptp(coarse, axis=(1, 2)) > 40).any()
    # Every copy stays within what is in the image, and its mean stays the image's.
    assert coarse.min() >= 90 and coarse.max() <= 160
    assert np.abs(coarse.mean(axis=(1, 2)) - 125).max() < 15


def test_backgrounds_from_folders_patterns_and_lists(tmp_path, ramp, monkeypatch):
    (tmp_path / "deep/er").mkdir(parents=True)
    for name in ("b.png", "deep/a.jpg", "deep/er/c.bmp"):
        cv2.imwrite(str(tmp_path / name), ramp)
    (tmp_path / "notes.md").write_text("no image")
    names = lambda found: sorted(str(i)[len(str(tmp_path)) + 1 :] for i in found.items)  # noqa: E731
    assert names(find_backgrounds([str(tmp_path)])) == ["b.png", "deep/a.jpg", "deep/er/c.bmp"]
    assert names(find_backgrounds([f"{tmp_path}/deep/**/*.*"])) == ["deep/a.jpg", "deep/er/c.bmp"]
    (tmp_path / "bg.txt").write_text("# comment\n\nb.png\ndeep/er/c.bmp\nmissing.png\n")
    found = find_backgrounds([str(tmp_path / "bg.txt")])
    assert names(found) == ["b.png", "deep/er/c.bmp", "missing.png"]
    assert found[0].shape == (60, 80)
    with pytest.raises(InputError, match=r"missing\.png"):
        found[2]
    for bad in (str(tmp_path / "none"), str(tmp_path / "*.gif")):
        with pytest.raises(InputError, match="backgrounds"):
            find_backgrounds([bad])


def test_images_that_come_with_scikit_image():
    found = find_backgrounds(["skimage:backgrounds"])
    assert len(found) > 100
    assert all(found[k].ndim == 2 for k in (0, 5, len(found) - 1))
    assert _load(positives="skimage:faces", window="20x20").windows.shape == (100, 20, 20)


def test_info_file_with_spaces_in_names(tmp_path, ramp):
    cv2.imwrite(str(tmp_path / "a b 1.png"), ramp)
    (tmp_path / "info.dat").write_text("a b 1.png 2 1 2 20 20 30 10 24 30\n\n# no\nc.png 0\n")
    images = read_info(tmp_path / "info.dat")
    boxes = [(1, 2, 20, 20), (30, 10, 24, 30)]
    assert [image.path.name for image in images] == ["a b 1.png", "c.png"]
    assert [image.boxes.tolist() for image in images] == [[list(box) for box in boxes], []]
    found = _load(positives=str(tmp_path / "info.dat"))
    expected = [cut(ramp, region_of_box(box, (10, 10), 0.0), (10, 10)) for box in boxes]
    assert np.array_equal(found.windows, expected)
    assert len(_load(positives=[{"path": str(tmp_path / "info.dat"), "min_size": 22}]).windows) == 1
    for text in ("a.png 1 2 3 4\n", "a.png\n", "a.png 1 2 3 4 x\n", "# nothing\n", "a.png 1 0 0 -2 3\n"):
        (tmp_path / "info.dat").write_text(text)
        with pytest.raises(InputError, match="expected"):
            read_labelled(tmp_path / "info.dat")


def _vec(samples, count=None):
    """A .vec file as createsamples writes it: int32 count and size, two int16, then a zero byte and int16 pixels."""
    n, height, width = samples.shape
    header = struct.pack("<iihh", count or n, height * width, 0, 0)
    return header + b"".join(b"\0" + s.astype("<i2").tobytes() for s in samples)


def test_vec_file_whatever_its_header_says(tmp_path):
    samples = np.random.default_rng(0).integers(0, 256, (7, 12, 10)).astype(np.uint8)
    (tmp_path / "a.vec").write_bytes(_vec(samples, count=100))
    assert np.array_equal(read_vec(tmp_path / "a.vec", (10, 12)), samples)
    with pytest.raises(InputError, match="10x10 or square ones, got 120 pixels"):
        read_vec(tmp_path / "a.vec", (10, 10))
    (tmp_path / "b.vec").write_bytes(_vec(np.tile(samples[:, :10], (1, 2, 2))))
    assert read_vec(tmp_path / "b.vec", (10, 12)).shape == (7, 20, 20)
    assert np.array_equal(_load(positives=str(tmp_path / "a.vec"), window="10x12").windows, samples)
    for data in (b"", b"short", _vec(samples)[:50]):
        (tmp_path / "a.vec").write_bytes(data)
        with pytest.raises(InputError, match="expected"):
            read_vec(tmp_path / "a.vec", (10, 12))


def test_every_labelled_format_gives_the_same_crops(tmp_path, ramp):
    """One image with one box, said in each format."""
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), ramp)
    box = (16, 12, 24, 18)
    x, y, w, h = box
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "bbox": box, "id": 1, "category_id": 1}],
        "categories": [{"id": 1, "name": "face"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    (tmp_path / "annotations.json").write_text(json.dumps([{"file": "images/a.png", "faces": [{"bbox": box}]}]))
    (tmp_path / "wider.txt").write_text(f"a.png\n1\n{x} {y} {w} {h} 0 0 0 0 0 0\n")
    (tmp_path / "boxes.csv").write_text(f"file,x,y,w,h\nimages/a.png,{x},{y},{w},{h}\n")
    (tmp_path / "info.txt").write_text(f"images/a.png 1 {x} {y} {w} {h}\n")
    (tmp_path / "Annotations").mkdir()
    corners = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
    voc = f"<annotation><filename>a.png</filename><object><bndbox>{corners}</bndbox></object></annotation>"
    (tmp_path / "Annotations/a.xml").write_text(voc)
    height, width = ramp.shape
    (tmp_path / "labels").mkdir()
    shares = f"{(x + w / 2) / width!r} {(y + h / 2) / height!r} {w / width!r} {h / height!r}"
    (tmp_path / "labels/a.txt").write_text(f"0 {shares}\n")
    (tmp_path / "fddb.txt").write_text(f"images/a.png\n1\n{w / 2} {h / 2} 0 {x + w / 2} {y + h / 2} 1\n")
    expected = cut(ramp, region_of_box(box, (10, 10), 0.1), (10, 10))
    for name in ("", "Annotations"):
        found = _load(positives=[{"path": str(tmp_path / name), "format": "voc" if name else "yolo", "margin": 0.1}])
        assert np.array_equal(found.windows, expected[None]), name
    for name in ("coco.json", "annotations.json", "wider.txt", "boxes.csv", "info.txt", "fddb.txt"):
        found = _load(positives=[{"path": str(tmp_path / name), "margin": 0.1}])
        assert np.array_equal(found.windows, expected[None]), name
    found = _load(positives=[{"path": str(tmp_path / "coco.json"), "images": str(tmp_path / "images"), "margin": 0.1}])
    assert np.array_equal(found.windows, expected[None])
    with pytest.raises(InputError, match="nothing there"):
        _load(positives=str(tmp_path / "none.json"))


def test_contact_sheet_shows_every_window_where_it_belongs():
    windows = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 3, 4), np.uint8)
    sheet = contact_sheet(windows, columns=3, zoom=2)
    assert sheet.shape == (2 * 8 + 2, 3 * 10 + 2)
    for k in range(5):
        y, x = 2 + k // 3 * 8, 2 + k % 3 * 10
        assert (sheet[y : y + 6, x : x + 8] == k).all()
    assert (sheet == 255).sum() == sheet.size - 5 * 48


def _table_of_one(folder, ramp):
    """A folder with one image and one face; the eyes are 20 pixels apart at (30, 25) and (50, 25)."""
    cv2.imwrite(str(folder / "a.png"), ramp)
    (folder / "t.csv").write_text(HEADER + "a.png,20,10,40,40,20,10,40,30,25,50,25,32,45,48,45,1\n")
    return str(folder / "t.csv")


def test_a_source_may_be_flipped_and_centred_next_to_the_eyes(tmp_path, ramp):
    path = _table_of_one(tmp_path, ramp)
    source = {"path": path, "crop": "landmarks", "side": 1.0, "drop": 0.0, "offset": 0.5}
    found = {flip: _load(positives=[{**source, "flip": flip}]) for flip in (False, True)}
    # The middle of the eyes is at x = 40, u is 20: a square from x = 40 to 60 and y = 15 to 35, two pixels each.
    expected = 2 * (40 + 2 * np.arange(10) + 0.5)[None, :] + (15 + 2 * np.arange(10) + 0.5)[:, None]
    assert np.abs(found[False].windows[0] - expected).max() <= 1
    assert np.abs(found[True].windows[0].astype(int) - found[False].windows[0][:, ::-1]).max() <= 1


def test_a_source_may_turn_its_copies_further_than_the_run(tmp_path, ramp):
    path = _table_of_one(tmp_path, ramp)
    source = {"path": path, "jitter": 3, "crop": "landmarks"}
    still = {"shift": 0.0, "scale": 0.0, "detail": 0.0}
    pairs = ((30, 5), (-1, 30))
    own, run = (_load(positives=[{**source, "rotation": a}], rotation=b, **still).windows for a, b in pairs)
    assert np.array_equal(own, run)
    assert not np.array_equal(own, _load(positives=[source], rotation=5.0, **still).windows)


def test_a_face_named_by_two_sources_is_one_object(tmp_path, ramp):
    path = _table_of_one(tmp_path, ramp)
    clean = {"path": path, "crop": "landmarks"}
    found = _load(positives=[clean, {**clean, "jitter": 2, "thresholds": False}, {"path": path, "crop": "box"}])
    assert found.groups.tolist() == [0, 0, 0, 0, 2]
    assert found.boosted_only.tolist() == [False, True, True, True, False]
    kept = found.take(~found.boosted_only)
    assert (len(kept.windows), kept.groups.tolist(), kept.boosted_only.tolist()) == (2, [0, 2], [False, False])
