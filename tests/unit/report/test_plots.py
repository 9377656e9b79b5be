import math

import numpy as np
import pytest

from unalike.metrics.intervals import Interval
from unalike.report.plots import MAX_NAMES, IntervalBar, LinePlot, ScatterPlot, format_range, format_value, ticks


def test_a_line_spans_the_plot_and_points_that_are_not_finite_are_left_out():
    plot = LinePlot.from_points("t", {"a": [(0, 1.0), (1, math.nan), (2, 3.0)], "b": [(1, 2.0)]}, "epoch")
    first, second = plot.lines
    assert first.path == f"{plot.left}.0,{plot.bottom}.0 {plot.right}.0,{plot.top}.0"
    assert second.dots == [("207.0", "126.0")] and (first.style, second.style) == (1, 2)
    assert [tick.text for tick in plot.x_ticks] == ["0.0", "0.5", "1.0", "1.5", "2.0"]
    assert [tick.at for tick in plot.y_ticks] == ["222.0", "174.0", "126.0", "78.0", "30.0"]


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.913, 0.987, ["0.92", "0.94", "0.96", "0.98"]),
        (1.0, 30.0, ["10", "20", "30"]),
        (-0.3, 0.3, ["-0.2", "0.0", "0.2"]),
        (0.0, 2e-6, ["0", "5e-07", "1e-06", "1.5e-06", "2e-06"]),
    ],
)
def test_ticks_are_round_numbers_within_the_axis(low, high, texts):
    assert [text for _, text in ticks(low, high)] == texts
    assert all(low - 1e-9 <= number <= high + 1e-9 for number, _ in ticks(low, high))


@pytest.mark.parametrize("lines", [{}, {"a": []}, {"a": [(0, math.inf)]}])
def test_a_plot_without_a_finite_value_has_no_lines(lines):
    assert LinePlot.from_points("t", lines, "x").lines == ()


def test_long_lines_have_no_dots_and_styles_repeat():
    plot = LinePlot.from_points("t", {str(n): [(i, n) for i in range(31)] for n in range(7)}, "x")
    assert not any(line.dots for line in plot.lines) and plot.lines[6].style == 1


def test_bars_are_cut_to_the_scale():
    bar = IntervalBar.from_interval(Interval(0.9, 0.7, 1.3))
    assert (bar.left, bar.width, bar.at, bar.value, bar.interval) == (
        "84.0",
        "36.0",
        "108.0",
        "0.900",
        "0.700 to 1.300",
    )
    assert [(tick.at, tick.text) for tick in bar.ticks] == [("0.0", "0"), ("60.0", "0.5"), ("120.0", "1")]
    assert IntervalBar.from_interval(Interval(0.5, math.nan, math.nan)).width == "2.0"


def test_the_bar_of_a_difference_has_zero_in_its_middle():
    bar = IntervalBar.from_interval(Interval(0.05, -0.05, 0.1, 2.0), -0.1, 0.1, signed=True)
    assert (bar.left, bar.width, bar.value, bar.interval) == ("30.0", "90.0", "+0.050", "-0.050 to +0.100")
    assert [tick.text for tick in bar.ticks] == ["-0.1", "0", "+0.1"]


def test_an_interval_of_too_few_groups_says_so():
    few = Interval(0.5, math.nan, math.nan, few_groups=True)
    assert format_range(few) == format_range(Interval(0.5, 0.01, 0.99)) == "too few to say"
    assert format_range(Interval(0.5, math.nan, math.nan)) == "", "intervals that were not asked for"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.nan, "–"), (3, "3"), (0.25, "0.250"), (np.float32(0.5), "0.500"), (True, "True"), ("a", "a")],
)
def test_values_as_text(value, text):
    assert format_value(value) == text


def test_no_name_of_a_scatter_plot_covers_another():
    rng = np.random.default_rng(0)
    labels_N = np.repeat(np.arange(40), 3)
    classes = [f"a class with a long name {n}" for n in range(40)]
    plot = ScatterPlot.from_points(rng.random((120, 2)), labels_N, classes, [""] * 120, labels_N == 3)
    assert len(plot.points) == 120 and sum(point.marked for point in plot.points) == 3 and plot.classes == 40
    assert {(point.class_x, point.class_y) for point in plot.points[:3]} == {
        (plot.points[0].class_x, plot.points[0].class_y)
    }
    assert 2 < len(plot.names) <= MAX_NAMES and all(len(name.text) <= 24 for name in plot.names)
    for i, one in enumerate(plot.names):
        for other in plot.names[:i]:
            assert abs(float(one.y) - float(other.y)) > 16.8 or abs(float(one.x) - float(other.x)) > 3.6 * 47
