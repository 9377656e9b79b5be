"""Edges saturate, copies are shrunk once, keypoints are in pixels of the image."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.marks import draw_scene, wordmark
from unalike.verification.searched_image import SearchedImage, channel_max, compute_edges, limit_size

pytest.importorskip("cv2")


def test_keypoints_are_in_pixels_of_the_image() -> None:
    image = draw_scene(wordmark())
    points, descriptors = SearchedImage(image).keypoints
    large, _ = SearchedImage(np.kron(image, np.ones((2, 2, 1), np.uint8))).keypoints
    assert len(points) == len(descriptors) > 20
    # The word fills the middle 60 % of the width; twice the image has the same points at twice the place.
    assert 110 < points[:, 0].min() < points[:, 0].max() < 490 and 140 < points[:, 1].min() < points[:, 1].max() < 260
    nearest = np.abs(large[:, None] / 2 - points[None]).max(axis=2).min(axis=0)
    assert np.median(nearest) < 1.5
    blank, none = SearchedImage(np.full((80, 90, 3), 200, np.uint8)).keypoints
    assert blank.shape == (0, 2) and none.shape == (0, 128)


def test_copies_are_shrunk_by_the_scale() -> None:
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    for scale in (1.5, 0.7, 0.3):
        small, factor = SearchedImage(image).resized(scale)
        assert factor == pytest.approx(min(1.0, scale), abs=0.01) and small.shape[1] == round(400 * factor)
    assert limit_size(image, 500)[0] is image


def test_the_strongest_channel_makes_an_edge() -> None:
    image = np.full((20, 20, 3), 100, np.uint8)
    image[:, 10:, 2] = 200
    edges = compute_edges(image)
    assert edges[5, 10] > 0.8 and edges[5, 2] < 0.01
    values = np.random.default_rng(0).random((4, 5, 3))
    assert np.array_equal(channel_max(values), values.max(axis=2))
