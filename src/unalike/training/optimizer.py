"""The optimizer and its parameter groups: trunk, embedder, loss; weights and biases apart.

Every group carries ``base_lr``; the loop writes ``lr = base_lr x factor`` before each update, so that the rate at any
step is the formula of ``schedule.LRSchedule`` and nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unalike.errors import SpecError

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "Adamax": torch.optim.Adamax,
    "SGD": torch.optim.SGD,
}


def _groups(name: str, module: nn.Module, rates: Any) -> list[dict[str, Any]]:
    weights = [p for n, p in module.named_parameters() if p.requires_grad and not n.endswith("bias")]
    biases = [p for n, p in module.named_parameters() if p.requires_grad and n.endswith("bias")]
    both = [
        {"params": weights, "base_lr": rates.base_lr, "weight_decay": rates.weight_decay, "name": name},
        {"params": biases, "base_lr": rates.base_lr * rates.bias_lr_factor, "weight_decay": rates.weight_decay_bias,
         "name": f"{name}_bias"},
    ]  # fmt: skip
    return [group | {"momentum": rates.momentum} for group in both if group["params"]]


def build_optimizer(spec: Any, embedder: Any, criterion: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that ``train.optim`` names, over what is not frozen; momentum acts in SGD alone."""
    optim = spec.train.optim
    groups = _groups("trunk", embedder.trunk, optim.trunk) + _groups("embedder", embedder.head, optim.embedder)
    proxies = [p for p in criterion.parameters() if p.requires_grad]
    if proxies:
        rate = optim.loss_lr if optim.loss_lr is not None else optim.embedder.base_lr
        # No decay on proxies: the losses that have them look at directions, and decay only shrinks lengths.
        groups.append({"params": proxies, "base_lr": rate, "weight_decay": 0.0, "momentum": optim.embedder.momentum,
                       "name": "loss"})  # fmt: skip
    if not groups:
        raise SpecError("nothing is left to train: trunk, embedder and loss are all without trainable weights",
                        remedy="set train.train_trunk or train.train_embedder to true")  # fmt: skip
    cls: Any = OPTIMIZERS[optim.name]
    for group in groups:
        if optim.name != "SGD":
            group.pop("momentum")
        group["lr"] = group["base_lr"]
    optimizer: torch.optim.Optimizer = cls(groups, lr=optim.embedder.base_lr)
    return optimizer


def set_learning_rates(
    optimizer: torch.optim.Optimizer, factor: float, *, trunk_learns: bool = True
) -> dict[str, float]:
    """Write the rates of this step; the trunk's are zero while only the head learns. Returns them by group name."""
    rates = {}
    for group in optimizer.param_groups:
        resting = group["name"].startswith("trunk") and not trunk_learns
        group["lr"] = 0.0 if resting else group["base_lr"] * factor
        rates[group["name"]] = group["lr"]
    return rates
