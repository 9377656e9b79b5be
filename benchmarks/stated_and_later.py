"""Does the R@1 that automatic training states hold on photographs that were kept back? Appends a line a run to a file.

    python benchmarks/stated_and_later.py --data DIR [--out DIR] [--sets grocery,coins,...] [--splits 1,2,3] [--minutes 2]
        [--by series|image] [--sizes]

Five sets of known classes, each split anew for every number in ``--splits``; the sources are those of `suite.py`:

    grocery       14 of the 60 classes that have photographs in ``val``, drawn; train split to fit, ``val`` kept back
    coins         8 classes, a quarter of the series kept back
    tile-defects  5 kinds of defects, a quarter of the series kept back
    board-defects 6 kinds of defects, a quarter of the boards kept back
    marks         40 brands, drawn; a quarter of the rendered images kept back

``--by image`` keeps back a quarter of the images at random in place of whole series. Training sees a manifest of paths and
labels, no groups. The later figure is R@1 of the images kept back, with those that were trained on as reference. A line holds
the range that the report states (``expected``), the figures and intervals of each kind, and whether they contain the later
figure. A run that stands in the file is not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import data_sources as sources
from data_sets import RecognitionSet, Row, shuffle, split_groups

import unalike

GROCERY_CLASSES, MARK_CLASSES = 14, 40


def read_rows(data_set: RecognitionSet) -> list[Row]:
    """All images of a set of known classes, with class and series."""
    parts = (data_set.fit, data_set.development.query, data_set.report.query)
    return [row for part in parts for row in zip(part.paths, part.label_names(), part.groups or (), strict=True)]


def divide(rows: Sequence[Row], seed: int, by: str) -> tuple[list[Row], list[Row]]:
    """Keep back a quarter of the series, or of the images of every class; classes that are missing on a side are left out."""
    if by == "image":
        rows = [(path, label, str(path)) for path, label, _ in rows]
    parts = split_groups(rows, {"fit": 0.75, "later": 0.25}, seed)
    classes = {row[1] for row in parts["fit"]} & {row[1] for row in parts["later"]}
    fit, later = ([row for row in parts[name] if row[1] in classes] for name in ("fit", "later"))
    return fit, later


def split_grocery(data: Path, cache: Path, seed: int, by: str) -> tuple[list[Row], list[Row]]:
    """Classes drawn by seed: the train split, and ``val``; with ``by`` image a quarter of the train split."""
    later = sources.validation_rows(data / "grocery")
    chosen = set(shuffle((row[1] for row in later), seed)[:GROCERY_CLASSES])
    fit = [row for row in sources.grocery_rows(data / "grocery") if row[1] in chosen]
    return divide(fit, seed, by) if by == "image" else (fit, [row for row in later if row[1] in chosen])


def split_marks(data: Path, cache: Path, seed: int, by: str) -> tuple[list[Row], list[Row]]:
    """Brands drawn by seed; each rendering is independent of the others."""
    images = sources.load_marks(cache).fit
    chosen = set(shuffle(images.classes, seed)[:MARK_CLASSES])
    rows = [
        (path, label, "") for path, label in zip(images.paths, images.label_names(), strict=True) if label in chosen
    ]
    return divide(rows, seed, "image")


def split_series(
    load: Callable[[Path], RecognitionSet], folder: str
) -> Callable[[Path, Path, int, str], tuple[list[Row], list[Row]]]:
    """Make a function that divides a set of known classes."""
    return lambda data, cache, seed, by: divide(read_rows(load(data / folder)), seed, by)


SETS = {
    "grocery": split_grocery,
    "coins": split_series(sources.load_coins, "coins"),
    "tile-defects": split_series(sources.load_tile_defects, "magnetic-tile"),
    "board-defects": split_series(sources.load_board_defects, "deeppcb"),
    "marks": split_marks,
}


def write_manifest(path: Path, rows: Sequence[Row]) -> Path:
    """Write paths and labels, without groups, in random order."""
    rows = list(rows)
    random.Random(0).shuffle(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([str(image.resolve()), label] for image, label, _ in rows)
    return path


def run(name: str, seed: int, by: str, data: Path, out: Path, minutes: float) -> dict[str, object]:
    """Train on one split and evaluate on what was kept back."""
    folder = out / f"{name}-{by}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    fit, later = SETS[name](data, out, seed, by)
    train, query = write_manifest(folder / "fit.csv", fit), write_manifest(folder / "later.csv", later)
    start, load = time.monotonic(), os.getloadavg()[0]
    spec = {"results_dir": str(folder), "dataset": {"train_dataset": str(train)}, "automl": {"minutes": minutes},
            "train": {"seed": seed}, "automl_policy": "auto"}  # fmt: skip
    result = unalike.train(spec, overwrite=True)
    seconds = time.monotonic() - start
    metrics = unalike.evaluate(
        {"results_dir": str(folder), "evaluate": {"checkpoint": str(result.path)},
         "dataset": {"val_dataset": {"reference": str(train), "query": str(query)}}}, overwrite=True,
    ).figures  # fmt: skip
    record = json.loads((folder / "train" / "automatic.json").read_text())
    chosen = next(c for c in record["candidates"] if c["name"] == record["chosen"])
    value = json.loads((folder / "evaluate" / "metrics.json").read_text())["micro"]["precision_at_1"]["value"]
    intervals = {"expected": chosen["expected"].get("R@1")}
    intervals |= {kind: row["R@1"] for kind, row in chosen["figures"].items()}
    return {
        "set": name, "split": seed, "by": by, "minutes": minutes, "seconds": round(seconds), "load": round(load, 1),
        "images": len(fit), "classes": len({row[1] for row in fit}), "kept back": len(later), "chosen": record["chosen"],
        "method": record["evaluation"]["method"], "counts": record["evaluation"]["counts"], "later": round(value, 4),
        **{kind: interval for kind, interval in intervals.items()},
        "contains": {kind: contains(interval, value) for kind, interval in intervals.items()},
        "figures of evaluate": {k: v for k, v in metrics.items() if "Rank 1" in k},
    }  # fmt: skip


def contains(interval: dict[str, float | bool | None] | None, value: float) -> bool | None:
    """Whether an interval contains a value; None where nothing is stated."""
    if interval is None or interval.get("too_few") or interval["low"] is None or interval["high"] is None:
        return None
    return bool(interval["low"] - 1e-9 <= value <= interval["high"] + 1e-9)


def main() -> None:
    """Run what is not in the file yet, then count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the sources")
    parser.add_argument("--out", type=Path, default=Path("runs/stated_and_later"))
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--splits", default="1,2,3,4,5")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--by", choices=("series", "image"), default="series")
    parser.add_argument("--sizes", action="store_true", help="print the sizes of the splits alone")
    arguments = parser.parse_args()
    file = arguments.out / "stated_and_later.jsonl"
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for seed in (int(text) for text in arguments.splits.split(",")):
        for name in arguments.sets.split(","):
            if arguments.sizes:
                fit, later = SETS[name](arguments.data, arguments.out, seed, arguments.by)
                print(name, seed, f"{len(fit)} to fit, {len(later)} kept back, {len({r[1] for r in fit})} classes")
                continue
            key = {"set": name, "split": seed, "by": arguments.by, "minutes": arguments.minutes}
            if any(all(line[k] == v for k, v in key.items()) for line in lines):
                continue
            lines.append(run(name, seed, arguments.by, arguments.data, arguments.out, arguments.minutes))
            with file.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(lines[-1]) + "\n")
            print(json.dumps(lines[-1]), flush=True)
    for kind in ("expected", "known", "same"):
        answers = [line["contains"].get(kind) for line in lines]
        print(f"{kind}: {answers.count(True)} of {len(answers) - answers.count(None)} contain the later figure, "
              f"{answers.count(None)} state nothing")  # fmt: skip


if __name__ == "__main__":
    main()
