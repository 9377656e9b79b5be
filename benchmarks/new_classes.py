"""Automatic training on classes that it has no photographs of: unseen classes, and classes with one reference picture.

    python benchmarks/new_classes.py --data DIR [--out DIR] [--minutes 2] [--splits 1,2,3,4,5] [--one-shot [--run DIR]]

Unseen: each split draws half of the Grocery classes, trains on their training images (`automl.goal=new-classes`), and is
evaluated on the other half: their training images are the reference, their `val` images the query. One-shot: the reference is the
81 iconic pictures alone, the query `val`; by the frozen trunk, and by automatic training on the training
photographs and the iconic pictures (`automl.goal=known-classes`), or by the folder of an automatic training that exists
already (`--run`; `benchmarks/automatic.py` leaves some, which saw no iconic picture). Differences to the frozen trunk are paired; classes are
resampled. Rows are appended to OUT/new_classes.jsonl and not computed twice. The withheld test split is not touched.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from grocery import append_row, write_manifests
from unlabeled import embed_splits, score_queries

import unalike
from unalike.data.imageset import align_labels, load_images
from unalike.metrics.intervals import difference_interval, mean_interval

Rows = list[list[str]]


def read_rows(manifest: Path) -> Rows:
    with manifest.open(encoding="utf-8") as lines:
        return list(csv.reader(lines))[1:]


def write_rows(path: Path, rows: Rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "label"], *rows])
    return path


def read_iconic(data: Path) -> Rows:
    """The clean product picture of each class."""
    with (data / "classes.csv").open(encoding="utf-8") as lines:
        return [[str((data / "iconic" / Path(row["Iconic Image Path (str)"]).name).resolve()), row["Class Name (str)"]]
                for row in csv.DictReader(lines)]  # fmt: skip


def read_record(folder: Path, checkpoint: Path) -> dict[str, Any]:
    record = json.loads((folder / "automatic.json").read_text())
    return {
        "path": checkpoint,
        "trunk": record["trunk"],
        "chosen": record["chosen"],
        "minutes": record["spent_minutes"],
    }


def train(folder: Path, manifest: Path, minutes: float, goal: str, seed: int) -> dict[str, Any]:
    result = unalike.train(
        {"results_dir": str(folder), "dataset": {"train_dataset": str(manifest)}, "train": {"seed": seed},
         "automl_policy": "auto", "automl": {"minutes": minutes, "goal": goal}}, overwrite=True,
    )  # fmt: skip
    return read_record(result.results_dir, result.path)


def evaluate(folder: Path, paths: dict[str, Path], record: dict[str, Any], name: str) -> dict[str, Any]:
    """Score every query with the frozen trunk and with the trained network."""
    reference, query = align_labels(load_images(paths["train"]), load_images(paths["val"]))
    labels = (reference.labels_N, query.labels_N)
    scores = []
    for kind, checkpoint in (("frozen", "pretrained"), ("trained", str(record["path"]))):
        vectors = embed_splits(paths, folder, f"{name}-{kind}", checkpoint, record["trunk"])
        scores.append(score_queries(vectors["train"], vectors["val"], labels))
    return {"raw": scores, "labels": labels[1]}


def summarize(raw: list[Any], groups: np.ndarray) -> dict[str, Any]:
    (hit, precision), (new_hit, new_precision) = raw
    metrics = {}
    for name, old, new in (("R@1", hit, new_hit), ("MAP@R", precision, new_precision)):
        metrics[name] = {"frozen": str(mean_interval(old, groups)), "trained": str(mean_interval(new, groups)),
                      "gain": str(difference_interval(old, new, groups))}  # fmt: skip
    return metrics


def evaluate_unseen(split: int, paths: dict[str, Path], out: Path, minutes: float) -> dict[str, Any]:
    rows = {name: read_rows(path) for name, path in paths.items()}
    names = sorted({label for _, label in rows["train"]})
    training_classes = set(np.random.default_rng(split).permutation(names)[: len(names) // 2].tolist())
    folder = out / f"unseen-{split}"
    folder.mkdir(parents=True, exist_ok=True)
    train_manifest = write_rows(folder / "learnt.csv", [r for r in rows["train"] if r[1] in training_classes])
    other_manifests = {
        name: write_rows(folder / f"{name}.csv", [r for r in rows[name] if r[1] not in training_classes])
        for name in rows
    }
    record = train(folder, train_manifest, minutes, "new-classes", split)
    scores = evaluate(folder, other_manifests, record, "vectors")
    np.savez(out / f"unseen-{split}.npz", labels=scores["labels"] + 1000 * split, raw=np.array(scores["raw"]))
    return {"classes": len(names) - len(training_classes), **{k: v for k, v in record.items() if k != "path"},
            **summarize(scores["raw"], scores["labels"])}  # fmt: skip


def pool_splits(out: Path) -> dict[str, Any]:
    """Metrics over the queries of all splits that were run."""
    files = sorted(out.glob("unseen-*.npz"))
    labels = np.concatenate([np.load(file)["labels"] for file in files])
    raw = np.concatenate([np.load(file)["raw"] for file in files], axis=2)
    return {"splits": len(files), "queries": len(labels), **summarize(list(raw), labels)}


def evaluate_one_shot(
    paths: dict[str, Path], data: Path, folder: Path, minutes: float, run: Path | None
) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    pictures = read_iconic(data)
    if run is None:
        train_manifest = write_rows(folder / "learnt.csv", [*read_rows(paths["train"]), *pictures])
        record = train(folder, train_manifest, minutes, "known-classes", 1)
    else:
        record = read_record(run, run / "ml_model_best.pth")
    manifests = {"train": write_rows(folder / "iconic.csv", pictures), "val": paths["val"]}
    scores = evaluate(folder, manifests, record, "vectors")
    return {**{k: v for k, v in record.items() if k != "path"}, **summarize(scores["raw"], scores["labels"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, help="the data set's folder, with train.txt, val.txt, classes.csv and iconic/"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/new_classes"))
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--splits", default="1,2,3,4,5", help="comma-separated")
    parser.add_argument("--one-shot", action="store_true", help="the iconic pictures instead of unseen classes")
    parser.add_argument(
        "--run", type=Path, help="with --one-shot: the folder of an automatic training, instead of one now"
    )
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    paths, results = write_manifests(options.data, options.out), options.out / "new_classes.jsonl"
    finished = [json.loads(line)["run"] for line in results.read_text().splitlines()] if results.exists() else []
    if options.one_shot:
        name = f"one-shot {options.run}" if options.run else "one-shot"
        if name not in finished:
            folder = options.out / name.replace("/", "_")
            append_row(
                results, {"run": name, **evaluate_one_shot(paths, options.data, folder, options.minutes, options.run)}
            )
        return
    for split in map(int, filter(None, options.splits.split(","))):
        if f"unseen {split}" not in finished:
            append_row(
                results, {"run": f"unseen {split}", **evaluate_unseen(split, paths, options.out, options.minutes)}
            )
    print(json.dumps(pool_splits(options.out), indent=2))


if __name__ == "__main__":
    main()
