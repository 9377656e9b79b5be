import math

import numpy as np
import pytest

from unalike.metrics.intervals import Interval
from unalike.report.plots import MAX_NAMES, PALETTE, IntervalBar, LinePlot, ScatterPlot, format_value


def test_a_line_spans_the_plot_and_points_that_are_not_finite_are_left_out():
    plot = LinePlot.from_points("t", {"a": [(0, 1.0), (1, math.nan), (2, 3.0)], "b": [(1, 2.0)]}, "epoch")
    first, second = plot.lines
    assert first.path == f"{plot.left}.0,{plot.bottom}.0 {plot.right}.0,{plot.top}.0"
    assert second.dots == [("249.0", "126.0")] and (first.color, second.color) == PALETTE[:2]
    assert [tick.text for tick in plot.x_ticks] == ["0", "0.5", "1", "1.5", "2"]
    assert [tick.at for tick in plot.y_ticks] == ["226.0", "176.0", "126.0", "76.0", "26.0"]


@pytest.mark.parametrize("lines", [{}, {"a": []}, {"a": [(0, math.inf)]}])
def test_a_plot_without_a_finite_value_has_no_lines(lines):
    assert LinePlot.from_points("t", lines, "x").lines == ()


def test_long_lines_have_no_dots_and_colors_repeat():
    plot = LinePlot.from_points("t", {str(n): [(i, n) for i in range(31)] for n in range(7)}, "x")
    assert not any(line.dots for line in plot.lines) and plot.lines[6].color == PALETTE[0]


def test_bars_are_cut_to_the_scale():
    bar = IntervalBar.from_interval(Interval(0.9, 0.7, 1.3), "red")
    assert (bar.left, bar.width, bar.value, bar.interval) == ("84.0", "36.0", "0.900", "0.700 to 1.300")
    assert IntervalBar.from_interval(Interval(0.5, math.nan, math.nan), "red").width == "2.0"


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
    assert len(plot.points) == 120 and sum(point.marked for point in plot.points) == 3
    assert 2 < len(plot.names) <= MAX_NAMES and all(len(name.text) <= 24 for name in plot.names)
    for i, one in enumerate(plot.names):
        for other in plot.names[:i]:
            assert abs(float(one.y) - float(other.y)) > 16.8 or abs(float(one.x) - float(other.x)) > 3.6 * 47
