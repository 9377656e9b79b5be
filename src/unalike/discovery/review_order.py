"""What to ask people first: the most uncertain images, of which no two are alike, and unknown images grouped into likely new classes.

Shape letters: N images, D vector width, K neighbors, S chosen images.
"""

from __future__ import annotations

import numpy as np

from unalike.discovery.linkage import average_linkage
from unalike.errors import UnalikeError
from unalike.numerics.nearest_neighbors import top_k
from unalike.numerics.normalization import l2_normalize

NEIGHBORS = 15  # of each image in the graph of neighbors


def group_likely_classes(vectors_ND: np.ndarray, min_cosine: float, *, neighbors: int = NEIGHBORS) -> np.ndarray:
    """Group images that are as near to one another as an image is to its class.

    Average linkage over the graph of nearest neighbors: two groups are merged while the mean cosine of their pairs is above
    ``min_cosine``. Memory: N x (D + ``neighbors``).

    Args:
        vectors_ND: embeddings of any length.
        min_cosine: cosine from which two images are of one class, such as the threshold of "unknown", -1..1.
        neighbors: neighbors of each image in the graph.

    Returns:
        Group of each image, int64 (N,): 0 .. G - 1, the largest first, of equal ones that of the first image; -1 for an image
        that is in no group.

    Raises:
        UnalikeError: NaN among the vectors.
    """
    unit_ND = l2_normalize(vectors_ND)
    if len(unit_ND) < 2:
        return np.full(len(unit_ND), -1, np.int64)
    _, neighbor_NK = top_k(unit_ND, unit_ND, neighbors, exclude_self=True)
    dendrogram = average_linkage(unit_ND, neighbor_NK, min_cosine=min_cosine)
    group_N = dendrogram.cut(len(dendrogram.cosine_M))
    size_G = np.bincount(group_N)
    number_G = np.empty(len(size_G), np.int64)
    number_G[np.argsort(-size_G, kind="stable")] = np.arange(len(size_G))
    number_G[size_G < 2] = -1
    numbers_N: np.ndarray = number_G[group_N]
    return numbers_N


def order_by_uncertainty(vectors_ND: np.ndarray, weight_N: np.ndarray, count: int) -> np.ndarray:
    """Choose images: the most uncertain first, each as unlike those before it as its uncertainty allows.

    The next one is that of the highest weight x (1 - highest cosine to one that is chosen): of ten pictures of one thing one comes
    first, and the nine others last. One product of N x D for each image that is chosen.

    Args:
        vectors_ND: embeddings of any length.
        weight_N: uncertainty of each, 0 or above.
        count: most images to choose.

    Returns:
        Indices of the chosen images, int64 (S,), in order; of equal ones the lower index first.

    Raises:
        UnalikeError: the numbers differ, a weight is negative or not finite, or NaN is among the vectors.
    """
    unit_ND, weight_N = l2_normalize(vectors_ND), np.asarray(weight_N, np.float64)
    if len(weight_N) != len(unit_ND) or not np.all(np.isfinite(weight_N)) or np.any(weight_N < 0):
        raise UnalikeError(f"{len(weight_N)} weights of {len(unit_ND)} images", expected="one of 0 or above for each")
    order: list[int] = []
    # A picture and its copy differ by rounding alone; the floor keeps the order by weight among copies.
    distance_N, is_open_N = np.ones(len(unit_ND)), np.ones(len(unit_ND), bool)
    for _ in range(min(count, len(unit_ND))):
        gain_N = np.where(is_open_N, weight_N * np.maximum(distance_N, 1e-6), -1.0)
        best = int(gain_N.argmax())
        order.append(best)
        is_open_N[best] = False
        distance_N = np.minimum(distance_N, 1 - unit_ND @ unit_ND[best])
    return np.array(order, np.int64)
