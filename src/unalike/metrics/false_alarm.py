"""Where "defective" begins, from good images alone, at a stated rate of false alarms.

Of n good images and one more that is drawn like them, the next one's score is equally likely to take any of the n + 1
places. So with the k-th highest of n scores as threshold, the next good image is above it with probability k / (n + 1),
and the true rate of false alarms is a Beta(k, n + 1 - k) variable (Wilks, 1941): no assumption on how scores are
distributed. It holds for good images like those given, not for another camera or light.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.metrics.intervals import beta_quantile
from unalike.metrics.roc import auroc, checked


@dataclass(frozen=True)
class Alarm:
    """An image is defective when its score is above ``threshold``.

    ``rate`` is what was asked for, ``expected`` (at most that) what the threshold gives on average, ``low`` to ``high`` the
    interval of the true rate at ``confidence``; ``images`` how many good images spoke, ``parts`` how many parts they show
    (0: each its own). ``defects`` is how many defective
    ones were given, ``found`` the share of them above the threshold (NaN without), ``auroc`` that of the given defects
    against the good ones.
    """

    threshold: float
    rate: float
    expected: float
    low: float
    high: float
    confidence: float
    images: int
    defects: int = 0
    found: float = math.nan
    auroc: float = math.nan
    parts: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON: NaN becomes None."""
        return {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Alarm:
        """What ``to_dict`` gave."""
        known: dict[str, Any] = {key: math.nan if value is None else value for key, value in values.items()}
        return cls(**known)

    def __str__(self) -> str:
        told = (
            f"threshold {self.threshold:.4g}: {self.expected:.2%} false alarms expected, between {self.low:.2%} and "
            f"{self.high:.2%} ({self.confidence:.0%}, {self.images} good images{f' of {self.parts} parts' if self.parts else ''})"
        )
        return told + (f"; finds {self.found:.1%} of {self.defects} defective images" if self.defects else "")


def images_needed(rate: float) -> int:
    """Good images that it takes to say anything about a rate: 1 / rate - 1, rounded up."""
    return math.ceil(1 / rate * (1 - 1e-12)) - 1


def set_alarm(
    good_N: np.ndarray, rate: float, *, confidence: float = 0.95, defects_M: np.ndarray | None = None, parts: int = 0
) -> Alarm:
    """The lowest threshold whose expected rate of false alarms is at most ``rate``, from scores of good images.

    ``good_N``: of images that their judge had not seen. ``defects_M``, scores of defective images, only tell how many are
    found: the stated rate stays that of the good ones. ``parts``: how many parts the images show, where several show the
    same: the interval is then as wide as that of so many images. Raises DataError when ``rate`` asks for more images than there are.
    """
    good_N = np.sort(checked(good_N, "scores of good images"))[::-1]
    if not 0 < rate < 1:
        raise DataError(f"a rate of false alarms of {rate}", expected="between 0 and 1, such as 0.01")
    if len(good_N) < images_needed(rate):
        lowest = f"a rate of {1 / (len(good_N) + 1):.3g} or more" if len(good_N) else "good images"
        raise DataError(
            f"{len(good_N)} good images cannot support {rate:.3g} false alarms",
            expected=f"at least {images_needed(rate)} images, or {lowest}",
            remedy="give more good images or a higher --rate",
        )
    place = max(1, math.floor(rate * (len(good_N) + 1) * (1 + 1e-12)))
    tail = (1 - confidence) / 2
    share = parts / len(good_N) if parts else 1.0
    low, high = (beta_quantile(share * place, share * (len(good_N) + 1 - place), level) for level in (tail, 1 - tail))
    threshold = float(good_N[place - 1])
    found = measured = math.nan
    given = 0 if defects_M is None else len(defects_M)
    if defects_M is not None and given:
        defects_M = checked(defects_M, "scores of defective images")
        found, measured = float(np.mean(defects_M > threshold)), auroc(defects_M, good_N)
    expected = place / (len(good_N) + 1)
    return Alarm(threshold, rate, expected, low, high, confidence, len(good_N), given, found, measured, parts)
