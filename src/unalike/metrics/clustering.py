"""Clustering metrics: agreement of k-means clusters of the vectors with the classes, as AMI and NMI."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unalike.errors import UnalikeError, missing_extra
from unalike.metrics.labels import as_labels
from unalike.numerics.normalization import l2_normalize


def ami_nmi(
    vectors_ND: np.ndarray,
    labels_N: np.ndarray | Sequence[int],
    seed: int = 0,
    *,
    cluster_labels_N: np.ndarray | None = None,
    iterations: int = 20,
    max_vectors: int | None = 20_000,
) -> dict[str, float]:
    """Compute AMI and NMI of a k-means with as many clusters as there are classes, as pytorch-metric-learning does.

    Args:
        vectors_ND: Vectors (N, D); they are normalized.
        labels_N: Class index of each vector.
        seed: Seed of k-means++ and of the sample.
        cluster_labels_N: Cluster of each vector, where they were clustered elsewhere.
        iterations: Most iterations of k-means; there is one start.
        max_vectors: More vectors are sampled down to this number, because k-means costs N x classes; None takes all.

    Returns:
        {"AMI", "NMI"}.

    Raises:
        MissingExtra: scikit-learn is not installed.
        UnalikeError: There are no vectors, or some are NaN.
    """
    try:
        from sklearn.cluster import KMeans
        from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
    except ImportError as error:
        raise missing_extra("scikit-learn", "train", "AMI and NMI") from error
    labels_N = as_labels(labels_N, len(vectors_ND), "clustered")
    if not len(labels_N):
        raise UnalikeError("no vectors to cluster", expected="at least one image")
    if cluster_labels_N is None:
        if max_vectors is not None and len(labels_N) > max_vectors:
            rows = np.sort(np.random.default_rng(seed).choice(len(labels_N), max_vectors, replace=False))
            vectors_ND, labels_N = np.asarray(vectors_ND)[rows], labels_N[rows]
        clusters = len(np.unique(labels_N))
        means = KMeans(clusters, n_init=1, max_iter=iterations, random_state=seed)
        cluster_labels_N = means.fit_predict(l2_normalize(vectors_ND))
    return {
        "AMI": float(adjusted_mutual_info_score(labels_N, cluster_labels_N)),
        "NMI": float(normalized_mutual_info_score(labels_N, cluster_labels_N)),
    }
