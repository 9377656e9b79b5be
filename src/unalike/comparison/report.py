"""HTML report of compared pairs: counts, images of the most different pairs, a table of all pairs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from unalike.comparison.result import ComparisonResult
from unalike.report.html import LargeImages, Report

# Longer side in pixels of an image in the page; about 20 kB each as JPEG.
IMAGE_SIDE = 440
# Most scores that are listed, and most pairs without a difference that are shown.
MAX_SCORES, MAX_SAME_PAIRS = 8, 20
CAPTIONS = {
    "reference": "reference, aligned", "boxes": "image",
    "overlay": "both: only in the image is blue, only in the reference orange", "heat": "heat: pixels",
    "heat_features": "heat: features", "missing": "reference, hatched where the image shows nothing of it",
}  # fmt: skip


@dataclass(frozen=True)
class PairPreview:
    """One pair as the page shows it.

    Attributes:
        name: Name of the pair.
        score: The highest score of its regions; without one 0.5 if the answer is not ``same``, else 0.
        summary: One line about the result.
        jpegs: Small JPEG files by kind, a key of CAPTIONS.
    """

    name: str
    score: float
    summary: str
    jpegs: Mapping[str, bytes]

    @classmethod
    def from_result(cls, name: str, result: ComparisonResult, images: Mapping[str, Image.Image]) -> PairPreview:
        """Reduce a result and its images, by kind, to the size of the page."""
        score = result.regions[0].score if result.regions else 0.0 if result.same else 0.5
        return cls(name, score, _summarize(result), {kind: _encode_jpeg(image) for kind, image in images.items()})


def make_pairs_report(entries: Sequence[Mapping[str, Any]], previews: Sequence[PairPreview]) -> Report:
    """Make the page of compared pairs.

    Args:
        entries: All pairs, as in ``comparison.json``.
        previews: The pairs whose images are shown.
    """
    page = Report("Spot the difference", f"{len(entries)} pairs")
    failures = [entry for entry in entries if "error" in entry]
    page.figures([("the same", str(sum(e.get("answer") == "same" for e in entries))),
                  ("different", str(sum(e.get("answer") == "different" for e in entries))),
                  ("incomplete", str(sum(e.get("answer") == "incomplete" for e in entries))),
                  ("could not be compared", str(len(failures)))])  # fmt: skip
    differing = sorted((preview for preview in previews if preview.score > 0), key=lambda preview: -preview.score)
    left_out = sum(e.get("same") is False for e in entries) - len(differing)
    note = "The most different first." + (f" {left_out} more are in the table." if left_out > 0 else "")
    _add_pairs(page, "What differs, or could not be compared in full", differing, note)
    _add_pairs(page, "No difference found", [preview for preview in previews if preview.score <= 0][:MAX_SAME_PAIRS])
    if failures:
        page.table("Could not be compared", [{"pair": e["name"], "why": e["error"]} for e in failures])
    page.table("All pairs", [_table_row(entry) for entry in entries])
    return page


def _add_pairs(page: Report, title: str, previews: Sequence[PairPreview], note: str = "") -> None:
    """Add a section with a row of images per pair; nothing without pairs."""
    rows = [
        LargeImages(preview.name, preview.summary, [(CAPTIONS[kind], jpeg) for kind, jpeg in preview.jpegs.items()])
        for preview in previews
    ]
    if rows:
        page.large_images(title, rows, note=note)


def _summarize(result: ComparisonResult) -> str:
    left_out = f". Not looked for: {result.not_looked_for}" if result.not_looked_for else ""
    return _answer_in_words(result) + left_out


def _answer_in_words(result: ComparisonResult) -> str:
    if result.same:
        return "no difference"
    count = len(result.regions)
    if not count:
        return f"{result.answer}: {'; '.join(result.reasons)}"
    scores = ", ".join(f"{region.score:.3g}" for region in result.regions[:MAX_SCORES])
    rest = ", ..." if count > MAX_SCORES else ""
    others = "".join(f"; {reason}" for reason in result.reasons[1:])
    return f"{count} difference{'s' if count > 1 else ''}, scores {scores}{rest}{others}"


def _table_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    regions = entry.get("regions", ())
    registration = entry.get("registration", {})
    return {
        "pair": entry["name"],
        "answer": "refused" if "error" in entry else entry["answer"],
        "differences": len(regions),
        "highest_score": float(regions[0]["score"]) if regions else None,
        "alignment": registration.get("method"),
        "quality": registration.get("quality"),
        "compared": entry.get("compared"),
        "coverage_reference": entry.get("coverage_reference"),
        "coverage_image": entry.get("coverage_image"),
    }


def _encode_jpeg(image: Image.Image) -> bytes:
    small = image.convert("RGB")
    small.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return file.getvalue()
