"""The optimizer and its parameter groups: trunk, embedder, loss; weights and biases apart.

Every group carries ``base_lr``; the loop writes ``lr = base_lr x factor`` before each update, so that the rate at any
step is the formula of ``schedule.LRSchedule`` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unalike.errors import SpecError
from unalike.training.sampled_proxies import SampledProxies

if TYPE_CHECKING:
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


def _param_groups(name: str, module: nn.Module, rates: Group) -> list[dict[str, Any]]:
    """Return the groups of a module's trainable weights and biases; a group without parameters is left out."""
    weights = [p for n, p in module.named_parameters() if p.requires_grad and not n.endswith("bias")]
    biases = [p for n, p in module.named_parameters() if p.requires_grad and n.endswith("bias")]
    groups = [
        {"params": weights, "base_lr": rates.base_lr, "weight_decay": rates.weight_decay, "name": name},
        {"params": biases, "base_lr": rates.base_lr * rates.bias_lr_factor, "weight_decay": rates.weight_decay_bias,
         "name": f"{name}_bias"},
    ]  # fmt: skip
    return [group | {"momentum": rates.momentum} for group in groups if group["params"]]


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
    groups = _param_groups("trunk", embedder.trunk, optim.trunk)
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
