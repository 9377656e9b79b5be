"""Distractors: random drawings that are no asset, used as impostors when a set has few assets.

Each consists of two to four shapes, some of them letters, and is determined by (seed, number).
"""

from __future__ import annotations

import string

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unalike.verification.asset import Asset, open_asset

# Longest side, in pixels.
SIDE = 192


def draw_distractor(seed: int, number: int) -> Asset:
    """Draw distractor ``number`` of ``seed``: an asset of at most SIDE x SIDE pixels."""
    rng = np.random.default_rng([seed, number, 77])
    layer = Image.new("RGBA", (2 * SIDE, 2 * SIDE))
    draw = ImageDraw.Draw(layer)
    colors = [tuple(int(v) for v in rng.integers(0, 220, 3)) for _ in range(2)]
    for shape in range(int(rng.integers(2, 5))):
        color = (*colors[int(rng.integers(2))], 255)
        center = rng.uniform(0.3, 0.7, 2) * 2 * SIDE
        radius = rng.uniform(0.12, 0.3, 2) * 2 * SIDE
        _draw_shape(draw, rng, color, center, radius)
        if shape and rng.random() < 0.3:
            hole = rng.uniform(0.04, 0.1) * 2 * SIDE
            draw.ellipse([*(center - hole), *(center + hole)], fill=(0, 0, 0, 0))
    return open_asset(layer.resize((SIDE, SIDE), Image.Resampling.LANCZOS), f"distractor {number}")


def _draw_shape(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, color: tuple[int, ...], center: np.ndarray, radius: np.ndarray
) -> None:
    """Draw an ellipse, a ring, a polygon, a letter or a rounded rectangle."""
    box = [*(center - radius), *(center + radius)]
    kind = int(rng.integers(5))
    if kind == 0:
        draw.ellipse(box, fill=color)
    elif kind == 1:
        draw.ellipse(box, outline=color, width=int(rng.integers(16, 44)))
    elif kind == 2:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        points = [(center[0] + radius[0] * np.cos(a), center[1] + radius[1] * np.sin(a)) for a in angles]
        draw.polygon(points, fill=color)
    elif kind == 3:
        letter = str(rng.choice(list(string.ascii_letters + string.digits)))
        font = ImageFont.load_default(float(2.4 * radius.mean()))
        draw.text(tuple(center), letter, fill=color, font=font, anchor="mm")
    else:
        draw.rounded_rectangle(box, radius=float(rng.uniform(0, 40)), fill=color)
