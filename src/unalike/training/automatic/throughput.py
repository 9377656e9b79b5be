"""Measure the rate of training steps on this machine and plan the fine-tuning that fits into a time.

Shape letters: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from unalike.model.embedder import Embedder
from unalike.progress import say
from unalike.training.cpu.batchnorm_folding import find_foldable_pairs, fold_batchnorm
from unalike.training.cpu.openvino_stages import CompiledStages, find_chain, use_compiled_stages
from unalike.training.devices import make_fabric
from unalike.training.freezing import Freezer

if TYPE_CHECKING:
    from unalike.spec import Experiment

TIMED_STEPS = 5  # after one warm-up step; the median counts, so that a busy moment does not decide
# Reading, cropping, logging and checkpoints, relative to the time of the steps (2026-11-26, two cores: almost nothing,
# since readers work ahead; the rest is a margin for a machine that becomes busier: with 0.05 ten minutes became 10.3).
OVERHEAD = 0.12
# Epochs from which fine-tuning is worth starting, and after which nothing was gained.
MIN_EPOCHS, MAX_EPOCHS = 4, 40


@dataclass(frozen=True)
class TuningPlan:
    """Fine-tuning that fits into a time.

    Attributes:
        size: height and width of the training crops.
        frozen_stages: number of lowest stages that stay frozen.
        epochs: number of epochs that fit.
        rate: training images per second.
        epoch_images: images that an epoch draws; None for all of them.
    """

    size: tuple[int, int]
    frozen_stages: int
    epochs: int
    rate: float
    epoch_images: int | None = None


@dataclass(frozen=True)
class TuningPreset:
    """One trade-off between quality and cost per epoch.

    Attributes:
        crop_share: side of the training crops as a share of the input's side.
        frozen_share: share of the stages that stay frozen.
        min_epochs: the preset is used only if this many epochs fit.
    """

    crop_share: float
    frozen_share: float
    min_epochs: int


# In order of preference.
TUNING_PRESETS = (TuningPreset(0.8, 0.45, 10), TuningPreset(0.65, 0.45, 6), TuningPreset(0.65, 0.6, MIN_EPOCHS))


def measure_step_rate(
    embedder: Embedder, spec: Experiment, size: tuple[int, int], frozen_stages: int, batch_size: int,
    inference_rate: float,
) -> float:  # fmt: skip
    """Measure the images per second of training steps on the device that training will use.

    Args:
        embedder: the network; all its parameters require gradients afterwards.
        spec: resolved spec of the training.
        size: height and width of the training crops.
        frozen_stages: number of lowest stages that stay frozen.
        batch_size: images per step.
        inference_rate: images of the input's size per second that the fastest engine embeds. Where training runs the frozen
            stages in that engine, their time is estimated from it (an upper bound: it is the rate of the whole network).
    """
    fabric = make_fabric(spec)
    device = fabric.device
    embedder.to(device)
    Freezer(embedder, spec.with_values({"train.frozen_stages": frozen_stages})).set_train_modes(head_only=False)
    images_BCHW = torch.rand(batch_size, spec.model.input_channels, *size, device=device).contiguous(
        memory_format=torch.channels_last
    )
    cpu = device.type == "cpu"
    pairs = find_foldable_pairs(embedder, images_BCHW[:1]) if cpu else ()
    frozen = _constant_stages(embedder, embedder.trunk.stages()[:frozen_stages], images_BCHW) if cpu else None
    parameters = [p for p in embedder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0)
    durations: list[float] = []
    with fold_batchnorm(pairs), use_compiled_stages(frozen):
        for _ in range(TIMED_STEPS + 1):
            start = time.monotonic()
            with fabric.autocast():
                loss = embedder(images_BCHW).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if device.type == "cuda":
                torch.cuda.synchronize()
            durations.append(time.monotonic() - start)
    seconds = statistics.median(durations[1:])
    if frozen is not None:
        area = size[0] * size[1] / (spec.model.input_height * spec.model.input_width)
        seconds += batch_size * area / inference_rate
    embedder.requires_grad_(True)
    return batch_size / max(seconds, 1e-9)


def _constant_stages(
    embedder: Embedder, stages: Sequence[Sequence[nn.Module]], images_BCHW: torch.Tensor
) -> CompiledStages | None:
    """Replace frozen stages by their output for these images, so that they take no time; None if they are no chain."""
    modules = find_chain(embedder, stages, images_BCHW[:1]) if stages else []
    if not modules:
        return None
    with torch.no_grad():
        output = nn.Sequential(*modules).eval()(images_BCHW)
    return CompiledStages(modules, lambda _: output)


def plan_tuning(
    embedder: Embedder, spec: Experiment, preset: TuningPreset, *, images: int, seconds: float, inference_rate: float,
    max_epochs: int = MAX_EPOCHS,
) -> TuningPlan:  # fmt: skip
    """Find the epochs of a preset that fit into ``seconds``; on a GPU nothing is frozen.

    Args:
        embedder: the network to fine-tune.
        spec: resolved spec of the training.
        preset: crop size and frozen stages.
        images: number of training images.
        seconds: time for all epochs.
        inference_rate: see ``measure_step_rate``.
        max_epochs: upper limit.
    """
    stages = len(embedder.trunk.stages())
    input_size = (spec.model.input_height, spec.model.input_width)
    height, width = (max(32, int(side * preset.crop_share / 16 + 0.5) * 16) for side in input_size)
    frozen = 0 if make_fabric(spec).device.type == "cuda" else int(stages * preset.frozen_share)
    rate = measure_step_rate(embedder, spec, (height, width), frozen, spec.train.batch_size, inference_rate)
    epochs = min(int(seconds * rate / images / (1 + OVERHEAD)), max_epochs)
    say(f"pace: {spec.model.backbone}, {rate:.0f} images/s with crops of {height}x{width}, {frozen} stages frozen: "
        f"{epochs} epochs fit", level=2)  # fmt: skip
    return TuningPlan((height, width), frozen, epochs, rate)
