"""Settings that a way of training, or an action on a model, does not use; they are named where the user changed them.

The tables are held against what each way and action reads by tests/flow/test_settings_in_modes.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from unalike.progress import say
from unalike.runs.mlflow_tracking import TRACKED_ACTIONS
from unalike.spec.actions import command_of

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


# Sections of the top that every action on a model uses, beside its own.
_SHARED = (
    "encryption_key",
    "mlflow",
    "results_dir",
    "model_name",
    "model",
    "dataset",
)  # of the first a line of its own is said
# What acts in training alone; a spec file that serves several actions may hold it, an override of another action may not.
_OF_TRAINING = (
    "model.pretrained", "model.pretrained_model_path", "model.pretrained_trunk_path", "model.pretrained_embedder_path",
    "model.allow_partial_weights", "dataset.labels", "dataset.prob", "dataset.re_prob", "dataset.gaussian_blur",
    "dataset.color_augmentation", "dataset.random_rotation", "dataset.num_instance", "dataset.class_sampling",
    "dataset.train_height", "dataset.train_width", "dataset.crop", "dataset.cache", "dataset.validation",
)  # fmt: skip
# Action -> further fields that it does not use.
UNUSED_BY_ACTION: Mapping[str, tuple[str, ...]] = {
    "evaluate": _OF_TRAINING,
    "inference": (*_OF_TRAINING, "model_name", "dataset.train_dataset", "dataset.val_dataset.query"),
    "export": (*_OF_TRAINING, "dataset.workers", "dataset.max_unreadable"),
    "quantize": _OF_TRAINING,
    "gen_engine": _OF_TRAINING,
    "gen_trt_engine": _OF_TRAINING,
}


def say_unused_overrides(experiment: Experiment, action: str) -> None:
    """Name the overrides that an action on a model does not use, such as ``train.num_epochs=5`` of ``inference``.

    Fields of a spec file are not named: one file may serve several actions.

    Args:
        experiment: the spec.
        action: the action; nothing is said of one that is not in the table.
    """
    if action not in UNUSED_BY_ACTION:
        return
    unused = [path for path in experiment.override_paths if is_unused(path, action)]
    # wandb.enable is true in the default spec of TAO, and acts only where the user set it.
    news = {*experiment.changed(unused), "wandb.enable"}
    if names := [path for path in unused if path in news]:
        say(f"settings that are not used by {command_of(action)}: {', '.join(names)}")


def is_unused(path: str, action: str) -> bool:
    """Whether a leaf is one that an action on a model, one of ``UNUSED_BY_ACTION``, does not use."""
    top = path.partition(".")[0]
    if top not in (*_SHARED, action) or (top == "mlflow" and action not in TRACKED_ACTIONS):
        return True
    return any(path == field or path.startswith(f"{field}.") for field in UNUSED_BY_ACTION[action])
