"""Settings of a fitted head: its closed form, and further training with a loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unalike.errors import SpecError
from unalike.spec import settle

if TYPE_CHECKING:
    from unalike.spec import Experiment

# The parameters that gave the best heads on Grocery's training classes (docs/experiments/heads.md).
LOSS_PARAMETERS: dict[str, dict[str, Any]] = {
    "CosFaceLoss": {"margin": 0.2, "scale": 20.0},
    "MultiSimilarityLoss": {},
    "ProxyAnchorLoss": {"margin": 0.1, "alpha": 16},
}


@dataclass(frozen=True)
class HeadTraining:
    """How a head is trained after its closed form.

    Attributes:
        loss: a loss of pytorch-metric-learning by its name.
        parameters: the loss's parameters.
        mlp: whether an MLP residual before the linear map is trained too (``model.head: mlp``).
    """

    loss: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    mlp: bool = False

    @property
    def name(self) -> str:
        """The loss, and whether an MLP is trained."""
        return self.loss + (" and a perceptron" if self.mlp else "")


def head_training(loss: str | None, *, mlp: bool = False) -> HeadTraining | None:
    """Return the training with a loss of ``LOSS_PARAMETERS``; None for the closed form alone.

    An MLP has no closed form, so it is trained with CosFace where no loss is named.

    Args:
        loss: a key of ``LOSS_PARAMETERS``, or None.
        mlp: whether the head has an MLP.
    """
    loss = loss or ("CosFaceLoss" if mlp else None)
    return None if loss is None else HeadTraining(loss, LOSS_PARAMETERS[loss], mlp)


# Candidates of a head search, in the order in which they are tried.
HEAD_TRAININGS = tuple(
    HeadTraining(loss, LOSS_PARAMETERS[loss], mlp)
    for loss, mlp in (("CosFaceLoss", False), ("MultiSimilarityLoss", False), ("CosFaceLoss", True),
                      ("ProxyAnchorLoss", False))
)  # fmt: skip


def requested_dim(spec: Experiment) -> int | None:
    """Return ``model.feat_dim`` if the user set it."""
    return spec.model.feat_dim if spec.is_set("model.feat_dim") else None


def frozen_head_kind(spec: Experiment) -> str:
    """Return the ``model.head`` of a frozen trunk without a fitted head: the user's where it is set, else ``linear``."""
    kind = spec.model.head if spec.is_set("model.head") else "auto"
    return "linear" if kind == "auto" else kind


def too_many_dimensions(dim: int, available: int, residual: float) -> SpecError:
    """Return the error of a ``model.feat_dim`` that is larger than the number of directions of the fitted head."""
    return SpecError(f"model.feat_dim is {dim}", expected=f"at most {available}: there are so many directions with "
                     f"train.finish.residual {residual:g}", remedy="leave model.feat_dim out, or raise the residual")  # fmt: skip


@dataclass(frozen=True)
class HeadConfig:
    """How a head is fitted to features.

    Attributes:
        sqrt: whether the signed square root of the features is taken first.
        residual: weight, 0 to 1, of the directions in which the classes do not differ (see ``heads.discriminant``).
        shrinkage: shrinkage of the within-class scatter, in multiples of Ledoit and Wolf's estimate.
        training: how the closed form is trained further, or None.
        label_weights: whether images whose neighbors contradict their label weigh less (``heads.label_weights``).
    """

    sqrt: bool = True
    residual: float = 0.5
    shrinkage: float = 1.0
    training: HeadTraining | None = None
    label_weights: bool = False

    @classmethod
    def from_spec(cls, spec: Experiment) -> HeadConfig:
        """Read ``model.head`` and ``train.finish``."""
        finish, kind = spec.train.finish, spec.model.head
        training = head_training(finish.loss, mlp=kind == "mlp")
        return cls(kind != "linear", finish.residual, finish.shrinkage, training, finish.label_weights)

    @property
    def name(self) -> str:
        """The settings in words, as reports and ``automatic.json`` name the head."""
        closed_form = f"discriminant head, residual {self.residual:g}"
        closed_form += f", shrinkage x {self.shrinkage:g}" if self.shrinkage != 1 else ""
        closed_form += ", square root" if self.sqrt else ""
        closed_form += ", label weights" if self.label_weights else ""
        return closed_form + (f", trained with {self.training.name}" if self.training else "")

    def settle(self, spec: Experiment, *, mirrored: bool) -> None:
        """Write the settings into ``spec`` where the user left them open.

        Args:
            spec: is changed by ``spec.settle``.
            mirrored: value of ``train.finish.mirrored``.
        """
        training = self.training
        kind = "mlp" if training is not None and training.mlp else "rooted" if self.sqrt else "linear"
        for path, value in (
            ("model.head", kind), ("train.finish.residual", self.residual), ("train.finish.shrinkage", self.shrinkage),
            ("train.finish.loss", training and training.loss), ("train.finish.mirrored", mirrored),
            ("train.finish.label_weights", self.label_weights),
        ):  # fmt: skip
            settle(spec, path, value, self.name)
