"""Larger images than those of fine-tuning: which sizes, and the time that is kept for them."""

from __future__ import annotations

import pytest

from unalike.data.view import View
from unalike.spec import load_spec
from unalike.training.automatic.larger_inputs import larger_views, planned_seconds, relative_cost
from unalike.training.time_budget import TimeBudget

LITE = "tf_efficientnet_lite0"


@pytest.mark.parametrize(("size", "expected"), [
    ((224, 224), [(256, 256), (288, 288)]), ((160, 320), [(192, 352), (192, 416)]), ((32, 32), []),
])  # fmt: skip
def test_larger_sizes_are_multiples_of_32(size: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    views = larger_views(View(*size, resize_ratio=1.2, mode="fit"), LITE, load_spec("train", {}))
    assert [(view.height, view.width) for view in views] == expected
    assert all(view.resize_ratio == 1.2 and view.mode == "fit" for view in views)


@pytest.mark.parametrize("side", ["height", "width"])
def test_a_size_that_the_user_set_is_kept(side: str) -> None:
    assert larger_views(View(224, 224), LITE, load_spec("train", overrides=[f"model.input_{side}=224"])) == []


def test_a_trunk_with_a_table_of_positions_takes_one_size() -> None:
    assert larger_views(View(224, 224), "vit_tiny_patch16_224", load_spec("train", {})) == []


def test_the_cost_of_an_image_is_its_area() -> None:
    assert relative_cost(View(256, 128), View(128, 64)) == 4.0


@pytest.mark.parametrize(
    ("pass_seconds", "expected"), [(10.0, 50.0), (20.0, 20.0), (60.0, 60.0), (61.0, 0.0), (0.0, 0.0)]
)
def test_time_is_kept_for_sizes_that_take_a_tenth_of_the_budget_together(pass_seconds: float, expected: float) -> None:
    """At one and four times the area, of ten minutes."""
    budget = TimeBudget(10.0, 0.0, lambda: 0.0)
    views = [View(100, 100), View(200, 200)]
    assert planned_seconds(View(100, 100), views, pass_seconds, budget) == pytest.approx(expected)
