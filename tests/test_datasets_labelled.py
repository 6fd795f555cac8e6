"""The project's own annotation file, and the rules that set faces aside."""

import json

import numpy as np
import pytest

from vj.datasets.annotations_json import read as read_annotations
from vj.datasets.annotations_json import write_annotations
from vj.datasets.labelled import (
    FRONTAL,
    LabelledImage,
    Wanted,
)
from vj.errors import InputError

FACE = {"bbox": [1, 2, 30, 40]}


def _write(folder, rows):
    path = folder / "annotations.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


def test_what_is_written_is_read(tmp_path):
    images = [
        LabelledImage(
            tmp_path / "images/a.jpg",
            np.array([[1, 2, 30, 40], [5.5, 6, 7, 8]]),
            attributes={"blur": np.array([0, 2]), "pose": np.array([1, 0])},
            ellipses=np.array([[20, 15, 0.5, 16, 22], [4, 3.5, 0.1, 9, 10]]),
            ignored=np.array([False, True]),
            classes=("face", "mask"),
        ),
        LabelledImage(tmp_path / "b.png", np.zeros((0, 4))),
    ]
    write_annotations(tmp_path / "annotations.json", images)
    for source in (tmp_path, tmp_path / "annotations.json"):
        back = read_annotations(source)
        assert [p.path for p in back] == [p.path for p in images]
        assert np.array_equal(back[0].boxes, images[0].boxes)
        assert np.array_equal(back[0].ellipses, images[0].ellipses)
        assert back[0].ignored.tolist() == [False, True]
        assert (back[0].classes, back[1].classes) == (("face", "mask"), ())
        assert {k: v.tolist() for k, v in back[0].attributes.items()} == {"blur": [0, 2], "pose": [1, 0]}
        assert len(back[1].boxes) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["annotations.json"]


def test_frontal_rule_of_wider_face(tmp_path):
    """One face for each rule that sets it aside, after two that are wanted."""
    fine = {"bbox": [0, 0, 20, 30], "blur": 1, "occlusion": 1, "pose": 0, "invalid": 0, "expression": 1}
    changes = [{}, {"blur": 0}, {"bbox": [0, 0, 99, 29]}, {"blur": 2}, {"occlusion": 2}, {"pose": 1}, {"invalid": 1}]
    _write(tmp_path, [{"file": "a.jpg", "faces": [fine | change for change in changes]}])
    (image,) = read_annotations(tmp_path)
    assert FRONTAL.ignored(image).tolist() == [False, False, True, True, True, True, True]
    assert Wanted().ignored(image).tolist() == [False] * 6 + [True]


def test_unknown_attributes_and_own_marks():
    image = LabelledImage("a", np.array([[0, 0, 50, 50], [0, 0, 50, 50], [0, 0, 0, 50]]), ignored=[False, True, False])
    assert FRONTAL.ignored(image).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("{", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ({"file": "a"}, "expected a list of images, got dict"),
        ([["a.jpg"]], "image 0: expected an object with 'file' and 'faces'"),
        ([{"file": "a.jpg", "faces": [1]}], "image 0: expected faces that are objects"),
        (
            [{"file": "a.jpg", "faces": [FACE]}, {"file": "b.jpg", "faces": [{}]}],
            "image 1: expected bbox as 4 numbers",
        ),
        ([{"file": "a.jpg", "faces": [{"bbox": [1, 2, 3]}]}], "expected bbox as 4 numbers"),
        ([{"file": "a.jpg", "faces": [{"bbox": [1, 2, 3, "4"]}]}], "expected bbox as 4 numbers"),
        ('[{"file": "a.jpg", "faces": [{"bbox": [1, 2, 3, NaN]}]}]', "expected bbox as 4 numbers"),
        ([{"file": "a.jpg", "faces": [{"bbox": [1, 2, -3, 4]}]}], "sizes of 0 or more"),
        ([{"file": "a.jpg", "faces": [FACE | {"ellipse": [1, 2]}]}], "expected ellipse as 5 numbers"),
        ([{"file": "../a.jpg", "faces": []}], "expected an image below"),
        ([{"file": "/etc/a.jpg", "faces": []}], "expected an image below"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, rows, message):
    path = _write(tmp_path, rows)
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json: expected a readable file"):
        read_annotations(tmp_path / "nowhere.json")


def test_images_outside_the_folder_are_not_written(tmp_path):
    with pytest.raises(InputError, match="expected images below"):
        write_annotations(tmp_path / "annotations.json", [LabelledImage("/elsewhere/a.jpg", np.zeros((0, 4)))])
    assert list(tmp_path.iterdir()) == []
