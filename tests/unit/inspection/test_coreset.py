"""Coreset selection against a slow greedy one."""

from __future__ import annotations

import numpy as np

from unalike.inspection.coreset import greedy_coreset

RNG = np.random.default_rng(7)


def slow_coreset(vectors, count, first):
    chosen = [first]
    while len(chosen) < count:
        nearest = [min(np.sum((v - vectors[c]) ** 2) for c in chosen) for v in vectors]
        chosen.append(int(np.argmax(nearest)))
    return chosen


def test_the_coreset_is_the_greedy_one():
    vectors = RNG.normal(size=(60, 5)) * [1, 2, 3, 1, 1]
    chosen = greedy_coreset(vectors, 20, seed=3)
    assert chosen.tolist() == slow_coreset(vectors, 20, int(chosen[0]))
    assert greedy_coreset(vectors, 99).tolist() == list(range(60))


def test_a_projected_coreset_covers_nearly_as_well_as_the_true_one():
    vectors = RNG.normal(size=(400, 200))

    def radius(chosen):
        return np.linalg.norm(vectors[:, None] - vectors[chosen][None], axis=2).min(1).max()

    chosen = greedy_coreset(vectors, 40, projection_width=64)
    assert len(set(chosen.tolist())) == 40
    assert radius(chosen) <= 1.1 * radius(greedy_coreset(vectors, 40, projection_width=200))


def test_equal_vectors_are_never_taken_twice():
    assert sorted(greedy_coreset(np.ones((9, 3)), 5).tolist()) == sorted(
        set(greedy_coreset(np.ones((9, 3)), 5).tolist())
    )
