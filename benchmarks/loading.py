"""Loading and augmenting training images: this project's loader beside the usual chain of torchvision and PIL.

    python benchmarks/loading.py [--data DIR] [--images 800] [--size 224] [--batch-size 32] [--epochs 3]

DIR holds one folder a class, at any depth (without it the script prints a message and ends). Both sides do the same work
with the same parameters (the defaults of training: random resized crop, flip, colour jitter, Gaussian blur 15 x 15,
normalisation, random erasing) on the same files, which are read once beforehand so that neither side waits for the disk.
The chain treats each image by itself, as a data set of torchvision does. Figures are images per second of processor
time, so that other programs on the machine matter little; the chain runs before and after ours, and its mean counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unalike.data.batches.augment import Augmentation
from unalike.data.batches.loader import TrainingLoader
from unalike.data.batches.pixel_cache import PixelCache
from unalike.data.batches.sampler import ClassBalancedSampler
from unalike.data.imageset import ImageSet, load_images

# Public photographs of groceries, where a checkout is beside the repository.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLOR = {"brightness": 0.5, "contrast": 0.3, "saturation": 0.1, "hue": 0.1}
KERNEL, SIGMA, FLIP, ERASE = [15, 15], [0.3, 0.7], 0.5, 0.5


def transforms_of_torchvision() -> Any:
    """The module torchvision.transforms, also where torchvision's compiled operators do not fit this torch."""
    try:
        from torchvision import transforms
    except RuntimeError:  # "operator torchvision::nms does not exist": declare what its import looks for
        global _declared
        _declared = torch.library.Library("torchvision", "DEF")
        _declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from torchvision import transforms
    return transforms


def chain(size: int) -> Callable[[Path], torch.Tensor]:
    """The per-image way: open, transform with torchvision on PIL images, as a data set does it."""
    t = transforms_of_torchvision()
    steps = t.Compose(
        [
            t.RandomResizedCrop(size),
            t.RandomHorizontalFlip(FLIP),
            t.ColorJitter(**COLOR),
            t.GaussianBlur(KERNEL, SIGMA),
            t.ToTensor(),
            t.Normalize(MEAN, STD),
            t.RandomErasing(ERASE),
        ]
    )
    return lambda path: steps(Image.open(path).convert("RGB"))


def time_chain(images: ImageSet, size: int, count: int) -> float:
    """Processor seconds an image."""
    load = chain(size)
    order = np.random.default_rng(0).permutation(len(images.paths))[:count]
    load(images.paths[0])
    start = time.process_time()
    for i in order:
        load(images.paths[i])
    return (time.process_time() - start) / len(order)


def time_ours(images: ImageSet, size: int, batch_size: int, epochs: int, workers: int) -> list[tuple[float, int]]:
    """Processor seconds an image and number of decoded files, for each epoch."""
    cache = PixelCache(images, shorter_side=round(1.5 * size))
    augmentation = Augmentation(
        size, size, flip_prob=FLIP, color=COLOR, blur={"kernel": KERNEL, "sigma": SIGMA}, erase_prob=ERASE,
        mean=MEAN, std=STD,
    )  # fmt: skip
    sampler = ClassBalancedSampler(images.labels_N, batch_size=batch_size, num_instance=4)
    batches = TrainingLoader(images, cache, augmentation, sampler, workers=workers)
    epoch_figures = []
    for epoch in range(epochs):
        before, start, image_count = cache.decodes, time.process_time(), 0
        for batch in batches.epoch(epoch):
            image_count += len(batch.labels_B)
        epoch_figures.append(((time.process_time() - start) / image_count, cache.decodes - before))
    return epoch_figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with one folder of images a class, at any depth",
    )
    parser.add_argument("--images", type=int, default=800, help="how many images to use (evenly spread)")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    torch.set_num_threads(1)
    images = load_images(options.data, class_from="path")
    if len(images) > options.images:
        images = images.select(np.linspace(0, len(images) - 1, options.images).astype(np.int64))
    for path in images.paths:
        path.read_bytes()
    count = min(len(images), 200)
    before = time_chain(images, options.size, count)
    ours = time_ours(images, options.size, options.batch_size, options.epochs, options.workers)
    reference = (before + time_chain(images, options.size, count)) / 2

    print(f"{len(images)} images, {options.size} px, batch {options.batch_size}, {options.workers} worker threads")
    print(f"{'':24}{'ms/image':>10}{'images/s/core':>15}{'ratio':>8}{'decoded':>9}")
    print(f"{'torchvision + PIL chain':24}{reference * 1e3:10.2f}{1 / reference:15.0f}{1:8.2f}{count:9}")
    for epoch, (seconds, decoded) in enumerate(ours):
        figures = f"{seconds * 1e3:10.2f}{1 / seconds:15.0f}{reference / seconds:8.2f}{decoded:9}"
        print(f"{f'ours, epoch {epoch}':24}{figures}")


if __name__ == "__main__":
    main()
