"""Embeddings of kept images by content hash, network and view, so that a review computes none twice; bounded, in memory.

Shape letters: D width of an embedding.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from unalike.data.view import View
from unalike.serve.resources import GalleryResource

CACHE_BYTES = 64 * 2**20
# Python's objects of an entry: its key, its array, its place in the dictionary.
ENTRY_BYTES = 500


class VectorCache:
    """The latest embeddings. Any thread may use it.

    Args:
        limit: most bytes; those that were used longest ago are forgotten.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self._vectors: OrderedDict[tuple[str, View, str], np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def put(self, resource: GalleryResource, sha: str, vector_D: np.ndarray) -> None:
        """Keep the embedding of an image by the network of a gallery."""
        key = resource.network.key, resource.view, sha
        vector_D = np.array(vector_D, np.float32)  # a copy: a row would keep its whole batch
        with self._lock:
            old = self._vectors.pop(key, None)
            self._bytes += vector_D.nbytes + ENTRY_BYTES - (0 if old is None else old.nbytes + ENTRY_BYTES)
            self._vectors[key] = vector_D
            while self._bytes > self.limit and self._vectors:
                _, oldest_D = self._vectors.popitem(last=False)
                self._bytes -= oldest_D.nbytes + ENTRY_BYTES

    def get(self, resource: GalleryResource, sha: str) -> np.ndarray | None:
        """The embedding (D,) of an image; None where it is not kept."""
        key = resource.network.key, resource.view, sha
        with self._lock:
            vector_D = self._vectors.get(key)
            if vector_D is not None:
                self._vectors.move_to_end(key)
            return vector_D
