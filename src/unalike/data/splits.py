"""Seeded splits of an image set: train and holdout by class, image or group; reference and query.

Both sides keep the list of classes, so that a label means the same class on both; ``ImageSet.drop_empty_classes`` removes
the classes that a side lacks.

Shape letters: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.data.manifests import write_manifest_rows
from unalike.errors import DataError, SpecError, closest

SPLIT_BY = ("class", "image", "group")
MIN_CLASSES_TO_DIVIDE = 4  # with two images or more each: two on each side


def split_images(
    images: ImageSet, by: str = "class", fraction: float = 0.2, seed: int = 0
) -> tuple[ImageSet, ImageSet]:
    """Split off about ``fraction`` of the classes, images or groups.

    Args:
        images: Labeled images.
        by: ``class``: no class is on both sides, each side has two or more with two images or more; this measures how
            unseen classes are told apart. ``image``: each class gives its share and keeps at least one image in train. ``group``: no group (a
            scene, a day, a part number) is on both sides, every class keeps an image in train; an empty group name is a
            group of one image.
        fraction: Share of the holdout, between 0 and 1.
        seed: The same seed gives the same split.

    Returns:
        (train, holdout).

    Raises:
        DataError: A set that is too small to be split this way, or has unlabeled images.
        SpecError: An unknown ``by``, or a fraction out of range.
    """
    if by not in SPLIT_BY:
        raise SpecError(f"split by {by!r}", expected=", ".join(SPLIT_BY), remedy=closest(by, SPLIT_BY))
    if not 0 < fraction < 1:
        raise SpecError(f"split fraction {fraction}", expected="a number between 0 and 1")
    _refuse_unlabeled(images)
    rng = np.random.default_rng([seed, SPLIT_BY.index(by)])
    choose = {"class": _holdout_by_class, "image": _holdout_by_image, "group": _holdout_by_group}[by]
    holdout_N = choose(images, fraction, rng)
    return images.select(~holdout_N), images.select(holdout_N)


def split_reference_query(images: ImageSet, seed: int = 0, fraction: float = 0.5) -> tuple[ImageSet, ImageSet]:
    """Split into reference and query, class by class.

    A class of two or more images has at least one on each side; a class of one image is in the reference, where it can only
    be a wrong answer. Where images have groups, so have a class of two or more groups and one of a single group: no group of a
    class is on both sides. If every class lies in one group, images are divided as if there were none.

    Args:
        images: Labeled images.
        seed: The same seed gives the same split.
        fraction: Share of each class that is in the query.

    Returns:
        (reference, query).
    """
    _refuse_unlabeled(images)
    rng = np.random.default_rng([seed, len(SPLIT_BY)])
    query_N = np.zeros(len(images), bool)
    group_N = _groups_of_classes(images)
    for members in _members(images, rng):
        if group_N is not None:
            query_N[_query_groups(group_N, members, fraction)] = True
        elif len(members) >= 2:
            query_N[members[: min(max(1, int(len(members) * fraction)), len(members) - 1)]] = True
    if not query_N.any():
        raise DataError(f"{images.source}: every class has one image", expected="a class with two images or more")
    return images.select(~query_N), images.select(query_N)


def write_manifest(path: str | Path, parts: Mapping[str, ImageSet], *, by_source: bool = True) -> Path:
    """Write image sets as one CSV manifest with a split column; ``load_images(path, split=name)`` reads each again.

    Args:
        path: The file to write.
        parts: The image sets by split.
        by_source: As in ``manifests.write_manifest_rows``.
    """
    with_groups = any(images.groups is not None for images in parts.values())
    rows = []
    for split, images in parts.items():
        groups = images.groups or ("",) * len(images)
        rows += [
            (file, name, split, group)
            for file, name, group in zip(images.paths, images.label_names(), groups, strict=True)
        ]
    return write_manifest_rows(Path(path), rows, with_groups=with_groups, by_source=by_source)


def has_divisible_groups(images: ImageSet) -> bool:
    """Whether images have groups, and a class lies in two or more of them, so that a split by group is possible."""
    return _groups_of_classes(images) is not None


def count_torn_groups(query: ImageSet, *others: ImageSet) -> int:
    """Return the number of groups of the queries that have images in other sets too."""
    return len(set(query.groups or ()) & {name for images in others for name in images.groups or () if name})


def _groups_of_classes(images: ImageSet) -> np.ndarray | None:
    """A group per image, a number of its own for one without; None where no class has two groups, or nothing has one."""
    if images.groups is None or not any(images.groups):
        return None
    names = np.array([name or f"\0{i}" for i, name in enumerate(images.groups)])
    group_N: np.ndarray = np.unique(names, return_inverse=True)[1]
    pairs = np.unique(np.stack([images.labels_N, group_N]), axis=1)
    return group_N if np.unique(pairs[0], return_counts=True)[1].max() > 1 else None


def _query_groups(group_N: np.ndarray, members: np.ndarray, fraction: float) -> np.ndarray:
    """Those of a class's images, in whole groups, that are queries: ``fraction`` of them at most, but one group; none of a single one.

    Args:
        group_N: a group per image of the set.
        members: the rows of the class, in random order.
        fraction: share of the queries.
    """
    names, first, sizes = np.unique(group_N[members], return_index=True, return_counts=True)
    if len(names) < 2:
        return members[:0]
    limit = max(int(len(members) * fraction), int(sizes.min()))
    query_groups, count = [], 0
    for number in np.argsort(first):
        if count + sizes[number] <= limit:
            query_groups.append(names[number])
            count += int(sizes[number])
    rows: np.ndarray = members[np.isin(group_N[members], query_groups)]
    return rows


def _refuse_unlabeled(images: ImageSet) -> None:
    unlabeled = int((images.labels_N < 0).sum())
    if unlabeled or not len(images):
        raise DataError(
            f"{images.source}: {unlabeled} of {len(images)} images without a class", expected="labeled images"
        )


def _members(images: ImageSet, rng: np.random.Generator) -> list[np.ndarray]:
    """Indices of each class's images, shuffled; classes without images give empty arrays."""
    order = np.argsort(images.labels_N, kind="stable")
    members = np.split(order, np.cumsum(images.counts())[:-1])
    return [rng.permutation(indices) for indices in members]


def count_teaching_classes(images: ImageSet) -> int:
    """Return the number of classes with two images or more: those that can be learned from and retrieved."""
    return int((images.counts() > 1).sum())


def _holdout_by_class(images: ImageSet, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Hold out a share of the classes with two images or more, and the same share of the others.

    A class of one image cannot be retrieved, and teaches least: of a long tail the classes that can teach must not all be
    held out. Classes of one image are held out too, as wrong answers, so that both sides are of one kind.
    """
    counts = images.counts()
    teaching, single = np.flatnonzero(counts > 1), np.flatnonzero(counts == 1)
    if len(teaching) < MIN_CLASSES_TO_DIVIDE:
        raise DataError(
            f"{images.source}: {len(teaching)} classes with two images or more cannot be divided by class",
            expected="4 or more: two on each side",
            remedy="set dataset.validation.by=image, or give a val_dataset",
        )
    number = min(max(2, round(fraction * len(teaching))), len(teaching) - 2)
    held_out = [rng.permutation(teaching)[:number], rng.permutation(single)[: round(fraction * len(single))]]
    return np.isin(images.labels_N, np.concatenate(held_out))


def _holdout_by_image(images: ImageSet, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Shares are rounded cumulatively over the classes in random order, so that the total is right also for tiny classes."""
    holdout_N = np.zeros(len(images), bool)
    members = _members(images, rng)
    due = float(rng.random())
    for c in rng.permutation(len(members)):
        due += fraction * len(members[c])
        number = int(due)
        due -= number  # what a class cannot give is not taken from the next
        number = min(number, max(len(members[c]) - 1, 0))
        holdout_N[members[c][:number]] = True
    if not holdout_N.any():
        largest = max(members, key=len)
        if len(largest) < 2:
            raise DataError(
                f"{images.source}: every class has one image, none can be held out",
                expected="a class with two images or more",
            )
        holdout_N[largest[0]] = True
    return holdout_N


def _holdout_by_group(images: ImageSet, fraction: float, rng: np.random.Generator) -> np.ndarray:
    if images.groups is None:
        raise DataError(
            f"{images.source}: no groups to divide by",
            expected="a manifest with a group column",
            remedy="name it with dataset.manifest_columns.group, or split by class or image",
        )
    groups: dict[tuple[str, int], list[int]] = {}
    for i, name in enumerate(images.groups):
        groups.setdefault((name, -1) if name else ("", i), []).append(i)
    holdout_N = np.zeros(len(images), bool)
    remaining = images.counts()
    target = fraction * len(images)
    group_indices = list(groups.values())
    for g in rng.permutation(len(group_indices)):
        class_counts = np.bincount(images.labels_N[group_indices[g]], minlength=len(remaining))
        overshoots = holdout_N.sum() + len(group_indices[g]) - target > target - holdout_N.sum()
        if overshoots and holdout_N.any() or ((remaining - class_counts < 1) & (class_counts > 0)).any():
            continue  # further from the fraction than without it, or it would take a class out of training
        remaining = remaining - class_counts
        holdout_N[group_indices[g]] = True
    if not holdout_N.any():
        raise DataError(
            f"{images.source}: no group can be held out",
            expected="every class in two groups or more",
            remedy="split by class or by image",
        )
    return holdout_N
