"""Plain training on the Grocery Store photographs beside the frozen trunk's nearest neighbour; appends to a file.

    python benchmarks/grocery.py --data DIR [--out DIR] [--seeds 1,2,3] [--recipe unalike|tao] [key=value ...]

Train split as training set and reference, `val` as query (closed set, 81 fine classes); the withheld test split is not
touched. Every finished seed appends one JSON line to OUT/grocery.jsonl; seeds in that file are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import unalike
from unalike.metrics.intervals import wilson_interval


def write_manifests(data: Path, out: Path) -> dict[str, Path]:
    """Write a CSV manifest with class names for each of the two splits; images are not copied."""
    with (data / "classes.csv").open(encoding="utf-8") as lines:
        names = {int(row[1]): row[0] for row in list(csv.reader(lines))[1:]}
    paths = {}
    for split in ("train", "val"):
        paths[split] = out / f"{split}.csv"
        with paths[split].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label"])
            for line in (data / f"{split}.txt").read_text(encoding="utf-8").splitlines():
                path, fine, _ = (part.strip() for part in line.split(","))
                writer.writerow([str((data / path).resolve()), names[int(fine)]])
    return paths


def append_row(file: Path, row: dict[str, object]) -> None:
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")
    print(json.dumps(row))


def summarize_metrics(metrics: dict) -> dict[str, object]:
    """R@1 with Wilson's interval and MAP@R with a bootstrap interval, from the content of metrics.json."""
    first, mapr = metrics["micro"]["precision_at_1"], metrics["micro"]["mean_average_precision_at_r"]
    count = metrics["measured"]
    interval = wilson_interval(round(first["value"] * count), count)
    return {"R@1": round(first["value"], 4), "R@1 interval": [round(interval.low, 4), round(interval.high, 4)],
            "MAP@R": round(mapr["value"], 4), "MAP@R interval": [round(mapr["low"], 4), round(mapr["high"], 4)],
            "queries": count}  # fmt: skip


def evaluate_frozen(paths: dict[str, Path], out: Path, backbone: str) -> dict[str, object]:
    folder = out / "frozen"
    start = time.monotonic()
    unalike.evaluate(
        {"results_dir": str(folder), "model": {"backbone": backbone},
         "dataset": {"val_dataset": {"reference": str(paths["train"]), "query": str(paths["val"])}},
         "evaluate": {"checkpoint": "pretrained"}}, overwrite=True,
    )  # fmt: skip
    metrics = json.loads((folder / "evaluate" / "metrics.json").read_text())
    return {"method": f"frozen {backbone}", "seconds": round(time.monotonic() - start, 1), **summarize_metrics(metrics)}


def evaluate_trained(
    paths: dict[str, Path], out: Path, recipe: str, seed: int, backbone: str, overrides: list[str]
) -> dict[str, object]:
    folder = out / f"{recipe}-{seed}"
    start, cpu = time.monotonic(), time.process_time()
    spec = {
        "results_dir": str(folder),
        "dataset": {"train_dataset": str(paths["train"]), "validation": {"by": "none"}},
        "model": {"backbone": backbone},
        "train": {"recipe": recipe, "seed": seed},
        "automl_policy": "off",
    }
    result = unalike.train(spec, overrides, resume=(folder / "train").exists())
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    evaluated = unalike.evaluate(
        {"results_dir": str(folder), "evaluate": {"checkpoint": str(result.path)},
         "dataset": {"val_dataset": {"reference": str(paths["train"]), "query": str(paths["val"])}}}, overwrite=True,
    )  # fmt: skip
    metrics = json.loads((evaluated.results_dir / "metrics.json").read_text())
    return {"method": f"recipe {recipe}", "seed": seed, "backbone": backbone, "overrides": overrides, "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu, 1), **summarize_metrics(metrics)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the data set's folder, with train.txt and val.txt")
    parser.add_argument("--out", type=Path, default=Path("runs/grocery"))
    parser.add_argument("--seeds", default="1,2,3", help="comma-separated")
    parser.add_argument("--recipe", default="unalike")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    paths = write_manifests(options.data, options.out)
    results = options.out / "grocery.jsonl"
    finished = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    if not any(row["method"].startswith("frozen") for row in finished):
        append_row(results, evaluate_frozen(paths, options.out, options.backbone))
    for seed in map(int, filter(None, options.seeds.split(","))):
        if not any(row["method"] == f"recipe {options.recipe}" and row.get("seed") == seed for row in finished):
            append_row(
                results, evaluate_trained(paths, options.out, options.recipe, seed, options.backbone, options.overrides)
            )


if __name__ == "__main__":
    main()
