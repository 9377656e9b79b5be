"""One self-contained HTML file of a measurement: inline CSS, SVG curves, base64 thumbnails, no script, no network.

    Report("Brand marks").figures([("Precision@1", interval)]).curves("Learning", {...}).gallery(...).write("report.html")

Every text that comes in is escaped; colours follow the reader's light or dark setting.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from unalike.data.decode import ImageInput, open_image
from unalike.errors import RunError
from unalike.metrics.intervals import Interval
from unalike.storage.atomic import write_text

THUMBNAIL = 120  # longer side in pixels; about 4 kB a picture as JPEG
PALETTE = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#db2777", "#475569")

STYLE = """
:root{--ink:#0f172a;--soft:#64748b;--line:#e2e8f0;--page:#f8fafc;--card:#fff;--good:#16a34a;--bad:#dc2626;--mark:#2563eb}
@media(prefers-color-scheme:dark){:root{--ink:#e2e8f0;--soft:#94a3b8;--line:#334155;--page:#0f172a;--card:#1e293b;
--good:#4ade80;--bad:#f87171;--mark:#60a5fa}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:40px 20px 80px}h1{font-size:30px;line-height:1.2;margin:0 0 6px}
h2{font-size:20px;margin:0 0 4px}p{margin:4px 0 14px;color:var(--soft);max-width:75ch}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:22px 24px;margin:22px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin-top:12px}
.card{border:1px solid var(--line);border-radius:10px;padding:14px 16px}.card b{display:block;font-size:27px;line-height:1.2}
.card span{color:var(--soft);font-size:13px}.scroll{overflow-x:auto;max-height:560px;overflow-y:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
th{position:sticky;top:0;background:var(--card);color:var(--soft);font-weight:600;font-size:13px}
td.n,th.n{text-align:right}.good{color:var(--good)}.bad{color:var(--bad)}
.row{display:flex;gap:10px;align-items:flex-start;padding:10px 0;border-bottom:1px solid var(--line);overflow-x:auto}
.short.rows{display:grid;grid-template-columns:repeat(auto-fill,minmax(440px,1fr));column-gap:28px}
figure{margin:0;flex:0 0 auto;width:124px;font-size:12px;line-height:1.35}
figure img{width:124px;height:124px;object-fit:contain;border-radius:8px;border:3px solid var(--line);background:#fff;display:block}
figure.hit img{border-color:var(--good)}figure.miss img{border-color:var(--bad)}figure.query{margin-right:14px}
figcaption{overflow-wrap:anywhere;margin-top:3px}figcaption small{color:var(--soft);display:block}
svg{max-width:100%;height:auto}td svg{max-width:none}.card b.words{font-size:18px}svg text{fill:var(--soft);font-size:12px}svg .axis{stroke:var(--line);stroke-width:1}
.couples{display:grid;grid-template-columns:repeat(auto-fill,minmax(272px,1fr));gap:14px}
.couple{border:1px solid var(--line);border-radius:10px;padding:8px}.couple div{display:flex;gap:6px}
.couple>span{color:var(--soft);font-size:12px}svg .name{fill:var(--ink);font-weight:600;paint-order:stroke;
stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:18px}.none{color:var(--soft);font-style:italic}
a{color:var(--mark)}footer{color:var(--soft);font-size:13px;margin-top:28px}
"""


@dataclass(frozen=True)
class Tile:
    """One picture of a gallery: ``image`` (path, PIL image or uint8 array), its class, a score, right or wrong."""

    image: ImageInput
    label: str
    score: float | None = None
    right: bool | None = None


class Report:
    """Sections are added in the order in which they shall stand; ``write`` makes the file. Every method returns self."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._sections: list[str] = []

    def figures(
        self, entries: Sequence[tuple[str, float | Interval | str | None]], *, title: str = "In short", note: str = ""
    ) -> Report:
        """Cards of headline figures: (name, number, Interval or text); shares in [0, 1] are shown as given."""
        cards = [
            f"<div class=card><span>{escape(name)}</span><b{_words(value)}>{escape(_main(value))}</b><span>{escape(_range(value))}</span></div>"
            for name, value in entries
        ]
        return self._add(title, note, f"<div class=cards>{''.join(cards)}</div>")

    def comparison(
        self,
        rows: Sequence[tuple[str, Interval, Interval, Interval]],
        *,
        before: str = "before",
        after: str = "after",
        title: str = "Side by side",
        note: str = "",
    ) -> Report:
        """Rows (metric, interval before, interval after, interval of the paired difference); says whether zero is left out."""
        body = "".join(
            f"<tr><td>{escape(name)}</td><td>{_interval_bar(a, PALETTE[1])}</td><td>{_interval_bar(b, PALETTE[0])}</td>"
            f"<td>{escape(_signed(d))}</td><td>{_verdict(d)}</td></tr>"
            for name, a, b, d in rows
        )
        head = "".join(f"<th>{escape(h)}</th>" for h in ("", before, after, "difference", ""))
        return self._add(title, note, f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>")

    def curves(
        self,
        title: str,
        plots: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
        *,
        note: str = "",
        x_name: str = "epoch",
    ) -> Report:
        """Line plots side by side: {plot title: {line name: [(x, y), ...]}}; values that are not finite are left out."""
        drawn = "".join(f"<div>{_plot(name, lines, x_name)}</div>" for name, lines in plots.items())
        return self._add(title, note, f"<div class=plots>{drawn}</div>")

    def gallery(
        self,
        title: str,
        rows: Sequence[tuple[Tile, Sequence[Tile]]],
        *,
        note: str = "",
        link: tuple[str, str] = ("", ""),
    ) -> Report:
        """Rows of a query and its nearest references, best first; green border for the right class, red for another.

        ``link``: (a file beside the report, words for it), below the rows.
        """
        if not rows:
            return self._add(title, note, "<p class=none>None.</p>")
        drawn = [
            f"<div class=row>{_tile(query, 'query')}{''.join(_tile(tile) for tile in neighbours)}</div>"
            for query, neighbours in rows
        ]
        # Short rows stand two abreast where the page is wide enough.
        short = max(len(neighbours) for _, neighbours in rows) <= 2
        more = f"<p><a href='{escape(quote(link[0]))}'>{escape(link[1])}</a></p>" if link[0] else ""
        return self._add(title, note, f"<div class='{'short rows' if short else 'rows'}'>{''.join(drawn)}</div>{more}")

    def couples(self, title: str, rows: Sequence[tuple[Tile, Tile, str]], *, note: str = "") -> Report:
        """Pairs of pictures side by side, a line of text below each pair."""
        if not rows:
            return self._add(title, note, "<p class=none>None.</p>")
        drawn = "".join(
            f"<div class=couple><div>{_tile(a)}{_tile(b)}</div><span>{escape(text)}</span></div>" for a, b, text in rows
        )
        return self._add(title, note, f"<div class=couples>{drawn}</div>")

    def drawing(self, title: str, svg: str, *, note: str = "") -> Report:
        """A drawing made elsewhere, as SVG whose texts are escaped."""
        return self._add(title, note, svg)

    def table(self, title: str, rows: Sequence[Mapping[str, Any]], *, note: str = "", most: int = 500) -> Report:
        """A table of mappings with the same keys; numbers right-aligned, None as a dash, at most ``most`` rows, said."""
        if not rows:
            return self._add(title, note, "<p class=none>None.</p>")
        numeric = {key: any(_is_number(row[key]) for row in rows) for key in rows[0]}
        head = "".join(f"<th{_right(numeric[key])}>{escape(str(key).replace('_', ' '))}</th>" for key in rows[0])
        body = "".join(
            "<tr>" + "".join(f"<td{_right(numeric[key])}>{escape(_cell(row[key]))}</td>" for key in rows[0]) + "</tr>"
            for row in rows[:most]
        )
        rest = f"<p>{len(rows) - most} more rows are in the CSV file.</p>" if len(rows) > most else ""
        return self._add(title, note, f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>{rest}")

    def html(self) -> str:
        """The whole document."""
        return (
            f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(self.title)}</title>"
            '<meta name=viewport content="width=device-width,initial-scale=1">'
            f"<style>{STYLE}</style></head><body><main><h1>{escape(self.title)}</h1><p>{escape(self.subtitle)}</p>"
            f"{''.join(self._sections)}<footer>Written by unalike.</footer></main></body></html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """Write the file (folders are made; a temporary name, then renamed). Raises RunError when that fails."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, self.html())
        except OSError as error:
            raise RunError(
                f"{path}: {error.strerror or error}", remedy="choose a folder that can be written"
            ) from error
        return path

    def _add(self, title: str, note: str, body: str) -> Report:
        said = f"<p>{escape(note)}</p>" if note else ""
        self._sections.append(f"<section><h2>{escape(title)}</h2>{said}{body}</section>")
        return self


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _right(numeric: bool) -> str:
    return " class=n" if numeric else ""


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.3f}" if isinstance(value, (float, np.floating)) else str(value)


def _main(value: float | Interval | str | None) -> str:
    return _cell(value.value) if isinstance(value, Interval) else _cell(value)


def _words(value: object) -> str:
    return " class=words" if isinstance(value, str) and len(value) > 14 else ""


def _range(value: object) -> str:
    if not isinstance(value, Interval) or math.isnan(value.low):
        return ""
    return f"{value.low:.3f} to {value.high:.3f}"


def _signed(value: Interval) -> str:
    return f"{value.value:+.3f} ({value.low:+.3f} to {value.high:+.3f})"


def _verdict(difference: Interval) -> str:
    if not difference.apart:
        return "not told apart"
    return "<span class=good>higher</span>" if difference.low > 0 else "<span class=bad>lower</span>"


def _interval_bar(value: Interval, colour: str) -> str:
    """A value in words beside its interval on a scale from 0 to 1."""
    low, high = (value.value if math.isnan(end) else end for end in (value.low, value.high))
    left, right = (120 * min(max(end, 0.0), 1.0) for end in (low, high))
    return (
        f"{escape(_main(value))} <svg width=122 height=12 viewBox='-1 0 122 12' role=img aria-label='{escape(_range(value))}'>"
        f"<line class=axis x1=0 x2=120 y1=6 y2=6 /><rect x={left:.1f} y=3 width={max(right - left, 2):.1f} height=6 rx=3 "
        f"fill='{colour}' /></svg>"
    )


def _tile(tile: Tile, kind: str = "") -> str:
    judged = "" if tile.right is None else "hit" if tile.right else "miss"
    score = "" if tile.score is None else f"<small>{tile.score:.3f}</small>"
    name = f"class='{kind} {judged}'"
    if isinstance(tile.image, str | Path):  # which file it is, for who points at it
        name += f" title='{escape(os.sep.join(Path(tile.image).parts[-2:]))}'"
    return (
        f"<figure {name}><img src='{thumbnail(tile.image)}' alt='{escape(tile.label)}' loading=lazy>"
        f"<figcaption>{escape(tile.label)}{score}</figcaption></figure>"
    )


def thumbnail(picture: ImageInput, side: int = THUMBNAIL) -> str:
    """A data URI of the picture as JPEG, its longer side at most ``side``; one that cannot be read becomes a grey square."""
    try:
        image = _open(picture)
        image.thumbnail((side, side))
    except (OSError, ValueError, Image.DecompressionBombError):
        image = Image.new("RGB", (side, side), (203, 213, 225))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _open(picture: ImageInput) -> Image.Image:
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture).convert("RGB")
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    from unalike.errors import UnreadableImage

    try:
        return open_image(Path(picture)).convert("RGB")
    except UnreadableImage as error:
        raise OSError(str(error)) from error


def _plot(title: str, lines: Mapping[str, Sequence[tuple[float, float]]], x_name: str) -> str:
    """An SVG of lines with axes, four ticks a side, and a legend below."""
    width, height, left, top, bottom = 460, 270, 52, 26, 44
    clean = {
        name: [(float(x), float(y)) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in lines.items()
    }
    everything = [point for points in clean.values() for point in points]
    if not everything:
        return f"<b>{escape(title)}</b><p class=none>No values.</p>"
    x_low, x_high = _span([x for x, _ in everything])
    y_low, y_high = _span([y for _, y in everything])

    def at(x: float, y: float) -> tuple[float, float]:
        across = left + (x - x_low) / (x_high - x_low) * (width - left - 14)
        return across, height - bottom - (y - y_low) / (y_high - y_low) * (height - top - bottom)

    parts = [f"<text x={left} y=15 style='font-weight:600'>{escape(title)}</text>"]
    for step in range(5):
        x, y = x_low + (x_high - x_low) * step / 4, y_low + (y_high - y_low) * step / 4
        (across, _), (_, down) = at(x, y_low), at(x_low, y)
        parts.append(f"<line class=axis x1={left} x2={width - 14} y1={down:.1f} y2={down:.1f} />")
        parts.append(f"<text x={left - 6} y={down + 4:.1f} text-anchor=end>{y:.3g}</text>")
        parts.append(f"<text x={across:.1f} y={height - bottom + 16} text-anchor=middle>{x:.3g}</text>")
    parts.append(
        f"<text x={(left + width) / 2:.0f} y={height - bottom + 32} text-anchor=middle>{escape(x_name)}</text>"
    )
    legend = []
    for (name, points), colour in zip(clean.items(), PALETTE * (1 + len(clean) // len(PALETTE)), strict=False):
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(x, y) for x, y in points))
        parts.append(f"<polyline points='{path}' fill=none stroke='{colour}' stroke-width=2 stroke-linejoin=round />")
        if len(points) <= 30:
            dots = (at(x, y) for x, y in points)
            parts += [f"<circle cx={a:.1f} cy={b:.1f} r=2.6 fill='{colour}' />" for a, b in dots]
        legend.append(f"<span style='color:{colour}'>&#9632;</span> {escape(name)}")
    svg = f"<svg viewBox='0 0 {width} {height}' width={width} height={height} role=img aria-label='{escape(title)}'>"
    return f"{svg}{''.join(parts)}</svg><p>{' &nbsp; '.join(legend)}</p>"


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
