"""All ranking metrics beside pytorch-metric-learning's AccuracyCalculator and beside the bare matrix product.

    python benchmarks/metrics.py                       # 20,000 x 20,000 x 256 with 1,000 and with 20 classes
    python benchmarks/metrics.py --n 5000 --classes 20
    python benchmarks/metrics.py --n 100000 --classes 1000 --alone    # memory: ours only
    python benchmarks/metrics.py --evaluation          # all that one evaluate computes from the vectors of one set, in two ways

Every measurement runs in a process of its own, so that its peak memory is its own; the best of --repeat runs counts.
Compare the ratios: times depend on what else the machine does. CPU seconds are less easily disturbed than wall time.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

CHUNK_ROWS = 512
NAMES = (
    "precision_at_1",
    "r_precision",
    "mean_average_precision_at_r",
    "mean_average_precision",
    "mean_reciprocal_rank",
)
# The goals: no slower than the peer with many classes, 2.5 x faster with few, 1.5 x the product's time in both.


def vectors(n: int, classes: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in overlapping clouds, one a class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centres = np.random.default_rng(12345).standard_normal((classes, width), dtype=np.float32)
    cloud = centres[labels] + np.float32(2.5) * rng.standard_normal((n, width), dtype=np.float32)
    return cloud / np.linalg.norm(cloud, axis=1, keepdims=True), labels


def product(query: np.ndarray, labels: np.ndarray, reference: np.ndarray, reference_labels: np.ndarray) -> dict:
    """Compute the chunked matrix product alone."""
    buffer = np.empty((min(CHUNK_ROWS, len(query)), len(reference)), np.float32)
    for top in range(0, len(query), CHUNK_ROWS):
        chunk = query[top : top + CHUNK_ROWS]
        np.matmul(chunk, reference.T, out=buffer[: len(chunk)])
    return {}


def ours(query: np.ndarray, labels: np.ndarray, reference: np.ndarray, reference_labels: np.ndarray) -> dict:
    from unalike.metrics.retrieval import evaluate_ranking

    metrics = evaluate_ranking(query, labels, reference, reference_labels).metrics()
    return {name: float(np.nanmean(metrics[name])) for name in NAMES}


def peer(query: np.ndarray, labels: np.ndarray, reference: np.ndarray, reference_labels: np.ndarray) -> dict:
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    calculator = AccuracyCalculator(include=NAMES, k="max_bin_count", device=torch.device("cpu"))
    return calculator.get_accuracy(query, labels, reference, reference_labels, False)


CONTENDERS: dict[str, Callable[..., dict]] = {"product": product, "ours": ours, "peer": peer}


def measure(contender: str, n: int, classes: int, width: int, repeat: int) -> dict:
    """Run one contender here: best wall and CPU seconds, growth of peak memory over the inputs, the metrics."""
    query, labels = vectors(n, classes, width, 1)
    reference, reference_labels = vectors(n, classes, width, 2)
    run = CONTENDERS[contender]
    run(query[:64], labels[:64], reference[:2000], np.resize(labels, 2000))  # imports and thread pools
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu, metrics = [], [], {}
    for _ in range(repeat):
        start, start_cpu = time.perf_counter(), time.process_time()
        metrics = run(query, labels, reference, reference_labels)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"wall": min(wall), "cpu": min(cpu), "peak_mb": peak / 1024, "grown_mb": (peak - before) / 1024, **metrics}


def evaluation(vectors_ND: np.ndarray, labels: np.ndarray, *, once: bool) -> dict[str, float]:
    """Everything that evaluate computes from the vectors of one set, but for k-means and the map.

    Args:
        vectors_ND: Vectors (N, D).
        labels: Class index of each vector.
        once: Normalize and search once for all metrics, as evaluate does, or let each do it for itself.
    """
    from unalike.metrics.diagnostics import DUPLICATE_NEIGHBORS, hardest_pairs, near_duplicates, suspected_labels
    from unalike.metrics.open_set import collect_trials
    from unalike.metrics.retrieval import evaluate_ranking
    from unalike.numerics.nearest_neighbors import top_k
    from unalike.numerics.normalization import unit_vectors

    if once:
        vectors_ND = unit_vectors(vectors_ND)
    ranking = evaluate_ranking(vectors_ND, labels, vectors_ND, labels, same=True)
    trials = collect_trials(vectors_ND, labels, vectors_ND, labels, same=True)
    neighbors = top_k(vectors_ND, vectors_ND, DUPLICATE_NEIGHBORS, exclude_self=True)
    shared = neighbors if once else None
    across, within = hardest_pairs(vectors_ND, labels, 36)
    suspected = suspected_labels(vectors_ND, labels, neighbors=shared)
    duplicates = near_duplicates(vectors_ND, neighbors=shared)
    figures = {name: float(np.nanmean(values)) for name, values in ranking.metrics().items()}
    return figures | {
        "neighbors": float(neighbors.scores_QK.mean(dtype=np.float64)), "own": float(trials.own_Q.mean()),
        "across": float(across.scores_P.mean()), "within": float(within.scores_P.mean()),
        "chance": float(np.sum([s.chance for s in suspected])), "suspected": len(suspected),
        "duplicates": len(duplicates), "threshold": duplicates.threshold,
    }  # fmt: skip


def compare_evaluations(n: int, classes: int, width: int, repeat: int) -> None:
    """Run both ways of ``evaluation`` in turns; print the ratio of their times and the largest difference of a figure."""
    vectors_ND, labels = vectors(n, classes, width, 1)
    seconds: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    figures = {}
    for number in range(repeat):
        for once in (False, True) if number % 2 == 0 else (True, False):
            start, start_cpu = time.perf_counter(), time.process_time()
            figures[once] = evaluation(vectors_ND, labels, once=once)
            seconds[once].append((time.perf_counter() - start, time.process_time() - start_cpu))
    (wall, cpu), (wall_once, cpu_once) = (np.median(seconds[once], axis=0) for once in (False, True))
    difference = max(abs(figures[True][name] - value) for name, value in figures[False].items())
    print(f"{n:,} x {n:,} x {width}, {classes:,} classes: each for itself {wall:.1f} s ({cpu:.1f} CPU), "
          f"once {wall_once:.1f} s ({cpu_once:.1f} CPU), ratio {wall_once / wall:.2f} ({cpu_once / cpu:.2f} CPU); "
          f"largest difference of a figure {difference:.1e}")  # fmt: skip


def compare(n: int, classes: int, width: int, repeat: int, contenders: list[str]) -> None:
    """Start each contender in a process of its own and print the table."""
    results = {}
    for contender in contenders:
        command = [sys.executable, __file__, "--run", contender, "--n", str(n), "--classes", str(classes)]
        command += ["--width", str(width), "--repeat", str(repeat)]
        process = subprocess.run(command, check=True, capture_output=True, text=True)
        results[contender] = json.loads(process.stdout.splitlines()[-1])
    base = results["product"]
    print(f"\n{n:,} x {n:,} x {width}, {classes:,} classes")
    print(f"{'':10}{'wall s':>9}{'CPU s':>9}{'/product':>10}{'CPU /pr.':>10}{'peak MB':>9}{'grown MB':>10}")
    for name, row in results.items():
        print(
            f"{name:10}{row['wall']:9.2f}{row['cpu']:9.2f}{row['wall'] / base['wall']:10.2f}"
            f"{row['cpu'] / base['cpu']:10.2f}{row['peak_mb']:9.0f}{row['grown_mb']:10.0f}"
        )
    if "peer" in results:
        mine, theirs = results["ours"], results["peer"]
        difference = max(abs(mine[name] - theirs[name]) for name in NAMES)
        print(f"ours is {theirs['wall'] / mine['wall']:.2f} x as fast as the peer", end=" ")
        print(f"({theirs['cpu'] / mine['cpu']:.2f} x in CPU time); largest difference of a metric {difference:.1e}")
    print("  ".join(f"{name} {results['ours'][name]:.4f}" for name in NAMES))


def main() -> None:
    """Read the flags and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000, help="queries, and references")
    parser.add_argument("--classes", type=int, nargs="+", default=[1000, 20])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="leave the peer out (its memory is not bounded)")
    parser.add_argument(
        "--evaluation", action="store_true", help="one normalization and search against one for each metric"
    )
    parser.add_argument("--run", choices=sorted(CONTENDERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measure(options.run, options.n, options.classes[0], options.width, options.repeat)))
        return
    for classes in options.classes:
        if options.evaluation:
            compare_evaluations(options.n, classes, options.width, options.repeat)
            continue
        compare(
            options.n,
            classes,
            options.width,
            options.repeat,
            [c for c in CONTENDERS if c != "peer" or not options.alone],
        )


if __name__ == "__main__":
    main()
