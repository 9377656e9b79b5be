"""Automatic training on classes that it has no photographs of: unseen classes, and classes with one reference picture.

    python benchmarks/new_classes.py --data DIR [--out DIR] [--minutes 2] [--splits 1,2,3,4,5] [--one-shot [--run DIR]]

Unseen: each split draws half of the Grocery classes, trains on their training images (`automl.goal=new-classes`), and asks
about the other half: their training images are the reference, their `val` images the query. One-shot: the reference is the
81 iconic pictures alone, the query `val`; by the frozen trunk, and by what automatic training learnt from the training
photographs and the iconic pictures (`automl.goal=known-classes`), or by the folder of an automatic training that stands
already (`--run`; `benchmarks/automatic.py` leaves some, which saw no iconic picture). Differences to the frozen trunk are paired; classes are
resampled. Rows are appended to OUT/new_classes.jsonl and are not made twice. The withheld test split is not touched.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from grocery import append, write_manifests
from unlabeled import embed, hits

import unalike
from unalike.data.imageset import align_labels, load_images
from unalike.metrics.intervals import bootstrap, paired_bootstrap

Rows = list[list[str]]


def read_rows(manifest: Path) -> Rows:
    with manifest.open(encoding="utf-8") as lines:
        return list(csv.reader(lines))[1:]


def write_rows(path: Path, rows: Rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "label"], *rows])
    return path


def iconic(data: Path) -> Rows:
    """The clean product picture of each class."""
    with (data / "classes.csv").open(encoding="utf-8") as lines:
        return [[str((data / "iconic" / Path(row["Iconic Image Path (str)"]).name).resolve()), row["Class Name (str)"]]
                for row in csv.DictReader(lines)]  # fmt: skip


def record_of(folder: Path, checkpoint: Path) -> dict[str, Any]:
    record = json.loads((folder / "automatic.json").read_text())
    return {
        "path": checkpoint,
        "trunk": record["trunk"],
        "chosen": record["chosen"],
        "minutes": record["spent_minutes"],
    }


def trained(folder: Path, manifest: Path, minutes: float, goal: str, seed: int) -> dict[str, Any]:
    done = unalike.train(
        {"results_dir": str(folder), "dataset": {"train_dataset": str(manifest)}, "train": {"seed": seed},
         "automl_policy": "auto", "automl": {"minutes": minutes, "goal": goal}}, overwrite=True,
    )  # fmt: skip
    return record_of(done.results_dir, done.path)


def evaluate(folder: Path, paths: dict[str, Path], made: dict[str, Any], name: str) -> dict[str, Any]:
    """R@1 and MAP@R of the frozen trunk and of what was trained, and the paired difference; per query in ``raw``."""
    reference, query = align_labels(load_images(paths["train"]), load_images(paths["val"]))
    labels = (reference.labels_N, query.labels_N)
    both = []
    for kind, checkpoint in (("frozen", "pretrained"), ("trained", str(made["path"]))):
        found = embed(paths, folder, f"{name}-{kind}", checkpoint, made["trunk"])
        both.append(hits(found["train"], found["val"], labels))
    return {"raw": both, "labels": labels[1]}


def summarize(raw: list[Any], groups: np.ndarray) -> dict[str, Any]:
    (hit, precision), (new_hit, new_precision) = raw
    metrics = {}
    for name, old, new in (("R@1", hit, new_hit), ("MAP@R", precision, new_precision)):
        metrics[name] = {"frozen": str(bootstrap(old, groups)), "trained": str(bootstrap(new, groups)),
                      "gain": str(paired_bootstrap(old, new, groups))}  # fmt: skip
    return metrics


def unseen(split: int, paths: dict[str, Path], out: Path, minutes: float) -> dict[str, Any]:
    rows = {name: read_rows(path) for name, path in paths.items()}
    names = sorted({label for _, label in rows["train"]})
    learnt = set(np.random.default_rng(split).permutation(names)[: len(names) // 2].tolist())
    folder = out / f"unseen-{split}"
    folder.mkdir(parents=True, exist_ok=True)
    train = write_rows(folder / "learnt.csv", [r for r in rows["train"] if r[1] in learnt])
    other = {name: write_rows(folder / f"{name}.csv", [r for r in rows[name] if r[1] not in learnt]) for name in rows}
    made = trained(folder, train, minutes, "new-classes", split)
    found = evaluate(folder, other, made, "vectors")
    np.savez(out / f"unseen-{split}.npz", labels=found["labels"] + 1000 * split, raw=np.array(found["raw"]))
    return {"classes": len(names) - len(learnt), **{k: v for k, v in made.items() if k != "path"},
            **summarize(found["raw"], found["labels"])}  # fmt: skip


def pooled(out: Path) -> dict[str, Any]:
    """All splits that were run, together."""
    files = sorted(out.glob("unseen-*.npz"))
    labels = np.concatenate([np.load(file)["labels"] for file in files])
    raw = np.concatenate([np.load(file)["raw"] for file in files], axis=2)
    return {"splits": len(files), "queries": len(labels), **summarize(list(raw), labels)}


def one_shot(paths: dict[str, Path], data: Path, folder: Path, minutes: float, run: Path | None) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    pictures = iconic(data)
    if run is None:
        train = write_rows(folder / "learnt.csv", [*read_rows(paths["train"]), *pictures])
        made = trained(folder, train, minutes, "known-classes", 1)
    else:
        made = record_of(run, run / "ml_model_best.pth")
    asks = {"train": write_rows(folder / "iconic.csv", pictures), "val": paths["val"]}
    found = evaluate(folder, asks, made, "vectors")
    return {**{k: v for k, v in made.items() if k != "path"}, **summarize(found["raw"], found["labels"])}


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
    done = [json.loads(line)["run"] for line in results.read_text().splitlines()] if results.exists() else []
    if options.one_shot:
        name = f"one-shot {options.run}" if options.run else "one-shot"
        if name not in done:
            folder = options.out / name.replace("/", "_")
            append(results, {"run": name, **one_shot(paths, options.data, folder, options.minutes, options.run)})
        return
    for split in map(int, filter(None, options.splits.split(","))):
        if f"unseen {split}" not in done:
            append(results, {"run": f"unseen {split}", **unseen(split, paths, options.out, options.minutes)})
    print(json.dumps(pooled(options.out), indent=2))


if __name__ == "__main__":
    main()
