"""What a type checker of a program that uses the package sees; mypy checks this file, pytest runs it."""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import vj


def test_cascades_have_types(tmp_path: Path) -> None:
    cascade = assert_type(vj.load("frontalface"), vj.Cascade)
    assert_type(cascade.window, tuple[int, int])
    assert_type(cascade.features, vj.HaarFeatures | vj.LbpFeatures)
    assert_type(cascade.stage_thresholds, npt.NDArray[np.float32])
    assert_type(cascade.calibration, vj.ScoreCalibration | None)
    vj.save(cascade, tmp_path / "copy.xml")


def test_detections_have_types() -> None:
    detector = vj.Detector(vj.load("frontalface"), min_neighbors=2)
    found = assert_type(detector.detect(np.zeros((30, 30), np.uint8)), vj.Detections)
    assert_type(found.boxes, npt.NDArray[np.int32])
    assert_type(found[found.scores > 0], vj.Detections)
    assert_type(found.to_dicts(), list[dict[str, Any]])
    assert_type([one.score for one in found], list[float])
    assert_type([found[k] for k in range(len(found))], list[vj.Detection])


def test_training_has_types() -> None:
    blank = [np.zeros((32, 32), np.uint8)] * 4
    training = vj.Training(positives=blank, backgrounds=blank, window=(20, 20))
    assert_type(training.reports, tuple[vj.StageReport, ...])
    assert_type(training.config, vj.TrainingConfig)


def reports(training: vj.Training) -> list[float]:
    return [report.hit_rate for report in training]
