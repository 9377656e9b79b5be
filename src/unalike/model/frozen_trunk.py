"""A pretrained trunk without a head, frozen: its own features are the baseline that training has to beat."""

from __future__ import annotations

import torch
from torch import nn

from unalike.model.backbones import Trunk, build_trunk


class FrozenTrunk(nn.Module):
    """``images_BCHW`` (float, normalised) -> the trunk's own features (B, F); ``dim`` is F. In eval mode."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk, self.dim = trunk, trunk.width
        self.requires_grad_(False).eval()

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        features_BF: torch.Tensor = self.trunk(images_BCHW)
        return features_BF


def build_frozen_trunk(backbone: str, input_size: tuple[int, int]) -> FrozenTrunk:
    """The trunk of a name with its pretrained weights, for images of ``input_size`` (height, width).

    Raises WeightsError where no weights are available, ModelError for an unknown name.
    """
    return FrozenTrunk(build_trunk(backbone, pretrained="true", input_size=input_size))
