"""Losses and miners of pytorch-metric-learning, chosen by their exact names and built with checked parameters.

Source of names and parameters: the installed pytorch-metric-learning (K. Musgrave et al.), whose classes are used as
they are. Shape letters: B batch, D embedding width.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unalike.errors import SpecError, closest

# Classes of pytorch_metric_learning.losses that are ancestors or containers, not losses of their own, and the two
# that need pairs of views instead of labels.
_NOT_LOSSES = {
    "BaseMetricLossFunction", "BaseLossWrapper", "GenericPairLoss", "MultipleLosses", "SelfSupervisedLoss",
    "EmbeddingRegularizerMixin", "WeightRegularizerMixin", "VICRegLoss", "CrossBatchMemory",
}  # fmt: skip
_NOT_MINERS = {"BaseMiner", "EmbeddingsAlreadyPackagedAsTriplets"}
# What the library calls the same two facts; they come from the data and the model, never from a spec.
_FACTS = {"num_classes": "classes", "embedding_size": "dim", "descriptors_dim": "dim", "l": "dim"}
# Parameters that are Python objects; a spec is plain data and cannot hold them.
_OBJECTS = {"distance", "reducer", "embedding_regularizer", "weight_regularizer", "weight_init_func", "collect_stats"}

# How losses of pytorch-metric-learning call their class directions, and whether a class is a column of them.
PROXIES = {"W": True, "proxies": False}


def _classes(module: Any, hidden: set[str]) -> dict[str, type]:
    return {name: c for name, c in vars(module).items() if inspect.isclass(c) and name not in hidden}


def loss_names() -> tuple[str, ...]:
    """Every loss that a spec can name."""
    from pytorch_metric_learning import losses

    return tuple(sorted(_classes(losses, _NOT_LOSSES)))


def miner_names() -> tuple[str, ...]:
    """Every miner that a spec can name."""
    from pytorch_metric_learning import miners

    return tuple(sorted(_classes(miners, _NOT_MINERS)))


def _signature(cls: type) -> set[str]:
    """Keyword parameters of a class, those of its ancestors included where it passes ``**kwargs`` on."""
    names: set[str] = set()
    for ancestor in cls.__mro__:
        if ancestor in (nn.Module, object):
            break
        parameters = inspect.signature(ancestor.__init__).parameters  # type: ignore[misc]
        names |= {p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return names - {"self"} - _OBJECTS


def _choose(kind: str, key: str, name: str, table: Mapping[str, type]) -> type:
    if name not in table:
        hint = closest(name, table) or f"one of {', '.join(sorted(table))}"
        raise SpecError(f"{key}: there is no {kind} named {name!r}", remedy=hint)
    return table[name]


def _construct(key: str, cls: type, parameters: Mapping[str, Any], facts: Mapping[str, Any]) -> nn.Module:
    allowed = _signature(cls)
    for parameter in parameters:
        if parameter in _FACTS:
            raise SpecError(f"{key}.parameters.{parameter} is set", expected="it to come from the data and the model",
                            remedy="remove it")  # fmt: skip
        if parameter not in allowed:
            raise SpecError(
                f"{key}.parameters.{parameter}: {cls.__name__} has no such parameter",
                expected=", ".join(sorted(allowed - set(_FACTS))) or "none",
                remedy=closest(parameter, allowed),
            )
    known = {name: facts[fact] for name, fact in _FACTS.items() if name in allowed}
    try:
        return cls(**known, **parameters)
    except (TypeError, ValueError, AssertionError) as error:
        raise SpecError(f"{key}: {cls.__name__} refuses {dict(parameters)}: {error}") from error


def build_loss(name: str, parameters: Mapping[str, Any], *, classes: int, dim: int) -> nn.Module:
    """The loss ``name`` with ``parameters``; class count and width come from the data and the model.

    Raises SpecError for a name or parameter that the library does not have.
    """
    from pytorch_metric_learning import losses

    cls = _choose("loss", "train.loss.name", name, _classes(losses, _NOT_LOSSES))
    parameters = dict(parameters)
    if name == "MarginLoss" and parameters.get("learn_beta"):
        return _construct("train.loss", cls, parameters, {"classes": classes, "dim": dim})
    if name == "MarginLoss":  # one beta for all unless it is learnt: a class count would make it a vector
        return cls(**parameters)
    return _construct("train.loss", cls, parameters, {"classes": classes, "dim": dim})


def build_miner(name: str | None, parameters: Mapping[str, Any]) -> nn.Module | None:
    """The miner ``name``, or None where none is asked for."""
    if name is None:
        return None
    from pytorch_metric_learning import miners

    cls = _choose("miner", "train.miner.name", name, _classes(miners, _NOT_MINERS))
    return _construct("train.miner", cls, parameters, {})


class Criterion(nn.Module):
    """Miner, then loss, on the vectors of one whole (gathered) batch; kept in float32 under any precision."""

    def __init__(self, loss: nn.Module, miner: nn.Module | None) -> None:
        super().__init__()
        self.loss, self.miner = loss, miner
        self.unlabelled = type(loss).__name__ == "ManifoldLoss"  # the one loss there that refuses labels

    def forward(self, vectors_BD: Tensor, labels_B: Tensor) -> Tensor:
        vectors_BD = vectors_BD.float()
        if self.unlabelled:
            return self.loss(vectors_BD)
        if self.miner is None:
            return self.loss(vectors_BD, labels_B)
        with torch.no_grad():
            chosen = self.miner(vectors_BD.detach(), labels_B)
        return self.loss(vectors_BD, labels_B, chosen)


def build_criterion(spec: Any, *, classes: int, dim: int) -> Criterion:
    """Loss and miner of a resolved spec.

    TAO's own keys (``triplet_loss_margin``, ``smooth_loss``, ``miner_function_margin``) are the defaults of the two
    classes that they belong to; ``train.loss.parameters`` and ``train.miner.parameters`` go before them.
    """
    loss, miner, optim = spec.train.loss, spec.train.miner, spec.train.optim
    loss_parameters = dict(loss.parameters)
    if loss.name == "TripletMarginLoss":
        loss_parameters = {"margin": optim.triplet_loss_margin, "smooth_loss": spec.train.smooth_loss} | loss_parameters
    miner_parameters = dict(miner.parameters)
    if miner.name == "MultiSimilarityMiner":
        miner_parameters = {"epsilon": optim.miner_function_margin} | miner_parameters
    return Criterion(
        build_loss(loss.name, loss_parameters, classes=classes, dim=dim), build_miner(miner.name, miner_parameters)
    )


def has_parameters(name: str, parameters: Mapping[str, Any] | None = None) -> bool:
    """Whether a loss learns something itself (proxies, class centres, a margin), for which ``optim.loss_lr`` counts."""
    from pytorch_metric_learning import losses

    cls = _classes(losses, _NOT_LOSSES).get(name)
    if cls is None:
        return False
    if name == "MarginLoss":
        return bool((parameters or {}).get("learn_beta"))
    return name == "ManifoldLoss" or "num_classes" in _signature(cls)


def initialize_proxies(criterion: nn.Module, means_CD: np.ndarray) -> None:
    """Put the loss's proxies, where it has any of that shape, at the classes' mean vectors."""
    with torch.no_grad():
        for name, parameter in criterion.named_parameters():
            columns = PROXIES.get(name.rpartition(".")[2])
            wanted = None if columns is None else torch.from_numpy(means_CD.T if columns else means_CD)
            if wanted is not None and wanted.shape == parameter.shape:
                parameter.copy_(wanted)
