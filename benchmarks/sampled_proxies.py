"""Sampled proxies beside all of them: equal in quality at 1,000 classes, and memory and time of a step at a million.

    python benchmarks/sampled_proxies.py [--parts quality,memory] [--seeds 5] [--out FILE]

Quality: vectors of 1,000 classes around random centers in a space of 64 dimensions of which 16 tell classes apart, seen through
noise; a linear head is trained with CosFaceLoss on 6 images a class, and R@1 is that of 4 others a class against the first 6
(leaving none out: they are other images). Each seed draws data and weights anew, the same for all ways. Memory: the peak of the
resident memory of a process that takes 5 steps of a batch of 64 vectors of 128 dimensions, less that before; each in a process
of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unalike.training.losses import build_loss
from unalike.training.sampled_proxies import SampledProxies

CLASSES, TRAIN, TEST, WIDTH, SIGNAL, DIM = 1000, 6, 4, 64, 16, 32
EPOCHS, BATCH = 20, 128


def make_criterion(classes: int, dim: int, sampled: int, seed: int) -> nn.Module:
    """CosFaceLoss over all classes (``sampled`` 0), or over a sample of them."""

    def build(count: int) -> nn.Module:
        return build_loss("CosFaceLoss", {}, classes=count, dim=dim)

    return SampledProxies(build, classes=classes, sampled=sampled, seed=seed) if sampled else build(classes)


def make_optimizer(network: nn.Module, criterion: nn.Module) -> torch.optim.Optimizer:
    """Adam for both, at the rates of heads on frozen features."""
    optimizer = torch.optim.Adam(
        [{"params": network.parameters(), "lr": 1e-3}, {"params": criterion.parameters(), "lr": 1e-2}]
    )
    if isinstance(criterion, SampledProxies):
        criterion.attach(optimizer)
    return optimizer


def draw_images(seed: int) -> tuple[Tensor, Tensor]:
    """(features of C x (train + test) images, labels), the training images of each class first."""
    random = np.random.default_rng(seed)
    centers_CF = np.zeros((CLASSES, WIDTH))
    centers_CF[:, :SIGNAL] = random.normal(size=(CLASSES, SIGNAL))
    scale_F = np.where(np.arange(WIDTH) < SIGNAL, 0.45, 2.0)
    images = centers_CF[:, None] + random.normal(size=(CLASSES, TRAIN + TEST, WIDTH)) * scale_F
    rotation_FF = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0]
    return torch.from_numpy((images @ rotation_FF).astype(np.float32)), torch.arange(CLASSES)


def recall_at_1(network: nn.Module, images_CIF: Tensor) -> float:
    """Share of test images whose nearest training image is of their class."""
    with torch.no_grad():
        vectors = nn.functional.normalize(network(images_CIF.flatten(0, 1)), dim=1).unflatten(0, (CLASSES, -1))
    references, queries = vectors[:, :TRAIN].flatten(0, 1), vectors[:, TRAIN:].flatten(0, 1)
    nearest = torch.cat([(part @ references.T).argmax(1) for part in queries.split(500)]) // TRAIN
    return float((nearest == torch.arange(CLASSES).repeat_interleave(TEST)).float().mean())


def train_once(seed: int, sampled: int) -> float:
    """R@1 after training."""
    images_CIF, labels_C = draw_images(seed)
    torch.manual_seed(seed)
    network = nn.Linear(WIDTH, DIM)
    criterion = make_criterion(CLASSES, DIM, sampled, seed)
    optimizer = make_optimizer(network, criterion)
    inputs, targets = images_CIF[:, :TRAIN].flatten(0, 1), labels_C.repeat_interleave(TRAIN)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            criterion(network(inputs[rows]), targets[rows]).backward()
            optimizer.step()
    return recall_at_1(network, images_CIF)


def measure_quality(seeds: int) -> list[dict[str, Any]]:
    """R@1 of each way over the seeds, and the paired differences from all proxies."""
    values = {sampled: [train_once(seed, sampled) for seed in range(seeds)] for sampled in (0, 500, 200)}
    rows = []
    for sampled, figures in values.items():
        differences = [a - b for a, b in zip(figures, values[0], strict=True)]
        rows.append({
            "part": "quality", "classes": CLASSES, "sampled": sampled or CLASSES, "seeds": seeds, "n": CLASSES * TEST,
            "R@1": round(statistics.mean(figures), 4), "range": [round(min(figures), 4), round(max(figures), 4)],
            "difference": round(statistics.mean(differences), 4), "differences": [round(d, 4) for d in differences],
        })  # fmt: skip
    return rows


def step_memory(classes: int, sampled: int) -> dict[str, Any]:
    """Peak memory and seconds of steps, in this process."""
    torch.manual_seed(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network = nn.Linear(128, 128)
    criterion = make_criterion(classes, 128, sampled, 0)
    optimizer = make_optimizer(network, criterion)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        optimizer.zero_grad()
        criterion(network(torch.randn(64, 128)), torch.randint(classes, (64,))).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"part": "memory", "classes": classes, "sampled": sampled or classes, "memory_mb": round((peak - before) / 1024),
            "step_ms": round(1000 * statistics.median(seconds), 1)}  # fmt: skip


def main() -> None:
    """Measure the parts asked for, and print one line of JSON for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="quality,memory")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(step_memory(*arguments.one)))
        return
    rows = measure_quality(arguments.seeds) if "quality" in arguments.parts else []
    run = partial(subprocess.run, check=True, capture_output=True, text=True)
    for classes in (10**4, 10**5, 10**6) if "memory" in arguments.parts else ():
        for sampled in (0, 5000):
            done = run([sys.executable, __file__, "--one", str(classes), str(sampled)])
            rows.append(json.loads(done.stdout))
    text = "\n".join(json.dumps(row) for row in rows)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
