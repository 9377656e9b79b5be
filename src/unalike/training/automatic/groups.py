"""Discovered groups of unlabeled images as class labels for training.

Shape letters: N images, D dimensions of the vector.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.data.regions import ContentDigests
from unalike.discovery.clustering import ImageGroups, group_images
from unalike.metrics.diagnostics import near_duplicates
from unalike.progress import say
from unalike.runs.stage import load_or_compute

if TYPE_CHECKING:
    from unalike.runs.run import Run


# Grouping takes about so many times as long as comparing all images with one another.
GROUPING_PASSES, PROBE_IMAGES = 8.0, 1000


def order_by_content(images: ImageSet, stop: Callable[[int, int], bool] | None = None) -> ImageSet:
    """Order images by a digest of their files and drop exact copies, so that names of files and folders have no effect.

    Args:
        images: the images.
        stop: called with the numbers of files read so far and of all files; true leaves the others, drawn at random, out.
    """
    permutation = np.random.default_rng(0).permutation(len(images))
    by_row: dict[int, bytes] = {}
    digest_of = ContentDigests()
    for number, i in enumerate(permutation.tolist(), start=1):
        # unreadable files sort last, and are counted where they are decoded
        by_row[i] = digest_of(images.paths[i]) or b"\xff" * 17
        if stop is not None and number % 64 == 0 and stop(number, len(images)):
            break
    rows = sorted(by_row)
    images, digests = images.select(rows) if len(rows) < len(images) else images, [by_row[i] for i in rows]
    order = sorted(range(len(images)), key=lambda i: digests[i])
    first_copies = [
        i for n, i in enumerate(order) if not n or len(digests[i]) == 17 or digests[i] != digests[order[n - 1]]
    ]
    if len(first_copies) < len(images):
        say(f"{len(images) - len(first_copies)} exact copies of other images are left out")
    return images.select(first_copies)


def label_by_group(images: ImageSet, grouping: ImageGroups) -> ImageSet:
    """Label images by their group; each image in no group becomes a class of its own.

    Args:
        images: the images.
        grouping: their groups.
    """
    alone = np.flatnonzero(grouping.group_N < 0)
    labels_N = grouping.group_N.copy()
    labels_N[alone] = grouping.count + np.arange(len(alone))
    digits = len(str(len(labels_N)))
    names = [f"group {n + 1:0{digits}d}" for n in range(grouping.count)] + [
        f"image {n + 1:0{digits}d}" for n in range(len(alone))
    ]
    return replace(images, labels_N=labels_N, classes=tuple(names))


def groupable_images(vectors_ND: np.ndarray, seconds: float) -> int:
    """Return how many of the images can be grouped in ``seconds``, by the time that comparing a thousand of them takes."""
    if len(vectors_ND) <= PROBE_IMAGES:
        return len(vectors_ND)
    start = time.monotonic()
    near_duplicates(vectors_ND[:PROBE_IMAGES])
    elapsed = max(time.monotonic() - start, 1e-6)
    return min(
        len(vectors_ND), int(PROBE_IMAGES * max(1.0, math.sqrt(max(seconds, 0.0) / (GROUPING_PASSES * elapsed))))
    )


def find_groups(run: Run, path: Path, name: str, vectors_ND: np.ndarray, seed: int) -> ImageGroups:
    """Group vectors, or read the groups that an earlier session of a resumed run wrote for the same vectors.

    Args:
        run: the run.
        path: file of the groups.
        name: description for a progress message.
        vectors_ND: one vector per image.
        seed: seed of the grouping.
    """

    def group() -> dict[str, np.ndarray]:
        return group_images(vectors_ND, seed=seed).to_arrays()

    return ImageGroups.from_arrays(load_or_compute(run, path, name, vectors_ND.tobytes() + str(seed).encode(), group))
