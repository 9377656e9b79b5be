"""Nearest neighbors in the memory bank against a full distance matrix."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.errors import DataError, SpecError
from unalike.inspection.memory_bank import MemoryBank

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_the_nearest_are_exact_whatever_the_chunk_size(k, monkeypatch):
    memory, queries = RNG.normal(size=(37, 6)).astype(np.float32), RNG.normal(size=(23, 6)).astype(np.float32)
    table = np.linalg.norm(queries[:, None].astype(float) - memory[None], axis=2)
    for chunk, rows in ((4 * 10 * 5, 10), (32 * 2**20, 1024)):
        monkeypatch.setattr("unalike.inspection.memory_bank.CHUNK_BYTES", chunk)
        monkeypatch.setattr("unalike.inspection.memory_bank.QUERY_ROWS", rows)
        distance, index = MemoryBank(memory).nearest(queries, k)
        assert np.array_equal(index, np.argsort(table, axis=1, kind="stable")[:, :k])
        assert np.allclose(distance, np.sort(table, axis=1)[:, :k], atol=1e-5)


def test_equal_distances_go_to_the_lower_index():
    memory = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    assert MemoryBank(memory).nearest(np.eye(4, dtype=np.float32))[1].ravel().tolist() == [0, 3, 6, 9]


def test_ann_finds_nearly_all_and_small_banks_are_exact():
    pytest.importorskip("faiss")
    memory = RNG.normal(size=(3000, 8)).astype(np.float32)
    queries = RNG.normal(size=(200, 8)).astype(np.float32)
    exact, approximate = MemoryBank(memory).nearest(queries)[0], MemoryBank(memory, "ann").nearest(queries)[0]
    assert (approximate >= exact - 1e-4).all() and np.mean(np.isclose(approximate, exact, atol=1e-4)) >= 0.98
    assert np.array_equal(
        MemoryBank(memory[:50], "ann").nearest(queries)[1], MemoryBank(memory[:50]).nearest(queries)[1]
    )


def test_bad_vectors_queries_and_searches_are_refused():
    with pytest.raises(DataError, match="NaN"):
        MemoryBank(np.array([[np.nan]], np.float32))
    with pytest.raises(DataError, match="at least one"):
        MemoryBank(np.empty((0, 3), np.float32))
    with pytest.raises(DataError, match="any, 3"):
        MemoryBank(np.ones((2, 3), np.float32)).nearest(np.ones((1, 4)))
    with pytest.raises(SpecError, match="exact or ann"):
        MemoryBank(np.ones((2, 3)), "fast")
