"""Training batches from tar files that are read where they are, beside the same images as files; and the index's size.

    python benchmarks/tar_loading.py --data DIR [--images 1200] [--shards 8] [--turns 5] [--workers 2]
    python benchmarks/tar_loading.py --members 1000000

DIR holds one folder a class. The images are packed into uncompressed tar files, and both sources make the same batches (cache of
decoded images off, so that every image is read and decoded), in turns, the first of them changing. Rates are images a second by
the clock and of processor time; the latter says more on a machine that does other work. Every file is read once before. A
second table has reading alone, without decoding. ``--members`` makes a tar file of so many images of one byte and prints what its
index takes: time, file, resident memory.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
from scipy.stats import binom

from unalike.data.batches.augment import Augmentation
from unalike.data.batches.loader import TrainingLoader
from unalike.data.batches.pixel_cache import PixelCache
from unalike.data.batches.sampler import ClassBalancedSampler
from unalike.data.imageset import ImageSet, load_images
from unalike.data.member_files import open_image_file

SIZE, BATCH = 224, 32


def pack(images: ImageSet, folder: Path, shards: int) -> Path:
    """Pack images into tar files, every class spread over all of them."""
    for number in range(shards):
        with tarfile.open(folder / f"part-{number:03}.tar", "w") as tar:
            for row in range(number, len(images), shards):
                tar.add(
                    images.paths[row],
                    f"{images.label_names()[row].replace('/', '_')}/{row:06}{images.paths[row].suffix}",
                )
    return folder


def link(images: ImageSet, folder: Path) -> Path:
    """The same images as files under the same names."""
    names = images.label_names()
    for row, path in enumerate(images.paths):
        target = folder / names[row].replace("/", "_") / f"{row:06}{path.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


def make_batches(images: ImageSet, workers: int) -> tuple[int, list[int]]:
    """One epoch of batches: number of images, and the labels, which must be equal for both sources."""
    cache = PixelCache(images, shorter_side=round(1.5 * SIZE), mode="none")
    augmentation = Augmentation(SIZE, SIZE)
    sampler = ClassBalancedSampler(images.labels_N, batch_size=BATCH, num_instance=4)
    labels: list[int] = []
    for batch in TrainingLoader(images, cache, augmentation, sampler, workers=workers).epoch(0):
        labels += batch.labels_B.tolist()
    return len(labels), labels


def read_all(images: ImageSet) -> tuple[int, list[int]]:
    """Read the bytes of all images in random order."""
    sizes = []
    for row in np.random.default_rng(0).permutation(len(images)):
        with open_image_file(images.paths[int(row)]) as stream:
            sizes.append(len(stream.read()))
    return len(sizes), sizes


def timed(work: Callable[[], tuple[int, list[int]]]) -> tuple[float, float, list[int]]:
    """Images a second by the clock and of processor time, and what was made."""
    wall, processor = time.perf_counter(), time.process_time()
    count, content = work()
    return count / (time.perf_counter() - wall), count / (time.process_time() - processor), content


def compare(name: str, sources: Mapping[str, Callable[[], tuple[int, list[int]]]], turns: int) -> None:
    """Print the rates of both sources and the ratios of each turn."""
    rates: dict[str, list[tuple[float, float]]] = {source: [] for source in sources}
    for turn in range(turns):
        contents = []
        for source in list(sources)[:: 1 if turn % 2 else -1]:
            wall, processor, content = timed(sources[source])
            rates[source].append((wall, processor))
            contents.append(content)
        assert contents[0] == contents[1], "the two sources gave other images"
    for source, values in rates.items():
        walls, processors = zip(*values, strict=True)
        print(f"{name}, {source}: {statistics.median(walls):.1f} images/s ({min(walls):.1f} to {max(walls):.1f}), "
              f"{statistics.median(processors):.1f} a second of processor time ({min(processors):.1f} to {max(processors):.1f})")  # fmt: skip
    for kind, column in (("clock", 0), ("processor time", 1)):
        ratios = [tar[column] / file[column] for tar, file in zip(rates["tars"], rates["files"], strict=True)]
        low, high = median_interval(ratios)
        print(f"{name}, tars / files by {kind}: median {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f} at 95 %; "
              f"single turns {min(ratios):.3f} to {max(ratios):.3f}), n = {turns}")  # fmt: skip


def median_interval(values: list[float]) -> tuple[float, float]:
    """The 95 % interval of a median by the order statistics, which needs no distribution; six values at least, else all of them."""
    rank = int(binom.ppf(0.025, len(values), 0.5))
    ordered = sorted(values)
    return ordered[max(rank - 1, 0)], ordered[min(len(values) - rank, len(values) - 1)]


def measure_index(members: int, folder: Path) -> None:
    """Print what the index of a tar file of so many images takes."""
    classes = max(1, members // 10)
    path = folder / "large.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(members):
            info = tarfile.TarInfo(f"class {number % classes:07}/{number:08}.jpg")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
            tar.members = []  # type: ignore[attr-defined]
    process = psutil.Process()
    for run in ("made", "from the cache"):
        before, start, processor = process.memory_info().rss, time.perf_counter(), time.process_time()
        images = load_images(path, in_place=True)
        after = process.memory_info().rss
        (index,) = (folder / "cache/indexes").glob("*/index.npz")
        tar_index = images.paths.tars[0].index  # type: ignore[attr-defined]
        arrays = len(tar_index.names) + sum(
            value.nbytes for value in vars(tar_index).values() if isinstance(value, np.ndarray)
        )
        print(f"{len(images):,} images of {len(images.classes):,} classes, index {run}: {time.perf_counter() - start:.1f} s, "
              f"{time.process_time() - processor:.1f} s of processor time; index {arrays / len(images):.0f} bytes an image in memory, "
              f"{index.stat().st_size / len(images):.0f} on disk; resident memory grew by {(after - before) / len(images):.0f} bytes an image")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder of images a class")
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--members", type=int, help="measure the index of a tar file of so many images instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["UNALIKE_CACHE"] = str(folder / "cache")
        if options.members:
            measure_index(options.members, folder)
            return
        if options.data is None:
            print("skipped: no data (give --data DIR)")
            return
        images = load_images(options.data, class_from="path")
        if len(images) > options.images:
            images = images.select(np.linspace(0, len(images) - 1, options.images).astype(np.int64))
        (folder / "tars").mkdir()
        sets = {
            "files": load_images(link(images, folder / "files")),
            "tars": load_images(pack(images, folder / "tars", options.shards), in_place=True),
        }
        print(
            f"{len(images)} images, {len(images.classes)} classes, {options.shards} tar files, {options.workers} threads, load {os.getloadavg()[0]:.1f}"
        )
        reading = {source: partial(read_all, chosen) for source, chosen in sets.items()}
        batches = {source: partial(make_batches, chosen, options.workers) for source, chosen in sets.items()}
        compare("reading", reading, options.turns)
        compare("batches", batches, options.turns)
        print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
