"""Pictures of why two images match: green where a part speaks for it, red where it speaks against."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from unalike.explanation.evidence import Evidence

FOR, AGAINST = (22, 163, 74), (220, 38, 38)


def shaded(image_HWC: np.ndarray, values_hw: np.ndarray, colour: tuple[int, int, int], most: float) -> Image.Image:
    """The greyed image with ``values_hw`` (0 to ``most``) laid over it in a colour; what is below 0 stays clear."""
    height, width = image_HWC.shape[:2]
    level = np.clip(values_hw / max(most, 1e-12), 0, 1).astype(np.float32)
    large = np.asarray(Image.fromarray(level).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)[..., None]
    grey = image_HWC.astype(np.float32).mean(axis=2, keepdims=True) * 0.6 + 90
    return Image.fromarray((grey * (1 - 0.8 * large) + np.array(colour) * 0.8 * large).clip(0, 255).astype(np.uint8))


def evidence_row(image_HWC: np.ndarray, evidence: Evidence) -> list[Image.Image]:
    """The image, what speaks for the match, what speaks against it; each map on its own scale."""
    return [
        Image.fromarray(image_HWC),
        shaded(image_HWC, evidence.for_hw, FOR, float(evidence.for_hw.max(initial=0))),
        shaded(image_HWC, evidence.against_hw, AGAINST, float(evidence.against_hw.max(initial=0))),
    ]


def evidence_sheet(explanation: Any, side: int = 200) -> Image.Image:
    """Two rows, the query and its reference: the image, for, against."""
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
