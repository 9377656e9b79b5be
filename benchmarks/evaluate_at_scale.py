"""Evaluation of vectors on one machine and on a local Ray cluster: equal to the last digit? Time, memory, and the rate.

    python benchmarks/evaluate_at_scale.py [--queries 20000] [--references 100000] [--turns 3] [--out FILE]
    python benchmarks/evaluate_at_scale.py --command [--folder DIR]
    python benchmarks/evaluate_at_scale.py --rate 512 --references 1000000

The first ranks and summarizes on one machine and on local Ray with two workers, in turns, each a process of its own; all values
of all queries, the neighbors and the summary (metrics with intervals) are compared by their digests. ``ranking_s`` counts from the
first results of Ray on, for the queries after them, so that Ray's start is not in it; ``start_s`` is the time to them. Processor
time and memory are those of all processes (of memory that processes share the part of each, PSS), looked at twice a second.
The second does the same by ``unalike evaluate`` on folders of vectors, as ``unalike embed`` writes them, with the reports; files
are compared byte by byte. The third ranks so many queries on one core, and extrapolates to as many queries as references.

Vectors are drawn, of width 256: classes whose vectors have a mean cosine of about 0.14 to one another, a hundredth of the
references is equal to another reference of some other class (ties), and a twentieth of the queries has classes without a
reference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from unalike.inference.shards.plan import write_plan
from unalike.inference.shards.shard_file import write_shard
from unalike.inference.shards.source import FILES, Item, ShardSource
from unalike.metrics.query_blocks import ONE_CORE_A_PRODUCT, CosineScores, block_edges
from unalike.metrics.ray_ranking import evaluate_ranking_on_ray
from unalike.metrics.retrieval import RankingTask, evaluate_ranking
from unalike.metrics.score_ranking import Tally, rank_scores_of_block
from unalike.metrics.summary import summarize
from unalike.storage.output_folder import OutputFolder

DIM, NOISE, PER_CLASS = 256, 2.5, 50
SHARD_SIZE = 10_000
COMPARED = ("metrics.json", "predictions.parquet", "per_class.csv", "confusion.csv", "near_duplicates.csv")
LISTED = 10  # neighbors a query, about as many as an evaluation lists


def draw(count: int, classes: int, seed: int, ties: float = 0.0, unknown: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (N, D) and their classes; ``ties`` of them are equal to another one, ``unknown`` are of classes >= ``classes``."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, classes, count)
    labels_N[rng.random(count) < unknown] += classes
    centers_CD = np.random.default_rng(0).standard_normal((2 * classes, DIM), dtype=np.float32)
    vectors_ND = rng.standard_normal((count, DIM), dtype=np.float32)
    vectors_ND *= NOISE
    for first in range(0, count, 100_000):
        vectors_ND[first : first + 100_000] += centers_CD[labels_N[first : first + 100_000]]
    copies = np.flatnonzero(rng.random(count) < ties)
    vectors_ND[copies] = vectors_ND[rng.integers(0, count, len(copies))]
    return vectors_ND, labels_N


def write_vectors(folder: Path, vectors_ND: np.ndarray, labels_N: np.ndarray) -> None:
    """A folder of shards, as ``unalike embed --labeled`` writes it."""
    items = [
        Item(f"/photos/c{label:06d}/{number:07d}.jpg", f"c{label:06d}", "") for number, label in enumerate(labels_N)
    ]
    out = OutputFolder(folder)
    out.create()
    settings = {
        "labeled": True,
        "network": "drawn vectors",
        "dim": DIM,
        "view": {},
        "runtime": "none",
        "precision": "fp32",
    }
    plan = write_plan(out, ShardSource(str(folder), FILES, len(items), items), SHARD_SIZE, settings)
    for shard in range(plan.shards):
        here = slice(shard * SHARD_SIZE, (shard + 1) * SHARD_SIZE)
        with write_shard(out, plan, shard, {}) as writer:
            writer.add([item.path for item in items[here]], [item.label for item in items[here]], vectors_ND[here])


class Watch(threading.Thread):
    """Peak memory and processor time of a process and all that it starts, looked at twice a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root, self.peak, self.most = psutil.Process(pid), 0, 0
        self.seconds: dict[int, float] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            try:
                processes = [self.root, *self.root.children(recursive=True)]
            except psutil.Error:
                return
            memory = workers = 0
            for process in processes:
                try:
                    memory += process.memory_full_info().pss
                    times = process.cpu_times()
                    workers += any(word.startswith("ray::") for word in process.cmdline())
                except psutil.Error:
                    continue
                self.seconds[process.pid] = times.user + times.system
            self.peak, self.most = max(self.peak, memory), max(self.most, workers)


def evaluate(folder: Path, name: str, *options: str) -> dict[str, Any]:
    """Run ``unalike evaluate`` in a process of its own; figures, and the digests of its files."""
    command = [sys.executable, "-m", "unalike", "evaluate", "-r", str(folder / name), "--overwrite", "-v", "--reference",
               str(folder / "reference"), "--query", str(folder / "query"), *options]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watch = Watch(process.pid)
    watch.start()
    assert process.stderr is not None
    lines = [(time.perf_counter() - start, line.rstrip()) for line in process.stderr]
    watch.ended.set()
    if process.wait():
        sys.exit("\n".join(line for _, line in lines[-20:]))
    seconds = time.perf_counter() - start
    first = [after for after, line in lines if re.match(r"Ray: .* the first results|[\d,]+ query and", line)]
    last = [after for after, line in lines if line.startswith("ranking: ")]
    files = {file: hashlib.sha256((folder / name / "evaluate" / file).read_bytes()).hexdigest() for file in COMPARED}
    return {"seconds": seconds, "ranking_s": last[-1] - first[-1] if last else None, "processor_s": sum(watch.seconds.values()),
            "peak_GB": watch.peak / 1e9, "ray_processes": watch.most, "files": files}  # fmt: skip


def rank(options: argparse.Namespace) -> dict[str, Any]:
    """Rank and summarize in this process, or with local Ray; figures, and digests of the results."""
    classes = max(2, options.references // PER_CLASS)
    reference_RD, labels_R = draw(options.references, classes, 1, ties=0.01)
    query_QD, labels_Q = draw(options.queries, classes, 2, unknown=0.05)
    ends: list[tuple[float, int]] = []

    def advance(count: int) -> None:
        ends.append((time.perf_counter(), count))

    start = time.perf_counter()
    if options.part == "ray":
        ranking = evaluate_ranking_on_ray(
            query_QD, labels_Q, reference_RD, labels_R, neighbors=LISTED, workers=2, advance=advance
        )
    else:
        ranking = evaluate_ranking(query_QD, labels_Q, reference_RD, labels_R, neighbors=LISTED, advance=advance)
    summary = summarize(ranking, [f"c{number}" for number in range(2 * classes)], reference_labels=labels_R)
    values = {name: value for name, value in vars(ranking).items() if isinstance(value, np.ndarray)} | ranking.metrics()
    assert ranking.neighbors is not None
    values |= {"neighbors": ranking.neighbors.indices_QK, "neighbor_scores": ranking.neighbors.scores_QK}
    digests = {
        name: hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest() for name, value in values.items()
    }
    digests["summary"] = hashlib.sha256(json.dumps(summary).encode()).hexdigest()
    after, span = sum(count for _, count in ends[1:]), ends[-1][0] - ends[0][0]
    return {"start_s": ends[0][0] - start, "ranking_s": span,
            "queries_per_s": after / span if span else None, "all_s": ends[-1][0] - start, "digests": digests,
            "micro": {name: entry["value"] for name, entry in summary["micro"].items()},
            "ties": int((np.diff(ranking.neighbors.scores_QK, axis=1) == 0).any(axis=1).sum()),
            "unknown": int(ranking.open_set.sum())}  # fmt: skip


def compare_rankings(options: argparse.Namespace) -> dict[str, Any]:
    """One machine and local Ray in turns, each a process of its own."""
    turns: dict[str, list[dict[str, Any]]] = {"machine": [], "ray": []}
    for _ in range(options.turns):
        for part, runs in turns.items():
            command = [sys.executable, __file__, "--part", part, "--queries", str(options.queries), "--references",
                       str(options.references)]  # fmt: skip
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            watch = Watch(process.pid)
            watch.start()
            output, _ = process.communicate()
            watch.ended.set()
            if process.returncode:
                sys.exit(f"{part} ended with {process.returncode}")
            row = json.loads(output.splitlines()[-1])
            runs.append({**row, "processor_s": sum(watch.seconds.values()), "peak_GB": watch.peak / 1e9, "ray_processes": watch.most,
                         "load": os.getloadavg()[0]})  # fmt: skip
            print(part, json.dumps({**runs[-1], "digests": None}), file=sys.stderr, flush=True)
    digests = [run.pop("digests") for runs in turns.values() for run in runs]
    equal = {name: len({each[name] for each in digests}) == 1 for name in digests[0]}
    return {"queries": options.queries, "references": options.references, "equal": all(equal.values()),
            "compared": sorted(equal), "different": [name for name, same in equal.items() if not same], **turns}  # fmt: skip


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The command on one machine and on local Ray, in turns."""
    classes = max(2, options.references // PER_CLASS)
    write_vectors(folder / "reference", *draw(options.references, classes, 1, ties=0.01))
    write_vectors(folder / "query", *draw(options.queries, classes, 2, unknown=0.05))
    turns: dict[str, list[dict[str, Any]]] = {"machine": [], "ray": []}
    for _ in range(options.turns):
        turns["machine"].append(evaluate(folder, "machine"))
        turns["ray"].append(evaluate(folder, "ray", "--cluster", "ray", "--workers", "2"))
        print(
            json.dumps({name: {**runs[-1], "files": None} for name, runs in turns.items()}), file=sys.stderr, flush=True
        )
    files = [run.pop("files") for runs in turns.values() for run in runs]
    same = {file: len({each[file] for each in files}) == 1 for file in COMPARED}
    metrics = json.loads((folder / "ray/evaluate/metrics.json").read_text())
    micro = {name: entry["value"] for name, entry in metrics["micro"].items()}
    return {
        "queries": options.queries,
        "references": options.references,
        "classes": classes,
        "equal": same,
        "micro": micro,
        **turns,
    }


def rate(options: argparse.Namespace) -> dict[str, Any]:
    """Queries a second of one core against so many references, and what that means for as many queries."""
    classes = max(2, options.references // PER_CLASS)
    reference_RD, labels_R = draw(options.references, classes, 1, ties=0.01)
    query_QD, labels_Q = draw(options.rate, classes, 2, unknown=0.05)
    task = RankingTask.check(query_QD, labels_Q, reference_RD, labels_R, ks=(1, 5, 10), same=False, neighbors=LISTED,
                             query_name="query", reference_name="reference")  # fmt: skip
    del reference_RD, query_QD
    tally, scores_of = Tally(task.relevance, LISTED), CosineScores(task.query_QD, task.reference_RD, same=False)
    clock, processor = [], []
    with ONE_CORE_A_PRODUCT:
        for top, bottom in block_edges(options.references, options.references):
            if bottom > options.rate:
                break
            start, start_processor = time.perf_counter(), time.process_time()
            rank_scores_of_block(scores_of(top, bottom), top, tally)
            clock.append((time.perf_counter() - start) / (bottom - top))
            processor.append((time.process_time() - start_processor) / (bottom - top))
    seconds = np.array(processor[1:])  # the first allocates the block
    return {
        "references": options.references, "blocks": len(seconds), "rows": bottom - top,
        "processor_ms_a_query": {"median": 1e3 * float(np.median(seconds)), "low": 1e3 * float(seconds.min()),
                                 "high": 1e3 * float(seconds.max())},
        "clock_ms_a_query": 1e3 * float(np.median(clock[1:])),
        "extrapolated_core_hours": options.references * float(np.median(seconds)) / 3600,
        "resident_GB": psutil.Process().memory_info().rss / 1e9,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--references", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rate", type=int, help="measure one core with so many queries in place of the comparison")
    parser.add_argument("--command", action="store_true", help="compare the whole command, with its reports")
    parser.add_argument("--part", choices=["machine", "ray"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="kept; else a temporary one")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(rank(options)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        if options.command:
            row = compare(options.folder or Path(temporary), options)
        else:
            row = rate(options) if options.rate else compare_rankings(options)
    row = {"date": date.today().isoformat(), "load": os.getloadavg()[0], **row}
    print(json.dumps(row, indent=1))
    if options.out:
        with options.out.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
