"""Heads on frozen features, in closed form and trained with a loss, on five folds of the Grocery training photographs.

    python benchmarks/heads.py --data DIR [--out DIR] [--trunks tf_efficientnet_lite0,tf_efficientnet_lite2] [--by image,scene]

Each image is the query once, of a head that was fitted to the other four folds, which are also the reference. Folds are drawn
two ways: by image, which lets a photograph find its near-duplicate, and by scene (`training/automatic/holdout.py`), which
does not. The last row is the head that automatic training would choose in each fold. R@1 and MAP@R, and paired differences to the closed form with residual 0; images are resampled. Prints and appends rows to
OUT/heads.jsonl. Neither `val` nor the withheld test split is touched.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from grocery import append_row, write_manifests

from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.metrics.intervals import difference_interval
from unalike.model.backbones import native_size
from unalike.spec import load_spec
from unalike.training.automatic.holdout import Split, cross_validation_splits
from unalike.training.automatic.holdout_result import evaluate_embeddings
from unalike.training.automatic.scenes import assign_scenes
from unalike.training.heads.config import HEAD_TRAININGS, HeadConfig
from unalike.training.heads.features import compute_features
from unalike.training.heads.head_search import best_closed_form, search_heads, search_trained_heads
from unalike.training.heads.trained import fit_head

FOLDS, BASE, CHOSEN, GOAL = 5, "closed form, residual 0", "as automatic training chooses", "known-classes"


def make_folds(labels_N: np.ndarray, scene_N: np.ndarray | None, seed: int = 0) -> list[Split]:
    """Make five splits; the images, or the scenes, of a class go to the folds in turn."""
    rng, fold_N = np.random.default_rng(seed), np.zeros(len(labels_N), int)
    for label in np.unique(labels_N):
        rows = rng.permutation(np.flatnonzero(labels_N == label))
        unit_n = np.arange(len(rows)) if scene_N is None else np.unique(scene_N[rows], return_inverse=True)[1]
        fold_N[rows] = (unit_n + rng.integers(FOLDS)) % FOLDS
    splits = []
    for fold in range(FOLDS):
        rest = np.flatnonzero(fold_N != fold)
        queries = np.flatnonzero((fold_N == fold) & np.isin(labels_N, labels_N[rest]))
        splits.append(Split("known", rest, rest, queries))
    return splits


def fit_selected_head(x_NF: np.ndarray, labels_N: np.ndarray):
    """Fit the head that automatic training selects without a time limit, except for its comparison on held-out images."""
    splits = cross_validation_splits(labels_N, assign_scenes(x_NF, labels_N), GOAL)
    start = time.monotonic()
    trials = search_heads(x_NF, labels_N, splits, GOAL)
    print(f"  {len(trials)} heads in {time.monotonic() - start:.1f} s", flush=True)
    closed = best_closed_form(trials, GOAL)
    trained = search_trained_heads(closed, x_NF, labels_N, splits, GOAL, seconds=float("inf"))
    best = max([closed, *(t for t in trained if t.beats(closed, GOAL))], key=lambda t: t.score)
    print(f"  chosen: {best.name}", flush=True)
    return fit_head(x_NF, labels_N, best.config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the data set's folder, with train.txt and val.txt")
    parser.add_argument("--out", type=Path, default=Path("runs/heads"))
    parser.add_argument("--trunks", default="tf_efficientnet_lite0,tf_efficientnet_lite2")
    parser.add_argument("--by", default="image,scene", help="comma-separated")
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    images = load_images(write_manifests(options.data, options.out)["train"])
    spec = load_spec("train")
    for trunk in options.trunks.split(","):
        height, width = native_size(trunk)[0]
        features = compute_features(
            trunk, images, replace(View.from_spec(spec), height=height, width=width), Notices(), spec
        )
        x_NF, labels_N = features.vectors_NF, images.labels_N[features.kept_N]
        for way in options.by.split(","):
            scene_N = assign_scenes(x_NF, labels_N) if way == "scene" else None
            compare(trunk, way, x_NF, labels_N, make_folds(labels_N, scene_N), options.out / "heads.jsonl")


def compare(trunk: str, way: str, x_NF: np.ndarray, labels_N: np.ndarray, splits: list[Split], out: Path) -> None:
    def fit_with(config: HeadConfig):
        return lambda r: fit_head(x_NF[r.fit_N], labels_N[r.fit_N], config)

    methods = {"frozen": lambda r: lambda x: x, BASE: fit_with(HeadConfig(residual=0.0))}
    methods["residual 0.3"] = fit_with(HeadConfig(residual=0.3))
    methods["shrinkage x 2"] = fit_with(HeadConfig(residual=0.0, shrinkage=2.0))
    for training in HEAD_TRAININGS:
        methods[training.name] = fit_with(HeadConfig(residual=0.0, training=training))
    methods[CHOSEN] = lambda r: fit_selected_head(x_NF[r.fit_N], labels_N[r.fit_N])
    results = {}
    for name, method in methods.items():
        start = time.monotonic()

        def vectors_of(_: int, r: Split, method=method) -> tuple[np.ndarray, np.ndarray]:
            head = method(r)
            return head(x_NF[r.query_N]), head(x_NF[r.reference_N])

        results[name] = evaluate_embeddings(splits, labels_N, vectors_of)
        row = {"trunk": trunk, "folds": way, "method": name, "queries": len(results[name].hit_Q),
               "seconds": round(time.monotonic() - start, 1)}  # fmt: skip
        for figure, values_of in (("R@1", lambda v: v.hit_Q), ("MAP@R", lambda v: v.precision_Q)):
            row[figure] = round(float(values_of(results[name]).mean()), 4)
            if name not in ("frozen", BASE):
                gain = difference_interval(values_of(results[BASE]), values_of(results[name]))
                row[f"{figure} gain"] = [round(v, 4) for v in (gain.value, gain.low, gain.high)]
        append_row(out, row)


if __name__ == "__main__":
    main()
