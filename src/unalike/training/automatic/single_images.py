"""Candidates for catalogs of one image a class: fitted to and ranked by augmented views, whose figures are never stated.

Without a second photograph of anything, how well classes are recognized cannot be measured. An augmented view of each image
stands in for its second photograph where a head is fitted and where candidates are ranked.
Shape letters: N images, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.errors import DataError
from unalike.model.frozen_trunk import build_starting_trunk
from unalike.training.automatic.augmented_view import AugmentedView
from unalike.training.automatic.final_choice import Candidate, evaluate_given
from unalike.training.automatic.group_holdout import embed_rows
from unalike.training.automatic.holdout import cross_validation_splits, splits_that_count
from unalike.training.automatic.scenes import assign_scenes
from unalike.training.automatic.starting_weights import GivenNetwork
from unalike.training.heads.features import TrunkFeatures
from unalike.training.heads.head_search import HeadSearchSpace, TooSlow, best_closed_form, sample_classes, search_heads

if TYPE_CHECKING:
    from unalike.spec import Experiment

NOT_MEASURABLE = (
    "not measurable: too few classes have a second image that differs (in another group, where there are groups). Candidates were "
    "fitted to and ranked by augmented views, which say nothing of new photographs"
)


def has_second_images(labels_N: np.ndarray, groups: Sequence[str] | None, source: str) -> bool:
    """Return whether anything can be measured, by labels and groups alone.

    That is where a query can be held out and a class with two images is left to fit to: two classes with a second image, or one
    with a third.

    Args:
        labels_N: an integer label per image.
        groups: a group per image, empty for none, or None.
        source: where the images come from, for messages.

    Raises:
        DataError: there are fewer than two classes, or the groups leave no class two sides.
    """
    classes, counts = np.unique(labels_N, return_counts=True)
    if len(classes) < 2:
        raise DataError(f"{source}: {len(classes)} class", expected="two classes or more",
                        remedy="one folder a class, or --no-labels")  # fmt: skip
    if (counts - 1).sum() < 2:
        return False
    if groups is not None:
        name_N = np.array([name or f"\0{i}" for i, name in enumerate(groups)])
        pairs = np.unique(np.stack([labels_N.astype(str), name_N]), axis=1)
        if np.unique(pairs[0], return_counts=True)[1].max() < 2:
            raise DataError(f"{source}: every class lies in one group, so nothing can be held out without tearing groups apart",
                            expected="a class in two groups or more",
                            remedy="leave dataset.manifest_columns.group out, or name no group where images are not alike")  # fmt: skip
    return True


def add_augmented_views(features: TrunkFeatures, images: ImageSet, spec: Experiment, seed: int) -> TrunkFeatures:
    """Return the features with those of an augmented view of each image beside them, to fit heads to.

    Args:
        features: the frozen trunk's features of the images.
        images: the images that have features.
        spec: resolved spec of the run.
        seed: of the augmentation.
    """
    trunk = build_starting_trunk(spec, features.backbone, features.preprocessing.input_size)
    view = AugmentedView(images.paths, features.view, seed)
    rows = np.arange(len(images))
    views_NF = embed_rows(trunk, features.preprocessing, images, rows, view, spec)
    return replace(features, mirrored_NF=views_NF)


def rank_candidates(
    features: TrunkFeatures, labels_N: np.ndarray, spec: Experiment, seed: int,
    start_network: GivenNetwork | None = None, seconds: float = float("inf"),
) -> list[Candidate]:  # fmt: skip
    """Rank the frozen trunk and the best closed-form head; queries are augmented views of classes not fitted to.

    Args:
        features: with ``mirrored_NF`` from ``add_augmented_views``.
        labels_N: an integer label per image.
        spec: resolved spec of the run.
        seed: of the splits.
        start_network: the network of the user's own weights, a candidate too.
        seconds: time that is left; no head is fitted where it does not suffice to compare any.
    """
    rows = sample_classes(labels_N, seed)
    both_NF, both_N = features.training_rows(rows, labels_N)
    sources = [f"{'view' if i >= len(rows) else 'image'} {label}" for i, label in enumerate(both_N.tolist())]
    scene_N = assign_scenes(both_NF, both_N, groups=sources, seed=seed)
    goal = "new-classes"
    splits = splits_that_count(cross_validation_splits(both_N, scene_N, goal, seed=seed), goal)
    space = HeadSearchSpace.from_spec(spec, classes=len(np.unique(both_N)) // 2)
    try:
        trials = search_heads(both_NF, both_N, splits, goal, space=space, hard_seconds=seconds)
    except TooSlow as error:
        trials = [error.baseline]
    best = best_closed_form(trials, goal)
    candidates = [
        Candidate(t.name, t.result, t.score, replace(t.config, training=space.fixed_training) if t.config else None)
        for t in (trials[0], best)
        if t is not None
    ]
    both = replace(features, vectors_NF=both_NF, mirrored_NF=None)
    return [*candidates, *evaluate_given(start_network, both, both_N, splits, goal, with_images=False)]
