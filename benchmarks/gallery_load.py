"""A gallery under load: one reference more at several sizes, and concurrent adds and searches, of which none may be lost or torn.

Usage: PYTHONPATH=src python benchmarks/gallery_load.py --counts 10000,100000,1000000 --turns 5 --changes 500 [--address ADDRESS]

An add is timed in a process that has the gallery open, from the call to the durable change; bytes are those that the process wrote
(``/proc/self/io``, of a file). The load: threads that add one reference at a time, and threads that search; each reader checks that
what it sees is one state. ``--address`` takes a gallery in PostgreSQL in place of a file, as ``postgresql://...?gallery=NAME``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from unalike.recognition.backends.address import delete_gallery, open_gallery, save_gallery
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.gallery import Gallery


def make(address: str, count: int, dim: int) -> GalleryBackend:
    """A gallery of random vectors, 1,000 classes."""
    draws, gallery = np.random.default_rng(0), Gallery(dim)
    for first in range(0, count, 50_000):
        rows = range(first, min(first + 50_000, count))
        vectors_ND = draws.standard_normal((len(rows), dim), np.float32)
        gallery.enrol(vectors_ND, [f"class {row % 1000}" for row in rows], [f"/a/folder/{row}.jpg" for row in rows])
    save_gallery(gallery, address)
    return open_gallery(address)


def bytes_written() -> int:
    """What this process wrote so far."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["wchar"])


def time_adds(gallery: GalleryBackend, turns: int) -> dict[str, float]:
    """Add one reference several times; seconds and bytes."""
    seconds, sizes = [], []
    for turn in range(turns + 1):
        before, start = bytes_written(), time.perf_counter()
        with gallery.change() as change:
            change.enrol(np.random.default_rng(turn).standard_normal((1, gallery.dim)), ["one more"], [f"{turn}.jpg"])
        if turn:  # the first finds nothing in the caches
            seconds.append(time.perf_counter() - start)
            sizes.append(bytes_written() - before)
    return {"seconds": round(statistics.median(seconds), 4), "lowest": round(min(seconds), 4),
            "highest": round(max(seconds), 4), "bytes": statistics.median(sizes)}  # fmt: skip


def load(address: str, changes: int, writers: int, readers: int) -> dict[str, float]:
    """Threads add and search at once; raises AssertionError where something is lost or torn."""
    gallery, stop, faults = open_gallery(address), threading.Event(), []
    before, searches = len(gallery), [0] * readers
    counts = [changes // writers + (number < changes % writers) for number in range(writers)]

    def write(number: int) -> None:
        for row in range(counts[number]):
            with gallery.change() as change:
                change.enrol(np.random.default_rng([number, row]).standard_normal((1, gallery.dim)),
                             [f"writer {number}"], [f"{number}/{row}"])  # fmt: skip

    def read(number: int) -> None:
        query_QD = np.random.default_rng(number).standard_normal((1, gallery.dim))
        while not stop.is_set() or searches[number] < changes // readers:
            with gallery.view() as view:
                result, size, labels = view.search(query_QD, 10), view.size, view.counts()
            if sum(labels.values()) != size[0] or max(result.ids_QK[0]) >= before + changes:
                faults.append((size, len(labels)))
            searches[number] += 1

    threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    others = [threading.Thread(target=read, args=(n,)) for n in range(readers)]
    start = time.perf_counter()
    for thread in [*threads, *others]:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    stop.set()
    for thread in others:
        thread.join()
    assert not faults, faults[:3]
    final = open_gallery(address)
    names = {f"{number}/{row}" for number in range(writers) for row in range(counts[number])}
    entries = [
        entry for label in {f"writer {n}" for n in range(writers)} for entry in final.entries(label, limit=changes + 1)
    ]
    assert len(final) == before + changes and {entry.name for entry in entries} == names, "references are lost"
    assert len({entry.id for entry in entries}) == changes, "an id came twice"
    return {"adds": changes, "searches": sum(searches), "seconds": round(seconds, 1)}


def main() -> None:
    """Print one JSON line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default="10000,100000,1000000")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--changes", type=int, default=500)
    parser.add_argument("--address", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for count in map(int, options.counts.split(",")):
            address = f"{options.address}.{count}" if options.address else f"{folder}/{count}.gallery"
            gallery = make(address, count, options.dim)
            print(json.dumps({"count": count, "one_more": time_adds(gallery, options.turns)}), flush=True)
            if options.changes and count == int(options.counts.split(",")[0]):
                print(json.dumps({"count": count, "load": load(address, options.changes, 4, 4)}), flush=True)
            gallery.close()
            delete_gallery(address)


if __name__ == "__main__":
    main()
