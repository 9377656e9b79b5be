"""Whether automatic training chooses the right size of the images after fine-tuning: its candidates on queries that it never saw.

    python benchmarks/larger_inputs.py --data DIR [--sets NAME,...] [--split development|report] [--minutes 10] [--seed 1]
        [--cache DIR] [--out DIR] [--backbone tf_efficientnet_lite0]

One automatic training a set of `suite.py`, on the images to fit to, from a cold cache. Each of its candidates is then evaluated on the
queries of the split: the size of fine-tuning, which would have been delivered before, beside the larger ones (the same weights, so
that differences are paired and of one training). Writes OUT/larger_inputs.jsonl, a line a set and candidate, with n, 95 % intervals
and whether it was delivered.

Shape letters: Q queries.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import RecognitionSet
from recognition_methods import write_manifest
from suite import load_suite
from suite_recognition import choose_groups, format_interval, in_percent
from unlabeled import score_queries

import unalike
from unalike.metrics.intervals import difference_interval, mean_interval
from unalike.runs.filenames import AUTOMATIC_FILE, BEST_CHECKPOINT, candidate_folder
from unalike.training.automatic.final_choice import INTERPOLATED

SETS = "grocery-by-scene,coins,flags,emoji-by-class,icons"


def train(data_set: RecognitionSet, goal: str, folder: Path, options: argparse.Namespace) -> Path:
    """Train automatically; returns the folder of results."""
    manifest = write_manifest(data_set.fit, folder / "fit.csv")
    spec = {"results_dir": str(folder / "run"), "dataset": {"train_dataset": str(manifest)}, "automl_policy": "auto",
            "train": {"seed": options.seed}, "model": {"backbone": options.backbone},
            "automl": {"minutes": options.minutes, "goal": goal}}  # fmt: skip
    os.environ["UNALIKE_CACHE"] = str(folder / "cache")
    return unalike.train(spec, overwrite=True).results_dir


def measure_set(data_set: RecognitionSet, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train on a set and evaluate the candidates; a row a candidate."""
    lookup, folder = getattr(data_set, options.split), Path(options.out) / f"{data_set.name}-{options.split}"
    folder.mkdir(parents=True, exist_ok=True)
    goal = "known-classes" if lookup.reference is data_set.fit else "new-classes"
    results = train(data_set, goal, folder, options)
    record = json.loads((results / AUTOMATIC_FILE).read_text(encoding="utf-8"))
    manifests = [write_manifest(getattr(lookup, role), folder / f"{role}.csv") for role in ("reference", "query")]
    classes = lookup.reference.classes
    label_Q = np.array([classes.index(label) for label in lookup.query.label_names()])
    _, group_Q = choose_groups(label_Q, np.unique(np.array(lookup.query.groups), return_inverse=True)[1])
    scores = {}
    for number, candidate in enumerate(record["candidates"]):
        checkpoint = results / candidate_folder(number) / BEST_CHECKPOINT
        vectors = []
        for manifest in manifests:
            unalike.embed(manifest, folder / "vectors.npz", checkpoint=checkpoint)
            with np.load(folder / "vectors.npz") as content:
                vectors.append(content["vectors"])
        scores[candidate["name"]] = score_queries(*vectors, (lookup.reference.labels_N, label_Q))
    base = scores.get(INTERPOLATED)
    rows = []
    for candidate in record["candidates"]:
        row: dict[str, Any] = {
            "set": data_set.name, "split": options.split, "minutes": options.minutes, "seed": options.seed, "queries": len(label_Q),
            "spent_minutes": record["spent_minutes"], "candidate": candidate["name"],
            "delivered": candidate["name"] == record["chosen"], "held-out": candidate["figures"],
        }  # fmt: skip
        for place, metric in enumerate(("R@1", "MAP@R")):
            values_Q = scores[candidate["name"]][place]
            row[metric] = in_percent(mean_interval(values_Q, group_Q))
            if base is not None:
                row[f"{metric} over the size of fine-tuning"] = in_percent(
                    difference_interval(base[place], values_Q, group_Q)
                )
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default=SETS)
    parser.add_argument("--split", choices=("development", "report"), default="development")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path("suite-cache"))
    parser.add_argument("--out", type=Path, default=Path("larger-inputs"))
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    options = parser.parse_args()
    names = options.sets.split(",")
    sets, missing = load_suite(options.data, options.cache, names)
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}")
    for name, data_set in sets.items():
        for row in measure_set(data_set, options):
            with (options.out / "larger_inputs.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            gain = row.get("R@1 over the size of fine-tuning")
            print(f"{name}, n = {row['queries']}: {'-> ' if row['delivered'] else ''}{row['candidate']}: "
                  f"R@1 {format_interval(row['R@1'])} ({format_interval(gain, '+')}), MAP@R {format_interval(row['MAP@R'])} "
                  f"({format_interval(row.get('MAP@R over the size of fine-tuning'), '+')})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
