"""Sentences in plain words with which a report begins, made from the figures that the page and its JSON files show."""

from __future__ import annotations

import math

from unalike.metrics.intervals import Interval

# Closer to 0 or 1 than this, shares are told of 1,000 images in place of 100: no false 0 and no false 100.
NEAR_END = 0.01


def share_sentence(interval: Interval, subject: str, predicate: str, *, images: int, few: str = "") -> str:
    """Say a share as a number of a hundred, with its interval: "Of 100 images of new things, 88 get the right name (between
    79 and 94).".

    Args:
        interval: The share, 0 to 1. Where it carries no interval, the images themselves are counted, without an estimate.
        subject: What is counted, plural.
        predicate: What is said of them.
        images: Number of images behind the share.
        few: What is too little, such as "2 classes", where the data cannot carry an interval.
    """
    if math.isnan(interval.value):
        return f"There are no {subject} to measure with."
    if interval.too_few:
        statement = f"Of {images:,} {subject}, {round(interval.value * images):,} {predicate}"
        if not few:
            return f"{statement}."
        return f"{statement}; {few} {'is' if few.startswith('1 ') else 'are'} too few to say how many it will be of others."
    ends = (interval.value, interval.low, interval.high)
    near = 0 < ends[0] < NEAR_END or 1 - NEAR_END < ends[0] < 1
    total = 1000 if near else 100
    value, low, high = round(ends[0] * total), math.floor(ends[1] * total + 1e-9), math.ceil(ends[2] * total - 1e-9)
    return f"Of {total:,} {subject}, {value:,} {predicate} (between {low:,} and {high:,})."


def count_of(number: int, singular: str, plural: str = "") -> str:
    """A number with its noun: "1 image", "1,200 images"."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
