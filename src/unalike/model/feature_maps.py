"""A network whose trunk gives its feature maps away: what dense work (inspection, comparison, verification) stands on.

The places are timm's own (``feature_info``): the end of each stage of a pyramid, each block of a plain transformer.

Shape letters: B images, C channels of a map, h x w its height and width, H x W those of the image, D width of the vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from unalike.engines.metadata import MapFacts
from unalike.errors import ModelError, closest

# Where PatchCore (Roth et al., CVPR 2022) takes its features: fine enough to see, deep enough to know.
DENSE_STRIDES = (8, 16)
# What the words for it mean: both, or the coarser alone.
SETTLED = {"auto": DENSE_STRIDES, "middle": DENSE_STRIDES[1:]}


def list_feature_maps(trunk: nn.Module) -> list[tuple[str, int, int]]:
    """(name, stride, channels) of every map that a trunk can give, from the image upwards.

    Raises ModelError for a network that timm cannot open up (TAO's FAN among them).
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
    """Which of ``list_feature_maps`` are meant, in the order of ``stages``.

    A number is a stride: the deepest map of that stride. A text is a place's name (``blocks.4``). ``auto``: strides 8 and
    16 where a trunk has them, ``middle`` the latter alone; of other trunks two blocks, half way up and at three quarters. Raises ModelError with close spellings.
    """
    places = list_feature_maps(trunk)
    names, strides = [name for name, _, _ in places], [stride for _, stride, _ in places]
    if isinstance(stages, str):
        if stages not in SETTLED:
            raise ModelError(f"stages {stages!r}", expected="auto, middle, or a sequence of strides and names")
        if all(stride in strides for stride in DENSE_STRIDES):
            stages = SETTLED[stages]
        else:
            return sorted({(len(places) - 1) // 2, (3 * len(places) - 1) // 4})
    chosen = []
    for stage in stages:
        text = str(stage)
        if text in names:
            chosen.append(names.index(text))
        elif text.isdigit() and int(text) in strides:
            chosen.append(len(strides) - 1 - strides[::-1].index(int(text)))
        else:
            told = ", ".join(f"{name} (stride {stride})" for name, stride, _ in places)
            raise ModelError(f"no feature map {text!r}", expected=told, remedy=closest(text, names))
    if not chosen or len(set(chosen)) != len(chosen):
        raise ModelError(f"stages {list(stages)}", expected="at least one map, none of them twice")
    return chosen


class FeatureMapNetwork(nn.Module):
    """``images_BCHW`` (float, normalised) -> (vectors_BD, map_BChw, ...), or the maps alone without ``vector``.

    ``network`` is an Embedder or a FrozenTrunk; its weights are shared, not copied. Without the vector nothing above the
    highest map is computed. ``maps`` says what the maps are; ``dim`` is 0 without the vector. In eval mode.
    Raises ModelError where the trunk has no such maps or cannot run at ``input_size``.
    """

    def __init__(
        self, network: Any, input_size: tuple[int, int], stages: str | Sequence[int | str] = "auto",
        vector: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network, self.vector = network, vector
        self.trunk: Any = network.trunk
        self.dim = int(getattr(network, "dim", 0)) if vector else 0
        chosen = select_feature_maps(self.trunk, stages)
        self._places = sorted(chosen)  # as timm gives them; _order is how they were asked for
        self._order = [self._places.index(place) for place in chosen]
        self.eval()
        self.maps = self._measure(input_size, [list_feature_maps(self.trunk)[place] for place in chosen])

    def _measure(self, input_size: tuple[int, int], places: list[tuple[str, int, int]]) -> tuple[MapFacts, ...]:
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
            MapFacts(name, stride, int(found.shape[1]), int(found.shape[2]), int(found.shape[3]))
            for (name, stride, _), found in zip(places, outputs[-len(places) :], strict=True)
        )

    def forward(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        net = self.trunk.net
        if not self.vector:
            found = net.forward_intermediates(
                images_BCHW, indices=self._places, stop_early=True, output_fmt="NCHW", intermediates_only=True
            )
            return tuple(found[number] for number in self._order)
        top, found = net.forward_intermediates(images_BCHW, indices=self._places, output_fmt="NCHW")
        vectors = net.forward_head(top)
        head = getattr(self.network, "head", None)
        if head is not None:
            vectors = head(vectors)
        return (vectors, *(found[number] for number in self._order))
