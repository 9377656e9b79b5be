"""A training step of ours beside the same step written plainly with pytorch-metric-learning, in turn in one run.

    python benchmarks/training_step.py [--steps 12] [--batch 32] [--size 176]

Same network (EfficientNet-Lite0, random weights), images, loss, miner and optimiser; ours goes through the loop's own
`_step` with everything that it checks. Prints seconds a step (median) and the ratio ours / plain.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
from pytorch_metric_learning import losses, miners

from unalike.model.embedder import build_embedder
from unalike.spec import load_spec
from unalike.training.checkpoints import CheckpointKeeper
from unalike.training.devices import make_fabric
from unalike.training.freezing import Freezer
from unalike.training.loop import Loop
from unalike.training.losses import build_objective
from unalike.training.optimizer import build_optimiser
from unalike.training.schedule import Schedule


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
    batch = SimpleNamespace(images_BCHW=images, labels_B=labels, indices_B=torch.arange(options.batch))

    embedder = build_embedder(spec).to(memory_format=torch.channels_last)
    plain = build_embedder(spec).to(memory_format=torch.channels_last).train()
    objective = build_objective(spec, classes=8, dim=embedder.dim)
    fabric = make_fabric(spec)
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(
            fabric=fabric, embedder=embedder, objective=objective,
            optimiser=build_optimiser(spec, embedder, objective), freezer=Freezer(embedder, spec),
            batches=range(1), schedule=Schedule.from_spec(spec, 1), spec=spec,
            keeper=CheckpointKeeper(Path(folder), spec.train), validate=None, payload=lambda w: {}, names=lambda i: [],
            listener=lambda e, f: None, stop_requested=lambda: 0,
        )  # fmt: skip
        loop.freezer.set_modes(head_only=False)
        loss, miner = losses.TripletMarginLoss(margin=0.3, smooth_loss=True), miners.MultiSimilarityMiner(epsilon=0.1)
        optimiser = torch.optim.Adam(plain.parameters(), lr=3.5e-4, weight_decay=5e-4)

        def plain_step() -> None:
            optimiser.zero_grad()
            vectors = plain(images)
            loss(vectors, labels, miner(vectors, labels)).backward()
            optimiser.step()

        times: dict[str, list[float]] = {"ours": [], "plain": []}
        for step in range(options.steps + 2):
            for name, run in (("ours", lambda: loop._step(batch, update=True)), ("plain", plain_step)):
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
