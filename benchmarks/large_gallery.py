"""A gallery of ten million vectors on one machine: disk, memory, time of a query, and recall of the compact index.

    python benchmarks/large_gallery.py [--count 10000000] [--dim 256] [--queries 500] [--folder DIR] [--out FILE]

Vectors are drawn: classes of 20, each vector the direction of its class plus noise of 0.8 of its length (cosine of two of a class
about 0.61), kept in half precision. Each part runs in a process of its own, whose peak of resident memory counts: ``fill``
enrolls some hundred thousand at a time into the file, ``index`` builds the index, ``search`` opens both, asks one query at a
time, and compares with an exact search that reads the file piece by piece (in another process, ``exact``).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from unalike.metrics.intervals import mean_interval
from unalike.numerics.nearest_neighbors import scan
from unalike.recognition.faiss_index import index_path, load_index, open_index
from unalike.recognition.gallery import Gallery
from unalike.recognition.snapshot import HALF_ROWS

PER_CLASS, NOISE = 20, 0.8
CHUNK = 200_000
K = 10


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    result: np.ndarray = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return result


def centers(first: int, count: int, dim: int) -> np.ndarray:
    """Directions of the classes of one chunk."""
    return unit(np.random.default_rng([1, first]).standard_normal((count, dim), dtype=np.float32))


def draw_chunk(first: int, count: int, dim: int) -> np.ndarray:
    noise_ND = unit(np.random.default_rng([2, first]).standard_normal((count, dim), dtype=np.float32))
    return unit(np.repeat(centers(first, count // PER_CLASS, dim), PER_CLASS, 0) + NOISE * noise_ND)


def draw_queries(count: int, dim: int, queries: int) -> np.ndarray:
    """Further vectors of random classes."""
    random = np.random.default_rng(3)
    chosen = random.integers(0, count // PER_CLASS, queries)
    chunk_Q = chosen // (CHUNK // PER_CLASS)
    directions = np.empty((queries, dim), np.float32)
    for chunk in np.unique(chunk_Q).tolist():
        first = chunk * CHUNK
        of_chunk = centers(first, min(CHUNK, count - first) // PER_CLASS, dim)
        directions[chunk_Q == chunk] = of_chunk[chosen[chunk_Q == chunk] - first // PER_CLASS]
    return unit(directions + NOISE * unit(random.standard_normal((queries, dim), dtype=np.float32)))


def fill(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    start = time.perf_counter()
    Gallery(options.dim, half=True).save(path)
    largest = 0
    for first in range(0, options.count, CHUNK):
        count = min(CHUNK, options.count - first)
        with Gallery.edit(path) as gallery:
            gallery.enrol(
                draw_chunk(first, count, options.dim), [f"class {(first + i) // PER_CLASS}" for i in range(count)]
            )
        largest = max(largest, sum(file.stat().st_size for file in path.parent.iterdir()))
    return {
        "fill_s": time.perf_counter() - start,
        "file_GB": path.stat().st_size / 1e9,
        "largest_seen_GB": largest / 1e9,
    }


def index(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    start = time.perf_counter()
    made = open_index(Gallery.load(path))
    return {
        "index_s": time.perf_counter() - start,
        "index_GB": index_path(path).stat().st_size / 1e9,
        "index": made.to_dict(),
    }


def exact(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Rows of the true neighbors, into a file; the time of one pass over all vectors."""
    snapshot, queries_QD = Gallery.load(path).snapshot, draw_queries(options.count, options.dim, options.queries)
    start = time.perf_counter()
    _, rows_QK = scan(queries_QD, snapshot.reader(resident=False), len(snapshot), K, columns=HALF_ROWS)
    np.save(path.with_name("true.npy"), rows_QK)
    return {"exact_s": time.perf_counter() - start}


def search(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    queries_QD = draw_queries(options.count, options.dim, options.queries)
    start = time.perf_counter()
    snapshot, made = Gallery.load(path).snapshot, load_index(index_path(path))
    made.search(queries_QD[:1], K, snapshot)
    opened, seconds, rows = time.perf_counter() - start, [], []
    for query in range(options.queries):
        begin = time.perf_counter()
        rows.append(made.search(queries_QD[query : query + 1], K, snapshot)[1][0])
        seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    made.search(queries_QD, K, snapshot)
    together = time.perf_counter() - begin
    true_QK = np.load(path.with_name("true.npy"))
    share_Q = (true_QK[:, :, None] == np.stack(rows)[:, None, :]).any(axis=2).mean(axis=1)
    recall = mean_interval(share_Q)
    return {
        "open_s": opened, "p50_ms": 1e3 * float(np.median(seconds)), "p99_ms": 1e3 * float(np.percentile(seconds, 99)),
        "together_per_s": options.queries / together, "recall": recall.to_dict(), "queries": options.queries,
        "first_tenth_p50_ms": 1e3 * float(np.median(seconds[: len(seconds) // 10])),
    }  # fmt: skip


PARTS = {"fill": fill, "index": index, "exact": exact, "search": search}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="kept; parts whose result is there are left out")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        row = PARTS[options.part](options.folder / "large.gallery", options)
        print(json.dumps({**row, "peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            kept = folder / f"{part}.json"
            if not kept.exists():
                command = [sys.executable, __file__, "--part", part, "--count", str(options.count), "--dim", str(options.dim),
                           "--queries", str(options.queries), "--folder", str(folder)]  # fmt: skip
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                row = {"part": part, "date": date.today().isoformat(), "count": options.count, "dim": options.dim,
                       **json.loads(done.stdout.splitlines()[-1]), "load": os.getloadavg()[0]}  # fmt: skip
                kept.write_text(json.dumps(row))
            print(kept.read_text(), flush=True)
            if options.out:
                with options.out.open("a", encoding="utf-8") as lines:
                    lines.write(kept.read_text() + "\n")


if __name__ == "__main__":
    main()
