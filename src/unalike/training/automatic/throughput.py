"""How fast training steps go on this machine, measured, and what fits into a time."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

from unalike.model.embedder import Embedder
from unalike.progress import say
from unalike.training.cpu.batchnorm_folding import find_foldable_pairs, fold_batchnorm
from unalike.training.cpu.frozen_stages import CompiledStages, find_chain, use_compiled_stages
from unalike.training.devices import make_fabric
from unalike.training.freezing import Freezer

STEPS = 5  # timed, after one that is not; their median counts, since a busy moment must not choose trunk and crops
# Reading, cropping, logging and checkpoints beside the steps, as a share of their time (2026-11-26, two cores: all but
# nothing, since readers work ahead; the rest is for a machine that becomes busier: with 0.05 ten minutes were 10.3).
BESIDE = 0.12
FEWEST, MOST = 4, 40  # epochs worth starting for, and after which nothing was gained


@dataclass(frozen=True)
class Plan:
    """Fine-tuning that fits: crops of ``side`` (height, width), ``frozen`` lowest stages, ``epochs``, images a second."""

    side: tuple[int, int]
    frozen: int
    epochs: int
    rate: float


@dataclass(frozen=True)
class Level:
    """Crops as a share of the input's side, the share of the stages that stay frozen, and epochs worth having of it."""

    share: float
    frozen_share: float
    wanted: int


# In the order in which they are preferred.
LEVELS = (Level(0.8, 0.45, 10), Level(0.65, 0.45, 6), Level(0.65, 0.6, FEWEST))


def step_rate(embedder: Embedder, spec: Any, side: tuple[int, int], frozen: int, batch: int, embeds: float) -> float:
    """Images a second of forward, backward and update of the part that learns, on the device that training takes.

    ``embeds``: images of the input's size that the fastest engine embeds a second. Where training lets it run the frozen
    stages, they are counted at that pace (an upper bound: it is that of the whole network).
    """
    fabric = make_fabric(spec)
    device = fabric.device
    copy = spec.model_copy(deep=True)
    copy.train.frozen_stages = frozen
    embedder.to(device)
    Freezer(embedder, copy).set_modes(head_only=False)
    images = torch.rand(batch, spec.model.input_channels, *side, device=device).contiguous(
        memory_format=torch.channels_last
    )
    cpu = device.type == "cpu"
    pairs = find_foldable_pairs(embedder, images[:1]) if cpu else ()
    still = _still(embedder, embedder.trunk.stages()[:frozen], images) if cpu else None
    learning = [p for p in embedder.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=0.0)
    times: list[float] = []
    with fold_batchnorm(pairs), use_compiled_stages(still):
        for _ in range(STEPS + 1):
            start = time.monotonic()
            with fabric.autocast():
                loss = embedder(images).square().mean()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.monotonic() - start)
    took = statistics.median(times[1:])
    if still is not None:
        took += batch * side[0] * side[1] / (spec.model.input_height * spec.model.input_width) / embeds
    embedder.requires_grad_(True)
    return batch / max(took, 1e-9)


def _still(embedder: Embedder, stages: Any, images: torch.Tensor) -> CompiledStages | None:
    """In place of the frozen stages their output for these images, as if it cost nothing."""
    modules = find_chain(embedder, stages, images[:1]) if stages else []
    if not modules:
        return None
    with torch.no_grad():
        output = torch.nn.Sequential(*modules).eval()(images)
    return CompiledStages(modules, lambda _: output)


def plan(
    embedder: Embedder, spec: Any, level: Level, *, images: int, seconds: float, embeds: float, most: int = MOST
) -> Plan:
    """What fits into ``seconds`` at this level; on a GPU nothing is frozen."""
    stages = len(embedder.trunk.stages())
    size = (spec.model.input_height, spec.model.input_width)
    height, width = (max(32, int(s * level.share / 16 + 0.5) * 16) for s in size)
    frozen = 0 if make_fabric(spec).device.type == "cuda" else int(stages * level.frozen_share)
    rate = step_rate(embedder, spec, (height, width), frozen, spec.train.batch_size, embeds)
    epochs = min(int(seconds * rate / images / (1 + BESIDE)), most)
    say(f"pace: {spec.model.backbone}, {rate:.0f} images/s with crops of {height}x{width}, {frozen} stages frozen: "
        f"{epochs} epochs fit", level=2)  # fmt: skip
    return Plan((height, width), frozen, epochs, rate)
