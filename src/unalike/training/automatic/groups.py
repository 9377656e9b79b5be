"""Discovered groups of unlabeled images as class labels for training.

Shape letters: N images, D dimensions of the vector.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.data.regions import content_digest
from unalike.discovery.clustering import ImageGroups, group_images
from unalike.progress import say
from unalike.runs.stage import load_or_compute

if TYPE_CHECKING:
    from unalike.runs.run import Run


def order_by_content(images: ImageSet) -> ImageSet:
    """Order images by a digest of their files and drop exact copies, so that names of files and folders have no effect."""

    # unreadable files sort last, and are counted where they are decoded
    digests = [content_digest(path) or b"\xff" * 17 for path in images.paths]
    order = sorted(range(len(images)), key=lambda i: digests[i])
    kept = [i for n, i in enumerate(order) if not n or len(digests[i]) == 17 or digests[i] != digests[order[n - 1]]]
    if len(kept) < len(images):
        say(f"{len(images) - len(kept)} exact copies of other images are left out")
    return images.select(kept)


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
