"""Trends and densities beside the true one show the numbers they are given, and labels that can be read."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from straylight.report.figures import agreement, trend


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def test_a_curve_is_its_numbers_and_a_band_the_range_of_its_repetitions() -> None:
    figure = trend(
        [1, 2, 4], {"one": [3, 2, 1], "three": [[1, 2, 6], [4, 4, 4], [0, 1, 5]]}, ("x", "y"), level={"l": 2}
    )
    (axis,) = figure.axes
    one, three, level = axis.get_lines()
    np.testing.assert_array_equal(one.get_xydata(), [[1, 3], [2, 2], [4, 1]])
    np.testing.assert_array_equal(three.get_ydata(), [3, 4, 2])
    np.testing.assert_array_equal(level.get_ydata(), [2, 2])
    (band,) = axis.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert {(1, 1), (1, 6), (2, 4), (4, 0), (4, 5)} <= corners
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("x", "y")


def test_a_curve_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="'short' must have 3 points"):
        trend([1, 2, 3], {"short": [1, 2]}, ("x", "y"))


@pytest.mark.parametrize("ends", [(20, 1600), (50, 900), (2, 9), (1e-6, 0.1), (1, 100), (90, 110)])
def test_labels_of_a_logarithmic_axis_do_not_overlap_and_there_are_some(ends) -> None:
    figure = trend(np.geomspace(*ends, 7), {"a": np.arange(7)}, ("x", "y"), log="x")
    renderer = drawn(figure)
    (axis,) = figure.axes
    low, high = axis.get_xlim()
    ticks = [*axis.xaxis.get_major_ticks(), *axis.xaxis.get_minor_ticks()]
    boxes = [t.label1.get_window_extent(renderer) for t in ticks if t.label1.get_text() and low <= t.get_loc() <= high]
    spans = sorted((box.x0, box.x1) for box in boxes)
    assert spans
    if np.floor(np.log10(high)) - np.ceil(np.log10(low)) >= 1:
        assert all(left[1] <= right[0] for left, right in pairwise(spans))


def test_a_density_beside_the_true_one_shows_both_and_their_difference() -> None:
    true, learned, y = np.array([-1.0, -2.0, -30.0]), np.array([-1.5, -2.0, -20.0]), np.array([0, 0, 1])
    left, right = agreement(true, learned, y, ("nominal", "far")).axes
    nominal, far, equal = left.get_lines()
    np.testing.assert_array_equal(nominal.get_xydata(), [[-1, -1.5], [-2, -2]])
    np.testing.assert_array_equal(far.get_xydata(), [[-30, -20]])
    np.testing.assert_array_equal(equal.get_xydata(), [[-30, -30], [-1, -1]])
    np.testing.assert_array_equal(right.get_lines()[0].get_ydata(), [-0.5, 0])
    np.testing.assert_array_equal(right.get_lines()[1].get_ydata(), [10])
    assert [line.get_label() for line in (nominal, far, equal)] == ["nominal", "far", "equal"]
    with pytest.raises(ValueError, match="must be of one length"):
        agreement(true, learned[:2], y)
