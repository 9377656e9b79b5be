"""A gallery of twenty clusters, for tests of approximate search."""

from __future__ import annotations

import numpy as np

from unalike.recognition.backends.address import open_gallery
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.gallery import Gallery


def clustered(dim: int, count: int = 500, *, half: bool = False) -> tuple[Gallery, np.ndarray]:
    """References of twenty classes, and one query near each class."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, dim))
    gallery = Gallery(dim, half=half)
    codes = np.arange(count) % 20
    gallery.enrol(centers[codes] + 0.5 * rng.normal(size=(count, dim)), [f"class {code}" for code in codes])
    return gallery, (centers + 0.5 * rng.normal(size=centers.shape)).astype(np.float32)


def require_index_in_use(gallery: GalleryBackend, address: str, queries_QD: np.ndarray) -> None:
    """Build the index of ``clustered``'s gallery, change the gallery, and search by the index as another object has it."""
    index = gallery.open_index()
    gallery.remove(labels=["class 0"])
    gallery.enrol(queries_QD[:1], ["new"])
    other = open_gallery(address)
    assert other.open_index() == index and not gallery.refresh()
    with other.view() as view:
        found = view.rank(queries_QD, k=8, index=index)
        assert found.label_Q[0] == "new" and found.nearest.entries_QK[0][0].label == "new"
        assert all(len(entries) == 8 for entries in found.nearest.entries_QK)
        assert not any(entry.label == "class 0" for entries in found.nearest.entries_QK for entry in entries)
