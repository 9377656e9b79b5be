"""Vectors that are cached by file content: what another run added is kept, and a damaged file is empty."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unalike.training.heads.cached_vectors import _VectorCache


def test_a_cache_keeps_what_another_training_added_and_a_damaged_one_is_empty(tmp_path: Path) -> None:
    caches = [_VectorCache(tmp_path / "f.npz") for _ in range(2)]
    digests = [bytes([number]) * 16 for number in range(2)]
    for cache, digest in zip(caches, digests, strict=True):
        assert cache.load()[0].keys() <= set(digests)
        cache.save({digest: np.full(4, digest[0], np.float32)}, 1.0)
    assert set(caches[0].load()[0]) == set(digests)
    content = (tmp_path / "f.npz").read_bytes()
    (tmp_path / "f.npz").write_bytes(content[: len(content) // 2])
    assert caches[0].load() == ({}, 0.0)
