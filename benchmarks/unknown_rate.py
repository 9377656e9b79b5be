"""Does the interval of a calibrated false match rate hold on new classes? Photographs, many splits of the classes.

    python benchmarks/unknown_rate.py --data DIR [--model FILE] [--rate 0.01] [--splits 20] [--by nearest]
        [--seed 0] [--disjoint] [--out DIR]
    python benchmarks/unknown_rate.py --vectors FILE.npz          (of "unalike embed DIR -o FILE.npz --labelled")

DIR is the grocery data set's folder (train.txt, val.txt, classes.csv). In every split half of the classes, drawn by seed,
are enrolled and calibrated from themselves alone; every image of the other half is then unknown. A plain quantile of the same
scores is measured beside it. Without --model a pretrained trunk is used, to which all classes are new. --seed gives other
splits than those that the intervals were developed on; with --disjoint no class is in two splits (many classes).
"""

from __future__ import annotations

import argparse
import csv
import json
from datetime import date
from pathlib import Path

import numpy as np

import unalike
from unalike.metrics.roc import threshold_at
from unalike.numerics.normalization import l2_normalize
from unalike.recognition.calibration_trials import collect_trials
from unalike.recognition.decision import score_of
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_calibration import calibrate
from unalike.recognition.ranking import VOTERS, rank_classes


def embed_data(data: Path, out: Path, model: str) -> Path:
    """File of the embeddings of both published splits, computed once."""
    from grocery import write_manifests

    path = out / f"vectors-{Path(model).stem}.npz"
    if not path.exists():
        rows = []
        for manifest in write_manifests(data, out).values():
            with manifest.open(encoding="utf-8") as lines:
                rows += list(csv.reader(lines))[1:]
        with (out / "all.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["path", "label"], *rows])
        unalike.embed(out / "all.csv", path, checkpoint=model, labelled=True)
    return path


def class_splits(labels_N: np.ndarray, options: argparse.Namespace) -> list[tuple[int, np.ndarray]]:
    """(seed, classes in random order) of every split: all classes by one seed each, or disjoint shares of one order."""
    names, seeds = np.unique(labels_N), range(options.seed, options.seed + options.splits)
    if not options.disjoint:
        return [(seed, np.random.default_rng(seed).permutation(names)) for seed in seeds]
    shares = np.array_split(np.random.default_rng(options.seed).permutation(names), options.splits)
    return list(zip(seeds, shares, strict=True))


def split(
    vectors_ND: np.ndarray, labels_N: np.ndarray, seed: int, classes: np.ndarray, rate: float, rule: str
) -> dict[str, float | bool]:
    """Measure one split: the interval of the calibration, and the rate on the other half of the classes."""
    in_split_N = np.isin(labels_N, classes)
    vectors_ND, labels_N = vectors_ND[in_split_N], labels_N[in_split_N]
    enrolled_N = np.isin(labels_N, classes[: len(classes) // 2])
    gallery = Gallery(vectors_ND.shape[1])
    gallery.enrol(vectors_ND[enrolled_N], labels_N[enrolled_N].tolist())
    calibration = calibrate(gallery, rate, rule=rule)
    ranking = rank_classes(gallery.snapshot, vectors_ND[~enrolled_N], rule)
    score_Q = score_of(ranking.score_Q, ranking.margin_Q, calibration.second_weight)
    measured = float(np.mean(score_Q >= calibration.threshold))
    plain = threshold_at(collect_trials(gallery, rule=rule, k=VOTERS).unknowns.score_N, rate)
    guarantee = calibration.false_match
    return {
        "seed": seed, "measured": measured, "low": guarantee.low, "high": guarantee.high,
        "inside": guarantee.low <= measured <= guarantee.high, "above": measured > guarantee.high,
        "plain_quantile": float(np.mean(score_Q >= plain)), "trials": guarantee.trials, "effective": guarantee.effective,
        "known_right": calibration.figures["known_right"], "known_wrong": calibration.figures["known_wrong"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--model", default="pretrained")
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disjoint", action="store_true")
    parser.add_argument("--by", default="nearest")
    parser.add_argument("--out", type=Path, default=Path("runs/unknown_rate"))
    options = parser.parse_args()
    if options.data is None and options.vectors is None:
        print("skipped: no data (give --data DIR or --vectors FILE)")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.vectors or embed_data(options.data, options.out, options.model)
    with np.load(path) as file:
        vectors_ND, labels_N = l2_normalize(file["vectors"]), file["label"]
    rows = []
    for seed, classes in class_splits(labels_N, options):
        rows.append(split(vectors_ND, labels_N, seed, classes, options.rate, options.by))
        print(json.dumps(rows[-1]))
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    summary = {
        "date": date.today().isoformat(), "vectors": str(path), "images": len(labels_N), "rate": options.rate,
        "by": options.by, "splits": len(rows), "seed": options.seed, "disjoint": options.disjoint, "inside": float(columns["inside"].mean()),
        "above": float(columns["above"].mean()), "mean_measured": float(columns["measured"].mean()),
        "median_measured": float(np.median(columns["measured"])), "mean_low": float(columns["low"].mean()),
        "mean_high": float(columns["high"].mean()), "mean_of_plain_quantile": float(columns["plain_quantile"].mean()),
        "known_right": float(columns["known_right"].mean()),
    }  # fmt: skip
    print(json.dumps(summary, indent=1))
    with (options.out / "unknown_rate.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()
