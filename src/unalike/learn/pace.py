"""How fast training steps go on this machine, measured, and what fits into a time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from unalike.learn.devices import make_fabric
from unalike.learn.folding import find_pairs, folded
from unalike.learn.freezing import Freezer
from unalike.model.embedder import Embedder
from unalike.progress import say

STEPS = 3  # timed, after one that is not
# Reading, cropping, logging and checkpoints beside the steps, as a share of their time (2026-11-23, two cores).
BESIDE = 0.2
FEWEST, MOST = 3, 40  # epochs worth starting for, and after which nothing was gained


@dataclass(frozen=True)
class Plan:
    """Fine-tuning that fits: crops of ``side`` (height, width), ``frozen`` lowest stages, ``epochs``, seconds it will take."""

    side: tuple[int, int]
    frozen: int
    epochs: int
    seconds: float
    rate: float


def step_rate(embedder: Embedder, spec: Any, side: tuple[int, int], frozen: int, batch: int) -> float:
    """Images a second of forward, backward and update of the part that learns, on the device that training takes."""
    fabric = make_fabric(spec)
    device = fabric.device
    copy = spec.model_copy(deep=True)
    copy.train.frozen_stages = frozen
    embedder.to(device)
    Freezer(embedder, copy).set_modes(head_only=False)
    images = torch.rand(batch, spec.model.input_channels, *side, device=device).contiguous(
        memory_format=torch.channels_last
    )
    pairs = find_pairs(embedder, images[:1]) if device.type == "cpu" else ()
    learning = [p for p in embedder.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=0.0)
    with folded(pairs):
        for step in range(STEPS + 1):
            if step == 1:
                start = time.monotonic()
            with fabric.autocast():
                loss = embedder(images).square().mean()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if device.type == "cuda":
                torch.cuda.synchronize()
    rate = STEPS * batch / max(time.monotonic() - start, 1e-9)
    embedder.requires_grad_(True)
    return rate


def plan(embedder: Embedder, spec: Any, *, images: int, seconds: float, most: int = MOST) -> Plan | None:
    """The largest crops and the fewest frozen stages that leave time for enough epochs, or None where nothing does.

    Tried in this order: crops of 4/5 and 2/3 of the input with the lowest 45 % of the stages frozen, then 2/3 with 60 %.
    On a GPU nothing is frozen.
    """
    stages = len(embedder.trunk.stages())
    cuda = make_fabric(spec).device.type == "cuda"
    batch = spec.train.batch_size
    size = (spec.model.input_height, spec.model.input_width)
    found: Plan | None = None
    for share, frozen_share, wanted in ((0.8, 0.45, 12), (0.65, 0.45, 6), (0.65, 0.6, FEWEST)):
        side = tuple(max(32, int(s * share / 16 + 0.5) * 16) for s in size)
        frozen = 0 if cuda else int(stages * frozen_share)
        rate = step_rate(embedder, spec, side, frozen, batch)  # type: ignore[arg-type]
        per_epoch = images / rate * (1 + BESIDE)
        epochs = min(int(seconds / per_epoch), most)
        say(
            f"pace: {rate:.0f} images/s with crops of {side[0]}x{side[1]}, {frozen} stages frozen: {epochs} epochs fit",
            level=2,
        )  # type: ignore[str-format]
        found = Plan(side, frozen, epochs, epochs * per_epoch, rate)  # type: ignore[arg-type]
        if epochs >= wanted:
            return found
    return None
