"""The result of inspecting one image: decision, score, anomaly map, regions, and an overlay picture.

Shape letters: h x w a grid of patches, H x W an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from unalike.inspection.anomaly_map import AnomalyRegion
from unalike.numerics.maps import sample_map
from unalike.source_names import source_name

RED = (220, 38, 38)
GOOD, DEFECTIVE, UNDECIDED = "good", "defective", "undecided"


@dataclass(frozen=True, eq=False)
class Inspection:
    """The result of inspecting one image.

    Attributes:
        score: The mean of the highest values of the anomaly map (``anomaly_map.image_score``).
        threshold: The image is defective when its score is above it; NaN where none was set.
        decision: ``good``, ``defective``, or ``undecided`` without a threshold.
        regions: Where the anomaly map is above the threshold, the highest score first.
        anomaly_map_hw: float32, a value a patch. The grid begins at the image's corner, but for ``shift``.
        size: (H, W) of the image, in pixels.
        extent: How many times the image's height and width the grid covers, 1 or a little more: the last patches may
            reach beyond the image.
        source: The image's path; empty where it was given as an array or a PIL image.
        shift: How far down and to the right of their cells the patches lie, in cells.
    """

    score: float
    threshold: float
    decision: str
    regions: tuple[AnomalyRegion, ...]
    anomaly_map_hw: np.ndarray
    size: tuple[int, int]
    extent: tuple[float, float] = (1.0, 1.0)
    source: str = ""
    shift: tuple[float, float] = (0.0, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the anomaly map."""
        return {
            "path": source_name(self.source), "decision": self.decision, "score": self.score,
            "threshold": None if math.isnan(self.threshold) else self.threshold,
            "spots": [region.to_dict() for region in self.regions],
        }  # fmt: skip

    def anomaly_map(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """The anomaly map in pixels, float32 (H, W): of the image, or of the image resized to ``size``."""
        rows_H, columns_W = (
            (np.arange(length) + 0.5) * (cells / (length * extent)) - 0.5 - shift
            for length, cells, extent, shift in zip(
                size or self.size, self.anomaly_map_hw.shape, self.extent, self.shift, strict=True
            )
        )
        return np.ascontiguousarray(sample_map(self.anomaly_map_hw, rows_H, columns_W))

    def overlay(self, image: Image.Image, side: int = 1600) -> Image.Image:
        """Draw the anomaly map and the regions' boxes over the grayed image.

        The map is transparent below half the threshold and red from 1.5 times the threshold on.

        Args:
            image: The inspected image, upright.
            side: Longest side of the overlay, in pixels.
        """
        small = image.convert("RGB").copy()
        small.thumbnail((side, side))
        gray_HW1 = np.asarray(small.convert("L"), np.float32)[..., None] * 0.8 + 40
        layer_HW4 = self._heat_HW4((small.height, small.width))
        alpha_HW1 = layer_HW4[..., 3:]
        blended_HWC = gray_HW1 * (1 - alpha_HW1) + layer_HW4[..., :3] * alpha_HW1
        overlay = Image.fromarray(blended_HWC.clip(0, 255).astype(np.uint8))
        pen = ImageDraw.Draw(overlay)
        scale_x, scale_y = overlay.width / self.size[1], overlay.height / self.size[0]
        for region in self.regions:
            left, top, right, bottom = region.box
            frame = (
                left * scale_x, top * scale_y,
                max(left * scale_x + 1, right * scale_x - 1), max(top * scale_y + 1, bottom * scale_y - 1),
            )  # fmt: skip
            pen.rectangle(frame, outline=RED, width=max(1, max(overlay.size) // 300))
        return overlay

    def heat_layer(self, side: int = 1600) -> Image.Image:
        """Draw the anomaly map alone, RGBA: transparent below half the threshold, red from 1.5 times the threshold on.

        Args:
            side: Longest side of the drawing, in pixels; never more than that of the image.
        """
        scale = min(1.0, side / max(self.size))
        layer_HW4 = self._heat_HW4((max(1, round(self.size[0] * scale)), max(1, round(self.size[1] * scale))))
        layer_HW4[..., 3] *= 255
        return Image.fromarray(layer_HW4.clip(0, 255).astype(np.uint8), "RGBA")

    def _heat_HW4(self, size: tuple[int, int]) -> np.ndarray:
        """Color (0 to 255) and opacity (0 to 0.7) of the anomaly map at a size (H, W), float32."""
        unit = max(1e-9, self.threshold if not math.isnan(self.threshold) else float(self.anomaly_map_hw.max()))
        level_HW1 = np.clip(self.anomaly_map(size)[..., None] / unit - 0.5, 0, 1)
        return np.concatenate(
            [
                np.full_like(level_HW1, 235),
                200 * (1 - level_HW1),
                25 * (1 - level_HW1),
                np.clip(level_HW1 * 1.6, 0, 1) * 0.7,
            ],
            axis=-1,
        )
