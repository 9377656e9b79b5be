"""The embedder: a trunk, a head, a vector; and its heads by name.

Shape letters: B images, C channels, H height, W width, F trunk features, D dimensions of the vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unalike import progress
from unalike.errors import ModelError
from unalike.model.backbones import Trunk, build_trunk, resolve_head
from unalike.model.parent_checkpoint import read_parent, settle_from_checkpoints, with_stored_facts
from unalike.model.weight_files import read_weights
from unalike.model.weights import load_tensors

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.spec.model import Model

ADAPTER_COUNT = 4
SQRT_EPS = 1e-6  # x / sqrt(|x| + eps): the signed square root, with a slope that stays finite at 0


def signed_sqrt(features_BF: Tensor) -> Tensor:
    """The square root of each value's magnitude, with its sign."""
    return features_BF * torch.rsqrt(features_BF.abs() + SQRT_EPS)


class LinearHead(nn.Module):
    """One Linear, F -> D."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dim)
        semi_orthogonal(self.linear)

    def forward(self, features_BF: Tensor) -> Tensor:
        vectors_BD: Tensor = self.linear(features_BF)
        return vectors_BD


class SquareRootHead(nn.Module):
    """Signed square root, then one Linear, F -> D: the form that ``training.heads.discriminant`` fits without a step."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dim)
        semi_orthogonal(self.linear)

    def forward(self, features_BF: Tensor) -> Tensor:
        vectors_BD: Tensor = self.linear(signed_sqrt(features_BF))
        return vectors_BD


class Adapter(nn.Module):
    """F -> ``hidden`` -> F with GELU, added to its input."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.up = nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)  # starts as the identity: the trunk's geometry is the place to start from
        nn.init.zeros_(self.up.bias)

    def forward(self, features_BF: Tensor) -> Tensor:
        residual_BF: Tensor = self.up(self.act(self.down(features_BF)))
        return features_BF + residual_BF


class MLPHead(nn.Module):
    """Signed square root, one narrow adapter, one Linear: the square-root head with a hidden layer beside it."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.adaptor = Adapter(width, hidden_width(width))
        self.linear = nn.Linear(width, dim)
        semi_orthogonal(self.linear)

    def forward(self, features_BF: Tensor) -> Tensor:
        vectors_BD: Tensor = self.linear(self.adaptor(signed_sqrt(features_BF)))
        return vectors_BD


def hidden_width(width: int) -> int:
    """Hidden values of the head ``mlp``: few, since what it is fitted to is often few images."""
    return max(8, width // 16)


class ResidualHead(nn.Module):
    """Four adapters, LayerNorm, Linear F -> F, and a projection F -> D when D is not F."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.adaptors = nn.Sequential(*(Adapter(width, width // 2) for _ in range(ADAPTER_COUNT)))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)
        semi_orthogonal(self.linear)
        self.projection: nn.Module = nn.Identity()
        if dim != width:
            self.projection = nn.Linear(width, dim)
            semi_orthogonal(self.projection)

    def forward(self, features_BF: Tensor) -> Tensor:
        vectors_BD: Tensor = self.projection(self.linear(self.norm(self.adaptors(features_BF))))
        return vectors_BD


def semi_orthogonal(linear: nn.Module) -> None:
    """Initialize a Linear as a (semi-)orthogonal map without bias.

    It keeps angles when it widens and, to within what its dimensions allow, when it narrows (Johnson and
    Lindenstrauss), so that an untrained head ranks neighbors nearly as the trunk's own features do.
    """
    assert isinstance(linear, nn.Linear)
    nn.init.orthogonal_(linear.weight)
    nn.init.zeros_(linear.bias)


# By the names that ``model.head`` may have, built from the widths F and D. A further head is one entry more (and its name
# in ``spec/model.py``).
HEADS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "linear": LinearHead, "residual": ResidualHead, "rooted": SquareRootHead, "mlp": MLPHead,
}  # fmt: skip


class Embedder(nn.Module):
    """``images_BCHW`` (float, normalized) -> ``vectors_BD``, not of unit length.

    Args:
        trunk: the backbone.
        dim: D.
        head: one of HEADS, or ``auto``: the residual one on TAO's transformers, one Linear on every other trunk.
    """

    def __init__(self, trunk: Trunk, dim: int, head: str = "auto") -> None:
        super().__init__()
        head = resolve_head(head, trunk.name)
        self.trunk = trunk
        self.head = HEADS[head](trunk.width, dim)
        self.head_kind = head  # of HEADS
        self.dim = dim
        if head == "residual" and dim != trunk.width:
            progress.say(
                f"model.feat_dim {dim} differs from {trunk.name}'s width {trunk.width}: a projection was added",
                once=True,
            )

    def forward(self, images_BCHW: Tensor) -> Tensor:
        vectors_BD: Tensor = self.head(self.trunk(images_BCHW))
        return vectors_BD


@dataclass(frozen=True)
class EmbedderConfig:
    """What decides a network's tensors: enough to rebuild it from a checkpoint.

    Attributes:
        backbone: name of the trunk.
        feat_dim: D.
        in_chans: C.
        input_size: height and width, in pixels.
        head: one of HEADS, or ``auto``.
    """

    backbone: str
    feat_dim: int
    in_chans: int
    input_size: tuple[int, int]
    head: str = "auto"

    @classmethod
    def from_spec(cls, model: Model | Mapping[str, Any]) -> EmbedderConfig:
        """From a spec's section ``model``, an object or a plain dict (one of an older file has no ``head``)."""

        def value(name: str) -> Any:
            return model[name] if isinstance(model, Mapping) else getattr(model, name)

        head = model.get("head", "auto") if isinstance(model, Mapping) else getattr(model, "head", "auto")
        size = (int(value("input_height")), int(value("input_width")))
        return cls(str(value("backbone")), int(value("feat_dim")), int(value("input_channels")), size, str(head))


def create_embedder(config: EmbedderConfig, *, pretrained: str | bool = "false", drop_path: float = 0.0) -> Embedder:
    """Build trunk and head; ``pretrained`` and ``drop_path`` as for ``build_trunk``. Raises ModelError, WeightsError."""
    if config.feat_dim < 1:
        raise ModelError(f"model.feat_dim = {config.feat_dim}", expected="at least 1")
    trunk = build_trunk(
        config.backbone,
        pretrained=pretrained,
        in_chans=config.in_chans,
        input_size=config.input_size,
        drop_path=drop_path,
    )
    return Embedder(trunk, config.feat_dim, config.head)


def build_embedder(experiment: Experiment) -> Embedder:
    """The network of a spec's ``model`` section, with its weights: pretrained ones, then those of the named files.

    ``pretrained_trunk_path``, ``pretrained_embedder_path`` and ``pretrained_model_path`` are loaded in this order. A
    file must fill all of its part (``model.allow_partial_weights`` lifts that) or WeightsError is raised. What a checkpoint
    of this tool decides beside the weights is settled in the spec (``settle_from_checkpoints``).
    """
    settle_from_checkpoints(experiment)
    model = experiment.model
    trunk_from_file = bool(model.pretrained_trunk_path or model.pretrained_model_path)
    pretrained = "false" if trunk_from_file else str(model.pretrained).lower()
    embedder = create_embedder(
        EmbedderConfig.from_spec(model), pretrained=pretrained, drop_path=experiment.train.drop_path
    )
    load_trunk_weights(embedder.trunk, experiment)
    for path in (model.pretrained_embedder_path, model.pretrained_model_path):
        if path:
            _load(embedder.head, path, "embedder", allow_partial=bool(model.allow_partial_weights))
    return embedder


def load_trunk_weights(trunk: Trunk, experiment: Experiment) -> None:
    """Load the weights that a spec names for the trunk: ``pretrained_trunk_path``, then ``pretrained_model_path``.

    Raises WeightsError as ``build_embedder`` does.
    """
    model = experiment.model
    for path in (model.pretrained_trunk_path, model.pretrained_model_path):
        if not path:
            continue
        _load(trunk.net, path, "trunk", allow_partial=bool(model.allow_partial_weights))
        parent = read_parent(path, experiment)
        facts = trunk.facts if parent is None else with_stored_facts(trunk.facts, parent.get("facts") or {})
        source = f"file {Path(path).name}"
        trunk.facts = replace(facts, pretrained=True, source=source, license="that of the file")


def _load(module: nn.Module, path: str | Path, part: str, *, allow_partial: bool) -> None:
    """Load one part of a file and print what became of its tensors."""
    report = load_tensors(module, read_weights(path), part=part, allow_partial=allow_partial, source=str(path))
    progress.say(f"{path}: {report}", once=True)
