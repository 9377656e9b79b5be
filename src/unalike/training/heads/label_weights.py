"""Weights of images by how far their nearest neighbors agree with their label, for fitting where labels are wrong.

A wrong label moves the mean of a class and widens the scatter within classes, by which a head in closed form is fitted: with
a tenth of the labels wrong it lost 5 points of R@1 on groceries, with three tenths 25 (docs/experiments/heads.md, 2026-12-01).
The weights are computed twice: from the trunk's features, and from the vectors of a head that is fitted with the first ones,
in which wrong labels stand out. Shape letters: N images, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unalike.errors import DataError
from unalike.metrics.diagnostics import VOTING_NEIGHBORS, outvoted_labels, suspected_labels, vote_weights
from unalike.numerics.nearest_neighbors import top_k
from unalike.training.heads.discriminant import fit_scatter

MAX_IMAGES = 10_000  # all pairs are compared: some seconds; time grows with the square
MIN_SUSPECTED_SHARE = 0.02  # right labels of photographs stayed below on four sets, 3 % of wrong ones above on three
LEAST_WEIGHT, TRUSTED_WEIGHT = 0.02, 0.5
RESIDUAL, SHRINKAGE = 0.5, 2.0  # of the head in whose vectors neighbors are compared


def label_weights(features_NF: np.ndarray, labels_N: np.ndarray, *, views: int = 1) -> np.ndarray:
    """Compute a weight per image: 1 where the votes of its neighbors are for its label, less where another label has more.

    Args:
        features_NF: frozen features (N, F), by which the images of a class need not be alike.
        labels_N: an integer label per image.
        views: number of views of each image, one after the other as blocks of rows; neighbors are those of the first views.

    Returns:
        Weights (N,), ``LEAST_WEIGHT`` to 1; 1 for images that are alone in their class.

    Raises:
        DataError: there are more than ``MAX_IMAGES`` images, or see ``fit_scatter``.
    """
    count = len(labels_N) // views
    check_count(count)
    vectors_ND = _head_vectors(features_NF[:count], labels_N[:count])
    return np.tile(_vote_weights(vectors_ND, labels_N[:count]), views)


def suspected_share(features_NF: np.ndarray, labels_N: np.ndarray) -> float:
    """Compute the share of images whose label is suspected (``metrics.diagnostics.suspected_labels``), 0 to 1.

    Args:
        features_NF: frozen features (N, F), one view of each image.
        labels_N: an integer label per image.

    Raises:
        DataError: see ``fit_scatter``.
    """
    return len(suspected_labels(_head_vectors(features_NF, labels_N), labels_N)) / max(1, len(labels_N))


def check_count(images: int) -> None:
    """Raise a DataError where neighbors of so many images would take too long."""
    if images > MAX_IMAGES:
        raise DataError(f"train.finish.label_weights is set for {images} images", expected=f"at most {MAX_IMAGES}",
                        remedy="leave train.finish.label_weights out")  # fmt: skip


def trusted_rows(weights_N: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Choose the rows to fine-tune on: those of weight ``TRUSTED_WEIGHT`` and more, and all of a class that has not two.

    Args:
        weights_N: the output of ``label_weights``.
        labels_N: an integer label per image.
    """
    trusted_N = weights_N >= TRUSTED_WEIGHT
    _, code_N = np.unique(labels_N, return_inverse=True)
    few_C = np.bincount(code_N, weights=trusted_N) < 2
    return np.flatnonzero(trusted_N | few_C[code_N])


def _head_vectors(features_NF: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Vectors of a head that is fitted with the weights of the features themselves."""
    weights_N = _vote_weights(features_NF, labels_N)
    scatter = fit_scatter(features_NF, labels_N, sqrt=True, weights_N=weights_N)
    return scatter.whiten(SHRINKAGE).equivalent_vectors(features_NF, RESIDUAL)


def _vote_weights(vectors_ND: np.ndarray, labels_N: np.ndarray | Sequence[int]) -> np.ndarray:
    """Votes of the nearest others for an image's label, over the most votes for any label."""
    _, code_N, count_C = np.unique(labels_N, return_inverse=True, return_counts=True)
    neighbors = top_k(vectors_ND, vectors_ND, min(VOTING_NEIGHBORS, len(code_N) - 1), exclude_self=True)
    votes_NK = vote_weights(neighbors.scores_QK)
    near_NK = code_N[neighbors.indices_QK]
    own_N = (votes_NK * (near_NK == code_N[:, None])).sum(axis=1)
    other_N = outvoted_labels(code_N, near_NK, votes_NK)[2]
    weights_N: np.ndarray = np.clip(own_N / np.maximum(np.maximum(own_N, other_N), 1e-12), LEAST_WEIGHT, 1.0)
    weights_N[count_C[code_N] < 2] = 1.0
    return weights_N
