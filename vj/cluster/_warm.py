"""Kernels ready before the first image: what is loaded once need not be loaded by every worker."""

from __future__ import annotations

import numpy as np


def warm() -> None:
    """Load the kernels of the detector, compiled if need be, by one search of a small image."""
    import cv2

    from vj.cascade import stock
    from vj.cascade.opencv_xml import load
    from vj.detector import Detector

    # A worker has one thread; threads that OpenCV had started would not be there after a fork.
    cv2.setNumThreads(0)
    noise = np.random.default_rng(0).integers(0, 256, (120, 160), dtype=np.uint8)
    Detector(load(str(stock.find(stock.DEFAULT))), threads=1).detect(noise)
