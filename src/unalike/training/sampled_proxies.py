"""Proxy losses over a sample of the classes: each step compares its images with the proxies of their classes and of others drawn.

A loss with a proxy for each class has a matrix of as many scores as there are images and classes, and an optimizer that moves
all proxies at every step. With a million classes both take more memory than the network. Here the loss sees S classes a step;
proxies and the optimizer's moments of all C classes lie in the computer's memory, whatever the device, and only the rows of
these S are moved. After X. An et al., Partial FC, ICCV Workshops 2021, without their split of classes over GPUs.

Shape letters: B batch, C classes, S sampled classes, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unalike.errors import SpecError, TrainingError

# How losses of pytorch-metric-learning name their class proxies, and whether a class is a column of them.
PROXIES = {"W": True, "proxies": False}
_KEY = "train.loss.sampled_classes"


class SampledProxies(nn.Module):
    """A proxy loss of C classes that sees S of them at each step: those of the batch, and others drawn at random.

    Moments of the optimizer move with the rows of a step and stay as they are otherwise, as in ``torch.optim.SparseAdam``.

    Args:
        build: makes the loss for a number of classes.
        classes: number of classes C.
        sampled: number of classes S of a step, below C.
        seed: of the draws.

    Raises:
        SpecError: the loss does not have one proxy for each class.
    """

    def __init__(self, build: Callable[[int], nn.Module], *, classes: int, sampled: int, seed: int = 0) -> None:
        super().__init__()
        self.loss, self.classes, self.sampled, self.seed = build(sampled), classes, sampled, seed
        self._name = _proxy_name(self.loss, sampled)
        proxies = self._parameter()
        self._steps = 0
        self._drawn_S = np.zeros(0, np.int64)  # rows that the parameter holds
        self._optimizer: torch.optim.Optimizer | None = None
        self._moments: dict[str, Tensor] = {}
        # Not buffers: they stay in the computer's memory where the loss goes to a GPU.
        self._table_CD = torch.empty((classes, proxies.shape[0] if self._is_column else proxies.shape[1]))
        for start in range(0, classes, sampled):  # as the loss initializes its own
            self._initialize(proxies)
            rows = self._table_CD[start : start + sampled]
            rows.copy_(self._as_rows(proxies.detach())[: len(rows)])

    @property
    def _is_column(self) -> bool:
        return PROXIES[self._name]

    def _parameter(self) -> nn.Parameter:
        parameter: nn.Parameter = getattr(self.loss, self._name)
        return parameter

    def _as_rows(self, proxies: Tensor) -> Tensor:
        """Proxies or their moments, of the parameter's shape, as (S, D)."""
        return proxies.T if self._is_column else proxies

    def _initialize(self, proxies: nn.Parameter) -> None:
        initialize: Callable[[Tensor], Any] = getattr(self.loss, "weight_init_func", nn.init.kaiming_normal_)
        with torch.no_grad():
            initialize(proxies)

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Let each step of an optimizer, which has the loss's parameters, move the rows of that step."""
        self._optimizer = optimizer
        optimizer.register_step_post_hook(lambda *_: self._write_back())

    def set_proxies(self, proxies_CD: Tensor) -> None:
        """Set the proxies of all classes; without effect for another shape than (C, D)."""
        if proxies_CD.shape == self._table_CD.shape:
            self._table_CD.copy_(proxies_CD)

    def forward(self, vectors_BD: Tensor, labels_B: Tensor, mined: Any = None) -> Tensor:
        """Compute the loss with the classes of the batch and others.

        Args:
            vectors_BD: vectors of the network.
            labels_B: labels in 0 .. C - 1.
            mined: indices of the miner, if there is one.

        Returns:
            The loss, a scalar.

        Raises:
            TrainingError: the batch has more than S classes.
        """
        label_B = labels_B.cpu().numpy()
        self._draw(label_B)
        positions_B = torch.from_numpy(np.searchsorted(self._drawn_S, label_B)).to(labels_B.device)
        loss: Tensor = self.loss(vectors_BD, positions_B, *(() if mined is None else (mined,)))
        return loss

    def _draw(self, labels_B: np.ndarray) -> None:
        """Draw the classes of a step, and put their rows into the parameter and the optimizer."""
        own = np.unique(labels_B)
        if len(own) > self.sampled:
            raise TrainingError(f"{_KEY} is {self.sampled} and a batch has images of {len(own)} classes",
                                expected="at least as many", remedy="raise it")  # fmt: skip
        random = np.random.default_rng((self.seed, self._steps))
        others = random.choice(self.classes, self.sampled, replace=False)
        negatives = others[~np.isin(others, own)][: self.sampled - len(own)]
        self._drawn_S = np.sort(np.concatenate([own, negatives]))
        self._steps += 1
        proxies, rows_S = self._parameter(), torch.from_numpy(self._drawn_S)
        with torch.no_grad():
            self._as_rows(proxies).copy_(self._table_CD[rows_S])
            for name, moment in self._moment_tensors():
                self._as_rows(moment).copy_(self._moments[name][rows_S])

    def _moment_tensors(self) -> list[tuple[str, Tensor]]:
        """(name, tensor) of what the optimizer keeps for each value of the parameter."""
        parameter = self._parameter()
        state = {} if self._optimizer is None else self._optimizer.state.get(parameter, {})
        moments = [
            (name, value) for name, value in state.items() if torch.is_tensor(value) and value.shape == parameter.shape
        ]
        for name, _ in moments:
            if name not in self._moments:
                self._moments[name] = torch.zeros_like(self._table_CD)
        return moments

    def _write_back(self) -> None:
        rows_S = torch.from_numpy(self._drawn_S)
        with torch.no_grad():
            self._table_CD[rows_S] = self._as_rows(self._parameter().detach()).cpu()
            for name, moment in self._moment_tensors():
                self._moments[name][rows_S] = self._as_rows(moment).cpu()

    def get_extra_state(self) -> dict[str, Any]:
        """Proxies and moments of all classes, for a checkpoint."""
        return {"proxies": self._table_CD, "moments": dict(self._moments), "steps": self._steps}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``get_extra_state`` returned."""
        self._table_CD.copy_(state["proxies"])
        self._moments = {name: value.clone() for name, value in state["moments"].items()}
        self._steps = int(state["steps"])


def _proxy_name(loss: nn.Module, sampled: int) -> str:
    for name, parameter in loss.named_parameters(recurse=False):
        if name in PROXIES and parameter.shape[1 if PROXIES[name] else 0] == sampled:
            return name
    raise SpecError(
        f"{_KEY} is set and train.loss.name is {type(loss).__name__}",
        expected="a loss with one proxy for each class, such as CosFaceLoss, ArcFaceLoss, NormalizedSoftmaxLoss, ProxyNCALoss or "
        "ProxyAnchorLoss",
        remedy=f"change the loss, or remove {_KEY}",
    )
