"""Comparison of rankings."""

from __future__ import annotations

import numpy as np

from unalike.metrics.retrieval import Ranking


def assert_equal_to_the_last_bit(ranking: Ranking, other: Ranking) -> None:
    """All attributes of two rankings are equal, bit for bit."""
    names = vars(ranking).keys() - {"recall_at", "neighbors"}
    pairs = {name: (getattr(ranking, name), getattr(other, name)) for name in names}
    assert ranking.recall_at.keys() == other.recall_at.keys()
    pairs |= {f"recall at {k}": (values, other.recall_at[k]) for k, values in ranking.recall_at.items()}
    assert (ranking.neighbors is None) == (other.neighbors is None)
    if ranking.neighbors is not None and other.neighbors is not None:
        pairs |= {"neighbors": (ranking.neighbors[1], other.neighbors[1])}
        pairs |= {"neighbor scores": (ranking.neighbors[0], other.neighbors[0])}
    for name, (left, right) in pairs.items():
        left, right = np.asarray(left), np.asarray(right)
        assert left.dtype == right.dtype and left.shape == right.shape, name
        assert left.tobytes() == right.tobytes(), name
