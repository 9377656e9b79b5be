import math
import re

import numpy as np
import pytest

from unalike.metrics.intervals import Interval, mean_interval
from unalike.metrics.prediction import prediction_interval
from unalike.report.sentences import count_of, range_note, share_sentence, whole_bounds


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Interval(0.8831, 0.7921, 0.9311), "Of 100 things, 88 fit (between 76 and 96)."),
        (Interval(0.9966, 0.9912, 0.9988), "Of 1,000 things, 997 fit (between 988 and 1,000)."),
        (Interval(0.004, 0.0, 0.011), "Of 1,000 things, 4 fit (between 0 and 14)."),
        (Interval(1.0, 0.93, 1.0), "Of 100 things, 100 fit (between 91 and 100)."),
        (Interval(0.29, 0.29, 0.29), "Of 100 things, 29 fit (between 19 and 39)."),
    ],
)
def test_a_share_is_told_as_a_number_of_a_hundred_with_the_range_for_so_many_images(interval, words):
    assert share_sentence(interval, "things", "fit", images=322) == words


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_range_is_that_of_a_hundred_new_images_not_that_of_the_mean(confidence):
    """20,000 images say nearly all about the mean, and no more than before about the next hundred."""
    share = mean_interval(np.repeat([1.0, 0.0], [14_000, 6_000]), confidence=confidence)
    low, high = map(
        int, re.findall(r"between (\d+) and (\d+)", share_sentence(share, "a", "b", images=1, confidence=confidence))[0]
    )
    assert (low, high) == whole_bounds(prediction_interval(share, 100, confidence), 100)
    numbers = np.random.default_rng(0).binomial(100, 0.7, 20_000)
    assert confidence - 0.01 < np.mean((low <= numbers) & (numbers <= high)) < confidence + 0.07
    within = np.mean((100 * share.low <= numbers) & (numbers <= 100 * share.high))
    assert within < 0.2, "an interval of the mean is no range for a hundred images"


def test_the_note_says_what_the_ranges_are_and_is_missing_without_one():
    few = Interval(0.9, 0.4, 1.0, few_groups=True)
    assert (
        range_note([few, Interval(0.7, 0.6, 0.8)], 0.9) == "; ranges are for so many new images, with 90 % confidence"
    )
    assert range_note([few]) == range_note([]) == ""


def test_where_no_interval_can_be_stated_the_images_are_counted():
    few = Interval(21 / 23, math.nan, math.nan, few_groups=True)
    counted = "Of 23 things, 21 fit"
    assert share_sentence(few, "things", "fit", images=23, few="2 classes") == (
        f"{counted}; 2 classes are too few to say how many it will be of others."
    )
    assert "; 1 class is too few" in share_sentence(few, "things", "fit", images=23, few="1 class")
    assert share_sentence(few, "things", "fit", images=23) == f"{counted}."


def test_nothing_measured_is_said():
    unknown = Interval(math.nan, math.nan, math.nan)
    assert share_sentence(unknown, "things", "fit", images=0) == "There are no things to measure with."


def test_counts_have_their_noun():
    assert (count_of(1, "class", "classes"), count_of(1200, "image")) == ("1 class", "1,200 images")
