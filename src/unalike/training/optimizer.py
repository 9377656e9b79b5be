"""The optimizer and its parameter groups: trunk, embedder, loss; weights and biases apart, and stages of the trunk where
their rates differ.

Every group carries ``base_lr``; the loop writes ``lr = base_lr x factor`` before each update, so that the rate at any
step is the formula of ``schedule.LRSchedule`` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unalike.errors import SpecError
from unalike.training.sampled_proxies import SampledProxies

if TYPE_CHECKING:
    from unalike.model.backbones import Trunk
    from unalike.model.embedder import Embedder
    from unalike.spec import Experiment
    from unalike.spec.optim import Group

# By the names that ``train.optim.name`` may have.
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "Adamax": torch.optim.Adamax,
    "SGD": torch.optim.SGD,
}


# Those whose update of all weights is one kernel on a GPU (``fused``).
FUSED = ("Adam", "AdamW", "SGD")


def is_fused(experiment: Experiment, parameters: Iterable[nn.Parameter]) -> bool:
    """Return whether an optimizer's update runs as one kernel: on a GPU, unless gradients are scaled (fp16) and clipped.

    On a CPU it gains little and gives other bits than before.
    """
    return (
        experiment.train.optim.name in FUSED
        and experiment.train.precision != "fp16"
        and all(parameter.is_cuda and parameter.is_floating_point() for parameter in parameters)
    )


def _param_groups(
    name: str, module: nn.Module, rates: Group, *, scale: Mapping[nn.Parameter, float] | None = None,
    without_decay: Container[nn.Parameter] = (),
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the groups of a module's trainable weights and biases; a group without parameters is left out.

    Args:
        name: of the group of weights at the full rate; what differs from it has a longer name.
        module: the module.
        rates: rate and decay.
        scale: factor of the rate, by parameter; 1 where it is not named.
        without_decay: weights without weight decay.
    """
    groups: dict[str, dict[str, Any]] = {}
    for parameter_name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = 1.0 if scale is None else scale.get(parameter, 1.0)
        is_bias, decays = parameter_name.endswith("bias"), parameter not in without_decay
        suffix = "_bias" if is_bias else "" if decays else "_without_decay"
        decay = rates.weight_decay_bias if is_bias else rates.weight_decay if decays else 0.0
        base_lr = rates.base_lr * (rates.bias_lr_factor if is_bias else 1.0) * factor
        key = name + suffix + ("" if factor == 1.0 else f"_x{factor:.3g}")
        group = groups.setdefault(key, {"params": [], "base_lr": base_lr, "weight_decay": decay, "name": key})
        group["params"].append(parameter)
    # Weights first, then biases: the order in which checkpoints of earlier releases hold the optimizer's state.
    ordered = sorted(groups.values(), key=lambda group: "_bias" in group["name"])
    return [group | {"momentum": rates.momentum} for group in ordered]


def stage_factors(trunk: Trunk, decay: float) -> dict[nn.Parameter, float]:
    """Return the factor of each parameter's rate: ``decay`` to the power of the number of stages above its own.

    Parameters that are in no stage, as class tokens, belong to the lowest one (Bao, Dong and Wei, "BEiT", 2021).
    """
    stages = trunk.stages()
    factors = {
        parameter: decay ** (len(stages) - 1 - i)
        for i, stage in enumerate(stages)
        for module in stage
        for parameter in module.parameters()
    }
    return {parameter: decay ** (len(stages) - 1) for parameter in trunk.direct_parameters()} | factors


def tables_and_scales(trunk: Trunk) -> set[nn.Parameter]:
    """Return the weights that transformers are trained without decay of: scales of normalization, tokens, position tables."""
    tables = set(trunk.direct_parameters())
    if callable(table_names := getattr(trunk.net, "no_weight_decay", None)):
        tables |= {parameter for name, parameter in trunk.net.named_parameters() if name in table_names()}
    return tables | {parameter for parameter in trunk.parameters() if parameter.ndim <= 1}


def build_optimizer(experiment: Experiment, embedder: Embedder, criterion: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer that ``train.optim`` names, over all parameters that are not frozen.

    Args:
        experiment: the settled spec; momentum is used by SGD alone.
        embedder: trunk and head.
        criterion: its parameters, such as proxies, are a group of their own.

    Raises:
        SpecError: nothing is left to train.
    """
    optim = experiment.train.optim
    trunk = embedder.trunk
    groups = _param_groups(
        "trunk", trunk, optim.trunk, scale=stage_factors(trunk, optim.layer_decay) if optim.layer_decay < 1 else None,
        without_decay=() if optim.decay_norms else tables_and_scales(trunk),
    )  # fmt: skip
    groups += _param_groups("embedder", embedder.head, optim.embedder)
    proxies = [p for p in criterion.parameters() if p.requires_grad]
    if proxies:
        base_lr = optim.loss_lr if optim.loss_lr is not None else optim.embedder.base_lr
        # No decay on proxies: the losses that have them use directions alone, and decay only shrinks lengths.
        groups.append({"params": proxies, "base_lr": base_lr, "weight_decay": 0.0, "momentum": optim.embedder.momentum,
                       "name": "loss"})  # fmt: skip
    if not groups:
        raise SpecError("nothing is left to train: trunk, embedder and loss are all without trainable weights",
                        remedy="set train.train_trunk or train.train_embedder to true")  # fmt: skip
    for group in groups:
        if optim.name != "SGD":
            group.pop("momentum")
        group["lr"] = group["base_lr"]
    fused = is_fused(experiment, (parameter for group in groups for parameter in group["params"]))
    optimizer = OPTIMIZERS[optim.name](groups, lr=optim.embedder.base_lr, **({"fused": True} if fused else {}))
    for module in criterion.modules():
        if isinstance(module, SampledProxies):
            module.attach(optimizer)
    return optimizer


def set_learning_rates(
    optimizer: torch.optim.Optimizer, factor: float, *, train_trunk: bool = True
) -> dict[str, float]:
    """Set the learning rates of one step.

    Args:
        optimizer: an optimizer of ``build_optimizer``.
        factor: factor of every group's ``base_lr``, in [0, 1].
        train_trunk: whether the trunk is trained; otherwise its rates are 0.

    Returns:
        The rates by group name.
    """
    rates = {}
    for group in optimizer.param_groups:
        frozen = group["name"].startswith("trunk") and not train_trunk
        group["lr"] = 0.0 if frozen else group["base_lr"] * factor
        rates[group["name"]] = group["lr"]
    return rates
