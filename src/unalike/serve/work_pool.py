"""Work that does not go through a batch: inspection, comparison, verification, explanation; bounded, in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from unalike.serve.batching import MIN_RETRY_S, Overloaded

Result = TypeVar("Result")


class WorkPool:
    """Runs calls in a few threads; beyond a number of waiting calls new ones are refused.

    Args:
        threads: calls that run at once.
        limit: most calls that wait and run.
    """

    def __init__(self, threads: int, limit: int) -> None:
        self.threads, self.limit = threads, limit
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="work")
        self._occupied = 0

    @property
    def occupied(self) -> int:
        """Number of calls that wait and run."""
        return self._occupied

    def refuse_overload(self, count: int = 1) -> None:
        """Raise Overloaded where so many more calls have no place; alone, a request always has."""
        if self._occupied and self._occupied + count > self.limit:
            raise Overloaded(MIN_RETRY_S)

    @contextmanager
    def reserve(self, count: int = 1) -> Iterator[None]:
        """Take places, for calls or for what they wait for. Raises Overloaded where there are not as many."""
        self.refuse_overload(count)
        self._occupied += count
        try:
            yield
        finally:
            self._occupied -= count

    async def run_all(self, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run calls, and return their results in order; calls that have not begun when this is cancelled never do.

        Raises:
            Overloaded: there are not as many places.
            Exception: the first that a call raised.
        """
        loop = asyncio.get_running_loop()
        with self.reserve(len(calls)):
            return list(await asyncio.gather(*(loop.run_in_executor(self._pool, call) for call in calls)))

    def close(self) -> None:
        """End the threads; calls that run are finished."""
        self._pool.shutdown(wait=True, cancel_futures=True)
