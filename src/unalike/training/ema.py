"""Exponential moving average (EMA) of the weights, beside the weights that are trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ModelEma:
    """``average = decay x average + (1 - decay) x weights`` after every update.

    Floating buffers (BatchNorm statistics) are averaged too; buffers of whole numbers are copied. The decay starts low,
    ``min(decay, (1 + n) / (10 + n))`` after ``n`` updates, so that short runs forget the random first weights.

    Args:
        module: the network, whose present weights are where the average starts.
        decay: share of the old average that stays at each update, in [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.average: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1.0 - decay)
            else:
                self.average[key].copy_(value)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Within this context, the module has the averaged weights; its own are restored afterwards."""
        own = {k: v.detach().clone() for k, v in module.state_dict().items()}
        module.load_state_dict(self.average)
        try:
            yield
        finally:
            module.load_state_dict(own)
