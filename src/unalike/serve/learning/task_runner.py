"""Tasks of learning of a service, one at a time, each in a process of its own at low priority; none outlives the service."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from unalike.errors import RunError
from unalike.runs.processes import ProcessId, is_alive, this_boot
from unalike.serve.logs import log_error
from unalike.serve.store import Store
from unalike.serve.store.learning import (
    CANCELLED,
    DONE,
    ENDED,
    FAILED,
    QUEUED,
    RUNNING,
    TaskRecord,
    is_silent,
)
from unalike.serve.store.records import utc_now

BEAT_S = 2.0
# Every so many beats it is looked for tasks whose process is gone.
SWEEP_BEATS = 10
GONE = "the service ended while it ran"
STOPPED = "the service was stopped"

Work = Callable[[TaskRecord, Path], Awaitable[None]]


class TaskRunner:
    """Carries out tasks in the order in which they were asked for.

    Args:
        store: the store of the service.
        work: does the work of a task, given its folder; raises RunError where it fails.
        folder_of: the folder of a task.
        on_done: called with a task that is done.
        on_end: called in a thread with the id of a task that is over, however it ended.
    """

    def __init__(
        self,
        store: Store,
        work: Work,
        folder_of: Callable[[str], Path],
        on_done: Callable[[TaskRecord], None] = lambda _: None,
        on_end: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.learning = store.learning
        self._work, self._folder_of, self._on_done, self._on_end = work, folder_of, on_done, on_end
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Mark tasks whose process is gone, and begin to take tasks."""
        await asyncio.to_thread(self.sweep)
        self._loops = [asyncio.create_task(self._take()), asyncio.create_task(self._beat())]

    async def stop(self) -> None:
        """End the task that runs; those that wait are not begun."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for task_id in self._waiting:
            await asyncio.to_thread(self._finish, task_id, ENDED, STOPPED)
        self._waiting.clear()

    def sweep(self) -> None:
        """Mark tasks whose process is gone as ended."""
        now = utc_now()
        for task in self.learning.unfinished():
            if _is_lost(task, now) and task.id not in self._waiting:
                self._finish(task.id, ENDED, GONE)
                self._on_end(task.id)

    async def submit(self, task: TaskRecord) -> TaskRecord:
        """Take a task; it begins when those before it are over."""
        self._waiting.add(task.id)
        await asyncio.to_thread(self.learning.add_task, task)
        self._queue.put_nowait(task.id)
        return task

    async def cancel(self, task_id: str) -> bool:
        """End a task that waits or runs, in this process or another of the service; False where it is over."""
        self._waiting.discard(task_id)
        # Another process that runs it sees this with its next beat.
        is_cancelled = await asyncio.to_thread(self._finish, task_id, CANCELLED, "")
        if is_cancelled and self._running is not None and self._running[0] == task_id:
            self._running[1].cancel()
        return is_cancelled

    def _finish(self, task_id: str, state: str, message: str) -> bool:
        return self.learning.change_task(
            task_id, only=(QUEUED, RUNNING), state=state, message=message, finished=utc_now()
        )  # fmt: skip

    async def _take(self) -> None:
        while True:
            task_id = await self._queue.get()
            if task_id not in self._waiting:
                continue
            now, owner = utc_now(), list(own_process())
            values: dict[str, Any] = {"state": RUNNING, "started": now, "beat": now, "owner": owner}
            is_taken = await asyncio.to_thread(self.learning.change_task, task_id, only=(QUEUED,), **values)
            self._waiting.discard(task_id)  # until here the end of the service ends it as one that waits
            if not is_taken:
                continue
            running = asyncio.create_task(self._run(task_id))
            self._running = (task_id, running)
            try:
                await asyncio.wait({running})
            except asyncio.CancelledError:  # the service stops
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await asyncio.to_thread(self._finish, task_id, ENDED, STOPPED)
                raise
            finally:
                self._running = None

    async def _run(self, task_id: str) -> None:
        task = await asyncio.to_thread(self.learning.task, task_id)
        assert task is not None
        try:
            folder = self._folder_of(task_id)
            await asyncio.to_thread(lambda: folder.mkdir(parents=True, exist_ok=True))
            await self._work(task, folder)
        except RunError as error:
            await asyncio.to_thread(self._finish, task_id, FAILED, str(error))
        except Exception as error:  # noqa: BLE001  one task's failure ends no other
            log_error(f"the task {task_id} failed", error)
            await asyncio.to_thread(self._finish, task_id, FAILED, "it failed; the service's log says more")
        else:
            await asyncio.to_thread(self._finish, task_id, DONE, "")
            self._on_done(task)
        finally:
            await asyncio.to_thread(self._on_end, task_id)

    async def _beat(self) -> None:
        """Say that tasks of this process are alive; end one that another process cancelled; look for lost ones."""
        number = 0
        while True:
            await asyncio.sleep(BEAT_S)
            number += 1
            try:
                await asyncio.to_thread(self._say_alive)
                if number % SWEEP_BEATS == 0:
                    await asyncio.to_thread(self.sweep)
                await self._end_cancelled()
            except Exception as error:  # noqa: BLE001  the store may be back with the next beat
                log_error("tasks of learning cannot be looked at", error)

    async def _end_cancelled(self) -> None:
        """End the task that runs where another process cancelled it."""
        running = self._running
        if running is not None:
            task = await asyncio.to_thread(self.learning.task, running[0])
            if task is not None and task.is_over and self._running is running:
                running[1].cancel()

    def _say_alive(self) -> None:
        now = utc_now()
        for task_id in [*self._waiting, *([self._running[0]] if self._running else [])]:
            self.learning.change_task(task_id, only=(QUEUED, RUNNING), beat=now)


def own_process() -> ProcessId:
    """The identity of this process."""
    return ProcessId.of(os.getpid())


def _is_lost(task: TaskRecord, now: datetime) -> bool:
    """Whether the process that a task belongs to is gone: silent for long, or of this machine and not alive."""
    if is_silent(task, now):
        return True
    with contextlib.suppress(TypeError, ValueError):
        owner = ProcessId(*task.owner)
        return owner.boot == this_boot() and not is_alive(owner.pid, owner.start)
    return False
