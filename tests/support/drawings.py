"""Drawings to compare: boards of tracks and pads, images of colored shapes, and motions; all determined by a seed."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw


def board(seed: int = 0, height: int = 320, width: int = 320) -> np.ndarray:
    """Black tracks and pads on white, uint8 (H, W)."""
    draws = np.random.default_rng(seed)
    image = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(image)
    for _ in range(height * width // 9000 + 3):
        x, y = int(draws.integers(10, width - 10)), int(draws.integers(10, height - 10))
        reach = int(draws.integers(40, 160))
        end = (x + reach, y) if draws.random() < 0.5 else (x, y + reach)
        draw.line([(x, y), end], fill=0, width=int(draws.integers(9, 16)))
        draw.ellipse([x - 14, y - 14, x + 14, y + 14], fill=0)
    return np.array(image)


def shapes(seed: int = 0, height: int = 240, width: int = 320) -> np.ndarray:
    """Colored ellipses and rectangles on a pale background, uint8 (H, W, 3)."""
    draws = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), (228, 222, 214))
    draw = ImageDraw.Draw(image)
    for number in range(36):
        x, y = int(draws.integers(0, width - 20)), int(draws.integers(0, height - 20))
        a, b = (int(v) for v in draws.integers(10, 50, 2))
        color = tuple(int(v) for v in draws.integers(0, 200, 3))
        (draw.ellipse if number % 2 else draw.rectangle)([x, y, x + a, y + b], fill=color)
    return np.array(image)


def as_jpeg(pixels: np.ndarray, quality: int = 75) -> np.ndarray:
    """The pixels after JPEG, color at half the resolution."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file).convert("RGB" if pixels.ndim == 3 else "L"))


def similarity_matrix(degrees: float, scale: float, shift: tuple[float, float], width: int, height: int) -> np.ndarray:
    """The 3 x 3 matrix that rotates and scales about the center of an image, then shifts."""
    angle = np.deg2rad(degrees)
    inner = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    center = np.array([width, height]) / 2
    return np.vstack([np.column_stack([inner, center - inner @ center + shift]), [0, 0, 1]])
