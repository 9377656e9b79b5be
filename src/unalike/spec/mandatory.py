"""Fields without which an action cannot run, and those of a spec that are unset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from unalike.spec.actions import STANDALONE_ACTIONS
from unalike.spec.fields import fields_of

if TYPE_CHECKING:
    from unalike.spec.experiment import Experiment

_REFERENCE = ("dataset.val_dataset.reference",)
_MODELS = ("checkpoint", "onnx_file", "engine", "trt_engine")
# Model action -> groups of fields, of each of which one must be set. Calibration images are checked by the actions: they are
# needed for INT8 alone.
_MANDATORY: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "train": (("dataset.train_dataset",),),
    "evaluate": (tuple(f"evaluate.{name}" for name in _MODELS), (*_REFERENCE, "dataset.val_dataset.query")),
    "inference": (tuple(f"inference.{name}" for name in _MODELS), _REFERENCE, ("inference.input_path",)),
    "export": (("export.checkpoint",),),
    "gen_trt_engine": (("gen_trt_engine.onnx_file",),),
    "quantize": (("quantize.checkpoint", "quantize.onnx_file"),),
    "gen_engine": (("gen_engine.checkpoint", "gen_engine.onnx_file"),),
}


def mandatory_fields(action: str) -> tuple[tuple[str, ...], ...]:
    """The groups of fields of an action, of each of which one must be set."""
    if action not in STANDALONE_ACTIONS:
        return _MANDATORY[action]
    return tuple((path,) for path, node in fields_of(action).items() if node.facts.get("mandatory"))


def missing_fields(action: str, is_given: Callable[[str], bool]) -> list[str]:
    """Describe the mandatory fields of an action that are not given: ``evaluate.checkpoint (or evaluate.onnx_file, ...)``.

    Args:
        action: One of ACTIONS.
        is_given: Whether a dotted field has a value.
    """
    missing = [group for group in mandatory_fields(action) if not any(is_given(path) for path in group)]
    return [group[0] + (f" (or {', '.join(group[1:])})" if group[1:] else "") for group in missing]


def has_value(experiment: Experiment, path: str) -> bool:
    """Whether a field of a spec has a value; false below a section that is not set."""
    value: object = experiment
    for name in path.split("."):
        value = getattr(value, name, None)
    return value not in (None, "", [])
