"""Diagnostics of a data set from its vectors: embedding map, hard pairs, confused classes, suspected labels, near-duplicates.

Every function is pure, needs numpy alone, and never holds an N x N matrix: neighbors come from ``scan``.

Shape letters: N images, D vector width, K neighbors, P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unalike.errors import UnalikeError
from unalike.metrics.labels import as_labels
from unalike.numerics.nearest_neighbors import EXCLUDED, Neighbors, scan, top_k
from unalike.numerics.normalization import l2_normalize, unit_vectors

# Above this many images t-SNE takes minutes; above the second number the axes of the map come from a sample.
MOST_FOR_TSNE, MOST_FOR_AXES = 1500, 5000
# A near-duplicate is nearer than the median nearest neighbor by so many deviations (the usual bound for an outlier of
# a normal distribution), and by this factor of distance; cosines of 1 - EQUAL and above are one picture.
DEVIATIONS, FACTOR, EQUAL = 3.5, 10.0, 1e-5
# Neighbors of an image that vote on its label, and those among which near-duplicates are looked for.
VOTING_NEIGHBORS, DUPLICATE_NEIGHBORS = 8, 10


def embedding_map(vectors_ND: np.ndarray, seed: int = 0, *, most: int = MOST_FOR_TSNE) -> np.ndarray:
    """Project vectors to the plane, so that similar images lie near one another; the axes have no meaning.

    t-SNE (cosine) where scikit-learn is installed and 10 <= N <= ``most``, else the two principal axes of the unit
    vectors, computed from at most MOST_FOR_AXES of them.

    Args:
        vectors_ND: Vectors (N, D).
        seed: Seed of t-SNE and of the sample.
        most: Most images for t-SNE.

    Returns:
        Coordinates (N, 2), float64.

    Raises:
        UnalikeError: A vector holds NaN, or the array is not two-dimensional.
    """
    unit_ND = l2_normalize(vectors_ND)
    flat_N2 = _principal(unit_ND, seed)
    if not 10 <= len(unit_ND) <= most or not flat_N2.any():
        return flat_N2
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        return flat_N2
    # Starting from the principal axes keeps the map's broad order; their spread of 1e-4 is what t-SNE expects.
    start_N2 = (1e-4 * flat_N2 / max(float(flat_N2[:, 0].std()), 1e-12)).astype(np.float32)
    plane = TSNE(2, perplexity=min(30.0, (len(unit_ND) - 1) / 3), init=start_N2, metric="cosine", random_state=seed)
    return np.asarray(plane.fit_transform(unit_ND), np.float64)


def _principal(unit_ND: np.ndarray, seed: int) -> np.ndarray:
    """The first two principal components, (N, 2); zeros where there are fewer. Signs: the largest loading is positive."""
    out_N2 = np.zeros((len(unit_ND), 2))
    if len(unit_ND) < 2 or not unit_ND.shape[1]:
        return out_N2
    sample = unit_ND
    if len(unit_ND) > MOST_FOR_AXES:
        sample = unit_ND[np.sort(np.random.default_rng(seed).choice(len(unit_ND), MOST_FOR_AXES, replace=False))]
    mean_D = sample.mean(axis=0, dtype=np.float64)
    deviations_ND = sample - mean_D
    values, axes_DA = np.linalg.eigh(deviations_ND.T @ deviations_ND)
    axes_DA = axes_DA[:, ::-1][:, :2]
    axes_DA = axes_DA * np.where(axes_DA[np.abs(axes_DA).argmax(axis=0), range(axes_DA.shape[1])] < 0, -1, 1)
    axes_DA = axes_DA[:, values[::-1][:2] > 1e-12 * len(sample)]
    out_N2[:, : axes_DA.shape[1]] = (unit_ND - mean_D) @ axes_DA
    return out_N2


@dataclass(frozen=True)
class Pairs:
    """Pairs of images.

    Attributes:
        pairs_P2: Indices of the images (P, 2), the lower first within one set.
        scores_P: Cosine of each pair (P,).
    """

    pairs_P2: np.ndarray
    scores_P: np.ndarray

    def __len__(self) -> int:
        return len(self.scores_P)


def hardest_pairs(vectors_ND: np.ndarray, labels_N: np.ndarray | Sequence[int], k: int = 12) -> tuple[Pairs, Pairs]:
    """Find the most similar pairs of different classes and the least similar pairs within a class.

    Exact: a pair of the k best is among the k best of each of its images.

    Args:
        vectors_ND: Vectors (N, D).
        labels_N: Class index of each vector.
        k: Most pairs of each sort, at least 1.

    Returns:
        (pairs of different classes, pairs within a class), the hardest first; equal scores are ordered by index.

    Raises:
        UnalikeError: k is below 1, a vector holds NaN, or a label is negative.
    """
    if k < 1:
        raise UnalikeError(f"k is {k}", expected="at least 1")
    unit_ND = l2_normalize(vectors_ND)
    labels_N = as_labels(labels_N, len(unit_ND), "paired")

    def hide_own_class(scores_BC: np.ndarray, top: int, left: int) -> None:
        rows, columns = labels_N[top : top + scores_BC.shape[0]], labels_N[left : left + scores_BC.shape[1]]
        scores_BC[rows[:, None] == columns[None, :]] = EXCLUDED

    neighbors = max(1, min(k, len(unit_ND)))
    scores_NK, places_NK = scan(
        unit_ND, lambda left, right: unit_ND[left:right], len(unit_ND), neighbors, hide=hide_own_class
    )
    return _first_pairs(scores_NK, places_NK, k), _farthest(unit_ND, labels_N, k)


def _farthest(unit_ND: np.ndarray, labels_N: np.ndarray, k: int) -> Pairs:
    """The k pairs of lowest cosine within a class: the references' signs are flipped and the own row is excluded."""
    by_class = [Pairs(np.zeros((0, 2), np.int64), np.zeros(0, np.float32))]
    order_N = np.argsort(labels_N, kind="stable")
    for members in np.split(order_N, np.flatnonzero(np.diff(labels_N[order_N])) + 1):
        if len(members) < 2:
            continue
        minus_MD = -unit_ND[members]
        scores, places = scan(unit_ND[members], lambda left, right, t=minus_MD: t[left:right], len(members),  # type: ignore[misc]
                              min(k, len(members) - 1), hide=_hide_diagonal)  # fmt: skip
        best = _first_pairs(scores, places, k)
        by_class.append(Pairs(members[best.pairs_P2], -best.scores_P))
    pairs_P2 = np.concatenate([pairs.pairs_P2 for pairs in by_class])
    scores_P = np.concatenate([pairs.scores_P for pairs in by_class])
    order = np.lexsort((pairs_P2[:, 1], pairs_P2[:, 0], scores_P))[:k]
    return Pairs(pairs_P2[order], scores_P[order])


def _hide_diagonal(scores_BC: np.ndarray, top: int, left: int) -> None:
    own = np.arange(max(top, left), min(top + scores_BC.shape[0], left + scores_BC.shape[1]))
    scores_BC[own - top, own - left] = EXCLUDED


def _first_pairs(scores_NK: np.ndarray, places_NK: np.ndarray, k: int | None = None) -> Pairs:
    """Neighbors within one set as pairs, each once, best first; indices of -1 do not count."""
    rows, columns = np.nonzero(places_NK >= 0)
    pairs_P2 = np.sort(np.stack([rows, places_NK[rows, columns]], axis=1).astype(np.int64), axis=1)
    scores_P = scores_NK[rows, columns]
    # Both directions of a pair may differ in the last bit; the first of them stands for it.
    pairs_P2, first = np.unique(pairs_P2, axis=0, return_index=True)
    scores_P = scores_P[first]
    order = np.argsort(-scores_P, kind="stable")[:k]
    return Pairs(pairs_P2[order], scores_P[order])


@dataclass(frozen=True)
class Confusion:
    """How often two classes are confused.

    Attributes:
        a, b: Class indices, a < b.
        a_as_b, b_as_a: Number of images of one class that were predicted as the other.
        a_images, b_images: Number of images of each class.
    """

    a: int
    b: int
    a_as_b: int
    b_as_a: int
    a_images: int
    b_images: int

    @property
    def count(self) -> int:
        """Confusions in both directions."""
        return self.a_as_b + self.b_as_a

    @property
    def a_rate(self) -> float:
        """Share of a's images taken for b; NaN where a has none."""
        return self.a_as_b / self.a_images if self.a_images else math.nan

    @property
    def b_rate(self) -> float:
        """Share of b's images taken for a; NaN where b has none."""
        return self.b_as_a / self.b_images if self.b_images else math.nan


def confused_classes(labels_N: np.ndarray | Sequence[int], predicted_N: np.ndarray | Sequence[int]) -> list[Confusion]:
    """Count the confusions of each pair of classes.

    Args:
        labels_N: True class index of each image.
        predicted_N: Predicted class index of each image.

    Returns:
        The pairs with confusions, most frequent first; ties are ordered by class index.

    Raises:
        UnalikeError: The lengths differ, or a label is negative.
    """
    labels_N = as_labels(labels_N, len(labels_N), "true")
    predicted_N = as_labels(predicted_N, len(labels_N), "predicted")
    if not len(labels_N):
        return []
    images = np.bincount(labels_N, minlength=int(predicted_N.max()) + 1)
    wrong = labels_N != predicted_N
    ways, counts = np.unique(np.stack([labels_N[wrong], predicted_N[wrong]], axis=1), axis=0, return_counts=True)
    times = {(int(a), int(b)): int(n) for (a, b), n in zip(ways, counts, strict=True)}
    confusions = [
        Confusion(a, b, times.get((a, b), 0), times.get((b, a), 0), int(images[a]), int(images[b]))
        for a, b in sorted({(min(way), max(way)) for way in times})
    ]
    return sorted(confusions, key=lambda confusion: -confusion.count)


@dataclass(frozen=True)
class Suspicion:
    """An image whose neighbors agree on another class.

    Attributes:
        image: Index of the image.
        label: Its class index.
        suggested: Class index of most of its neighbors.
        score: Weighted votes for ``suggested`` minus those for ``label``, above 0, at most 1.
        chance: Probability of so many neighbors of ``suggested`` for an image of ``label``, 0..1.
        neighbors: Indices of its neighbors, nearest first.
    """

    image: int
    label: int
    suggested: int
    score: float
    chance: float
    neighbors: tuple[int, ...]


def suspected_labels(
    vectors_ND: np.ndarray, labels_N: np.ndarray | Sequence[int], k: int = VOTING_NEIGHBORS, *, wrong: float = 0.05,
    neighbors: Neighbors | None = None,
) -> list[Suspicion]:  # fmt: skip
    """Find images that are probably labeled wrongly.

    Leave-one-out: the k nearest others vote, weighted by exp((cosine - nearest cosine) / typical fall over the k).
    Suspected is who has more weighted votes, and at least half of them, for another class, beyond chance:

    - chance is the binomial tail of m or more of k neighbors being of class s, at the rate at which neighbors of the
      *other* images of the given class c are (so look-alike classes explain their own confusions), smoothed by one
      image's votes at the rate of a shuffled labeling (n_s / (N - 1));
    - Benjamini-Hochberg over all images that can be tested keeps the share of false alarms near ``wrong``, were votes
      independent; neighbors shot in one series are not, so this is a list to review, not a decision.

    An image that is alone in its class cannot be tested and is left out.

    Args:
        vectors_ND: Vectors (N, D).
        labels_N: Class index of each vector.
        k: Number of neighbors that vote, at least 1.
        wrong: Target share of false alarms among the suspicions, 0..1.
        neighbors: At least k neighbors of each image, itself left out, where they are known; else they are searched.

    Returns:
        The suspicions, least probable first (``chance``, then ``score``).

    Raises:
        UnalikeError: k is below 1, a vector holds NaN, or a label is negative.
    """
    if k < 1:
        raise UnalikeError(f"k is {k}", expected="at least 1")
    names, codes_N = np.unique(as_labels(labels_N, len(vectors_ND), "judged"), return_inverse=True)
    if len(names) < 2:
        l2_normalize(vectors_ND)
        return []
    counts_C = np.bincount(codes_N)
    if neighbors is None:
        neighbors = top_k(vectors_ND, vectors_ND, k, exclude_self=True)
    scores_NK, places_NK = neighbors.first(k)
    near_NK = codes_N[places_NK]
    weights_NK = vote_weights(scores_NK)
    suggested_N, margin_N, share_N = outvoted_labels(codes_N, near_NK, weights_NK)
    testable = np.flatnonzero(counts_C[codes_N] > 1)
    chance_N = np.ones(len(codes_N))
    for i in testable[(margin_N[testable] > 0) & (share_N[testable] >= 0.5)]:
        label, other = codes_N[i], suggested_N[i]
        siblings = np.flatnonzero(codes_N == label)
        votes = np.count_nonzero(near_NK[siblings] == other)
        own = int(np.count_nonzero(near_NK[i] == other))
        width = near_NK.shape[1]
        rate = (votes - own + width * counts_C[other] / (len(codes_N) - 1)) / (width * len(siblings))
        chance_N[i] = _binomial_tail(own, width, rate)
    # Benjamini and Hochberg, 1995: all up to the last that lies below its share of ``wrong``.
    order = testable[np.lexsort((-margin_N[testable], chance_N[testable]))]
    below = np.flatnonzero(chance_N[order] <= wrong * (1 + np.arange(len(order))) / max(1, len(order)))
    rows = order[: below[-1] + 1] if len(below) else order[:0]
    return [
        Suspicion(int(i), int(names[codes_N[i]]), int(names[suggested_N[i]]), float(margin_N[i]), float(chance_N[i]),
                  tuple(places_NK[i].tolist()))
        for i in rows if margin_N[i] > 0
    ]  # fmt: skip


def vote_weights(scores_NK: np.ndarray) -> np.ndarray:
    """Weights of the votes of k neighbors, which sum to 1: exp((cosine - nearest cosine) / typical fall over the k).

    Args:
        scores_NK: Cosines (N, K) of the neighbors, best first.

    Returns:
        Weights (N, K), float64.
    """
    fall = max(float(np.median(scores_NK[:, 0] - scores_NK[:, -1])), 1e-6)
    weights_NK = np.exp((scores_NK - scores_NK[:, :1]).astype(np.float64) / fall)
    normalized_NK: np.ndarray = weights_NK / weights_NK.sum(axis=1, keepdims=True)
    return normalized_NK


def outvoted_labels(
    codes_N: np.ndarray, near_NK: np.ndarray, weights_NK: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(another class with most votes, its votes less the own class's, its votes); ties go to the nearer neighbor."""
    suggested_N, share_N = codes_N.copy(), np.zeros(len(codes_N))
    own_N = (weights_NK * (near_NK == codes_N[:, None])).sum(axis=1)
    for column in range(near_NK.shape[1]):
        candidate_N = near_NK[:, column]
        votes_N = (weights_NK * (near_NK == candidate_N[:, None])).sum(axis=1)
        better = (candidate_N != codes_N) & (votes_N > share_N + 1e-12)
        suggested_N[better], share_N[better] = candidate_N[better], votes_N[better]
    return suggested_N, share_N - own_N, share_N


def _binomial_tail(successes: int, trials: int, rate: float) -> float:
    """P(X >= successes) for X binomial."""
    rate = min(max(rate, 0.0), 1.0)
    terms = (math.comb(trials, n) * rate**n * (1 - rate) ** (trials - n) for n in range(successes, trials + 1))
    return min(1.0, math.fsum(terms))


@dataclass(frozen=True)
class Duplicates(Pairs):
    """Pairs of near-duplicates (index in a, index in b), most similar first; within one set each pair once.

    Attributes:
        threshold: Cosine from which a pair counts as near-duplicate.
    """

    threshold: float


def near_duplicates(
    vectors_ND: np.ndarray, others_MD: np.ndarray | None = None, threshold: float | None = None, *,
    k: int = DUPLICATE_NEIGHBORS, neighbors: Neighbors | None = None,
) -> Duplicates:  # fmt: skip
    """Find pairs of nearly equal images within a set, or between two, among each image's k nearest.

    Args:
        vectors_ND: Vectors (N, D).
        others_MD: Vectors of the other set (M, D); None compares the set with itself.
        threshold: Cosine from which a pair counts, -1..1. None chooses it from the data: the nearest-neighbor distances
            1 - cosine of all images give a median and a median absolute deviation of their logarithm; a duplicate lies
            below the median by 3.5 deviations *and* by a factor of ten. A cosine of 0.99999 always counts: where most
            images have a copy the median is no guide.
        k: Number of neighbors of each image that are compared, at least 1.
        neighbors: At least k neighbors of each image, itself left out in one set, where they are known; else they are searched.

    Returns:
        The pairs and the threshold.

    Raises:
        UnalikeError: A vector holds NaN, the widths differ, the threshold is outside -1..1, or k is below 1.
    """
    if threshold is not None and not -1 <= threshold <= 1:
        raise UnalikeError(f"threshold is {threshold}", expected="a cosine from -1 to 1")
    same = others_MD is None
    if neighbors is None:
        unit_ND = unit_vectors(vectors_ND)
        neighbors = top_k(unit_ND, unit_ND if others_MD is None else unit_vectors(others_MD), k, exclude_self=same)
    scores_NK, places_NK = neighbors.first(k)
    if threshold is None:
        threshold = duplicate_cosine(scores_NK[:, 0]) if scores_NK.size else 1 - EQUAL
    places_NK = np.where(scores_NK >= threshold, places_NK, -1)
    if same:
        pairs = _first_pairs(scores_NK, places_NK)
        return Duplicates(pairs.pairs_P2, pairs.scores_P, threshold)
    rows, columns = np.nonzero(places_NK >= 0)
    order = np.argsort(-scores_NK[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    return Duplicates(np.stack([rows, places_NK[rows, columns]], axis=1), scores_NK[rows, columns], threshold)


def duplicate_cosine(nearest_N: np.ndarray) -> float:
    """The cosine from which a nearest neighbor is nearer than the set's nearest neighbors are."""
    distance_N = np.log(np.maximum(1.0 - nearest_N.astype(np.float64), EQUAL))
    middle = float(np.median(distance_N))
    deviation = 1.4826 * float(np.median(np.abs(distance_N - middle)))  # that of a normal distribution
    return min(1.0 - math.exp(middle - max(DEVIATIONS * deviation, math.log(FACTOR))), 1.0 - EQUAL)
