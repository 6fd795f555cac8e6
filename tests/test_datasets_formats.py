"""The same three faces in two images, written by hand in every format, must come out the same."""

import json

import numpy as np
import pytest

from vj.datasets.backgrounds import find_backgrounds
from vj.datasets.formats import FORMATS, read_labelled
from vj.datasets.opencv_samples import parse_info_line
from vj.datasets.reading import existing, number
from vj.errors import InputError
from vj.images import write_image

BOXES = {"a.png": [[10, 20, 30, 40], [60, 10, 20, 20]], "b.png": [[0, 0, 50, 50]], "none.png": []}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in BOXES:
        write_image(tmp_path / "images" / name, np.zeros((80, 100), np.uint8))
    return tmp_path


def _check(labelled, folder, names=tuple(BOXES), tolerance=1e-6):
    assert sorted(p.path.name for p in labelled) == sorted(names)
    for one in labelled:
        assert one.path.resolve() == (folder / "images" / one.path.name).resolve()
        assert one.path.is_file()
        expected = np.array(BOXES[one.path.name], float).reshape(-1, 4)
        assert one.boxes.shape == expected.shape
        assert one.boxes == pytest.approx(expected, abs=tolerance)
    return {p.path.name: p for p in labelled}


def _write(path, text):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    return path


def test_annotations(folder):
    rows = [{"file": f"images/{name}", "faces": [{"bbox": b} for b in boxes]} for name, boxes in BOXES.items()]
    _write(folder / "annotations.json", json.dumps(rows))
    _check(read_labelled(folder), folder)
    _check(read_labelled(folder / "annotations.json"), folder)


def test_coco(folder):
    table = {"images": [{"id": k, "file_name": n} for k, n in enumerate(BOXES)], "annotations": []}
    for k, boxes in enumerate(BOXES.values()):
        table["annotations"] += [{"image_id": k, "bbox": b, "iscrowd": int(b[0] == 60)} for b in boxes]
    found = _check(read_labelled(_write(folder / "faces.json", json.dumps(table))), folder)
    assert found["a.png"].ignored.tolist() == [False, True]


def test_voc(folder):
    for name, boxes in BOXES.items():
        objects = "".join(
            f"<object><name>face</name><difficult>{int(x == 60)}</difficult><bndbox><xmin>{x + 1}</xmin>"
            f"<ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
            for x, y, w, h in boxes
        )
        _write(
            folder / "Annotations" / f"{name[:-4]}.xml",
            f"<annotation><filename>{name}</filename>{objects}</annotation>",
        )
    found = _check(read_labelled(folder), folder)
    assert found["a.png"].ignored.tolist() == [False, True]


def test_yolo(folder):
    for name, boxes in BOXES.items():
        lines = [f"0 {(x + w / 2) / 100} {(y + h / 2) / 80} {w / 100} {h / 80}" for x, y, w, h in boxes]
        if lines:
            _write(folder / "labels" / f"{name[:-4]}.txt", "\n".join(lines))
    _check(read_labelled(folder), folder)


def test_csv(folder):
    lines = [",".join(map(str, [name, *box])) for name, boxes in BOXES.items() for box in boxes or [["", "", "", ""]]]
    _check(read_labelled(_write(folder / "boxes.csv", "file,x,y,w,h\n" + "\n".join(lines))), folder)


def test_wider(folder):
    codes = {10: "2 0 0 0 1 1", 60: "0 0 0 1 0 0", 0: "0 0 0 0 0 0"}
    text = ""
    for name, boxes in BOXES.items():
        rows = [" ".join(map(str, box)) + " " + codes[box[0]] for box in boxes]
        text += f"{name}\n{len(boxes)}\n" + "\n".join(rows or ["0 0 0 0 0 0 0 0 0 0"]) + "\n"
    found = _check(read_labelled(_write(folder / "wider.txt", text)), folder)
    a = found["a.png"].attributes
    assert (a["blur"].tolist(), a["pose"].tolist(), a["invalid"].tolist()) == ([2, 0], [1, 0], [0, 1])


def test_fddb(folder):
    """Ellipses with level axes: the box around them is theirs; FDDB leaves the ending away."""
    text = ""
    for name, boxes in BOXES.items():
        rows = [f"{h / 2} {w / 2} 1.5707963267948966 {x + w / 2} {y + h / 2}  1" for x, y, w, h in boxes]
        text += f"{name}\n{len(boxes)}\n" + "".join(row + "\n" for row in rows)
    found = _check(read_labelled(_write(folder / "fold-ellipseList.txt", text)), folder)
    assert found["a.png"].ellipses.shape == (2, 5)
    short = _write(folder / "short.txt", "2002/07/img\n1\n20 15 0.1 50 50 1\n")
    assert read_labelled(short, "fddb")[0].path.name == "img.jpg"


def test_mitcmu(folder):
    """Eyes 40 apart, mouth 30 below: u = 40, so the square is 106.4 wide and centred 12.2 below the eyes."""
    line = "a.png 30 30 70 30 50 45 40 60 50 60 60 60"
    (one,) = read_labelled(_write(folder / "groundtruth.txt", line + "\n"))
    assert one.path == folder / "images" / "a.png"
    assert one.boxes == pytest.approx(np.array([[50 - 53.2, 30 + 12.2 - 53.2, 106.4, 106.4]]))


def test_images_may_lie_elsewhere(folder):
    source = _write(folder / "far" / "away" / "boxes.csv", "file,x,y,w,h\nb.png,0,0,50,50\n")
    (one,) = read_labelled(source, images=folder / "images")
    assert one.path == folder / "images" / "b.png"


BAD = [
    ("coco", '{"images": 3}', "expected 'images' and 'annotations'"),
    (
        "coco",
        '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": [1]}]}',
        "annotation 0",
    ),
    ("coco", '{"images": [{"id": 1, "file_name": "../a"}], "annotations": []}', "expected an image below"),
    ("voc", "<annotation><filename>a</filename>", "expected Pascal VOC XML"),
    ("voc", "<svg/>", "expected an <annotation>"),
    ("voc", '<!DOCTYPE a [<!ENTITY b "c">]><annotation><filename>&b;</filename></annotation>', "Pascal VOC XML"),
    ("voc", "<annotation><filename>a</filename><object/></annotation>", "object 0: expected xmin, ymin, xmax, ymax"),
    ("csv", "name,x\n", "expected the columns file, x, y, w, h or"),
    ("csv", "file,x,y,w,h\na.png,1,2,3,four\n", "line 2: expected x, y, w, h as 4 numbers"),
    ("wider", "a.png\n3\n1 2 3 4 0 0 0 0 0 0\n", "expected 3 lines of faces, got 1"),
    ("wider", "a.png\nmany\n", "expected a number of faces, got 'many'"),
    ("wider", "a.png\n1\n1 2 3\n", "expected a face as 10 numbers"),
    ("fddb", "a\n1\n20 15 nan 50 50 1\n", "expected a face as 5 numbers"),
    ("mitcmu", "a.png 1 2 3\n", "line 1: expected six landmarks as 12 numbers"),
    ("csv", "file,x,y,w,h\n", "expected labelled images, got none"),
    ("tfrecord", "", "expected one of the formats"),
]


@pytest.mark.parametrize(("kind", "text", "message"), BAD)
def test_other_content_is_refused_in_one_line(tmp_path, kind, text, message):
    path = _write(tmp_path / "labels.any", text)
    with pytest.raises(InputError) as caught:
        read_labelled(path, kind)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in ("annotations", "coco")])
def test_bytes_that_are_no_text_are_refused(tmp_path, kind):
    path = tmp_path / ("labels" if kind == "yolo" else "labels.any")
    if kind == "yolo":
        path.mkdir()
        write_image(tmp_path / "a.png", np.zeros((9, 9), np.uint8))
        (path / "a.txt").write_bytes(b"\xff\xfe\x00\xd8")
        path = tmp_path
    else:
        path.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match="expected"):
        read_labelled(path, kind)


def test_what_cannot_be_told_apart_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="--format"):
        read_labelled(_write(tmp_path / "labels.txt", "one two three\n"))
    with pytest.raises(InputError, match="got none of them"):
        read_labelled(tmp_path)
    with pytest.raises(InputError, match="nothing there"):
        read_labelled(tmp_path / "missing")


GOOD = {
    "annotations": '[{"file": "a.png", "faces": [{"bbox": [1, 2, 3, 4], "blur": 1, "ellipse": [1, 2, 3, 4, 5]}]}]',
    "coco": '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}',
    "voc": "<annotation><filename>a</filename><object><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax>"
    "</bndbox></object></annotation>",
    "csv": "file,x,y,w,h\na.png,1,2,3,4\nb.png,,,,\n",
    "wider": "a.jpg\n1\n1 2 30 40 1 0 0 0 2 1\nb.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n",
    "fddb": "a/b\n1\n20 15 0.1 50 50 1\n",
    "mitcmu": "a.png 30 30 70 30 50 45 40 60 50 60 60 60\n",
}
TOKENS = [
    "",
    "-1",
    "nan",
    "inf",
    "1e400",
    "9" * 20,
    '"',
    "{",
    "]",
    "null",
    "\0",
    "..",
    "/",
    "<",
    "&#0;",
    "\n",
    "²",
    "٣",
]


@pytest.mark.parametrize("kind", GOOD)
def test_a_corrupt_file_is_read_or_refused_but_never_crashes(tmp_path, kind):
    rng = np.random.default_rng(0)
    path = tmp_path / "labels.any"
    refused = 0
    for _ in range(300):
        text = GOOD[kind]
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(text) + 1))
            text = text[:at] + TOKENS[rng.integers(len(TOKENS))] + text[at + int(rng.integers(6)) :]
        path.write_text(text)
        try:
            read_labelled(path, kind)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


def test_classes_are_chosen_and_several_are_not_mixed(folder):
    table = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "bbox": [0, 0, k, k], "category_id": min(k, 2)} for k in (1, 2, 3)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    coco = _write(folder / "pets.json", json.dumps(table))
    rows = "".join(f"a.png,0,0,{k},{k},{'cat' if k == 1 else 'dog'}\n" for k in (1, 2, 3))
    csv = _write(folder / "pets.csv", "filename,xmin,ymin,xmax,ymax,class\n" + rows)
    for path in (coco, csv):
        with pytest.raises(InputError, match=r"several classes: cat \(1\), dog \(2\)"):
            read_labelled(path)
        with pytest.raises(InputError, match=r"expected one of the classes .* got 'cow'"):
            read_labelled(path, classes=["cow"])
        (image,) = read_labelled(path, classes=["dog"])
        assert (image.classes, image.boxes[:, 2].tolist()) == (("dog", "dog"), [2, 3])
    with pytest.raises(InputError, match="expected a CSV file for --where name=dog"):
        read_labelled(coco, where={"name": "dog"})


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("voc", '<?xml version="1.0" encoding="cp99999"?><annotation/>'),
        ("voc", '<?xml version="1.0" encoding="utf-7"?><annotation/>'),
        ("coco", '{"images": [{"id": [1], "file_name": "a"}], "annotations": []}'),
        ("coco", '{"images": [], "annotations": [' + "9" * 4400 + "]}"),
        ("csv", "file,x,y,w,h\na.png,1,2,3," + "4" * 200_000),
        ("csv", "file,x,y,w,h\na.png,1,2,3,inf\n"),
        ("csv", "file,x,y,w,h\na.png,1,2,3,1e300\n"),
        ("info", "a.png " + "9" * 5000 + " 1 2 3 4\n"),
        ("wider", "a.png\n" + "9" * 5000 + "\n"),
    ],
)
def test_odd_values_are_refused_in_one_line(tmp_path, kind, text):
    path = _write(tmp_path / "labels.any", text)
    with pytest.raises(InputError, match="expected") as caught:
        read_labelled(path, kind)
    assert "\n" not in str(caught.value)


def test_short_rows_match_no_range(tmp_path):
    path = _write(tmp_path / "a.csv", "file,x,y,w,h,yaw\na.png,1,2,3,4,0\nb.png,1,2\n")
    assert [image.path.name for image in read_labelled(path, where={"yaw": "-1..1"})] == ["a.png"]


def test_mitcmu_as_published(folder):
    """A comment first, and images kept under another ending than the list names."""
    text = "#filename left-eye right-eye nose left-corner-mouth center-mouth right-corner-mouth\n"
    (image,) = read_labelled(_write(folder / "list.txt", text + "a.gif 30 30 70 30 50 45 40 60 50 60 60 60\n"))
    assert image.path == folder / "images" / "a.png"


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\0b"])
def test_names_that_no_file_can_have_are_images_that_are_missing_or_refused(folder, name):
    """The next reader of the image says that it is missing; asking for it must not raise what nobody expects."""
    _write(folder / "info.dat", f"{name} 1 1 2 3 4\n")
    _write(folder / "Annotations" / "a.xml", f"<annotation><filename>{'x' * 300}</filename></annotation>")
    _write(folder / "bg.txt", f"{'x' * 300}\n")
    try:
        (image,) = read_labelled(folder / "info.dat", "info")
        assert image.path == folder / name
    except InputError:
        assert "\0" in name
    assert read_labelled(folder / "Annotations")[0].path.name == "x" * 300
    assert find_backgrounds([str(folder / "bg.txt")]).items == [str(folder / ("x" * 300))]


def test_an_xml_file_of_megabytes_is_no_annotation_of_one_image(folder):
    _write(folder / "Annotations" / "a.xml", "<annotation>" + "<a/>" * (1 << 20) + "</annotation>")
    with pytest.raises(InputError, match="at most 4194304 bytes"):
        read_labelled(folder / "Annotations")


def slow_info_line(words):
    """What the reader's one pass must find, tried from every place."""
    for at in range(1, len(words)):
        rest = words[at + 1 :]
        if words[at].isdecimal() and len(rest) == 4 * int(words[at]) and all(number(word) is not None for word in rest):
            return " ".join(words[:at]), rest
    return None


def test_info_lines_of_any_words_are_split_as_by_trying_every_place():
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(4000):
        words = [str(word) for word in rng.choice(["0", "1", "2", "-3", "a", "1.5", "b.png"], rng.integers(0, 9))]
        expected = slow_info_line(words)
        assert parse_info_line(words) == expected, words
        found += expected is not None
    assert found > 300


def test_a_line_of_a_million_words_is_read_in_one_pass():
    """Trying every place took more than a minute for a tenth of it; a quadratic reader would not end here."""
    words = ["a.png", *["2", "10", "12", "30", "38", "1", "2", "8", "9"] * 100_000, "x"]
    assert parse_info_line(words) is None
    name, boxes = parse_info_line([*words, str(100_000), *["1"] * 400_000])
    assert len(boxes) == 400_000 and name.endswith("9 x")


@pytest.mark.parametrize("ending", [".jpg", ".PNG", ".tiff"])
def test_images_of_another_ending_are_found(tmp_path, ending):
    (tmp_path / f"a.b{ending}").write_bytes(b"x")
    assert existing(tmp_path / "a.b.gif") == tmp_path / f"a.b{ending}"
    assert existing(tmp_path / "a.b") == tmp_path / f"a.b{ending}"
    assert existing(tmp_path / "a") == tmp_path / "a"


def test_a_yaml_file_of_a_megabyte_is_no_list_of_names(folder):
    _write(folder / "data.yaml", "names:\n" + "".join(f"  {k}: face\n" for k in range(100_000)))
    _write(folder / "labels" / "a.txt", "0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(InputError, match="at most 131072 bytes"):
        read_labelled(folder)
