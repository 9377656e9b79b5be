"""The threshold of an anomaly score, set from normal images at a target false-alarm rate.

Of n normal images and one more from the same distribution, the new image's score is equally likely to take any of the
n + 1 ranks. With the k-th highest of n scores as the threshold, the next normal image exceeds it with probability
k / (n + 1), and the true false-alarm rate is a Beta(k, n + 1 - k) variable (Wilks, 1941). Nothing is assumed about the
distribution of the scores. It holds for normal images like those given, not for another camera or lamp.

One image among the normal ones that is none (a defect that was overlooked, a picture of something else) would set the threshold
by itself and hide every defect below its own score. Such images are recognized by their distance from the rest, and left out of
the ranking; the interval counts them as false alarms all the same, since they may be normal after all.

Shape letters: N normal images, M defective images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.metrics.intervals import beta_quantile
from unalike.metrics.roc import auroc, checked
from unalike.numerics.arguments import check_number

# Chosen by simulation (docs/experiments/inspection.md, 2026-11-28).
OUTLIER_MIN_IMAGES, OUTLIER_DISTANCE, OUTLIER_RATIO = 15, 6.0, 1.25
# Field -> key in inspector files and in the JSON of results, where the two differ.
STORED_KEYS = {"target_rate": "rate", "expected_rate": "expected", "defects_detected": "found"}


@dataclass(frozen=True)
class AnomalyThreshold:
    """The score above which an image is called defective, and what is known about it.

    Attributes:
        threshold: An image is defective when its score is above this value.
        target_rate: The false-alarm rate that was requested, 0..1.
        expected_rate: The false-alarm rate that the threshold gives on average; at most ``target_rate``.
        low, high: The interval of the true false-alarm rate at ``confidence``.
        confidence: Confidence of the interval, 0..1.
        images: Number of normal images that the threshold was set from.
        defects: Number of defective images that were given; they do not influence the threshold.
        defects_detected: Share of the defective images above the threshold; NaN without any.
        auroc: Area under the ROC curve of the defective against the normal images; NaN without any.
        parts: Number of distinct parts that the normal images show; 0 where each image shows its own.
        set_by: Name of the image whose score is the threshold; empty where images have no names.
        outliers: Names of the images that were left out of the ranking.
        outlier_rate: The false-alarm rate to expect if the outliers are normal images; ``expected_rate`` without any.
    """

    threshold: float
    target_rate: float
    expected_rate: float
    low: float
    high: float
    confidence: float
    images: int
    defects: int = 0
    defects_detected: float = math.nan
    auroc: float = math.nan
    parts: int = 0
    set_by: str = ""
    outliers: tuple[str, ...] = ()
    outlier_rate: float = math.nan

    def __post_init__(self) -> None:
        if math.isnan(self.threshold):  # no score is above it: every image would be good
            raise DataError("the threshold of the anomaly score is not a number", expected="finite scores")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, under the stored keys; NaN becomes None."""
        return {
            STORED_KEYS.get(name, name): None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AnomalyThreshold:
        """The inverse of ``to_dict``."""
        fields = {key: name for name, key in STORED_KEYS.items()}
        own_values: dict[str, Any] = {
            fields.get(key, key): math.nan if value is None else value for key, value in values.items()
        }
        return cls(**{**own_values, "outliers": tuple(own_values.get("outliers", ()))})

    def __str__(self) -> str:
        images = f"{self.images} good images{f' of {self.parts} parts' if self.parts else ''}"
        text = (
            f"threshold {self.threshold:.4g}: {self.expected_rate:.2%} false alarms expected, "
            f"between {self.low:.2%} and {self.high:.2%} ({self.confidence:.0%}, {images})"
        )
        if self.defects:
            text += f"; finds {self.defects_detected:.1%} of {self.defects} defective images"
        if self.set_by:
            text += f"; set by the score of {self.set_by}"
        if self.outliers:
            names = ", ".join(self.outliers[:3]) + (", ..." if len(self.outliers) > 3 else "")
            text += (
                f"; left out, since far above the others: {names}: look at {'it' if len(self.outliers) == 1 else 'them'} "
                f"(if good after all, expect {self.outlier_rate:.2%})"
            )
        return text


def images_needed(rate: float) -> int:
    """Smallest number of normal images that supports a false-alarm rate: ``1 / rate - 1``, rounded up."""
    return math.ceil(1 / rate * (1 - 1e-12)) - 1


def require_images(count: int, rate: float) -> None:
    """Check that ``count`` normal images support a false-alarm rate.

    Raises:
        DataError: ``rate`` is not between 0 and 1, or needs more images than there are.
    """
    if not 0 < check_number("a rate of false alarms", rate, error=DataError) < 1:
        raise DataError(f"a rate of false alarms of {rate}", expected="between 0 and 1, such as 0.01")
    if count < images_needed(rate):
        lowest = f"{100 / (count + 1):.3g} % or more" if count else "good images"
        raise DataError(
            f"{count} good images cannot support {100 * rate:.3g} % false alarms",
            expected=f"at least {images_needed(rate)} images, or {lowest}",
            remedy="give more good images, or allow more false alarms (on the command line a higher --rate)",
        )


def count_outliers(good_N: np.ndarray) -> int:
    """How many of the highest scores lie too far above the rest to belong to it; at most one in thirty.

    A score counts that is ``OUTLIER_DISTANCE`` standard deviations of the rest above its mean, on a logarithmic scale, and
    ``OUTLIER_RATIO`` times its highest. The rest are all scores but the highest 1/30, whatever those are.

    Args:
        good_N: Scores of normal images, in descending order.

    Returns:
        0 for fewer than ``OUTLIER_MIN_IMAGES`` images.
    """
    if len(good_N) < OUTLIER_MIN_IMAGES:
        return 0
    most = max(1, len(good_N) // 30)
    log_N = np.log(np.maximum(good_N, np.finfo(np.float64).tiny))
    rest_N = log_N[most:]
    # A copy of another image scores 0: low scores reach no further down than the high ones of the rest reach up.
    rest_N = np.maximum(rest_N, 2 * np.median(rest_N) - rest_N[0])
    limit = rest_N.mean() + OUTLIER_DISTANCE * rest_N.std(ddof=1)
    return int(np.sum((log_N[:most] > limit) & (good_N[:most] > OUTLIER_RATIO * good_N[most])))


def fit_threshold(
    good_N: np.ndarray, rate: float, *, confidence: float = 0.95, defects_M: np.ndarray | None = None, parts: int = 0,
    names: Sequence[str] = (),
) -> AnomalyThreshold:  # fmt: skip
    """Find the lowest threshold whose expected false-alarm rate is at most ``rate``.

    Outliers among the normal images are left out (``count_outliers``).

    Args:
        good_N: Scores of normal images, each from a model that was fitted without that image.
        rate: Target false-alarm rate, between 0 and 1.
        confidence: Confidence of the interval of the true rate.
        defects_M: Scores of defective images. They only measure how many are detected.
        parts: Number of distinct parts that the normal images show, where several images show the same part: the
            interval is then as wide as that of so many images. 0 where each image shows its own part.
        names: Name of each normal image; the result then names the one that sets the threshold, and the outliers.

    Raises:
        DataError: ``rate`` is not between 0 and 1, or needs more images than there are.
    """
    good_N = checked(good_N, "scores of good images")
    require_images(len(good_N), rate)
    order_N = np.argsort(-good_N, kind="stable")
    outliers = count_outliers(good_N[order_N])
    if len(good_N) - outliers < images_needed(rate):
        outliers = 0  # the others alone do not support the rate
    count, share = len(good_N), parts / len(good_N) if parts else 1.0
    kept_N = good_N[order_N[outliers:]]
    rank = max(1, math.floor(rate * (len(kept_N) + 1) * (1 + 1e-12)))
    tail = (1 - confidence) / 2
    low = beta_quantile(share * rank, share * (len(kept_N) + 1 - rank), tail)
    high = beta_quantile(share * (rank + outliers), share * (count + 1 - rank - outliers), 1 - tail)
    threshold = float(kept_N[rank - 1])
    defects = 0 if defects_M is None else len(defects_M)
    detection_rate = area = math.nan
    if defects_M is not None and defects:
        defects_M = checked(defects_M, "scores of defective images")
        detection_rate, area = float(np.mean(defects_M > threshold)), auroc(defects_M, good_N)
    return AnomalyThreshold(
        threshold, rate, rank / (len(kept_N) + 1), low, high, confidence, count, defects, detection_rate, area, parts,
        str(names[order_N[outliers + rank - 1]]) if names else "",
        tuple(str(names[i]) if names else f"image {i}" for i in order_N[:outliers]),
        (rank + outliers) / (count + 1),
    )  # fmt: skip


def choose_threshold(
    threshold: float, good_N: Sequence[float] | np.ndarray = (), *, confidence: float = 0.95
) -> AnomalyThreshold:
    """A threshold that a person chose, with the false-alarm rate that normal images show at it.

    Args:
        threshold: The threshold.
        good_N: Scores of normal images, each from a model that was fitted without that image; may be empty.
        confidence: Confidence of the interval of the true rate (Clopper and Pearson, 1934).

    Returns:
        ``target_rate`` and ``expected_rate`` are the share of the normal images above the threshold; NaN without any.

    Raises:
        DataError: ``threshold`` is NaN.
    """
    good_N = np.asarray(good_N, np.float64)
    count, above = len(good_N), int(np.sum(good_N > threshold))
    tail = (1 - confidence) / 2
    low = beta_quantile(above, count - above + 1, tail) if above else 0.0
    high = beta_quantile(above + 1, count - above, 1 - tail) if above < count else 1.0
    rate = above / count if count else math.nan
    return AnomalyThreshold(float(threshold), rate, rate, low, high, confidence, count)
