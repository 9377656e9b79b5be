"""Presets of a pixel comparison, and the choice of preset, tolerance and contrast for a pair from what the pair shows.

The figures behind the limits are in docs/experiments/comparison.md, 2026-11-30.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from unalike.comparison.pair_statistics import PairStatistics
from unalike.spec.compare import Preset

PRESET_NAMES: tuple[str, ...] = get_args(Preset)
# Share of pixels at the three most frequent gray levels from which on a pair is print or a scan: boards have 0.92 and more, drawn
# labels 0.81, photographs of shelves at most 0.49.
FLAT_SHARE = 0.65


@dataclass(frozen=True)
class PresetLimits:
    """What a preset sets, and between which limits it measures.

    Attributes:
        steps: (displacement, tolerance, share): with edges up to so many pixels apart, the tolerance in pixels, and the least
            difference beside an edge as a share of the edge's height.
        slack: How much thicker than the tolerance a difference beside an edge must be, in pixels.
        contrast: Least difference that counts, in gray levels.
        min_area: Fewest pixels of a region.
    """

    steps: tuple[tuple[float, int, float], ...]
    slack: int
    contrast: float
    min_area: int


PRESETS = {
    "photo": PresetLimits(((0.3, 1, 0.5), (math.inf, 3, 0.5)), 2, 40.0, 12),
    "print": PresetLimits(((0.3, 1, 0.0), (math.inf, 2, 0.5)), 1, 40.0, 6),
    "scan": PresetLimits(((0.5, 2, 0.5), (math.inf, 3, 0.65)), 1, 40.0, 12),
    "screen": PresetLimits(((math.inf, 0, 0.0),), 1, 13.2, 1),
}


@dataclass(frozen=True)
class Sensitivity:
    """What counts as a difference of one pair.

    Attributes:
        preset: ``photo``, ``print``, ``screen`` or ``scan``.
        tolerance: Largest edge displacement, in pixels, that counts as no difference.
        thickness: Thickness in pixels from which on what differs beside an edge counts; 0 for no such rule.
        contrast: Least difference that counts, in gray levels.
        edge_share: Least difference beside an edge, as a share of the edge's height.
        min_area: Fewest pixels of a region.
        statistics: What was measured; None of screenshots.
    """

    preset: str
    tolerance: int
    thickness: int
    contrast: float
    edge_share: float
    min_area: int
    statistics: PairStatistics | None = None

    @property
    def is_exact(self) -> bool:
        """Whether pixels are compared one by one, and antialiased ones are left out."""
        return self.preset == "screen" and self.tolerance == 0

    def describe(self) -> str:
        """Say what was chosen, and by what."""
        text = f"compared as {self.preset}: tolerance {self.tolerance} px, contrast {self.contrast:g} gray levels"
        if self.statistics is not None:
            text += (
                f" (edges {self.statistics.displacement:.1f} px apart, noise {self.statistics.noise:.1f} gray levels)"
            )
        return text


def choose_sensitivity(
    preset: str, statistics: PairStatistics | None, tolerance: int | None = None, contrast: float | None = None,
    min_area: int | None = None,
) -> Sensitivity:  # fmt: skip
    """Choose what counts as a difference; what is given is kept.

    Args:
        preset: A name of PRESETS, or ``auto``: chosen by the statistics.
        statistics: What was measured; None only of screenshots.
        tolerance: In pixels; unset, chosen by the edge displacement as the preset says.
        contrast: In gray levels; unset, the preset's. A given one holds beside edges too.
        min_area: In pixels; unset, the preset's.
    """
    displacement = 0.0 if statistics is None else statistics.displacement
    if preset == "auto":
        is_flat = statistics is not None and statistics.flat >= FLAT_SHARE
        preset = "photo" if not is_flat else "print" if displacement <= PRESETS["print"].steps[0][0] else "scan"
    limits = PRESETS[preset]
    _, step_tolerance, share = next(step for step in limits.steps if displacement <= step[0])
    tolerance = step_tolerance if tolerance is None else tolerance
    return Sensitivity(
        preset,
        tolerance,
        tolerance + limits.slack if tolerance else 0,
        limits.contrast if contrast is None else contrast,
        share if contrast is None else 0.0,
        limits.min_area if min_area is None else min_area,
        statistics,
    )
