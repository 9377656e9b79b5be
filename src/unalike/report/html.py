"""HTML reports: one self-contained file a report, with inline CSS, SVG plots, base64 images, no script and no network.

    Report("Brand marks").figures([("Precision@1", interval)]).curves("Learning", {...}).gallery(...).write("report.html")

A report collects the content of its sections; the templates in ``report/templates`` render it and escape every text. Colors
follow the light or dark setting of the browser.
"""

from __future__ import annotations

import base64
import io
import math
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
from unalike.metrics.intervals import Interval
from unalike.report.plots import IntervalBar, LinePlot, ScatterPlot, format_range, format_value
from unalike.report.templating import render
from unalike.source_names import source_name
from unalike.storage.atomic import write_text

# Longer side in pixels of images: the first of a page can be enlarged (some 20 kB each as JPEG), the others take 4 kB.
LARGE_SIDE, THUMBNAIL_SIDE, LARGE_IMAGES = 360, 120, 100
# Rows of a section that are shown; the others are folded.
FIRST_ROWS = 6
# Texts in a table with more characters than this break into lines.
LONG_TEXT = 36
# Longer texts among the headline figures are set smaller.
SHORT_TEXT = 14


@dataclass(frozen=True)
class ReportImage:
    """One captioned image of a report.

    Attributes:
        image: A path, a PIL image or a uint8 array (H, W, C).
        caption: The text below it, mostly its class.
        score: A figure below the caption, such as a cosine.
        correct: A green frame and a check mark for True, a dashed red frame and a cross for False.
        verdict: The word beside the mark; "right" or "wrong" where it is empty.
    """

    image: ImageInput
    caption: str
    score: float | None = None
    correct: bool | None = None
    verdict: str = ""


# A headline figure: name, value, and (where it is given) what it is computed from.
Figure = tuple[str, float | Interval | str | None] | tuple[str, float | Interval | str | None, str]
# A metric of two systems: name, before, after, paired difference, and (where it is given) what they are computed from.
ComparedMetric = tuple[str, Interval, Interval, Interval] | tuple[str, Interval, Interval, Interval, str]


@dataclass(frozen=True)
class LargeImages:
    """A row of large images of a report.

    Attributes:
        name, text: The heading, and the text below it.
        images: (caption, JPEG file).
        correct: A green check mark for True, a red cross for False.
        verdict: The word beside the mark.
    """

    name: str
    text: str
    images: Sequence[tuple[str, bytes]]
    correct: bool | None = None
    verdict: str = ""


class Report:
    """A title, sentences, then sections in the order in which they are added; each method that adds returns the report.

    Args:
        title: The heading.
        subtitle: The line below it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._sentences: list[str] = []
        self._sections: list[dict[str, Any]] = []
        self._images = 0

    def sentence(self, text: str) -> Report:
        """Add a sentence below the title, before all sections: the result in plain words. The first is the largest."""
        self._sentences.append(text)
        return self

    def figures(
        self, entries: Sequence[Figure], *, title: str = "In short", note: str = "", folded: bool = False
    ) -> Report:
        """Add cards of headline figures.

        Args:
            entries: (name, number, interval or text), or these and what the figure is computed from, such as "322 queries";
                numbers are shown with three decimals.
            title: Heading of the section.
            note: Text below the heading.
            folded: Whether the reader has to open the section.
        """
        cards = [
            {"name": name, "value": format_value(value), "interval": format_range(value), "about": "".join(about),
             "is_text": isinstance(value, str) and len(value) > SHORT_TEXT}
            for name, value, *about in entries
        ]  # fmt: skip
        return self._add("figures", title, note, folded, cards=cards)

    def comparison(
        self,
        rows: Sequence[ComparedMetric],
        *,
        before: str = "before",
        after: str = "after",
        title: str = "Side by side",
        note: str = "",
    ) -> Report:
        """Add a table of metrics of two systems, which marks whether the interval of the difference excludes zero.

        Args:
            rows: (metric, interval before, interval after, interval of the paired difference), or these and what they are
                computed from.
            before, after: Names of the two systems.
            title: Heading of the section.
            note: Text below the heading.
        """
        ends = [
            abs(end) for _, _, _, gain, *_ in rows for end in (gain.value, gain.low, gain.high) if math.isfinite(end)
        ]
        reach = next((size for size in (0.05, 0.1, 0.2, 0.5) if max(ends, default=0.0) <= size), 1.0)
        entries = [
            {"name": name, "about": "".join(about), "before": IntervalBar.from_interval(old),
             "after": IntervalBar.from_interval(new),
             "difference": IntervalBar.from_interval(gain, -reach, reach, signed=True),
             "change": "" if not gain.excludes_zero else "higher" if gain.low > 0 else "lower"}
            for name, old, new, gain, *about in rows
        ]  # fmt: skip
        return self._add("comparison", title, note, before=before, after=after, rows=entries)

    def curves(
        self,
        title: str,
        plots: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
        *,
        note: str = "",
        x_name: str = "epoch",
        folded: bool = False,
    ) -> Report:
        """Add line plots side by side.

        Args:
            title: Heading of the section.
            plots: Plot title, which says what the vertical axis shows -> line name -> points (x, y); points that are not
                finite are left out.
            note: Text below the heading.
            x_name: Name of the horizontal axis.
            folded: Whether the reader has to open the section.
        """
        line_plots = [LinePlot.from_points(name, lines, x_name) for name, lines in plots.items()]
        return self._add("curves", title, note, folded, plots=line_plots)

    def scatter(self, title: str, plot: ScatterPlot, *, note: str = "") -> Report:
        """Add a scatter plot."""
        return self._add("scatter", title, note, plot=plot)

    def gallery(
        self,
        title: str,
        rows: Sequence[tuple[ReportImage, Sequence[ReportImage]]],
        *,
        note: str = "",
        columns: Sequence[str] = ("query", "reference"),
        score: str = "cosine",
        link: tuple[str, str] = ("", ""),
    ) -> Report:
        """Add rows of a query and its nearest references, best first; rows after the first are folded.

        Args:
            title: Heading of the section.
            rows: (query, its references).
            note: Text below the heading.
            columns: Headings of the images of a row; the last one holds for all that follow.
            score: Name of the images' scores.
            link: (a file beside the report, text of the link), below the rows.
        """
        if not rows:
            return self._add("empty", title, note)
        address, text = link
        entries = [
            (self._to_values(query, score), [self._to_values(image, score) for image in images])
            for query, images in rows
        ]
        return self._add(
            "gallery", title, note, rows=entries[:FIRST_ROWS], more=entries[FIRST_ROWS:], columns=columns,
            # Short rows are laid out in two columns where the page is wide enough.
            short=max(len(images) for _, images in rows) <= 2,
            link={"address": quote(address), "text": text} if address else None,
        )  # fmt: skip

    def image_pairs(
        self, title: str, rows: Sequence[tuple[ReportImage, ReportImage, str]], *, note: str = "",
        columns: tuple[str, str] = ("", ""),
    ) -> Report:  # fmt: skip
        """Add pairs of images side by side under two headings, with a line of text below each pair."""
        if not rows:
            return self._add("empty", title, note)
        pairs = [(self._to_values(left), self._to_values(right), text) for left, right, text in rows]
        return self._add("image_pairs", title, note, pairs=pairs, columns=columns)

    def large_images(self, title: str, rows: Sequence[LargeImages], *, note: str = "") -> Report:
        """Add rows of large images."""
        entries = [
            {"name": row.name, "text": row.text, "correct": row.correct, "verdict": row.verdict,
             "images": [{"caption": caption, "uri": jpeg_uri(jpeg), "number": self._next_number()} for caption, jpeg in row.images]}
            for row in rows
        ]  # fmt: skip
        return self._add("large_images", title, note, rows=entries)

    def table(
        self,
        title: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        note: str = "",
        max_rows: int = 500,
        folded: bool = False,
        stack: bool = False,
    ) -> Report:
        """Add a table.

        Args:
            title: Heading of the section.
            rows: Column -> value, with the same keys in every row; underscores become spaces, None and NaN a dash.
            note: Text below the heading.
            max_rows: Most rows in the table; a line below it has the number of the others.
            folded: Whether the reader has to open the section.
            stack: Whether a narrow screen shows each row as a list, for few rows with long texts; other tables scroll.
        """
        if not rows:
            return self._add("empty", title, note, folded)
        columns = [
            {"name": str(key).replace("_", " "), "is_number": any(_is_number(row[key]) for row in rows)}
            for key in rows[0]
        ]
        texts = [[format_value(row[key]) for key in rows[0]] for row in rows[:max_rows]]
        cells = [[{"text": text, "is_long": len(text) > LONG_TEXT} for text in row] for row in texts]
        return self._add("table", title, note, folded, columns=columns, rows=cells, stack=stack,
                         left_out=max(0, len(rows) - max_rows))  # fmt: skip

    def html(self) -> str:
        """The HTML document."""
        return render(
            "report.html.j2",
            title=self.title,
            sentences=self._sentences,
            subtitle=self.subtitle,
            sections=self._sections,
        )

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

    def _add(self, kind: str, title: str, note: str, folded: bool = False, **values: Any) -> Report:
        """Add a section; its template is ``<kind>.html.j2``."""
        self._sections.append({"template": f"{kind}.html.j2", "title": title, "note": note, "folded": folded, **values})
        return self

    def _next_number(self) -> int:
        """A number for an image, by which it is addressed when it is enlarged."""
        self._images += 1
        return self._images

    def _to_values(self, image: ReportImage, score: str = "") -> dict[str, Any]:
        """The values of an image for its template."""
        name = source_name(image.image) if isinstance(image.image, str | Path) else ""
        number = self._next_number()
        words = {None: "", True: "right", False: "wrong"}
        return {
            "number": number,
            "uri": thumbnail_uri(image.image, LARGE_SIDE if number <= LARGE_IMAGES else THUMBNAIL_SIDE),
            "caption": image.caption,
            "score": "" if image.score is None else f"{score} {image.score:.3f}".strip(),
            "correct": image.correct,
            "verdict": image.verdict or words[image.correct],
            # folder and file name, as a tooltip
            "file": os.sep.join(Path(name).parts[-2:]),
        }


def thumbnail_uri(image: ImageInput, side: int = THUMBNAIL_SIDE) -> str:
    """An image as a data URI of a JPEG.

    Args:
        image: A path, a PIL image or a uint8 array. One that cannot be read becomes a gray square.
        side: Longest side in pixels.
    """
    try:
        # The range of each image is fitted separately, for display only: it may differ from the network's input.
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


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
