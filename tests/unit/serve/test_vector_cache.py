"""Embeddings of kept images: found by hash, network and view; bounded."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.support.serving import VIEW
from unalike.serve.vector_cache import ENTRY_BYTES, VectorCache


def resource(key: str = "a.onnx", view: Any = VIEW) -> Any:
    return SimpleNamespace(network=SimpleNamespace(key=key), view=view)


def test_a_vector_is_that_of_its_image_network_and_view() -> None:
    cache, batch = VectorCache(), np.arange(6, dtype=np.float32).reshape(2, 3)
    cache.put(resource(), "1", batch[0])
    cache.put(resource("b.onnx"), "1", batch[1])
    batch[:] = 0  # the cache holds copies
    for key, expected in (("a.onnx", [0, 1, 2]), ("b.onnx", [3, 4, 5])):
        vector = cache.get(resource(key), "1")
        assert vector is not None and vector.tolist() == expected
    assert cache.get(resource(), "2") is None
    assert cache.get(resource(view=replace(VIEW, height=16)), "1") is None


def test_the_cache_is_bounded_and_forgets_what_was_used_longest_ago() -> None:
    cache = VectorCache(3 * (4 * 10 + ENTRY_BYTES))
    for name in "abc":
        cache.put(resource(), name, np.zeros(10))
    assert cache.get(resource(), "a") is not None
    cache.put(resource(), "d", np.zeros(10))
    assert len(cache) == 3 and cache.get(resource(), "b") is None and cache.get(resource(), "a") is not None
    for _ in range(5):  # the same one takes no more room
        cache.put(resource(), "d", np.zeros(10))
    assert len(cache) == 3
