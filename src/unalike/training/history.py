"""Where a training stands, and the curves that it leaves: values of the loop, which reports read."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Position:
    """Position of the next batch."""

    epoch: int = 0
    step: int = 0  # within the epoch
    global_step: int = 0  # batches since the start


@dataclass
class History:
    """Curves for reports: one row per logged step, one row per validation."""

    steps: list[dict[str, float]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)
