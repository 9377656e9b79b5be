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
        answer: same, different or incomplete.
        score: The highest score of its regions; without one 0.5 if the answer is not ``same``, else 0.
        summary: One line about the result.
        jpegs: Small JPEG files by kind, a key of CAPTIONS.
    """

    name: str
    answer: str
    score: float
    summary: str
    jpegs: Mapping[str, bytes]

    @classmethod
    def from_result(cls, name: str, result: ComparisonResult, images: Mapping[str, Image.Image]) -> PairPreview:
        """Reduce a result and its images, by kind, to the size of the page."""
        score = result.regions[0].score if result.regions else 0.0 if result.same else 0.5
        return cls(
            name,
            result.answer,
            score,
            _summarize(result),
            {kind: _encode_jpeg(image) for kind, image in images.items()},
        )


def make_pairs_report(entries: Sequence[Mapping[str, Any]], previews: Sequence[PairPreview]) -> Report:
    """Make the page of compared pairs.

    Args:
        entries: All pairs, as in ``comparison.json``.
        previews: The pairs whose images are shown.
    """
    page = Report("Comparison")
    failures = [entry for entry in entries if "error" in entry]
    counts = {
        answer: sum(entry.get("answer") == answer for entry in entries)
        for answer in ("same", "different", "incomplete")
    }
    page.sentence(_describe_counts(counts, len(failures), len(entries)))
    differing = sorted((preview for preview in previews if preview.score > 0), key=lambda preview: -preview.score)
    left_out = sum(e.get("same") is False for e in entries) - len(differing)
    note = "The most different first." + (f" {left_out} more are in the table." if left_out > 0 else "")
    _add_pairs(page, "What differs, or could not be compared in full", differing, note)
    _add_pairs(page, "No difference found", [preview for preview in previews if preview.score <= 0][:MAX_SAME_PAIRS])
    page.figures([("the same", str(counts["same"])), ("different", str(counts["different"])),
                  ("incomplete", str(counts["incomplete"])), ("could not be compared", str(len(failures)))],
                 note=f"Pairs, {len(entries)} in all.")  # fmt: skip
    if failures:
        page.table("Could not be compared", [{"pair": e["name"], "why": e["error"]} for e in failures], stack=True)
    page.table("All pairs", [_table_row(entry) for entry in entries])
    return page


def _describe_counts(counts: Mapping[str, int], failures: int, total: int) -> str:
    """Say how many pairs are the same and how many differ."""
    one = total == 1
    parts = [f"{counts['different']:,} {'shows' if counts['different'] == 1 else 'show'} a difference",
             f"{counts['same']:,} {'does' if counts['same'] == 1 else 'do'} not"]  # fmt: skip
    if counts["incomplete"]:
        parts.append(f"{counts['incomplete']:,} could not be compared in full")
    if failures:
        parts.append(f"{failures:,} could not be compared at all")
    return f"Of {total:,} pair{'' if one else 's'}, {', '.join(parts[:-1])} and {parts[-1]}."


def _add_pairs(page: Report, title: str, previews: Sequence[PairPreview], note: str = "") -> None:
    """Add a section with a row of images per pair; nothing without pairs."""
    rows = [
        LargeImages(preview.name, preview.summary, [(CAPTIONS[kind], jpeg) for kind, jpeg in preview.jpegs.items()],
                    {"same": True, "different": False}.get(preview.answer), preview.answer)
        for preview in previews
    ]  # fmt: skip
    if rows:
        page.large_images(title, rows, note=note)


def _summarize(result: ComparisonResult) -> str:
    settings = f". {result.sensitivity.describe().capitalize()}" if result.sensitivity else ""
    left_out = f". Not looked for: {result.not_looked_for}" if result.not_looked_for else ""
    return _answer_in_words(result) + settings + left_out


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
