"""Similarities are those of each asset's nearest vector, in the order of the assets."""

from __future__ import annotations

import numpy as np

from tests.support.marks import VIEW, ThumbnailEngine, mark, render_mark
from unalike.verification.matching import AssetMatcher
from unalike.verification.verifier import Verifier


def test_similarities(verifier: Verifier) -> None:
    matcher = verifier.matcher
    vector = matcher.embed([render_mark(1, 3)])[0]
    unit = vector / np.linalg.norm(vector)
    gallery = matcher.gallery
    slow = [
        max(float(v @ unit) for v, label in zip(gallery.vectors_ND, gallery.labels, strict=True) if label == name)
        for name in ("mark 0", "mark 1", "mark 2")
    ]
    assert np.allclose(matcher.similarities(vector), slow, atol=1e-6)
    reordered = AssetMatcher([mark(2), mark(0), mark(1)], gallery, ThumbnailEngine(), VIEW)
    assert np.allclose(reordered.similarities(vector), [slow[2], slow[0], slow[1]], atol=1e-6)
    assert np.allclose(np.diag(matcher.asset_similarities()), 1, atol=1e-6)


def test_templates_are_computed_once(verifier: Verifier) -> None:
    assert verifier.matcher.template(1) is verifier.matcher.template(1)
    assert verifier.matcher.template(1).asset.name == "mark 1"
