"""What a checkpoint says about a network that starts from its weights: head, sizes, view, decoding, mean and std."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.data.decoding import Decoding, format_ground
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
    trained on one view, decoding, mean and std is another network on others. Checkpoints of ours and of TAO say all of it;
    weights of other programs say nothing, and settle nothing. Mean and std follow with the weights (``with_stored_facts``).

    Args:
        experiment: the spec; the trunk, the sizes, the head, the evaluation view and the decoding may be settled in it.

    Returns:
        Whether the trunk was settled.

    Raises:
        SpecError: ``model.head`` is another than that of the file.
        WeightsError: a file cannot be read.
    """
    settled_trunk = False
    for key, names in _FILES:
        path = getattr(experiment.model, key)
        content = read_parent(path, experiment) if path else None
        if content is None:
            continue
        reason = f"as in {Path(path).name}"
        section = content["spec"]["model"]
        if "head" in names:
            _settle_head(
                experiment, resolve_head(str(section.get("head", "auto")), str(section["backbone"])), key, path
            )
        for name in names:
            if name != "head" and name in section:
                settle(experiment, f"model.{name}", section[name], reason)
        if "backbone" in names:
            settled_trunk = True
            _keep_view(experiment, (content.get("facts") or {}).get("view", {}))
    return settled_trunk


def adopt_resumed_network(experiment: Experiment) -> None:
    """Start from the network of the checkpoint of TAO that training is resumed from, where the spec names no other weights.

    Trunk, sizes, view, mean and std then come from the file, as with ``model.pretrained_model_path``, which is set to it. A
    checkpoint of ours is resumed with the spec of its run.

    Raises:
        WeightsError: the file cannot be read.
    """
    from unalike.model.tao_checkpoint import is_tao_checkpoint

    path, model = experiment.train.resume_training_checkpoint_path, experiment.model
    if not path or model.pretrained_model_path or model.pretrained_trunk_path:
        return
    content = read_content(path)
    is_own = isinstance(content, dict) and "format_version" in content
    if not is_own and is_tao_checkpoint(content, path):
        experiment.set_value("model.pretrained_model_path", str(path))


def _keep_view(experiment: Experiment, view: Mapping[str, Any]) -> None:
    """Give the spec the evaluation view and the decoding of a checkpoint, where the user set neither."""
    for name, value in view.items():
        if name not in ("height", "width", "decoding") and not experiment.is_set(f"dataset.view.{name}"):
            experiment.set_value(f"dataset.view.{name}", value)
    if not experiment.is_set("dataset.decoding"):
        set_decoding(experiment, Decoding.from_dict(view.get("decoding")))


def set_decoding(experiment: Experiment, decoding: Decoding) -> None:
    """Set ``dataset.decoding``; what the decoding leaves open stays as it is in the spec."""
    experiment.set_value("dataset.decoding.version", decoding.version)
    if decoding.ground is not None:
        experiment.set_value("dataset.decoding.ground", format_ground(decoding.ground))
    if decoding.range is not None:
        experiment.set_value("dataset.decoding.range", list(decoding.range))


def read_parent(path: str | Path, experiment: Experiment | None = None) -> dict[str, Any] | None:
    """Return ``spec``, ``facts`` and ``classes`` of a checkpoint of this tool or of TAO; None for weights of another program.

    Args:
        path: the file.
        experiment: the spec, which describes the network of a file of TAO that does not describe itself.

    Raises:
        WeightsError: the file cannot be read, or its network is not known.
    """
    from unalike.model.tao_checkpoint import describe_tao_checkpoint, is_tao_checkpoint

    content = read_content(path)
    is_own = isinstance(content, dict) and "format_version" in content and isinstance(content.get("spec"), Mapping)
    if is_own:
        return content if isinstance(content["spec"].get("model"), Mapping) else None
    return describe_tao_checkpoint(content, path, experiment) if is_tao_checkpoint(content, path) else None


def with_stored_facts(facts: PretrainedConfig, values: Mapping[str, Any]) -> PretrainedConfig:
    """Return a trunk's facts with mean and std of a checkpoint.

    Args:
        facts: of the trunk.
        values: the ``facts`` of the checkpoint.
    """
    return replace(facts, mean=tuple(values.get("mean", facts.mean)), std=tuple(values.get("std", facts.std)))


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
