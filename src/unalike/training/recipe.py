"""Default values of plain training where the user set none, settled by machine, trunk and data.

Where each value comes from stands in docs/experiments/training.md (Grocery photographs, EfficientNet-Lite0, two cores).
A spec file without `train.recipe` keeps TAO's own recipe and is not touched here, save for mean and std of its trunk.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from unalike.data.decoding import Decoding, format_ground
from unalike.data.decoding_fit import fit_decoding
from unalike.model.backbones import resolve_head
from unalike.model.parent_checkpoint import settle_from_checkpoints
from unalike.progress import say
from unalike.spec import settle
from unalike.training.devices import fast_bf16

if TYPE_CHECKING:
    from unalike.data.imageset import ImageSet
    from unalike.model.backbones import PretrainedConfig
    from unalike.spec import Experiment

# Share of the trunk's lowest stages that keep their pretrained weights on a CPU: they hold edges and textures that small
# sets cannot improve, and the backward pass ends where they begin.
FROZEN_SHARE = 0.45


def settle_precision(experiment: Experiment) -> None:
    """Settle bf16 where this machine computes in it (recipe `unalike`). Called before Fabric, which keeps the precision."""
    if experiment.train.recipe != "unalike":
        return
    if fast_bf16(torch.cuda.is_available() and experiment.train.num_gpus > 0):
        settle(experiment, "train.precision", "bf16", "bf16 is fast here")
    else:
        settle(experiment, "train.precision", "fp32", "bf16 is slow here")


def settle_backbone(experiment: Experiment) -> None:
    """Settle the trunk where the user named none: that of the weights' checkpoint, else the best one whose weights are here.

    The latter under the recipe `unalike` alone.

    Args:
        experiment: the spec; what else a named checkpoint decides is settled too (``settle_from_checkpoints``).
    """
    if settle_from_checkpoints(experiment):
        return
    if experiment.train.recipe != "unalike" or experiment.is_set("model.backbone"):
        return
    from unalike.model.backbones import best_available_trunk

    settle(experiment, "model.backbone", best_available_trunk(), "the best trunk whose weights are on this machine")


def settle_normalization(experiment: Experiment, facts: PretrainedConfig) -> None:
    """Settle mean and std of the trunk's pretraining; other values of the user's are kept, with a warning by `settle`.

    Args:
        experiment: the spec.
        facts: mean and std of the trunk's pretrained weights.
    """
    settle(experiment, "dataset.pixel_mean", list(facts.mean), f"mean of {experiment.model.backbone}")
    settle(experiment, "dataset.pixel_std", list(facts.std), f"std of {experiment.model.backbone}")


def settle_decoding(
    experiment: Experiment, *sets: ImageSet | None, stop: Callable[[int, int], bool] | None = None
) -> None:
    """Ground and range of the decoding, chosen from all images of the training; a user's value stays.

    Args:
        experiment: the spec.
        sets: the images.
        stop: see ``fit_decoding``.
    """
    dataset = experiment.dataset
    user_decoding = Decoding.from_section(dataset.decoding)
    if user_decoding.is_complete:
        return
    paths = dict.fromkeys(path for images in sets if images is not None for path in images.paths)
    decoding = fit_decoding(paths, user_decoding, max_pixels=dataset.max_pixels, stop=stop)
    if decoding.ground is not None:
        settle(experiment, "dataset.decoding.ground", format_ground(decoding.ground), "chosen from transparent images")
    if decoding.range is not None:
        settle(experiment, "dataset.decoding.range", list(decoding.range), "chosen from images of more than 8 bits")


def settle_training(
    experiment: Experiment, *, facts: PretrainedConfig, stages: int, classes: int, images: int, cuda: bool,
    quiet: bool = False,
) -> None:  # fmt: skip
    """Settle all other fields, once the trunk is built and the data are read.

    Args:
        experiment: the spec; what the user set in it is kept.
        facts: mean, std and source of the trunk's pretrained weights.
        stages: number of stages of the trunk.
        classes: number of classes of the training images.
        images: number of training images.
        cuda: whether training runs on a GPU.
        quiet: print nothing, as for a draft of a spec.
    """
    settle_normalization(experiment, facts)
    settle(experiment, "dataset.workers", max(1, min(8, os.cpu_count() or 1)), "cores of this machine")
    if experiment.train.recipe == "unalike":
        recipe = _recipe(
            experiment, pretrained=facts.pretrained, stages=stages, classes=classes, images=images, cuda=cuda
        )
        for path, (value, reason) in recipe.items():
            settle(experiment, path, value, reason)
    if quiet:
        return
    if experiment.settled:
        sections = Counter(path.rpartition(".")[0] for path, _, _ in experiment.settled)
        counts = ", ".join(f"{count} of {name}" for name, count in sections.items())
        say(f"settled what you left open: {counts} (each with its reason: -v; the values: experiment.yaml)")
    for path, value, reason in experiment.settled:
        say(f"  {path} = {value}  ({reason})", level=2)


def _recipe(
    experiment: Experiment, *, pretrained: bool, stages: int, classes: int, images: int, cuda: bool
) -> dict[str, tuple[Any, str]]:
    """Return the recipe `unalike`: field -> value and reason."""
    reason = "recipe unalike"
    crops = "training crops look larger than they are: 4/5 of the test size"
    decay = {f"train.optim.{part}.{name}": (value, reason) for part in ("trunk", "embedder")
                for name, value in (("weight_decay", 0.02), ("weight_decay_bias", 0.0))}  # fmt: skip
    return {
        "dataset.train_height": (_crop_side(experiment.model.input_height), crops),
        "dataset.train_width": (_crop_side(experiment.model.input_width), crops),
        "train.batch_size": (max(8, min(32, 4 * classes, images // 2 or 8)), reason),
        "dataset.num_instance": (2, reason),
        "train.num_epochs": (13, reason),
        "train.loss": ({"name": "CosFaceLoss", "parameters": {"margin": 0.2, "scale": 20.0}}, reason),
        "train.miner": ({"name": None, "parameters": {}}, reason),
        "train.optim.name": ("AdamW", reason),
        "train.optim.schedule": ("cosine", reason),
        "train.optim.warmup_iters": (1, reason),
        "train.optim.trunk.base_lr": (5e-4 if pretrained else 1e-3, reason),
        "train.optim.embedder.base_lr": (2e-3, reason),
        "train.optim.loss_lr": (1e-2, reason),
        **decay,
        "train.head_epochs": (1, "the head learns first") if pretrained else (0, reason),
        "train.freeze_batchnorm": (pretrained, "statistics of small batches are worse than the pretrained ones"),
        "train.finish.enabled": (pretrained and can_refit_head(experiment), "interpolated weights of a pretrained trunk generalize better"),
        "train.frozen_stages": (int(stages * FROZEN_SHARE) if pretrained and not cuda else 0,
                                "the lowest stages keep their pretrained weights on a CPU"),
        "dataset.crop.scale": ([0.4, 1.0], reason),
        "dataset.re_prob": (0.2, reason),
        "dataset.gaussian_blur.enabled": (False, reason),
        "dataset.color_augmentation.brightness": (0.3, reason),
        "dataset.color_augmentation.contrast": (0.3, reason),
        "dataset.color_augmentation.saturation": (0.3, reason),
        "dataset.color_augmentation.hue": (0.02, reason),
    }  # fmt: skip


def can_refit_head(experiment: Experiment) -> bool:
    """Return whether the head can be fitted in closed form, and trunk and embedder are both trained."""
    head = resolve_head(experiment.model.head, experiment.model.backbone)
    closed_form = head in ("linear", "rooted") or (head == "mlp" and bool(experiment.train.finish.loss))
    return closed_form and experiment.train.train_trunk and experiment.train.train_embedder


def _crop_side(side: int) -> int:
    """Return four fifths of a side, rounded to a multiple of 16, by which trunks downsample: 224 -> 176."""
    return max(16, int(side * 0.8 / 16 + 0.5) * 16)
