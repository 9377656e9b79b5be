"""Grounds of the scenes of ``verification_scenes.py``: drawn textures, and crops of photographs on which a drawing is visible."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from unalike.verification.benign import warp_layer


def draw_texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise of several scales with bars and disks in it; uint8 (H, W, 3)."""
    texture = np.zeros((height, width, 3), np.float32)
    for cells in (4, 12, 40, 120):
        coarse = Image.fromarray(rng.integers(0, 255, (cells, cells, 3), dtype=np.uint8))
        texture += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 4
    image = Image.fromarray(np.clip((texture - 127) * 1.6 + rng.uniform(60, 190), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(6, 25))):
        x, y, size = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(10, 120)
        fill = tuple(int(v) for v in rng.integers(0, 255, 3))
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(
            [x, y, x + size, y + size * rng.uniform(0.2, 1)], fill=fill
        )
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1)))


def choose_ground(
    layer_HW4: np.ndarray,
    photographs: list[np.ndarray],
    size: tuple[int, int],
    pose_23: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Crop a photograph on which the drawing is visible, lightened or darkened where none is, as designers do."""
    colors, alpha = warp_layer(layer_HW4, pose_23, size)
    ink = alpha > 0.5
    best: tuple[float, np.ndarray] = (-1.0, np.zeros((*size, 3), np.float32))
    for attempt in range(24):
        photograph = photographs[int(rng.integers(len(photographs)))].astype(np.float32)
        scale = max(size[0] / photograph.shape[0], size[1] / photograph.shape[1]) * rng.uniform(1.0, 1.3)
        resized = cv2.resize(
            photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        )
        y, x = (int(rng.integers(0, resized.shape[axis] - size[axis] + 1)) for axis in (0, 1))
        ground = np.clip(resized[y : y + size[0], x : x + size[1]], 0, 255)
        if attempt >= 12:
            ground = ground * 0.5 if colors[ink].mean() > 110 else 255 - (255 - ground) * 0.5
        visible = float((np.abs(ground - colors).mean(axis=2)[ink] > 55).mean())
        if visible > best[0]:
            best = (visible, ground)
        if visible > 0.9:
            break
    return best[1]
