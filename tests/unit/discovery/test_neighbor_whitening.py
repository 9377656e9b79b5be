"""Whitening by neighbors, and duplicates."""

from __future__ import annotations

import numpy as np

from unalike.discovery.neighbor_whitening import NeighborWhitening, first_connected, first_duplicates


def test_directions_in_which_neighbors_differ_are_divided_out() -> None:
    """What nearest neighbours differ in may be louder than what tells things apart; whitening quietens it."""
    rng = np.random.default_rng(2)
    class_N = np.repeat(np.arange(30), 12)
    vectors = np.zeros((len(class_N), 64))
    vectors[:, :20] = rng.normal(size=(30, 20))[class_N]
    vectors[:, 20:30] = 2.0 * rng.normal(size=(len(class_N), 10))
    vectors += 0.05 * rng.normal(size=vectors.shape)

    def right(x: np.ndarray) -> float:
        x = x - x.mean(axis=0)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        cosine = x @ x.T
        np.fill_diagonal(cosine, -2)
        return float((class_N[cosine.argmax(axis=1)] == class_N).mean())

    before, after = right(vectors), right(NeighborWhitening.fit(vectors).transform(vectors))
    assert after > before + 0.1


def test_connected_components_and_duplicates() -> None:
    assert first_connected(6, np.array([[4, 5], [1, 4], [3, 5]])).tolist() == [0, 1, 2, 1, 1, 1]
    assert first_connected(2, np.zeros((0, 2), np.int64)).tolist() == [0, 1]
    assert first_duplicates(np.array([[1.0, 0], [0, 1], [2, 0]])).tolist() == [0, 1, 0]
