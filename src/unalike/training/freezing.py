"""Freeze parts of the network while it is trained: stages, BatchNorm, the trunk in head-only epochs.

Frozen means neither gradients nor moving statistics (TAO D10). ``Freezer.set_train_modes`` is called at the start of
every epoch and after every validation, so that no mode is left behind (TAO D3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unalike.errors import SpecError

if TYPE_CHECKING:
    from unalike.model.embedder import Embedder
    from unalike.spec import Experiment


class Freezer:
    """Freezes parts of an embedder for a whole training, and sets train and eval modes.

    Args:
        embedder: its parameters' ``requires_grad`` is set here.
        experiment: ``train.train_trunk``, ``train.train_embedder``, ``train.frozen_stages`` and ``train.freeze_batchnorm``.

    Raises:
        SpecError: more stages are to be frozen than the trunk has.
    """

    def __init__(self, embedder: Embedder, experiment: Experiment) -> None:
        options = experiment.train
        self.embedder = embedder
        self.freeze_batchnorm = options.freeze_batchnorm
        self.train_embedder = options.train_embedder
        stages = embedder.trunk.stages()
        count = options.frozen_stages
        if count > len(stages):
            raise SpecError(f"train.frozen_stages is {count}", expected=f"at most {len(stages)}, the stages of "
                            f"{experiment.model.backbone}")  # fmt: skip
        whole_trunk = not options.train_trunk or count == len(stages)
        if whole_trunk and options.lora.rank:
            raise SpecError(f"train.lora.rank is {options.lora.rank}, and the whole trunk is frozen", expected="one of the two",
                            remedy="set train.lora.rank=0, or train.train_trunk=true and train.frozen_stages=0")  # fmt: skip
        self.frozen: list[nn.Module] = (
            [embedder.trunk] if whole_trunk else [module for stage in stages[:count] for module in stage]
        )
        for module in self.frozen:
            module.requires_grad_(False)
        if count > 0:  # class token and position table belong to the stem
            for parameter in embedder.trunk.direct_parameters():
                parameter.requires_grad_(False)
        if not self.train_embedder:
            embedder.head.requires_grad_(False)
        if options.lora.rank:  # the statistics of what does not learn stay as well
            self.frozen += [module for module in embedder.trunk.modules() if isinstance(module, _BatchNorm)]
        self.trunk_parameters = [p for p in embedder.trunk.parameters() if p.requires_grad]

    def set_train_modes(self, *, head_only: bool) -> None:
        """Set train mode for what is trained, eval mode for what is frozen; with ``head_only`` the whole trunk is frozen."""
        self.embedder.train()
        for parameter in self.trunk_parameters:
            parameter.requires_grad_(not head_only)
        if head_only:
            self.embedder.trunk.eval()
        for module in self.frozen:
            module.eval()
        if not self.train_embedder:
            self.embedder.head.eval()
        if self.freeze_batchnorm:
            for module in self.embedder.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
