"""A look inside one cascade: what it is made of, where its time goes, and what the objects it finds look like."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vj._types import Gray
from vj.cascade.haar import HaarFeatures
from vj.cascade.model import Cascade

if TYPE_CHECKING:
    from vj.detector import Detector, WindowMap


def describe(cascade: Cascade) -> dict[str, Any]:
    """Return what a cascade is made of, as plain values.

    Returns
    -------
    dict
        name, kind, window, stages, weak_classifiers, nodes, features (different ones), depth (of its deepest tree),
        tilted_share (of its features), weak_per_stage, carried_per_stage (of these, from the stage before),
        stage_thresholds, provenance.
    """
    features = cascade.features
    used = np.unique(cascade.node_features)
    tilted = features.tilted[used] if isinstance(features, HaarFeatures) else np.zeros(len(used), dtype=np.bool_)
    return {
        "name": cascade.name,
        "kind": cascade.kind,
        "window": list(cascade.window),
        "stages": cascade.n_stages,
        "weak_classifiers": cascade.n_trees,
        "nodes": len(cascade.node_features),
        "features": len(used),
        "depth": int(cascade.node_depths.max()) + 1,
        "tilted_share": round(float(tilted.mean()), 4),
        "weak_per_stage": cascade.stage_sizes.tolist(),
        "carried_per_stage": cascade.carried.tolist(),
        "stage_thresholds": [round(float(v), 6) for v in cascade.stage_thresholds],
        "provenance": dict(cascade.provenance),
    }


def stage_seconds(
    cascade: Cascade, images: Sequence[Gray], *, repeats: int = 5, **settings: Any
) -> npt.NDArray[np.float64]:
    """Measure where the time goes: processor seconds that each stage adds to a scan, on one thread.

    Scans with the cascade cut off after 1, 2, ... stages, whose last one then lets nothing pass (collecting the hits of
    an early stage would cost more than the stage), in turn and repeatedly, and takes differences of the shortest times.
    The first stage's share therefore includes the pyramid. A late stage that few windows reach adds less than the
    noise: since one more stage cannot take less time, its share is then 0.

    Parameters
    ----------
    cascade : Cascade
    images : sequence of ndarray of uint8, shape (h, w)
    repeats : int
        Runs that each shortest time is taken over.
    **settings
        As for `vj.Detector`.

    Returns
    -------
    ndarray of float64, shape (n_stages,)
    """
    # Here and not above, so that describing a cascade does not wait for the compiler.
    from vj.detector import Detector

    cuts = [cascade.truncated(k) for k in range(1, cascade.n_stages + 1)]
    closed = [replace(c, stage_thresholds=np.append(c.stage_thresholds[:-1], np.float32(1e30))) for c in cuts]
    detectors = [Detector(one, **(settings | {"threads": 1})) for one in closed]
    # The first scan of all may compile.
    detectors[0].hits(images[0])
    times = np.full(len(detectors), np.inf)
    for _ in range(repeats):
        for k, detector in enumerate(detectors):
            # Processor time: a stage's share is smaller than what other programs take meanwhile.
            start = time.process_time()
            for gray in images:
                detector.hits(gray)
            times[k] = min(times[k], time.process_time() - start)
    # A cascade's time is also an upper bound for every shorter one.
    bounds = np.minimum.accumulate(times[::-1])[::-1]
    return np.diff(np.concatenate([[0.0], bounds]))


def mean_object(
    detector: Detector, images: Iterable[Gray], *, side: int = 96, limit: int = 500
) -> tuple[Gray | None, int]:
    """Average the objects that a detector finds.

    Parameters
    ----------
    detector : Detector
    images : iterable of ndarray of uint8, shape (h, w)
    side : int
        Longer side of the result in pixels.
    limit : int
        Most objects averaged.

    Returns
    -------
    mean : ndarray of uint8, shape (h, w), or None
        Of objects with their mean and contrast made equal; None if none was found.
    count : int
        Objects averaged.
    """
    import cv2

    width, height = detector.cascade.window
    scale = side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    total, count = np.zeros(size[::-1]), 0
    for gray in images:
        for x, y, w, h in detector.detect(gray).boxes[: limit - count].tolist():
            crop = cv2.resize(gray[y : y + h, x : x + w], size, interpolation=cv2.INTER_AREA).astype(np.float64)
            total += (crop - crop.mean()) / max(float(crop.std()), 1.0)
            count += 1
        if count >= limit:
            break
    if count == 0:
        return None, 0
    mean = total / count
    spread = max(float(np.ptp(mean)), 1e-9)
    return np.asarray(np.rint(255 * (mean - mean.min()) / spread), dtype=np.uint8), count


def deepest(shape: tuple[int, ...], maps: Sequence[WindowMap], zoom: float = 1.0) -> npt.NDArray[np.int16]:
    """Return the depth of the deepest window centred on each pixel of an image.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image.
    maps : sequence of WindowMap
        Of all scales, or of some.
    zoom : float
        Pixels of the result for each of the image, at most 1.

    Returns
    -------
    ndarray of int16, shape (h * zoom, w * zoom)
        Each window's depth is spread over the window's stride; -1 where no window is centred.
    """
    height, width = (max(1, round(side * zoom)) for side in shape[:2])
    out = np.full((height, width), -1, dtype=np.int16)
    for one in maps:
        scale, stride = one.scale * zoom, one.stride
        rows, columns = one.depth.shape
        centre_x = (np.arange(columns) * stride + one.window[0] / 2) * scale
        centre_y = (np.arange(rows) * stride + one.window[1] / 2) * scale
        reach = max(1, round(stride * scale))
        row, column = np.mgrid[0:rows, 0:columns]
        order = np.argsort(one.depth, axis=None)
        y = np.rint(centre_y[row.ravel()[order]] - reach / 2).astype(int)
        x = np.rint(centre_x[column.ravel()[order]] - reach / 2).astype(int)
        level = np.full((height, width), -1, dtype=np.int16)
        for dy in range(reach):
            for dx in range(reach):
                yy, xx = np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)
                # Assigned in order of depth: where two windows meet, the deeper one stays.
                level[yy, xx] = np.maximum(level[yy, xx], one.depth.ravel()[order])
        np.maximum(out, level, out=out)
    return out
