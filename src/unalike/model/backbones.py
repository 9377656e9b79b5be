"""Trunks: any timm network by its name and TAO's seven by theirs, with the facts that come with their weights.

A trunk maps ``images_BCHW`` (float, normalised) to pooled features ``features_BF``; no classifier is left in it.
Shape letters: B images, C channels, H height, W width, F feature width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unalike import progress
from unalike.errors import ModelError, WeightsError, closest
from unalike.model import dinov2, fan
from unalike.model.pretrained import WEIGHT_PACKAGES, WeightSource, available_trunks, best_available_trunk, find_weights
from unalike.model.timm_import import import_timm
from unalike.model.weights import read_weights

__all__ = [
    "BACKBONES",
    "PretrainedConfig",
    "Trunk",
    "available_trunks",
    "best_available_trunk",
    "build_trunk",
    "check_backbone",
    "import_timm",
]

# TAO's seven names: a timm name, or the builder of a network of ours.
BACKBONES: dict[str, str | Callable[..., nn.Module]] = {
    "resnet_50": "resnet50",
    "resnet_101": "resnet101",
    "fan_tiny": fan.fan_tiny,
    "fan_small": fan.fan_small,
    "fan_base": fan.fan_base,
    "fan_large": fan.fan_large,
    "nvdinov2_vit_large_legacy": dinov2.nvdinov2_vit_large_legacy,
}

# What our own two families were published with, and timm's default.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Children of a network whose members are stages of their own, and runs of children that are one stage each.
STAGE_CONTAINERS = ("blocks", "stages", "layers", "features", "cls_attn_blocks")
STAGE_RUNS = (("layer1", "layer2", "layer3", "layer4"), ("s1", "s2", "s3", "s4"))


@dataclass(frozen=True)
class PretrainedConfig:
    """What comes with a trunk: how its images are prepared, where its weights come from, under which licence."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, int]  # height, width that the weights were made for
    crop_pct: float
    interpolation: str
    licence: str
    pretrained: bool
    source: str  # where the weights come from, or "random"


class Trunk(nn.Module):
    """A network without its classifier.

    ``net`` is the network itself, ``width`` the number F of features, ``input_size`` (height, width) what it was
    built for.
    """

    def __init__(self, name: str, net: nn.Module, *, width: int, input_size: tuple[int, int], facts: PretrainedConfig):
        super().__init__()
        self.name, self.net, self.width, self.input_size, self.facts = name, net, width, input_size, facts

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Pooled features, shape (B, F)."""
        return self.net(images_BCHW)

    def stages(self) -> list[list[nn.Module]]:
        """The trunk from its stem to its top.

        ``stages()[0]`` is the stem (everything before the first block: first convolution, patch and position
        embedding), then come the groups of blocks (EfficientNet ``blocks[i]``, ResNet ``layer1..4``, each block of a
        transformer), last what follows them (last convolution, final norm). Every module with parameters or buffers
        stands in exactly one stage; ``direct_parameters`` belong to the stem.
        """
        return _stages(self.net)

    def direct_parameters(self) -> list[nn.Parameter]:
        """Parameters that no stage holds because no module does: class token, position table. They count as stem."""
        return list(self.net.parameters(recurse=False))


def check_backbone(name: str) -> str:
    """Give the name back when it is a backbone's; raise ModelError with close spellings when it is not."""
    if name in BACKBONES:
        return name
    timm = import_timm()
    architecture, _, tag = name.partition(".")
    if timm.is_model(architecture):
        tags = timm.list_pretrained(architecture + ".*") if tag else []
        if not tag or name in tags:
            return name
        raise ModelError(
            f"model.backbone = {name!r}: {architecture} has no weights called {tag!r}",
            expected="one of " + ", ".join(tags) if tags else f"{architecture!r} without a tag",
        )
    near = closest(name, [*BACKBONES, *timm.list_models()])
    raise ModelError(
        f"model.backbone = {name!r} is not known",
        expected="a timm name or one of TAO's seven",
        remedy=near or "timm.list_models() lists them",
    )


def build_trunk(
    name: str,
    *,
    pretrained: str | bool = "auto",
    in_chans: int = 3,
    input_size: tuple[int, int] = (224, 224),
    drop_path: float = 0.0,
) -> Trunk:
    """Build the named trunk for images of ``input_size`` (height, width) with ``in_chans`` channels.

    ``pretrained``: ``"true"`` loads weights or raises WeightsError, ``"false"`` never does, ``"auto"`` loads them when
    they are installed, on disk, or to be had with one request, and otherwise says loudly that training starts from
    random weights. Raises ModelError for an unknown name, or a size that the network does not take.
    """
    check_backbone(name)
    wanted = str(pretrained).lower()
    if wanted not in ("auto", "true", "false"):
        raise ModelError(f"model.pretrained = {pretrained!r}", expected="auto, true or false")
    target = BACKBONES.get(name, name)
    if isinstance(target, str):
        net, facts = _timm_net(name, target, wanted, in_chans, input_size, drop_path)
    else:
        _without_weights(name, wanted)
        net = target(in_chans=in_chans, input_size=input_size, drop_path=drop_path)
        facts = PretrainedConfig(IMAGENET_MEAN, IMAGENET_STD, (224, 224), 1.0, "bicubic", "untrained", False, "random")
    return Trunk(name, net, width=_feature_width(name, net, in_chans, input_size), input_size=input_size, facts=facts)


def native_size(name: str) -> tuple[tuple[int, int], bool]:
    """(height, width) that a trunk's weights were made for, to the nearest multiple of 32, and whether it takes no other.

    A network with a position table is built for one size, which is given as it is.
    """
    check_backbone(name)
    target = BACKBONES.get(name, name)
    cfg = import_timm().get_pretrained_cfg(target) if isinstance(target, str) else None
    height, width = tuple(cfg.input_size[1:]) if cfg is not None else (224, 224)
    if cfg is not None and cfg.fixed_input_size:
        return (height, width), True
    return (max(32, round(height / 32) * 32), max(32, round(width / 32) * 32)), False


def _without_weights(name: str, wanted: str, tried: str = "") -> None:
    """Say, or raise, that there are no weights for this trunk."""
    why = f"no pretrained weights for {name}" + (f" ({tried})" if tried else " are published where this tool can look")
    remedy = "name a file in model.pretrained_trunk_path, or a backbone whose weights are installed"
    if here := available_trunks():
        remedy += " (" + ", ".join(here) + ")"
    if wanted == "true":
        raise WeightsError(f"model.pretrained = true: {why}", remedy=remedy)
    if wanted == "auto":
        progress.warn(f"{why}: {name} STARTS FROM RANDOM WEIGHTS and will need far more data and time; {remedy}")


def _timm_net(
    name: str, timm_name: str, wanted: str, in_chans: int, input_size: tuple[int, int], drop_path: float
) -> tuple[nn.Module, PretrainedConfig]:
    timm = import_timm()
    cfg = timm.get_pretrained_cfg(timm_name)
    facts: dict[str, Any] = dict(cfg.to_dict()) if cfg is not None else {}
    source: WeightSource | None = None
    if wanted != "false":
        source, tried = find_weights(timm_name, facts)
        if source is None:
            _without_weights(name, wanted, tried)
    options: dict[str, Any] = {"num_classes": 0, "in_chans": in_chans}
    if drop_path:
        options["drop_path_rate"] = drop_path
    # networks with a position table of fixed size are built for the size in use; others take any
    if facts.get("fixed_input_size") and tuple(facts["input_size"][1:]) != tuple(input_size):
        options["img_size"] = tuple(input_size)
    overlay = {"file": str(source.path)} if source is not None and source.kind != "package" else None
    try:
        net = timm.create_model(timm_name, pretrained=overlay is not None, pretrained_cfg_overlay=overlay, **options)
    except (TypeError, AssertionError, ValueError, NotImplementedError) as error:
        raise _unbuildable(name, input_size, error) from error
    except Exception as error:
        if overlay is None:
            raise
        # a damaged file, or one of another network: readers of three formats each fail in their own way
        first = (str(error).splitlines() or [""])[0]
        raise WeightsError(
            f"the weights of {name} in {overlay['file']} cannot be loaded: {type(error).__name__}: {first}",
            remedy="delete that file so that it is fetched anew, or set model.pretrained = false",
        ) from error
    if source is not None and source.kind == "package":
        _load_packaged(net, timm_name, source, in_chans)
    _tell_lost_pixels(name, net, input_size)
    mean, std = _mean_std(facts, source)
    return net, PretrainedConfig(
        mean=mean,
        std=std,
        input_size=tuple(facts.get("input_size", (3, 224, 224))[1:]),
        crop_pct=float(facts.get("crop_pct") or 0.875),
        interpolation=str(facts.get("interpolation") or "bicubic"),
        licence=(source.licence or str(facts.get("license") or "unknown")) if source else "untrained",
        pretrained=source is not None,
        source=source.described if source else "random",
    )


def _tell_lost_pixels(name: str, net: nn.Module, input_size: tuple[int, int]) -> None:
    """Patch layers leave out the right and lower pixels that fill no whole patch; that is said, once."""
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", None)
    if not isinstance(patch, tuple) or getattr(net.patch_embed, "dynamic_img_pad", False):
        return
    for side, length in zip(input_size, patch, strict=True):
        if side % length:
            progress.warn(
                f"{name} sees patches of {length} pixels: {side} is no multiple of {length}, its rest is lost"
            )


def _mean_std(facts: dict[str, Any], source: WeightSource | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if source is not None and source.mean is not None and source.std is not None:
        return source.mean, source.std
    return tuple(facts.get("mean") or IMAGENET_MEAN), tuple(facts.get("std") or IMAGENET_STD)


def _load_packaged(net: nn.Module, timm_name: str, source: WeightSource, in_chans: int) -> None:
    """Load a Lite package's tensors: they stand in the order of timm's, under other names; the classifier is last."""
    foreign = read_weights(source.path)
    own = net.state_dict()
    body = list(foreign.items())[: len(own)]
    classifier = [key for key, _ in list(foreign.items())[len(own) :]]
    if len(body) != len(own) or any(not key.startswith("_fc.") for key in classifier):
        raise WeightsError(f"{source.path} holds {len(foreign)} tensors", expected=f"{len(own)} and a classifier")
    tensors: dict[str, torch.Tensor] = {}
    for (key, value), (own_key, own_value) in zip(body, own.items(), strict=True):
        if own_key == WEIGHT_PACKAGES[timm_name].first_conv and in_chans != value.shape[1]:
            from timm.models import adapt_input_conv

            value = adapt_input_conv(in_chans, value)
        if value.shape != own_value.shape:
            raise WeightsError(f"{source.path}: {key} is {tuple(value.shape)}", expected=f"{tuple(own_value.shape)}")
        tensors[own_key] = value
    net.load_state_dict(tensors, strict=True)


def _unbuildable(name: str, input_size: tuple[int, int], error: Exception) -> ModelError:
    return ModelError(
        f"{name} cannot be built for images of {input_size[0]} x {input_size[1]} (height x width): {error}",
        remedy="set model.input_height and model.input_width to a size that it takes, or choose another backbone",
    )


def _feature_width(name: str, net: nn.Module, in_chans: int, input_size: tuple[int, int]) -> int:
    """The width of the features, from one forward pass on the meta device: no arithmetic, shapes only.

    It is also where a size that the network does not take is found out, before any data are read.
    """
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    hollow = {key: torch.empty_like(value, device="meta") for key, value in tensors.items()}
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            images_BCHW = torch.empty(2, in_chans, *input_size, device="meta")
            features = torch.func.functional_call(net, hollow, (images_BCHW,))
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as meta_error:
        features = _real_features(name, net, in_chans, input_size, meta_error)
    finally:
        net.train(was_training)
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise ModelError(f"{name} gives {shape}", expected="one pooled feature vector an image")
    return int(features.shape[1])


def _real_features(
    name: str, net: nn.Module, in_chans: int, input_size: tuple[int, int], meta_error: Exception
) -> torch.Tensor:
    """The same on real tensors, for networks that keep plain tensors which cannot follow to the meta device."""
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    if device.type == "meta":
        raise _unbuildable(name, input_size, meta_error) from meta_error
    try:
        with torch.no_grad():
            return net(torch.zeros(1, in_chans, *input_size, device=device))
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise _unbuildable(name, input_size, error) from error


def _stages(net: nn.Module) -> list[list[nn.Module]]:
    children = dict(net.named_children())
    containers = {c for c in STAGE_CONTAINERS if isinstance(children.get(c), (nn.Sequential, nn.ModuleList))}
    whole = {member for run in STAGE_RUNS if all(m in children for m in run) for member in run}
    known_layout = bool(containers or whole)
    groups: list[list[nn.Module]] = [[]]
    for name, child in children.items():
        if name in containers:
            groups.extend([member] for member in child.children())
            groups.append([])
        elif name in whole or not known_layout:
            groups.append([child])  # where nothing is known each child is a stage
            groups.append([])
        else:
            groups[-1].append(child)
    parametrised = ([module for module in group if _has_state(module)] for group in groups)
    return [group for group in parametrised if group]


def _has_state(module: nn.Module) -> bool:
    """Whether a module holds parameters or buffers; what has neither cannot be frozen."""
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())
