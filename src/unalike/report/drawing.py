"""Pictures of differences for people: boxes with scores, two pictures in one, heat over a greyed picture.

Shapes: H, W of the shown picture; h, w of a map that covers the same view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageDraw

BOX = (220, 38, 38)


class Boxed(Protocol):
    """What has a box (left, top, right, bottom) and a score."""

    @property
    def box(self) -> tuple[int, int, int, int]: ...

    @property
    def score(self) -> float: ...


def boxed(picture: np.ndarray | Image.Image, regions: Sequence[Boxed], size: tuple[int, int]) -> Image.Image:
    """The picture with a frame and a score a region; boxes are in pixels of an image of ``size`` (H, W)."""
    image = (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).convert("RGB").copy()
    draw = ImageDraw.Draw(image)
    fx, fy = image.width / size[1], image.height / size[0]
    line = max(1, round(max(image.size) / 400))
    for region in regions:
        left, top, right, bottom = region.box
        frame = (left * fx, top * fy, right * fx - 1, bottom * fy - 1)
        draw.rectangle(frame, outline=BOX, width=line)
        text = f"{region.score:.3g}"
        place: Any = draw.textbbox((frame[0], frame[1]), text)
        height = place[3] - place[1] + 4
        above = frame[1] - height if frame[1] >= height else min(frame[3] + 1, image.height - height)
        x = max(0.0, min(frame[0], image.width - (place[2] - place[0]) - 4))
        draw.rectangle((x, above, x + place[2] - place[0] + 4, above + height - 1), fill=BOX)
        draw.text((x + 2, above + 2 - (place[1] - frame[1])), text, fill=(255, 255, 255))
    return image


def blended(reference_HWC: np.ndarray, image_HWC: np.ndarray) -> np.ndarray:
    """Two aligned pictures in one, in grey where they agree: darker only in the image is blue, only in the reference orange."""
    a, b = (picture.astype(np.float32).mean(axis=2) for picture in (reference_HWC, image_HWC))
    return np.stack([b, (a + b) / 2, a], axis=-1).astype(np.uint8)


def heat_picture(heat_hw: np.ndarray, picture_HWC: np.ndarray, threshold: float) -> Image.Image:
    """Heat over the greyed picture: clear at 0, yellow near ``threshold``, red at twice that and above."""
    height, width = picture_HWC.shape[:2]
    heat = np.asarray(Image.fromarray(heat_hw).resize((width, height), Image.Resampling.BOX), np.float32)
    level = np.clip(heat / max(1e-6, 2 * threshold), 0, 1)[..., None]
    grey = picture_HWC.astype(np.float32).mean(axis=2, keepdims=True) * 0.5 + 110
    colour = np.concatenate([np.full_like(level, 235), 210 * (1 - level), 20 * (1 - level)], axis=-1)
    share = np.clip(level * 2, 0, 1) * 0.85
    return Image.fromarray((grey * (1 - share) + colour * share).clip(0, 255).astype(np.uint8))
