"""A gallery from ten thousand to a million vectors, beside faiss.IndexFlatIP and plain numpy: memory, one query, many.

    python benchmarks/gallery_size.py [--counts 10000,100000,1000000] [--dim 256] [--k 10] [--out DIR]

Every peer runs in a process of its own, so that its peak of memory is its own; all see the same vectors and queries, and
must find the same neighbours (float16: nearly). Times are of the clock, with processor time beside them.
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

PART = 50_000
SINGLE, MANY = 31, 1024


def vectors_of(seed: int, count: int, dim: int) -> np.ndarray:
    vectors_ND = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


def parts(count: int, dim: int) -> Any:
    for first in range(0, count, PART):
        yield first, vectors_of(first, min(PART, count - first), dim)


def timed(act: Callable[[], Any]) -> tuple[Any, float, float]:
    """(what it gives, seconds by the clock, seconds of the processor)."""
    clock, processor = time.perf_counter(), time.process_time()
    found = act()
    return found, time.perf_counter() - clock, time.process_time() - processor


def ours(count: int, dim: int, half: bool, folder: Path, told: dict[str, Any]) -> Callable[[np.ndarray, int], Any]:
    from unalike.recognition.gallery import Gallery

    path = folder / f"{count}-{half}.gallery"
    if not path.exists():
        gallery = Gallery(dim, half=half)
        clock = 0.0
        for first, vectors_ND in parts(count, dim):
            labels = [f"class {i // 20}" for i in range(first, first + len(vectors_ND))]
            clock += timed(lambda v=vectors_ND, n=labels: gallery.enrol(v, n))[1]  # type: ignore[misc]
        told["enrol_s"] = clock
        told["save_s"] = timed(lambda: gallery.save(path))[1]
        told["file_MB"] = path.stat().st_size / 1e6
        return lambda queries_QD, k: gallery.snapshot.search(queries_QD, k)
    gallery, told["open_s"], _ = timed(lambda: Gallery.load(path))
    told["first_query_s"] = timed(lambda: gallery.snapshot.search(vectors_of(1, 1, dim), 10))[
        1
    ]  # reads and checks the file
    return lambda queries_QD, k: gallery.snapshot.search(queries_QD, k)


def faiss_flat(
    count: int, dim: int, half: bool, folder: Path, told: dict[str, Any]
) -> Callable[[np.ndarray, int], Any]:
    import faiss

    index = faiss.IndexFlatIP(dim)
    told["enrol_s"] = sum(timed(lambda v=vectors_ND: index.add(v))[1] for _, vectors_ND in parts(count, dim))  # type: ignore[misc]
    return lambda queries_QD, k: index.search(queries_QD, k)


def plain_numpy(
    count: int, dim: int, half: bool, folder: Path, told: dict[str, Any]
) -> Callable[[np.ndarray, int], Any]:
    held_ND = np.empty((count, dim), np.float32)
    for first, vectors_ND in parts(count, dim):
        held_ND[first : first + len(vectors_ND)] = vectors_ND

    def search(queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for first in range(0, len(queries_QD), 64):  # 64 x 10^6 scores are 256 MB
            scores_BN = queries_QD[first : first + 64] @ held_ND.T
            chosen_BK = np.argpartition(-scores_BN, k, axis=1)[:, :k]
            near_BK = np.take_along_axis(scores_BN, chosen_BK, 1)
            order_BK = np.argsort(-near_BK, axis=1)
            found.append((np.take_along_axis(near_BK, order_BK, 1), np.take_along_axis(chosen_BK, order_BK, 1)))
        return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])

    return search


PEERS: dict[str, tuple[Callable[..., Any], bool]] = {
    "enrol": (ours, False), "enrol half": (ours, True), "ours": (ours, False), "ours half": (ours, True),
    "faiss IndexFlatIP": (faiss_flat, False), "numpy": (plain_numpy, False),
}  # fmt: skip


def measure(peer: str, count: int, dim: int, k: int, folder: Path, many: int) -> None:
    """One peer in this process; its row goes to standard output."""
    told: dict[str, Any] = {"peer": peer, "count": count, "dim": dim}
    make, half = PEERS[peer]
    search = make(count, dim, half, folder, told)
    if not peer.startswith("enrol"):
        queries_QD = vectors_of(7, many, dim)
        search(queries_QD[:1], k)
        single = [timed(lambda i=i: search(queries_QD[i : i + 1], k)) for i in range(SINGLE)]  # type: ignore[misc]
        found, clock, processor = timed(lambda: search(queries_QD, k))
        told |= {
            "one_p50_ms": 1e3 * float(np.median([one[1] for one in single])),
            "one_p50_cpu_ms": 1e3 * float(np.median([one[2] for one in single])),
            "many_per_s": many / clock, "many_per_cpu_s": many / processor,
        }  # fmt: skip
        np.save(folder / f"{peer}-{count}.npy", np.asarray(found[1]))
    told["peak_MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", default="10000,100000,1000000")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--many", type=int, default=MANY, help="queries of one batched search")
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
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{peer}: left out ({done.stderr.strip().splitlines()[-1]})")
                    continue
                rows.append({"date": date.today().isoformat(), **json.loads(done.stdout)})
                print(json.dumps({name: round(v, 4) if isinstance(v, float) else v for name, v in rows[-1].items()}))
            right = np.load(Path(folder) / f"numpy-{count}.npy")
            for peer in PEERS:
                found = Path(folder) / f"{peer}-{count}.npy"
                if found.exists():
                    print(f"{peer}: {np.mean(np.load(found) == right):.4%} of the neighbours are numpy's")
        with (options.out / "gallery_size.jsonl").open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
