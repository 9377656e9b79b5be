"""Train a head with a loss on frozen features, in seconds, starting from its closed form.

A margin loss, a proxy loss or a pair loss moves the linear map of ``heads.discriminant`` and, where the loss has them, the
class proxies, which start at the class means; an MLP residual may stand before the map, and starts as the identity. Noise
on the features, a share of their standard deviation, replaces augmentation. Measurements are in docs/experiments/heads.md:
on some trunks a point of MAP@R gained and nothing lost, on others a point of R@1 lost; trained heads are therefore
evaluated before one is chosen.
Shape letters: N images, B batch, F features, D dimensions of the vector, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from unalike.model.embedder import Adapter, hidden_width
from unalike.numerics.normalization import l2_normalize
from unalike.training.heads.config import HeadConfig, HeadTraining
from unalike.training.heads.discriminant import FittedHead, MLPResidual, fit_whitening, identity_head, sqrt_features
from unalike.training.heads.label_weights import label_weights
from unalike.training.losses import build_loss, initialize_proxies

EPOCHS, BATCH_SIZE = 10, 128
NOISE = 0.3  # standard deviation of the noise, as a share of each feature's own
LEARNING_RATE, PROXY_LEARNING_RATE, WEIGHT_DECAY = 1e-4, 3e-4, 0.01


def fit_head(
    features_NF: np.ndarray, labels_N: np.ndarray, config: HeadConfig | None, dim: int | None = None,
    kind: str = "linear", *, views: int = 1,
) -> FittedHead:  # fmt: skip
    """Fit a head to labeled features: closed form, then training where ``config`` asks for it.

    Args:
        features_NF: frozen features (N, F).
        labels_N: an integer label per image.
        config: which head; None for the frozen trunk, whose head learns nothing from labels (``identity_head``).
        dim: largest number of dimensions D of its vectors (None: no limit).
        kind: value of ``model.head`` for the frozen trunk.
        views: number of views of each image, one after the other as blocks of rows.

    Raises:
        DataError: see ``fit_scatter``.
    """
    if config is None:
        return identity_head(features_NF, kind=kind, dim=dim)
    head = fit_closed_form(features_NF, labels_N, config, dim, views=views)
    return train_head(head, features_NF, labels_N, config.training) if config.training else head


def fit_closed_form(
    features_NF: np.ndarray, labels_N: np.ndarray, config: HeadConfig, dim: int | None = None, *, views: int = 1
) -> FittedHead:
    """Fit the closed form of ``config``, without its training; arguments and errors as in ``fit_head``."""
    weights_N = label_weights(features_NF, labels_N, views=views) if config.label_weights else None
    whitening = fit_whitening(features_NF, labels_N, sqrt=config.sqrt, shrinkage=config.shrinkage, weights_N=weights_N)
    head = whitening.head(config.residual)
    return head if dim is None else head.shorten(features_NF, dim)


def train_head(
    head: FittedHead,
    features_NF: np.ndarray,
    labels_N: np.ndarray,
    training: HeadTraining,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
) -> FittedHead:
    """Train ``head`` further with a loss; the same seed gives the same bits.

    Args:
        head: where to start.
        features_NF: frozen features (N, F).
        labels_N: an integer label per image.
        training: the loss, and whether an MLP is trained too.
        seed: of the first proxies and MLP weights, the batches and the noise. Torch's global state stays as it is.
        epochs: passes over the features.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs_NF = torch.from_numpy((sqrt_features(features_NF) if head.sqrt else features_NF).astype(np.float32))
    classes, code_N = np.unique(labels_N, return_inverse=True)
    target_N = torch.from_numpy(code_N.astype(np.int64))
    vectors_ND = head(features_NF)
    scale = 1.0 / max(float(np.linalg.norm(vectors_ND, axis=1).mean()), 1e-12)
    means_CD = l2_normalize(np.stack([l2_normalize(vectors_ND[code_N == c]).mean(axis=0) for c in range(len(classes))]))
    with torch.random.fork_rng(devices=[]):  # proxies and MLP weights are initialized from the global generator
        torch.manual_seed(seed)
        criterion = build_loss(training.loss, dict(training.parameters), classes=len(classes), dim=vectors_ND.shape[1])
        adaptor = Adapter(inputs_NF.shape[1], hidden_width(inputs_NF.shape[1])) if training.mlp else None
        linear = nn.Linear(*head.matrix_FD.shape)
    initialize_proxies(criterion, means_CD.astype(np.float32))
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(head.matrix_FD.T.astype(np.float32) * scale))
        linear.bias.copy_(torch.from_numpy(-head.offset_D.astype(np.float32) * scale))
    network = linear if adaptor is None else nn.Sequential(adaptor, linear)
    _run_epochs(network, criterion, inputs_NF, target_N, generator, epochs)
    mlp = None if adaptor is None else MLPResidual(*(
        array for layer in (adaptor.down, adaptor.up) for array in (_to_array(layer.weight).T, _to_array(layer.bias))
    ))  # fmt: skip
    return FittedHead(_to_array(linear.weight).T, -_to_array(linear.bias), head.sqrt, mlp)


def _run_epochs(
    network: nn.Module, criterion: nn.Module, inputs_NF: torch.Tensor, target_N: torch.Tensor, generator: torch.Generator,
    epochs: int,
) -> None:  # fmt: skip
    """Minimize the loss on batches of noisy features, drawn with replacement, by AdamW with a cosine schedule."""
    optimizer = torch.optim.AdamW(
        [{"params": list(network.parameters()), "lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY},
         {"params": list(criterion.parameters()), "lr": PROXY_LEARNING_RATE, "weight_decay": 0.0}]
    )  # fmt: skip
    batch_size = min(BATCH_SIZE, len(inputs_NF))
    steps = epochs * max(1, len(inputs_NF) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    noise_F = NOISE * inputs_NF.std(dim=0)
    for _ in range(steps):
        rows_B = torch.randint(len(inputs_NF), (batch_size,), generator=generator)
        inputs_BF = inputs_NF[rows_B] + noise_F * torch.randn((batch_size, len(noise_F)), generator=generator)
        loss = criterion(network(inputs_BF), target_N[rows_B])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()


def _to_array(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().numpy()
    return array
