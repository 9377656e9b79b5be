"""Interpolation between initial and trained weights, and the head that is fitted afterwards."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.networks import SmallTrunk
from unalike.inference.embedding import Embeddings
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.interpolation import attach_head, copy_weights, interpolate_weights, refit_head
from unalike.training.heads.trained import fit_head


def trained() -> tuple[SmallTrunk, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    trunk = SmallTrunk()
    trunk.width = 8  # type: ignore[assignment]
    initial = copy_weights(trunk)
    with torch.no_grad():
        for tensor in trunk.state_dict().values():
            tensor.add_(torch.ones_like(tensor))
    return trunk, initial


def test_a_copy_of_the_weights_does_not_change_with_the_trunk() -> None:
    trunk, initial = trained()
    assert torch.equal(initial["conv.weight"] + 1, trunk.state_dict()["conv.weight"])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_lie_between_initial_and_trained_ones(share: float) -> None:
    trunk, initial = trained()
    now = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    mixed = interpolate_weights(trunk, initial, share).state_dict()
    for name, tensor in now.items():
        expected = (1 - share) * initial[name] + share * tensor if tensor.is_floating_point() else tensor
        torch.testing.assert_close(mixed[name], expected)
        assert torch.equal(trunk.state_dict()[name], tensor)  # the trunk itself is unchanged


@pytest.mark.parametrize("sqrt", [False, True])
@pytest.mark.parametrize("dim", [None, 3, 5])
def test_the_network_has_the_fitted_head(sqrt: bool, dim: int | None) -> None:
    trunk, _ = trained()
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 6)
    features = (rng.normal(size=(4, 8))[labels] + 0.3 * rng.normal(size=(24, 8))).astype(np.float32)
    kept = np.delete(np.arange(24), 7)  # one image was unreadable
    network = refit_head(trunk, Embeddings(features[kept], kept), labels, HeadConfig(sqrt, 0.5), dim)
    assert network is not None and network.dim == (dim or 8)
    head = fit_head(features[kept], labels[kept], HeadConfig(sqrt, 0.5), dim)
    with torch.inference_mode():
        vectors = network.head(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(vectors, head(features), atol=2e-4)


def test_classes_of_one_image_have_no_head() -> None:
    trunk, _ = trained()
    features = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    assert refit_head(trunk, Embeddings(features, np.arange(5)), np.arange(5), HeadConfig(), 4) is None


def test_a_head_for_another_width_is_refused() -> None:
    trunk, _ = trained()
    head = SimpleNamespace(matrix_FD=np.zeros((9, 2)), offset_D=np.zeros(2), sqrt=False)
    with pytest.raises(ValueError, match="9 features"):
        attach_head(trunk, head)  # type: ignore[arg-type]
