"""What `unalike train DIR` does where the user said nothing: values settled by the machine, the trunk and the data.

These are the documented values of plain training; where each comes from stands in docs/experiments/training.md
(Grocery photographs,
EfficientNet-Lite0, two cores). A spec file without `train.recipe` keeps TAO's own recipe and is not touched here, save
for the facts of its trunk.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import torch

from unalike.model.embedder import RESIDUAL_HEAD_BACKBONES
from unalike.progress import say
from unalike.spec import settle
from unalike.training.devices import fast_bf16

# Share of the trunk's lowest stages that keep their pretrained weights on a CPU: they hold edges and textures that small
# sets cannot improve, and the backward pass ends where they begin.
FROZEN_SHARE = 0.45


def settle_precision(spec: Any) -> None:
    """bf16 where this machine computes in it (recipe `unalike`); before Fabric is made, which holds to what it was told."""
    if spec.train.recipe == "unalike":
        fast = fast_bf16(torch.cuda.is_available() and spec.train.num_gpus > 0)
        settle(
            spec, "train.precision", "bf16" if fast else "fp32", "bf16 is fast here" if fast else "bf16 is slow here"
        )


def settle_backbone(spec: Any) -> None:
    """Name the trunk when the user named none: the best one whose weights are here (recipe `unalike`)."""
    if spec.train.recipe != "unalike" or spec.is_set("model.backbone"):
        return
    from unalike.model.backbones import best_available_trunk

    settle(spec, "model.backbone", best_available_trunk(), "the best trunk whose weights are on this machine")


def settle_training(
    spec: Any, *, facts: Any, stages: int, classes: int, images: int, cuda: bool, quiet: bool = False
) -> None:
    """Everything else, once the trunk is built and the data are read; ``quiet``: a draft, which is not told of."""
    settle_normalization(spec, facts)
    settle(spec, "dataset.workers", max(1, min(8, os.cpu_count() or 1)), "cores of this machine")
    if spec.train.recipe == "unalike":
        _settle_recipe(spec, facts=facts, stages=stages, classes=classes, images=images, cuda=cuda)
    if quiet:
        return
    if spec.settled:
        sections = Counter(path.rpartition(".")[0] for path, _, _ in spec.settled)
        counts = ", ".join(f"{count} of {name}" for name, count in sections.items())
        say(f"settled what you left open: {counts} (each with its reason: -v; the values: experiment.yaml)")
    for path, value, reason in spec.settled:
        say(f"  {path} = {value}  ({reason})", level=2)


def settle_normalization(spec: Any, facts: Any) -> None:
    """Mean and std of the trunk's pretraining; an explicit contradiction is obeyed and warned of by `settle`."""
    settle(spec, "dataset.pixel_mean", list(facts.mean), f"mean of {spec.model.backbone}")
    settle(spec, "dataset.pixel_std", list(facts.std), f"std of {spec.model.backbone}")


def _settle_recipe(spec: Any, *, facts: Any, stages: int, classes: int, images: int, cuda: bool) -> None:
    why = "recipe unalike"
    pretrained = bool(facts.pretrained)
    height, width = (_smaller(side) for side in (spec.model.input_height, spec.model.input_width))
    settle(spec, "dataset.train_height", height, "training crops look larger than they are: 4/5 of the test size")
    settle(spec, "dataset.train_width", width, "training crops look larger than they are: 4/5 of the test size")
    batch = max(8, min(32, 4 * classes, images // 2 or 8))
    settle(spec, "train.batch_size", batch, why)
    settle(spec, "dataset.num_instance", 2, why)
    settle(spec, "train.num_epochs", 13, why)
    settle(spec, "train.loss", {"name": "CosFaceLoss", "parameters": {"margin": 0.2, "scale": 20.0}}, why)
    settle(spec, "train.miner", {"name": None, "parameters": {}}, why)
    settle(spec, "train.optim.name", "AdamW", why)
    settle(spec, "train.optim.schedule", "cosine", why)
    settle(spec, "train.optim.warmup_iters", 1, why)
    settle(spec, "train.optim.trunk.base_lr", 5e-4 if pretrained else 1e-3, why)
    settle(spec, "train.optim.embedder.base_lr", 2e-3, why)
    settle(spec, "train.optim.loss_lr", 1e-2, why)
    for part in ("trunk", "embedder"):
        settle(spec, f"train.optim.{part}.weight_decay", 0.02, why)
        settle(spec, f"train.optim.{part}.weight_decay_bias", 0.0, why)
    settle(spec, "train.head_epochs", 1 if pretrained else 0, "the head learns first" if pretrained else why)
    settle(spec, "train.freeze_batchnorm", pretrained, "small batches would spoil pretrained statistics")
    settle(
        spec, "train.finish.enabled", pretrained and can_finish(spec), "a pretrained trunk keeps most of what it knew"
    )
    settle(spec, "train.frozen_stages", int(stages * FROZEN_SHARE) if pretrained and not cuda else 0,
           "the lowest stages keep their pretrained weights on a CPU")  # fmt: skip
    settle(spec, "dataset.crop.scale", [0.4, 1.0], why)
    settle(spec, "dataset.re_prob", 0.2, why)
    settle(spec, "dataset.gaussian_blur.enabled", False, why)
    settle(spec, "dataset.color_augmentation.brightness", 0.3, why)
    settle(spec, "dataset.color_augmentation.contrast", 0.3, why)
    settle(spec, "dataset.color_augmentation.saturation", 0.3, why)
    settle(spec, "dataset.color_augmentation.hue", 0.02, why)


def can_finish(spec: Any) -> bool:
    """Whether the head is one that can be fitted in closed form, and both parts learn."""
    head = spec.model.head
    closed = (
        head in ("linear", "rooted")
        or (head == "mlp" and spec.train.finish.loss)
        or (head == "auto" and spec.model.backbone not in RESIDUAL_HEAD_BACKBONES)
    )
    return closed and bool(spec.train.train_trunk and spec.train.train_embedder)


def _smaller(side: int) -> int:
    """Four fifths of a side, to the nearest multiple of 16 (as trunks like it): 224 -> 176."""
    return max(16, int(side * 0.8 / 16 + 0.5) * 16)
