"""Report of a verification: overlays and side-by-side images, ``verdicts.jsonl`` and one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from unalike.data.decode import open_image
from unalike.report.drawing import draw_boxes, draw_heat
from unalike.report.html import Report, ReportImage
from unalike.runs.filenames import REPORT_FILE, VERDICTS_FILE, bounded_stem
from unalike.source_names import source_name
from unalike.storage.atomic import atomic_write, write_text
from unalike.verification.approved_set import ApprovedSet
from unalike.verification.asset import Asset
from unalike.verification.measures import AREA_HEAT, AssetDifference
from unalike.verification.result import ABSENT, ALTERED, DIFFERENT, SAME, VerificationResult

# Longest side, in pixels, of the overlays; height or width of an image side by side; the gap between two.
MAX_SIDE, SHEET_SIDE, SHEET_GAP = 640, 220, 6
# Outline colors by answer, in the order of the counts on the page.
OUTLINE_COLORS = {SAME: (22, 163, 74), ALTERED: (220, 38, 38), DIFFERENT: (217, 119, 6), ABSENT: (100, 116, 139)}
# Order of the images on the page.
ORDER = (ALTERED, DIFFERENT, ABSENT, SAME)


@dataclass(frozen=True, eq=False)
class _ReportRow:
    """One verified image: its file, result, overlay, and the asset that it was compared with."""

    path: Path
    result: VerificationResult
    overlay: Image.Image
    asset: Asset | None


def draw_overlay(image: Image.Image, result: VerificationResult) -> Image.Image:
    """Draw the asset's outline, and boxes with scores where the image differs; at most ``MAX_SIDE`` pixels a side."""
    overlay = image.convert("RGB").copy()
    size = result.size if min(result.size) else (overlay.height, overlay.width)
    overlay.thumbnail((MAX_SIDE, MAX_SIDE))
    overlay = draw_boxes(overlay, list(result.regions), size)
    if result.outline and result.answer in (SAME, ALTERED):
        factor = overlay.width / size[1]
        points = [(x * factor, y * factor) for x, y in result.outline]
        width = max(2, max(overlay.size) // 200)
        ImageDraw.Draw(overlay).polygon(points, outline=OUTLINE_COLORS[result.answer], width=width)
    return overlay


def draw_side_by_side(asset: Asset, result: VerificationResult) -> Image.Image | None:
    """Draw the approved asset, the observed image in its frame, and the heat map, side by side.

    None where the asset was not found in the image.
    """
    difference = result.difference
    if difference is None:
        return None
    height, width = difference.observed_HW3.shape[:2]
    reference = Image.fromarray(asset.composite()).resize((width, height), Image.Resampling.LANCZOS)
    parts = [reference, Image.fromarray(difference.observed_HW3), _draw_heat(difference)]
    scale = max(1, round(SHEET_SIDE / max(height, width)))
    sheet = Image.new("RGB", (3 * width * scale + 2 * SHEET_GAP, height * scale), (255, 255, 255))
    for number, part in enumerate(parts):
        large_part = part.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        sheet.paste(large_part, (number * (width * scale + SHEET_GAP), 0))
    return sheet


def _draw_heat(difference: AssetDifference) -> Image.Image:
    return draw_heat(difference.heat_HW, difference.observed_HW3, AREA_HEAT).convert("RGB")


def write_report(
    folder: Path, approved_set: ApprovedSet, results: Sequence[tuple[Path, VerificationResult]], *, max_images: int = 60
) -> Path:
    """Write ``verdicts.jsonl``, ``report.html`` and, of images that are not the same, overlays and side-by-side images.

    Args:
        folder: Created where it is missing.
        approved_set: The assets.
        results: The files and their results.
        max_images: Most images on the page.

    Returns:
        The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    assets = {asset.name: asset for asset in approved_set.assets}
    decoding = approved_set.gallery.model_identity.decoding
    lines, rows = [], []
    names: set[str] = set()
    for path, result in results:
        name = _unused_name(bounded_stem(path.stem), names)
        names.add(name)
        record = {"path": source_name(path), **result.to_dict()}
        overlay = draw_overlay(open_image(path, decoding=decoding, min_size=(MAX_SIDE, MAX_SIDE)), result)
        asset = assets.get(result.asset)
        if result.answer != SAME:
            record["overlay"] = f"{name}.overlay.png"
            _save(overlay, folder / record["overlay"])
        sheet = draw_side_by_side(asset, result) if asset is not None and result.answer == ALTERED else None
        if sheet is not None:
            record["parts"] = f"{name}.parts.png"
            _save(sheet, folder / record["parts"])
        lines.append(json.dumps(record, ensure_ascii=True))
        rows.append(_ReportRow(path, result, overlay, asset))
    write_text(folder / VERDICTS_FILE, "\n".join(lines) + "\n" if lines else "")
    rows.sort(key=lambda row: ORDER.index(row.result.answer))
    return _make_page(approved_set, rows, max_images).write(folder / REPORT_FILE)


def _unused_name(stem: str, names: set[str]) -> str:
    name, number = stem, 1
    while name in names:
        number += 1
        name = f"{stem}-{number}"
    return name


def _save(image: Image.Image, path: Path) -> None:
    with atomic_write(path) as partial:
        image.save(partial)


def _make_page(approved_set: ApprovedSet, rows: Sequence[_ReportRow], max_images: int) -> Report:
    page = Report("Verification", f"{len(rows)} images compared with {len(approved_set.assets)} approved assets")
    counts = {answer: sum(row.result.answer == answer for row in rows) for answer in OUTLINE_COLORS}
    page.sentence(_describe_counts(counts))
    rest = f" {len(rows) - max_images} more are in {VERDICTS_FILE}." if len(rows) > max_images else ""
    page.gallery(
        "Images", [_gallery_row(row) for row in rows[:max_images]],
        note="The image, the nearest approved asset, what was observed in its place, and where that differs." + rest,
        columns=("image", "approved asset", "as observed", "where it differs"), score="score",
    )  # fmt: skip
    page.figures([(answer, str(number), "images") for answer, number in counts.items()])
    thresholds = approved_set.thresholds
    if thresholds is not None:
        limits = [{"measure": name, "benign images stay below": value} for name, value in thresholds.limits.items()]
        page.table("Limits", limits, note=str(thresholds))
    return page


def _describe_counts(counts: Mapping[str, int]) -> str:
    """Say how many images show an approved asset as it is."""
    total = sum(counts.values())
    parts = [f"{counts[SAME]:,} {'shows' if counts[SAME] == 1 else 'show'} an approved asset as it is",
             f"{counts[ALTERED]:,} {'shows' if counts[ALTERED] == 1 else 'show'} an altered one"]  # fmt: skip
    if counts[DIFFERENT]:
        parts.append(
            f"{counts[DIFFERENT]:,} {'shows' if counts[DIFFERENT] == 1 else 'show'} something that resembles one"
        )
    if counts[ABSENT]:
        parts.append(f"{counts[ABSENT]:,} {'shows' if counts[ABSENT] == 1 else 'show'} none of them")
    return f"Of {total:,} image{'' if total == 1 else 's'}, {', '.join(parts[:-1])} and {parts[-1]}."


def _gallery_row(row: _ReportRow) -> tuple[ReportImage, list[ReportImage]]:
    result = row.result
    tiles = [ReportImage(row.asset.composite(), row.asset.name)] if row.asset is not None else []
    if result.difference is not None and result.answer != ABSENT:
        tiles.append(ReportImage(result.difference.observed_HW3, ""))
        tiles.append(ReportImage(_draw_heat(result.difference), "red: differs most"))
    correct = None if result.answer == ABSENT else result.answer == SAME
    return ReportImage(row.overlay, f"{row.path.name}: {result}", result.score, correct, result.answer), tiles
