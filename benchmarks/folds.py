"""Compare ways of training on five folds of the Grocery training photographs, paired, each for the same time.

    python benchmarks/folds.py --data DIR [--out DIR] [--minutes 4] [--folds 1,2,3,4,5] [--by scene|image]

Each photograph is the query once, of models that were not trained on it: `automatic`, `plain` and `peer` of
`benchmarks/automatic.py`, seeded by the fold, from a cold cache, and the frozen trunk. The other four folds train and are
the reference. Folds are drawn by scene, so that no query has a near-duplicate (`training/automatic/holdout.py`; by image
the frozen trunk has R@1 96 % and methods do not differ), or by image. Results are kept in OUT and not
computed twice. Differences are paired over the queries, which are resampled. Neither `val` nor the withheld test split is
touched.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import combinations
from pathlib import Path

import automatic
import numpy as np
from grocery import append_row, write_manifests
from heads import make_folds
from new_classes import Rows, read_rows, write_rows
from unlabeled import embed_splits, score_queries

from unalike.data.imageset import align_labels, load_images
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.metrics.intervals import difference_interval, mean_interval
from unalike.spec import load_spec
from unalike.training.automatic.scenes import assign_scenes
from unalike.training.heads.features import compute_features

ORDER = ("frozen", "peer", "plain", "automatic")


def split_manifest(manifest: Path, by: str) -> list[tuple[Rows, Rows]]:
    """Training rows and query rows of the manifest, for each fold."""
    images, rows = load_images(manifest), read_rows(manifest)
    spec = load_spec("train")
    features = compute_features(automatic.TRUNK, images, View.from_spec(spec), Notices(), spec)
    assert len(features.kept_N) == len(rows) == len(images)
    names = [images.classes[label] for label in images.labels_N]
    assert names == [label for _, label in rows]
    scene_N = assign_scenes(features.vectors_NF, images.labels_N) if by == "scene" else None
    return [([rows[i] for i in r.fit_N], [rows[i] for i in r.query_N]) for r in make_folds(images.labels_N, scene_N)]


def evaluate(way: str, paths: dict[str, Path], minutes: int, fold: int, folder: Path) -> dict[str, np.ndarray]:
    """Whether the nearest reference is of the right class, and average precision at R, of every query of the fold."""
    if way == "frozen":
        checkpoint = "pretrained"
    else:
        automatic.METHODS[way](minutes, fold, paths, folder)
        run_folder = folder / f"{way}-{minutes}-{fold}"
        if way == "peer":
            with np.load(run_folder / f"read-{minutes}.npz") as read:
                return {"hit": read["hit"], "precision": read["precision"]}
        checkpoint = str(next(run_folder.rglob("ml_model_best.pth")))
    reference, query = align_labels(load_images(paths["train"]), load_images(paths["val"]))
    vectors = embed_splits(paths, folder, f"{way}-{time.time():.0f}", checkpoint, automatic.TRUNK)
    hit, precision = score_queries(vectors["train"], vectors["val"], (reference.labels_N, query.labels_N))
    return {"hit": hit, "precision": precision}


def summarize(results: dict[str, dict[str, np.ndarray]]) -> dict[str, object]:
    """Metrics of every way and its gains over the others, over the queries of all folds."""
    row: dict[str, object] = {"queries": len(next(iter(results.values()))["hit"])}
    for name, key in (("R@1", "hit"), ("MAP@R", "precision")):
        for way, values in results.items():
            row[f"{name} {way}"] = str(mean_interval(values[key]))
        for base, way in combinations([way for way in ORDER if way in results], 2):
            row[f"{name} {way} over {base}"] = str(difference_interval(results[base][key], results[way][key]))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the data set's folder, with train.txt and val.txt")
    parser.add_argument("--out", type=Path, default=Path("runs/folds"))
    parser.add_argument("--minutes", type=int, default=4)
    parser.add_argument("--folds", default="1,2,3,4,5", help="comma-separated")
    parser.add_argument("--by", choices=("scene", "image"), default="scene")
    parser.add_argument("--ways", default=",".join(ORDER), help="comma-separated")
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    splits = split_manifest(write_manifests(options.data, options.out)["train"], options.by)
    ways = options.ways.split(",")
    values_by_way: dict[str, list[dict[str, np.ndarray]]] = {way: [] for way in ways}
    for fold in map(int, filter(None, options.folds.split(","))):
        folder = options.out / f"{options.by}-{fold}"
        folder.mkdir(exist_ok=True)
        train, query = splits[fold - 1]
        paths = {"train": write_rows(folder / "train.csv", train), "val": write_rows(folder / "val.csv", query)}
        for way in ways:
            file = folder / f"{way}-{options.minutes}.npz"
            if not file.exists():
                start = time.monotonic()
                results = evaluate(way, paths, options.minutes, fold, folder)
                np.savez(file, **results)
                append_row(options.out / "folds.jsonl", {
                    "by": options.by, "fold": fold, "way": way, "minutes": options.minutes, "queries": len(query),
                    "seconds with reading": round(time.monotonic() - start),
                    "R@1": round(float(results["hit"].mean()), 4), "MAP@R": round(float(results["precision"].mean()), 4),
                })  # fmt: skip
            with np.load(file) as content:
                values_by_way[way].append({key: content[key] for key in ("hit", "precision")})
    all_values = {way: {key: np.concatenate([values[key] for values in fold_values]) for key in ("hit", "precision")}
              for way, fold_values in values_by_way.items()}  # fmt: skip
    print(json.dumps(summarize(all_values), indent=2))


if __name__ == "__main__":
    main()
