"""A network that outputs feature maps of its trunk, for inspection, comparison and verification.

Which maps there are says timm (``feature_info``): the end of each stage of a pyramid, each block of a plain transformer.

Shape letters: B images, C channels of a map, h x w its height and width, H x W those of the image, D width of the vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from unalike.engines.metadata import MapFacts
from unalike.errors import ModelError, closest
from unalike.model.embedder import Embedder
from unalike.model.frozen_trunk import FrozenTrunk

# Where PatchCore (Roth et al., CVPR 2022) takes its features: fine in position, deep enough in meaning.
DENSE_STRIDES = (8, 16)
# Strides of ``model.feature_maps``' two words.
NAMED_STAGES = {"auto": DENSE_STRIDES, "middle": DENSE_STRIDES[1:]}


def list_feature_maps(trunk: nn.Module) -> list[tuple[str, int, int]]:
    """(name, stride, channels) of every map that a trunk can output, from the image upwards.

    Raises ModelError for a network without timm's ``feature_info`` (TAO's FAN among them).
    """
    net = getattr(trunk, "net", trunk)
    info = getattr(net, "feature_info", None)
    if not hasattr(net, "forward_intermediates") or not info:
        raise ModelError(
            f"{getattr(trunk, 'name', type(net).__name__)} gives no feature maps",
            expected="a timm network with stages or blocks",
            remedy="use a convolutional trunk, such as tf_efficientnet_lite0",
        )
    entries = info if isinstance(info, list) else info.info
    return [(str(entry["module"]), int(entry["reduction"]), int(entry["num_chs"])) for entry in entries]


def select_feature_maps(trunk: nn.Module, stages: str | Sequence[int | str] = "auto") -> list[int]:
    """Positions in ``list_feature_maps`` of the requested maps, in the order of ``stages``.

    Args:
        trunk: a Trunk, or the network inside.
        stages: numbers are strides, and mean the deepest map of that stride; texts are names of maps (``blocks.4``).
            ``auto``: strides 8 and 16 where a trunk has them, ``middle`` the latter alone; of other trunks both mean two
            blocks, half way up and at three quarters.

    Raises:
        ModelError: for a map that does not exist, with close spellings.
    """
    maps = list_feature_maps(trunk)
    names, strides = [name for name, _, _ in maps], [stride for _, stride, _ in maps]
    if isinstance(stages, str):
        if stages not in NAMED_STAGES:
            raise ModelError(f"stages {stages!r}", expected="auto, middle, or a sequence of strides and names")
        if all(stride in strides for stride in DENSE_STRIDES):
            stages = NAMED_STAGES[stages]
        else:
            return sorted({(len(maps) - 1) // 2, (3 * len(maps) - 1) // 4})
    positions = []
    for stage in stages:
        text = str(stage)
        if text in names:
            positions.append(names.index(text))
        elif text.isdigit() and int(text) in strides:
            positions.append(len(strides) - 1 - strides[::-1].index(int(text)))
        else:
            available = ", ".join(f"{name} (stride {stride})" for name, stride, _ in maps)
            raise ModelError(f"no feature map {text!r}", expected=available, remedy=closest(text, names))
    if not positions or len(set(positions)) != len(positions):
        raise ModelError(f"stages {list(stages)}", expected="at least one map, none of them twice")
    return positions


class FeatureMapNetwork(nn.Module):
    """``images_BCHW`` (float, normalized) -> (vectors_BD, map_BChw, ...), or the maps alone without ``vector``.

    ``maps`` describes the maps; ``dim`` is D, 0 without the vector. In eval mode.

    Args:
        network: its weights are shared, not copied.
        input_size: height and width, in pixels.
        stages: which maps, as for ``select_feature_maps``.
        vector: whether the vector is computed too; without it nothing above the highest map is.

    Raises:
        ModelError: where the trunk has no such maps or cannot run at ``input_size``.
    """

    def __init__(
        self, network: Embedder | FrozenTrunk, input_size: tuple[int, int],
        stages: str | Sequence[int | str] = "auto", vector: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network, self.vector = network, vector
        self.trunk = network.trunk
        self.dim = int(network.dim) if vector else 0
        selection = select_feature_maps(self.trunk, stages)
        self._indices = sorted(selection)  # in timm's order; _order is the requested one
        self._order = [self._indices.index(index) for index in selection]
        self.eval()
        self.maps = self._describe(input_size, [list_feature_maps(self.trunk)[index] for index in selection])

    def _describe(self, input_size: tuple[int, int], selection: list[tuple[str, int, int]]) -> tuple[MapFacts, ...]:
        """Name, stride and shape of each map, from one run on an image of zeros."""
        weight = next(self.parameters())
        images = torch.zeros(1, 3, *input_size, device=weight.device, dtype=weight.dtype)
        try:
            with torch.inference_mode():
                outputs = self(images)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ModelError(
                f"{self.trunk.name} cannot run on images of {input_size[0]} x {input_size[1]} ({error})",
                remedy="choose a size that it takes, or a convolutional trunk",
            ) from error
        return tuple(
            MapFacts(name, stride, int(output.shape[1]), int(output.shape[2]), int(output.shape[3]))
            for (name, stride, _), output in zip(selection, outputs[-len(selection) :], strict=True)
        )

    def forward(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        net: Any = self.trunk.net
        if not self.vector:
            maps = net.forward_intermediates(
                images_BCHW, indices=self._indices, stop_early=True, output_fmt="NCHW", intermediates_only=True
            )
            return tuple(maps[number] for number in self._order)
        top, maps = net.forward_intermediates(images_BCHW, indices=self._indices, output_fmt="NCHW")
        vectors = net.forward_head(top)
        head = getattr(self.network, "head", None)
        if head is not None:
            vectors = head(vectors)
        return (vectors, *(maps[number] for number in self._order))
