"""Images of evidence maps: green where a region is evidence for a match, red where it is against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from unalike.explanation.evidence import Evidence

if TYPE_CHECKING:
    from unalike.explanation.explainer import Explanation

FOR, AGAINST = (22, 163, 74), (220, 38, 38)


def overlay_map(
    image_HWC: np.ndarray, values_hw: np.ndarray, color: tuple[int, int, int], largest: float
) -> Image.Image:
    """Draw a map over the gray image.

    Args:
        image_HWC: The image, uint8.
        values_hw: The map; values from 0 to ``largest`` are drawn ever more opaque, those below 0 not at all.
        color: RGB.
        largest: The value that is drawn fully.
    """
    height, width = image_HWC.shape[:2]
    level = np.clip(values_hw / max(largest, 1e-12), 0, 1).astype(np.float32)
    alpha = np.asarray(Image.fromarray(level).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)[..., None]
    gray = image_HWC.astype(np.float32).mean(axis=2, keepdims=True) * 0.6 + 90
    return Image.fromarray((gray * (1 - 0.8 * alpha) + np.array(color) * 0.8 * alpha).clip(0, 255).astype(np.uint8))


def evidence_row(image_HWC: np.ndarray, evidence: Evidence) -> list[Image.Image]:
    """The image, the map for the match, the map against it; each map is on its own scale."""
    return [
        Image.fromarray(image_HWC),
        overlay_map(image_HWC, evidence.for_hw, FOR, float(evidence.for_hw.max(initial=0))),
        overlay_map(image_HWC, evidence.against_hw, AGAINST, float(evidence.against_hw.max(initial=0))),
    ]


def evidence_sheet(explanation: Explanation, side: int = 200) -> Image.Image:
    """Two rows, the query and its reference: the image, for, against; each ``side`` pixels wide."""
    gap = 6
    rows = [
        evidence_row(explanation.query_HWC, explanation.query),
        evidence_row(explanation.reference_HWC, explanation.reference),
    ]
    height = round(side * rows[0][0].height / rows[0][0].width)
    sheet = Image.new("RGB", (3 * side + 2 * gap, 2 * height + gap), (255, 255, 255))
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image.resize((side, height), Image.Resampling.BICUBIC), (x * (side + gap), y * (height + gap)))
    return sheet
