"""vj: train, run and understand Viola-Jones cascades.

The public names:

Cascades
    `load` and `save` read and write OpenCV's files. A `Cascade` holds stages of weak classifiers on `HaarFeatures` or
    `LbpFeatures`, and where it has them the `ScoreCalibration` of its scores and `SoftThresholds` inside its stages.
Finding objects
    A `Detector` with its `Settings` finds `Detections` in an image, each of them a `Detection`. It also returns the
    `Hits` before they are grouped, a `WindowMap` of each scale, and the `Cost` of a scan. `Smoothing` holds the boxes
    of a video steady; `anonymize` blurs, pixelates or fills them.
Training
    `train` learns a cascade from a `TrainingConfig` and returns a `TrainingResult`; a `Training` does so stage by
    stage, with a `StageReport` for each. Positives come from a `PositiveSource` or as `Positives`. `Progress` says
    what a training is doing, a `Round` how far a stage is.
Coming from OpenCV
    `CascadeClassifier` and `groupRectangles` take the place of those of ``cv2``, as do the flags
    `CASCADE_DO_CANNY_PRUNING`, `CASCADE_DO_ROUGH_SEARCH`, `CASCADE_FIND_BIGGEST_OBJECT` and `CASCADE_SCALE_IMAGE`.
Errors
    `InputError` is raised for input that cannot be used.
"""

import lazy_loader

# Names are resolved when first used: `import vj` costs milliseconds and `--help` never waits for the compiler.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
