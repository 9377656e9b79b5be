"""Training images cached at a bounded size instead of full size: time and memory per crop, and the crops' pixels.

    python benchmarks/kept_size.py --data DIR [--images 400] [--size 176] [--ratio 1.5]

DIR holds one folder per class, at any depth. Both variants draw the same random resized crops of the same files. Reported are
the processor time of decoding and of cropping, the bytes cached, the difference of the crops' pixels (0 to 255), the cosine
similarity of the frozen trunk's vectors of both crops, and the R@1 of each (leave-one-out among the crops, paired interval).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from unalike.data.batches.augment import Augmentation
from unalike.data.batches.pixel_cache import PixelCache
from unalike.data.imageset import load_images
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.inference.engine_selection import create_engine
from unalike.metrics.intervals import difference_interval
from unalike.metrics.retrieval import evaluate_ranking
from unalike.model.frozen_trunk import build_frozen_trunk
from unalike.numerics.normalization import l2_normalize

FULL = 1 << 20  # longer than the shorter side of any image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with one folder of images per class, at any depth"
    )
    parser.add_argument("--images", type=int, default=400, help="how many images to use (evenly spread)")
    parser.add_argument("--size", type=int, default=176, help="side of the crops")
    parser.add_argument(
        "--ratio", type=float, default=1.5, help="shorter side of the cached image, as a multiple of the crop's side"
    )
    parser.add_argument("--trunk", default="tf_efficientnet_lite0")
    options = parser.parse_args()
    images = load_images(options.data, class_from="path")
    images = images.select(np.unique(np.linspace(0, len(images) - 1, options.images).astype(np.int64)))
    augmentation = Augmentation(options.size, options.size)
    trunk = build_frozen_trunk(options.trunk, (options.size, options.size))
    facts = trunk.trunk.facts
    preprocessing = Preprocessing(View(options.size, options.size), facts.mean, facts.std)
    engine = create_engine(trunk, preprocessing, images=len(images))
    crops, vectors, rankings = {}, {}, {}
    print(f"{len(images)} images, crops of {options.size} px")
    print(f"{'cached':>12}{'decode ms':>11}{'crop ms':>9}{'kB/image':>10}{'R@1':>8}")
    for name, side in (("full", FULL), (f"{options.ratio:g} x", round(options.ratio * options.size))):
        cache = PixelCache(images, shorter_side=side)
        start = time.process_time()
        for i in range(len(images)):
            cache.get(i)
        decoded = time.process_time()
        crops[name] = np.stack([np.asarray(augmentation.crop(cache.get(i), 0, i)) for i in range(len(images))])
        cropped = time.process_time()
        vectors[name] = l2_normalize(engine(crops[name]))
        rankings[name] = evaluate_ranking(vectors[name], images.labels_N, vectors[name], images.labels_N, same=True)
        each = 1e3 / len(images)
        print(f"{name:>12}{(decoded - start) * each:11.2f}{(cropped - decoded) * each:9.2f}"
              f"{cache.cached_bytes / len(images) / 1e3:10.0f}{np.nanmean(rankings[name].precision_at_1):8.3f}")  # fmt: skip
    full, bounded = crops
    difference = np.abs(crops[full].astype(np.int16) - crops[bounded])
    cosines = (vectors[full] * vectors[bounded]).sum(axis=1)
    closed_set = ~rankings[full].open_set
    gain = difference_interval(rankings[full].precision_at_1[closed_set], rankings[bounded].precision_at_1[closed_set])
    print(f"pixels: mean difference {difference.mean():.2f}, 99 of 100 within {np.percentile(difference, 99):.0f}")
    print(f"vectors: median cosine {np.median(cosines):.4f}, lowest {cosines.min():.4f}; R@1 bounded minus full {gain}")


if __name__ == "__main__":
    main()
