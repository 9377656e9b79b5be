"""Geometry of the plots in a report: line plots, scatter plots and interval bars, as numbers from which templates draw SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unalike.metrics.intervals import TOO_FEW, Interval

# Styles of lines (color and dashes) in the stylesheet, ``line-1`` to ``line-6``.
STYLES = 6
# Lines of more points than this are drawn without dots.
MAX_DOTS = 30
# Length in pixels of an interval bar.
BAR_LENGTH = 120
# About so many ticks an axis has.
TICKS = 5
# Most class names written into a scatter plot, and the most characters of one.
MAX_NAMES, NAME_LENGTH = 64, 24
# Where a name may stand relative to the median of its points, in lines of text: the first place that is free is taken.
NAME_PLACES = (-0.5, 0.8, -1.5, 1.8)
# Half the width in pixels of a character, and the height of a line of text.
HALF_CHARACTER, LINE_HEIGHT = 3.6, 17


@dataclass(frozen=True)
class Tick:
    """A tick of an axis: its position, the position of its text, and the text."""

    at: str
    text_at: str
    text: str


@dataclass(frozen=True)
class PlottedLine:
    """One line of a plot: its style, 1 to STYLES; its points as the attribute ``points`` of an SVG polyline; its dots."""

    name: str
    style: int
    path: str
    dots: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class LinePlot:
    """Lines with axes; without a finite value there are no lines.

    Attributes:
        title: Text above the plot: what the vertical axis shows.
        x_name: Name of the horizontal axis.
        lines: The lines.
        x_ticks, y_ticks: Some five ticks of each axis, at round numbers.
        width, height: Size of the drawing in pixels.
        left, right, bottom: Edges of the plotted area in pixels.
    """

    title: str
    x_name: str
    lines: Sequence[PlottedLine] = ()
    x_ticks: Sequence[Tick] = ()
    y_ticks: Sequence[Tick] = ()
    width: int = 380
    height: int = 270
    left: int = 52
    right: int = 362
    top: int = 30
    bottom: int = 222

    @property
    def middle(self) -> str:
        """Horizontal position of the axis name."""
        return f"{(self.left + self.right) / 2:.0f}"

    @classmethod
    def from_points(cls, title: str, lines: Mapping[str, Sequence[tuple[float, float]]], x_name: str) -> LinePlot:
        """Scale lines to the plot.

        Args:
            title: Text above the plot.
            lines: Line name -> points (x, y); points that are not finite are left out.
            x_name: Name of the horizontal axis.
        """
        finite = {
            name: [(float(x), float(y)) for x, y in points if math.isfinite(x) and math.isfinite(y)]
            for name, points in lines.items()
        }
        points = [point for line in finite.values() for point in line]
        if not points:
            return cls(title, x_name)
        x_low, x_high = _span([x for x, _ in points])
        y_low, y_high = _span([y for _, y in points])

        def position(x: float, y: float) -> tuple[float, float]:
            across = cls.left + (x - x_low) / (x_high - x_low) * (cls.right - cls.left)
            return across, cls.bottom - (y - y_low) / (y_high - y_low) * (cls.bottom - cls.top)

        x_ticks = [Tick(f"{(at := position(x, y_low)[0]):.1f}", f"{at:.1f}", text) for x, text in ticks(x_low, x_high)]
        y_ticks = [
            Tick(f"{(at := position(x_low, y)[1]):.1f}", f"{at + 4:.1f}", text) for y, text in ticks(y_low, y_high)
        ]
        plot_lines = []
        for number, (name, line) in enumerate(finite.items()):
            dots = [(f"{a:.1f}", f"{b:.1f}") for a, b in (position(x, y) for x, y in line)]
            path = " ".join(",".join(at) for at in dots)
            plot_lines.append(PlottedLine(name, number % STYLES + 1, path, dots if len(dots) <= MAX_DOTS else []))
        return cls(title, x_name, plot_lines, x_ticks, y_ticks)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high > low:
        return low, high
    return low - 0.5 if low < 0 else max(0.0, low - 0.5), high + 0.5  # of numbers that cannot be negative, no axis is


def ticks(low: float, high: float, count: int = TICKS) -> list[tuple[float, str]]:
    """Round numbers from ``low`` to ``high``, some ``count`` of them, at distances of 1, 2 or 5 times a power of ten.

    Returns:
        Each number with its text.
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if rough <= factor * power * (1 + 1e-9))
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    numbers = [(number * step) for number in range(first, last + 1)]
    return [(number, f"{number:.{decimals}f}" if decimals <= 4 else f"{number:.2g}") for number in numbers]


@dataclass(frozen=True)
class IntervalBar:
    """A value as text beside its interval as a bar on a scale.

    Attributes:
        value: The value as text.
        interval: The interval as text; empty where it is unknown.
        left, width: The bar in pixels.
        at: Position of the value in pixels.
        ticks: Ticks of the scale.
        length: Length of the scale in pixels.
    """

    value: str
    interval: str
    left: str
    width: str
    at: str
    ticks: Sequence[Tick]
    length: int = BAR_LENGTH

    @classmethod
    def from_interval(
        cls, interval: Interval, low: float = 0.0, high: float = 1.0, *, signed: bool = False
    ) -> IntervalBar:
        """Scale an interval; unknown ends are drawn at its value.

        Args:
            interval: The value and its bounds; what lies beyond the scale is cut off.
            low, high: Ends of the scale.
            signed: Whether numbers are written with their sign, as those of a difference.
        """

        def position(number: float) -> float:
            return cls.length * min(max((number - low) / (high - low), 0.0), 1.0)

        value = position(interval.value)
        left, right = (value if math.isnan(end) else position(end) for end in (interval.low, interval.high))
        marks = [Tick(f"{position(number):.1f}", f"{position(number):.1f}", f"{number:{'+' if signed and number else ''}.3g}")
                 for number in (low, (low + high) / 2, high)]  # fmt: skip
        return cls(format_value(interval, signed=signed), format_range(interval, signed=signed), f"{left:.1f}",
                   f"{max(right - left, 2):.1f}", f"{value:.1f}", marks)  # fmt: skip


def format_value(value: object, *, signed: bool = False) -> str:
    """A value as text: three decimals for fractions, a dash for None and NaN; of an interval its value."""
    if isinstance(value, Interval):
        value = value.value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:{'+' if signed else ''}.3f}" if isinstance(value, (float, np.floating)) else str(value)


def format_range(value: object, *, signed: bool = False) -> str:
    """The bounds of an interval as text; empty for what is no interval or has unknown bounds."""
    if not isinstance(value, Interval) or (math.isnan(value.low) and not value.few_groups):
        return ""
    if value.too_few:
        return TOO_FEW
    spec = "+.3f" if signed else ".3f"
    return f"{value.low:{spec}} to {value.high:{spec}}"


@dataclass(frozen=True)
class ScatterPoint:
    """A point of a scatter plot: its place and the median of its class in pixels, its tooltip, and whether it is crossed."""

    x: str
    y: str
    class_x: str
    class_y: str
    text: str
    marked: bool


@dataclass(frozen=True)
class PlotText:
    """A text in a plot, centered at a place in pixels."""

    x: str
    y: str
    text: str


@dataclass(frozen=True)
class ScatterPlot:
    """Points, each joined by a line to the median of its class, and the names of the classes.

    Attributes:
        points: The points.
        names: Class names at the median of their points, the largest classes first; none covers another.
        classes: Number of classes.
        width, height: Size of the drawing in pixels.
    """

    points: Sequence[ScatterPoint]
    names: Sequence[PlotText]
    classes: int = 0
    width: int = 900
    height: int = 620

    @classmethod
    def from_points(
        cls, points_N2: np.ndarray, labels_N: np.ndarray, classes: Sequence[str], texts: Sequence[str],
        marked_N: np.ndarray,
    ) -> ScatterPlot:  # fmt: skip
        """Scale points to the plot.

        Args:
            points_N2: Coordinates (N, 2) in any unit.
            labels_N: Class index of each point.
            classes: Name of each class.
            texts: Tooltip of each point.
            marked_N: Whether each point is a red cross (bool).
        """
        margin = 24
        low, high = points_N2.min(axis=0), points_N2.max(axis=0)
        scale = [cls.width - 2 * margin, cls.height - 2 * margin]
        at_N2 = margin + (points_N2 - low) / np.maximum(high - low, 1e-12) * scale
        labels, counts = np.unique(labels_N, return_counts=True)
        medians = {int(label): np.median(at_N2[labels_N == label], axis=0) for label in labels}
        points = [
            ScatterPoint(f"{x:.1f}", f"{y:.1f}", f"{medians[int(label)][0]:.1f}", f"{medians[int(label)][1]:.1f}", text, bool(is_marked))
            for (x, y), label, text, is_marked in zip(at_N2, labels_N, texts, marked_N, strict=True)
        ]  # fmt: skip
        largest_first = labels[np.argsort(-counts, kind="stable")].tolist()
        anchors = [(classes[label], medians[label]) for label in largest_first]
        return cls(points, _place_names(anchors, cls.width, cls.height), len(labels))


def _place_names(anchors: Sequence[tuple[str, np.ndarray]], width: int, height: int) -> list[PlotText]:
    """Class names near their anchors (x, y), in order; a name that would cover an earlier one is left out."""
    names: list[PlotText] = []
    boxes: list[tuple[float, float, int]] = []
    for name, (x, y) in anchors:
        text = name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
        x = float(np.clip(x, HALF_CHARACTER * len(text), width - HALF_CHARACTER * len(text)))
        for lines in NAME_PLACES:
            at = float(np.clip(y + lines * LINE_HEIGHT, LINE_HEIGHT, height - 4))
            covers = any(
                abs(at - v) < LINE_HEIGHT and abs(x - u) < HALF_CHARACTER * (len(text) + n) for u, v, n in boxes
            )
            if len(names) < MAX_NAMES and not covers:
                boxes.append((x, at, len(text)))
                names.append(PlotText(f"{x:.1f}", f"{at:.1f}", text))
                break
    return names
