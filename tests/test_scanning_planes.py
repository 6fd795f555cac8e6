import cv2
import naive
import numpy as np
import pytest
import skimage.transform
from photos import gray

from vj.errors import InputError
from vj.scanning.planes import integral_images, integral_planes, layout, resampling_axis, resize, tilted_integral

SIZES = [(1, 1), (1, 9), (9, 1), (2, 2), (7, 5), (6, 13)]


def random_gray(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_sums_equal_their_naive_twins(size):
    image = random_gray(*size)
    sums, squares = integral_images(image)
    assert sums.tolist() == naive.integral(image)
    assert squares.tolist() == naive.integral(image, lambda p: p * p)
    assert tilted_integral(image).tolist() == naive.tilted_integral(image)


@pytest.mark.parametrize("size", [*SIZES, (64, 48), (331, 277)])
def test_sums_equal_opencv_and_scikit_image(size):
    image = random_gray(*size, seed=1)
    sums, squares = integral_images(image)
    theirs = cv2.integral3(image)
    np.testing.assert_array_equal(sums, theirs[0])
    np.testing.assert_array_equal(squares, theirs[1])
    np.testing.assert_array_equal(tilted_integral(image), theirs[2])
    np.testing.assert_array_equal(sums[1:, 1:], skimage.transform.integral_image(image.astype(np.int64)))


def test_squares_wrap_at_32_bits():
    image = np.full((300, 300), 255, dtype=np.uint8)
    _, squares = integral_images(image)
    assert int(squares[-1, -1]) == 300 * 300 * 255**2 % 2**32
    assert 300 * 300 * 255**2 > 2**32


@pytest.mark.parametrize("source", [(1, 1), (2, 1), (5, 7), (16, 12)])
@pytest.mark.parametrize("target", [(1, 1), (3, 2), (8, 6), (13, 17)])
def test_resize_equals_its_naive_twin(source, target):
    image = random_gray(*source, seed=2)
    assert resize(image, target).tolist() == naive.resize(image, *target)


def test_resize_equals_opencv():
    rng = np.random.default_rng(3)
    for _ in range(60):
        (w, h), (tw, th) = rng.integers(1, 120, 2).tolist(), rng.integers(1, 120, 2).tolist()
        image = random_gray(w, h, seed=w * h)
        theirs = cv2.resize(image, (tw, th), interpolation=cv2.INTER_LINEAR_EXACT)
        np.testing.assert_array_equal(resize(image, (tw, th)), theirs.reshape(th, tw), str((w, h, tw, th)))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("tilted", [False, True])
@pytest.mark.parametrize("width", [1, 2, 33, 64, 101])
def test_planes_hold_the_integral_images_of_a_band(stride, tilted, width):
    image, height, band = gray("camera", (150, 130)), 90, (17, 60)
    axes = resampling_axis(150, width), resampling_axis(130, height)
    planes = integral_planes(image, axes, band, layout(width + 7, stride, tilted))
    part = resize(image, (width, height))[slice(*band)]
    np.testing.assert_array_equal(planes.image, part)
    x = np.arange(width + 1)
    shape = planes.layout
    column = x if stride == 1 else x // 2 + x % 2 * shape.odd
    entries = np.arange(len(part) + 1)[:, None] * shape.row_stride + column
    sums, squares, cones = cv2.integral3(np.ascontiguousarray(part))
    np.testing.assert_array_equal(planes.sums[entries], sums)
    np.testing.assert_array_equal(planes.squares[entries], squares)
    if tilted:
        np.testing.assert_array_equal(planes.sums[entries + shape.tilted], cones)


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.zeros(4, np.uint8), np.zeros((4, 4, 3), np.uint8)])
def test_other_arrays_are_refused(bad):
    for function in (integral_images, tilted_integral, lambda image: resize(image, (2, 2))):
        with pytest.raises(InputError, match="uint8 of shape"):
            function(bad)


def test_resize_to_nothing_is_refused():
    with pytest.raises(InputError, match="at least 1x1"):
        resize(np.zeros((4, 4), np.uint8), (0, 3))
