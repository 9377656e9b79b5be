"""Similarities are those of each asset's nearest vector, in the order of the assets."""

from __future__ import annotations

import numpy as np

from tests.support.marks import (
    VIEW,
    ThumbnailEngine,
    draw_busy_background,
    draw_scene,
    mark,
    render_mark,
    wordmark,
)
from unalike.verification.asset import Asset
from unalike.verification.matching import MAX_WEAK, AssetMatcher
from unalike.verification.searched_image import SearchedImage
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


def test_keypoints_find_an_asset_that_its_vector_does_not() -> None:
    names = ("Marenova", "Delutis", "Sokiva")
    verifier = Verifier.of([wordmark(name) for name in names], ThumbnailEngine(), VIEW, names=names)
    ground = draw_busy_background(2)
    for number, name in enumerate(names):
        similarity = np.roll([0.9, 0.5, 0.1], number + 1)  # the vectors name another one first
        layer = wordmark(name).layer_HW4
        for pixels in (layer, np.ascontiguousarray(layer[:, ::-1])):
            searched = SearchedImage(draw_scene(Asset(name, pixels), ground))
            assert verifier.matcher.keypoint_candidates(searched, similarity)[0][0] == number
    strong, weak = verifier.matcher.keypoint_candidates(SearchedImage(ground.astype(np.uint8)), similarity)
    assert strong == [] and len(weak) <= MAX_WEAK
