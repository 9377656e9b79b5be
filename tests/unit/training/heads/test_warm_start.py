"""The start of fine-tuning: a network has the fitted head, and the loss has its proxies at the class means.

``fit_initial_head`` is tested through the command line in tests/flow/test_fitted.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from unalike.model.embedder import EmbedderConfig, create_embedder
from unalike.numerics.normalization import l2_normalize
from unalike.training.heads.discriminant import fit_whitening
from unalike.training.heads.warm_start import start_from_head
from unalike.training.losses import build_loss


@pytest.mark.parametrize("loss, columns", [("CosFaceLoss", True), ("ProxyAnchorLoss", False)])
def test_fine_tuning_starts_from_the_fitted_head(loss: str, columns: bool) -> None:
    rng = np.random.default_rng(3)
    labels_N = np.arange(60) % 5
    network = create_embedder(EmbedderConfig("tf_efficientnet_lite0", 4, 3, (32, 32), "rooted")).eval()
    images = torch.randn(60, 3, 32, 32)
    with torch.no_grad():
        features_NF = network.trunk(images).numpy() + 0.1 * rng.random((60, network.trunk.width), np.float32)
    head = fit_whitening(features_NF, labels_N, sqrt=True).head(0.0, 4)
    criterion = nn.ModuleDict({"loss": build_loss(loss, {}, classes=5, dim=4)})
    start_from_head(head, features_NF, labels_N)(network, criterion)
    with torch.no_grad():
        network_vectors_ND = network.head(torch.from_numpy(features_NF)).numpy()
    vectors_ND = head(features_NF)
    np.testing.assert_allclose(l2_normalize(network_vectors_ND), l2_normalize(vectors_ND), atol=1e-4)
    means_CD = np.stack([l2_normalize(vectors_ND)[labels_N == c].mean(axis=0) for c in range(5)])
    proxies = next(criterion.parameters()).detach().numpy()
    np.testing.assert_allclose(proxies.T if columns else proxies, l2_normalize(means_CD), atol=1e-5)
