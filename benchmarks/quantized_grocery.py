"""Accuracy of INT8 on the Grocery Store photographs: R@1, MAP@R and cosines beside fp32, on `val` and 5-fold `train`.

    python benchmarks/quantized_grocery.py --data DIR [--out DIR] [--name int8] [key=value ...]
    python benchmarks/quantized_grocery.py --data DIR --onnx MODEL.onnx | --checkpoint MODEL.pth [...]

Without a network five are trained, each without one fifth of `train` (by image), exported and quantized on images it was
trained on. The left-out fifth is the query of the other four, `val` (296 images) the query of all of `train`, so that each of
2,640 + 296 queries counts once; `val` with the mean of the five networks. With a network, that one is measured on all.
Losses have a paired bootstrap interval over queries (95 %); the goal is at most half a point each. Existing networks and vectors
are used again; use another --name to quantize the same networks in another way (key=value of `quantize`).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from grocery import write_manifests

import unalike
from unalike.data.imageset import align_labels, load_images
from unalike.data.view import View
from unalike.deploy.quantization.accuracy_table import cosines
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import load_model
from unalike.metrics.intervals import difference_interval
from unalike.metrics.retrieval import evaluate_ranking

FOLDS = 5
# Short: the loss by quantization is measured, not how good a network can get.
TRAINING = ["model.backbone=tf_efficientnet_lite0", "model.input_width=144", "model.input_height=144",
            "train.num_epochs=4", "dataset.validation.by=none"]  # fmt: skip
Values = dict[str, np.ndarray]  # measure -> value of each query


def embed_all(model: Path, paths: list[Path], runtime: str, precision: str, cache: Path) -> np.ndarray:
    """Compute float32 vectors (N, D) of all images; they are cached in the file ``cache``."""
    if not cache.exists():
        loaded = load_model(model, runtime=runtime, precision=precision)
        view: View = loaded.view
        embedded = embed_files(loaded.engine, paths, view, describe=f"{model.name} in {runtime}", max_unreadable=0)
        np.save(cache, embedded.vectors_ND)
    vectors: np.ndarray = np.load(cache)
    return vectors


def evaluate_queries(vectors: np.ndarray, labels: np.ndarray, query: np.ndarray, reference: np.ndarray) -> Values:
    ranking = evaluate_ranking(vectors[query], labels[query], vectors[reference], labels[reference], ks=(1,))
    return {"R@1": ranking.precision_at_1, "MAP@R": ranking.average_precision_at_r}


def print_row(part: str, before: Values, after: Values, **columns: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"part": part, "queries": len(before["R@1"]), **columns}
    for name in before:
        change = difference_interval(before[name], after[name])
        row[name] = {"fp32": round(100 * float(np.nanmean(before[name])), 2),
                     "int8": round(100 * float(np.nanmean(after[name])), 2), "loss": round(-100 * change.value, 2),
                     "interval": [round(-100 * change.high, 2), round(-100 * change.low, 2)]}  # fmt: skip
    print(json.dumps(row))
    return row


def export(checkpoint: Path, manifest: Path, folder: Path) -> Path:
    model = folder / f"{checkpoint.stem}.onnx"
    if not model.exists():
        unalike.export(
            {"results_dir": str(folder), "dataset": {"train_dataset": str(manifest)},
             "export": {"checkpoint": str(checkpoint), "onnx_file": str(model)}}, overwrite=True,
        )  # fmt: skip
    return model


def quantize(model: Path, manifest: Path, folder: Path, images: int, overrides: list[str]) -> Path:
    file = folder / "int8.onnx"
    if not file.exists():
        unalike.quantize(
            {"results_dir": str(folder), "quantize": {"onnx_file": str(model), "output": str(file), "calibration": {
                "cal_image_dir": [str(manifest)], "cal_batch_size": 8, "cal_batches": -(-images // 8)}}},
            overrides, overwrite=True,
        )  # fmt: skip
    return file


def train(manifest: Path, folder: Path, seed: int) -> Path:
    latest = folder / "train" / "ml_model_latest.pth"
    if not (folder / "trained").exists():
        unalike.train(
            {"results_dir": str(folder), "automl_policy": "off", "dataset": {"train_dataset": str(manifest)},
             "train": {"recipe": "unalike", "seed": seed}}, TRAINING, resume=latest.exists(),
        )  # fmt: skip
        (folder / "trained").touch()
    return latest


class Grocery:
    """Both splits, the folds of `train`, and the accuracy of networks and their quantized forms."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, options.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.manifests = write_manifests(options.data, self.out)
        train, val = align_labels(load_images(self.manifests["train"]), load_images(self.manifests["val"]))
        self.paths, self.labels = [*train.paths, *val.paths], np.concatenate([train.labels_N, val.labels_N])
        self.names = train.label_names()
        self.train, self.val = np.arange(len(train)), np.arange(len(train), len(self.labels))
        self.fold = np.random.default_rng(0).permutation(len(train)) % FOLDS

    def without(self, fold: int) -> Path:
        """Write the manifest of the training images without those of ``fold``."""
        path: Path = self.out / f"without-{fold}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label"])
            for i in self.train[self.fold != fold]:
                writer.writerow([self.paths[i], self.names[i]])
        return path

    def values(self, vectors: np.ndarray, folds: list[int]) -> dict[str, Values]:
        """Values of the queries in `val`, and in the folds of `train` with the other four as reference."""
        parts = [
            evaluate_queries(vectors, self.labels, self.train[self.fold == k], self.train[self.fold != k]) for k in folds
        ]  # fmt: skip
        train_values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {"val": evaluate_queries(vectors, self.labels, self.val, self.train), "train": train_values}

    def runtime_vectors(
        self, model: Path, manifest: Path, folder: Path
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield (runtime, vectors in fp32, vectors in INT8) for each runtime."""
        out = folder / self.options.name
        out.mkdir(parents=True, exist_ok=True)
        fp32_vectors = embed_all(model, self.paths, "openvino", "fp32", folder / "fp32.npy")
        int8_model = quantize(model, manifest, out, self.options.calibration, self.options.overrides)
        for runtime in self.options.runtimes:
            yield runtime, fp32_vectors, embed_all(int8_model, self.paths, runtime, "auto", out / f"{runtime}.npy")

    def evaluate_network(self, model: Path) -> list[dict[str, Any]]:
        """Evaluate one network, which may have been trained on `train`."""
        rows = []
        for runtime, fp32_vectors, int8_vectors in self.runtime_vectors(model, self.manifests["train"], self.out):
            cosines_N = cosines(fp32_vectors, int8_vectors)
            before, after = (self.values(vectors, list(range(FOLDS))) for vectors in (fp32_vectors, int8_vectors))
            rows += self.rows_of(runtime, cosines_N, before, after)
        return rows

    def cross_validate(self) -> list[dict[str, Any]]:
        """Train and evaluate five networks, each on the fold that it was not trained on and on `val`."""
        results: dict[str, list[tuple[np.ndarray, dict[str, Values], dict[str, Values]]]] = {}
        rows = []
        for k in range(FOLDS):
            folder, manifest = self.out / f"fold-{k}", self.without(k)
            model = export(train(manifest, folder, 1 + k), manifest, folder)
            for runtime, fp32_vectors, int8_vectors in self.runtime_vectors(model, manifest, folder):
                cosines_N = cosines(fp32_vectors, int8_vectors)
                before, after = self.values(fp32_vectors, [k]), self.values(int8_vectors, [k])
                results.setdefault(runtime, []).append((cosines_N, before, after))
                columns = {"runtime": runtime, "fold": k, "worst cosine": round(float(cosines_N.min()), 5)}
                rows += [print_row(part, before[part], after[part], **columns) for part in ("val", "train")]
        for runtime, parts in results.items():
            forms = [_pooled([part[position] for part in parts]) for position in (1, 2)]
            rows += self.rows_of(runtime, np.concatenate([cosines_N for cosines_N, _, _ in parts]), *forms)
        return rows

    def rows_of(
        self, runtime: str, cosines_N: np.ndarray, before: dict[str, Values], after: dict[str, Values]
    ) -> list[dict[str, Any]]:  # fmt: skip
        columns = {"runtime": runtime, "mean cosine": round(float(cosines_N.mean()), 5),
                "worst cosine": round(float(cosines_N.min()), 5)}  # fmt: skip
        for values in (before, after):
            values["together"] = {
                name: np.concatenate([values["val"][name], values["train"][name]]) for name in values["val"]
            }
        return [print_row(part, before[part], after[part], **columns) for part in before]


def _pooled(networks: list[dict[str, Values]]) -> dict[str, Values]:
    """Values of `train`, each fold by its own network; of `val` the mean over the networks."""
    names = networks[0]["val"]
    return {"val": {name: np.mean([values["val"][name] for values in networks], axis=0) for name in names},
            "train": {name: np.concatenate([values["train"][name] for values in networks]) for name in names}}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the data set's folder, with train.txt and val.txt")
    parser.add_argument("--onnx", type=Path, help="the float network")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint, exported first")
    parser.add_argument("--out", type=Path, default=Path("runs/quantized_grocery"))
    parser.add_argument("--name", default="int8", help="folder of this way of quantizing")
    parser.add_argument("--calibration", type=int, default=128, help="images")
    parser.add_argument("--runtimes", nargs="+", default=["openvino", "onnxruntime"])
    parser.add_argument("overrides", nargs="*", help="such as quantize.goal.worst_cosine=0.97")
    options = parser.parse_args()
    if options.data is None:
        print("skipped: give --data DIR")
        return
    grocery = Grocery(options)
    model = options.onnx
    if options.checkpoint is not None:
        model = export(options.checkpoint, grocery.manifests["train"], options.out)
    rows = grocery.cross_validate() if model is None else grocery.evaluate_network(model)
    (options.out / f"{options.name}.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
