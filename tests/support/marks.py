"""Marks drawn with Pillow, images of them, and an engine that embeds thumbnails: for tests of verification."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unalike.data.view import View
from unalike.verification.asset import Asset, open_asset
from unalike.verification.benign import render_benign, warp_layer


def mark(number: int, side: int = 160) -> Asset:
    """Mark ``number``: two shapes, a word and a color of its own, on a transparent background."""
    rng = np.random.default_rng([number, 4])
    layer = Image.new("RGBA", (2 * side, 2 * side))
    draw = ImageDraw.Draw(layer)
    first, second = (
        (*(int(v) for v in rng.permutation([rng.integers(0, 40), rng.integers(0, 200), rng.integers(150, 210)])), 255)
        for _ in range(2)
    )
    ring = rng.uniform(0.25, 0.4) * side
    middle = (0.75 * side, 0.8 * side)
    draw.ellipse(
        [middle[0] - ring, middle[1] - ring, middle[0] + ring, middle[1] + ring], outline=first, width=side // 8
    )
    points = rng.uniform([1.1, 0.3], [1.9, 1.2], (5, 2)) * side
    hull = points[np.argsort(np.arctan2(*(points - points.mean(0)).T[::-1]))]
    draw.polygon([tuple(p) for p in hull], fill=second)
    word = "".join(chr(ord("A") + int(v)) for v in rng.integers(0, 26, 4))
    draw.text((0.3 * side, 1.35 * side), word, fill=first, font=ImageFont.load_default(0.5 * side))
    return open_asset(layer.resize((side, side), Image.Resampling.LANCZOS), f"mark {number}")


def wordmark(word: str = "Marenova", color: tuple[int, int, int] = (10, 70, 160)) -> Asset:
    """A word about five times as wide as high, on a transparent background."""
    font = ImageFont.load_default(120)
    layer = Image.new("RGBA", (100 * len(word) + 100, 200), (*color, 0))
    ImageDraw.Draw(layer).text((30, 20), word, fill=(*color, 255), font=font)
    return open_asset(layer, word)


def draw_scene(
    asset: Asset, background_HW3: np.ndarray | None = None, rotation: float = 0.0, share: float = 0.6
) -> np.ndarray:
    """An asset that fills ``share`` of the width of a picture of 600 x 400, on white or on a background; uint8."""
    scale, angle = 600 * share / asset.size[1], np.deg2rad(rotation)
    linear = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    pose = np.column_stack([linear, [300, 200] - linear @ [asset.size[1] / 2, asset.size[0] / 2]])
    color, alpha = warp_layer(asset.layer_HW4, pose, (400, 600))
    ground = np.full((400, 600, 3), 255.0) if background_HW3 is None else background_HW3
    return np.clip(ground * (1 - alpha[..., None]) + color * alpha[..., None] + 0.5, 0, 255).astype(np.uint8)


def draw_busy_background(seed: int, low: int = 120, high: int = 255) -> np.ndarray:
    """Noise of several scales with disks in it, as busy as a photograph; float32 (400, 600, 3)."""
    rng = np.random.default_rng(seed)
    canvas = np.zeros((400, 600, 3), np.float32)
    for cells in (5, 15, 45):
        coarse = Image.fromarray(rng.integers(0, 255, (cells, cells, 3), dtype=np.uint8))
        canvas += np.asarray(coarse.resize((600, 400), Image.Resampling.BICUBIC), np.float32) / 3
    image = Image.fromarray(canvas.astype(np.uint8))
    for x, y, radius in rng.uniform([0, 0, 10], [600, 400, 60], (14, 3)):
        fill = tuple(int(v) for v in rng.integers(40, 255, 3))
        ImageDraw.Draw(image).ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)
    return np.asarray(image, np.float32) / 255 * (high - low) + low


def render_mark(number: int, seed: int, layer_HW4: np.ndarray | None = None) -> np.ndarray:
    """A benign image of a mark, or of a changed layer in its place; uint8 (H, W, 3)."""
    return render_benign(mark(number), np.random.default_rng([seed, 50]), layer_HW4=layer_HW4).image_HW3


class ThumbnailEngine:
    """16 x 16 gray thumbnails without their mean as vectors: enough to find one of a few marks."""

    name, precision, dim, input_size, batch = "thumbnails", "fp32", 256, (64, 64), 16

    def describe(self):
        return {"runtime": self.name}

    def __call__(self, images_BHWC):
        gray = np.asarray(images_BHWC, np.float32).mean(3)
        small = gray.reshape(len(gray), 16, 4, 16, 4).mean((2, 4)).reshape(len(gray), -1)
        # Ink is darker or lighter than the border: the distance from the border's brightness.
        border = np.median(np.concatenate([gray[:, 0], gray[:, -1]], axis=1), axis=1)
        return np.abs(small - border[:, None]) + 1e-3


VIEW = View(64, 64, 1.0)
