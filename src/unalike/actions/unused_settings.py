"""Settings that a way of training does not use; they are named where the user changed them.

The table is held against what each way reads by tests/flow/test_settings_in_modes.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from unalike.progress import say

if TYPE_CHECKING:
    from unalike.spec import Experiment

# Fields of `automl` that describe a search by complete trainings.
_SEARCH = tuple(
    f"automl.{name}"
    for name in ("trials", "algorithm", "pruner", "parameters", "ranges", "direction", "max_epochs", "reduction_factor",
                 "concurrent", "storage", "study", "cluster", "address", "keep_checkpoints")
)  # fmt: skip
_VALIDATION = (
    "dataset.validation.by", "dataset.validation.fraction", "dataset.validation.seed", "train.validation_interval",
    "train.val_batch_size", "train.report_accuracy_per_class",
)  # fmt: skip


class UnusedSettings(NamedTuple):
    """What one way of training does not use.

    Attributes:
        fields: dotted paths of leaves.
        reason: why, and what uses them, for the message.
    """

    fields: tuple[str, ...]
    reason: str


PLAIN, AUTOMATIC, UNLABELED, SEARCH = "plain training", "automatic training", "training without labels", "a search"
UNUSED: Mapping[str, UnusedSettings] = {
    PLAIN: UnusedSettings(("automl.goal", "automl.seed", *_SEARCH), "it trains once; --automl-policy auto uses them"),
    AUTOMATIC: UnusedSettings(
        (*_VALIDATION, *_SEARCH),
        "it holds images out and validates by itself; --automl-policy off trains plainly, --trials N searches",
    ),
    UNLABELED: UnusedSettings(
        (*_VALIDATION, *_SEARCH, "automl.goal", "automl.seed"), "it finds groups and holds some of them out by itself"
    ),
    SEARCH: UnusedSettings(("automl.goal",), "its trials are compared by automl.direction and the monitored figure"),
}


def say_unused(experiment: Experiment, mode: str) -> None:
    """Name the settings that the user changed and that a way of training does not use.

    Args:
        experiment: the spec.
        mode: PLAIN, AUTOMATIC, UNLABELED or SEARCH.
    """
    settings = UNUSED[mode]
    if names := experiment.changed(settings.fields):
        say(f"settings that are not used by {mode}: {', '.join(names)} ({settings.reason})")
