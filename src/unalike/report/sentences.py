"""Sentences in plain words with which a report begins, made from the figures that the page and its JSON files show."""

from __future__ import annotations

import math
from collections.abc import Iterable

from unalike.metrics.intervals import Interval
from unalike.metrics.prediction import prediction_interval

# What tells the ranges of sentences from the intervals of figures, where a page has both.
MEAN_NOTE = "An interval is about the mean of all such images; the number of a hundred new ones scatters more."
# Closer to 0 or 1 than this, shares are told of 1,000 images in place of 100: no false 0 and no false 100.
NEAR_END = 0.01


def share_sentence(
    interval: Interval, subject: str, predicate: str, *, images: int, few: str = "", confidence: float = 0.95
) -> str:
    """Say what share to expect of a hundred new images: "Of 100 images of new things, 88 get the right name (between 79 and
    94).". The range is that of a hundred images (``prediction_interval``), which is wider than the interval of the share.

    Args:
        interval: The share, 0 to 1. Where it carries no interval, the images themselves are counted, without an estimate.
        subject: What is counted, plural.
        predicate: What is said of them.
        images: Number of images behind the share.
        few: What is too little, such as "2 classes", where the data cannot carry an interval.
        confidence: That of the interval, and of the range.
    """
    if math.isnan(interval.value):
        return f"There are no {subject} to measure with."
    if interval.too_few:
        statement = f"Of {images:,} {subject}, {round(interval.value * images):,} {predicate}"
        if not few:
            return f"{statement}."
        return f"{statement}; {few} {'is' if few.startswith('1 ') else 'are'} too few to say how many it will be of others."
    near = 0 < interval.value < NEAR_END or 1 - NEAR_END < interval.value < 1
    total = 1000 if near else 100
    low, high = whole_bounds(prediction_interval(interval, total, confidence), total)
    return f"Of {total:,} {subject}, {round(interval.value * total):,} {predicate} (between {low:,} and {high:,})."


def range_note(shares: Iterable[Interval], confidence: float = 0.95) -> str:
    """Say what the ranges of ``share_sentence`` are, after what the shares are measured with; empty where no sentence has one."""
    if all(share.too_few for share in shares):
        return ""
    return f"; ranges are for so many new images, with {100 * confidence:g} % confidence"


def whole_bounds(interval: Interval, total: int) -> tuple[int, int]:
    """The bounds of a share as numbers of ``total`` images, rounded outwards: never narrower than they are."""
    return math.floor(interval.low * total + 1e-9), math.ceil(interval.high * total - 1e-9)


def count_of(number: int, singular: str, plural: str = "") -> str:
    """A number with its noun: "1 image", "1,200 images"."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
