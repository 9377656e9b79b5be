"""Tasks of a store that a process does: the oldest first, one at a time of some kinds among all processes of a service.

A task is held while it is done, and written down as done or failed. It ends here as soon as it is canceled, or when another process
took it over. When the service stops, it waits again for the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from unalike.errors import StoreError, UnalikeError
from unalike.serve.logs import log_error
from unalike.serve.store.records import DONE, FAILED, RUNNING, TaskRecord
from unalike.serve.store.tasks import Tasks

REPORT_S, RENEW_S = 0.5, 2.0
UNEXPECTED = "it failed; the service's log says more"


class Progress:
    """How far a task is; its work sets it, and it is written down."""

    def __init__(self, step: str = "") -> None:
        self.values = (step, 0, 0)

    def set(self, step: str, count: int, total: int) -> None:
        """What is being done, and how much of it."""
        self.values = (str(step), int(count), int(total))

    async def take(self, line: str) -> None:
        """What a child says of itself, as ``child_process.tell_progress`` writes it; other lines are passed over."""
        with contextlib.suppress(ValueError, TypeError):
            self.set(*json.loads(line))


Work = Callable[[TaskRecord, Progress], Awaitable[None]]


class TaskRunner:
    """Does tasks.

    Args:
        tasks: of the store.
        works: kind -> what does a task of that kind; it raises UnalikeError where it fails, and is cancelled where it shall end.
        resources: names of what tasks may be about; anything if None.
        on_end: called in a thread with a task that this process no longer does: as it ended, or still as running where it was
            canceled or waits again.
    """

    def __init__(
        self, tasks: Tasks, works: Mapping[str, Work], resources: Callable[[], Collection[str]] | None = None,
        on_end: Callable[[TaskRecord], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.tasks, self._works, self._resources, self._on_end = tasks, works, resources, on_end
        self.running: str | None = None  # id of the task that this process does

    async def look(self) -> None:
        """Do the task that waits first, if there is one. Raises StoreError."""
        claim = asyncio.create_task(asyncio.to_thread(self._claim))
        try:
            record = await asyncio.shield(claim)
        except asyncio.CancelledError:  # its thread claims it all the same
            if (record := await claim) is not None and not record.is_over:
                self.tasks.release(record)
            raise
        if record is None:
            return
        if record.is_over:  # its processes ended too often
            await asyncio.to_thread(self._on_end, record)
            return
        self.running = record.id
        try:
            await self._do(record)
        finally:
            self.running = None

    def _claim(self) -> TaskRecord | None:
        return self.tasks.claim(list(self._works), None if self._resources is None else self._resources())

    async def _do(self, record: TaskRecord) -> None:
        """Do one task."""
        progress, end, is_stopped = Progress(), record, False
        work = asyncio.create_task(self._work(record, progress))
        try:
            if await self._follow(record, work, progress):
                state, error = work.result()
                if await asyncio.to_thread(lambda: self.tasks.finish(record, state, error=error)):
                    end = replace(record, state=state, error=error)
        except asyncio.CancelledError:
            is_stopped = True
            raise
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await asyncio.to_thread(self._clean_up, end)
            if is_stopped:  # no other process begins it before nothing here works on it
                self.tasks.release(record)

    def _clean_up(self, end: TaskRecord) -> None:
        """Call ``on_end``, unless another process does the task by now: what there is to clean up is that one's."""
        try:
            current = self.tasks.get(end.id)
        except StoreError as error:
            log_error(f"whose the task {end.id} is cannot be read", error)
            return
        if current is None or current.state != RUNNING or current.token == end.token:
            self._on_end(end)

    async def _work(self, record: TaskRecord, progress: Progress) -> tuple[str, str]:
        """State and error of a task when its work is over."""
        try:
            await self._works[record.kind](record, progress)
        except UnalikeError as error:
            return FAILED, str(error)
        except Exception as error:  # noqa: BLE001  one task's failure ends no other
            log_error(f"the task {record.id} failed", error)
            return FAILED, UNEXPECTED
        return DONE, ""

    async def _follow(self, record: TaskRecord, work: asyncio.Task[Any], progress: Progress) -> bool:
        """Write down how far a task is until its work is over; False where it is no longer this process's to do."""
        clock = asyncio.get_running_loop().time
        moment, reported_values = 0.0, None
        while not work.done():
            if progress.values != reported_values or clock() - moment > RENEW_S:
                moment, reported_values = clock(), progress.values
                if not await self._report(record, progress):
                    return False
            await asyncio.wait([work], timeout=REPORT_S)
        # What it wrote last, it may have written since.
        return await self._report(record, progress)

    async def _report(self, record: TaskRecord, progress: Progress) -> bool:
        try:
            return await asyncio.to_thread(self.tasks.report, record, *progress.values)
        except StoreError as error:  # it may be back before the task is another process's to do
            log_error(f"how far the task {record.id} is cannot be written down", error)
            return True
