import math

import pytest

from unalike.metrics.intervals import Interval
from unalike.report.sentences import count_of, share_sentence


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Interval(0.8831, 0.7921, 0.9311), "Of 100 things, 88 fit (between 79 and 94)."),
        (Interval(0.9966, 0.9912, 0.9988), "Of 1,000 things, 997 fit (between 991 and 999)."),
        (Interval(0.004, 0.0, 0.011), "Of 1,000 things, 4 fit (between 0 and 11)."),
        (Interval(1.0, 0.93, 1.0), "Of 100 things, 100 fit (between 93 and 100)."),
        (Interval(0.29, 0.29, 0.29), "Of 100 things, 29 fit (between 29 and 29)."),
    ],
)
def test_a_share_is_told_as_a_number_of_a_hundred_and_its_interval_is_never_narrower(interval, words):
    assert share_sentence(interval, "things", "fit", images=322) == words


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
