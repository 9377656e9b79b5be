"""Tasks one at a time: done, failed, canceled, given back when the service stops; those of a service that was killed are begun again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.serving import run, store_in, until
from unalike.errors import RunError, StoreError
from unalike.serve import task_runner as module
from unalike.serve.store import Store, TaskRecord
from unalike.serve.store.records import CANCELED, DONE, FAILED, RUNNING, WAITING, utc_now
from unalike.serve.store.tasks import LEASE_S, MAX_ATTEMPTS
from unalike.serve.task_runner import UNEXPECTED, Progress, TaskRunner

TRAIN, COMPARE = "train", "compare"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_S", 0.02)
    monkeypatch.setattr(module, "RENEW_S", 0.05)


class Work:
    """Waits until it is released; fails where it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.stopped: list[str] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, task: TaskRecord, progress: Progress) -> None:
        self.begun.append(task.id)
        progress.set("waiting", len(self.begun), 5)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.stopped.append(task.id)
            raise
        if self.error is not None:
            raise self.error
        progress.set("the last step", 5, 5)


@asynccontextmanager
async def running(work: Work, store: Store, over: list[TaskRecord] | None = None) -> AsyncIterator[TaskRunner]:
    """A runner that looks again and again, as the service's does."""
    runner = TaskRunner(
        store.tasks, {TRAIN: work, COMPARE: work}, lambda: ["shop"], ([] if over is None else over).append
    )

    async def look_often() -> None:
        while True:
            await asyncio.sleep(0.02)
            with contextlib.suppress(StoreError):
                await runner.look()

    loop = asyncio.create_task(look_often())
    try:
        yield runner
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


def get(store: Store, task: TaskRecord) -> TaskRecord:
    record = store.tasks.get(task.id)
    assert record is not None
    return record


def test_tasks_run_one_after_the_other_with_their_progress(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, work, over = store_in(tmp_path), Work(), list[TaskRecord]()
        first, second = store.tasks.add(TRAIN, "shop", {}), store.tasks.add(COMPARE, "shop", {})
        other = store.tasks.add(TRAIN, "line", {})
        async with running(work, store, over) as runner:
            await until(lambda: get(store, first).step == "waiting")
            assert get(store, first).state == RUNNING and get(store, second).state == WAITING
            assert runner.running == first.id and (get(store, first).count, get(store, first).total) == (1, 5)
            end = get(store, first).lease_end
            await until(lambda: get(store, first).lease_end != end)  # it is held further
            work.gate.set()
            await until(lambda: get(store, second).state == DONE)
            record = get(store, first)
            assert record.state == DONE and record.started and record.finished
            assert (record.step, record.count) == ("the last step", 5)
            await until(lambda: runner.running is None)
            assert work.begun == [first.id, second.id] and get(store, other).state == WAITING
            assert [(task.id, task.state) for task in over] == [(first.id, DONE), (second.id, DONE)]

    run(scenario())


def test_a_failure_is_kept_with_its_reason_and_the_next_task_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, work = store_in(tmp_path), Work()
        work.gate.set()
        async with running(work, store):
            for error, text in ((RunError("too few images"), "too few images"), (ValueError("secret"), UNEXPECTED)):
                work.error = error
                task = store.tasks.add(TRAIN, "shop", {})
                await until(lambda task=task: get(store, task).is_over)
                assert (get(store, task).state, get(store, task).error) == (FAILED, text)
            work.error = None
            last = store.tasks.add(TRAIN, "shop", {})
            await until(lambda: get(store, last).state == DONE)

    run(scenario())


def test_what_runs_and_what_waits_can_be_canceled_by_any_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, work, over = store_in(tmp_path), Work(), list[TaskRecord]()
        first, second, third = [store.tasks.add(TRAIN, "shop", {}) for _ in range(3)]
        async with running(work, store, over):
            await until(lambda: work.begun == [first.id])
            assert store.tasks.cancel(second.id) and store.tasks.cancel(first.id)
            await until(lambda: work.begun == [first.id, third.id])
            assert work.stopped == [first.id]
            work.gate.set()
            await until(lambda: len(over) == 2)
            assert [get(store, task).state for task in (first, second, third)] == [CANCELED, CANCELED, DONE]
            assert [task.id for task in over] == [first.id, third.id]

    run(scenario())


def test_a_service_that_stops_gives_its_task_back_and_the_next_start_begins_it_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, work, over = store_in(tmp_path), Work(), list[TaskRecord]()
        first, second = [store.tasks.add(TRAIN, "shop", {}) for _ in range(2)]
        async with running(work, store, over):
            await until(lambda: work.begun == [first.id])
        assert work.stopped == [first.id] and len(over) == 1
        assert [get(store, task).state for task in (first, second)] == [WAITING, WAITING]
        work.gate.set()
        async with running(work, store):
            await until(lambda: get(store, second).state == DONE)
        assert work.begun == [first.id, first.id, second.id] and get(store, first).attempts == 1

    run(scenario())


def test_a_task_of_a_killed_service_is_begun_again_until_it_is_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, work, over = store_in(tmp_path), Work(), list[TaskRecord]()
        task = store.tasks.add(TRAIN, "shop", {})
        past = utc_now() - timedelta(seconds=(MAX_ATTEMPTS + 1) * (LEASE_S + 1))
        assert store.tasks.claim([TRAIN], now=past) is not None
        async with running(work, store, over) as runner:
            await until(lambda: work.begun == [task.id])
            assert get(store, task).attempts == 2
            # Another process takes it over, since this one was silent for too long: it ends here.
            later = utc_now() + timedelta(seconds=2 * LEASE_S)
            assert store.tasks.claim([TRAIN], now=later) is not None
            await until(lambda: runner.running is None)
            assert work.stopped == [task.id] and get(store, task).state == RUNNING
            assert over == []  # what is in its folder is the other's by now
        assert store.tasks.claim([TRAIN], now=later + timedelta(seconds=2 * LEASE_S)).state == FAILED  # type: ignore[union-attr]
        assert get(store, task).attempts == MAX_ATTEMPTS

    run(scenario())


def test_a_stop_cleans_up_before_another_process_may_begin(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, work, states = store_in(tmp_path), Work(), list[str]()
        task = store.tasks.add(TRAIN, "shop", {})
        runner = TaskRunner(store.tasks, {TRAIN: work}, on_end=lambda _: states.append(get(store, task).state))
        look = asyncio.create_task(runner.look())
        await until(lambda: work.begun == [task.id])
        look.cancel()
        await asyncio.gather(look, return_exceptions=True)
        assert states == [RUNNING] and get(store, task).state == WAITING

    run(scenario())


def test_one_that_was_begun_too_often_is_cleaned_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, work, over = store_in(tmp_path), Work(), list[TaskRecord]()
        task = store.tasks.add(TRAIN, "shop", {}, max_attempts=1)
        assert store.tasks.claim([TRAIN], now=utc_now() - timedelta(minutes=1)) is not None
        async with running(work, store, over):
            await until(lambda: len(over) == 1)
        assert over == [get(store, task)] and over[0].state == FAILED and work.begun == []

    run(scenario())


def test_a_store_that_is_away_for_a_moment_ends_no_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        store, work = store_in(tmp_path), Work()
        task = store.tasks.add(TRAIN, "shop", {})
        calls: list[object] = []

        def fail(*values: object) -> bool:
            calls.append(values)
            raise StoreError("locked")

        async with running(work, store):
            await until(lambda: work.begun == [task.id])
            with monkeypatch.context() as patch:
                patch.setattr(store.tasks, "report", fail)
                await until(lambda: len(calls) > 2)
            work.gate.set()
            await until(lambda: get(store, task).state == DONE)
        assert work.stopped == []

    run(scenario())
