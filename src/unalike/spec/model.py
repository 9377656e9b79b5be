"""Section ``model``: the network, its input size and the weights it starts from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from unalike.spec.declare import Section, Text, field

# Names of TAO. Any timm name is accepted too; whether it exists is checked in the package model.
TAO_BACKBONE_NAMES = (
    "resnet_50", "resnet_101", "fan_small", "fan_base", "fan_large", "fan_tiny", "nvdinov2_vit_large_legacy",
)  # fmt: skip


def _word(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


_PRETRAINED: dict[str, Any] = {"type": ["string", "boolean"], "enum": ["auto", "true", "false", True, False]}


class Model(Section):
    backbone: str = field(
        "resnet_50", "Trunk of the network: one of TAO's names or any name of timm.",
        min_length=1, settled=True, schema={"anyOf": [{"enum": list(TAO_BACKBONE_NAMES)}, {"minLength": 1}]},
    )  # fmt: skip
    pretrained_model_path: Text = field(
        None,
        "Checkpoint whose weights the whole network starts from. One of unalike or of TAO also decides trunk, input size, view, "
        "decoding, mean and std. Automatic training fits heads to its trunk, fine-tunes it, and compares the network as it is.",
    )
    pretrained_trunk_path: Text = field(None, "Weights that the trunk alone starts from, also of timm or torchvision.")
    pretrained_embedder_path: Text = field(
        None, "Weights that the embedder alone starts from; automatic training compares them as they are."
    )
    input_width: int = field(
        224,
        "Width of the images that the network sees.",
        ge=8,
        le=8192,
        units="pixels",
        parent_param=True,
        settled=True,
    )
    input_height: int = field(
        224,
        "Height of the images that the network sees.",
        ge=8,
        le=8192,
        units="pixels",
        parent_param=True,
        settled=True,
    )
    input_channels: int = field(3, "Color channels of the input: 3, since gray images are read as RGB.", ge=1, le=4,
                                schema={"const": 3})  # fmt: skip
    feat_dim: int = field(256, "Length of the vector that stands for an image.", ge=2, le=65536, settled=True)
    head: Literal["auto", "linear", "residual", "rooted", "mlp"] = field(
        "auto",
        "What turns the trunk's features into the vector: one Linear; TAO's residual adaptors; a signed square root and a "
        "Linear (rooted), which automatic training fits without a training step; or that with a narrow hidden layer (mlp). "
        "auto: as TAO has it for the trunk.",
        ours=True, settled=True,
    )  # fmt: skip
    pretrained: Annotated[Literal["auto", "true", "false"], BeforeValidator(_word)] = field(
        "auto",
        "Start the trunk from weights pretrained on a large data set: `auto` where they can be had, `true` or an error, "
        "`false` from random ones. A pretrained_*_path goes first.",
        ours=True,
        schema=_PRETRAINED,
    )
    download: Literal["ask", "always", "never"] = field(
        "ask",
        "Download pretrained weights: `ask` before more than 100 MiB (without a terminal, refuse), `always`, or `never`. "
        "--download and --offline are short forms for one call.",
        ours=True,
    )
    allow_partial_weights: bool = field(
        False, "Accept a weights file that fills only part of the network; otherwise all must fit.", ours=True
    )
