"""The patch classifier: gradients, training, file blocks."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.inspection.patch_classifier import HIDDEN_WIDTHS, PatchClassifier

RNG = np.random.default_rng(0)


def test_the_gradients_are_those_of_the_loss():
    """Against finite differences of the mean cross-entropy, in float64."""
    net = PatchClassifier(
        np.zeros(5), np.ones(5), [(RNG.normal(size=s), RNG.normal(size=s[1])) for s in ((5, 7), (7, 4), (4, 1))]
    )
    net.layers = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in net.layers]
    inputs, targets = RNG.normal(size=(9, 5)), RNG.integers(0, 2, 9)
    dropout = (RNG.random((9, 7)) > 0.3) / 0.7

    def loss():
        (a, b), (c, d), (e, f) = net.layers
        log_odds = (np.maximum(np.maximum(inputs @ a + b, 0) * dropout @ c + d, 0) @ e + f)[:, 0]
        return np.mean(np.logaddexp(0, log_odds) - targets * log_odds)

    for array, gradient in zip(
        [p for layer in net.layers for p in layer], net.gradients(inputs, targets, dropout), strict=True
    ):
        for place in np.ndindex(array.shape):
            value = array[place]
            array[place] = value + 1e-6
            above = loss()
            array[place] = value - 1e-6
            below = loss()
            array[place] = value
            assert gradient[place] == pytest.approx((above - below) / 2e-6, abs=1e-6)


def test_it_separates_classes_that_no_line_separates_and_survives_saving():
    vectors = RNG.normal(size=(4000, 6)).astype(np.float32) * 40 + 7
    defective = (vectors[:, 0] > 7) ^ (vectors[:, 1] > 7)
    net = PatchClassifier.fit(vectors[:3000], defective[:3000], seed=1, epochs=40)
    assert ((net(vectors[3000:]) > 0) == defective[3000:]).mean() > 0.93
    again = PatchClassifier.fit(vectors[:3000], defective[:3000], seed=1, epochs=40)
    assert np.array_equal(net(vectors), again(vectors)) and net.layers[0][0].shape == (6, HIDDEN_WIDTHS[0])
    loaded = PatchClassifier.from_blocks({name: parts[0] for name, parts in net.to_blocks().items()})
    assert (
        loaded is not None and np.array_equal(loaded(vectors), net(vectors)) and PatchClassifier.from_blocks({}) is None
    )


def test_one_patch_and_constant_ones_stay_finite():
    for vectors in (np.ones((1, 3)), np.ones((50, 3))):
        net = PatchClassifier.fit(vectors, np.zeros(len(vectors), bool))
        assert np.isfinite(net(vectors)).all()
