"""Small galleries in memory, of which classes and names matter alone."""

from __future__ import annotations

import numpy as np

from unalike.recognition.gallery import Gallery


def make_gallery(*references: tuple[str, str]) -> Gallery:
    """A gallery of references (class, name); ids are their positions, vectors are random."""
    gallery = Gallery(8)
    if references:
        labels, names = zip(*references, strict=True)
        gallery.enrol(np.random.default_rng(0).normal(size=(len(references), 8)), labels, names)
    return gallery
