"""Fine-tuning begins where the frozen features end: with the fitted head, and with the loss's proxies at its classes.

A head that is right for the frozen trunk keeps the first gradients from pulling good features apart (A. Kumar et al.,
Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution, 2022: first the head, then the network).
Shape letters: N images, F features, D dimensions of the vector, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from unalike.learn.discriminant import Discriminant
from unalike.measure.nearest import unit

# How losses of pytorch-metric-learning call their class directions, and whether a class is a column of them.
PROXIES = {"W": True, "proxies": False}


def fitted_start(head: Discriminant, features_NF: np.ndarray, labels_N: np.ndarray) -> Callable[[Any, nn.Module], None]:
    """What ``train_embedder`` calls before the first step: the network's Linear is the fitted head, at the scale of a fresh
    one, and the loss's proxies, where it has any, are the means of the classes' vectors."""
    vectors_ND = unit(head(features_NF))
    means_CD = unit(np.stack([vectors_ND[labels_N == label].mean(axis=0) for label in np.unique(labels_N)]))

    def begin(embedder: Any, objective: nn.Module) -> None:
        linear = embedder.head.linear
        scale = float(np.sqrt((linear.weight**2).mean().item()) / np.sqrt((head.matrix_FD**2).mean()))
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(head.matrix_FD.T * scale)))
            linear.bias.copy_(torch.from_numpy(-head.offset_D * scale))
        start_proxies(objective, means_CD)

    return begin


def start_proxies(objective: nn.Module, means_CD: np.ndarray) -> None:
    """Put the loss's proxies, where it has any of that shape, at the classes' mean vectors."""
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            columns = PROXIES.get(name.rpartition(".")[2])
            wanted = None if columns is None else torch.from_numpy(means_CD.T if columns else means_CD)
            if wanted is not None and wanted.shape == parameter.shape:
                parameter.copy_(wanted)
