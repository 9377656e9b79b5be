"""Training a head with a loss: it starts at the closed form, learns, repeats, and gives the network's vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.series import noisy_features
from unalike.model.backbones import build_trunk
from unalike.model.embedder import MLPHead
from unalike.numerics.normalization import l2_normalize
from unalike.training.heads.config import HEAD_TRAININGS, HeadTraining
from unalike.training.heads.discriminant import FittedHead, fit_whitening, sqrt_features
from unalike.training.heads.interpolation import attach_head
from unalike.training.heads.trained import train_head
from unalike.training.losses import build_loss

Sample = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def sample() -> Sample:
    return noisy_features()


def closed_form(sample: Sample, residual: float = 0.25) -> FittedHead:
    return fit_whitening(*sample, sqrt=True).head(residual)


@pytest.mark.parametrize("training", HEAD_TRAININGS, ids=lambda t: t.name)
def test_training_starts_at_the_closed_form(sample: Sample, training: HeadTraining) -> None:
    head = closed_form(sample)
    untrained = train_head(head, *sample, training, epochs=0)
    cosines = [l2_normalize(h(sample[0])) @ l2_normalize(h(sample[0])).T for h in (head, untrained)]
    np.testing.assert_allclose(*cosines, atol=1e-4)


@pytest.mark.parametrize("training", HEAD_TRAININGS, ids=lambda t: t.name)
def test_training_learns_is_seeded_and_keeps_the_global_random_state(sample: Sample, training: HeadTraining) -> None:
    before = torch.get_rng_state()
    first, second, other = (train_head(closed_form(sample), *sample, training, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first.matrix_FD, second.matrix_FD)
    assert not np.array_equal(first.matrix_FD, other.matrix_FD)
    assert (first.mlp is not None) == training.mlp
    if first.mlp is not None and second.mlp is not None:
        np.testing.assert_array_equal(first.mlp.up_HF, second.mlp.up_HF)
        assert first.mlp.up_HF.any() and first.kind == "mlp"
    if training.loss == "MultiSimilarityLoss":  # the one without proxies: its value depends on the vectors alone
        loss, labels = build_loss(training.loss, {}, classes=10, dim=1), torch.from_numpy(sample[1])
        values = [float(loss(torch.from_numpy(h(sample[0])), labels)) for h in (closed_form(sample), first)]
        assert values[1] < values[0]


def test_the_first_step_follows_the_gradient(sample: Sample) -> None:
    """Adam's first step moves each weight by the learning rate against the sign of its gradient (finite differences)."""
    head, labels = closed_form(sample, residual=0.0), sample[1]
    trained = train_head(head, sample[0][:100], labels[:100], HeadTraining("MultiSimilarityLoss"), epochs=1)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(100, (100,), generator=generator)
    inputs = sqrt_features(sample[0][:100]).astype(np.float32)
    noise = torch.randn((100, 24), generator=generator).numpy()
    x = torch.from_numpy(inputs[rows.numpy()] + 0.3 * inputs.std(0, ddof=1) * noise).double()
    scale = 1 / np.linalg.norm(head(sample[0][:100]), axis=1).mean()
    weight = torch.from_numpy(head.matrix_FD.T * scale).double()
    loss, y = build_loss("MultiSimilarityLoss", {}, classes=10, dim=1), torch.from_numpy(labels[:100])[rows]

    def value(w: torch.Tensor) -> float:
        return float(loss(x @ w.T - torch.from_numpy(head.offset_D * scale), y))

    change = trained.matrix_FD.T - (weight.numpy() * (1 - 1e-4 * 0.01))
    for d, f in ((0, 0), (1, 5), (3, 20)):
        up, down = weight.clone(), weight.clone()
        up[d, f] += 1e-5
        down[d, f] -= 1e-5
        assert np.sign(value(up) - value(down)) == -np.sign(change[d, f])
        assert abs(change[d, f]) == pytest.approx(1e-4, rel=0.05)


def test_a_network_with_the_head_gives_its_vectors() -> None:
    trunk = build_trunk("resnet10t", pretrained="false", input_size=(32, 32))
    rng = np.random.default_rng(4)
    features = rng.normal(size=(60, trunk.width)).astype(np.float32)
    labels = np.repeat(np.arange(6), 10)
    training = next(t for t in HEAD_TRAININGS if t.mlp)
    head = train_head(
        fit_whitening(features, labels, sqrt=True).head(0.5).shorten(features, 16), features, labels, training
    )
    network = attach_head(trunk, head)
    assert isinstance(network.head, MLPHead)
    with torch.inference_mode():
        vectors = network.head(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(vectors, head(features), atol=1e-4 * np.abs(vectors).max())
    assert head.mlp is not None
    without_mlp = replace(head, mlp=None)(features)
    assert np.abs(vectors - without_mlp).max() > 1e-3 * np.abs(vectors).max()
