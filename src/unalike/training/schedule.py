"""Learning rates as a plain function of epoch and step; nothing else sets them.

``step`` is TAO's: over ``warmup_iters`` epochs the factor climbs from ``warmup_factor`` to 1 (``linear``) or stays at it
(``constant``), then falls by ``gamma`` at each epoch of ``steps``; it changes between epochs only. ``cosine`` climbs step
by step over the same ``warmup_iters`` epochs and follows half a cosine to zero at the end of training.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LRSchedule:
    """Factor of every base rate at a point of training."""

    kind: str
    epochs: int
    steps_per_epoch: int
    warmup_iters: int
    warmup_factor: float
    warmup_method: str
    milestones: tuple[int, ...]
    gamma: float

    @classmethod
    def from_spec(cls, spec: Any, steps_per_epoch: int) -> LRSchedule:
        optim = spec.train.optim
        return cls(
            kind=optim.schedule,
            epochs=spec.train.num_epochs,
            steps_per_epoch=steps_per_epoch,
            warmup_iters=optim.warmup_iters,
            warmup_factor=optim.warmup_factor,
            warmup_method=optim.warmup_method,
            milestones=tuple(sorted(optim.steps)),
            gamma=optim.gamma,
        )

    def factor(self, epoch: int, step: int) -> float:
        """The factor in [0, 1] for batch ``step`` of ``epoch``, both counted from 0."""
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
