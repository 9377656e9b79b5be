"""The time budget of an automatic training."""

from __future__ import annotations

import time

DEFAULT_MINUTES = 10.0


class TimeBudget:
    """Seconds that may be spent, counted from the start of the action.

    Args:
        minutes: the budget.
        start: ``time.monotonic()`` when the action began.
    """

    def __init__(self, minutes: float, start: float) -> None:
        self.seconds, self.start = 60.0 * minutes, start

    @property
    def left(self) -> float:
        """Seconds that are left; negative when the budget is overdrawn."""
        return self.start + self.seconds - time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start
