"""Heads that a loss trains on frozen features, in seconds: the closed form goes on from where it ends.

A margin loss, a loss of proxies and a loss of pairs move the linear map of ``learn.discriminant`` and, where they have
them, the class directions, which begin at the classes' mean vectors. Noise on the features, a share of their own spread,
stands for the photographs that were not taken. What it is worth stands in LOG.md: a point of MAP@R, and of R@1 nothing sure.
Shape letters: N images, F features, D dimensions of the vector, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from unalike.learn.discriminant import Discriminant, rooted
from unalike.learn.losses import build_loss
from unalike.learn.warm_start import start_proxies
from unalike.measure.nearest import unit

# In the order in which they are tried; the parameters are those that learnt best on Grocery's training classes (LOG.md).
FAMILIES: dict[str, dict[str, Any]] = {
    "CosFaceLoss": {"margin": 0.2, "scale": 20.0},
    "MultiSimilarityLoss": {},
    "ProxyAnchorLoss": {"margin": 0.1, "alpha": 16},
}
EPOCHS, BATCH, NOISE = 30, 128, 0.3
RATE, LOSS_RATE, DECAY = 1e-4, 3e-4, 0.01


def train_head(
    head: Discriminant, features_NF: np.ndarray, labels_N: np.ndarray, loss: str, *, seed: int = 0, epochs: int = EPOCHS
) -> Discriminant:
    """``head`` after ``epochs`` with the loss of FAMILIES on these features; the same seed gives the same bits."""
    draw = torch.Generator().manual_seed(seed)
    inputs_NF = torch.from_numpy((rooted(features_NF) if head.rooted else features_NF).astype(np.float32))
    classes, code_N = np.unique(labels_N, return_inverse=True)
    target_N = torch.from_numpy(code_N.astype(np.int64))
    vectors_ND = head(features_NF)
    scale = 1.0 / max(float(np.linalg.norm(vectors_ND, axis=1).mean()), 1e-12)
    means_CD = unit(np.stack([unit(vectors_ND[code_N == c]).mean(axis=0) for c in range(len(classes))]))
    with torch.random.fork_rng(devices=[]):  # the library draws its first proxies from the global numbers
        torch.manual_seed(seed)
        objective = build_loss(loss, FAMILIES[loss], classes=len(classes), dim=vectors_ND.shape[1])
    start_proxies(objective, means_CD.astype(np.float32))
    matrix_DF = torch.nn.Parameter(torch.from_numpy(head.matrix_FD.T.astype(np.float32) * scale).contiguous())
    bias_D = torch.nn.Parameter(torch.from_numpy(-head.offset_D.astype(np.float32) * scale))
    optimiser = torch.optim.AdamW(
        [{"params": [matrix_DF, bias_D], "lr": RATE, "weight_decay": DECAY},
         {"params": list(objective.parameters()), "lr": LOSS_RATE, "weight_decay": 0.0}]
    )  # fmt: skip
    batch = min(BATCH, len(inputs_NF))
    steps = epochs * max(1, len(inputs_NF) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    spread_F = NOISE * inputs_NF.std(dim=0)
    for _ in range(steps):
        rows_B = torch.randint(len(inputs_NF), (batch,), generator=draw)
        inputs_BF = inputs_NF[rows_B] + spread_F * torch.randn((batch, len(spread_F)), generator=draw)
        value = objective(torch.nn.functional.linear(inputs_BF, matrix_DF, bias_D), target_N[rows_B])
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        schedule.step()
    return Discriminant(matrix_DF.detach().numpy().T, -bias_D.detach().numpy(), head.rooted)
