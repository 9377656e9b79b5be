"""Heads that a loss trains on frozen features, in seconds: the closed form goes on from where it ends.

A margin loss, a loss of proxies and a loss of pairs move the linear map of ``learn.discriminant`` and, where they have
them, the class directions, which begin at the classes' mean vectors; a perceptron may stand before the map, and begins as
nothing. Noise on the features, a share of their own spread, stands for the photographs that were not taken. What it is
worth stands in docs/experiments/heads.md: on some trunks a point of MAP@R and nothing lost, on others a point of R@1
lost, so they are judged.
Shape letters: N images, F features, D dimensions of the vector, C classes, H hidden values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from unalike.metrics.knn import unit
from unalike.model.embedder import Adapter, hidden_width
from unalike.spec import settle
from unalike.training.heads.discriminant import Bend, Discriminant, rooted, whitening
from unalike.training.losses import build_loss, initialize_proxies


@dataclass(frozen=True)
class Family:
    """A loss of pytorch-metric-learning with its parameters, and whether a perceptron is trained along."""

    loss: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    bends: bool = False

    @property
    def name(self) -> str:
        return self.loss + (" and a perceptron" if self.bends else "")


# The parameters are those that learnt best on Grocery's training classes (docs/experiments/heads.md).
PARAMETERS: dict[str, dict[str, Any]] = {
    "CosFaceLoss": {"margin": 0.2, "scale": 20.0},
    "MultiSimilarityLoss": {},
    "ProxyAnchorLoss": {"margin": 0.1, "alpha": 16},
}


def family_of(loss: str | None, *, bends: bool = False) -> Family | None:
    """The family of a loss of PARAMETERS; None for no loss, but a perceptron, which no closed form fits, has CosFace."""
    loss = loss or ("CosFaceLoss" if bends else None)
    return None if loss is None else Family(loss, PARAMETERS[loss], bends)


# In the order in which they are tried.
FAMILIES = tuple(
    Family(loss, PARAMETERS[loss], bends)
    for loss, bends in (("CosFaceLoss", False), ("MultiSimilarityLoss", False), ("CosFaceLoss", True),
                        ("ProxyAnchorLoss", False))
)  # fmt: skip
EPOCHS, BATCH, NOISE = 10, 128, 0.3
RATE, LOSS_RATE, DECAY = 1e-4, 3e-4, 0.01


@dataclass(frozen=True)
class Form:
    """How a head is fitted to features: the closed form of ``learn.discriminant``, and what trains it on, if anything."""

    root: bool = True
    residual: float = 0.5
    shrinkage: float = 1.0
    family: Family | None = None

    @classmethod
    def of(cls, spec: Any) -> Form:
        """By ``model.head`` and ``train.finish``."""
        finish, kind = spec.train.finish, spec.model.head
        family = family_of(finish.loss, bends=kind == "mlp")
        return cls(kind != "linear", finish.residual, finish.shrinkage, family)

    @property
    def name(self) -> str:
        closed = f"discriminant head, residual {self.residual:g}"
        closed += f", shrinkage x {self.shrinkage:g}" if self.shrinkage != 1 else ""
        closed += ", square root" if self.root else ""
        return closed + (f", trained with {self.family.name}" if self.family else "")

    def settle(self, spec: Any, *, mirrored: bool) -> None:
        """The same in the words of a spec, where the user left it open."""
        family = self.family
        kind = "mlp" if family is not None and family.bends else "rooted" if self.root else "linear"
        for path, value in (
            ("model.head", kind), ("train.finish.residual", self.residual), ("train.finish.shrinkage", self.shrinkage),
            ("train.finish.loss", family and family.loss), ("train.finish.mirrored", mirrored),
        ):  # fmt: skip
            settle(spec, path, value, self.name)


def fitted_head(features_NF: np.ndarray, labels_N: np.ndarray, form: Form, dim: int | None = None) -> Discriminant:
    """The head of this form on these features, at most ``dim`` wide. Raises DataError as ``scatter``."""
    fitted = whitening(features_NF, labels_N, root=form.root, shrinkage=form.shrinkage)
    head = fitted.head(form.residual, dim)
    return train_head(head, features_NF, labels_N, form.family) if form.family else head


def train_head(
    head: Discriminant,
    features_NF: np.ndarray,
    labels_N: np.ndarray,
    family: Family,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
) -> Discriminant:
    """``head`` after ``epochs`` of the family's loss on these features; the same seed gives the same bits."""
    draw = torch.Generator().manual_seed(seed)
    inputs_NF = torch.from_numpy((rooted(features_NF) if head.rooted else features_NF).astype(np.float32))
    classes, code_N = np.unique(labels_N, return_inverse=True)
    target_N = torch.from_numpy(code_N.astype(np.int64))
    vectors_ND = head(features_NF)
    scale = 1.0 / max(float(np.linalg.norm(vectors_ND, axis=1).mean()), 1e-12)
    means_CD = unit(np.stack([unit(vectors_ND[code_N == c]).mean(axis=0) for c in range(len(classes))]))
    with torch.random.fork_rng(devices=[]):  # first proxies and hidden weights come from the global numbers
        torch.manual_seed(seed)
        objective = build_loss(family.loss, dict(family.parameters), classes=len(classes), dim=vectors_ND.shape[1])
        adaptor = Adapter(inputs_NF.shape[1], hidden_width(inputs_NF.shape[1])) if family.bends else None
        linear = nn.Linear(*head.matrix_FD.shape)
    initialize_proxies(objective, means_CD.astype(np.float32))
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(head.matrix_FD.T.astype(np.float32) * scale))
        linear.bias.copy_(torch.from_numpy(-head.offset_D.astype(np.float32) * scale))
    network = linear if adaptor is None else nn.Sequential(adaptor, linear)
    optimiser = torch.optim.AdamW(
        [{"params": list(network.parameters()), "lr": RATE, "weight_decay": DECAY},
         {"params": list(objective.parameters()), "lr": LOSS_RATE, "weight_decay": 0.0}]
    )  # fmt: skip
    batch = min(BATCH, len(inputs_NF))
    steps = epochs * max(1, len(inputs_NF) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    spread_F = NOISE * inputs_NF.std(dim=0)
    for _ in range(steps):
        rows_B = torch.randint(len(inputs_NF), (batch,), generator=draw)
        inputs_BF = inputs_NF[rows_B] + spread_F * torch.randn((batch, len(spread_F)), generator=draw)
        value = objective(network(inputs_BF), target_N[rows_B])
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        schedule.step()
    bend = None if adaptor is None else Bend(*(
        array for layer in (adaptor.down, adaptor.up) for array in (_array(layer.weight).T, _array(layer.bias))
    ))  # fmt: skip
    return Discriminant(_array(linear.weight).T, -_array(linear.bias), head.rooted, bend)


def _array(tensor: torch.Tensor) -> np.ndarray:
    found: np.ndarray = tensor.detach().numpy()
    return found
