"""Automatic training on the Grocery Store photographs beside plain training and a plain pytorch-metric-learning script.

    python benchmarks/automatic.py --data DIR [--out DIR] [--runs automatic:2:1,automatic:10:1,plain:30:1,peer:30:1]

A run is METHOD:MINUTES:SEED. Train split as training set and reference, `val` as query (296 images); the withheld test
split is not touched. Everything counts as time: start, features, training; the cache is cold. `plain` is training with the
documented values for as many epochs as fit, `peer` what a person would write with timm, torchvision's transforms and
pytorch-metric-learning (triplet loss, multi-similarity miner, classes x instances, Adam) on the same trunk; both are read
at 2, 10 and 30 minutes. Each finished run appends JSON lines to OUT/automatic.jsonl; what stands there is not run again.
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
from grocery import append, measured, write_manifests
from loading import transforms_of_torchvision
from PIL import Image

import unalike
from unalike.data.imageset import load_images
from unalike.metrics.intervals import bootstrap, wilson_interval
from unalike.metrics.retrieval import evaluate_ranking
from unalike.model.backbones import build_trunk

TRUNK, READ_AT = "tf_efficientnet_lite0", (2, 10, 30)


def evaluated(checkpoint: Path, paths: dict[str, Path], folder: Path) -> dict[str, object]:
    done = unalike.evaluate(
        {"results_dir": str(folder), "evaluate": {"checkpoint": str(checkpoint)},
         "dataset": {"val_dataset": {"reference": str(paths["train"]), "query": str(paths["val"])}}}, overwrite=True,
    )  # fmt: skip
    return measured(json.loads((done.results_dir / "metrics.json").read_text()))


def automatic(minutes: int, seed: int, paths: dict[str, Path], out: Path) -> list[dict[str, object]]:
    """What `unalike train DIR --minutes N automl.goal=known-classes` delivers, from a cold cache."""
    folder = out / f"automatic-{minutes}-{seed}"
    os.environ["UNALIKE_CACHE"] = str(folder / "cache")
    shutil.rmtree(folder, ignore_errors=True)
    start, cpu = time.monotonic(), time.process_time()
    spec = {"results_dir": str(folder), "dataset": {"train_dataset": str(paths["train"])}, "train": {"seed": seed},
            "automl_policy": "auto", "automl": {"minutes": minutes, "goal": "known-classes"}}  # fmt: skip
    result = unalike.train(spec)
    took, cpu = time.monotonic() - start, time.process_time() - cpu
    record = json.loads((result.results_dir / "automatic.json").read_text())
    kept = {key: record[key] for key in ("trunk", "chosen", "spent_minutes")}
    return [{"minutes": minutes, "seconds": round(took), "cpu_seconds": round(cpu), **kept,
             **evaluated(result.path, paths, folder)}]  # fmt: skip


def plain(minutes: int, seed: int, paths: dict[str, Path], out: Path) -> list[dict[str, object]]:
    """Plain training for the whole time, its newest checkpoint at each reading."""
    folder = out / f"plain-{minutes}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    start = time.time()
    spec = {"results_dir": str(folder), "automl_policy": "off", "dataset": {"train_dataset": str(paths["train"])},
            "model": {"backbone": TRUNK}, "train": {"recipe": "unalike", "seed": seed}}  # fmt: skip
    probe = unalike.train(spec, ["train.num_epochs=2", "dataset.validation.by=none"], overwrite=True)
    epoch = (time.time() - start) / 2  # start-up included: rather one epoch too few than none at its schedule's end
    shutil.rmtree(probe.results_dir)
    epochs = max(2, int((60 * minutes - 60) / epoch))
    start = time.time()
    done = unalike.train(spec, [f"train.num_epochs={epochs}", "dataset.validation.by=none"], overwrite=True)
    files = sorted([*done.results_dir.glob("model_epoch_*.pth"), done.path], key=lambda file: file.stat().st_mtime)
    rows: list[dict[str, object]] = []
    for at in readings(minutes):
        there = [file for file in files if file.stat().st_mtime - start <= 60 * at]
        if there:
            rows.append(
                {"minutes": at, "epochs": epochs, "file": there[-1].name, **evaluated(there[-1], paths, folder)}
            )
    return rows


def readings(minutes: int) -> list[int]:
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
    """A script as the libraries' own examples suggest it; the time that reading takes is not counted.

    Each reading leaves whether every query's nearest was right, and its average precision at R, in a file.
    """
    from pytorch_metric_learning import losses, miners, samplers

    start = time.monotonic()
    torch.manual_seed(seed)
    train, query = load_images(paths["train"]), load_images(paths["val"])
    transforms = transforms_of_torchvision()
    trunk = build_trunk(TRUNK, pretrained="true")
    normal = [transforms.ToTensor(), transforms.Normalize(trunk.facts.mean, trunk.facts.std)]
    varied = transforms.Compose([transforms.RandomResizedCrop(224, scale=(0.4, 1.0)), transforms.RandomHorizontalFlip(),
                                 transforms.ColorJitter(0.3, 0.3, 0.3, 0.02), *normal])  # fmt: skip
    still = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *normal])
    network = torch.nn.Sequential(trunk, torch.nn.Linear(trunk.width, 256)).to(memory_format=torch.channels_last)
    sampler = samplers.MPerClassSampler(train.labels_N, m=4, batch_size=32, length_before_new_iter=len(train))
    batches = torch.utils.data.DataLoader(Photographs(train.paths, train.labels_N, varied), 32, sampler=sampler,
                                          num_workers=2, drop_last=True, persistent_workers=True)  # fmt: skip
    loss, miner = losses.TripletMarginLoss(margin=0.3), miners.MultiSimilarityMiner(epsilon=0.1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=5e-4)
    rows: list[dict[str, object]] = []
    folder = out / f"peer-{minutes}-{seed}"
    folder.mkdir(exist_ok=True)
    spent, left = time.monotonic() - start, readings(minutes)
    while left:
        began = time.monotonic()
        for images, labels in batches:
            network.train()
            vectors = network(images.contiguous(memory_format=torch.channels_last))
            value = loss(vectors, labels, miner(vectors, labels))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            spent += time.monotonic() - began  # waiting for the batch included
            if spent >= 60 * left[0]:
                at = left.pop(0)
                rows.append({"minutes": at, **_read(network, still, train, query, folder / f"read-{at}.npz")})
                if not left:
                    break
            began = time.monotonic()
    return rows


@torch.inference_mode()
def _read(network: Any, still: Any, train: Any, query: Any, file: Path) -> dict[str, object]:
    network.eval()
    found = []
    for images in (train, query):
        batches = torch.utils.data.DataLoader(Photographs(images.paths, images.labels_N, still), 32, num_workers=2)
        found.append(torch.cat([network(batch) for batch, _ in batches]).numpy())
    own = np.array([train.classes.index(name) for name in query.classes])  # the query holds some of the classes
    ranking = evaluate_ranking(found[1], own[query.labels_N], found[0], train.labels_N, ks=(1,))
    np.savez(file, hit=ranking.precision_at_1, precision=ranking.average_precision_at_r)
    first, mapr = ranking.precision_at_1, bootstrap(ranking.average_precision_at_r)
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
    done = {json.loads(line)["run"] for line in results.read_text().splitlines()} if results.exists() else set()
    for run in options.runs.split(","):
        method, minutes, seed = run.split(":")
        if run not in done:
            for row in METHODS[method](int(minutes), int(seed), paths, options.out):
                append(results, {"run": run, "cores": os.cpu_count(), **row})


if __name__ == "__main__":
    main()
