"""How many labels a good choice of images saves: R@1 on Grocery by the number of labels, with a frozen trunk and a fitted head.

    python benchmarks/labels_needed.py --data DIR [--out DIR] [--seeds 5] [--on scenes|val] [--methods "random,clusters and margin"]

A simulated labeler gives the true class of every image that is asked for, in rounds of 50. After each round a head is fitted to the
labels (closed form), and the queries look up the labeled images. Each seed draws 90 % of the training photographs as the pool, the
same for all methods. Labels needed: the first round in which R@1 reaches that of random choice with 1,000 labels on the same pool.
``--on scenes`` looks up a scene of each class of the training photographs, which is withheld (settings are chosen there);
``--on val`` the published `val`. Features are computed once. Prints and appends rows to OUT/labels_needed.jsonl.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from data_sets import image_set
from data_sources import grocery_rows, validation_rows
from grocery import append_row
from label_choices import METHODS, Round

from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.discovery.label_choice import UNLABELED, LabelChooser
from unalike.errors import DataError
from unalike.metrics.intervals import difference_interval, mean_interval
from unalike.model.backbones import native_size
from unalike.numerics.normalization import l2_normalize
from unalike.spec import load_spec
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.discriminant import fit_whitening
from unalike.training.heads.features import compute_features

TRUNK, STEP, TARGET_LABELS, AIM = "tf_efficientnet_lite2", 50, 1000, 0.6
RANDOM_STEP = 200  # random choice needs no head between; its curve has fewer points
POOL_SHARE = 0.9
SCENES = (1, 2)  # withheld in turn
HEAD = HeadConfig(sqrt=True, residual=0.3)


class Photographs(NamedTuple):
    """Frozen features with classes, and the scene of each photograph."""

    x_NF: np.ndarray
    labels_N: np.ndarray
    scenes_N: np.ndarray


class Task(NamedTuple):
    """Images that labels can be asked for, and queries of the same classes."""

    name: str
    pool: Photographs
    query: Photographs


def load_photographs(data: Path) -> dict[str, Photographs]:
    """Features of both published splits at the trunk's own image size, kept in the cache of features."""
    spec = load_spec("train")
    height, width = native_size(TRUNK)[0]
    view = replace(View.from_spec(spec), height=height, width=width)
    parts = {}
    for name, rows in (("train", grocery_rows(data)), ("val", validation_rows(data))):
        images = image_set(rows)
        features = compute_features(TRUNK, images, view, Notices(), spec)
        codes = {label: code for code, label in enumerate(sorted({row[1] for row in grocery_rows(data)}))}
        by_path = {row[0]: row for row in rows}
        kept = [by_path[images.paths[i]] for i in features.kept_N.tolist()]
        labels, scenes = np.array([codes[row[1]] for row in kept]), np.array([row[2] for row in kept])
        parts[name] = Photographs(features.vectors_NF, labels, scenes)
    return parts


def select(part: Photographs, mask_N: np.ndarray) -> Photographs:
    return Photographs(*(array[mask_N] for array in part))


def make_tasks(parts: dict[str, Photographs], on: str) -> list[Task]:
    train = parts["train"]
    if on == "val":
        return [Task("val", train, parts["val"])]
    tasks = []
    for scene in SCENES:
        own = np.array([name.endswith(f" {scene}") for name in train.scenes_N])
        tasks.append(Task(f"scene {scene} of train", select(train, ~own), select(train, own)))
    return tasks


def fit(pool: Photographs, labels_N: np.ndarray):
    """The head that the labels give; the features as they are where no class has two images yet."""
    rows = np.flatnonzero(labels_N != UNLABELED)
    try:
        whitening = fit_whitening(pool.x_NF[rows], labels_N[rows], sqrt=HEAD.sqrt, shrinkage=HEAD.shrinkage)
    except DataError:
        return lambda x: x
    return lambda x: whitening.equivalent_vectors(x, HEAD.residual)  # the cosines of the head, in a quarter of its time


def run(task: Task, method: str, seed: int, top: int) -> dict[int, np.ndarray]:
    """Hits of each query, by the number of labels."""
    drawn = np.random.default_rng([seed, 5]).permutation(len(task.pool.labels_N))
    pool = select(task.pool, np.sort(drawn[: int(POOL_SHARE * len(drawn))]))
    chooser = None if method == "random" else LabelChooser.fit(pool.x_NF, seed=seed)
    labels_N, rng = np.full(len(pool.labels_N), UNLABELED), np.random.default_rng([seed, 7])
    fitted_ND, hits = None, {}
    for count in range(STEP, top + 1, STEP):
        chosen = METHODS[method](Round(chooser, labels_N, fitted_ND, rng), STEP)
        assert len(set(chosen.tolist())) == STEP and (labels_N[chosen] == UNLABELED).all(), method
        labels_N[chosen] = pool.labels_N[chosen]
        if method == "random" and count % RANDOM_STEP and count != top:
            continue
        head, rows = fit(pool, labels_N), np.flatnonzero(labels_N != UNLABELED)
        fitted_ND = l2_normalize(head(pool.x_NF))
        nearest_Q = (l2_normalize(head(task.query.x_NF)) @ fitted_ND[rows].T).argmax(axis=1)
        hits[count] = (labels_N[rows][nearest_Q] == task.query.labels_N).astype(float)
    return hits


def first_reaching(hits: dict[int, np.ndarray], target: float) -> int | None:
    """The first number of labels with this R@1; None where it is never reached."""
    return next((count for count, hit_Q in hits.items() if hit_Q.mean() >= target - 1e-9), None)


def describe(
    task: Task, method: str, base: list[dict[int, np.ndarray]], own: list[dict[int, np.ndarray]], labels: int
) -> dict[str, object]:
    """A row: the curve, labels needed seed by seed, and the paired difference at the aim."""
    needed = [first_reaching(hits, float(random[labels].mean())) for hits, random in zip(own, base, strict=True)]
    reached = [count for count in needed if count is not None]
    goal = int(AIM * labels) // STEP * STEP if method != "random" else labels
    before_Q, after_Q = (np.mean([hits[at] for hits in runs], axis=0) for runs, at in ((base, labels), (own, goal)))
    change = difference_interval(before_Q, after_Q, task.query.labels_N)
    level = mean_interval(before_Q, task.query.labels_N)
    curve = {count: round(float(np.mean([hits[count].mean() for hits in own])), 4) for count in own[0]}
    mean_curve = next((count for count, value in curve.items() if value >= before_Q.mean() - 1e-9), None)
    return {
        "queries": task.name, "n": len(task.query.labels_N), "method": method, "seeds": len(own), "head": HEAD.name,
        f"R@1 of random with {labels}": [round(v, 4) for v in (level.value, level.low, level.high)],
        "labels needed by seed": needed, "mean": round(float(np.mean(reached)), 1) if len(reached) == len(needed) else None,
        "share of labels": round(float(np.mean(reached)) / labels, 3) if len(reached) == len(needed) else None,
        "by the mean curve": mean_curve,
        f"R@1 with {goal} less that": [round(v, 4) for v in (change.value, change.low, change.high)],
        "spread of it over seeds": [round(float(hits[goal].mean() - random[labels].mean()), 4) for hits, random in zip(own, base, strict=True)],
        "R@1 by labels": curve,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the data set's folder, with train.txt and val.txt")
    parser.add_argument("--out", type=Path, default=Path("runs/labels"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--on", choices=("scenes", "val"), default="scenes")
    parser.add_argument("--methods", default=",".join(METHODS), help="comma-separated; random is always run")
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    parts = load_photographs(options.data)
    for task in make_tasks(parts, options.on):
        # As large a part of the pool as 1,000 of all training photographs.
        labels = round(TARGET_LABELS * len(task.pool.labels_N) / len(parts["train"].labels_N) / STEP) * STEP
        base: list[dict[int, np.ndarray]] = []
        for method in dict.fromkeys(["random", *options.methods.split(",")]):
            start = time.monotonic()
            own = [run(task, method, seed, labels) for seed in range(options.seeds)]
            base = base or own
            row = describe(task, method, base, own, labels) | {"seconds": round(time.monotonic() - start, 1)}
            append_row(options.out / "labels_needed.jsonl", row)


if __name__ == "__main__":
    main()
