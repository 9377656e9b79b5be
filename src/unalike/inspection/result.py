"""What an inspection says of an image: score, decision, heat map, boxes; and their pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from unalike.metrics.maps import components, resized

RED = (220, 38, 38)
# At most so many patches make an image's score, so that a small defect counts in a large image too.
MOST_HOTTEST = 16
GOOD, DEFECTIVE, UNDECIDED = "good", "defective", "undecided"


@dataclass(frozen=True)
class Spot:
    """One suspicious place: (left, top, right, bottom) in pixels of the image, right and bottom the first outside.

    ``score`` is the highest heat in it; ``area`` how many pixels are as hot as the threshold.
    """

    box: tuple[int, int, int, int]
    score: float
    area: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"box": list(self.box), "score": self.score, "area": self.area}


@dataclass(frozen=True, eq=False)
class Inspection:
    """``decision``: good, defective, or undecided where no threshold was set. ``score`` is the mean heat of
    its hottest patches (``hottest``).

    ``heat_hw`` (float32) has a value a patch; its grid begins at the corner of the image of ``size`` (H, W) and covers
    ``cover`` times its height and width (1 or a little more: the last patches may reach beyond it). ``threshold`` is NaN
    where none is set. ``spots`` are what is hotter than the threshold, the hottest first.
    """

    score: float
    threshold: float
    decision: str
    spots: tuple[Spot, ...]
    heat_hw: np.ndarray
    size: tuple[int, int]
    cover: tuple[float, float] = (1.0, 1.0)
    source: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON, without the heat map."""
        return {
            "path": self.source, "decision": self.decision, "score": self.score,
            "threshold": None if math.isnan(self.threshold) else self.threshold,
            "spots": [spot.to_dict() for spot in self.spots],
        }  # fmt: skip

    def heat(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """float32 (H, W): a value a pixel of the image, or of the image brought to ``size``."""
        height, width = size or self.size
        whole = resized(self.heat_hw, (round(height * self.cover[0]), round(width * self.cover[1])))
        return np.ascontiguousarray(whole[:height, :width])

    def overlay(self, picture: Image.Image, side: int = 1600) -> Image.Image:
        """The picture, greyed, with its heat (clear below half the threshold, red from 1.5 times on) and boxes.

        ``picture`` is the inspected image, upright; the overlay is at most ``side`` pixels long.
        """
        shown = picture.convert("RGB").copy()
        shown.thumbnail((side, side))
        top = self.threshold if not math.isnan(self.threshold) else max(1e-9, float(self.heat_hw.max()))
        heat_HW1 = self.heat((shown.height, shown.width))[..., None] / top
        level = np.clip(heat_HW1 - 0.5, 0, 1)
        grey = np.asarray(shown.convert("L"), np.float32)[..., None] * 0.8 + 40
        colour = np.concatenate([np.full_like(level, 235), 200 * (1 - level), 25 * (1 - level)], axis=-1)
        share = np.clip(level * 1.6, 0, 1) * 0.7
        made = Image.fromarray((grey * (1 - share) + colour * share).clip(0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(made)
        fx, fy = made.width / self.size[1], made.height / self.size[0]
        for spot in self.spots:
            left, upper, right, lower = spot.box
            frame = (left * fx, upper * fy, max(left * fx + 1, right * fx - 1), max(upper * fy + 1, lower * fy - 1))
            draw.rectangle(frame, outline=RED, width=max(1, max(made.size) // 300))
        return made


def hottest(heat_hw: np.ndarray, share: float) -> float:
    """The mean of the hottest ``share`` of patches, at least one and at most MOST_HOTTEST."""
    count = int(np.clip(round(share * heat_hw.size), 1, MOST_HOTTEST))
    return float(np.partition(heat_hw, heat_hw.size - count, axis=None)[-count:].mean())


def find_spots(
    heat_hw: np.ndarray,
    threshold: float,
    size: tuple[int, int],
    cover: tuple[float, float] = (1.0, 1.0),
    most: int = 50,
) -> tuple[Spot, ...]:
    """The connected places of a heat map above ``threshold``, in pixels of an image of ``size``; the ``most`` hottest.

    The map covers ``cover`` times the image's height and width.
    """
    if math.isnan(threshold):
        return ()
    fy, fx = size[0] * cover[0] / heat_hw.shape[0], size[1] * cover[1] / heat_hw.shape[1]
    labels_hw, count = components(heat_hw > threshold)
    spots = []
    for number in range(1, count + 1):
        rows, columns = np.nonzero(labels_hw == number)
        box = (
            math.floor(columns.min() * fx), math.floor(rows.min() * fy),
            min(size[1], math.ceil((columns.max() + 1) * fx)), min(size[0], math.ceil((rows.max() + 1) * fy)),
        )  # fmt: skip
        spots.append(Spot(box, float(heat_hw[rows, columns].max()), round(len(rows) * fx * fy)))
    return tuple(sorted(spots, key=lambda spot: (-spot.score, spot.box))[:most])
