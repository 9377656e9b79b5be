"""Images by which automatic training compares its candidates: a hold-out, or repeated cross-validation of heads.

A fine-tuned network can be tested once, on images that were held out before. Heads on frozen features cost seconds, so where
nothing is fine-tuned and the images are few, all of them are queries: cross-validation, repeated with other folds while the
time allows, its queries pooled.
Shape letters: N images, F features.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.progress import progress, say
from unalike.training.automatic.final_choice import Candidate, evaluate_given, evaluate_heads
from unalike.training.automatic.holdout import (
    GOALS,
    MIN_CLASSES_TO_DIVIDE,
    MIN_CLASSES_TO_HOLD_OUT,
    Holdout,
    Split,
    TooFewImages,
    cross_validation_splits,
    draw_holdout,
    holdout_splits,
    pooled_splits,
    same_series_splits,
    splits_that_count,
)
from unalike.training.automatic.holdout_result import KIND_MEANINGS, KIND_NAMES, pool_results
from unalike.training.automatic.scenes import assign_scenes, find_series, has_several_scenes, scenes_of_images
from unalike.training.automatic.starting_weights import GivenNetwork
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.features import TrunkFeatures
from unalike.training.heads.head_search import MAX_SEARCH_IMAGES, HeadSearchSpace, sample_classes

REPEATS, REPEATS_SHARE = 5, 0.05  # of cross-validation, at most; share of the time budget that they may take


@dataclass(frozen=True)
class EvaluationData:
    """All images with their frozen features, and what is held out of them.

    Attributes:
        images: the images that have features.
        features: the features of all of them, in their order.
        scene_N: a scene per image, from ``assign_scenes``.
        series_N: a series, or group of the user's, per image, numbered over all classes.
        fit_N: rows that may be fitted to before the final comparison.
        splits: the splits of the comparison; those of the first repeat where it is cross-validation.
        seed: seed of all draws.
        holdout: what is held out; None in cross-validation.
        cross_validated: whether the comparison is by cross-validation: ``fit_N`` are all images then.
    """

    images: ImageSet
    features: TrunkFeatures
    scene_N: np.ndarray
    series_N: np.ndarray
    fit_N: np.ndarray
    splits: Sequence[Split]
    seed: int
    holdout: Holdout | None = None
    cross_validated: bool = False

    @property
    def labels_N(self) -> np.ndarray:
        """An integer label per image."""
        return self.images.labels_N

    @property
    def grouped(self) -> bool:
        """Whether the user named groups."""
        return self.images.groups is not None and any(self.images.groups)

    @classmethod
    def create(cls, images: ImageSet, features: TrunkFeatures, goal: str, seed: int, *, tunes: bool) -> EvaluationData:
        """Divide the images that have features.

        Args:
            images: all images.
            features: their features; images without are left out.
            goal: a key of ``holdout.GOALS``.
            seed: seed of all draws.
            tunes: whether a network is to be fine-tuned, so that images must be held out before; where too few would be left,
                none are, and ``holdout`` is None.

        Raises:
            TooFewImages: nothing can be held out.
        """
        images = images.select(features.kept_N)
        scene_N = assign_scenes(features.vectors_NF, images.labels_N, groups=images.groups, seed=seed)
        data = cls(images, features, scene_N, _series(images, features), np.arange(len(images)), [], seed)
        error: TooFewImages | None = None
        for divide in (data.held_out, data.pooled) if tunes else (data.pooled, data.held_out):
            try:
                division = divide(goal)
                if division is not None:
                    division.search_splits(goal)  # what is left must suffice to compare heads
                    return division
            except TooFewImages as failure:
                error = failure
        assert error is not None  # held_out divides, or raises
        raise error

    def held_out(self, goal: str) -> EvaluationData:
        """Return the same images with some held out.

        Args:
            goal: a key of ``holdout.GOALS``.

        Raises:
            TooFewImages: nothing can be held out.
        """
        holdout = draw_holdout(self.labels_N, self.scene_N, goal, seed=self.seed)
        splits = holdout_splits(self.labels_N, self.scene_N, holdout, search_all=True)
        if not self.grouped:
            splits += same_series_splits(splits, np.arange(len(self.images)))
        return replace(self, fit_N=holdout.fit_N, splits=splits, holdout=holdout)

    def search_splits(self, goal: str) -> tuple[np.ndarray, list[Split]]:
        """Divide the images that may be fitted to for the search of heads.

        Args:
            goal: a key of ``holdout.GOALS``.

        Returns:
            A sample of their rows, and the splits that count for the goal, of these rows.

        Raises:
            TooFewImages: they cannot be divided.
        """
        rows = self.fit_N[sample_classes(self.labels_N[self.fit_N], self.seed)]
        labels_N, scene_N = self.labels_N[rows], self.scene_N[rows]
        if not self.grouped and not has_several_scenes(labels_N, scene_N).any():
            scene_N = scenes_of_images(labels_N)  # what is left of each class is one series
        splits = cross_validation_splits(labels_N, scene_N, goal, seed=self.seed)
        return rows, list(splits_that_count(splits, goal))

    def pooled(self, goal: str) -> EvaluationData | None:
        """Return the same images for cross-validation; None where they are too many, or cannot be divided.

        Args:
            goal: a key of ``holdout.GOALS``.
        """
        splits = self.pooled_splits(goal, 0) if len(self.images) <= MAX_SEARCH_IMAGES else []
        if not any(split.kind == "known" for split in splits):
            return None
        return replace(self, fit_N=np.arange(len(self.images)), splits=splits, holdout=None, cross_validated=True)

    def pooled_splits(self, goal: str, repeat: int) -> list[Split]:
        """Return the splits of one repeat of cross-validation."""
        return pooled_splits(
            self.features.vectors_NF, self.labels_N, goal, groups=self.images.groups, seed=self.seed + repeat
        )

    def untested(self, goal: str) -> str:
        """Say which claim of the goal could not be tested and why; empty if all were."""
        kinds = {split.kind for split in self.splits}
        missing = [KIND_NAMES[kind] for kind in GOALS[goal] if kind not in kinds]
        if not missing:
            return ""
        least = MIN_CLASSES_TO_DIVIDE if self.cross_validated else MIN_CLASSES_TO_HOLD_OUT
        return (f"{' and '.join(missing)} were not tested: {len(np.unique(self.labels_N))} classes with images of several series "
                f"are too few to hold some out entirely (at least {least}); tested: "
                f"{', '.join(KIND_NAMES[kind] for kind in sorted(kinds))}")  # fmt: skip

    def describe(self, candidate: Candidate, goal: str) -> dict[str, Any]:
        """Return how candidates were compared, for ``automatic.json``.

        Args:
            candidate: any of the candidates.
            goal: a key of ``holdout.GOALS``.
        """
        counts = candidate.result.counts()
        return {
            "tested": sorted(counts), "not_tested": self.untested(goal),
            "judged_on": {kind: row["queries"] for kind, row in counts.items()},
            "evaluation": {
                "method": "repeated cross-validation" if self.cross_validated else "hold-out",
                "counts": counts, "meaning": {kind: KIND_MEANINGS[kind] for kind in counts},
            },
        }  # fmt: skip


def _series(images: ImageSet, features: TrunkFeatures) -> np.ndarray:
    """Number the series of all images: the user's groups where there are any, else series of similar images."""
    if images.groups is None or not any(images.groups):
        return find_series(features.vectors_NF, images.labels_N)
    names = np.array([name or f"\0{i}" for i, name in enumerate(images.groups)])
    series_N: np.ndarray = np.unique(names, return_inverse=True)[1]
    return series_N


def evaluate_frozen(
    configs: Sequence[HeadConfig | None], data: EvaluationData, goal: str, space: HeadSearchSpace,
    start_network: GivenNetwork | None, seconds: float,
) -> list[Candidate]:  # fmt: skip
    """Evaluate heads on the frozen trunk, and the user's own network; repeat cross-validation while the time allows.

    Args:
        configs: the heads; None is the frozen trunk without a head.
        data: the images and splits.
        goal: a key of ``holdout.GOALS``.
        space: number of dimensions and kind of the frozen trunk's head.
        start_network: the network of the user's own weights, or None.
        seconds: time that repeats may take.
    """
    start = time.monotonic()
    with progress("evaluating on held-out images", REPEATS if data.cross_validated else 1, "rounds") as advance:
        repeats = [_evaluate(configs, data, data.splits, goal, space, start_network)]
        advance()
        while data.cross_validated and len(repeats) < REPEATS:
            if (time.monotonic() - start) * (1 + 1 / len(repeats)) > seconds:
                break
            splits = data.pooled_splits(goal, len(repeats))
            if {s.kind for s in splits} != {s.kind for s in data.splits}:
                break
            repeats.append(_evaluate(configs, data, splits, goal, space, start_network))
            advance()
    candidates = []
    for same in zip(*repeats, strict=True):
        result = pool_results([c.result for c in same])
        candidates.append(replace(same[0], result=result, score=result.score(goal)))
    return candidates


def _evaluate(
    configs: Sequence[HeadConfig | None], data: EvaluationData, splits: Sequence[Split], goal: str, space: HeadSearchSpace,
    start_network: GivenNetwork | None,
) -> list[Candidate]:  # fmt: skip
    candidates = evaluate_heads(configs, data.features, data.labels_N, splits, goal, space.dim, space.kind)
    candidates += evaluate_given(start_network, data.features, data.labels_N, splits, goal)
    return [with_series(c, data) for c in candidates]


def with_series(candidate: Candidate, data: EvaluationData) -> Candidate:
    """Return the candidate with the series of its queries, by which intervals are computed where classes are few.

    Args:
        candidate: the candidate.
        data: the images.
    """
    return replace(candidate, result=candidate.result.with_series(data.series_N))


def say_untested(data: EvaluationData, goal: str) -> None:
    """Print which claim of the goal cannot be tested on these images.

    Args:
        data: the images and splits.
        goal: a key of ``holdout.GOALS``.
    """
    if text := data.untested(goal):
        say(text)
