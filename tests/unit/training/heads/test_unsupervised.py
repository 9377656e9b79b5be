"""Whitening by neighbors as a head: it separates groups without labels, and can keep fewer dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.training.heads.unsupervised import fit_neighbor_whitening


@pytest.mark.parametrize("sqrt", [False, True])
def test_dimensions_of_largest_variance_are_kept(sqrt: bool) -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 6)
    noise = rng.normal(size=(120, 2)) @ (4 * rng.normal(size=(2, 12)))
    features = (rng.normal(size=(20, 12))[groups] + noise + 0.1 * rng.normal(size=(120, 12))).astype(np.float32)
    head = fit_neighbor_whitening(features, sqrt=sqrt, seed=0)
    reduced = fit_neighbor_whitening(features, sqrt=sqrt, seed=0, dim=5)
    assert head.matrix_FD.shape == (12, 12) and reduced.matrix_FD.shape == (12, 5)
    assert head.kind == reduced.kind == ("rooted" if sqrt else "linear")
    vectors, reduced_vectors = head(features).astype(np.float64), reduced(features).astype(np.float64)
    largest = np.linalg.eigvalsh(vectors.T @ vectors)[::-1][:5]
    np.testing.assert_allclose((reduced_vectors**2).sum(axis=0), largest, rtol=1e-3)
