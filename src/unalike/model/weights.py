"""Load the tensors of a weight file into a network under a strict report.

``load_tensors`` finds a network's tensors among those of a file, under any prefix, and knows the names of torchvision, timm,
DINOv2, FAN and TAO.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from unalike import progress
from unalike.errors import WeightsError


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor when weights were loaded.

    Attributes:
        part: ``trunk`` or ``embedder`` (the head).
        loaded: names in the network.
        missing: names in the network that the file lacks.
        unexpected: names in the file that the network lacks.
        misshaped: names and both shapes.
        ignored: classifiers, left out by rule.
        elsewhere: names in the file that belong to other parts.
        resized: position tables that were interpolated to another grid.
    """

    part: str
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshaped: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor of the network was loaded and nothing was left over."""
        return not (self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.missing) + len(self.misshaped)
        text = f"{len(self.loaded)} of {total} tensors of the {self.part} loaded"
        for name in ("missing", "unexpected", "misshaped", "resized", "ignored", "elsewhere"):
            if names := getattr(self, name):
                text += f", {len(names)} {name} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        return text


# Left out of a trunk by rule: classifiers, and what DINOv2 needs in its own training only.
_CLASSIFIER = re.compile(r"^(fc|head|heads|classifier|last_linear|head_dist|dino_head|ibot_head|mask_token)(\.|$)")


def load_tensors(
    module: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    *,
    part: str,
    allow_partial: bool = False,
    source: str = "",
) -> LoadReport:
    """Load tensors into one part of an embedder.

    The names may have any prefix (``module.``, ``model.trunk.``, ``backbone.``); the one under which most of the
    module's tensors are found counts, and names without it belong to other parts.

    Args:
        module: trunk or head.
        tensors: of a file, by its own names.
        part: ``trunk``, or ``embedder`` for the head.
        allow_partial: whether tensors may be missing or left over.
        source: the file, for messages.

    Raises:
        WeightsError: unless every tensor is loaded and none is left over; with ``allow_partial`` only when none is loaded.
    """
    report, fitting = compare_tensors(module, tensors, part=part)
    if not report.complete and (not allow_partial or not report.loaded):
        remedy = "the file must be of this backbone, input_channels and feat_dim"
        if any(key.startswith("projection.") for key in report.missing):
            remedy = "set model.feat_dim to the trunk's width: the file knows no projection to another"
        if report.loaded:
            remedy += "; model.allow_partial_weights = true accepts it as it is"
        raise WeightsError(f"{source + ': ' if source else ''}{report}", expected="all loaded", remedy=remedy)
    module.load_state_dict(fitting, strict=False)
    return report


def compare_tensors(
    module: nn.Module, tensors: Mapping[str, torch.Tensor], *, part: str
) -> tuple[LoadReport, dict[str, torch.Tensor]]:
    """Return what ``load_tensors`` would report, and the tensors that it would load; the module may be on device meta."""
    own = module.state_dict()
    prefix, keys = _best_prefix(tensors, own, part)
    return _compare(tensors, prefix, keys, own, module, part)


def _best_prefix(
    tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], part: str
) -> tuple[str, dict[str, str]]:
    """The prefix with the most of the module's names below it, and {the module's name: the file's name}."""
    known_names = {*own, *_foreign_names(part)}
    prefixes = {""}
    for key in tensors:
        pieces = key.split(".")
        for cut in range(1, len(pieces)):
            if ".".join(pieces[cut:]) in known_names:
                prefixes.add(".".join(pieces[:cut]) + ".")
    best: tuple[int, int, str, dict[str, str]] = (-1, 0, "", {})
    for prefix in sorted(prefixes):
        keys = {translate(key[len(prefix) :], part): key for key in tensors if key.startswith(prefix)}
        hits = sum(name in own for name in keys)
        if (hits, -len(prefix)) > best[:2]:
            best = (hits, -len(prefix), prefix, keys)
    return best[2], best[3]


def _compare(
    tensors: Mapping[str, torch.Tensor],
    prefix: str,
    keys: Mapping[str, str],
    own: Mapping[str, torch.Tensor],
    module: nn.Module,
    part: str,
) -> tuple[LoadReport, dict[str, torch.Tensor]]:
    """The report, and the tensors that fit by their names in the network."""
    fitting: dict[str, torch.Tensor] = {}
    wrong_shapes, resized = [], []
    values = _split_class_attention({name: tensors[key] for name, key in keys.items()}, own)
    for name, value in values.items():
        if name not in own:
            continue
        if value.shape != own[name].shape and name == "pos_embed" and value.ndim == 3:
            value = _resample_positions(value, module)
            resized.append(name)
        if value.shape != own[name].shape:
            wrong_shapes.append(f"{name} {tuple(value.shape)} for {tuple(own[name].shape)}")
            continue
        fitting[name] = value
    shapeless = {m.split(" ")[0] for m in wrong_shapes}
    left_over = [name for name in values if name not in own]
    classifier_names = [name for name in left_over if part == "trunk" and _CLASSIFIER.match(name)]
    elsewhere = [key for key in tensors if prefix and not key.startswith(prefix)]
    return (
        LoadReport(
            part,
            loaded=tuple(fitting),
            missing=tuple(k for k in own if k not in fitting and k not in shapeless and not _is_step_counter(k)),
            unexpected=tuple(name for name in left_over if name not in classifier_names),
            misshaped=tuple(wrong_shapes),
            ignored=tuple(classifier_names),
            elsewhere=tuple(elsewhere),
            resized=tuple(resized),
        ),
        fitting,
    )


def _is_step_counter(name: str) -> bool:
    """BatchNorm's step counter: files older than torch 0.4.1 lack it, and nothing depends on it."""
    return name.endswith("num_batches_tracked")


# TAO's heads (left) and ours (right). Its linear head stands in its files twice, as net.0 and as last_linear.
_HEAD_NAMES = {"net.0.": "linear.", "last_linear.": "linear.", "embedding_fc.0.": "norm.", "embedding_fc.1.": "linear."}
for _number, _theirs in enumerate(("classifier_feat", "classifier_feat2", "classifier_feat3", "classifier_feat4")):
    _HEAD_NAMES[f"{_theirs}.0."] = f"adaptors.{_number}.down."
    _HEAD_NAMES[f"{_theirs}.2."] = f"adaptors.{_number}.up."


def _foreign_names(part: str) -> Iterable[str]:
    """Names of other programs by which a prefix can be recognized."""
    return [old + "weight" for old in _HEAD_NAMES] if part == "embedder" else ()


def translate(name: str, part: str) -> str:
    """A tensor's name in our networks, from its name in TAO's heads, in DINOv2 or in older FAN files."""
    if part == "embedder":
        for theirs, ours in _HEAD_NAMES.items():
            if name.startswith(theirs):
                return ours + name[len(theirs) :]
        return name
    name = re.sub(r"^blocks\.\d+\.(\d+)\.(norm|attn|mlp|ls)", r"blocks.\1.\2", name)  # DINOv2's chunks of blocks
    name = re.sub(r"\.mlp\.w12\.", ".mlp.fc1.", name)
    name = re.sub(r"\.mlp\.w3\.", ".mlp.fc2.", name)
    name = re.sub(r"^register_tokens$", "reg_token", name)
    return re.sub(r"^pos_embeder\.", "pos_embed.", name)


def _split_class_attention(values: dict[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Older FAN files keep query, key and value of the class attention in one tensor."""
    split: dict[str, torch.Tensor] = {}
    for name, value in values.items():
        match = re.match(r"^(cls_attn_blocks\.\d+\.attn\.)qkv\.(weight|bias)$", name)
        if match and f"{match[1]}q.{match[2]}" in own:
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                split[f"{match[1]}{letter}.{match[2]}"] = third
        else:
            split[name] = value
    return split


def _resample_positions(positions_1ND: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """A transformer's position table interpolated for another image size; unchanged when it has no square grid."""
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    prefix = getattr(module, "num_prefix_tokens", 1)
    if getattr(module, "no_embed_class", False):
        prefix = 0
    side = round((positions_1ND.shape[1] - prefix) ** 0.5)
    if grid is None or side * side + prefix != positions_1ND.shape[1]:
        return positions_1ND
    from timm.layers.pos_embed import resample_abs_pos_embed

    progress.say(f"position table of {side} x {side} resampled to {grid[0]} x {grid[1]}")
    resampled: torch.Tensor = resample_abs_pos_embed(positions_1ND, new_size=list(grid), num_prefix_tokens=prefix)
    return resampled
