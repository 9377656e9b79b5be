"""Larger images than those of fine-tuning, as further candidates.

Training crops are enlarged on average, so that a fine-tuned network knows objects at a larger scale than the evaluation view
shows them (H. Touvron et al., Fixing the train-test resolution discrepancy, 2019). The weights stay; the head is fitted to the
features at the larger size. Measurements are in docs/experiments/automatic-training.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from unalike.data.view import View
from unalike.model.backbones import native_size

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.training.time_budget import TimeBudget

# Sides relative to those of fine-tuning, of 224 pixels 256 and 288; and the most that their evaluation may take of the budget.
SIDES, MAX_SHARE = (8 / 7, 9 / 7), 0.1


def larger_views(view: View, backbone: str, spec: Experiment) -> list[View]:
    """Return the larger evaluation views of a network, to multiples of 32 pixels; none where the size is fixed.

    Args:
        view: the view at which the network was fine-tuned.
        backbone: its trunk; one with a table of positions takes one size only.
        spec: a size that the user set is kept.
    """
    if spec.is_set("model.input_height") or spec.is_set("model.input_width") or native_size(backbone)[1]:
        return []
    sizes = [tuple(int(side * factor / 32 + 0.5) * 32 for side in (view.height, view.width)) for factor in SIDES]
    different = dict.fromkeys(size for size in sizes if min(size) > 0 and size != (view.height, view.width))
    return [replace(view, height=height, width=width) for height, width in different]


def relative_cost(larger: View, view: View) -> float:
    """Return the cost of an image at a larger size, relative to that at ``view``: the ratio of the areas."""
    return larger.height * larger.width / (view.height * view.width)


def planned_seconds(view: View, larger: Sequence[View], pass_seconds: float, budget: TimeBudget) -> float:
    """Return the seconds to keep for features at the larger sizes, which together take at most ``MAX_SHARE`` of the budget.

    Args:
        view: the view of fine-tuning.
        larger: the larger ones, in the order in which they are evaluated.
        pass_seconds: what the features of all images take at ``view``.
        budget: the time budget.
    """
    costs = itertools.accumulate(pass_seconds * relative_cost(candidate, view) for candidate in larger)
    return max((seconds for seconds in costs if seconds <= MAX_SHARE * budget.seconds), default=0.0)
