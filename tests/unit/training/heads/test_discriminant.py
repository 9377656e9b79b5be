"""Discriminant heads against scikit-learn's estimators and written-out definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from unalike.errors import DataError
from unalike.numerics.covariance import largest_directions, ledoit_wolf
from unalike.training.heads.discriminant import fit_scatter, fit_whitening, sqrt_features


def make_sample(classes: int = 5, each: int = 12, width: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mix = np.eye(width) + 0.2 * rng.normal(size=(width, width))
    labels = np.repeat(np.arange(classes), each)
    return rng.normal(size=(classes, width))[labels] + 0.6 * rng.normal(size=(len(labels), width)) @ mix, labels


@pytest.mark.parametrize("shape", [(200, 5), (20, 40), (3, 10)])
def test_shrinkage_equals_ledoit_and_wolf_s(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(1).normal(size=shape) * np.arange(1, shape[1] + 1)
    expected = LedoitWolf(assume_centered=True).fit(rows)
    covariance, share = ledoit_wolf(rows)
    assert share == pytest.approx(expected.shrinkage_, abs=1e-9)
    np.testing.assert_allclose(covariance, expected.covariance_, rtol=1e-9)


def test_residual_0_is_linear_discriminant_analysis() -> None:
    features, labels = make_sample(each=200)
    sklearn_vectors = LinearDiscriminantAnalysis(solver="eigen").fit(features, labels).transform(features)
    vectors = fit_whitening(features, labels, sqrt=False).head(0.0)(features)
    assert vectors.shape[1] == 4
    # The same subspace: each spans the other, whatever the rotation and scale of the axes.
    for a, b in ((vectors, sklearn_vectors), (sklearn_vectors, vectors)):
        a, b = a - a.mean(0), b - b.mean(0)
        rest = b - a @ np.linalg.lstsq(a, b, rcond=None)[0]
        assert np.linalg.norm(rest) < 0.1 * np.linalg.norm(b)


@pytest.mark.parametrize("sqrt", [False, True])
def test_whitened_classes_have_unit_scatter(sqrt: bool) -> None:
    features, labels = make_sample(each=500, seed=3)
    head = fit_whitening(features, labels, sqrt=sqrt).head(1.0)
    vectors = head(features).astype(np.float64)
    within = np.concatenate([vectors[labels == c] - vectors[labels == c].mean(0) for c in np.unique(labels)])
    np.testing.assert_allclose(within.T @ within / len(within), np.eye(8), atol=0.1)


@pytest.mark.parametrize("shrinkage", [0.0, 1.0, 2.5, 1e6])
def test_whitening_undoes_the_shrunk_scatter(shrinkage: float) -> None:
    features, labels = make_sample(each=4, seed=6)
    within = np.concatenate([features[labels == c] - features[labels == c].mean(0) for c in np.unique(labels)])
    share = min(1.0, shrinkage * LedoitWolf(assume_centered=True).fit(within).shrinkage_)
    covariance = within.T @ within / len(within)
    shrunk = (1 - share) * covariance + share * np.trace(covariance) / 8 * np.eye(8)
    matrix = fit_whitening(features, labels, sqrt=False, shrinkage=shrinkage).head(1.0).matrix_FD
    np.testing.assert_allclose(matrix.T @ shrunk @ matrix, np.eye(8), atol=1e-6)
    assert 0 < share <= 1 or shrinkage == 0


@pytest.mark.parametrize("residual", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sqrt", [False, True])
def test_components_give_the_scalar_products_of_the_head(sqrt: bool, residual: float) -> None:
    features, labels = make_sample(seed=4)
    scatter = fit_scatter(features, labels, sqrt=sqrt)
    whitening = scatter.whiten(2.0)
    white, projected = whitening.components(scatter.project(features))
    vectors = whitening.head(residual)(features)
    products = projected @ projected.T + residual**2 * (white @ white.T - projected @ projected.T)
    np.testing.assert_allclose(products, vectors @ vectors.T, atol=1e-4 * np.abs(products).max())


@pytest.mark.parametrize("sqrt", [False, True])
@pytest.mark.parametrize("residual", [0.0, 0.5])
def test_fewer_dimensions_are_the_principal_ones_of_vectors_at_unit_length(residual: float, sqrt: bool) -> None:
    features, labels = make_sample(seed=5)
    head = fit_whitening(features, labels, sqrt=sqrt).head(residual)
    unit = head(features) / np.linalg.norm(head(features), axis=1, keepdims=True)
    _, values, axes = np.linalg.svd(unit.astype(np.float64), full_matrices=False)
    for dim in (2, 3):
        short = head.shorten(features, dim)
        assert short.matrix_FD.shape == (8, dim) and short.kind == head.kind
        assert_same_up_to_signs(short(features), head(features) @ axes[:dim].T)
        # No other directions keep as much of the vectors' scalar products.
        kept = np.linalg.norm(short(features) / np.linalg.norm(head(features), axis=1, keepdims=True)) ** 2
        assert kept == pytest.approx((values[:dim] ** 2).sum(), rel=1e-4)
    whole = head.matrix_FD.shape[1]
    assert head.shorten(features, whole) is head and head.shorten(features, whole + 1) is head


def assert_same_up_to_signs(ours: np.ndarray, theirs: np.ndarray) -> None:
    signs = np.sign((ours * theirs).sum(axis=0))
    np.testing.assert_allclose(ours, theirs * signs, atol=1e-4 * np.abs(theirs).max())


def test_the_square_root_keeps_signs() -> None:
    np.testing.assert_allclose(sqrt_features(np.array([[-4.0, 0.0, 9.0]])), [[-2, 0, 3]], rtol=1e-6)


@pytest.mark.parametrize(
    ("features", "labels"),
    [(np.zeros((4, 3)), [0, 0, 1, 1]), (np.eye(3), [0, 1, 2]), (np.random.default_rng(0).normal(size=(4, 3)), [0] * 4)],
)
def test_data_without_scatter_are_an_error(features: np.ndarray, labels: list[int]) -> None:
    with pytest.raises(DataError):
        fit_whitening(features, np.array(labels), sqrt=False)


@pytest.mark.parametrize("count", [5, 9000])  # of one block, and of two
def test_the_largest_directions_are_those_of_the_singular_values(count: int) -> None:
    x_NF = np.random.default_rng(0).normal(1, (1, 2, 3, 4), (count, 4)).astype(np.float32)
    directions_FD = largest_directions(x_NF, 2)
    expected_DF = np.linalg.svd(x_NF.astype(np.float64), full_matrices=False)[2][:2]
    assert directions_FD.shape == (4, 2) and directions_FD.dtype == np.float32
    assert np.allclose(np.abs(expected_DF @ directions_FD), np.eye(2), atol=1e-5)
