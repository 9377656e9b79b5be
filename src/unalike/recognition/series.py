"""Series of similar photographs among the enrolled images of a class, which are held out together.

Photographs of one thing come in series: the same shelf, the same minute. An enrolled image that is compared with the rest of
its series finds a near duplicate, and such a trial says nothing about the next photograph: of 14 classes of groceries 5 % of
enrolled images were below a threshold, and 67 % of new photographs (2026-11-29). Two images of a class are of one series if
they are more alike than an image usually is to the most similar image of another class (average linkage). Where classes are
further apart than that, so that each would be one series, the limit is half way between the usual cosine of two images of a
class and that of an image to the most similar one.

Shape letters: N enrolled images, S of one class, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unalike.recognition.snapshot import EnrolledNames, GallerySnapshot

FOLDS = 4
# Images of a class that are linked pair by pair; further ones join the series of the linked image that they are nearest to.
MAX_LINKED = 200


def assign_folds(
    snapshot: GallerySnapshot, rows_R: np.ndarray, between_classes: float, *, seed: int = 0, folds: int = FOLDS
) -> np.ndarray:
    """Distribute enrolled images over folds, so that no series of a class is divided.

    Args:
        snapshot: the gallery.
        rows_R: sorted indices of the images.
        between_classes: usual cosine of an image to the most similar image of another class.
        seed: of the draws.
        folds: number of folds.

    Returns:
        int64 (R,): the fold of each image; -1 for the images of a class that is one series.
    """
    rng = np.random.default_rng([seed, 41])
    codes_R, fold_R = snapshot.codes_N[rows_R], np.full(len(rows_R), -1, np.int64)
    order = np.argsort(codes_R, kind="stable")
    classes = [part for part in np.split(order, np.flatnonzero(np.diff(codes_R[order])) + 1) if len(part) > 1]
    vectors = [snapshot.vectors(rows_R[part]).astype(np.float32) for part in classes]
    similarity = _similarity_of_series(vectors, between_classes, rng)
    for part, unit_SD in zip(classes, vectors, strict=True):
        series = _series(unit_SD, similarity, rng)
        count = int(series.max()) + 1
        if count > 1:
            # The largest series first, each to the fold that holds the fewest images of the class.
            sizes, images = np.bincount(series), np.zeros(min(folds, count), np.int64)
            fold_of = np.empty(count, np.int64)
            permutation = rng.permutation(count)
            for one in permutation[np.argsort(-sizes[permutation], kind="stable")]:
                fold_of[one] = int(images.argmin())
                images[fold_of[one]] += sizes[one]
            fold_R[part] = (fold_of[series] + rng.integers(folds)) % folds
    return fold_R


def _similarity_of_series(vectors: Sequence[np.ndarray], between_classes: float, rng: np.random.Generator) -> float:
    """The cosine from which two images of a class count as of one series."""
    usual, nearest = [], []
    for unit_SD in vectors:
        sample = unit_SD if len(unit_SD) <= MAX_LINKED else unit_SD[rng.choice(len(unit_SD), MAX_LINKED, replace=False)]
        cosine_SS = sample @ sample.T
        usual.append(cosine_SS[np.triu_indices(len(sample), 1)])
        np.fill_diagonal(cosine_SS, -np.inf)
        nearest.append(cosine_SS.max(axis=1))
    if not usual:
        return between_classes
    within = float(np.median(np.concatenate(usual)))
    return max(
        between_classes,
        within if between_classes >= within else (within + float(np.median(np.concatenate(nearest)))) / 2,
    )


def _series(unit_SD: np.ndarray, similarity: float, rng: np.random.Generator) -> np.ndarray:
    """The series of each image of a class, numbered without gaps."""
    rows = np.arange(len(unit_SD))
    if len(rows) > MAX_LINKED:
        rows = np.sort(rng.choice(rows, MAX_LINKED, replace=False))
    group = average_linkage(unit_SD[rows] @ unit_SD[rows].T, similarity)
    if len(rows) < len(unit_SD):
        group = group[(unit_SD @ unit_SD[rows].T).argmax(axis=1)]
    return np.unique(group, return_inverse=True)[1]


def average_linkage(cosine_SS: np.ndarray, similarity: float) -> np.ndarray:
    """Merge the two groups of highest mean cosine while it is at least ``similarity``; the group of each image.

    Written here since a deployed recognizer has no scipy; a test compares the two. Memory S x S, time S^3 in numpy.
    """
    mean = cosine_SS.astype(np.float64).copy()
    np.fill_diagonal(mean, -np.inf)
    size, group = np.ones(len(mean)), np.arange(len(mean))
    while len(mean) > 1:
        first, second = sorted(np.unravel_index(int(mean.argmax()), mean.shape))
        if not mean[first, second] >= similarity:
            break
        mean_of_both = (mean[first] * size[first] + mean[second] * size[second]) / (size[first] + size[second])
        mean[first], mean[:, first] = mean_of_both, mean_of_both
        mean[first, first] = mean[second] = mean[:, second] = -np.inf
        size[first] += size[second]
        group[group == second] = first
    return group


def rows_of(snapshot: GallerySnapshot, rows_R: np.ndarray) -> GallerySnapshot:
    """A snapshot in memory of some rows of another one, with the same class codes."""
    return replace(
        snapshot, added_MD=snapshot.vectors(rows_R), codes_N=snapshot.codes_N[rows_R], ids_N=snapshot.ids_N[rows_R],
        names=EnrolledNames(), file=None, rows_F=None,
    )  # fmt: skip
