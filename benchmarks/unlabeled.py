"""Learning without labels on the Grocery Store photographs: discovered groups, and R@1 beside the frozen trunk's.

    python benchmarks/unlabeled.py --data DIR [--out DIR] [--seeds 1,2,3] [--minutes 4] [--backbone NAME] [--groups]

The network is trained on the images of the train split without labels. Labels are used for scores only: R@1 of `val` (query) against the
train split (reference), paired with the frozen trunk on the same queries; purity, completeness and AMI of the discovered
groups. --groups scores the groups alone, and whitening by neighbors beside the frozen features: seconds, not minutes.
Rows are appended to OUT/unlabelled.jsonl. The withheld test split is not touched.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from grocery import append_row, write_manifests
from sklearn.metrics import adjusted_mutual_info_score, completeness_score, homogeneity_score

import unalike
from unalike.data.imageset import align_labels, load_images
from unalike.discovery.clustering import ImageGroups, group_images
from unalike.discovery.neighbor_whitening import NeighborWhitening
from unalike.metrics.intervals import difference_interval, mean_interval
from unalike.metrics.retrieval import evaluate_ranking


def score_queries(
    reference_ND: np.ndarray, query_ND: np.ndarray, labels: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Precision at 1 and average precision at R of every query."""
    ranking = evaluate_ranking(query_ND, labels[1], reference_ND, labels[0], ks=(1,))
    return ranking.precision_at_1, ranking.average_precision_at_r


def embed_splits(paths: dict[str, Path], out: Path, name: str, checkpoint: str, backbone: str) -> dict[str, np.ndarray]:
    """Compute or load the vectors of each split."""
    vectors = {}
    for split, manifest in paths.items():
        file = out / f"{name}-{split}.npz"
        if not file.exists():
            if checkpoint == "pretrained":
                frozen_vectors(manifest, file, backbone)
            else:
                unalike.embed(manifest, file, checkpoint=checkpoint)
        with np.load(file) as content:
            vectors[split] = content["vectors"]
    return vectors


def frozen_vectors(manifest: Path, file: Path, backbone: str) -> None:
    from unalike.actions.model_from_spec import load_frozen
    from unalike.inference.embedding import embed_files
    from unalike.spec import load_spec

    images = load_images(manifest)
    model = load_frozen(load_spec("inference", None, {"model.backbone": backbone}), runtime="auto", precision="auto",
                        images=len(images))  # fmt: skip
    embedded = embed_files(model.engine, list(images.paths), model.view)
    np.savez(file, vectors=embedded.vectors_ND)


def score_groups(groups: ImageGroups, labels_N: np.ndarray) -> dict[str, object]:
    """Compare groups with classes; an image without group counts as a group of its own."""
    group_N = groups.group_N.copy()
    ungrouped = np.flatnonzero(group_N < 0)
    group_N[ungrouped] = groups.count + np.arange(len(ungrouped))
    pure = sum(np.bincount(labels_N[group_N == g]).max() for g in np.unique(group_N))
    complete = sum(np.bincount(group_N[labels_N == c]).max() for c in np.unique(labels_N))
    return {
        "groups": groups.count, "in no group": len(ungrouped), "purity": round(pure / len(labels_N), 4),
        "completeness (largest group's share of a class)": round(complete / len(labels_N), 4),
        "homogeneity": round(homogeneity_score(labels_N, group_N), 4),
        "completeness (entropy)": round(completeness_score(labels_N, group_N), 4),
        "AMI": round(adjusted_mutual_info_score(labels_N, group_N), 4), "agreement": round(groups.agreement, 4),
    }  # fmt: skip


def compare_with_frozen(
    name: str, base: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> dict[str, object]:
    row: dict[str, object] = {"method": name, "queries": len(other[0])}
    for figure, before, after in zip(("R@1", "MAP@R"), base, other, strict=True):
        row[figure] = str(mean_interval(after))
        row[f"{figure} gain over frozen"] = str(difference_interval(before, after))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the data set's folder, with train.txt and val.txt")
    parser.add_argument("--out", type=Path, default=Path("runs/unlabelled"))
    parser.add_argument("--seeds", default="1,2,3", help="comma-separated")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--groups", action="store_true", help="groups and whitening alone, no training")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "unlabelled.jsonl"
    paths = write_manifests(options.data, options.out)
    train, val = align_labels(load_images(paths["train"]), load_images(paths["val"]))
    labels = (train.labels_N, val.labels_N)
    frozen = embed_splits(paths, options.out, f"frozen-{options.backbone}", "pretrained", options.backbone)
    base = score_queries(frozen["train"], frozen["val"], labels)
    append_row(results, compare_with_frozen(f"frozen {options.backbone}", base, base))
    head = NeighborWhitening.fit(frozen["train"])
    whitened = score_queries(head.transform(frozen["train"]), head.transform(frozen["val"]), labels)
    append_row(results, compare_with_frozen("whitened by neighbors", base, whitened))
    for count in (None, 400, 300, 250, 200, 160, 81) if options.groups else (None,):
        name = "groups, " + ("chosen by agreement" if count is None else f"{count} requested")
        append_row(results, {"method": name, **score_groups(group_images(frozen["train"], groups=count), labels[0])})
    if options.groups:
        return
    for seed in map(int, options.seeds.split(",")):
        start, cpu = time.monotonic(), time.process_time()
        spec = {"results_dir": str(options.out / f"seed-{seed}"), "model": {"backbone": options.backbone},
                "dataset": {"train_dataset": str(paths["train"]), "labels": "none"},
                "train": {"seed": seed, "recipe": "unalike"}, "automl": {"minutes": options.minutes}}  # fmt: skip
        result = unalike.train(spec, options.overrides, overwrite=True)
        seconds, cpu = time.monotonic() - start, time.process_time() - cpu
        record = json.loads((result.results_dir / "unlabelled.json").read_text())
        rounds = sorted(result.results_dir.glob("fine_tuning_*/ml_model_latest.pth"))
        if record["chosen"].startswith("fine-tuned"):
            rounds = rounds[:-1]  # the last one is what is delivered
        for name, checkpoint in (("delivered", result.path), *((p.parent.name, p) for p in rounds)):
            file = f"{options.out.name}-{seed}-{name}-{int(start)}"
            vectors = embed_splits(paths, options.out, file, str(checkpoint), options.backbone)
            append_row(results, {**compare_with_frozen(name, base, score_queries(vectors["train"], vectors["val"], labels)), "seed": seed,
                             "minutes": options.minutes, "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1),
                             "chosen": record["chosen"],
                             "judged without labels": {c["name"]: c["score"] for c in record["candidates"]}})  # fmt: skip


if __name__ == "__main__":
    main()
