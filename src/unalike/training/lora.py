"""LoRA: a frozen trunk that learns low-rank updates of its weight matrices, merged into them wherever weights are saved.

``W + alpha / rank x up @ down``, as Hu et al., "LoRA: Low-rank adaptation of large language models" (2021) have it. ``up`` starts
at 0, so that training begins with the network as it is. Checkpoints hold merged weights under the network's own names and
load everywhere; what resuming needs besides is a part of the training state.

Shape letters: O outputs, I inputs of a layer, K rank.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unalike.errors import SpecError
from unalike.progress import say

if TYPE_CHECKING:
    from unalike.model.backbones import Trunk
    from unalike.spec.train import Lora

# Parts of the names of modules that attend.
ATTENTION = ("attn", "attention")
# What torch's parametrizations put into the names of parameters.
_PARAMETRIZED, _ORIGINAL = ".parametrizations.weight.", "original"


class LowRankUpdate(nn.Module):
    """Adds ``scale x up @ down`` to a matrix.

    Args:
        outputs, inputs: of the matrix (O, I).
        rank: of the update, K.
        alpha: the update counts ``alpha / rank``.
    """

    def __init__(self, outputs: int, inputs: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.down_KI = nn.Parameter(torch.empty(rank, inputs))
        self.up_OK = nn.Parameter(torch.zeros(outputs, rank))
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(alpha / rank))
        nn.init.kaiming_uniform_(self.down_KI, a=math.sqrt(5))

    def forward(self, weight_OI: Tensor) -> Tensor:
        """The matrix (O, I) with its update."""
        return _updated(weight_OI, self.up_OK, self.down_KI, self.scale)


def _updated(weight_OI: Tensor, up_OK: Tensor, down_KI: Tensor, scale: Tensor) -> Tensor:
    return weight_OI + scale * (up_OK @ down_KI)


def add_lora(trunk: Trunk, options: Lora) -> int:
    """Give layers of a trunk low-rank updates; nothing else of the trunk learns from then on.

    Args:
        trunk: changed in place, where ``rank`` is not 0.
        options: rank, alpha, and which layers.

    Returns:
        The number of layers.

    Raises:
        SpecError: the trunk has no such layers.
    """
    if not options.rank:
        if (options.alpha, options.layers) != (type(options)().alpha, type(options)().layers):
            say("settings that are not used: train.lora.alpha, train.lora.layers (train.lora.rank is 0)")
        return 0
    layers = [
        layer
        for name, layer in trunk.named_modules()
        if isinstance(layer, nn.Linear)
        and (options.layers == "all" or _attends(name))
        and not parametrize.is_parametrized(layer)
    ]
    if not layers:
        raise SpecError(f"train.lora.rank is {options.rank}, and {trunk.name} has no layers of kind {options.layers!r}",
                        expected="a transformer", remedy="set train.lora.rank=0, or train.lora.layers=all")  # fmt: skip
    for layer in layers:
        update = LowRankUpdate(layer.out_features, layer.in_features, options.rank, options.alpha)
        parametrize.register_parametrization(layer, "weight", update.to(layer.weight.device))
    for name, parameter in trunk.named_parameters():
        parameter.requires_grad_(_PARAMETRIZED in name and not name.endswith(_ORIGINAL))
    return len(layers)


def _attends(name: str) -> bool:
    """Whether a layer's qualified name says that it is a part of an attention."""
    return any(word in part for part in name.split(".")[:-1] for word in ATTENTION)


def _layers(module: nn.Module) -> list[nn.Linear]:
    return [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.Linear)
        and parametrize.is_parametrized(layer, "weight")
        and isinstance(layer.get_submodule("parametrizations.weight.0"), LowRankUpdate)
    ]


def has_lora(module: nn.Module) -> bool:
    """Whether any layer has a low-rank update."""
    return bool(_layers(module))


@torch.no_grad()
def merge_lora(module: nn.Module) -> None:
    """Put the updates into the weights, in place: the layers are plain ones again."""
    for layer in _layers(module):
        weight_OI = layer.weight.clone()
        # Not by torch's remove_parametrizations: a layer and its copies share a class, from which that removes the weight.
        plain_class = type(layer).__bases__[0]
        del layer.parametrizations
        layer.__class__ = plain_class
        layer.weight = nn.Parameter(weight_OI)


def merged_copy(module: nn.Module) -> nn.Module:
    """A copy with the updates in its weights; the module itself where it has none."""
    if not has_lora(module):
        return module
    result = copy.deepcopy(module)
    merge_lora(result)
    return result


# ---- states ----


def merged_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of ``merged_copy``, from that of a module with updates; as it is without."""
    result = {}
    for name, tensor in state.items():
        layer, infix, part = name.partition(_PARAMETRIZED)
        if not infix:
            result[name] = tensor
        elif part == _ORIGINAL:
            up_OK, down_KI, scale = (state[f"{layer}{infix}0.{key}"] for key in ("up_OK", "down_KI", "scale"))
            result[f"{layer}.weight"] = _updated(tensor, up_OK, down_KI, scale)
    return result


def unmerged_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What ``merged_state`` replaces: weights without updates, and the updates."""
    return {name: tensor for name, tensor in state.items() if _PARAMETRIZED in name}


def unmerged_state(merged: Mapping[str, Tensor], part: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state that ``merged_state`` was made of, by its ``unmerged_part``."""
    replaced = {f"{name.partition(_PARAMETRIZED)[0]}.weight" for name in part}
    return {name: tensor for name, tensor in merged.items() if name not in replaced} | dict(part)


def state_before_training(module: nn.Module, plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a module whose updates are still 0, with the weights of a plain network."""
    result = {}
    for name, tensor in module.state_dict().items():
        layer, infix, part = name.partition(_PARAMETRIZED)
        plain_name = f"{layer}.weight" if part == _ORIGINAL else name
        if infix and part != _ORIGINAL:
            result[name] = tensor
        elif plain_name in plain:
            result[name] = plain[plain_name]
    return result
