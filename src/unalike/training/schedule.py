"""Learning-rate schedule with warm-up: a plain function of epoch and step; nothing else sets the rates.

``step`` is TAO's: over ``warmup_iters`` epochs the factor climbs from ``warmup_factor`` to 1 (``linear``) or stays at it
(``constant``), then falls by ``gamma`` at each epoch of ``steps``; it changes between epochs only. ``cosine`` climbs step
by step over the same ``warmup_iters`` epochs and follows half a cosine to zero at the end of training.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unalike.spec import Experiment


@dataclass(frozen=True)
class LRSchedule:
    """Factor of every base learning rate at a point of training.

    Attributes:
        kind: ``step`` or ``cosine``.
        epochs: of the training, where the cosine reaches zero; not a whole number where the time ends within one.
        steps_per_epoch: batches of an epoch.
        warmup_iters: epochs of warm-up.
        warmup_factor: factor that warm-up starts with, in [0, 1].
        warmup_method: ``linear`` or ``constant``.
        milestones: epochs, in ascending order, at which ``step`` multiplies by ``gamma``.
        gamma: in [0, 1].
    """

    kind: str
    epochs: float
    steps_per_epoch: int
    warmup_iters: int
    warmup_factor: float
    warmup_method: str
    milestones: tuple[int, ...]
    gamma: float

    @classmethod
    def from_spec(cls, experiment: Experiment, steps_per_epoch: int) -> LRSchedule:
        """Read ``train.optim`` and ``train.num_epochs``.

        Args:
            experiment: the settled spec.
            steps_per_epoch: batches of an epoch.
        """
        optim = experiment.train.optim
        return cls(
            kind=optim.schedule,
            epochs=experiment.train.num_epochs,
            steps_per_epoch=steps_per_epoch,
            warmup_iters=optim.warmup_iters,
            warmup_factor=optim.warmup_factor,
            warmup_method=optim.warmup_method,
            milestones=tuple(sorted(optim.steps)),
            gamma=optim.gamma,
        )

    def factor(self, epoch: int, step: int) -> float:
        """Return the factor, in [0, 1], for batch ``step`` of ``epoch``, both counted from 0."""
        if self.kind == "cosine":
            now = epoch + step / self.steps_per_epoch
            decay = 0.5 * (1.0 + math.cos(math.pi * min(now / self.epochs, 1.0)))
        else:
            now = float(epoch)
            decay = self.gamma ** bisect.bisect_right(self.milestones, epoch)
        return self._warmup(now) * decay

    def _warmup(self, now: float) -> float:
        if now >= self.warmup_iters:
            return 1.0
        if self.warmup_method == "constant":
            return self.warmup_factor
        share = now / self.warmup_iters
        return self.warmup_factor * (1.0 - share) + share
