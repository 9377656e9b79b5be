"""Holdout and cross-validation splits of labeled images, by class and by scene.

A split is of kind ``new`` (the classes of its queries are not fitted to), ``known`` (they are, on other scenes) or ``same``
(as ``known``, but images of the query's own scene are among the references).
Shape letters: N images, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unalike.errors import DataError
from unalike.training.automatic.scenes import MAX_SCENES, assign_scenes, has_several_scenes

# What to optimize: the value of automl.goal, and the kinds of splits that count for it.
GOALS = {"new-classes": ("new",), "known-classes": ("known",), "both": ("new", "known")}
NEW_CLASS_SPLITS = 3
# Of sets with at least MIN_CLASSES_TO_HOLD_OUT classes, the share of classes held out entirely, and the least number: fewer
# say nothing of other classes.
HOLDOUT_CLASS_SHARE, HELD_OUT_CLASSES, MIN_CLASSES_TO_HOLD_OUT = 0.15, 4, 20
# Share of the remaining classes of which one scene is held out; of more classes until there are so many queries.
HOLDOUT_SCENE_SHARE, MIN_QUERIES = 0.4, 200
# Cross-validation holds each class out entirely once, in CLASS_FOLDS parts, if there are at least MIN_CLASSES_TO_DIVIDE.
CLASS_FOLDS, MIN_CLASSES_TO_DIVIDE = 4, 8
MAX_CLASS_SPLITS = 12  # of cross-validation, where scenes of single classes are held out


class TooFewImages(DataError):
    """The images cannot be divided into some to fit to and some to ask with."""


@dataclass(frozen=True)
class Split:
    """Rows of an image set that are fitted to, that are searched, and that are the queries.

    Attributes:
        kind: ``new``, ``known`` or ``same``.
        fit_N: rows to fit to.
        reference_N: rows among which the queries are looked up.
        query_N: rows of the queries.
        leave_one_out: whether the queries are references too, the first ones; each is looked up among all others.
    """

    kind: str
    fit_N: np.ndarray
    reference_N: np.ndarray
    query_N: np.ndarray
    leave_one_out: bool = False


def cross_validation_splits(labels_N: np.ndarray, scene_N: np.ndarray, goal: str, *, seed: int = 0) -> list[Split]:
    """Make the splits by which heads and trunks are selected, of both kinds where the data allow it.

    Of kind ``known``, one split per scene number: that scene of every class holds the queries, the other scenes are fitted
    to and searched. Of kind ``new``, ``NEW_CLASS_SPLITS`` splits: half of the classes are fitted to; of the other half, one
    scene holds the queries and the others are searched.

    Args:
        labels_N: an integer label per image.
        scene_N: a scene per image, from ``assign_scenes``.
        goal: a key of ``GOALS``; ``HoldoutResult.score`` weighs the kinds by it.
        seed: seed of the draws of classes.

    Raises:
        TooFewImages: the classes are too small for any split.
    """
    if goal not in GOALS:
        raise KeyError(goal)
    several_N = has_several_scenes(labels_N, scene_N)
    classes = np.unique(labels_N)
    splits = _splits_by_scene(labels_N, scene_N)
    if len(classes) >= 4:
        turn_N = _turns(labels_N, scene_N)
        for number in range(NEW_CLASS_SPLITS):
            order = np.random.default_rng([seed, 13, number]).permutation(classes)
            answerable = np.isin(order, np.unique(labels_N[several_N]))  # of those that can be asked for, half
            halves = [part[: len(part) // 2] for part in (order[answerable], order[~answerable])]
            class_N = ~np.isin(labels_N, np.concatenate(halves))
            query_N = class_N & several_N & (turn_N == number % MAX_SCENES)
            reference_N = class_N & ~query_N
            fit_N = ~class_N & ~_in_scenes_of_all_classes(scene_N, query_N)
            answerable_N = query_N & np.isin(labels_N, labels_N[reference_N])
            splits.append(
                Split("new", np.flatnonzero(fit_N), np.flatnonzero(reference_N), np.flatnonzero(answerable_N))
            )
    splits = [s for s in splits if len(s.query_N) and len(s.reference_N) and len(np.unique(labels_N[s.fit_N])) > 1]
    # A split whose classes have one image each to fit to tells nothing of fitted heads.
    splits = [s for s in splits if len(np.unique(labels_N[s.fit_N])) < len(s.fit_N)] or splits
    splits = splits or _splits_by_class(labels_N, scene_N)
    if not splits:
        raise TooFewImages(f"{len(classes)} classes of {len(labels_N)} images cannot be split for validation", expected="at least "
                        "two classes, one of them with two different images (in two groups, where there are groups)", remedy="add images, or train with automl_policy=off")  # fmt: skip
    return splits


def _splits_by_scene(labels_N: np.ndarray, scene_N: np.ndarray) -> list[Split]:
    """One split of kind ``known`` per scene number; some may have no queries."""
    several_N = has_several_scenes(labels_N, scene_N)
    splits = []
    for number in range(MAX_SCENES):
        query_N = several_N & (scene_N % MAX_SCENES == number)
        fit_N = ~(query_N | _in_scenes_of_all_classes(scene_N, query_N))
        query_N &= np.isin(labels_N, labels_N[fit_N])
        splits.append(Split("known", np.flatnonzero(fit_N), np.flatnonzero(fit_N), np.flatnonzero(query_N)))
    return splits


def _splits_by_class(labels_N: np.ndarray, scene_N: np.ndarray) -> list[Split]:
    """One split of kind ``known`` per scene of a class, for few images: scenes of several classes would leave nothing to fit to.

    At most ``MAX_CLASS_SPLITS``, each of which leaves two classes, one of them with two images.
    """
    several_N = has_several_scenes(labels_N, scene_N)
    splits: list[Split] = []
    for label, number in np.unique(np.stack([labels_N, scene_N])[:, several_N], axis=1).T.tolist():
        query_N = (labels_N == label) & (scene_N == number)
        fit_N = ~(query_N | _in_scenes_of_all_classes(scene_N, query_N))
        split = Split("known", np.flatnonzero(fit_N), np.flatnonzero(fit_N), np.flatnonzero(query_N))
        if label in labels_N[fit_N] and _can_be_fitted(split, labels_N):
            splits.append(split)
        if len(splits) == MAX_CLASS_SPLITS:
            break
    return splits


def pooled_splits(
    features_ND: np.ndarray, labels_N: np.ndarray, goal: str, *, groups: Sequence[str] | None = None, seed: int = 0,
) -> list[Split]:  # fmt: skip
    """Make the splits of one cross-validation in which every image that can be looked up is a query once of each kind.

    Repeated with other seeds, the same series are divided otherwise.

    Args:
        features_ND: frozen features (N, D), by which series are found.
        labels_N: an integer label per image.
        goal: a key of ``GOALS``; classes are held out entirely only where it includes new ones.
        groups: a group per image from a manifest.
        seed: seed of the division into folds.

    Returns:
        The splits of kinds ``known``, ``same`` (not where there are groups) and ``new``; empty where nothing can be divided.
    """
    scene_N = assign_scenes(features_ND, labels_N, groups=groups, seed=seed)
    splits = [s for s in _splits_by_scene(labels_N, scene_N) if len(s.query_N) and _can_be_fitted(s, labels_N)]
    splits = splits or _splits_by_class(labels_N, scene_N)
    if groups is None or not any(groups):
        splits += same_series_splits(splits, np.arange(len(labels_N)))
    classes = np.unique(labels_N[has_several_scenes(labels_N, scene_N)])
    if "new" in GOALS[goal] and len(classes) >= MIN_CLASSES_TO_DIVIDE:
        order = np.random.default_rng([seed, 29]).permutation(classes)
        for fold in range(CLASS_FOLDS):
            held_out = Holdout(np.isin(labels_N, order[fold::CLASS_FOLDS]), np.zeros(len(labels_N), bool))
            try:
                new = holdout_splits(labels_N, scene_N, held_out, search_all=True)
            except TooFewImages:  # every scene of these classes is fitted to in another class
                continue
            splits += [s for s in new if _can_be_fitted(s, labels_N)]
    return splits


def _can_be_fitted(split: Split, labels_N: np.ndarray) -> bool:
    """Whether a head can be fitted: two classes, one of them of two images."""
    return 1 < len(np.unique(labels_N[split.fit_N])) < len(split.fit_N)


def same_series_splits(splits: Sequence[Split], rows_N: np.ndarray) -> list[Split]:
    """Make splits of kind ``same`` from those of kind ``known``: fitted to the same, each query among all other images.

    Args:
        splits: splits; other kinds are left out.
        rows_N: rows of all images that are searched.
    """
    return [
        Split("same", s.fit_N, np.concatenate([s.query_N, np.setdiff1d(rows_N, s.query_N)]), s.query_N, True)
        for s in splits
        if s.kind == "known"
    ]


def splits_that_count(splits: Sequence[Split], goal: str) -> Sequence[Split]:
    """Return the splits of the goal's kinds, which alone enter ``HoldoutResult.score``; all where there are none of these."""
    return [split for split in splits if split.kind in GOALS[goal]] or splits


def _in_scenes_of_all_classes(scene_N: np.ndarray, query_N: np.ndarray) -> np.ndarray:
    """Return a mask of the images in the queries' scenes where these span classes: none of them may be fitted to."""
    mask_N: np.ndarray = np.isin(scene_N, scene_N[query_N & (scene_N >= MAX_SCENES)])
    return mask_N


def _turns(labels_N: np.ndarray, scene_N: np.ndarray) -> np.ndarray:
    """Return the split, 0 to ``MAX_SCENES`` - 1, in which an image is a query; classes of few scenes have one in each.

    That is the number of its scene, for classes of ``MAX_SCENES`` scenes and for scenes that span classes.
    """
    turn_N = scene_N % MAX_SCENES
    for label in np.unique(labels_N[scene_N < MAX_SCENES]):
        rows = np.flatnonzero(labels_N == label)
        scenes = np.unique(scene_N[rows])
        if scenes[-1] < MAX_SCENES and 1 < len(scenes) < MAX_SCENES:
            turn_N[rows] = np.searchsorted(scenes, scene_N[rows])
    return turn_N


@dataclass(frozen=True)
class Holdout:
    """Masks of the held-out images, to which nothing may be fitted.

    Attributes:
        class_N: images of classes that are held out entirely.
        scene_N: images of held-out scenes of other classes.
    """

    class_N: np.ndarray
    scene_N: np.ndarray

    @property
    def fit_N(self) -> np.ndarray:
        """Rows of the images that may be fitted to."""
        return np.flatnonzero(~(self.class_N | self.scene_N))


def draw_holdout(labels_N: np.ndarray, scene_N: np.ndarray, goal: str, *, seed: int = 0) -> Holdout:
    """Draw classes to hold out where new classes are the goal, and for every goal a scene of other classes.

    Only classes of two scenes or more are held out, since only these can be evaluated. Where there are fewer than
    ``MIN_CLASSES_TO_HOLD_OUT`` of them, none is held out entirely. Scenes are held out of ``HOLDOUT_SCENE_SHARE`` of the other
    classes, and of more until they are ``MIN_QUERIES`` images; of the classes that keep one image of two, at most half, so that
    the others have pairs to learn from. Scenes that span classes (groups) are held out in all classes or in none.

    Args:
        labels_N: an integer label per image.
        scene_N: a scene per image, from ``assign_scenes``.
        goal: a key of ``GOALS``.
        seed: seed of the draw.

    Raises:
        TooFewImages: nothing can be held out.
    """
    rng = np.random.default_rng([seed, 19])
    several_N = has_several_scenes(labels_N, scene_N)
    classes = rng.permutation(np.unique(labels_N))
    classes = classes[np.isin(classes, labels_N[several_N])]
    new = "new" in GOALS[goal] and len(classes) >= MIN_CLASSES_TO_HOLD_OUT
    held_out = classes[: max(HELD_OUT_CLASSES, round(HOLDOUT_CLASS_SHARE * len(classes)))] if new else classes[:0]
    class_mask_N = np.isin(labels_N, held_out)
    scene_mask_N = np.zeros(len(labels_N), bool)
    rest = classes[len(held_out) :]
    pairs_left = max(1, int(np.isin(rest, _classes_of_two(labels_N)).sum()) // 2)
    for number, label in enumerate(rest):
        if number >= HOLDOUT_SCENE_SHARE * len(rest) and scene_mask_N.sum() >= MIN_QUERIES:
            break
        rows_N = (labels_N == label) & (scene_N < MAX_SCENES)
        if len(np.unique(scene_N[labels_N == label])) > 1 and rows_N.any():
            sizes = np.bincount(scene_N[rows_N], minlength=MAX_SCENES)
            smallest = int(np.argmin(np.where(sizes > 0, sizes, len(labels_N) + 1)))
            count = (labels_N == label).sum()
            if 2 * sizes[smallest] <= count and (count > 2 or pairs_left):
                scene_mask_N |= rows_N & (scene_N == smallest)
                pairs_left -= int(count == 2)
    spanning_N = scene_N >= MAX_SCENES
    if (spanning_N & several_N).any():
        numbers, sizes = np.unique(scene_N[spanning_N & several_N], return_counts=True)
        scene_mask_N |= (scene_N == numbers[int(np.argmin(sizes))]) & ~class_mask_N
    if not class_mask_N.any() and not scene_mask_N.any():
        raise TooFewImages(f"{len(classes)} classes of {len(labels_N)} images: nothing can be held out for the final comparison",
                        expected="two classes, one of them with two different images (in two groups, where there are groups)",
                        remedy="add images, or train with automl_policy=off")  # fmt: skip
    return Holdout(class_mask_N, scene_mask_N)


def _classes_of_two(labels_N: np.ndarray) -> np.ndarray:
    classes, counts = np.unique(labels_N, return_counts=True)
    pairs: np.ndarray = classes[counts == 2]
    return pairs


def holdout_splits(labels_N: np.ndarray, scene_N: np.ndarray, holdout: Holdout, *, search_all: bool) -> list[Split]:
    """Make the splits by which the final candidates are compared.

    Held-out scenes are looked up among the images that may be fitted to; each scene of a held-out class is looked up among
    the class's other scenes.

    Args:
        labels_N: an integer label per image.
        scene_N: a scene per image, from ``assign_scenes``.
        holdout: the held-out images.
        search_all: whether the images that may be fitted to are references of held-out classes too. Among the few held-out
            classes alone nearly every image finds its own class, whatever the model (docs/experiments/new-classes.md).
            False where other groups may be of the same class.

    Raises:
        TooFewImages: every held-out class has one scene only.
    """
    fit_N = holdout.fit_N
    splits = []
    query_N = holdout.scene_N & np.isin(labels_N, labels_N[fit_N])
    if query_N.any():
        splits.append(Split("known", fit_N, fit_N, np.flatnonzero(query_N)))
    fitted_groups = np.unique(scene_N[fit_N][scene_N[fit_N] >= MAX_SCENES])
    for number in np.unique(scene_N[holdout.class_N]):
        if number in fitted_groups:
            continue  # queries of a group that is fitted to would be too easy
        query_N = holdout.class_N & (scene_N == number)
        reference_N = holdout.class_N & ~query_N
        query_N &= np.isin(labels_N, labels_N[reference_N])
        if query_N.any():
            reference_rows = np.flatnonzero(reference_N)
            reference_rows = np.union1d(reference_rows, fit_N) if search_all else reference_rows
            splits.append(Split("new", fit_N, reference_rows, np.flatnonzero(query_N)))
    if not splits:
        raise TooFewImages("every held-out class is one series of similar pictures", expected="classes seen more than once "
                        "in different scenes", remedy="train with automl_policy=off")  # fmt: skip
    return splits
