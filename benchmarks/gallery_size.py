"""Search in a gallery of ten thousand to a million vectors, beside faiss.IndexFlatIP and numpy: memory and time of queries.

    python benchmarks/gallery_size.py [--counts 10000,100000,1000000] [--dim 256] [--k 10] [--out DIR]

Every peer runs in its own process, so that its peak memory is its own; all get the same vectors and queries, and must find
the same neighbors (float16: nearly). Times are wall-clock times, with processor time beside them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 50_000
SINGLE_QUERIES, BATCH_QUERIES = 31, 1024


def random_vectors(seed: int, count: int, dim: int) -> np.ndarray:
    vectors_ND = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


def chunks(count: int, dim: int) -> Any:
    for first in range(0, count, CHUNK):
        yield first, random_vectors(first, min(CHUNK, count - first), dim)


def timed(action: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return (result, wall-clock seconds, processor seconds)."""
    clock, processor = time.perf_counter(), time.process_time()
    result = action()
    return result, time.perf_counter() - clock, time.process_time() - processor


def build_gallery(
    count: int, dim: int, half: bool, folder: Path, row: dict[str, Any]
) -> Callable[[np.ndarray, int], Any]:
    from unalike.recognition.gallery import Gallery

    path = folder / f"{count}-{half}.gallery"
    if not path.exists():
        gallery = Gallery(dim, half=half)
        clock = 0.0
        for first, vectors_ND in chunks(count, dim):
            labels = [f"class {i // 20}" for i in range(first, first + len(vectors_ND))]
            clock += timed(lambda v=vectors_ND, n=labels: gallery.enrol(v, n))[1]  # type: ignore[misc]
        row["enrol_s"] = clock
        row["save_s"] = timed(lambda: gallery.save(path))[1]
        row["file_MB"] = path.stat().st_size / 1e6
        return lambda queries_QD, k: gallery.snapshot.search(queries_QD, k)
    gallery, row["open_s"], _ = timed(lambda: Gallery.load(path))
    row["first_query_s"] = timed(lambda: gallery.snapshot.search(random_vectors(1, 1, dim), 10))[
        1
    ]  # reads and checks the file
    return lambda queries_QD, k: gallery.snapshot.search(queries_QD, k)


def build_faiss(
    count: int, dim: int, half: bool, folder: Path, row: dict[str, Any]
) -> Callable[[np.ndarray, int], Any]:
    import faiss

    index = faiss.IndexFlatIP(dim)
    row["enrol_s"] = sum(timed(lambda v=vectors_ND: index.add(v))[1] for _, vectors_ND in chunks(count, dim))  # type: ignore[misc]
    return lambda queries_QD, k: index.search(queries_QD, k)


def build_numpy(
    count: int, dim: int, half: bool, folder: Path, row: dict[str, Any]
) -> Callable[[np.ndarray, int], Any]:
    references_ND = np.empty((count, dim), np.float32)
    for first, vectors_ND in chunks(count, dim):
        references_ND[first : first + len(vectors_ND)] = vectors_ND

    def search(queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        parts = []
        for first in range(0, len(queries_QD), 64):  # 64 x 10^6 scores are 256 MB
            scores_BN = queries_QD[first : first + 64] @ references_ND.T
            chosen_BK = np.argpartition(-scores_BN, k, axis=1)[:, :k]
            near_BK = np.take_along_axis(scores_BN, chosen_BK, 1)
            order_BK = np.argsort(-near_BK, axis=1)
            parts.append((np.take_along_axis(near_BK, order_BK, 1), np.take_along_axis(chosen_BK, order_BK, 1)))
        return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])

    return search


PEERS: dict[str, tuple[Callable[..., Any], bool]] = {
    "enrol": (build_gallery, False), "enrol half": (build_gallery, True), "ours": (build_gallery, False), "ours half": (build_gallery, True),
    "faiss IndexFlatIP": (build_faiss, False), "numpy": (build_numpy, False),
}  # fmt: skip


def measure(peer: str, count: int, dim: int, k: int, folder: Path, many: int) -> None:
    """One peer in this process; its row goes to standard output."""
    row: dict[str, Any] = {"peer": peer, "count": count, "dim": dim}
    build, half = PEERS[peer]
    search = build(count, dim, half, folder, row)
    if not peer.startswith("enrol"):
        queries_QD = random_vectors(7, many, dim)
        search(queries_QD[:1], k)
        single = [timed(lambda i=i: search(queries_QD[i : i + 1], k)) for i in range(SINGLE_QUERIES)]  # type: ignore[misc]
        result, clock, processor = timed(lambda: search(queries_QD, k))
        row |= {
            "one_p50_ms": 1e3 * float(np.median([one[1] for one in single])),
            "one_p50_cpu_ms": 1e3 * float(np.median([one[2] for one in single])),
            "many_per_s": many / clock, "many_per_cpu_s": many / processor,
        }  # fmt: skip
        np.save(folder / f"{peer}-{count}.npy", np.asarray(result[1]))
    row["peak_MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", default="10000,100000,1000000")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--many", type=int, default=BATCH_QUERIES, help="queries of one batched search")
    parser.add_argument("--out", type=Path, default=Path("runs/gallery_size"))
    parser.add_argument("--one", nargs=3, metavar=("PEER", "COUNT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options.one[0], int(options.one[1]), options.dim, options.k, Path(options.one[2]), options.many)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for count in map(int, options.counts.split(",")):
        with tempfile.TemporaryDirectory(dir=options.out) as folder:
            rows = []
            for peer in PEERS:
                command = [sys.executable, __file__, "--dim", str(options.dim), "--k", str(options.k), "--many",
                           str(options.many), "--one", peer, str(count), folder]  # fmt: skip
                process = subprocess.run(command, capture_output=True, text=True, check=False)
                if process.returncode:
                    print(f"{peer}: left out ({process.stderr.strip().splitlines()[-1]})")
                    continue
                rows.append({"date": date.today().isoformat(), **json.loads(process.stdout)})
                print(json.dumps({name: round(v, 4) if isinstance(v, float) else v for name, v in rows[-1].items()}))
            expected = np.load(Path(folder) / f"numpy-{count}.npy")
            for peer in PEERS:
                indices = Path(folder) / f"{peer}-{count}.npy"
                if indices.exists():
                    print(f"{peer}: {np.mean(np.load(indices) == expected):.4%} of the neighbors are numpy's")
        with (options.out / "gallery_size.jsonl").open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
