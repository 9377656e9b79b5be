"""A training step of ours beside the same step written plainly with pytorch-metric-learning, in turn in one run.

    python benchmarks/training_step.py [--steps 12] [--batch 32] [--size 176]

Same network (EfficientNet-Lite0, random weights), images, loss, miner and optimizer; ours goes through the loop's own
`train_step` with everything that it checks. Prints seconds a step (median) and the ratio ours / plain.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from pytorch_metric_learning import losses, miners

from unalike.data.batches.loader import Batch
from unalike.model.embedder import build_embedder
from unalike.spec import load_spec
from unalike.training.checkpoints import CheckpointManager
from unalike.training.devices import make_fabric
from unalike.training.freezing import Freezer
from unalike.training.loop import TrainingLoop
from unalike.training.losses import build_criterion
from unalike.training.optimizer import build_optimizer
from unalike.training.schedule import LRSchedule


class OneBatch:
    """A loader of one step, which is never iterated: the steps are made one by one."""

    def __len__(self) -> int:
        return 1

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        raise NotImplementedError


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=176)
    options = parser.parse_args()
    spec = load_spec("train", {"model": {"backbone": "tf_efficientnet_lite0", "pretrained": False}})
    torch.manual_seed(0)
    images = torch.randn(options.batch, 3, options.size, options.size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(options.batch) // 4
    batch = Batch(images, labels, torch.arange(options.batch))

    embedder = build_embedder(spec).to(memory_format=torch.channels_last)
    plain = build_embedder(spec).to(memory_format=torch.channels_last).train()
    criterion = build_criterion(spec, classes=8, dim=embedder.dim)
    fabric = make_fabric(spec)
    with tempfile.TemporaryDirectory() as folder:
        loop = TrainingLoop(
            fabric=fabric, embedder=embedder, criterion=criterion,
            optimizer=build_optimizer(spec, embedder, criterion), freezer=Freezer(embedder, spec),
            loader=OneBatch(), schedule=LRSchedule.from_spec(spec, 1), experiment=spec,
            checkpoint_manager=CheckpointManager(Path(folder), spec.train), validate=None, payload=lambda weights, epochs: {},
            image_names=lambda indices: [],
            listener=lambda event, facts: None, stop_requested=lambda: 0,
        )  # fmt: skip
        loop.freezer.set_train_modes(head_only=False)
        loss, miner = losses.TripletMarginLoss(margin=0.3, smooth_loss=True), miners.MultiSimilarityMiner(epsilon=0.1)
        optimizer = torch.optim.Adam(plain.parameters(), lr=3.5e-4, weight_decay=5e-4)

        def plain_step() -> None:
            optimizer.zero_grad()
            vectors = plain(images)
            loss(vectors, labels, miner(vectors, labels)).backward()
            optimizer.step()

        times: dict[str, list[float]] = {"ours": [], "plain": []}
        for step in range(options.steps + 2):
            for name, run in (("ours", lambda: loop.train_step(batch, update=True)), ("plain", plain_step)):
                start = time.perf_counter()
                run()
                if step >= 2:
                    times[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(times["ours"], times["plain"], strict=True)]
    for name, values in times.items():
        print(f"{name:6s} {median(values):.3f} s a step, {options.batch / median(values):.1f} images/s")
    print(f"ours / plain: median {median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    sys.exit(main())
