"""Catalog of trunks: parameters, multiply-adds, input size, license of the weights, where they come from and whether they are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unalike.errors import ModelError, closest
from unalike.model.backbones import (
    BACKBONES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    available_trunks,
    build_trunk,
    weights_config,
)
from unalike.model.pretrained import WEIGHT_PACKAGES, WeightSource, find_local_weights
from unalike.model.timm_import import import_timm

NOT_STATED = "not stated"
UNKNOWN = "unknown"
_RGB = 3


@dataclass(frozen=True)
class TrunkEntry:
    """What is known of a trunk without a network connection.

    Attributes:
        name: as in ``model.backbone``.
        weights: timm's name of the network, with the tag of the weights where timm has them; empty where none are published.
        input_size: height and width that the weights were made for, in pixels.
        license: of the weights, or ``not stated``; empty without weights.
        origin: ``package``, ``hub``, ``address`` (of a file that is not downloaded by itself) or ``own file``.
        source: the package, the hub's repository or the address; empty for ``own file``.
        path: the weights on this machine, or None.
        size: bytes of that file, or None.
        mean: of the pretraining, one value a channel, on the scale 0..1.
        std: of the pretraining.
    """

    name: str
    weights: str
    input_size: tuple[int, int]
    license: str
    origin: str
    source: str
    path: Path | None
    size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def download(self) -> int | str:
        """Bytes that loading the weights would download: 0 where they are here, else ``unknown`` without asking the hub."""
        return UNKNOWN if self.path is None and self.origin == "hub" else 0


@dataclass(frozen=True)
class TrunkCost:
    """Size and work of a trunk without its classifier.

    Attributes:
        parameters: their number.
        multiply_adds: of one image of the entry's input size.
    """

    parameters: int
    multiply_adds: int


def trunk_names(word: str = "") -> list[str]:
    """Names of backbones that contain a word, TAO's first; those whose weights are here where there is no word.

    A word with a dot is compared with the names of weights (``resnet50.a1``), any other with those of networks.

    Raises:
        ModelError: no name contains the word.
    """
    timm = import_timm()
    if not word:
        published = set(timm.list_pretrained())
        return [name for name in available_trunks() if name in published or timm.is_model(name)]
    networks = [*BACKBONES, *timm.list_models()]
    names = [name for name in networks if word in name] if "." not in word else []
    names = names or [name for name in timm.list_pretrained() if word in name]
    if not names:
        raise ModelError(f"no trunk is named like {word!r}", expected="a part of a name of timm, or of TAO's seven",
                         remedy=closest(word, networks))  # fmt: skip
    return names


def describe_trunk(name: str) -> TrunkEntry:
    """What is known of a trunk. Raises ModelError for an unknown name."""
    timm_name, cfg = weights_config(name)
    local = find_local_weights(timm_name, cfg) if cfg else None
    origin, source = _origin(timm_name, cfg, local)
    size = tuple(cfg.get("input_size") or (_RGB, 224, 224))[1:]
    mean, std = cfg.get("mean") or IMAGENET_MEAN, cfg.get("std") or IMAGENET_STD
    if local is not None and local.mean is not None and local.std is not None:
        mean, std = local.mean, local.std
    return TrunkEntry(
        name=name, weights=_weights_name(timm_name, cfg, origin), input_size=(size[0], size[1]),
        license="" if origin == "own file" else _license(timm_name, cfg, origin), origin=origin, source=source,
        path=None if local is None else local.path, size=None if local is None else local.path.stat().st_size,
        mean=tuple(mean), std=tuple(std),
    )  # fmt: skip


def count_cost(entry: TrunkEntry) -> TrunkCost:
    """Count a trunk's parameters and multiply-adds, with shapes alone.

    Counted are convolutions, matrix products and attention, as torch's ``FlopCounterMode`` does; a FLOP count is twice as much.

    Raises:
        ModelError: the network cannot be built.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        trunk = build_trunk(entry.name, pretrained="false", input_size=entry.input_size).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        trunk(torch.empty(1, _RGB, *entry.input_size, device="meta"))
    return TrunkCost(sum(p.numel() for p in trunk.parameters()), int(counter.get_total_flops()) // 2)


def _origin(timm_name: str, cfg: Mapping[str, Any], local: WeightSource | None) -> tuple[str, str]:
    """Where a trunk's weights come from, and the name of that place."""
    if local is not None and local.kind == "package":
        return "package", WEIGHT_PACKAGES[timm_name].distribution
    if cfg.get("hf_hub_id"):
        return "hub", str(cfg["hf_hub_id"])
    return ("address", str(cfg["url"])) if cfg.get("url") else ("own file", "")


def _weights_name(timm_name: str, cfg: Mapping[str, Any], origin: str) -> str:
    """timm's name with the tag of the weights; a package's weights are others than those of a tag."""
    tag = str(cfg.get("tag") or "") if origin != "package" else ""
    architecture = timm_name.partition(".")[0] if origin != "own file" else ""
    return f"{architecture}.{tag}" if architecture and tag else architecture


def _license(timm_name: str, cfg: Mapping[str, Any], origin: str) -> str:
    """The license of the weights: the package's, or what timm states."""
    if origin == "package":
        return WEIGHT_PACKAGES[timm_name].license
    stated = str(cfg.get("license") or "")
    return stated if stated not in ("", UNKNOWN) else NOT_STATED
