"""Time limit of a plain training: its epochs, the images that are validated on, and the time kept for its end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from unalike.data.from_spec import TrainingSets
from unalike.data.imageset import ImageSet
from unalike.progress import say
from unalike.training.automatic.sampling import balanced_order
from unalike.training.time_budget import TimeBudget

if TYPE_CHECKING:
    from unalike.training.loop import TrainingLoop
    from unalike.training.setup import TrainingSetup

# Images per second of an evaluation before anything is measured, and the share of the time that one evaluation may take so.
CAUTIOUS_RATE, VALIDATION_SHARE = 30.0, 0.1
# Share of the budget that fitting the head again may take; share kept for report, model card and what no rate predicts.
REFIT_SHARE, RESERVED_SHARE = 0.25, 0.05
EPOCH_MARGIN = 0.05  # by how much later epochs may be slower


def limit_validation(sets: TrainingSets, budget: TimeBudget) -> TrainingSets:
    """Return the sets with a sample of reference and query where evaluating them would take too much of the budget.

    Args:
        sets: the sets.
        budget: the time budget.
    """
    reference, query = sets.reference, sets.query
    most = max(64, int(CAUTIOUS_RATE * VALIDATION_SHARE * budget.left))
    if reference is None or query is None or len({*reference.paths, *query.paths}) <= most:
        return sets
    if reference.paths == query.paths:
        sampled = reference.select(np.sort(balanced_order(reference.labels_N, 0)[:most]))
        part = replace(sets, reference=sampled, query=sampled)
    else:
        names = np.array(query.label_names())
        rows = balanced_order(query.labels_N, 0)[: max(1, most // 4)]
        first_N = np.isin(np.array(reference.label_names()), names[rows])  # a query without its class tells nothing
        order_N = balanced_order(reference.labels_N, 0)
        order_N = order_N[np.argsort(~first_N[order_N], kind="stable")][: most - len(rows)]
        part = replace(sets, reference=reference.select(np.sort(order_N)), query=query.select(np.sort(rows)))
    assert part.reference is not None and part.query is not None
    say(f"validation on {len(part.query)} of {len(query)} query and {len(part.reference)} of {len(reference)} reference "
        f"images: more do not fit into {budget.seconds / 60:g} minutes")  # fmt: skip
    return part


class PlainLimit:
    """Keeps the time limit of a plain training by the pace of its steps.

    Args:
        budget: the time budget.
        setup: the training.
        finish: whether the head is fitted again after the last epoch.
    """

    def __init__(self, budget: TimeBudget, setup: TrainingSetup, *, finish: bool) -> None:
        self.budget, self.finish, self.planned = budget, finish, setup.experiment.train.num_epochs
        sets = setup.sets
        self.validated = len(_distinct(sets.reference, sets.query))
        views = 2 if setup.experiment.train.finish.mirrored else 1
        self.refitted = views * len(sets.train) if finish else 0
        self.batch_size = setup.experiment.train.batch_size * setup.fabric.world_size
        self.loop: TrainingLoop | None = None

    def attach(self, loop: TrainingLoop) -> None:
        """Let the limit plan the epochs of a loop and end it."""
        self.loop, loop.choose_epochs, loop.seconds_left = loop, self.choose_epochs, self.seconds_left

    def refits(self) -> bool:
        """Return whether there is time to fit the head again, by the pace of the steps."""
        return self.finish and self.refitted * self._image_seconds() <= REFIT_SHARE * self.budget.seconds

    def seconds_left(self) -> float:
        """Return the seconds that are left for steps."""
        images = self.validated * (1 + self.refits()) + self.refitted * self.refits()
        return self.budget.left - RESERVED_SHARE * self.budget.seconds - images * self._image_seconds()

    def choose_epochs(self, epochs_done: int, seconds: float) -> int:
        """Return the number of epochs as planned, or how many fit if each takes as long as the last one and its validation."""
        assert self.loop is not None
        each = (1 + EPOCH_MARGIN) * max(seconds + self.loop.validation_seconds, 1e-3)
        return min(self.planned, epochs_done + max(0, int(self.seconds_left() / each)))

    def _image_seconds(self) -> float:
        """Seconds of a step per image: about those of an evaluation of larger images without a backward pass."""
        recent = () if self.loop is None else self.loop.recent_seconds
        return float(np.median(recent)) / self.batch_size if recent else 1 / CAUTIOUS_RATE


def _distinct(*sets: ImageSet | None) -> set[object]:
    return {path for images in sets if images is not None for path in images.paths}
