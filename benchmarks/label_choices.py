"""Ways to choose the next images to label, beside ``unalike.discovery.label_choice``: random, coverage, k-center, margin, BADGE.

Each is ``choose(round, count) -> indices``. Shape letters: N images, L labeled, D vector width, C classes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unalike.discovery.label_choice import MARGIN_SCALE, UNLABELED, LabelChooser, class_margins
from unalike.numerics.nearest_neighbors import top_k

TEMPERATURE = 0.1  # of the softmax over classes' cosines, for BADGE
COVER_NEIGHBORS = 50


@dataclass
class Round:
    """What is known when the next images are chosen.

    Attributes:
        chooser: The product's chooser, whose whitened unit vectors serve all but random choice.
        labels_N: Class of each image, UNLABELED where it is not known.
        fitted_ND: Unit vectors of the head that was fitted to these labels; None before the first.
        rng: The method's own random numbers.
    """

    chooser: LabelChooser | None
    labels_N: np.ndarray
    fitted_ND: np.ndarray | None
    rng: np.random.Generator

    @property
    def free(self) -> np.ndarray:
        """Indices of the images without a label."""
        return np.flatnonzero(self.labels_N == UNLABELED)


def at_random(state: Round, count: int) -> np.ndarray:
    return state.rng.permutation(state.free)[:count]


def by_clusters_and_margin(state: Round, count: int) -> np.ndarray:
    """The product's choice."""
    return state.chooser.choose(state.labels_N, count, fitted_ND=state.fitted_ND)


def by_clusters(state: Round, count: int) -> np.ndarray:
    """The product's choice without margins, which one class alone does not have: TypiClust with average linkage."""
    return state.chooser.choose(np.where(state.labels_N == UNLABELED, UNLABELED, 0), count)


def by_margin(state: Round, count: int) -> np.ndarray:
    """The least margins (Scheffer et al. 2001); before the first labels by clusters."""
    if state.fitted_ND is None:
        return by_clusters(state, count)
    margin_N = class_margins(state.fitted_ND, state.labels_N)
    return state.free[np.argsort(margin_N[state.free], kind="stable")[:count]]


def by_distance(state: Round, count: int) -> np.ndarray:
    """k-center, greedy (Sener and Savarese 2018): the image that is farthest from all that are labeled."""
    unit_ND, chosen = state.chooser.unit_ND, []
    labeled = np.flatnonzero(state.labels_N != UNLABELED)
    best_N = (unit_ND @ unit_ND[labeled].T).max(axis=1) if len(labeled) else np.full(len(unit_ND), -1.0)
    free_N = state.labels_N == UNLABELED
    for _ in range(count):
        started = len(labeled) or chosen
        image = int(np.where(free_N, best_N, 9).argmin()) if started else int(state.rng.choice(state.free))
        chosen.append(image)
        free_N[image] = False
        best_N = np.maximum(best_N, unit_ND @ unit_ND[image])
    return np.array(chosen)


def by_cover_and_margin(state: Round, count: int) -> np.ndarray:
    """Greedy facility location on the graph of neighbors, each image weighted by its margin: near what is uncertain and uncovered."""
    unit_ND, labeled_N = state.chooser.unit_ND, state.labels_N != UNLABELED
    cosine_NK, near_NK = top_k(unit_ND, unit_ND, COVER_NEIGHBORS)
    cosine_NK = np.maximum(cosine_NK, 0)
    covered_N = (
        np.maximum((unit_ND @ unit_ND[labeled_N].T).max(axis=1), 0) if labeled_N.any() else np.zeros(len(unit_ND))
    )
    fitted_ND = unit_ND if state.fitted_ND is None else state.fitted_ND
    weight_N = np.exp(-class_margins(fitted_ND, state.labels_N) / MARGIN_SCALE)

    def gain(n: int) -> float:
        return float(weight_N[near_NK[n]] @ np.maximum(cosine_NK[n] - covered_N[near_NK[n]], 0))

    queue = [(-gain(n), n) for n in state.free.tolist()]
    heapq.heapify(queue)
    chosen: list[int] = []
    while len(chosen) < count:
        former, image = heapq.heappop(queue)
        if -gain(image) != former:
            heapq.heappush(queue, (-gain(image), image))
            continue
        chosen.append(image)
        covered_N[near_NK[image]] = np.maximum(covered_N[near_NK[image]], cosine_NK[image])
    return np.array(chosen)


def by_gradient(state: Round, count: int) -> np.ndarray:
    """BADGE (Ash et al. 2020): k-means++ on the gradients of a softmax over classes' cosines; products in place of the embeddings."""
    if state.fitted_ND is None:
        return by_clusters(state, count)
    vectors_ND, rows = state.fitted_ND, np.flatnonzero(state.labels_N != UNLABELED)
    classes = np.unique(state.labels_N[rows])
    nearest = [(vectors_ND @ vectors_ND[rows[state.labels_N[rows] == label]].T).max(axis=1) for label in classes]
    cosine_NC = np.stack(nearest, axis=1)
    share_NC = np.exp((cosine_NC - cosine_NC.max(axis=1, keepdims=True)) / TEMPERATURE)
    share_NC /= share_NC.sum(axis=1, keepdims=True)
    share_NC[np.arange(len(share_NC)), share_NC.argmax(axis=1)] -= 1
    share_LC, vectors_LD = share_NC[state.free], vectors_ND[state.free]
    square_L = (share_LC**2).sum(axis=1)

    def distance(n: int) -> np.ndarray:
        return np.maximum(square_L + square_L[n] - 2 * (share_LC @ share_LC[n]) * (vectors_LD @ vectors_LD[n]), 0)

    chosen = [int(square_L.argmax())]
    least_L = distance(chosen[0])
    while len(chosen) < count:
        least_L[chosen] = 0
        chosen.append(int(state.rng.choice(len(least_L), p=least_L / least_L.sum())))
        least_L = np.minimum(least_L, distance(chosen[-1]))
    return state.free[chosen]


METHODS: dict[str, Callable[[Round, int], np.ndarray]] = {
    "random": at_random, "clusters and margin": by_clusters_and_margin, "clusters": by_clusters, "margin": by_margin,
    "k-center": by_distance, "cover and margin": by_cover_and_margin, "BADGE": by_gradient,
}  # fmt: skip
