"""One self-contained page of compared pairs: figures, the pictures of the most different ones, a table of all."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Protocol

from PIL import Image

from unalike.report.html import Report

# Longer side in pixels of a picture in the page, about 20 kB each as JPEG.
SIDE = 440
CAPTIONS = {
    "reference": "reference, aligned", "boxes": "image",
    "overlay": "both: only in the image is blue, only in the reference orange", "heat": "heat: pixels",
    "heat_features": "heat: features",
}  # fmt: skip


class Found(Protocol):
    """What is told of a pair."""

    @property
    def same(self) -> bool: ...

    @property
    def regions(self) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Shown:
    """One pair as the page shows it: its pictures as small JPEGs by their kind, a key of CAPTIONS."""

    name: str
    score: float
    told: str
    jpegs: Mapping[str, bytes]

    @classmethod
    def small(cls, name: str, score: float, found: Found, pictures: Mapping[str, Image.Image]) -> Shown:
        """Keep a pair at the size in which it is shown."""
        count = len(found.regions)
        told = "no difference" if found.same else f"{count} difference{'s' if count > 1 else ''}, scores " + ", ".join(
            f"{region.score:.3g}" for region in found.regions[:8]
        ) + (", ..." if count > 8 else "")  # fmt: skip
        return cls(name, score, told, {kind: _jpeg(picture) for kind, picture in pictures.items()})


class PairsReport(Report):
    """A Report with rows of pictures."""

    @classmethod
    def of(cls, entries: Sequence[Mapping[str, Any]], shown: Sequence[Shown]) -> PairsReport:
        """The page of compared pairs (entries as in ``comparison.json``)."""
        page = cls("Spot the difference", f"{len(entries)} pairs")
        refused = [entry for entry in entries if "error" in entry]
        page.figures([("the same", str(sum(e.get("same") is True for e in entries))),
                      ("different", str(sum(e.get("same") is False for e in entries))),
                      ("could not be compared", str(len(refused)))])  # fmt: skip
        differing = sorted((one for one in shown if one.score > 0), key=lambda one: -one.score)
        left_out = sum(e.get("same") is False for e in entries) - len(differing)
        note = "The most different first." + (f" {left_out} more are in the table." if left_out > 0 else "")
        page.rows("What differs", differing, note)
        page.rows("No difference found", [one for one in shown if one.score <= 0][:20])
        if refused:
            page.table("Could not be compared", [{"pair": e["name"], "why": e["error"]} for e in refused])
        page.table("All pairs", [_row(entry) for entry in entries])
        return page

    def rows(self, title: str, shown: Sequence[Shown], note: str = "") -> PairsReport:
        """Rows of a pair's pictures."""
        if shown:
            self._add(title, note, "".join(_drawn(one) for one in shown))
        return self


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    regions = entry.get("regions", ())
    lies = entry.get("registration", {})
    return {
        "pair": entry["name"], "answer": "refused" if "error" in entry else "same" if entry["same"] else "different",
        "differences": len(regions), "highest_score": float(regions[0]["score"]) if regions else None,
        "alignment": lies.get("method"), "quality": lies.get("quality"), "compared": entry.get("compared"),
    }  # fmt: skip


def _drawn(one: Shown) -> str:
    figures = "".join(
        f'<figure style="width:min(100%,{SIDE}px)"><img style="width:100%;height:auto;border-width:1px" alt="{escape(CAPTIONS[kind])}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">{escape(CAPTIONS[kind])}</figure>'
        for kind, jpeg in one.jpegs.items()
    )
    head = f"<b>{escape(one.name)}</b> {escape(one.told)}"
    return f'<div>{head}</div><div class=row style="flex-wrap:wrap">{figures}</div>'


def _jpeg(picture: Image.Image) -> bytes:
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return file.getvalue()
