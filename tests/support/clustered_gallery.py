"""A gallery of twenty clusters, for tests of approximate search."""

from __future__ import annotations

import numpy as np

from unalike.recognition.gallery import Gallery


def clustered(dim: int, count: int = 500, *, half: bool = False) -> tuple[Gallery, np.ndarray]:
    """References of twenty classes, and one query near each class."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, dim))
    gallery = Gallery(dim, half=half)
    codes = np.arange(count) % 20
    gallery.enrol(centers[codes] + 0.5 * rng.normal(size=(count, dim)), [f"class {code}" for code in codes])
    return gallery, (centers + 0.5 * rng.normal(size=centers.shape)).astype(np.float32)
