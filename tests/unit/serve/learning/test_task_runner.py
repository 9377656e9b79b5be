"""Tasks one at a time: done, failed, cancelled, ended with the service; those of a service that was killed are marked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from tests.support.serving import run, store_in, until
from unalike.errors import RunError
from unalike.serve.learning import task_runner as module
from unalike.serve.learning.task_runner import GONE, STOPPED, TaskRunner, own_process
from unalike.serve.store import Store
from unalike.serve.store.learning import (
    CANCELLED,
    COMPARE,
    DONE,
    ENDED,
    FAILED,
    RUNNING,
    TRAIN,
    TaskRecord,
)
from unalike.serve.store.records import utc_now


def new_task(kind: str = TRAIN) -> TaskRecord:
    return TaskRecord(kind, "shop", owner=list(own_process()))


class Work:
    """Waits until it is released; fails where it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, task: TaskRecord, folder: Path) -> None:
        assert folder.is_dir()
        self.begun.append(task.id)
        await self.gate.wait()
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def running(folder: Path, work: Work, store: Store, over: list[str] | None = None) -> AsyncIterator[TaskRunner]:
    runner = TaskRunner(
        store, work, lambda task_id: folder / "tasks" / task_id, on_end=([] if over is None else over).append
    )  # fmt: skip
    await runner.start()
    try:
        yield runner
    finally:
        await runner.stop()


def state(store: Store, task: TaskRecord) -> str:
    record = store.learning.task(task.id)
    assert record is not None
    return record.state


def test_tasks_run_one_after_the_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, work = store_in(tmp_path), Work()
        async with running(tmp_path, work, store) as runner:
            first, second = new_task(), new_task(COMPARE)
            for task in (first, second):
                await runner.submit(task)
            await until(lambda: work.begun == [first.id])
            assert state(store, first) == RUNNING and state(store, second) == "queued"
            work.gate.set()
            await until(lambda: state(store, second) == DONE)
            assert state(store, first) == DONE and work.begun == [first.id, second.id]
            record = store.learning.task(first.id)
            assert record is not None and record.started and record.finished and record.beat

    run(scenario())


def test_a_failure_is_kept_with_its_reason_and_the_next_task_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, work = store_in(tmp_path), Work()
        work.gate.set()
        async with running(tmp_path, work, store) as runner:
            for error, message in (
                (RunError("too few images"), "too few images"),
                (ValueError("secret"), "the service's log says more"),
            ):
                work.error = error
                task = await runner.submit(new_task())
                await until(lambda task=task: state(store, task) == FAILED)
                record = store.learning.task(task.id)
                assert record is not None and message in record.message and "secret" not in record.message
            work.error = None
            last = await runner.submit(new_task())
            await until(lambda: state(store, last) == DONE)

    run(scenario())


def test_what_runs_and_what_waits_can_be_cancelled(tmp_path: Path, monkeypatch: object) -> None:
    async def scenario() -> None:
        store, work = store_in(tmp_path), Work()
        over: list[str] = []
        async with running(tmp_path, work, store, over) as runner:
            first, second, third = [await runner.submit(new_task()) for _ in range(3)]
            await until(lambda: work.begun == [first.id])
            assert await runner.cancel(second.id) and await runner.cancel(first.id)
            assert not await runner.cancel(first.id) and not await runner.cancel("none")
            await until(lambda: work.begun == [first.id, third.id])
            work.gate.set()
            await until(lambda: state(store, third) == DONE)
            assert (state(store, first), state(store, second)) == (CANCELLED, CANCELLED)
            await until(lambda: over == [first.id, third.id])

    run(scenario())


def test_a_task_that_another_process_cancels_ends_with_the_next_beat(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.05)

    async def scenario() -> None:
        store, work = store_in(tmp_path), Work()
        async with running(tmp_path, work, store) as runner:
            task = await runner.submit(new_task())
            await until(lambda: state(store, task) == RUNNING)
            store.learning.change_task(task.id, state=CANCELLED)
            work.gate.clear()
            await until(lambda: runner._running is None)
            assert state(store, task) == CANCELLED

    run(scenario())


def test_a_service_that_stops_ends_its_tasks(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, work = store_in(tmp_path), Work()
        async with running(tmp_path, work, store) as runner:
            first, second = [await runner.submit(new_task()) for _ in range(2)]
            await until(lambda: work.begun == [first.id])
        for task in (first, second):
            record = store.learning.task(task.id)
            assert record is not None and (record.state, record.message) == (ENDED, STOPPED)

    run(scenario())


def test_tasks_of_a_killed_service_are_marked_and_those_of_another_that_runs_are_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, work = store_in(tmp_path), Work()
        own = own_process()
        dead = TaskRecord(TRAIN, "shop", state=RUNNING, owner=[own.boot, 2**22 - 3, "1"], beat=utc_now())
        silent = TaskRecord(
            TRAIN, "shop", state=RUNNING, owner=["other/boot", 1, "1"], beat=utc_now() - timedelta(minutes=5)
        )
        alive = TaskRecord(TRAIN, "shop", state=RUNNING, owner=["other/boot", 1, "1"], beat=utc_now())
        sibling = TaskRecord(TRAIN, "shop", state=RUNNING, owner=list(own), beat=utc_now())
        for task in (dead, silent, alive, sibling):
            store.learning.add_task(task)
        over: list[str] = []
        async with running(tmp_path, work, store, over):
            assert over == [dead.id, silent.id]
            assert [state(store, task) for task in (dead, silent, alive, sibling)] == [ENDED, ENDED, RUNNING, RUNNING]
            record = store.learning.task(dead.id)
            assert record is not None and record.message == GONE and record.finished is not None

    run(scenario())
