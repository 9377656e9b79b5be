"""How well k-means clusters of the vectors agree with the classes: AMI and NMI."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unalike.errors import UnalikeError, missing_extra
from unalike.metrics.knn import as_labels, unit


def ami_nmi(
    vectors_ND: np.ndarray,
    labels_N: np.ndarray | Sequence[int],
    seed: int = 0,
    *,
    cluster_labels_N: np.ndarray | None = None,
    iterations: int = 20,
    most: int | None = 20_000,
) -> dict[str, float]:
    """{"AMI", "NMI"} of a k-means with as many clusters as there are classes (as pytorch-metric-learning does).

    Unit vectors, k-means++ from ``seed``, one start, ``iterations`` at most. More than ``most`` vectors are sampled
    down to that (seeded; None takes all), because k-means costs N x classes. ``cluster_labels_N`` takes clusters made
    elsewhere. Raises MissingExtra without scikit-learn, UnalikeError for NaN or empty input.
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
        if most is not None and len(labels_N) > most:
            chosen = np.sort(np.random.default_rng(seed).choice(len(labels_N), most, replace=False))
            vectors_ND, labels_N = np.asarray(vectors_ND)[chosen], labels_N[chosen]
        clusters = len(np.unique(labels_N))
        means = KMeans(clusters, n_init=1, max_iter=iterations, random_state=seed)
        cluster_labels_N = means.fit_predict(unit(vectors_ND))
    return {
        "AMI": float(adjusted_mutual_info_score(labels_N, cluster_labels_N)),
        "NMI": float(normalized_mutual_info_score(labels_N, cluster_labels_N)),
    }
