"""Networks: backbones, the embedder (trunk, head, vector), weights, checkpoints."""

from importlib.util import find_spec

from unalike.errors import missing_extra

if find_spec("torch") is None:
    raise missing_extra("torch", "train", "building a network")
