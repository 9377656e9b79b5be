"""What a verification leaves for people: a picture an answer, ``verdicts.jsonl`` and one HTML file.

Shapes: H, W of a picture; frames as in ``differing``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from unalike.data.decode import open_image
from unalike.report.drawing import boxed, heat_picture
from unalike.report.html import Report, Tile
from unalike.runs.filenames import REPORT_FILE, VERDICTS_FILE
from unalike.storage.atomic import atomic_write, write_text
from unalike.verification.approved_set import ApprovedSet
from unalike.verification.asset import Asset
from unalike.verification.regions import COUNTS

# Longest side of the pictures that are written.
LONGEST = 640
LINE = {"same": (22, 163, 74), "altered": (220, 38, 38), "different": (217, 119, 6), "not in the set": (100, 116, 139)}


def overlay(picture: Image.Image, verdict: Any) -> Image.Image:
    """The picture with the asset's outline in the colour of the answer, and a box with its score where it differs."""
    image = picture.convert("RGB").copy()
    size = verdict.size if min(verdict.size) else (image.height, image.width)
    image.thumbnail((LONGEST, LONGEST))
    image = boxed(image, list(verdict.spots), size)
    if verdict.outline and verdict.answer in ("same", "altered"):
        factor = image.width / size[1]
        points = [(x * factor, y * factor) for x, y in verdict.outline]
        ImageDraw.Draw(image).polygon(points, outline=LINE[verdict.answer], width=max(2, max(image.size) // 200))
    return image


def side_by_side(asset: Asset, verdict: Any) -> Image.Image | None:
    """Three pictures in the asset's frame: the asset as approved, what was seen there, where it differs."""
    found = verdict.found
    if found is None:
        return None
    height, width = found.seen_HW3.shape[:2]
    own = Image.fromarray(asset.on()).resize((width, height), Image.Resampling.LANCZOS)
    heat = heat_picture(found.heat_HW, found.seen_HW3, COUNTS)
    parts = [own, Image.fromarray(found.seen_HW3), heat.convert("RGB")]
    scale = max(1, round(220 / max(height, width)))
    gap = 6
    sheet = Image.new("RGB", (3 * width * scale + 2 * gap, height * scale), (255, 255, 255))
    for place, part in enumerate(parts):
        sheet.paste(
            part.resize((width * scale, height * scale), Image.Resampling.NEAREST), (place * (width * scale + gap), 0)
        )
    return sheet


def write_page(folder: Path, approved: ApprovedSet, verdicts: Sequence[tuple[Path, Any]], *, most: int = 60) -> Path:
    """Write ``verdicts.jsonl``, ``NAME.overlay.png`` and ``NAME.parts.png`` for what is not the same, ``report.html``."""
    folder.mkdir(parents=True, exist_ok=True)
    assets = {asset.name: asset for asset in approved.assets}
    lines, rows, taken = [], [], set()
    order = {"altered": 0, "different": 1, "not in the set": 2, "same": 3}
    for path, verdict in verdicts:
        stem, number = path.stem, 1
        while stem in taken:
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem)
        told = {"path": str(path), **verdict.to_dict()}
        picture = overlay(open_image(path, min_size=(LONGEST, LONGEST)), verdict)
        asset = assets.get(verdict.asset or "")
        sheet = side_by_side(asset, verdict) if asset is not None else None
        if verdict.answer != "same":
            told["overlay"] = f"{stem}.overlay.png"
            _save(picture, folder / told["overlay"])
            if sheet is not None and verdict.answer == "altered":
                told["parts"] = f"{stem}.parts.png"
                _save(sheet, folder / told["parts"])
        lines.append(json.dumps(told, ensure_ascii=True))
        rows.append((order[verdict.answer], path, verdict, picture, asset))
    write_text(folder / VERDICTS_FILE, "\n".join(lines) + "\n" if lines else "")
    return _report(approved, sorted(rows, key=lambda row: row[0]), most).write(folder / REPORT_FILE)


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_write(path) as partial:
        picture.save(partial)


def _report(
    approved: ApprovedSet, rows: Sequence[tuple[int, Path, Any, Image.Image, Asset | None]], most: int
) -> Report:
    counts = {name: sum(verdict.answer == name for _, _, verdict, _, _ in rows) for name in LINE}
    limits = approved.limits
    page = Report("Verification", f"{len(rows)} pictures held against {len(approved.assets)} approved assets")
    page.figures([(name, str(count)) for name, count in counts.items()])
    shown = []
    for _, path, verdict, picture, asset in rows[:most]:
        tiles = [Tile(asset.on(), asset.name)] if asset is not None else []
        if verdict.found is not None and verdict.answer != "not in the set":
            tiles.append(Tile(verdict.found.seen_HW3, "as seen"))
            tiles.append(Tile(heat_picture(verdict.found.heat_HW, verdict.found.seen_HW3, COUNTS), "differs"))
        shown.append((Tile(picture, f"{path.name}: {verdict}", verdict.score, verdict.answer == "same"), tiles))
    rest = f" {len(rows) - most} more are in verdicts.jsonl." if len(rows) > most else ""
    page.gallery(
        "Pictures", shown, note="The picture, the asset, what was seen in its place, and where that differs." + rest
    )
    if limits is not None:
        page.table("Limits", [
            {"measure": name, "harmless pictures stay below": value} for name, value in limits.limits.items()
        ], note=str(limits))  # fmt: skip
    return page
