"""What learns and what rests: frozen stages, frozen BatchNorm, head-first epochs.

Frozen means frozen: no gradient and no moving statistics (TAO D10). ``Freezer.set_modes`` is called at the start of
every epoch and after every validation, so that no mode is left behind (TAO D3).
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unalike.errors import SpecError


class Freezer:
    """Holds which parts of an embedder are frozen for good, and puts modes and gradients in place."""

    def __init__(self, embedder: Any, spec: Any) -> None:
        self.embedder = embedder
        self.freeze_batchnorm = spec.train.freeze_batchnorm
        self.train_embedder = spec.train.train_embedder
        stages = embedder.trunk.stages()
        count = spec.train.frozen_stages
        if count > len(stages):
            raise SpecError(f"train.frozen_stages is {count}", expected=f"at most {len(stages)}, the stages of "
                            f"{spec.model.backbone}")  # fmt: skip
        self.whole_trunk = not spec.train.train_trunk or count == len(stages)
        self.frozen: list[nn.Module] = (
            [embedder.trunk] if self.whole_trunk else [m for stage in stages[:count] for m in stage]
        )
        for part in self.frozen:
            part.requires_grad_(False)
        if count > 0:  # class token and position table belong to the stem
            for parameter in embedder.trunk.direct_parameters():
                parameter.requires_grad_(False)
        if not self.train_embedder:
            embedder.head.requires_grad_(False)
        self.trunk_parameters = [p for p in embedder.trunk.parameters() if p.requires_grad]

    def set_modes(self, *, head_only: bool) -> None:
        """Train mode where something learns, eval mode where it rests; with ``head_only`` the whole trunk rests."""
        self.embedder.train()
        for parameter in self.trunk_parameters:
            parameter.requires_grad_(not head_only)
        if head_only:
            self.embedder.trunk.eval()
        for part in self.frozen:
            part.eval()
        if not self.train_embedder:
            self.embedder.head.eval()
        if self.freeze_batchnorm:
            for module in self.embedder.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
