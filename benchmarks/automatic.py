"""Automatic training on the Grocery Store photographs beside plain training and a plain pytorch-metric-learning script.

    python benchmarks/automatic.py --data DIR [--out DIR] [--runs automatic:2:1,automatic:10:1,plain:30:1,peer:30:1]

A run is METHOD:MINUTES:SEED. Train split as training set and reference, `val` as query (296 images); the withheld test
split is not touched. The time includes start, features and training; the cache is cold. `plain` is training with the
documented values for as many epochs as fit, `peer` a script as a user would write it with timm, torchvision's transforms and
pytorch-metric-learning (triplet loss, multi-similarity miner, classes x instances, Adam) on the same trunk; both are evaluated
after 2, 10 and 30 minutes. Each finished run appends JSON lines to OUT/automatic.jsonl; runs in that file are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grocery import append_row, summarize_metrics, write_manifests
from loading import transforms_of_torchvision
from PIL import Image

import unalike
from unalike.data.imageset import load_images
from unalike.metrics.intervals import mean_interval, wilson_interval
from unalike.metrics.retrieval import evaluate_ranking
from unalike.model.backbones import build_trunk

TRUNK, READ_AT = "tf_efficientnet_lite0", (2, 10, 30)


def evaluate_checkpoint(checkpoint: Path, paths: dict[str, Path], folder: Path) -> dict[str, object]:
    result = unalike.evaluate(
        {"results_dir": str(folder), "evaluate": {"checkpoint": str(checkpoint)},
         "dataset": {"val_dataset": {"reference": str(paths["train"]), "query": str(paths["val"])}}}, overwrite=True,
    )  # fmt: skip
    return summarize_metrics(json.loads((result.results_dir / "metrics.json").read_text()))


def automatic(minutes: int, seed: int, paths: dict[str, Path], out: Path) -> list[dict[str, object]]:
    """Train as `unalike train DIR --minutes N automl.goal=known-classes` does, from a cold cache."""
    folder = out / f"automatic-{minutes}-{seed}"
    os.environ["UNALIKE_CACHE"] = str(folder / "cache")
    shutil.rmtree(folder, ignore_errors=True)
    start, cpu = time.monotonic(), time.process_time()
    spec = {"results_dir": str(folder), "dataset": {"train_dataset": str(paths["train"])}, "train": {"seed": seed},
            "automl_policy": "auto", "automl": {"minutes": minutes, "goal": "known-classes"}}  # fmt: skip
    result = unalike.train(spec)
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    record = json.loads((result.results_dir / "automatic.json").read_text())
    summary = {key: record[key] for key in ("trunk", "chosen", "spent_minutes")}
    return [{"minutes": minutes, "seconds": round(seconds), "cpu_seconds": round(cpu), **summary,
             **evaluate_checkpoint(result.path, paths, folder)}]  # fmt: skip


def plain(minutes: int, seed: int, paths: dict[str, Path], out: Path) -> list[dict[str, object]]:
    """Train plainly for all of the time; evaluate the newest checkpoint at each reading."""
    folder = out / f"plain-{minutes}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    start = time.time()
    spec = {"results_dir": str(folder), "automl_policy": "off", "dataset": {"train_dataset": str(paths["train"])},
            "model": {"backbone": TRUNK}, "train": {"recipe": "unalike", "seed": seed}}  # fmt: skip
    probe = unalike.train(spec, ["train.num_epochs=2", "dataset.validation.by=none"], overwrite=True)
    # Start-up included: one epoch too few is better than a schedule that does not end.
    epoch_seconds = (time.time() - start) / 2
    shutil.rmtree(probe.results_dir)
    epochs = max(2, int((60 * minutes - 60) / epoch_seconds))
    start = time.time()
    result = unalike.train(spec, [f"train.num_epochs={epochs}", "dataset.validation.by=none"], overwrite=True)
    files = sorted([*result.results_dir.glob("model_epoch_*.pth"), result.path], key=lambda file: file.stat().st_mtime)
    rows: list[dict[str, object]] = []
    for minute in reading_minutes(minutes):
        available = [file for file in files if file.stat().st_mtime - start <= 60 * minute]
        if available:
            rows.append(
                {
                    "minutes": minute,
                    "epochs": epochs,
                    "file": available[-1].name,
                    **evaluate_checkpoint(available[-1], paths, folder),
                }
            )
    return rows


def reading_minutes(minutes: int) -> list[int]:
    return [*(m for m in READ_AT if m < minutes), minutes]


class Photographs(torch.utils.data.Dataset):
    def __init__(self, paths: Any, labels: Any, transform: Any) -> None:
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), int(self.labels[index])


def peer(minutes: int, seed: int, paths: dict[str, Path], out: Path) -> list[dict[str, object]]:
    """Train with a script as in the libraries' own examples; the time of evaluations is not counted.

    References are the images ``paths["reference"]``, where it is given, else those that are trained on. Each evaluation writes
    precision at 1 and average precision at R of every query to a file.
    """
    from pytorch_metric_learning import losses, miners, samplers

    start = time.monotonic()
    torch.manual_seed(seed)
    train, query = load_images(paths["train"]), load_images(paths["val"])
    reference = load_images(paths["reference"]) if "reference" in paths else train
    transforms = transforms_of_torchvision()
    trunk = build_trunk(TRUNK, pretrained="true")
    normal = [transforms.ToTensor(), transforms.Normalize(trunk.facts.mean, trunk.facts.std)]
    training_transform = transforms.Compose([transforms.RandomResizedCrop(224, scale=(0.4, 1.0)), transforms.RandomHorizontalFlip(),
                                 transforms.ColorJitter(0.3, 0.3, 0.3, 0.02), *normal])  # fmt: skip
    evaluation_transform = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *normal])
    network = torch.nn.Sequential(trunk, torch.nn.Linear(trunk.width, 256)).to(memory_format=torch.channels_last)
    sampler = samplers.MPerClassSampler(train.labels_N, m=4, batch_size=32, length_before_new_iter=len(train))
    batches = torch.utils.data.DataLoader(Photographs(train.paths, train.labels_N, training_transform), 32, sampler=sampler,
                                          num_workers=2, drop_last=True, persistent_workers=True)  # fmt: skip
    loss, miner = losses.TripletMarginLoss(margin=0.3), miners.MultiSimilarityMiner(epsilon=0.1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=5e-4)
    rows: list[dict[str, object]] = []
    folder = out / f"peer-{minutes}-{seed}"
    folder.mkdir(exist_ok=True)
    spent, remaining = time.monotonic() - start, reading_minutes(minutes)
    while remaining:
        batch_start = time.monotonic()
        for images, labels in batches:
            network.train()
            vectors = network(images.contiguous(memory_format=torch.channels_last))
            value = loss(vectors, labels, miner(vectors, labels))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            spent += time.monotonic() - batch_start  # waiting for the batch included
            if spent >= 60 * remaining[0]:
                minute = remaining.pop(0)
                rows.append(
                    {
                        "minutes": minute,
                        **_evaluate_network(
                            network, evaluation_transform, reference, query, folder / f"read-{minute}.npz"
                        ),
                    }
                )
                if not remaining:
                    break
            batch_start = time.monotonic()
    return rows


@torch.inference_mode()
def _evaluate_network(network: Any, transform: Any, reference: Any, query: Any, file: Path) -> dict[str, object]:
    network.eval()
    vectors = []
    for images in (reference, query):
        batches = torch.utils.data.DataLoader(Photographs(images.paths, images.labels_N, transform), 32, num_workers=2)
        vectors.append(torch.cat([network(batch) for batch, _ in batches]).numpy())
    # The query contains some of the classes only.
    class_of_query = np.array([reference.classes.index(name) for name in query.classes])
    ranking = evaluate_ranking(vectors[1], class_of_query[query.labels_N], vectors[0], reference.labels_N, ks=(1,))
    np.savez(file, hit=ranking.precision_at_1, precision=ranking.average_precision_at_r)
    first, mapr = ranking.precision_at_1, mean_interval(ranking.average_precision_at_r)
    interval = wilson_interval(int(first.sum()), len(first))
    return {"R@1": round(float(first.mean()), 4), "R@1 interval": [round(interval.low, 4), round(interval.high, 4)],
            "MAP@R": round(mapr.value, 4), "MAP@R interval": [round(mapr.low, 4), round(mapr.high, 4)],
            "queries": len(first)}  # fmt: skip


METHODS = {"automatic": automatic, "plain": plain, "peer": peer}
ALL = [f"automatic:{m}:{s}" for m, seeds in ((2, 3), (10, 3), (30, 2)) for s in range(1, seeds + 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the data set's folder, with train.txt and val.txt")
    parser.add_argument("--out", type=Path, default=Path("runs/automatic"))
    parser.add_argument("--runs", default=",".join([*ALL, "plain:30:1", "peer:30:1"]))
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    paths = write_manifests(options.data, options.out)
    results = options.out / "automatic.jsonl"
    finished = {json.loads(line)["run"] for line in results.read_text().splitlines()} if results.exists() else set()
    for run in options.runs.split(","):
        method, minutes, seed = run.split(":")
        if run not in finished:
            for row in METHODS[method](int(minutes), int(seed), paths, options.out):
                append_row(results, {"run": run, "cores": os.cpu_count(), **row})


if __name__ == "__main__":
    main()
