"""Shares of classes against those that are expected exactly, and what holds for every draw."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unalike.data.batches.class_draw import UNIT, draw_classes, inclusion_weights


def slow_probabilities(sizes, count):
    """Fill the classes one after the other: the largest first, at most 1 each, the others share what is left."""
    result, left, total = {}, count, sum(sizes)
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        result[index] = min(1.0, left * sizes[index] / total)
        left, total = left - result[index], total - sizes[index]
    return np.array([result[i] for i in range(len(sizes))])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 5000), min_size=2, max_size=30), st.integers(1, 30), st.integers(1, 40), st.integers(0, 9)
)
def test_laws(class_counts, count, steps, seed):
    count = min(count, len(class_counts))
    sizes = np.sqrt(class_counts)
    weights = inclusion_weights(sizes, count)
    assert weights.sum() == count * UNIT and weights.min() >= 0 and weights.max() <= UNIT
    np.testing.assert_allclose(weights / UNIT, slow_probabilities(sizes.tolist(), count), atol=1e-9)
    drawn = draw_classes(weights, count, steps, (seed,))
    assert drawn.shape == (steps, count)
    assert all(len(set(row)) == count for row in drawn.tolist()), "the classes of a step differ"
    assert np.array_equal(drawn, draw_classes(weights, count, steps, (seed,)))


def test_a_round_holds_each_class_as_often_as_expected_rounded():
    class_counts = np.array([400, 100, 49, 25, 16, 9, 9, 4, 4, 1, 1, 1])
    weights = inclusion_weights(np.sqrt(class_counts), 4)
    for seed in range(50):
        use = np.bincount(draw_classes(weights, 4, 3, (seed,)).ravel(), minlength=12)
        assert (np.abs(use - 3 * weights / UNIT) < 1).all()


@pytest.mark.parametrize("place", range(3))
def test_every_place_of_every_step_has_the_expected_shares(place):
    class_counts = np.array([64, 36, 25, 16, 9, 4, 1])
    weights = inclusion_weights(np.sqrt(class_counts), 3)
    runs = 6000
    drawn = np.array([draw_classes(weights, 3, 3, (seed,)) for seed in range(runs)])
    for step in range(3):
        shares = np.bincount(drawn[:, step, place], minlength=7) / runs
        expected = weights / UNIT / 3
        assert (np.abs(shares - expected) < 4.5 * np.sqrt(expected * (1 - expected) / runs)).all()
