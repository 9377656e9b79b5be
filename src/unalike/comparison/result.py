"""The result of comparing two images: regions, registration, difference maps and images of them for people.

Shapes: H, W of a preview; h, w of a map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from unalike.comparison.answer import Answer
from unalike.comparison.coverage import Coverage
from unalike.comparison.feature_difference import FeatureDifference
from unalike.comparison.preset import Sensitivity
from unalike.comparison.regions import DifferenceRegion
from unalike.comparison.registration import Registration
from unalike.errors import SpecError
from unalike.report.drawing import blend_images, draw_boxes, draw_heat, hatch

# Longer side of the previews.
PREVIEW_SIDE = 1600
# Gray level at which the heat map of features draws the threshold.
FEATURE_THRESHOLD_LEVEL = 64


@dataclass(frozen=True)
class ComparisonResult:
    """The result of one comparison; coordinates are pixels of the image as it was given.

    Attributes:
        answer: ``same``; ``different`` (a region differs, more than the limit was added or cut off, or the alignment lies
            beyond the limits); or ``incomplete``: nothing differs, but too little could be compared.
        reasons: Why the images are not the same; empty if they are.
        regions: The regions that differ, those of pixels first, each level by falling score.
        registration: How the image is aligned to the reference.
        size: (H, W) of the image.
        heat_hw: uint8, difference of pixels beyond the tolerance in gray levels; None if pixels were not compared.
        heat_scale: Image pixels per pixel of ``heat_hw``.
        threshold: Gray levels from which a difference counts; None if pixels were not compared.
        compared: Share of the image that lies on the reference and was compared, 0 to 1; less than its coverage by the
            rims that the tolerance leaves out.
        coverage: Which part of each image the other one shows.
        seconds: Duration without reading files.
        notes: What a person should know about this comparison, such as a poor alignment.
        preview_HWC: The image, uint8 RGB, at most 1600 pixels on the longer side.
        reference_preview_HWC: The reference, aligned to the preview and with the image's lighting.
        reference_frame_HWC: The reference in its own frame, as small as the preview.
        features: Difference of features; None if features were not compared.
        network: Name of the network that computed the features.
        sensitivity: Preset, tolerance, contrast and smallest area of this pair, and what they follow from; None if no pixels
            were compared, or if the images are equal.
        tolerated: (displacement, area) in pixels of the image: edges displaced by up to the first, and changes of less than
            the second, were not looked for; None likewise.
    """

    answer: Answer
    reasons: tuple[str, ...]
    regions: tuple[DifferenceRegion, ...]
    registration: Registration
    size: tuple[int, int]
    heat_hw: np.ndarray | None = field(repr=False)
    heat_scale: float
    threshold: float | None
    compared: float
    coverage: Coverage
    seconds: float
    preview_HWC: np.ndarray = field(repr=False)
    reference_preview_HWC: np.ndarray = field(repr=False)
    reference_frame_HWC: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()
    features: FeatureDifference | None = field(repr=False, default=None)
    network: str = ""
    sensitivity: Sensitivity | None = None
    tolerated: tuple[int, int] | None = None

    @property
    def not_looked_for(self) -> str:
        """Which changes the settings leave out, in words; empty for equal images."""
        parts = []
        if self.tolerated is not None and self.sensitivity is not None:
            tolerance = self.sensitivity.tolerance
            displacement, area = self.tolerated
            edges = (
                f"edges displaced by up to {displacement} px, details that close to alike ones, and "
                if displacement
                else ""
            )
            finer = f"; --tolerance {tolerance - 1} looks for finer ones" if tolerance > 0 else ""
            parts.append(f"{edges}changes below {area} px in area{finer}")
        if self.features is not None:
            parts.append(f"by features: changes smaller than {round(max(self.features.cell))} px across")
        return "; ".join(parts)

    @property
    def same(self) -> bool:
        """Whether the answer is ``same``."""
        return self.answer == "same"

    @property
    def level(self) -> str:
        """What was compared: pixels, features or both."""
        return "pixels" if self.features is None else "features" if self.heat_hw is None else "both"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "same": self.same, "answer": self.answer, "reasons": list(self.reasons), "regions": [region.to_dict() for region in self.regions],
            "registration": self.registration.to_dict(), "height": self.size[0], "width": self.size[1],
            "level": self.level, "threshold": None if self.threshold is None else round(self.threshold, 2),
            "features": None if self.features is None else self._features_to_dict(self.features),
            "compared": round(self.compared, 4), "coverage_reference": _round(self.coverage.reference.share),
            "coverage_image": _round(self.coverage.image.share),
            "uncovered_reference": [list(box) for box in self.coverage.reference.boxes],
            "uncovered_image": [list(box) for box in self.coverage.image.boxes], "seconds": round(self.seconds, 4), "notes": list(self.notes),
            **self._sensitivity_to_dict(), "tolerated_displacement": None if self.tolerated is None else self.tolerated[0],
            "smallest_area": None if self.tolerated is None else self.tolerated[1], "not_looked_for": self.not_looked_for,
        }  # fmt: skip

    def _sensitivity_to_dict(self) -> dict[str, Any]:
        choice = self.sensitivity
        statistics = None if choice is None else choice.statistics
        return {
            "preset": None if choice is None else choice.preset, "tolerance": None if choice is None else choice.tolerance,
            "contrast": None if choice is None else choice.contrast, "min_area": None if choice is None else choice.min_area,
            "edge_displacement": None if statistics is None else round(statistics.displacement, 3),
            "noise": None if statistics is None else round(statistics.noise, 2),
            "compared_as": "" if choice is None else choice.describe(),
        }  # fmt: skip

    def _features_to_dict(self, difference: FeatureDifference) -> dict[str, Any]:
        heat = difference.heat_hw[difference.known_hw]
        return {
            "network": self.network, "threshold": round(difference.threshold, 4), "cell": list(difference.cell),
            "median": round(float(np.median(heat)), 4) if heat.size else None,
            "highest": round(float(difference.heat_hw.max(initial=0)), 4),
        }  # fmt: skip

    def picture(self) -> Image.Image:
        """Draw the image with the boxes and scores of its regions; hatched where the reference shows nothing."""
        return draw_boxes(hatch(self.preview_HWC, self.coverage.image.uncovered_hw), self.regions, self.size)

    def overlay(self) -> Image.Image:
        """Blend image and aligned reference: what is darker only in the image is blue, only in the reference orange."""
        blended_HWC = blend_images(self.reference_preview_HWC, self.preview_HWC)
        return draw_boxes(hatch(blended_HWC, self.coverage.image.uncovered_hw), self.regions, self.size)

    def reference(self) -> Image.Image:
        """Return the reference, aligned to the image and in its lighting; the image itself where the reference ends."""
        return Image.fromarray(self.reference_preview_HWC)

    def missing(self) -> Image.Image:
        """Draw the reference in its own frame; hatched where the image shows nothing of it."""
        return Image.fromarray(hatch(self.reference_frame_HWC, self.coverage.reference.uncovered_hw))

    def heat_map(self, level: str | None = None) -> Image.Image:
        """Draw the difference map of one level in color over the gray image.

        Args:
            level: ``pixels`` or ``features``; pixels, if they were compared, when unset.

        Raises:
            SpecError: The level was not compared.
        """
        level = level or ("features" if self.heat_hw is None else "pixels")
        if level == "pixels" and self.heat_hw is not None and self.threshold is not None:
            return draw_heat(self.heat_hw, self.preview_HWC, self.threshold)
        if level == "features" and self.features is not None:
            scaled = np.clip(self.features.heat_hw * (FEATURE_THRESHOLD_LEVEL / self.features.threshold), 0, 255)
            return draw_heat(scaled.astype(np.uint8), self.preview_HWC, FEATURE_THRESHOLD_LEVEL)
        raise SpecError(f"heat map of level {level!r}", expected=self.level, remedy="compare with level='both'")


def _round(share: float) -> float | None:
    return None if math.isnan(share) else round(share, 4)
