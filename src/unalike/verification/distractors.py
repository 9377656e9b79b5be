"""Drawings that are nobody's asset: what a set of few assets is told from.

Each is a made-up mark of one to three shapes, a letter among them now and then; (seed, number) is the drawing.
"""

from __future__ import annotations

import string

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unalike.verification.asset import Asset, open_asset

SIDE = 192


def draw_stranger(seed: int, number: int) -> Asset:
    """Stranger ``number`` of ``seed``, an asset of at most SIDE x SIDE."""
    rng = np.random.default_rng([seed, number, 77])
    layer = Image.new("RGBA", (2 * SIDE, 2 * SIDE))
    draw = ImageDraw.Draw(layer)
    colours = [tuple(int(v) for v in rng.integers(0, 220, 3)) for _ in range(2)]
    for place in range(int(rng.integers(2, 5))):
        colour = (*colours[int(rng.integers(2))], 255)
        centre = rng.uniform(0.3, 0.7, 2) * 2 * SIDE
        reach = rng.uniform(0.12, 0.3, 2) * 2 * SIDE
        box = [*(centre - reach), *(centre + reach)]
        kind = int(rng.integers(5))
        if kind == 0:
            draw.ellipse(box, fill=colour)
        elif kind == 1:
            draw.ellipse(box, outline=colour, width=int(rng.integers(16, 44)))
        elif kind == 2:
            angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
            draw.polygon(
                [(centre[0] + reach[0] * np.cos(a), centre[1] + reach[1] * np.sin(a)) for a in angles], fill=colour
            )
        elif kind == 3:
            letter = str(rng.choice(list(string.ascii_letters + string.digits)))
            draw.text(
                tuple(centre), letter, fill=colour, font=ImageFont.load_default(float(2.4 * reach.mean())), anchor="mm"
            )
        else:
            draw.rounded_rectangle(box, radius=float(rng.uniform(0, 40)), fill=colour)
        if place and rng.random() < 0.3:  # a hole
            hole = rng.uniform(0.04, 0.1) * 2 * SIDE
            draw.ellipse([*(centre - hole), *(centre + hole)], fill=(0, 0, 0, 0))
    return open_asset(layer.resize((SIDE, SIDE), Image.Resampling.LANCZOS), f"stranger {number}")
