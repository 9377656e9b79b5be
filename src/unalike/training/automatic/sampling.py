"""A class-balanced sample of the images where the time budget does not suffice to embed all of them.

Images are embedded in an order of which every beginning is such a sample, and the embedding stops when its share of the time
is spent. Shape letters: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.progress import say
from unalike.training.automatic.holdout import Holdout
from unalike.training.heads.features import TrunkFeatures
from unalike.training.time_budget import TimeBudget

# A class gives so many images before it is the turn of the next one: heads and hold-outs need several of each.
IMAGES_PER_TURN = 6
FIRST_CLASSES = 16  # so many classes with a second image come first, where most classes have one
# Images after which the rate is known; sets of fewer are never sampled.
MIN_IMAGES = 200
# Shares of the budget that is left when the first image is embedded: until which all images may be embedded; and, of larger
# sets, a sample, where no fine-tuning follows and where it does. What is left after the second one is for heads, evaluation
# and writing.
ALL_SHARE, HEADS_SHARE, TUNING_SHARE = 0.5, 0.45, 0.2
# The same without labels: grouping takes longer, and more so the more images there are; only these are trained on.
UNLABELED_SHARES = (0.3, 0.2, 0.2)
# Of the time that is left, for reading headers to choose the decoding, and for reading files to look them up in the cache.
READING_SHARE = 0.04
LEAST_IMAGES = 64  # these are embedded even where the time is over
EVALUATION_MARGIN = 1.3  # time of an evaluation, metrics and report included, relative to the embedding of its images
CAUTIOUS_RATE = 10.0  # images per second of an engine before it is measured
# Fine-tuning is worth its time from so many images in all epochs together (Grocery in ten minutes: 25,000).
MIN_TUNING_IMAGES = 10_000
TUNING_PART = 0.75  # of the time that is left before fine-tuning, what its steps have
# Images per second of training steps, relative to the engine's rate, before they are measured
# (docs/experiments/training.md).
STEP_RATE_SHARE = 0.45


def balanced_order(labels_N: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows in an order of which every beginning is a sample of the classes with several images of each.

    Args:
        labels_N: an integer label per image.
        seed: of the order of classes and of the images of a class.
    """
    rng = np.random.default_rng([seed, 41])
    _, code_N, count_C = np.unique(labels_N, return_inverse=True, return_counts=True)
    order_N = np.lexsort((rng.random(len(labels_N)), code_N))
    rank_N = np.empty(len(labels_N), np.int64)
    rank_N[order_N] = np.arange(len(labels_N)) - np.repeat(np.cumsum(count_C) - count_C, count_C)
    place_C = rng.permutation(len(count_C))
    several = np.flatnonzero(count_C > 1)
    first = several[np.argsort(place_C[several])][:FIRST_CLASSES]
    place_C[first] -= len(count_C)
    return np.lexsort((rank_N, place_C[code_N], rank_N // IMAGES_PER_TURN))


class EmbeddingLimit:
    """Decides, while images are read and embedded in a balanced order, when to stop.

    All images are embedded where they are expected to be finished within the first share of the budget. The budget that is
    shared out is what is left when the first image is embedded: the program's start, reading headers and compiling the network
    take several times as long on a busy machine. Otherwise the embedding stops at the third if the rate allows fine-tuning on ``MIN_TUNING_IMAGES`` afterwards, else at the second.

    Args:
        budget: the time budget.
        passes: how often every image will be embedded, its mirror image included.
        shares: of the budget, for all images, for a sample, and for a sample on which fine-tuning follows.
        image_estimate: about how many images will be embedded, by which an engine is chosen; None: by the time that is left,
            cautiously, as no rate is known.
    """

    def __init__(
        self,
        budget: TimeBudget,
        passes: float = 1,
        shares: tuple[float, float, float] = (ALL_SHARE, HEADS_SHARE, TUNING_SHARE),
        image_estimate: int | None = None,
    ) -> None:
        self.budget, self.passes = budget, passes
        self.all_share, self.heads_share, self.tuning_share = shares
        self.start = budget.clock()
        cautious_estimate = int(CAUTIOUS_RATE * max(0.0, self._until(self.heads_share)))
        self.image_estimate = cautious_estimate if image_estimate is None else image_estimate
        self._stop_digests: Callable[[int, int], bool] | None = None
        self.stopped = False  # whether images were left out

    def expected_images(self) -> int:
        """Return about how many images will be embedded, by which an engine is chosen."""
        return self.image_estimate

    def stop_digests(self, count: int, total: int) -> bool:
        """Return whether no more files are to be read for the cache; called after ``count`` of ``total``."""
        if self._stop_digests is None:  # the first files are not timed
            self._stop_digests = self.budget.stop_after(READING_SHARE, MIN_IMAGES)
        stops = self._stop_digests(count, total)
        self.stopped = self.stopped or stops
        return stops

    def begin(self) -> None:
        """Note that the first image is embedded now."""
        self.start = self.budget.clock()

    def stop(self, count: int, total: int) -> bool:
        """Return whether no more images are to be embedded; called after ``count`` of ``total``."""
        budget = self.budget
        if not (MIN_IMAGES if self._until(self.heads_share) > 0 else LEAST_IMAGES) <= count < total:
            return False
        seconds = budget.clock() - self.start
        rate, further = count / max(seconds, 1e-9), (self.passes - 1) * seconds
        if self.passes * (total - count) / rate + further <= self._until(self.all_share):
            return False
        seconds = (1 - self.tuning_share) * TUNING_PART * (budget.left + seconds)
        share = self.tuning_share if allows_sampled_tuning(rate, seconds) else self.heads_share
        stops = further >= self._until(share)
        self.stopped = self.stopped or stops
        return stops

    def _until(self, share: float) -> float:
        """Seconds until a share of what was left at the first image is spent."""
        return self.budget.until(share, self.start)


class ShareLimit(EmbeddingLimit):
    """Stops the embedding of images on which trunks or image sizes are compared.

    Args:
        budget: the time budget.
        share: of what is left of the budget at the first image, after which the embedding stops.
        image_estimate: as of ``EmbeddingLimit``.
    """

    def __init__(self, budget: TimeBudget, share: float, image_estimate: int | None = None) -> None:
        super().__init__(budget, image_estimate=image_estimate)
        self.share = share

    def stop_digests(self, count: int, total: int) -> bool:
        """Return False: the files were read before."""
        return False

    def stop(self, count: int, total: int) -> bool:
        """Return whether no more images are to be embedded; called after ``count`` of ``total``."""
        return count < total and self._until(self.share) <= 0


def allows_sampled_tuning(rate: float, seconds: float) -> bool:
    """Return whether fine-tuning on a part of the images is worth its time.

    Args:
        rate: images per second of the engine.
        seconds: time for training steps.
    """
    return seconds * rate * STEP_RATE_SHARE >= MIN_TUNING_IMAGES


def reserve_evaluation(budget: TimeBudget, features: TrunkFeatures, *sets: ImageSet | None) -> None:
    """Keep time for the evaluation of the delivered model on the user's own images, if there are any.

    Args:
        budget: the time budget.
        features: of a trunk, whose rate is the network's.
        sets: reference and query.
    """
    paths = {path for images in sets if images is not None for path in images.paths}
    if paths:
        budget.reserve(EVALUATION_MARGIN * len(paths) / features.rate + 2 * features.setup_seconds)


@dataclass(frozen=True)
class ImageSample:
    """The images that are embedded, of all images.

    Attributes:
        every: all images.
        row_N: the rows of the embedded ones, ascending.
    """

    every: ImageSet
    row_N: np.ndarray

    @property
    def images(self) -> ImageSet:
        """The embedded images."""
        return self.every.select(self.row_N)

    def training_images(self, kept_N: np.ndarray, holdout: Holdout) -> ImageSet:
        """Return the images to train on: those of the sample that are not held out, and others that are no kin to these.

        Not used are the others of classes of which a part is held out: which of them belong to a held-out scene is not known.
        Where images have groups, only the held-out groups, and images without a group, are left out of classes that are not
        held out entirely.

        Args:
            kept_N: rows of the sample to which the masks of ``holdout`` belong.
            holdout: what is held out.
        """
        held_N = holdout.class_N | holdout.scene_N
        rows = self.row_N[kept_N]
        free_N = np.ones(len(self.every), bool)
        free_N[self.row_N] = False
        labels_N, groups = self.every.labels_N, self.every.groups
        of_held_class_N = np.isin(labels_N, labels_N[rows[held_N]])
        if groups is None:
            free_N &= ~of_held_class_N
        else:
            name_N = np.array(groups, dtype=str)
            held_names = np.unique(name_N[rows[held_N]])
            free_N &= ~((name_N != "") & np.isin(name_N, held_names))
            free_N &= ~(of_held_class_N & (name_N == ""))
            free_N &= ~np.isin(labels_N, labels_N[rows[holdout.class_N]])
        return self.every.select(np.union1d(rows[~held_N], np.flatnonzero(free_N))).drop_empty_classes()

    def facts(self) -> dict[str, int]:
        """Return the numbers of images for ``automatic.json`` and the model card; none where all are used."""
        if len(self.row_N) == len(self.every):
            return {}
        return {"images_available": len(self.every), "images_used": len(self.row_N)}

    def say(self, budget: TimeBudget, classes: Sequence[str] | None = None) -> None:
        """Print how many images are used, where these are not all."""
        if self.facts():
            of = "" if classes is None else " drawn evenly from the classes,"
            say(f"{len(self.row_N)} of {len(self.every)} images,{of} are used for heads and evaluation: more do not fit into "
                f"{budget.seconds / 60:g} minutes (--minutes N)")  # fmt: skip
