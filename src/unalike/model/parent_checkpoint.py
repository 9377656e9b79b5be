"""What a checkpoint of this tool says about a network that starts from its weights: head, sizes, view, mean and std."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.errors import SpecError
from unalike.model.backbones import PretrainedConfig, resolve_head
from unalike.model.weight_files import read_content
from unalike.spec import settle

if TYPE_CHECKING:
    from unalike.spec import Experiment

# What each of the files decides: fields of ``model``, and whether the images must be prepared as for that file.
_TRUNK, _HEAD = ("backbone", "input_height", "input_width"), ("head", "feat_dim")
_FILES = (
    ("pretrained_trunk_path", _TRUNK), ("pretrained_embedder_path", _HEAD), ("pretrained_model_path", _TRUNK + _HEAD),
)  # fmt: skip


def settle_from_checkpoints(experiment: Experiment) -> bool:
    """Settle what the checkpoints named in ``model.pretrained_*_path`` decide, where the user left it open.

    Weights alone do not make a network: heads of different kinds have tensors of the same names, and a trunk that was
    trained on one view, mean and std is another network on others. Files of other programs say nothing of this, and
    settle nothing. Mean and std follow with the weights (``with_stored_facts``).

    Args:
        experiment: the spec; the trunk, the sizes, the head and the evaluation view may be settled in it.

    Returns:
        Whether the trunk was settled.

    Raises:
        SpecError: ``model.head`` is another than that of the file.
        WeightsError: a file cannot be read.
    """
    settled_trunk = False
    for key, names in _FILES:
        path = getattr(experiment.model, key)
        content = own_checkpoint(path) if path else None
        if content is None:
            continue
        reason = f"as in {Path(path).name}"
        stored = content["spec"]["model"]
        if "head" in names:
            _settle_head(experiment, resolve_head(str(stored.get("head", "auto")), str(stored["backbone"])), key, path)
        for name in names:
            if name != "head" and name in stored:
                settle(experiment, f"model.{name}", stored[name], reason)
        if "backbone" in names:
            settled_trunk = True
            for name, value in (content.get("facts") or {}).get("view", {}).items():
                if name not in ("height", "width", "decoding") and not experiment.is_set(f"dataset.view.{name}"):
                    experiment.set_value(f"dataset.view.{name}", value)
    return settled_trunk


def own_checkpoint(path: str | Path) -> dict[str, Any] | None:
    """Return the content of a checkpoint of this tool; None for weights of another program. Raises WeightsError."""
    content = read_content(path)
    is_own = isinstance(content, dict) and "format_version" in content and isinstance(content.get("spec"), Mapping)
    return content if is_own and isinstance(content["spec"].get("model"), Mapping) else None


def with_stored_facts(facts: PretrainedConfig, stored: Mapping[str, Any]) -> PretrainedConfig:
    """Return a trunk's facts with mean and std of a checkpoint.

    Args:
        facts: of the trunk.
        stored: the ``facts`` of the checkpoint.
    """
    return replace(facts, mean=tuple(stored.get("mean", facts.mean)), std=tuple(stored.get("std", facts.std)))


def _settle_head(experiment: Experiment, kind: str, key: str, path: str) -> None:
    own = experiment.model.head
    if own == "auto":
        settle(experiment, "model.head", kind, f"as in {Path(path).name}")
        experiment.set_value("model.head", kind)  # `settle` keeps an `auto` that the user wrote
    elif experiment.is_set("model.head") and own != kind:
        raise SpecError(f"model.head is {own}, and the head of model.{key} ({path}) is {kind}", expected="the same head: its "
                        "weights mean something else behind another", remedy="leave model.head out")  # fmt: skip
    elif own != kind:
        settle(experiment, "model.head", kind, f"as in {Path(path).name}")
