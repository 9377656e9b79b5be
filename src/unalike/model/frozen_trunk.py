"""A pretrained trunk without a head, frozen: its own features are the baseline that training has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from unalike.model.backbones import Trunk, build_trunk
from unalike.model.embedder import load_trunk_weights

if TYPE_CHECKING:
    from unalike.spec import Experiment


class FrozenTrunk(nn.Module):
    """``images_BCHW`` (float, normalized) -> the trunk's own features (B, F); ``dim`` is F. In eval mode."""

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


def build_starting_trunk(experiment: Experiment, backbone: str, input_size: tuple[int, int]) -> FrozenTrunk:
    """The trunk that a training starts from, frozen.

    Args:
        experiment: the spec; weights that it names for the trunk go before the pretrained ones.
        backbone: the trunk's name.
        input_size: (height, width) of the images.

    Raises:
        WeightsError: a named file does not fit this trunk, or no weights are available.
        ModelError: the name is not known.
    """
    if not (experiment.model.pretrained_trunk_path or experiment.model.pretrained_model_path):
        return build_frozen_trunk(backbone, input_size)
    trunk = build_trunk(backbone, pretrained="false", input_size=input_size)
    load_trunk_weights(trunk, experiment)
    return FrozenTrunk(trunk)
