"""The anomaly model: whitening, local spread, encoded positions, reweighting."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.inspection.anomaly_model import (
    BORDER_DISTANCE,
    AnomalyModel,
    AnomalyModelConfig,
    fit_whitening,
    local_spread,
    typical_distance,
)
from unalike.inspection.patch_classifier import PatchClassifier

RNG = np.random.default_rng(7)


def test_whitening_undoes_the_covariance_or_leaves_it():
    vectors = (RNG.normal(size=(4000, 4)) * [1, 5, 0.2, 3]) @ RNG.normal(size=(4, 4)) + 7
    mean, mix = fit_whitening(vectors, 1.0)
    kept = np.linalg.eigvalsh(np.cov(vectors.T))
    kept = kept / (kept + 0.01 * kept.mean())
    spread = np.linalg.eigvalsh(np.cov(((vectors - mean) @ mix).T))
    assert np.allclose(np.sort(spread), np.sort(kept / kept.sum()), rtol=1e-3)
    mean, mix = fit_whitening(vectors, 0.0)
    mapped = (vectors - mean) @ mix
    ratio = np.linalg.norm(mapped[1:] - mapped[:-1], axis=1) / np.linalg.norm(vectors[1:] - vectors[:-1], axis=1)
    assert ratio.max() / ratio.min() == pytest.approx(1, rel=1e-3)  # angles and ratios of distances stay


def test_the_spread_is_that_of_other_images_usual_patches():
    memory, usual = RNG.normal(size=(30, 4)).astype(np.float32), RNG.normal(size=(200, 4)).astype(np.float32)
    owner, owners = RNG.integers(0, 5, 30), RNG.integers(0, 5, 200)
    expected = []
    for vector, image in zip(memory, owner, strict=True):
        near = np.sort(np.linalg.norm(usual - vector, axis=1))[:32]
        ranks = np.argsort(np.linalg.norm(usual - vector, axis=1))[:32]
        others = near[owners[ranks] != image][:8]
        expected.append(others.mean())
    expected = np.array(expected) + 1.0 * np.median(expected)
    assert np.allclose(local_spread(memory, owner, usual, owners), expected / np.median(expected), rtol=1e-4)
    alone = local_spread(memory[:3], np.zeros(3), memory[:3], np.zeros(3))  # all of one image: still finite
    assert np.isfinite(alone).all() and (alone > 0).all()


def test_whitening_of_constant_patches_stays_finite():
    mean, mix = fit_whitening(np.ones((10, 3), np.float32), 1.0)
    assert np.isfinite(mix).all() and np.allclose(mean, 1)


def test_positions_count_only_with_a_fixture():
    vectors, positions = RNG.normal(size=(500, 4)).astype(np.float32), RNG.random((500, 2)).astype(np.float32)
    without = AnomalyModel.fit(vectors, positions, AnomalyModelConfig(patches=500, memory=500))
    with_fixture = AnomalyModel.fit(vectors, positions, AnomalyModelConfig(patches=500, memory=500, fixture=0.02))
    there, moved = positions.reshape(20, 25, 2), (positions + 0.5).reshape(20, 25, 2)
    grid = vectors.reshape(20, 25, 4)
    assert np.array_equal(without.anomaly_maps(grid, there)[0], without.anomaly_maps(grid, moved)[0])
    assert with_fixture.anomaly_maps(grid, there)[0].max() < 0.05 < with_fixture.anomaly_maps(grid, moved)[0].min()


def test_patches_at_a_border_are_compared_with_patches_at_that_border():
    """Fitted to patches inside alone: the same patch at the left border is BORDER_DISTANCE typical distances off."""
    vectors = RNG.normal(size=(200, 4)).astype(np.float32)
    inside, left = (np.full((200, 6), 300.0, np.float32) for _ in range(2))
    left[:, 4] = 0
    typical = typical_distance((vectors - vectors.mean(0)) @ fit_whitening(vectors, 0.0)[1], 0)
    for border, expected in ((0.0, 0.0), (48.0, BORDER_DISTANCE * typical)):
        model = AnomalyModel.fit(vectors, inside, AnomalyModelConfig(patches=200, memory=200, border=border, local=0.0))
        grid, moved = vectors.reshape(10, 20, 4), left.reshape(10, 20, 6)
        assert np.allclose(model.anomaly_maps(grid, moved)[0], expected, atol=2e-3)
        assert np.allclose(model.anomaly_maps(grid, (inside + 40).reshape(10, 20, 6))[0], 0, atol=2e-3)
        moved[..., 4] = 24  # half way, half as far
        assert np.allclose(model.anomaly_maps(grid, moved)[0], expected / 2, atol=2e-3)
        moved[..., 4] = 0


def test_an_update_makes_the_direction_of_the_defects_count_more():
    rng = np.random.default_rng(3)
    good = rng.normal(size=(1800, 16)).astype(np.float32)
    positions = np.zeros((1800, 2), np.float32)
    model = AnomalyModel.fit(good[:900], positions[:900], AnomalyModelConfig(patches=900, memory=200, local=0.0))
    shift = np.zeros(16, np.float32)
    shift[2] = 4
    moments = (
        model.residual_moment(good[900:], positions[900:]),
        model.residual_moment(good[:200] + shift, positions[:200]),
    )
    updated = model.updated(*moments, 5000)

    def separation(scorer, moved):
        base, bad = (
            scorer.anomaly_maps(x.reshape(30, 30, 16), np.zeros((30, 30, 2)))[0]
            for x in (good[900:], good[900:] + moved)
        )
        return float((bad.mean() - base.mean()) / base.std())

    assert separation(updated, shift) > 1.3 * separation(model, shift)
    other = np.roll(shift, 5)
    assert separation(updated, shift) / separation(model, shift) > 1.2 * separation(updated, other) / separation(
        model, other
    )
    hardly = model.updated(*moments, 1)  # one patch hardly counts
    assert separation(hardly, shift) == pytest.approx(separation(model, shift), rel=0.05)


def test_the_classifier_multiplies_the_distance():
    vectors, positions = RNG.normal(size=(600, 4)).astype(np.float32), np.zeros((600, 2), np.float32)
    model = AnomalyModel.fit(vectors, positions, AnomalyModelConfig(patches=600, memory=100))
    classifier = PatchClassifier.fit(np.concatenate([vectors, vectors + 3]), np.arange(1200) >= 600)
    combined = model.with_classifier(classifier, vectors, positions)
    grid, grid_positions = vectors.reshape(20, 30, 4), positions.reshape(20, 30, 2)
    expected = model.anomaly_maps(grid, grid_positions)[0] * np.exp(combined.gain * classifier(vectors)).reshape(20, 30)
    assert np.allclose(combined.anomaly_maps(grid, grid_positions)[0], expected, rtol=1e-5) and combined.gain > 0
