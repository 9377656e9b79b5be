"""Sharded embedding: one process against workers of a local Ray cluster, and folders against tars, in turns.

Usage: PYTHONPATH=src python benchmarks/embed_shards.py IMAGES MODEL --count 6000 --workers 2 --turns 2

The images of a folder are repeated by a manifest up to the count, and written into tars of a shard's size. Each way runs in a
process of its own. The rate counts from the end of the first shard of each worker on, what comes before is the start. Processor
seconds, of all processes of a run, are given beside the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq

WAYS = ("process", "ray", "tars")


def prepare(images: Path, place: Path, count: int, shard_size: int) -> None:
    """A manifest of ``count`` rows over the images of a folder, and the same in tars."""
    from unalike.data.imageset import load_images

    paths = load_images(images, labeled=False).paths
    rows = [paths[number % len(paths)] for number in range(count)]
    (place / "all.csv").write_text("path\n" + "".join(f"{path.absolute()}\n" for path in rows))
    (place / "tars").mkdir()
    for part in range(-(-count // shard_size)):
        with tarfile.open(place / "tars" / f"{part:05d}.tar", "w") as tar:
            for number in range(part * shard_size, min((part + 1) * shard_size, count)):
                content = rows[number].read_bytes()
                info = tarfile.TarInfo(f"{number:07d}{rows[number].suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


class ProcessorTime:
    """Samples the processor seconds of this process and all below it; those of a process that ended stay counted."""

    def __init__(self) -> None:
        self._last: dict[int, float] = {}
        self.samples: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        own = psutil.Process()
        while not self._stop.wait(0.5):
            for process in [own, *own.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    self._last[process.pid] = times.user + times.system
            self.samples.append((time.time(), sum(self._last.values())))

    def between(self, start: float, end: float) -> float:
        """Processor seconds from one time to another."""
        times, seconds = zip(*self.samples, strict=True)
        return float(np.interp(end, times, seconds) - np.interp(start, times, seconds))

    def close(self) -> None:
        """End the sampling."""
        self._stop.set()
        self._thread.join()


def measure(way: str, place: Path, model: str, shard_size: int, workers: int) -> dict[str, Any]:
    """Embed once in this process; start and rate."""
    from unalike.actions.embed_shards import embed_shards
    from unalike.spec.embed import Embed

    source = place / ("tars" if way == "tars" else "all.csv")
    with tempfile.TemporaryDirectory(dir=place) as out:
        processor, begin = ProcessorTime(), time.time()
        section = Embed(source=str(source), output=f"{out}/shards", model=model, shard_size=shard_size,
                        cluster="ray" if way == "ray" else "local", workers=workers if way == "ray" else None)  # fmt: skip
        figures = embed_shards(section)
        total = time.time() - begin
        processor.close()
        files = sorted((file.stat().st_mtime, file) for file in Path(out, "shards").glob("vectors-*.parquet"))
        images = {file: pq.read_metadata(file).num_rows for _, file in files}
    # A shard's time is when its file appeared: rows of Ray Data come several at once.
    first = files[(workers if way == "ray" else 1) - 1][0]
    later = sum(images[file] for end, file in files if end > first)
    last = files[-1][0]
    return {"start": first - begin, "rate": later / (last - first), "total": total,
            "processor_start": processor.between(begin, first),
            "processor_an_image": processor.between(first, last) / later, **figures}  # fmt: skip


def main() -> None:
    """Run all ways in turns, and print one JSON line a run and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--shard-size", type=int, default=250)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--child", nargs=2, metavar=("WAY", "PLACE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, place = options.child
        print(json.dumps(measure(way, Path(place), options.model, options.shard_size, options.workers)))
        return
    rates: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(options.images, Path(folder), options.count, options.shard_size)
        for turn in range(options.turns):
            for way in options.ways.split(",")[:: -1 if turn % 2 else 1]:
                command = [sys.executable, __file__, str(options.images), options.model, "--child", way, folder,
                           "--shard-size", str(options.shard_size), "--workers", str(options.workers)]  # fmt: skip
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                result = json.loads(done.stdout.splitlines()[-1])
                rates.setdefault(way, []).append(result["rate"])
                processor.setdefault(way, []).append(result["processor_an_image"])
                print(json.dumps({"turn": turn, "way": way, **result}), flush=True)
    for way, values in rates.items():
        print(f"{way}: {sorted(values)[len(values) // 2]:.1f} images/s, from {min(values):.1f} to {max(values):.1f}; "
              f"{1000 * sorted(processor[way])[len(values) // 2]:.2f} ms of processor an image")  # fmt: skip


if __name__ == "__main__":
    main()
