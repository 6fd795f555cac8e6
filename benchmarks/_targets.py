"""What the robustness campaign attacks, and with what share of its inputs."""

from __future__ import annotations

import vj
from benchmarks import _attack_cascades, _attack_labels, _attack_runs
from benchmarks._cases import Target
from vj.cascade.opencv_xml import parse

TARGETS = {
    "cascades": Target(_attack_cascades.make_cascade, _attack_cascades.try_cascade, 0.25),
    "images": Target(_attack_cascades.make_image, _attack_cascades.try_image, 0.32),
    "labels": Target(_attack_labels.make_labels, _attack_labels.try_labels, 0.27),
    "recipes": Target(_attack_labels.make_recipe, _attack_labels.try_recipe, 0.10),
    "command lines": Target(_attack_runs.make_command, _attack_runs.try_command, 0.03),
    "checkpoints": Target(_attack_runs.make_checkpoint, _attack_runs.try_checkpoint, 0.03),
}


def make_seeds() -> None:
    """Make all that mutants are made of, and compile, once for all workers."""
    one, scenes = _attack_cascades, _attack_cascades.scenes()
    one.images(), _attack_labels.labels(), _attack_labels.recipes()
    _attack_runs.checkpoints(), _attack_runs.parsers(), _attack_runs.command_files()
    for data in one.cascades()[0]:
        cascade = parse(data)
        for stride in (1, 2):
            one.compare(cascade, scenes[0], stride)
        vj.Detector(cascade, threads=1, min_neighbors=1).detect(scenes[0])
    one.quick_detector().detect(scenes[0])
