"""Backbones by name: any timm network and TAO's seven, with the facts that come with their pretrained weights.

A trunk maps ``images_BCHW`` (float, normalized) to pooled features ``features_BF``; it has no classifier.
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
from unalike.model.weight_files import read_weights

__all__ = [
    "BACKBONES",
    "PretrainedConfig",
    "Trunk",
    "available_trunks",
    "best_available_trunk",
    "build_trunk",
    "check_backbone",
    "import_timm",
    "weights_config",
]

# Names that ``model.backbone`` may have beside all of timm's: another name of a timm network, or a function that builds a
# network of ours. It is called as ``build(in_chans=, input_size=, drop_path=)`` and returns a module that maps
# ``images_BCHW`` to ``features_BF``, in (B, F) and without a classifier; F is found out by running it. Its attributes
# ``blocks``, ``stages``, ``layers``, ``features`` or ``layer1``...``layer4`` become the stages that can be frozen.
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


# Trunks whose head is the residual one; every other trunk gets one Linear.
RESIDUAL_HEAD_BACKBONES = frozenset({"fan_tiny", "fan_small", "fan_base", "fan_large", "nvdinov2_vit_large_legacy"})


def resolve_head(head: str, backbone: str) -> str:
    """Return the kind of head that ``model.head`` means: ``auto`` is the residual one on TAO's transformers, else linear."""
    if head != "auto":
        return head
    return "residual" if backbone in RESIDUAL_HEAD_BACKBONES else "linear"


@dataclass(frozen=True)
class PretrainedConfig:
    """How a trunk's images are prepared, where its weights come from, under which license (timm's ``pretrained_cfg``).

    Attributes:
        mean: one value a channel, on the scale 0..1.
        std: one value a channel, on the scale 0..1.
        input_size: height and width that the weights were made for, in pixels.
        crop_pct: share of the resized image that the center crop keeps, 0..1.
        interpolation: of the resize.
        license: of the weights.
        pretrained: whether there are weights.
        source: where the weights come from, or ``random``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, int]
    crop_pct: float
    interpolation: str
    license: str
    pretrained: bool
    source: str


class Trunk(nn.Module):
    """A network without its classifier.

    Args:
        name: of the backbone.
        net: the network itself.
        width: the number F of features.
        input_size: height and width that it was built for, in pixels.
        facts: of its pretrained weights.
    """

    def __init__(self, name: str, net: nn.Module, *, width: int, input_size: tuple[int, int], facts: PretrainedConfig):
        super().__init__()
        self.name, self.net, self.width, self.input_size, self.facts = name, net, width, input_size, facts

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Pooled features, shape (B, F)."""
        features_BF: torch.Tensor = self.net(images_BCHW)
        return features_BF

    def stages(self) -> list[list[nn.Module]]:
        """The modules of each stage, from the stem to the top.

        ``stages()[0]`` is the stem (everything before the first block: first convolution, patch and position
        embedding), then come the groups of blocks (EfficientNet ``blocks[i]``, ResNet ``layer1..4``, each block of a
        transformer), last what follows them (last convolution, final norm). Every module with parameters or buffers
        is in exactly one stage; ``direct_parameters`` belong to the stem.
        """
        return _split_stages(self.net)

    def direct_parameters(self) -> list[nn.Parameter]:
        """Parameters that are in no stage because they are in no module: class token, position table. Part of the stem."""
        return list(self.net.parameters(recurse=False))


def check_backbone(name: str) -> str:
    """Return the name when it is a backbone's; raise ModelError with close spellings when it is not."""
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
    """Build the trunk of a name.

    Args:
        name: of timm or ``BACKBONES``.
        pretrained: ``true`` loads weights or raises WeightsError, ``false`` never does, ``auto`` loads them when they are
            installed, on disk, or available by one request, and otherwise warns that training starts from random weights.
        in_chans: channels of the images.
        input_size: height and width, in pixels.
        drop_path: rate of stochastic depth, 0..1.

    Raises:
        ModelError: for an unknown name, or a size that the network does not take.
        WeightsError: for weights that are missing or damaged.
    """
    check_backbone(name)
    option = str(pretrained).lower()
    if option not in ("auto", "true", "false"):
        raise ModelError(f"model.pretrained = {pretrained!r}", expected="auto, true or false")
    target = BACKBONES.get(name, name)
    if isinstance(target, str):
        net, facts = _build_timm(name, target, option, in_chans, input_size, drop_path)
    else:
        _report_missing_weights(name, option)
        net = target(in_chans=in_chans, input_size=input_size, drop_path=drop_path)
        facts = PretrainedConfig(IMAGENET_MEAN, IMAGENET_STD, (224, 224), 1.0, "bicubic", "untrained", False, "random")
    return Trunk(name, net, width=_feature_width(name, net, in_chans, input_size), input_size=input_size, facts=facts)


def native_size(name: str) -> tuple[tuple[int, int], bool]:
    """(height, width) that a trunk's weights were made for, to the nearest multiple of 32, and whether it takes no other.

    The size of a network with a position table, which is built for one size, is returned unrounded.
    """
    check_backbone(name)
    target = BACKBONES.get(name, name)
    cfg = import_timm().get_pretrained_cfg(target) if isinstance(target, str) else None
    height, width = tuple(cfg.input_size[1:]) if cfg is not None else (224, 224)
    if cfg is not None and cfg.fixed_input_size:
        return (height, width), True
    return (max(32, round(height / 32) * 32), max(32, round(width / 32) * 32)), False


def weights_config(name: str) -> tuple[str, dict[str, Any]]:
    """timm's name of a backbone and its ``pretrained_cfg`` as a dict; empty ones where timm has no such network.

    Raises ModelError for an unknown name.
    """
    target = BACKBONES.get(check_backbone(name), name)
    if not isinstance(target, str):
        return "", {}
    cfg = import_timm().get_pretrained_cfg(target)
    return target, dict(cfg.to_dict()) if cfg is not None else {}


def _report_missing_weights(name: str, pretrained: str, places: str = "") -> None:
    """Warn, or raise WeightsError where ``pretrained`` is ``true``, that there are no weights for this trunk."""
    why = f"no pretrained weights for {name}"
    why += f" ({places})" if places else " are published where this tool can look"
    remedy = "name a file in model.pretrained_trunk_path, or a backbone whose weights are installed"
    if available := available_trunks():
        remedy += " (" + ", ".join(available) + ")"
    if pretrained == "true":
        raise WeightsError(f"model.pretrained = true: {why}", remedy=remedy)
    if pretrained == "auto":
        progress.warn(f"{why}: {name} STARTS FROM RANDOM WEIGHTS and will need far more data and time; {remedy}")


def _build_timm(
    name: str, timm_name: str, pretrained: str, in_chans: int, input_size: tuple[int, int], drop_path: float
) -> tuple[nn.Module, PretrainedConfig]:
    """timm's network of a name with the nearest weights, and their facts."""
    timm = import_timm()
    _, cfg = weights_config(timm_name)
    source: WeightSource | None = None
    if pretrained != "false":
        source, places = find_weights(timm_name, cfg)
        if source is None:
            _report_missing_weights(name, pretrained, places)
    options: dict[str, Any] = {"num_classes": 0, "in_chans": in_chans}
    if drop_path:
        options["drop_path_rate"] = drop_path
    # Networks with a position table of fixed size are built for the size in use; others take any.
    if cfg.get("fixed_input_size") and tuple(cfg["input_size"][1:]) != tuple(input_size):
        options["img_size"] = tuple(input_size)
    overlay = {"file": str(source.path)} if source is not None and source.kind != "package" else None
    try:
        net: nn.Module = timm.create_model(
            timm_name, pretrained=overlay is not None, pretrained_cfg_overlay=overlay, **options
        )
    except (TypeError, AssertionError, ValueError, NotImplementedError) as error:
        if drop_path and "drop_path_rate" in str(error):
            raise ModelError(f"train.drop_path is {drop_path}, and {name} has no blocks that can be skipped",
                             remedy="set train.drop_path=0") from error  # fmt: skip
        raise _unbuildable(name, input_size, error) from error
    except Exception as error:
        if overlay is None:
            raise
        # A damaged file, or one of another network: readers of three formats each fail in their own way.
        first = (str(error).splitlines() or [""])[0]
        raise WeightsError(
            f"the weights of {name} in {overlay['file']} cannot be loaded: {type(error).__name__}: {first}",
            remedy="delete that file so that it is fetched anew, or set model.pretrained = false",
        ) from error
    if source is not None and source.kind == "package":
        _load_package(net, timm_name, source, in_chans)
    _warn_lost_pixels(name, net, input_size)
    return net, _pretrained_config(cfg, source)


def _pretrained_config(cfg: dict[str, Any], source: WeightSource | None) -> PretrainedConfig:
    """timm's facts; mean, std and license of the source where that has its own."""
    mean, std = tuple(cfg.get("mean") or IMAGENET_MEAN), tuple(cfg.get("std") or IMAGENET_STD)
    if source is not None and source.mean is not None and source.std is not None:
        mean, std = source.mean, source.std
    return PretrainedConfig(
        mean=mean,
        std=std,
        input_size=tuple(cfg.get("input_size", (3, 224, 224))[1:]),
        crop_pct=float(cfg.get("crop_pct") or 0.875),
        interpolation=str(cfg.get("interpolation") or "bicubic"),
        license=(source.license or str(cfg.get("license") or "unknown")) if source else "untrained",
        pretrained=source is not None,
        source=source.described if source else "random",
    )


def _warn_lost_pixels(name: str, net: nn.Module, input_size: tuple[int, int]) -> None:
    """Warn, once, that a patch layer leaves out the right and lower pixels that fill no whole patch."""
    patch_embed: Any = getattr(net, "patch_embed", None)
    patch = getattr(patch_embed, "patch_size", None)
    if not isinstance(patch, tuple) or getattr(patch_embed, "dynamic_img_pad", False):
        return
    for side, length in zip(input_size, patch, strict=True):
        if side % length:
            progress.warn(
                f"{name} sees patches of {length} pixels: {side} is no multiple of {length}, its rest is lost"
            )


def _load_package(net: nn.Module, timm_name: str, source: WeightSource, in_chans: int) -> None:
    """Load a Lite package's tensors: they are in the order of timm's, under other names; the classifier is last."""
    package_tensors = list(read_weights(source.path).items())
    own = net.state_dict()
    body, classifier = package_tensors[: len(own)], package_tensors[len(own) :]
    if len(body) != len(own) or any(not key.startswith("_fc.") for key, _ in classifier):
        raise WeightsError(
            f"{source.path} holds {len(package_tensors)} tensors", expected=f"{len(own)} and a classifier"
        )
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


# Widths that were found out: a process builds the same trunk several times.
_feature_widths: dict[tuple[str, int, tuple[int, int]], int] = {}


def _feature_width(name: str, net: nn.Module, in_chans: int, input_size: tuple[int, int]) -> int:
    """The width F of the features, from one forward pass on the meta device: shapes only, no arithmetic.

    It also finds out a size that the network does not take, before any data are read.
    """
    key = name, in_chans, input_size
    if key not in _feature_widths:
        _feature_widths[key] = _compute_feature_width(name, net, in_chans, input_size)
    return _feature_widths[key]


def _compute_feature_width(name: str, net: nn.Module, in_chans: int, input_size: tuple[int, int]) -> int:
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    on_meta = {key: torch.empty_like(value, device="meta") for key, value in tensors.items()}
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            images_BCHW = torch.empty(2, in_chans, *input_size, device="meta")
            features = torch.func.functional_call(net, on_meta, (images_BCHW,))
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
) -> object:
    """The same on real tensors, for networks that hold plain tensors which cannot be moved to the meta device."""
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    if device.type == "meta":
        raise _unbuildable(name, input_size, meta_error) from meta_error
    try:
        with torch.no_grad():
            features: object = net(torch.zeros(1, in_chans, *input_size, device=device))
            return features
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise _unbuildable(name, input_size, error) from error


def _split_stages(net: nn.Module) -> list[list[nn.Module]]:
    """The modules with parameters or buffers, in groups that can be frozen from the stem upwards."""
    children = dict(net.named_children())
    containers = {c for c in STAGE_CONTAINERS if isinstance(children.get(c), (nn.Sequential, nn.ModuleList))}
    single = {member for run in STAGE_RUNS if all(m in children for m in run) for member in run}
    known_layout = bool(containers or single)
    groups: list[list[nn.Module]] = [[]]
    for name, child in children.items():
        if name in containers:
            groups.extend([member] for member in child.children())
            groups.append([])
        elif name in single or not known_layout:
            groups.append([child])  # where nothing is known each child is a stage
            groups.append([])
        else:
            groups[-1].append(child)
    with_state = ([module for module in group if _has_state(module)] for group in groups)
    return [group for group in with_state if group]


def _has_state(module: nn.Module) -> bool:
    """Whether a module has parameters or buffers; what has neither cannot be frozen."""
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())
