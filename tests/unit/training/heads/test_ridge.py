"""Ridge regression in closed form against least squares, and its leave-one-out predictions against fits without the image."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.numerics.normalization import l2_normalize
from unalike.training.heads import ridge
from unalike.training.heads.discriminant import sqrt_features
from unalike.training.heads.ridge import PENALTIES, _Regression, fit_ridge_head, mean_cosine


def draw(count: int, features: int, dim: int, seed: int = 0, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Features that are not centered, and vectors of length 1 that depend on them with noise."""
    rng = np.random.default_rng(seed)
    x_NF = rng.normal(0.4, 1, (count, features)) * rng.uniform(0.2, 2, features)
    y_ND = x_NF @ rng.normal(size=(features, dim)) + noise * rng.normal(size=(count, dim)) + 0.5
    return x_NF.astype(np.float32), l2_normalize(y_ND)


def solve(x_NF: np.ndarray, y_ND: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and offset by least squares: the penalty is one more row a feature, and the intercept has none."""
    count, width = x_NF.shape
    ones_N1, penalty_FF = np.ones((count, 1)), np.sqrt(penalty) * np.eye(width)
    a = np.vstack([np.hstack([x_NF, ones_N1]), np.hstack([penalty_FF, np.zeros((width, 1))])])
    b = np.vstack([y_ND, np.zeros((width, y_ND.shape[1]))])
    solution = np.linalg.lstsq(a, b, rcond=None)[0]
    return solution[:-1], solution[-1]


@pytest.mark.parametrize(("count", "features"), [(60, 12), (10, 25)])
@pytest.mark.parametrize("block", [7, 8192])
def test_the_head_is_that_of_least_squares(
    count: int, features: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ridge, "BLOCK_IMAGES", block)
    x_NF, y_ND = draw(count, features, 5)
    fit = fit_ridge_head(x_NF, y_ND)
    inputs_NF = sqrt_features(x_NF.astype(np.float64)) if fit.head.sqrt else x_NF.astype(np.float64)
    matrix_FD, offset_D = solve(inputs_NF, y_ND.astype(np.float64), fit.penalty)
    np.testing.assert_allclose(fit.head.matrix_FD, matrix_FD, atol=1e-8)
    np.testing.assert_allclose(-fit.head.offset_D, offset_D, atol=1e-8)
    np.testing.assert_allclose(fit.head(x_NF), inputs_NF @ matrix_FD + offset_D, atol=1e-5)


@pytest.mark.parametrize("penalty", [0.01, 3.0, 200.0])
def test_left_out_predictions_are_those_of_fits_without_the_image(penalty: float) -> None:
    x_NF, y_ND = draw(14, 6, 4, seed=1)
    regression = _Regression(x_NF, y_ND, sqrt=False)
    rows = np.array([0, 5, 13])
    (left_out_JD,) = regression.left_out([penalty], rows)
    for place, row in enumerate(rows):
        others = np.delete(np.arange(14), row)
        matrix_FD, offset_D = solve(x_NF[others].astype(float), y_ND[others].astype(float), penalty)
        np.testing.assert_allclose(left_out_JD[place], x_NF[row] @ matrix_FD + offset_D, atol=1e-7)


def test_the_penalty_and_the_root_are_the_best_by_left_out_cosines() -> None:
    x_NF, y_ND = draw(40, 30, 6, seed=2, noise=3.0)
    fit = fit_ridge_head(x_NF, y_ND)
    cosines = {}
    for sqrt in (False, True):
        regression = _Regression(x_NF, y_ND, sqrt=sqrt)
        for multiple in PENALTIES:
            penalty = regression.penalty(multiple)
            (left_out_JD,) = regression.left_out([penalty], np.arange(40))
            cosines[sqrt, penalty] = mean_cosine(left_out_JD, y_ND)
    best = max(cosines, key=lambda key: cosines[key])
    assert (fit.head.sqrt, fit.penalty) == best and fit.cosine == cosines[best]
    assert fit.penalty > _Regression(x_NF, y_ND, sqrt=fit.head.sqrt).penalty(PENALTIES[0])


def test_many_images_are_judged_by_a_sample_that_the_seed_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "JUDGED_IMAGES", 20)
    x_NF, y_ND = draw(100, 8, 4)
    first, again, other = (fit_ridge_head(x_NF, y_ND, seed=seed) for seed in (0, 0, 1))
    assert first.cosine == again.cosine != other.cosine
    assert np.array_equal(first.head.matrix_FD, again.head.matrix_FD)


def test_features_without_variance_give_the_mean_vector() -> None:
    _, y_ND = draw(5, 3, 4)
    fit = fit_ridge_head(np.ones((5, 3), np.float32), y_ND)
    np.testing.assert_allclose(fit.head(np.ones((2, 3), np.float32)), np.tile(y_ND.mean(axis=0), (2, 1)), atol=1e-6)
