"""Made-up flaws and the perceptron that learns from them."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.inspection.anomaly_model import Judge, Recipe
from unalike.inspection.patch_classifier import HIDDEN, Perceptron
from unalike.inspection.result import hottest
from unalike.inspection.synthetic_defects import FLAWS, flawed
from unalike.inspection.synthetic_patches import _some, cells

RNG = np.random.default_rng(0)


def ground(seed, size=(60, 90)):
    draws = np.random.default_rng(seed)
    return np.repeat(draws.normal(110, 6, (*size, 1)).clip(0, 255).astype(np.uint8), 3, axis=2)


@pytest.mark.parametrize("kind", sorted(FLAWS))
@pytest.mark.parametrize("colour", [(1, 1, 1), (1, 0.5, 0.2)])
def test_each_flaw_stays_in_its_shape_and_comes_from_the_seed(kind, colour):
    picture, other = ground(0).astype(np.float32) * np.float32(colour), ground(1, (40, 33))
    for seed in range(12):
        made, share = FLAWS[kind][0](picture, other, np.random.default_rng(seed))
        again, _ = FLAWS[kind][0](picture, other, np.random.default_rng(seed))
        assert made.shape == picture.shape and share.shape == picture.shape[:2] and np.array_equal(made, again)
        assert share.min() >= 0 and share.max() <= 1 and np.isfinite(made).all()
        assert np.array_equal(made[share == 0], picture[share == 0])


def test_the_mask_is_where_the_picture_changed():
    picture, other, empty, share = ground(0), ground(1), 0, []
    for seed in range(60):
        made, mask = flawed(picture, other, np.random.default_rng(seed))
        assert made.dtype == np.uint8 and mask.dtype == bool and mask.shape == picture.shape[:2]
        changed = np.abs(made.astype(int) - picture).max(axis=2) > 0
        assert not mask.any() or changed[mask].mean() > 0.8
        empty += not mask.any()
        share.append(mask.mean())
    assert empty < 12 and 0.005 < np.mean(share) < 0.5


@pytest.mark.parametrize("size", [(1, 1), (2, 50), (8, 8)])
def test_tiny_pictures_can_be_flawed(size):
    for seed in range(20):
        made, mask = flawed(ground(0, size), ground(1, size), np.random.default_rng(seed))
        assert made.shape == (*size, 3) and mask.shape == size


def test_the_slopes_are_those_of_the_loss():
    """Against finite differences of the mean cross-entropy, in float64."""
    net = Perceptron(
        np.zeros(5), np.ones(5), [(RNG.normal(size=s), RNG.normal(size=s[1])) for s in ((5, 7), (7, 4), (4, 1))]
    )
    net.layers = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in net.layers]
    seen, wanted = RNG.normal(size=(9, 5)), RNG.integers(0, 2, 9)
    kept = (RNG.random((9, 7)) > 0.3) / 0.7

    def loss():
        (a, b), (c, d), (e, f) = net.layers
        odds = (np.maximum(np.maximum(seen @ a + b, 0) * kept @ c + d, 0) @ e + f)[:, 0]
        return np.mean(np.logaddexp(0, odds) - wanted * odds)

    for part, slope in zip([p for layer in net.layers for p in layer], net.slopes(seen, wanted, kept), strict=True):
        for place in np.ndindex(part.shape):
            kept_value = part[place]
            part[place] = kept_value + 1e-6
            above = loss()
            part[place] = kept_value - 1e-6
            below = loss()
            part[place] = kept_value
            assert slope[place] == pytest.approx((above - below) / 2e-6, abs=1e-6)


def test_it_learns_what_no_line_can_tell_and_keeps_it():
    vectors = RNG.normal(size=(4000, 6)).astype(np.float32) * 40 + 7
    wrong = (vectors[:, 0] > 7) ^ (vectors[:, 1] > 7)
    net = Perceptron.learn(vectors[:3000], wrong[:3000], seed=1, epochs=40)
    assert ((net(vectors[3000:]) > 0) == wrong[3000:]).mean() > 0.93
    again = Perceptron.learn(vectors[:3000], wrong[:3000], seed=1, epochs=40)
    assert np.array_equal(net(vectors), again(vectors)) and net.layers[0][0].shape == (6, HIDDEN[0])
    kept = Perceptron.of_blocks({name: parts[0] for name, parts in net.blocks().items()})
    assert kept is not None and np.array_equal(kept(vectors), net(vectors)) and Perceptron.of_blocks({}) is None


def test_one_patch_and_constant_ones_stay_finite():
    for vectors in (np.ones((1, 3)), np.ones((50, 3))):
        net = Perceptron.learn(vectors, np.zeros(len(vectors), bool))
        assert np.isfinite(net(vectors)).all()


def test_the_eye_multiplies_the_distance():
    vectors, spots = RNG.normal(size=(600, 4)).astype(np.float32), np.zeros((600, 2), np.float32)
    judge = Judge.learn(vectors, spots, Recipe(patches=600, memory=100))
    eye = Perceptron.learn(np.concatenate([vectors, vectors + 3]), np.arange(1200) >= 600)
    seeing = judge.with_eye(eye, vectors, spots)
    grid, places = vectors.reshape(20, 30, 4), spots.reshape(20, 30, 2)
    expected = judge.heat(grid, places) * np.exp(seeing.gain * eye(vectors)).reshape(20, 30)
    assert np.allclose(seeing.heat(grid, places), expected, rtol=1e-5) and seeing.gain > 0


def test_the_share_of_a_cell():
    mask = RNG.random((13, 18)) > 0.5
    expected = np.zeros((4, 5))
    for y, x in np.argwhere(mask):
        expected[y // 4, x // 4] += 1 / 16
    assert np.allclose(cells(mask, 4), expected)


def test_tiles_are_drawn_alike_often():
    counts = np.zeros(6)
    for seed in range(600):
        for tile in _some(iter(range(6)), 2, np.random.default_rng(seed)):
            counts[tile] += 1
    assert (abs(counts - 200) < 50).all() and _some(iter(range(2)), 5, RNG) == [0, 1]


@pytest.mark.parametrize("share,count", [(0.0, 1), (0.01, 6), (0.05, 16), (1.0, 16)])
def test_the_score_is_the_mean_of_the_hottest(share, count):
    heat = RNG.random((20, 30)).astype(np.float32)
    assert hottest(heat, share) == pytest.approx(np.sort(heat.ravel())[-count:].mean(), rel=1e-6)
    assert hottest(np.ones((1, 1), np.float32), share) == 1.0
