"""What INT8 costs on the Grocery Store photographs: R@1, MAP@R and cosine beside fp32, on `val` and 5-fold `train`.

    python benchmarks/quantised_grocery.py --data DIR --onnx MODEL.onnx [--out DIR] [--backend auto|nncf] [--calibration 128]
    python benchmarks/quantised_grocery.py --data DIR --checkpoint ml_model_latest.pth

`val`: 296 queries against the 2,640 training images. 5-fold `train`: each fifth against the other four, 2,640 queries;
together 2,936. Calibrated on training images; the goal is a loss of at most half a point in each. Vectors of every image
are made once with each network; losses come with a paired bootstrap over queries (95 %).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from grocery import write_manifests

import unalike
from unalike.data.items import align_labels, load_images
from unalike.data.view import View
from unalike.deploy.comparison import cosines
from unalike.engines.files import embed_files
from unalike.measure.intervals import paired_bootstrap
from unalike.measure.retrieval import evaluate_ranking
from unalike.tasks.opening import open_model

FOLDS = 5


def embed_all(model: Path, paths: list[Path], runtime: str, precision: str = "auto") -> np.ndarray:
    opened = open_model(model, runtime=runtime, precision=precision)
    view: View = opened.view
    return embed_files(opened.engine, paths, view, describe=f"{model.name} in {runtime}", max_unreadable=0).vectors_ND


def per_query(
    vectors: np.ndarray, labels: np.ndarray, query: np.ndarray, reference: np.ndarray
) -> dict[str, np.ndarray]:
    ranking = evaluate_ranking(vectors[query], labels[query], vectors[reference], labels[reference], ks=(1,))
    return {"R@1": ranking.precision_at_1, "MAP@R": ranking.average_precision_at_r}


def measured(vectors: np.ndarray, labels: np.ndarray, train: int) -> dict[str, dict[str, np.ndarray]]:
    """Per-query values of `val`, of the folds of `train`, and of both together."""
    fold = np.random.default_rng(0).permutation(train) % FOLDS
    places = np.arange(train)
    parts = [per_query(vectors, labels, places[fold == k], places[fold != k]) for k in range(FOLDS)]
    folds = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    val = per_query(vectors, labels, np.arange(train, len(labels)), places)
    return {"val": val, "train, 5 folds": folds, "together": {n: np.concatenate([val[n], folds[n]]) for n in val}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the data set's folder, with train.txt and val.txt")
    parser.add_argument("--onnx", type=Path, help="the float network")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint, exported first")
    parser.add_argument("--out", type=Path, default=Path("runs/quantised_grocery"))
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--calibration", type=int, default=128, help="images")
    parser.add_argument("--runtimes", nargs="+", default=["openvino", "onnxruntime"])
    parser.add_argument("overrides", nargs="*", help="such as quantize.goal.worst_cosine=0.97")
    options = parser.parse_args()
    if options.data is None or (options.onnx is None) == (options.checkpoint is None):
        print("skipped: give --data DIR and one of --onnx FILE, --checkpoint FILE")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    manifests = write_manifests(options.data, options.out)
    model = options.onnx
    if model is None:
        model = options.out / f"{options.checkpoint.stem}.onnx"
        if not model.exists():
            unalike.export(
                {"results_dir": str(options.out), "dataset": {"train_dataset": str(manifests["train"])},
                 "export": {"checkpoint": str(options.checkpoint), "onnx_file": str(model)}}, overwrite=True,
            )  # fmt: skip
    result = unalike.quantize(
        {"results_dir": str(options.out), "quantize": {
            "onnx_file": str(model), "backend": options.backend,
            "calibration": {"cal_image_dir": [str(manifests["train"])], "cal_batch_size": 8,
                            "cal_batches": -(-options.calibration // 8)}}},
        options.overrides, overwrite=True,
    )  # fmt: skip
    assert result.path is not None
    train, val = align_labels(load_images(manifests["train"]), load_images(manifests["val"]))
    paths, labels = [*train.paths, *val.paths], np.concatenate([train.labels_N, val.labels_N])
    exact = embed_all(model, paths, "openvino", "fp32")
    before = measured(exact, labels, len(train))
    rows: list[dict[str, Any]] = []
    for runtime in options.runtimes:
        vectors = embed_all(result.path, paths, runtime)
        near, after = cosines(exact, vectors), measured(vectors, labels, len(train))
        for part in before:
            row: dict[str, Any] = {"runtime": runtime, "part": part, "queries": len(before[part]["R@1"]),
                                   "mean cosine": round(float(near.mean()), 5), "worst cosine": round(float(near.min()), 5)}  # fmt: skip
            for name in before[part]:
                change = paired_bootstrap(before[part][name], after[part][name])
                row[name] = {"fp32": round(100 * float(np.nanmean(before[part][name])), 2),
                             "int8": round(100 * float(np.nanmean(after[part][name])), 2),
                             "loss": round(-100 * change.value, 2),
                             "interval": [round(-100 * change.high, 2), round(-100 * change.low, 2)]}  # fmt: skip
            rows.append(row)
            print(json.dumps(row))
    (options.out / "quantised_grocery.json").write_text(
        json.dumps({"parity": dict(result.figures), "rows": rows}, indent=1)
    )


if __name__ == "__main__":
    main()
