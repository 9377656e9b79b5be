"""Drawings of differences and anomalies: boxes with scores, two images blended, a heat map over a grayed image.

Shapes: H, W of the displayed image; h, w of a map that covers the same view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

BOX_COLOR = (220, 38, 38)


class ScoredBox(Protocol):
    """A region with a box (left, top, right, bottom) and a score."""

    @property
    def box(self) -> tuple[int, int, int, int]: ...

    @property
    def score(self) -> float: ...


def draw_boxes(image: np.ndarray | Image.Image, regions: Sequence[ScoredBox], size: tuple[int, int]) -> Image.Image:
    """Draw a frame and the score of each region.

    Args:
        image: The image, uint8 (H, W, C) if an array.
        regions: Regions with boxes in pixels of an image of ``size``.
        size: Height and width that the boxes refer to.

    Returns:
        A copy with the frames.
    """
    canvas = (Image.fromarray(image) if isinstance(image, np.ndarray) else image).convert("RGB").copy()
    draw = ImageDraw.Draw(canvas)
    scale_x, scale_y = canvas.width / size[1], canvas.height / size[0]
    line_width = max(1, round(max(canvas.size) / 400))
    for region in regions:
        left, top, right, bottom = region.box
        frame = (left * scale_x, top * scale_y, right * scale_x - 1, bottom * scale_y - 1)
        draw.rectangle(frame, outline=BOX_COLOR, width=line_width)
        text = f"{region.score:.3g}"
        text_left, text_top, text_right, text_bottom = draw.textbbox((frame[0], frame[1]), text)
        height = text_bottom - text_top + 4
        y = frame[1] - height if frame[1] >= height else min(frame[3] + 1, canvas.height - height)
        x = max(0.0, min(frame[0], canvas.width - (text_right - text_left) - 4))
        draw.rectangle((x, y, x + text_right - text_left + 4, y + height - 1), fill=BOX_COLOR)
        draw.text((x + 2, y + 2 - (text_top - frame[1])), text, fill=(255, 255, 255))
    return canvas


def blend_images(reference_HWC: np.ndarray, image_HWC: np.ndarray) -> np.ndarray:
    """Blend two aligned images: gray where they agree, blue where only the image is darker, orange where only the reference is."""
    a, b = (image.astype(np.float32).mean(axis=2) for image in (reference_HWC, image_HWC))
    return np.stack([b, (a + b) / 2, a], axis=-1).astype(np.uint8)


def hatch(image_HWC: np.ndarray, mask_hw: np.ndarray) -> np.ndarray:
    """Hatch an image, uint8 RGB, where a mask of the same view is set; returns a new array."""
    height, width = image_HWC.shape[:2]
    mask_HW = np.asarray(Image.fromarray(mask_hw).resize((width, height), Image.Resampling.NEAREST))
    step = max(4, round(max(height, width) / 80))
    y, x = np.ogrid[:height, :width]
    lines = ((x + y) % step < max(1, step // 4)) & mask_HW
    result: np.ndarray = np.where(mask_HW[..., None], image_HWC * 0.5 + np.array(BOX_COLOR) * 0.15 + 80, image_HWC)
    result[lines] = BOX_COLOR
    return result.clip(0, 255).astype(np.uint8)


def draw_heat(heat_hw: np.ndarray, image_HWC: np.ndarray, threshold: float) -> Image.Image:
    """Draw a heat map over the grayed image: clear at 0, yellow near the threshold, red at twice that and above."""
    height, width = image_HWC.shape[:2]
    heat = np.asarray(Image.fromarray(heat_hw).resize((width, height), Image.Resampling.BOX), np.float32)
    level = np.clip(heat / max(1e-6, 2 * threshold), 0, 1)[..., None]
    gray = image_HWC.astype(np.float32).mean(axis=2, keepdims=True) * 0.5 + 110
    color = np.concatenate([np.full_like(level, 235), 210 * (1 - level), 20 * (1 - level)], axis=-1)
    opacity = np.clip(level * 2, 0, 1) * 0.85
    return Image.fromarray((gray * (1 - opacity) + color * opacity).clip(0, 255).astype(np.uint8))
