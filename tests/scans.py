"""Whole images scanned at their own scale."""

import numpy as np

from vj.scanning.planes import integral_planes, layout, resampling_axis


def whole(cascade, image, stride=1):
    """Planes of an image, and how many rows and columns of windows it has."""
    height, width = image.shape
    rows = max(0, (height - cascade.window[1]) // stride + 1)
    columns = max(0, (width - cascade.window[0]) // stride + 1)
    axes = resampling_axis(width, width), resampling_axis(height, height)
    shape = layout(width, stride, cascade.has_tilted)
    planes = integral_planes(np.ascontiguousarray(image), axes, (0, height), shape)
    return (planes, rows, columns) if rows and columns else (planes, 0, 0)


def scan(scanner, image, stride=1, skip=False):
    return scanner.scan(*whole(scanner.cascade, image, stride), skip)


def count(scanner, image, stride=1, skip=False):
    return scanner.count(*whole(scanner.cascade, image, stride), skip)


def depths(scanner, image, stride=1):
    """Depths and sums; see `Scanner.depths`."""
    return scanner.depths(*whole(scanner.cascade, image, stride))[:2]
