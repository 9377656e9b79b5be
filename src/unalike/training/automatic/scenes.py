"""Scenes of a class: series of similar images, which are never divided between fitting and queries.

Photographs of one class come in series: the same shelf, the same minute. Held out at random, such an image finds its near
duplicate, and every model scores 95 % (Grocery, 2026-11-24: 95.6 % against 57.1 % on new photographs). So the images of a
class are divided into series, the series into scenes, and a query is never compared with a reference of its own scene.

Two images of a class are of one series if they are more alike than an image usually is to the most similar image of another
class (average linkage). Estimates by these series and by single images lie on both sides of what withheld photographs give
(docs/experiments/automatic-training.md, 2026-11-29).
Shape letters: N images, D dimensions, S sampled images, K series, G groups, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unalike.numerics.normalization import l2_normalize

MAX_SCENES = 4  # per class
# Images by which the similarity of classes is measured, images that these are compared with, and images of a class that
# are linked pair by pair; larger classes are first divided into as many clusters.
SAMPLED_QUERIES, SAMPLED_REFERENCES, MAX_LINKED = 2000, 10_000, 2000


def find_series(features_ND: np.ndarray, labels_N: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Divide each class into series of similar images.

    Args:
        features_ND: features (N, D).
        labels_N: an integer label per image.
        seed: seed of the sample by which the similarity of classes is measured.

    Returns:
        A series per image (N), numbered over all classes.
    """
    unit_ND = l2_normalize(features_ND)
    threshold = _similarity_of_classes(unit_ND, labels_N, np.random.default_rng([seed, 23]))
    series_N = np.zeros(len(labels_N), np.int64)
    count = 0
    for label in np.unique(labels_N):
        rows = np.flatnonzero(labels_N == label)
        series_N[rows] = count + _link(unit_ND[rows], threshold, seed)
        count = int(series_N[rows].max()) + 1
    return series_N


def _similarity_of_classes(unit_ND: np.ndarray, labels_N: np.ndarray, rng: np.random.Generator) -> float:
    """Median cosine of an image to the most similar image of another class; -1 with a single class."""
    references = np.arange(len(labels_N))
    if len(references) > SAMPLED_REFERENCES:
        references = np.sort(rng.choice(references, SAMPLED_REFERENCES, replace=False))
    queries = references
    if len(queries) > SAMPLED_QUERIES:
        queries = np.sort(rng.choice(queries, SAMPLED_QUERIES, replace=False))
    cosines = unit_ND[queries] @ unit_ND[references].T
    cosines[labels_N[queries][:, None] == labels_N[references][None]] = -1
    return float(np.median(cosines.max(axis=1)))


def _link(unit_ND: np.ndarray, threshold: float, seed: int) -> np.ndarray:
    """Group the images of a class by average linkage of cosines of at least ``threshold``; numbered without gaps."""
    if len(unit_ND) < 2:
        return np.zeros(len(unit_ND), np.int64)
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(unit_ND) > MAX_LINKED:
        from sklearn.cluster import MiniBatchKMeans

        clusters = MiniBatchKMeans(MAX_LINKED // 2, n_init=1, random_state=seed).fit(unit_ND)
        cluster_N = np.unique(clusters.labels_, return_inverse=True)[1]
        means_KD = l2_normalize(np.stack([unit_ND[cluster_N == k].mean(axis=0) for k in range(cluster_N.max() + 1)]))
        scene_N: np.ndarray = _link(means_KD, threshold, seed)[cluster_N]
        return scene_N
    merges = linkage(np.maximum(0.0, 1 - (unit_ND @ unit_ND.T)[np.triu_indices(len(unit_ND), 1)]), "average")
    series: np.ndarray = fcluster(merges, 1 - threshold, "distance") - 1
    return series


def assign_scenes(
    features_ND: np.ndarray, labels_N: np.ndarray, *, groups: Sequence[str] | None = None, seed: int = 0
) -> np.ndarray:
    """Divide each class into scenes of whole series of similar images; a group of the user's is never divided.

    A class of n images has about n // 2 scenes at most, so that the rest of it can serve as reference; each image of a
    class of two is a scene. A class that is one series is divided by similarity. Scenes of a class are numbered from the
    largest to the smallest, starting at a number drawn for each class, so that each scene number holds about as many images.

    Args:
        features_ND: features (N, D) to cluster by.
        labels_N: an integer label per image.
        groups: a group per image from a manifest (a shop, a day, a part number), empty for none. A class's groups are its
            scenes; a class that lies in one group has one scene.
        seed: seed of the draws; the same series are distributed differently.

    Returns:
        A scene number per image. 0 to ``MAX_SCENES`` - 1 count within the class. ``MAX_SCENES`` and more stand for groups
        that hold images of several classes: such a scene is the same in every class.
    """
    unit_ND = l2_normalize(features_ND)
    rng = np.random.default_rng([seed, 11])
    scene_N = np.zeros(len(labels_N), np.int64)
    name_N = np.array(groups if groups is not None else [""] * len(labels_N), dtype=str)
    series_N = find_series(features_ND, labels_N) if (name_N == "").any() else np.zeros(len(labels_N), np.int64)
    for label in np.unique(labels_N):
        rows = np.flatnonzero(labels_N == label)
        most = min(MAX_SCENES, max(2, len(rows) // 2))
        if (name_N[rows] != "").any():
            part_n = np.unique(name_N[rows], return_inverse=True)[1]
        elif len(np.unique(series_N[rows])) > 1:
            part_n = _distribute_series(series_N[rows], most, rng)
        else:
            part_n = _cluster(unit_ND[rows], most, rng)
        sizes = np.bincount(part_n)
        rank_n = np.empty(len(sizes), np.int64)
        rank_n[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
        scene_N[rows] = (rank_n[part_n] + rng.integers(MAX_SCENES)) % MAX_SCENES
    if _groups_span_classes(labels_N, name_N):
        named_N = name_N != ""
        scene_N[named_N] = MAX_SCENES + _distribute_groups(labels_N[named_N], name_N[named_N])
    return scene_N


def scenes_of_images(labels_N: np.ndarray) -> np.ndarray:
    """Divide each class into ``MAX_SCENES`` scenes by the order of its images, where nothing else divides any class."""
    _, code_N, count_C = np.unique(labels_N, return_inverse=True, return_counts=True)
    order_N = np.argsort(code_N, kind="stable")
    scene_N = np.empty(len(labels_N), np.int64)
    scene_N[order_N] = (np.arange(len(labels_N)) - np.repeat(np.cumsum(count_C) - count_C, count_C)) % MAX_SCENES
    return scene_N


def _distribute_series(series_N: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Distribute the series of a class over at most ``most`` parts of about equal size; equal sizes in random order."""
    names, sizes = np.unique(series_N, return_counts=True)
    part_of = np.zeros(len(names), np.int64)
    images_P = np.zeros(min(most, len(names)), np.int64)
    order = rng.permutation(len(names))
    for series in order[np.argsort(-sizes[order], kind="stable")]:
        part_of[series] = int(images_P.argmin())
        images_P[part_of[series]] += sizes[series]
    parts: np.ndarray = part_of[np.searchsorted(names, series_N)]
    return parts


def _groups_span_classes(labels_N: np.ndarray, name_N: np.ndarray) -> bool:
    named_N = name_N != ""
    pairs = np.unique(np.stack([name_N[named_N], labels_N[named_N].astype(str)]), axis=1)
    return bool(len(np.unique(pairs[0])) < pairs.shape[1])


def _distribute_groups(labels_N: np.ndarray, name_N: np.ndarray) -> np.ndarray:
    """Distribute groups over ``MAX_SCENES`` scenes, the largest first, each to the scene that knows its classes least.

    So a class in two groups or more is in two scenes or more wherever that can be had.
    """
    code_N = np.unique(labels_N, return_inverse=True)[1]
    names, group_N, sizes = np.unique(name_N, return_inverse=True, return_counts=True)
    images_SC = np.zeros((MAX_SCENES, code_N.max() + 1), np.int64)
    scene_G = np.zeros(len(names), np.int64)
    for group in np.argsort(-sizes, kind="stable"):
        of_class_C = np.bincount(code_N[group_N == group], minlength=images_SC.shape[1])
        scene = int(np.lexsort((images_SC.sum(axis=1), images_SC @ (of_class_C > 0)))[0])
        scene_G[group] = scene
        images_SC[scene] += of_class_C
    distributed_N: np.ndarray = scene_G[group_N]
    return distributed_N


def has_several_scenes(labels_N: np.ndarray, scene_N: np.ndarray) -> np.ndarray:
    """Return a mask (N) of the images whose class has two scenes or more: those that can be looked up in another scene."""
    pairs = np.unique(np.stack([labels_N, scene_N]), axis=1)
    classes, counts = np.unique(pairs[0], return_counts=True)
    return np.isin(labels_N, classes[counts > 1])


def _cluster(unit_ND: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Cluster unit vectors by k-means; return a cluster per row, numbered without gaps."""
    clusters = min(clusters, len(np.unique(unit_ND, axis=0)))  # equal images need no clusters of their own
    if clusters < 2:
        return np.zeros(len(unit_ND), np.int64)
    if clusters == len(unit_ND):
        return np.arange(clusters)
    from sklearn.cluster import KMeans

    seed = int(rng.integers(2**31))
    cluster_N = KMeans(clusters, n_init=1, max_iter=20, random_state=seed).fit_predict(unit_ND)
    return np.unique(cluster_N, return_inverse=True)[1]
