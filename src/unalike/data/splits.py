"""Dividing one set of images, seeded: for open-set, closed-set and grouped validation, and into reference and query.

Every split keeps the list of classes of the set that it divides, so that a label means the same class on both sides;
``ImageSet.drop_empty_classes`` strikes the classes that a side lacks. C is the number of classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.data.manifests import write_manifest_rows
from unalike.errors import DataError, SpecError, closest

WAYS = ("class", "image", "group")


def split_images(
    images: ImageSet, by: str = "class", fraction: float = 0.2, seed: int = 0
) -> tuple[ImageSet, ImageSet]:
    """(train, held): about ``fraction`` of the classes, images or groups are held out; the same for the same seed.

    ``class``: no class on both sides (does it tell things apart that it never saw?); each side has two or more.
    ``image``: each class gives its share, and keeps at least one image in train.
    ``group``: no group (a scene, a day, a part number) on both sides; every class keeps an image in train. An empty
    group name is a group of one image.
    Raises ``DataError`` when the set is too small to be divided so, or has unlabelled images.
    """
    if by not in WAYS:
        raise SpecError(f"split by {by!r}", expected=", ".join(WAYS), remedy=closest(by, WAYS))
    if not 0 < fraction < 1:
        raise SpecError(f"split fraction {fraction}", expected="a number between 0 and 1")
    _refuse_unlabelled(images)
    draw = np.random.default_rng([seed, WAYS.index(by)])
    divide = {"class": _held_classes, "image": _held_images, "group": _held_groups}[by]
    held_N = divide(images, fraction, draw)
    return images.select(~held_N), images.select(held_N)


def split_reference_query(images: ImageSet, seed: int = 0, fraction: float = 0.5) -> tuple[ImageSet, ImageSet]:
    """(reference, query): ``fraction`` of each class's images ask, the others answer.

    A class of two or more images has at least one on each side; a class of one stands in the reference, where it can
    only be mistaken for.
    """
    _refuse_unlabelled(images)
    draw = np.random.default_rng([seed, len(WAYS)])
    query_N = np.zeros(len(images), bool)
    for members in _members(images, draw):
        if len(members) >= 2:
            query_N[members[: min(max(1, int(len(members) * fraction)), len(members) - 1)]] = True
    if not query_N.any():
        raise DataError(f"{images.source}: every class has one image", expected="a class with two images or more")
    return images.select(~query_N), images.select(query_N)


def write_manifest(path: str | Path, parts: Mapping[str, ImageSet]) -> Path:
    """Write sets as one CSV manifest, split by split; ``load_images(path, split=name)`` gives each back."""
    with_groups = any(images.groups is not None for images in parts.values())
    rows = []
    for split, images in parts.items():
        groups = images.groups or ("",) * len(images)
        rows += [
            (file, name, split, group)
            for file, name, group in zip(images.paths, images.label_names(), groups, strict=True)
        ]
    return write_manifest_rows(Path(path), rows, with_groups=with_groups)


def _refuse_unlabelled(images: ImageSet) -> None:
    unlabelled = int((images.labels_N < 0).sum())
    if unlabelled or not len(images):
        raise DataError(
            f"{images.source}: {unlabelled} of {len(images)} images without a class", expected="labelled images"
        )


def _members(images: ImageSet, draw: np.random.Generator) -> list[np.ndarray]:
    """Indices of each class's images, shuffled; classes without images give empty arrays."""
    order = np.argsort(images.labels_N, kind="stable")
    members = np.split(order, np.cumsum(images.counts())[:-1])
    return [draw.permutation(indices) for indices in members]


def _held_classes(images: ImageSet, fraction: float, draw: np.random.Generator) -> np.ndarray:
    counts = images.counts()
    present = np.flatnonzero(counts)
    if len(present) < 4:
        raise DataError(
            f"{images.source}: {len(present)} classes cannot be divided by class",
            expected="4 or more: two to learn from, two to be told apart",
            remedy="set dataset.validation.by=image, or give a val_dataset",
        )
    shuffled = draw.permutation(present)
    # a class of one image can be neither found nor asked for: it is held only when there is nothing else
    shuffled = np.concatenate([shuffled[counts[shuffled] > 1], shuffled[counts[shuffled] == 1]])
    number = min(max(2, round(fraction * len(present))), len(present) - 2)
    return np.isin(images.labels_N, shuffled[:number])


def _held_images(images: ImageSet, fraction: float, draw: np.random.Generator) -> np.ndarray:
    """Shares are rounded along the classes in random order, so that the total is right also for tiny classes."""
    held_N = np.zeros(len(images), bool)
    members = _members(images, draw)
    owed = float(draw.random())
    for c in draw.permutation(len(members)):
        owed += fraction * len(members[c])
        number = int(owed)
        owed -= number  # what a class cannot give is forgone, not taken from the next
        number = min(number, max(len(members[c]) - 1, 0))
        held_N[members[c][:number]] = True
    if not held_N.any():
        largest = max(members, key=len)
        if len(largest) < 2:
            raise DataError(
                f"{images.source}: every class has one image, none can be held out",
                expected="a class with two images or more",
            )
        held_N[largest[0]] = True
    return held_N


def _held_groups(images: ImageSet, fraction: float, draw: np.random.Generator) -> np.ndarray:
    if images.groups is None:
        raise DataError(
            f"{images.source}: no groups to divide by",
            expected="a manifest with a group column",
            remedy="name it with dataset.manifest_columns.group, or split by class or image",
        )
    groups: dict[tuple[str, int], list[int]] = {}
    for i, name in enumerate(images.groups):
        groups.setdefault((name, -1) if name else ("", i), []).append(i)
    held_N = np.zeros(len(images), bool)
    left = images.counts()
    wanted = fraction * len(images)
    lists = list(groups.values())
    for g in draw.permutation(len(lists)):
        taken = np.bincount(images.labels_N[lists[g]], minlength=len(left))
        overshoots = held_N.sum() + len(lists[g]) - wanted > wanted - held_N.sum()
        if overshoots and held_N.any() or ((left - taken < 1) & (taken > 0)).any():
            continue  # further from the fraction than without it, or it would take a class out of training
        left = left - taken
        held_N[lists[g]] = True
    if not held_N.any():
        raise DataError(
            f"{images.source}: no group can be held out",
            expected="every class in two groups or more",
            remedy="split by class or by image",
        )
    return held_N
