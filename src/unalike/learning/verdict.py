"""The verdict on a candidate: promoted only where it is not worse than the model in service, as far as withheld images tell.

The rule: the paired difference of R@1 is at least 0, and the lower end of its 95 % interval at least -1 point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from unalike.learning.paired_result import PairedResult
from unalike.metrics.intervals import difference_interval

# The most that R@1 may really have fallen, as the interval has it: one point.
MARGIN = 0.01
PROMOTE, WORSE, TOO_FEW = "promote", "worse", "too few"
# So many images decide about any candidate: more are not asked for.
MOST_IMAGES = 1_000_000
# What becomes a held-out image.
WHERE = "corrected answers or new references that neither model was trained on"


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate may take the place of the model in service.

    Attributes:
        decision: ``PROMOTE``, ``WORSE`` or ``TOO_FEW``.
        missing: with ``TOO_FEW``, how many more withheld images would decide if they came out as those so far.
        reason: in one sentence.
    """

    decision: str
    missing: int
    reason: str

    @property
    def allows(self) -> bool:
        """Whether the candidate may be promoted without an override."""
        return self.decision == PROMOTE

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"decision": self.decision, "missing": self.missing, "reason": self.reason}


def judge(result: PairedResult) -> Verdict:
    """Decide about a candidate by its comparison with the model in service."""
    if not len(result):
        missing = images_needed(0.0, 0.0)
        return Verdict(TOO_FEW, missing, f"no held-out image: about {missing} are missing, {WHERE}")
    difference = result.difference
    points = f"{100 * difference.value:+.1f} points of R@1 on {len(result)} images"
    if difference.value < 0:
        return Verdict(WORSE, 0, f"the candidate is worse: {points}")
    bounds = (
        ""
        if np.isnan(difference.low)
        else f", 95 % interval {100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
    )
    if difference.low >= -MARGIN:
        return Verdict(PROMOTE, 0, f"the candidate is not worse: {points}{bounds}")
    enough = images_needed(result.gains / len(result), result.losses / len(result))
    missing = max(1, enough - len(result))
    return Verdict(
        TOO_FEW, missing, f"too few images to say: {len(result)} held out; about {missing} more are missing, {WHERE}"
    )


def images_needed(gain: float, loss: float) -> int:
    """Number of images at which the lower end of the interval reaches the margin, if so many of them change sides.

    Args:
        gain: share of images that the candidate alone labels right, 0..1; at least ``loss``.
        loss: share of images that the model in service alone labels right, 0..1.
    """
    low, high = 1, 2
    while high < MOST_IMAGES and not _suffices(high, gain, loss):
        low, high = high, 2 * high
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _suffices(middle, gain, loss) else (middle, high)
    return high


def _suffices(images: int, gain: float, loss: float) -> bool:
    before_Q, after_Q = np.zeros(images), np.zeros(images)
    losses = round(loss * images)
    before_Q[:losses] = 1
    after_Q[losses : losses + max(losses, round(gain * images))] = 1
    return difference_interval(before_Q, after_Q).low >= -MARGIN
