"""Losses and norms of gradients, read from a GPU some steps after they were computed, so that no step waits for its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unalike.errors import TrainingError

# Steps of which a GPU may be ahead of what is known of it.
READ_LAG = 3


@dataclass(frozen=True)
class StepFigures:
    """What is known of a step.

    Attributes:
        loss: of its batch.
        norm: of the gradients before clipping; 0 for a step without an update.
        epoch, step: where it was, both counted from 0.
        indices: of the images behind the update.
    """

    loss: float
    norm: float
    epoch: int
    step: int
    indices: Tensor


class LossReader:
    """A queue of figures that are on their way from the device.

    Args:
        lag: steps that may be on their way; 0 reads each at once.
    """

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self._waiting: deque[tuple[Tensor, Any, int, int, Tensor]] = deque()

    def put(self, loss: Tensor, norm: Tensor | None, *, epoch: int, step: int, indices: Tensor) -> None:
        """Begin to copy the figures of a step; arguments as in ``StepFigures``."""
        loss = loss.detach().float()
        values = torch.stack([loss, torch.zeros_like(loss) if norm is None else norm.detach().float()])
        event = None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._waiting.append((values, event, epoch, step, indices))

    def take(self, *, every: bool = False) -> list[StepFigures]:
        """The figures of all steps but the last ``lag``, in their order and each once; with ``every`` of those too."""
        figures = []
        while len(self._waiting) > (0 if every else self.lag):
            values, event, epoch, step, indices = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            loss, norm = values.tolist()
            figures.append(StepFigures(loss, norm, epoch, step, indices))
        return figures


def skips_updates(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer can skip an update on the device by itself, as those of one kernel (``fused``) do."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def skip_unless_finite(optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
    """Let the next update move nothing where the norm of the gradients is not finite, without reading it."""
    optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]


def not_finite_error(quantity: str, figures: StepFigures, images: Sequence[str]) -> TrainingError:
    """The error for a loss, or a norm of the gradients, that is not finite; it names the images of the step."""
    value = figures.loss if quantity == "loss" else figures.norm
    return TrainingError(
        f"the {quantity} is {value} in epoch {figures.epoch + 1}, after {figures.step} of its steps",
        expected="a finite number; this step did not move the weights",
        remedy=f"lower the learning rates or set train.clip_grad_norm. Images of this batch: {', '.join(images)}",
    )
