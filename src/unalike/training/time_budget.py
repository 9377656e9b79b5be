"""The time budget of a training: seconds left, and the lengths of stages by measured rates."""

from __future__ import annotations

import time
from collections.abc import Callable

DEFAULT_MINUTES = 10.0
MAX_RESERVED_SHARE = 0.4  # of the budget, for what follows the training
# Time that the program takes to end, relative to what it took from its start to the first use of the budget: imports come first,
# and both are longer on a busy machine.
END_PER_START = 0.6
MAX_START_SHARE = 0.4  # of the budget: a longer start counts as one of so much

Clock = Callable[[], float]


class TimeBudget:
    """Seconds that may be spent, counted from the start of the program or of the action.

    Args:
        minutes: the budget.
        start: the clock's time when it began.
        clock: seconds since an arbitrary moment; it never goes back.
    """

    def __init__(self, minutes: float, start: float, clock: Clock = time.monotonic) -> None:
        self.start, self.clock = start, clock
        self.seconds = 60.0 * minutes
        self.end_seconds = END_PER_START * min(clock() - start, MAX_START_SHARE * self.seconds)
        # Seconds that an evaluation after the training is expected to take, and those that are kept for it.
        self.expected_after = self.reserved = 0.0

    @property
    def left(self) -> float:
        """Seconds that are left without those kept for what follows and for the end; negative when it is overdrawn."""
        return self.until(1.0)

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.start

    def reserve(self, seconds: float) -> None:
        """Keep time for what follows the training, if that is at most ``MAX_RESERVED_SHARE`` of the budget.

        Args:
            seconds: what it is expected to take.
        """
        self.expected_after = seconds
        self.reserved = seconds if seconds <= MAX_RESERVED_SHARE * self.seconds else 0.0

    @property
    def has_time_after(self) -> bool:
        """Whether what follows the training fits into the budget."""
        return self.spent + self.expected_after + self.end_seconds <= self.seconds

    def stop_after(self, share: float, least: int) -> Callable[[int, int], bool]:
        """Return a function of the numbers of finished and of all items: whether ``share`` of the time left now is spent.

        Args:
            share: of the seconds that are left now.
            least: so many items are finished in any case.
        """
        end = self.clock() + share * max(0.0, self.left)
        return lambda count, total: least <= count < total and self.clock() > end

    def until(self, share: float, since: float | None = None) -> float:
        """Return the seconds until ``share`` of the budget is spent; negative afterwards.

        Args:
            share: of the whole budget, or of the part that was left at ``since``.
            since: a moment of the clock. On a busy machine much of the budget may be spent before the first image is read.
        """
        since = self.start if since is None else since
        end = self.start + self.seconds - self.reserved - self.end_seconds
        return since + share * (end - since) - self.clock()
