"""What counts as a difference follows from what was measured; what is given is kept."""

from __future__ import annotations

import pytest

from unalike.comparison.pair_statistics import PairStatistics
from unalike.comparison.preset import PRESETS, choose_sensitivity


@pytest.mark.parametrize(
    ("displacement", "flat", "preset", "tolerance", "thickness"),
    [
        (0.1, 0.9, "print", 1, 2), (0.4, 0.9, "scan", 2, 3), (0.8, 0.9, "scan", 3, 4), (0.1, 0.4, "photo", 1, 3),
        (0.4, 0.4, "photo", 3, 5),
    ],
)  # fmt: skip
def test_preset_and_tolerance_follow_from_the_pair(
    displacement: float, flat: float, preset: str, tolerance: int, thickness: int
) -> None:
    result = choose_sensitivity("auto", PairStatistics(displacement, 1.0, flat))
    assert (result.preset, result.tolerance, result.thickness) == (preset, tolerance, thickness)
    assert result.contrast == 40 and result.min_area == PRESETS[preset].min_area
    assert f"compared as {preset}: tolerance {tolerance} px" in result.describe()


def test_what_is_given_is_kept() -> None:
    statistics = PairStatistics(0.1, 1.0, 0.9)
    result = choose_sensitivity("scan", statistics, 5, 17.0, 3)
    assert (result.tolerance, result.contrast, result.min_area, result.edge_share) == (5, 17, 3, 0)
    assert (
        choose_sensitivity("scan", statistics).tolerance == 2
        and choose_sensitivity("auto", statistics, 0).thickness == 0
    )


def test_screenshots_are_compared_one_by_one() -> None:
    result = choose_sensitivity("screen", None)
    assert result.is_exact and result.min_area == 1 and not choose_sensitivity("screen", None, 1).is_exact
