"""The start of fine-tuning: a network has the fitted head, and the loss has its proxies at the class means.

``fit_initial_head`` is also tested through the command line in tests/flow/test_fitted.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.training.automatic.test_delivery import SPEC, folder, random_trunk
from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.model.embedder import EmbedderConfig, create_embedder
from unalike.numerics.normalization import l2_normalize
from unalike.spec import load_spec
from unalike.training.heads.discriminant import fit_whitening
from unalike.training.heads.warm_start import fit_initial_head, start_from_head
from unalike.training.losses import build_loss

__all__ = ["folder"]  # a fixture


def test_the_initial_head_is_fitted_under_the_mean_and_std_of_the_user(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path))
    mean, std, paths = [0.1, 0.2, 0.3], [0.9, 0.8, 0.7], tmp_path / "trunk.pth"
    trunk = random_trunk("test_efficientnet", (64, 32))
    torch.save(trunk.trunk.net.state_dict(), paths)
    spec = load_spec("train", overrides=[*SPEC, f"dataset.pixel_mean={mean}", f"dataset.pixel_std={std}",
                                         f"model.pretrained_trunk_path={paths}"])  # fmt: skip
    images = load_images(folder)
    _, features_NF, _ = fit_initial_head(spec, images, Notices())
    pixels = np.stack([(View.from_spec(spec)(path) / 255.0 - mean) / std for path in images.paths]).transpose(
        0, 3, 1, 2
    )
    with torch.inference_mode():
        expected_NF = trunk(torch.from_numpy(np.ascontiguousarray(pixels, np.float32))).numpy()
    cosines = (l2_normalize(features_NF[: len(images)]) * l2_normalize(expected_NF)).sum(axis=1)
    assert cosines.min() > 0.999


@pytest.mark.parametrize("loss, columns", [("CosFaceLoss", True), ("ProxyAnchorLoss", False)])
def test_fine_tuning_starts_from_the_fitted_head(loss: str, columns: bool) -> None:
    rng = np.random.default_rng(3)
    labels_N = np.arange(60) % 5
    network = create_embedder(EmbedderConfig("tf_efficientnet_lite0", 4, 3, (32, 32), "rooted")).eval()
    images = torch.randn(60, 3, 32, 32)
    with torch.no_grad():
        features_NF = network.trunk(images).numpy() + 0.1 * rng.random((60, network.trunk.width), np.float32)
    head = fit_whitening(features_NF, labels_N, sqrt=True).head(0.0).shorten(features_NF, 4)
    criterion = nn.ModuleDict({"loss": build_loss(loss, {}, classes=5, dim=4)})
    start_from_head(head, features_NF, labels_N)(network, criterion)
    with torch.no_grad():
        network_vectors_ND = network.head(torch.from_numpy(features_NF)).numpy()
    vectors_ND = head(features_NF)
    np.testing.assert_allclose(l2_normalize(network_vectors_ND), l2_normalize(vectors_ND), atol=1e-4)
    means_CD = np.stack([l2_normalize(vectors_ND)[labels_N == c].mean(axis=0) for c in range(5)])
    proxies = next(criterion.parameters()).detach().numpy()
    np.testing.assert_allclose(proxies.T if columns else proxies, l2_normalize(means_CD), atol=1e-5)
