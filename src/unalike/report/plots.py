"""Geometry of the plots in a report: line plots, scatter plots and interval bars, as numbers from which templates draw SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unalike.metrics.intervals import TOO_FEW, Interval

PALETTE = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#db2777", "#475569")
# Lines of more points than this are drawn without dots.
MAX_DOTS = 30
# Length in pixels of an interval bar, which spans 0 to 1.
BAR_LENGTH = 120
# Most class names written into a scatter plot, and the most characters of one.
MAX_NAMES, NAME_LENGTH = 24, 24
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
    """One line of a plot: its points as the attribute ``points`` of an SVG polyline, and its dots."""

    name: str
    color: str
    path: str
    dots: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class LinePlot:
    """Lines with axes; without a finite value there are no lines.

    Attributes:
        title: Text above the plot.
        x_name: Name of the horizontal axis.
        lines: The lines.
        x_ticks, y_ticks: Five ticks of each axis.
        width, height: Size of the drawing in pixels.
        left, right, bottom: Edges of the plotted area in pixels.
    """

    title: str
    x_name: str
    lines: Sequence[PlottedLine] = ()
    x_ticks: Sequence[Tick] = ()
    y_ticks: Sequence[Tick] = ()
    width: int = 460
    height: int = 270
    left: int = 52
    right: int = 446
    top: int = 26
    bottom: int = 226

    @property
    def middle(self) -> str:
        """Horizontal position of the axis name."""
        return f"{(self.left + self.width) / 2:.0f}"

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

        x_ticks, y_ticks = [], []
        for step in range(5):
            x, y = x_low + (x_high - x_low) * step / 4, y_low + (y_high - y_low) * step / 4
            (across, _), (_, down) = position(x, y_low), position(x_low, y)
            x_ticks.append(Tick(f"{across:.1f}", f"{across:.1f}", f"{x:.3g}"))
            y_ticks.append(Tick(f"{down:.1f}", f"{down + 4:.1f}", f"{y:.3g}"))
        plotted = []
        for number, (name, line) in enumerate(finite.items()):
            dots = [(f"{a:.1f}", f"{b:.1f}") for a, b in (position(x, y) for x, y in line)]
            path = " ".join(",".join(at) for at in dots)
            plotted.append(
                PlottedLine(name, PALETTE[number % len(PALETTE)], path, dots if len(dots) <= MAX_DOTS else [])
            )
        return cls(title, x_name, plotted, x_ticks, y_ticks)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


@dataclass(frozen=True)
class IntervalBar:
    """A value as text beside its interval as a bar on a scale from 0 to 1.

    Attributes:
        value: The value as text.
        interval: The interval as text; empty where it is unknown.
        left, width: The bar in pixels of BAR_LENGTH.
        color: Color of the bar.
    """

    value: str
    interval: str
    left: str
    width: str
    color: str

    @classmethod
    def from_interval(cls, interval: Interval, color: str) -> IntervalBar:
        """Scale an interval; unknown ends are drawn at its value."""
        ends = (interval.value if math.isnan(end) else end for end in (interval.low, interval.high))
        left, right = (BAR_LENGTH * min(max(end, 0.0), 1.0) for end in ends)
        return cls(format_value(interval), format_range(interval), f"{left:.1f}", f"{max(right - left, 2):.1f}", color)


def format_value(value: object) -> str:
    """A value as text: three decimals for fractions, a dash for None and NaN; of an interval its value."""
    if isinstance(value, Interval):
        value = value.value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.3f}" if isinstance(value, (float, np.floating)) else str(value)


def format_range(value: object) -> str:
    """The bounds of an interval as text; empty for what is no interval or has unknown bounds."""
    if not isinstance(value, Interval) or math.isnan(value.low):
        return ""
    if value.too_few:
        return TOO_FEW
    return f"{value.low:.3f} to {value.high:.3f}"


@dataclass(frozen=True)
class ScatterPoint:
    """A point of a scatter plot: its place in pixels, its color, its tooltip, and whether it is ringed."""

    x: str
    y: str
    color: str
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
    """Points colored by class, with the names of the largest classes.

    Attributes:
        points: The points.
        names: Class names near the median of their points; none covers another.
        width, height: Size of the drawing in pixels.
    """

    points: Sequence[ScatterPoint]
    names: Sequence[PlotText]
    width: int = 1000
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
            marked_N: Whether each point is ringed in red (bool).
        """
        margin = 24
        low, high = points_N2.min(axis=0), points_N2.max(axis=0)
        scale = [cls.width - 2 * margin, cls.height - 2 * margin]
        at_N2 = margin + (points_N2 - low) / np.maximum(high - low, 1e-12) * scale
        labels, counts = np.unique(labels_N, return_counts=True)
        # Hues by the golden angle, so that classes of neighboring numbers differ; three depths of color.
        colors = {int(c): f"hsl({137.508 * i % 360:.0f} {(70, 55, 85)[i % 3]}% {(50, 42, 58)[i // 3 % 3]}%)"
                  for i, c in enumerate(labels)}  # fmt: skip
        points = [
            ScatterPoint(f"{x:.1f}", f"{y:.1f}", colors[int(label)], text, bool(marked))
            for (x, y), label, text, marked in zip(at_N2, labels_N, texts, marked_N, strict=True)
        ]
        largest_first = labels[np.argsort(-counts, kind="stable")].tolist()
        # above the middle of the points
        anchors = [(classes[label], np.median(at_N2[labels_N == label], axis=0) - (0, 8)) for label in largest_first]
        return cls(points, _place_names(anchors, cls.width))


def _place_names(anchors: Sequence[tuple[str, np.ndarray]], width: int) -> list[PlotText]:
    """Class names at their anchors (x, y), in order; a name that would cover an earlier one is left out."""
    names: list[PlotText] = []
    placed: list[tuple[float, float, int]] = []
    for name, (x, y) in anchors:
        text = name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
        x = float(np.clip(x, HALF_CHARACTER * len(text), width - HALF_CHARACTER * len(text)))
        covers = any(abs(y - v) < LINE_HEIGHT and abs(x - u) < HALF_CHARACTER * (len(text) + n) for u, v, n in placed)
        if len(names) < MAX_NAMES and not covers:
            placed.append((x, float(y), len(text)))
            names.append(PlotText(f"{x:.1f}", f"{y:.1f}", text))
    return names
