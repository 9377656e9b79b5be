"""Networks: backbones, heads, the embedder, pretrained weights, checkpoints."""

from importlib.util import find_spec

from unalike.errors import missing_extra

if find_spec("torch") is None:
    raise missing_extra("torch", "train", "building a network")
