"""What a notebook shows: well-formed, all of the figures, and no text from a file as markup."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from cascades import random_cascade
from pages import HOSTILE

import vj
from vj.boosting.progress import StageReport
from vj.boosting.recipe import TrainingConfig
from vj.boosting.run import TrainingResult

REPORT = StageReport(0, 7, 1.5, 0.995, 0.999, 0.4375, 900, 100, 1234, 567890, 0.25, 1.0, 2.5, HOSTILE)


def shown(thing):
    """The parsed HTML of an object: rows of its table, and all of its text."""
    root = ElementTree.fromstring(thing._repr_html_())
    rows = [[cell.text for cell in row] for row in root.iter("tr")]
    return root, rows, "".join(root.itertext())


def test_detections_are_a_table_with_the_columns_that_they_have():
    found = vj.Detections([[1, 2, 30, 40], [5, 6, 7, 8]], [0.5, -12.25], [3, 9])
    assert shown(found)[1] == [
        ["x", "y", "width", "height", "score", "neighbors"],
        ["1", "2", "30", "40", "0.5", "3"],
        ["5", "6", "7", "8", "-12.25", "9"],
    ]
    full = vj.Detections([[1, 2, 30, 40]], [0.5], [3], [0.75], [1])
    assert shown(full)[1][1][-2:] == ["0.75", "1"]
    assert shown(full)[2].startswith("1 detection")
    assert "0 detections" in shown(full[:0])[2]


def test_long_tables_are_cut_and_say_so():
    found = vj.Detections([[1, 2, 3, 4]] * 2345, [0] * 2345, [1] * 2345)
    _, rows, text = shown(found)
    assert len(rows) == 1 + 20 and "2,345 detections" in text and "and 2,325 more" in text


def test_a_cascade_says_what_it_is():
    cascade = replace(random_cascade(5, stages=25), name=HOSTILE, provenance={HOSTILE: HOSTILE})
    root, rows, text = shown(cascade)
    assert [int(row[1]) for row in rows[1:]] == cascade.stage_sizes[:20].tolist()
    assert text.count(HOSTILE) == 3 and "8x9 pixels" in text and "and 5 more" in text
    assert {one.tag for one in root.iter()} == {"div", "strong", "table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("result", [True, False])
def test_training_is_a_row_a_stage_with_the_notes(result):
    notes = ("ended early", HOSTILE)
    one = TrainingResult(random_cascade(5), (REPORT, replace(REPORT, index=1)), TrainingConfig(), notes)
    root, rows, text = shown(one if result else REPORT)
    assert rows[1] == ["1", "7", "0.9950", "0.9990", "0.4375", "1,234", "567,890", "2.5"]
    assert HOSTILE in text and not [*root.iter("img")]
    if result:
        assert "2 stages, 14 weak classifiers" in text and rows[2][0] == "2"


def test_a_training_that_has_not_begun_can_be_shown():
    training = vj.Training(positives=[np.zeros((32, 32), np.uint8)] * 4, backgrounds=[np.zeros((32, 32), np.uint8)])
    assert "0 stages" in shown(training)[2]
