"""Checkpoints of TAO's ml_recog (Lightning files), read as checkpoints of ours: network, weights and preprocessing.

TAO's files hold ``model.trunk.*`` and ``model.embedder.*`` in ``state_dict``, and often the spec in ``hyper_parameters``, as
plain containers or as objects of OmegaConf. What decides the network is looked for in this order: fields that the user set in
the spec of the action, the spec in the file, the shapes of the tensors, TAO's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unalike.data.view import View
from unalike.errors import SpecError, UnalikeError, WeightsError
from unalike.model.backbones import build_trunk, resolve_head
from unalike.model.embedder import Embedder, EmbedderConfig, create_embedder
from unalike.model.weight_files import plain_config, tensors_of
from unalike.model.weights import compare_tensors, load_tensors, translate
from unalike.progress import say

if TYPE_CHECKING:
    from unalike.spec import Experiment

TAO = "TAO"  # payload["origin"]
# A part of a tensor's name that every network of a family has -> TAO's backbones of that family.
TAO_BACKBONES = {
    "layer4.2.conv3.": ("resnet_50", "resnet_101"),
    "cls_attn_blocks.": ("fan_tiny", "fan_small", "fan_base", "fan_large"),
    ".ls1.": ("nvdinov2_vit_large_legacy",),
}
_FIELDS = {
    "model": ("backbone", "feat_dim", "input_width", "input_height", "input_channels"),
    "dataset": ("pixel_mean", "pixel_std"),
}

# Commands without a section model (gallery, embed, discover, ...) take the converted file alone.
_SPEC_REMEDY = (
    "give the spec that it was trained with (-e spec.yaml) to an action on a model, or write a checkpoint of ours once: "
    "unalike convert FILE -e spec.yaml"
)


def is_tao_checkpoint(content: Any, path: str | Path) -> bool:
    """Whether the content of a weight file is a whole network of TAO: it has tensors of a trunk and of an embedder."""
    if isinstance(content, Mapping) and content.get("state_dict_encrypted"):
        return True
    try:
        names = [f".{name}" for name in tensors_of(content, path)]
    except WeightsError:
        return False
    return any(".trunk." in name for name in names) and any(".embedder." in name for name in names)


def convert_tao_checkpoint(content: Any, path: str | Path, experiment: Experiment | None = None) -> dict[str, Any]:
    """Convert a checkpoint of TAO to the payload of a checkpoint of ours.

    Args:
        content: of ``read_content``.
        path: the file, for messages.
        experiment: the spec of an action; its ``model`` section describes the network where the user set it.

    Returns:
        The payload: ``model``, ``spec``, ``classes`` (none: the file does not name them), ``facts``, ``origin`` (``TAO``), and
        ``epoch`` and ``step`` where the file has them.

    Raises:
        WeightsError: the file is encrypted, its network is not the spec's, or none of the known ones.
    """
    if experiment is not None and experiment.is_set("model.feat_dim"):
        _correct_width(experiment, tensors_of(content, path), path)
    description = describe_tao_checkpoint(content, path, experiment)
    embedder = _build(description["spec"], tensors_of(content, path), path)
    return {
        "model": embedder.state_dict(),
        **description,
        "origin": TAO,
        "epoch": _whole_number(content, "epoch"),
        "step": _whole_number(content, "global_step"),
        "metrics": {},
    }


def describe_tao_checkpoint(content: Any, path: str | Path, experiment: Experiment | None = None) -> dict[str, Any]:
    """Return ``spec``, ``classes`` and ``facts`` of ``convert_tao_checkpoint``, without building the network.

    Args:
        content: of ``read_content``.
        path: the file, for messages.
        experiment: as there.

    Raises:
        WeightsError: the file is encrypted, or its network is not known.
    """
    from unalike.spec import Experiment as Spec

    tensors = tensors_of(content, path)
    spec = (experiment or Spec()).to_dict()
    in_file = _spec_in_file(content, path, experiment)
    for section, fields in _FIELDS.items():
        for field in fields:
            if experiment is None or not experiment.is_set(f"{section}.{field}"):
                spec[section][field] = getattr(getattr(in_file, section), field)
    specs = [in_file, *([] if experiment is None else [experiment])]
    if not any(each.is_set("model.backbone") for each in specs):
        spec["model"]["backbone"] = _find_backbone(tensors, path)
    if experiment is None or not experiment.is_set("model.feat_dim"):
        # Of FAN and NV-DINOv2 TAO ignores the field: the spec in their files says 256 by default, whatever the width is.
        spec["model"]["feat_dim"] = _vector_width(tensors, spec["model"]["feat_dim"])
    model, dataset = spec["model"], spec["dataset"]
    say(f"{path}: a checkpoint of TAO; {model['backbone']}, {model['feat_dim']} dimensions", once=True)
    try:
        facts = {
            "name": spec.get("model_name"),
            "trunk": model["backbone"],
            "mean": list(dataset["pixel_mean"]),
            "std": list(dataset["pixel_std"]),
            "view": View(int(model["input_height"]), int(model["input_width"]), **dataset["view"]).to_dict(),
            "licence": "that of the file",
            "weights": f"TAO checkpoint {Path(path).name}",
            "validation": "trained with TAO; not validated here",
        }
    except (TypeError, ValueError) as error:
        raise _no_network(path, error) from error
    return {"spec": spec, "classes": [], "facts": facts}


def _no_network(path: str | Path, error: object) -> WeightsError:
    return WeightsError(
        f"{path}: the spec in it does not describe a network ({error})",
        remedy=_SPEC_REMEDY,
    )


def _spec_in_file(content: Any, path: str | Path, experiment: Experiment | None) -> Experiment:
    """The fields of the spec in a file that describe the network, checked as those of a spec are; not those that the user set.

    Raises:
        WeightsError: a field is not valid.
    """
    from unalike.spec import load_spec

    embedded = find_embedded_spec(content)
    values = {
        section: {
            field: value
            for field in fields
            if (value := (embedded.get(section) or {}).get(field)) is not None
            and (experiment is None or not experiment.is_set(f"{section}.{field}"))
        }
        for section, fields in _FIELDS.items()
    }
    try:
        return load_spec("evaluate", values)
    except SpecError as error:
        raise _no_network(path, " ".join(str(error).split())) from error


def _build(spec: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], path: str | Path) -> Embedder:
    """The network of a spec with the tensors of a file, all of them. Raises WeightsError."""
    try:
        embedder = create_embedder(EmbedderConfig.from_spec(spec["model"]))
        for part, module in (("trunk", embedder.trunk.net), ("embedder", embedder.head)):
            load_tensors(module, tensors, part=part, source=str(path))
    except (KeyError, TypeError, ValueError) as error:
        raise _no_network(path, error) from error
    except UnalikeError as error:
        raise WeightsError(
            f"{path} is a checkpoint of TAO that is not {spec['model']['backbone']}: {error}",
            expected="the network of the section model",
            remedy=_SPEC_REMEDY,
        ) from error
    return embedder.eval()


def find_embedded_spec(content: Any) -> dict[str, Any]:
    """Return TAO's spec in a checkpoint as plain data: the first mapping with a section ``model`` that names a backbone."""
    if not isinstance(content, Mapping):
        return {}
    candidates = [
        plain_config(value) for key, value in content.items() if key not in ("state_dict", "optimizer_states")
    ]
    for _ in range(3):
        mappings = [value for value in candidates if isinstance(value, dict)]
        for value in mappings:
            model = value.get("model")
            if isinstance(model, dict) and isinstance(model.get("backbone"), str):
                dataset = value.get("dataset")
                return {"model": model, "dataset": dataset if isinstance(dataset, dict) else {}}
        candidates = [inner for value in mappings for inner in value.values()]
    return {}


def _find_backbone(tensors: Mapping[str, torch.Tensor], path: str | Path) -> str:
    """The name of TAO's backbone whose tensors have these names and shapes. Raises WeightsError."""
    candidates = [
        name for part, names in TAO_BACKBONES.items() if any(part in key for key in tensors) for name in names
    ]
    for name in candidates:
        with torch.device("meta"):
            trunk = build_trunk(name, pretrained="false", in_chans=3, input_size=(224, 224))
        if compare_tensors(trunk.net, tensors, part="trunk")[0].complete:
            return name
    raise WeightsError(
        f"{path} is a checkpoint of a network that cannot be known from its tensors",
        expected=f"one of TAO's: {', '.join(name for names in TAO_BACKBONES.values() for name in names)}",
        remedy=_SPEC_REMEDY,
    )


def _correct_width(experiment: Experiment, tensors: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Replace ``model.feat_dim`` of a spec by the width in the file, for the trunks of which TAO ignores the field."""
    model = experiment.model
    width = _vector_width(tensors, model.feat_dim)
    if resolve_head("auto", model.backbone) == "residual" and width != model.feat_dim and not _has_projection(tensors):
        say(f"model.feat_dim: {model.feat_dim} is not used: TAO ignores it for {model.backbone}, and the vectors of {path} have "
            f"{width} values", once=True)  # fmt: skip
        experiment.set_value("model.feat_dim", width)


def _has_projection(tensors: Mapping[str, torch.Tensor]) -> bool:
    return any(".embedder.projection." in f".{name}" for name in tensors)


def _vector_width(tensors: Mapping[str, torch.Tensor], default: int) -> int:
    """The width of the vectors by the last layer of the embedder."""
    widths = {}
    for key, value in tensors.items():
        _, separator, name = f".{key}".rpartition(".embedder.")
        if separator and value.ndim == 2:
            widths[translate(name, "embedder")] = int(value.shape[0])
    return widths.get("projection.weight") or widths.get("linear.weight") or default


def _whole_number(content: Any, key: str) -> int | None:
    value = content.get(key) if isinstance(content, Mapping) else None
    return value if isinstance(value, int) else None
