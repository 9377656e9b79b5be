"""Losses and miners by name: those of pytorch-metric-learning, and own ones from two registries.

Source of names and parameters: the installed pytorch-metric-learning (K. Musgrave et al.), whose classes are used as
they are. Shape letters: B batch, D embedding width, C classes.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unalike.errors import SpecError, TrainingError, closest
from unalike.storage.outside_files import reader_errors, reason
from unalike.training.sampled_proxies import PROXIES, SampledProxies

if TYPE_CHECKING:
    from unalike.spec import Experiment

# Own losses, which ``train.loss.name`` may have beside those of the library. A loss is a module that is called as
# ``loss(vectors_BD, labels_B, mined)`` and returns a scalar; ``mined`` is what the miner returned, and is left out where
# there is none. Parameters of its constructor named ``num_classes`` and ``embedding_size`` come from data and model, all
# others from ``train.loss.parameters``. tests/unit/training/test_losses.py runs every loss that stands here.
LOSSES: dict[str, type[nn.Module]] = {
    # "MyLoss": MyLoss,
}
# Own miners, called as ``miner(vectors_BD, labels_B)``; they return indices as the library's miners do.
MINERS: dict[str, type[nn.Module]] = {
    # "MyMiner": MyMiner,
}

# Classes of pytorch_metric_learning.losses that are ancestors or containers, not losses of their own, and the two
# that need pairs of views instead of labels.
_NOT_LOSSES = {
    "BaseMetricLossFunction", "BaseLossWrapper", "GenericPairLoss", "MultipleLosses", "SelfSupervisedLoss",
    "EmbeddingRegularizerMixin", "WeightRegularizerMixin", "VICRegLoss", "CrossBatchMemory",
}  # fmt: skip
_NOT_MINERS = {"BaseMiner", "EmbeddingsAlreadyPackagedAsTriplets"}
# Constructor parameters that come from the data and the model, never from a spec, and which of the two facts they are.
_FACTS = {"num_classes": "classes", "embedding_size": "dim", "descriptors_dim": "dim", "l": "dim"}
# Parameters that are Python objects; a spec is plain data and cannot hold them.
_OBJECTS = {"distance", "reducer", "embedding_regularizer", "weight_regularizer", "weight_init_func", "collect_stats"}
# Weights of these objects: without the object they act nowhere.
_WEIGHTS_OF_OBJECTS = {"embedding_reg_weight", "weight_reg_weight"}

# What some losses need of a batch. Those that stand here are not tried out on a small one.
_NEEDS = {
    "ManifoldLoss": "at least as many images in a batch as train.loss.parameters.K, which is 50 unless it is set",
    "NCALoss": "two or more images of a class (dataset.num_instance)",
    "SmoothAPLoss": "as many images of each class (train.batch_size a multiple of dataset.num_instance)",
}
# In errors that a device or a network causes, not the batch.
_DEVICE_WORDS = ("CUDA", "cuda", "NCCL", "can't allocate memory", "DefaultCPUAllocator")


def _library_classes(module: ModuleType, hidden: set[str]) -> dict[str, type[nn.Module]]:
    classes = {name: c for name, c in vars(module).items() if inspect.isclass(c)}
    return {name: c for name, c in classes.items() if issubclass(c, nn.Module) and name not in hidden}


def _loss_classes() -> dict[str, type[nn.Module]]:
    from pytorch_metric_learning import losses

    return _library_classes(losses, _NOT_LOSSES) | LOSSES


def _miner_classes() -> dict[str, type[nn.Module]]:
    from pytorch_metric_learning import miners

    return _library_classes(miners, _NOT_MINERS) | MINERS


def loss_names() -> tuple[str, ...]:
    """Return the names of all losses that a spec can name."""
    return tuple(sorted(_loss_classes()))


def miner_names() -> tuple[str, ...]:
    """Return the names of all miners that a spec can name."""
    return tuple(sorted(_miner_classes()))


def _parameter_names(cls: type) -> set[str]:
    """Return the keyword parameters of a class, with those of its ancestors where it passes ``**kwargs`` on."""
    names: set[str] = set()
    for ancestor in cls.__mro__:
        if ancestor in (nn.Module, object):
            break
        parameters = inspect.signature(ancestor.__init__).parameters  # type: ignore[misc]
        names |= {p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return names - {"self"} - _OBJECTS - _WEIGHTS_OF_OBJECTS


def _choose(kind: str, key: str, name: str, classes: Mapping[str, type[nn.Module]]) -> type[nn.Module]:
    if name not in classes:
        hint = closest(name, classes) or f"one of {', '.join(sorted(classes))}"
        raise SpecError(f"{key}: there is no {kind} named {name!r}", remedy=hint)
    return classes[name]


def _construct(
    key: str, cls: type[nn.Module], parameters: Mapping[str, Any], facts: Mapping[str, int]
) -> nn.Module:  # fmt: skip
    """Create an instance of ``cls`` with the facts that it takes; raise SpecError for parameters that it does not have."""
    names = _parameter_names(cls)
    for parameter in parameters:
        if parameter in _FACTS:
            raise SpecError(f"{key}.parameters.{parameter} is set", expected="it to come from the data and the model",
                            remedy="remove it")  # fmt: skip
        if parameter not in names:
            raise SpecError(
                f"{key}.parameters.{parameter}: {cls.__name__} has no such parameter",
                expected=", ".join(sorted(names - set(_FACTS))) or "none",
                remedy=closest(parameter, names),
            )
    facts_of_class = {name: facts[fact] for name, fact in _FACTS.items() if name in names and fact in facts}
    with reader_errors(f"{key}: {cls.__name__} refuses {dict(parameters)}", error=SpecError):
        module = cls(**facts_of_class, **parameters)
        if parameters and cls.__name__ not in _NEEDS:
            _try_out(key, cls, parameters, facts_of_class)
    return module


def _try_out(key: str, cls: type[nn.Module], parameters: Mapping[str, Any], class_facts: Mapping[str, int]) -> None:
    """Compute one small batch: many constructors take any value, and only the first step of a training would find it wrong.

    The states of random number generators stay as they are.
    """
    classes, dim = 8, 32
    small = {name: classes if _FACTS[name] == "classes" else dim for name in class_facts}
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            vectors_BD = torch.nn.functional.normalize(torch.randn(4 * classes, dim)).requires_grad_()
            result = cls(**small, **parameters)(vectors_BD, torch.arange(classes).repeat_interleave(4))
            if key == "train.loss":
                result.backward()
                if not (torch.isfinite(result) and (vectors_BD.grad is None or torch.isfinite(vectors_BD.grad).all())):
                    raise ValueError("its value is not finite")
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def build_loss(name: str, parameters: Mapping[str, Any], *, classes: int, dim: int) -> nn.Module:
    """Build the loss of a name.

    Args:
        name: a loss of pytorch-metric-learning, or a key of ``LOSSES``.
        parameters: arguments of its constructor.
        classes: number of classes, from the data.
        dim: width D of the vectors, from the model.

    Raises:
        SpecError: there is no such loss, or it has no such parameter.
    """
    cls = _choose("loss", "train.loss.name", name, _loss_classes())
    facts = {"classes": classes, "dim": dim}
    if name == "MarginLoss" and not parameters.get("learn_beta"):
        facts = {}  # one beta for all unless it is learned: a class count would make it a vector
    return _construct("train.loss", cls, dict(parameters), facts)


def build_miner(name: str | None, parameters: Mapping[str, Any]) -> nn.Module | None:
    """Build the miner of a name.

    Args:
        name: a miner of pytorch-metric-learning, or a key of ``MINERS``; None for no miner.
        parameters: arguments of its constructor.

    Raises:
        SpecError: there is no such miner, or it has no such parameter.
    """
    if name is None:
        return None
    return _construct("train.miner", _choose("miner", "train.miner.name", name, _miner_classes()), parameters, {})


class Criterion(nn.Module):
    """The miner, then the loss, on the vectors of one batch (gathered from all ranks), in float32 under any precision.

    Args:
        loss: called with vectors, labels and the miner's indices.
        miner: chooses pairs or triplets; None for all.
    """

    def __init__(self, loss: nn.Module, miner: nn.Module | None) -> None:
        super().__init__()
        self.loss, self.miner = loss, miner
        self.ignores_labels = type(loss).__name__ == "ManifoldLoss"  # the library's one loss that refuses labels

    def forward(self, vectors_BD: Tensor, labels_B: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            vectors_BD: vectors of the embedder.
            labels_B: integer labels.

        Returns:
            The loss, a scalar.

        Raises:
            TrainingError: the loss cannot be computed on such a batch.
        """
        wrapped = getattr(self.loss, "loss", None)  # of sampled proxies and of the memory
        name = type(wrapped if isinstance(wrapped, nn.Module) else self.loss).__name__
        if name == "NCALoss" and len(torch.unique(labels_B)) == len(labels_B):  # it would be NaN
            raise self._batch_error(name, labels_B, "no class has two images in it")
        try:
            return self._compute(vectors_BD.float(), labels_B)
        except (TypeError, ValueError, LookupError, AssertionError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in _DEVICE_WORDS):
                raise
            raise self._batch_error(name, labels_B, reason(error)) from error

    def _compute(self, vectors_BD: Tensor, labels_B: Tensor) -> Tensor:
        if self.ignores_labels:
            loss: Tensor = self.loss(vectors_BD)
        elif self.miner is None:
            loss = self.loss(vectors_BD, labels_B)
        else:
            with torch.no_grad():
                tuples = self.miner(vectors_BD.detach(), labels_B)
            loss = self.loss(vectors_BD, labels_B, tuples)
        return loss

    def _batch_error(self, name: str, labels_B: Tensor, cause: str) -> TrainingError:
        return TrainingError(
            f"{name} cannot be computed on a batch of {len(labels_B)} images of {len(torch.unique(labels_B))} classes: {cause}",
            expected=_NEEDS.get(name, ""),
            remedy="change train.batch_size and dataset.num_instance, or take another train.loss.name",
        )


def build_criterion(experiment: Experiment, *, classes: int, dim: int) -> Criterion:
    """Build the loss and the miner of a settled spec.

    TAO's own keys (``triplet_loss_margin``, ``smooth_loss``, ``miner_function_margin``) are the defaults of the two
    classes that they belong to; ``train.loss.parameters`` and ``train.miner.parameters`` override them.

    Args:
        experiment: the settled spec.
        classes: number of classes, from the data.
        dim: width D of the vectors, from the model.

    Raises:
        SpecError: there is no such loss or miner, or it has no such parameter.
    """
    train, optim = experiment.train, experiment.train.optim
    loss_parameters = dict(train.loss.parameters)
    if train.loss.name == "TripletMarginLoss":
        loss_parameters = {"margin": optim.triplet_loss_margin, "smooth_loss": train.smooth_loss} | loss_parameters
    miner_parameters = dict(train.miner.parameters)
    if train.miner.name == "MultiSimilarityMiner":
        miner_parameters = {"epsilon": optim.miner_function_margin} | miner_parameters
    sampled, memory_size = train.loss.sampled_classes, train.loss.memory_size
    miner = build_miner(train.miner.name, miner_parameters)

    def build(count: int) -> nn.Module:
        return build_loss(train.loss.name, loss_parameters, classes=count, dim=dim)

    if memory_size is not None and sampled is None:
        from unalike.training.cross_batch_memory import CrossBatchMemory, check_memory

        check_memory(train, memory_size)
        return Criterion(CrossBatchMemory(build(classes), dim, memory_size, miner), None)
    if sampled is None or sampled >= classes:
        loss = build(classes)
    else:
        _check_sampled(experiment)
        loss = SampledProxies(build, classes=classes, sampled=sampled, seed=max(0, train.seed))
    return Criterion(loss, miner)


def _check_sampled(experiment: Experiment) -> None:
    """Refuse settings under which the processes or batches of an update would draw different classes."""
    train = experiment.train
    if train.accumulate > 1:
        raise SpecError(f"train.loss.sampled_classes is set and train.accumulate is {train.accumulate}", expected="1",
                        remedy="raise train.batch_size in place of it")  # fmt: skip
    if not train.max_gather and train.num_gpus * train.num_nodes > 1:
        raise SpecError("train.loss.sampled_classes is set and train.max_gather is false", expected="true",
                        remedy="let the processes share their batches")  # fmt: skip


def has_parameters(name: str, parameters: Mapping[str, Any] | None = None) -> bool:
    """Return whether a loss has weights of its own (proxies, class centers, a margin), trained with ``optim.loss_lr``.

    Args:
        name: name of the loss.
        parameters: ``train.loss.parameters``.
    """
    cls = _loss_classes().get(name)
    if cls is None:
        return False
    if name == "MarginLoss":
        return bool((parameters or {}).get("learn_beta"))
    return name == "ManifoldLoss" or "num_classes" in _parameter_names(cls)


def initialize_proxies(criterion: nn.Module, means_CD: np.ndarray) -> None:
    """Set the loss's proxies to the mean vectors of the classes; without effect where it has none of that shape.

    Args:
        criterion: the criterion.
        means_CD: mean vector of each class.
    """
    for module in criterion.modules():
        if isinstance(module, SampledProxies):
            module.set_proxies(torch.from_numpy(means_CD))
    with torch.no_grad():
        for name, parameter in criterion.named_parameters():
            is_column = PROXIES.get(name.rpartition(".")[2])
            start = None if is_column is None else torch.from_numpy(means_CD.T if is_column else means_CD)
            if start is not None and start.shape == parameter.shape:
                parameter.copy_(start)
