"""HTML reports: one self-contained file a report, with inline CSS, SVG plots, base64 images, no script and no network.

    Report("Brand marks").figures([("Precision@1", interval)]).curves("Learning", {...}).gallery(...).write("report.html")

A report collects the content of its sections; the templates in ``report/templates`` render it and escape every text. Colors
follow the light or dark setting of the browser.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from unalike.data.decode import ImageInput, open_image
from unalike.data.decoding_fit import fit_decoding
from unalike.errors import DataError, RunError
from unalike.metrics.intervals import TOO_FEW, Interval
from unalike.report.plots import PALETTE, IntervalBar, LinePlot, ScatterPlot, format_range, format_value
from unalike.report.templating import render
from unalike.source_names import source_name
from unalike.storage.atomic import write_text

THUMBNAIL_SIDE = 120  # longer side in pixels; about 4 kB an image as JPEG
# Longer texts among the headline figures are set smaller.
SHORT_TEXT = 14


@dataclass(frozen=True)
class ReportImage:
    """One captioned image of a report.

    Attributes:
        image: A path, a PIL image or a uint8 array (H, W, C).
        caption: The text below it, mostly its class.
        score: A figure below the caption, such as a cosine.
        correct: Green border for True, red for False.
    """

    image: ImageInput
    caption: str
    score: float | None = None
    correct: bool | None = None


class Report:
    """A page of sections in the order in which they are added; every method that adds one returns the report.

    Args:
        title: The heading.
        subtitle: The line below it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._sections: list[dict[str, Any]] = []

    def figures(
        self, entries: Sequence[tuple[str, float | Interval | str | None]], *, title: str = "In short", note: str = ""
    ) -> Report:
        """Add cards of headline figures.

        Args:
            entries: (name, number, interval or text); numbers are shown with three decimals.
            title: Heading of the section.
            note: Text below the heading.
        """
        cards = [
            {"name": name, "value": format_value(value), "interval": format_range(value),
             "is_text": isinstance(value, str) and len(value) > SHORT_TEXT}
            for name, value in entries
        ]  # fmt: skip
        return self._add("figures", title, note, cards=cards)

    def comparison(
        self,
        rows: Sequence[tuple[str, Interval, Interval, Interval]],
        *,
        before: str = "before",
        after: str = "after",
        title: str = "Side by side",
        note: str = "",
    ) -> Report:
        """Add a table of metrics of two systems, which marks whether the interval of the difference excludes zero.

        Args:
            rows: (metric, interval before, interval after, interval of the paired difference).
            before, after: Names of the two systems.
            title: Heading of the section.
            note: Text below the heading.
        """
        entries = [
            {"name": name, "before": IntervalBar.from_interval(old, PALETTE[1]),
             "after": IntervalBar.from_interval(new, PALETTE[0]), "difference": _signed(difference),
             "change": "" if not difference.excludes_zero else "higher" if difference.low > 0 else "lower"}
            for name, old, new, difference in rows
        ]  # fmt: skip
        return self._add("comparison", title, note, header=("", before, after, "difference", ""), rows=entries)

    def curves(
        self,
        title: str,
        plots: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
        *,
        note: str = "",
        x_name: str = "epoch",
    ) -> Report:
        """Add line plots side by side.

        Args:
            title: Heading of the section.
            plots: Plot title -> line name -> points (x, y); points that are not finite are left out.
            note: Text below the heading.
            x_name: Name of the horizontal axis.
        """
        line_plots = [LinePlot.from_points(name, lines, x_name) for name, lines in plots.items()]
        return self._add("curves", title, note, plots=line_plots)

    def scatter(self, title: str, plot: ScatterPlot, *, note: str = "") -> Report:
        """Add a scatter plot."""
        return self._add("scatter", title, note, plot=plot)

    def gallery(
        self,
        title: str,
        rows: Sequence[tuple[ReportImage, Sequence[ReportImage]]],
        *,
        note: str = "",
        link: tuple[str, str] = ("", ""),
    ) -> Report:
        """Add rows of a query and its nearest references, best first.

        Args:
            title: Heading of the section.
            rows: (query, its references).
            note: Text below the heading.
            link: (a file beside the report, text of the link), below the rows.
        """
        if not rows:
            return self._add("empty", title, note)
        address, text = link
        return self._add(
            "gallery", title, note,
            rows=[(_to_values(query), [_to_values(image) for image in images]) for query, images in rows],
            # Short rows are laid out in two columns where the page is wide enough.
            short=max(len(images) for _, images in rows) <= 2,
            link={"address": quote(address), "text": text} if address else None,
        )  # fmt: skip

    def image_pairs(
        self, title: str, rows: Sequence[tuple[ReportImage, ReportImage, str]], *, note: str = ""
    ) -> Report:
        """Add pairs of images side by side, with a line of text below each pair."""
        if not rows:
            return self._add("empty", title, note)
        pairs = [(_to_values(left), _to_values(right), text) for left, right, text in rows]
        return self._add("image_pairs", title, note, pairs=pairs)

    def large_images(
        self, title: str, rows: Sequence[tuple[str, str, Sequence[tuple[str, bytes]]]], *, note: str = ""
    ) -> Report:
        """Add rows of large images; a row is (name, text, images), an image (caption, JPEG file)."""
        entries = [
            {"name": name, "text": text, "images": [{"caption": caption, "uri": jpeg_uri(jpeg)} for caption, jpeg in images]}
            for name, text, images in rows
        ]  # fmt: skip
        return self._add("large_images", title, note, rows=entries)

    def table(self, title: str, rows: Sequence[Mapping[str, Any]], *, note: str = "", max_rows: int = 500) -> Report:
        """Add a table.

        Args:
            title: Heading of the section.
            rows: Column -> value, with the same keys in every row; underscores become spaces, None and NaN a dash.
            note: Text below the heading.
            max_rows: Most rows in the table; a line below it has the number of the others.
        """
        if not rows:
            return self._add("empty", title, note)
        columns = [
            {"name": str(key).replace("_", " "), "is_number": any(_is_number(row[key]) for row in rows)}
            for key in rows[0]
        ]
        texts = [[format_value(row[key]) for key in rows[0]] for row in rows[:max_rows]]
        return self._add("table", title, note, columns=columns, rows=texts, left_out=max(0, len(rows) - max_rows))

    def html(self) -> str:
        """The HTML document."""
        return render("report.html.j2", title=self.title, subtitle=self.subtitle, sections=self._sections)

    def write(self, path: str | Path) -> Path:
        """Write the document to a file atomically, and create its folder.

        Raises:
            RunError: The file cannot be written.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, self.html())
        except OSError as error:
            raise RunError(
                f"{path}: {error.strerror or error}", remedy="choose a folder that can be written"
            ) from error
        return path

    def _add(self, kind: str, title: str, note: str, **values: Any) -> Report:
        """Add a section; its template is ``<kind>.html.j2``."""
        self._sections.append({"template": f"{kind}.html.j2", "title": title, "note": note, **values})
        return self


def thumbnail_uri(image: ImageInput, side: int = THUMBNAIL_SIDE) -> str:
    """An image as a data URI of a JPEG.

    Args:
        image: A path, a PIL image or a uint8 array. One that cannot be read becomes a gray square.
        side: Longest side in pixels.
    """
    try:
        # each by itself, for the eye alone: what a network was given is not shown here
        small = open_image(image, decoding=fit_decoding([image], quiet=True))
        small = small.copy() if small is image else small
        small.thumbnail((side, side))
    except (OSError, ValueError, DataError):
        small = Image.new("RGB", (side, side), (203, 213, 225))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return jpeg_uri(stream.getvalue())


def jpeg_uri(jpeg: bytes) -> str:
    """A JPEG file as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _to_values(image: ReportImage) -> dict[str, Any]:
    """The values of an image for its template."""
    name = source_name(image.image) if isinstance(image.image, str | Path) else ""
    return {
        "uri": thumbnail_uri(image.image),
        "caption": image.caption,
        "score": "" if image.score is None else f"{image.score:.3f}",
        "correct": image.correct,
        # folder and file name, as a tooltip
        "file": os.sep.join(Path(name).parts[-2:]),
    }


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _signed(value: Interval) -> str:
    bounds = TOO_FEW if value.too_few else f"{value.low:+.3f} to {value.high:+.3f}"
    return f"{value.value:+.3f} ({bounds})"
