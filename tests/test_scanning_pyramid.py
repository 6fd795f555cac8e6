import numpy as np
import pytest

from vj.errors import InputError
from vj.scanning.pyramid import levels, scale_list


def test_scales_are_accumulated_products_in_float32():
    scales = scale_list((640, 480), (24, 24), 1.1)
    factor = 1.0
    for scale in scales:
        assert isinstance(scale, np.float32)
        assert scale == np.float32(factor)
        factor *= 1.1
    assert round(24 * float(scales[-1])) <= 480 < round(24 * factor)


@pytest.mark.parametrize("least, most, sides", [(30, 60, (30, 60)), (0, 60, (24, 60)), (100, 0, (100, 480))])
def test_sizes_bound_the_window(least, most, sides):
    scales = scale_list((640, 480), (24, 24), 1.1, (least, least), (most, most))
    widths = [round(24 * float(s)) for s in scales]
    assert min(widths) >= sides[0] and max(widths) <= sides[1]
    every = [round(24 * float(s)) for s in scale_list((640, 480), (24, 24), 1.1)]
    assert len(widths) == sum(sides[0] <= w <= sides[1] for w in every)


@pytest.mark.parametrize(
    "least, most", [((33, 33), (33, 33)), ((900, 900), (0, 0)), ((300, 300), (40, 40)), ((10**30, 10**30), (0, 0))]
)
def test_contradictory_sizes_leave_the_nearest_scale(least, most):
    scales = scale_list((640, 480), (24, 24), 1.5, least, most)
    assert len(scales) == 1
    every = scale_list((640, 480), (24, 24), 1.5)
    errors = [abs(round(24 * float(s)) - least[0]) for s in every]
    assert abs(round(24 * float(scales[0])) - least[0]) == min(errors)


def test_an_image_smaller_than_the_window_has_no_scales():
    assert len(scale_list((23, 100), (24, 24), 1.1)) == 0
    assert levels((0, 0), (24, 24), 1.1) == []


@pytest.mark.parametrize("factor", [1.0, 0.5, float("nan"), float("inf")])
def test_scale_factors_must_be_above_one(factor):
    with pytest.raises(InputError, match="scale_factor above 1"):
        scale_list((100, 100), (24, 24), factor)


def test_strides_are_two_below_scale_two_unless_given():
    for level in levels((640, 480), (24, 24), 1.3):
        assert level.stride == (1 if level.scale >= 2 else 2)
        assert level.columns == (level.size[0] - 24) // level.stride + 1
    assert {level.stride for level in levels((640, 480), (24, 24), 1.3, stride=1)} == {1}
    for level in levels((640, 480), (24, 24), 1.3, stride=1):
        assert level.rows == level.size[1] - 24 + 1
    with pytest.raises(InputError, match="stride of 1 or 2"):
        levels((640, 480), (24, 24), 1.3, stride=4)
