"""Tasks: taken by one process, one at a time, renewed, taken over after a lost one, given back, canceled, and ended once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from unalike.errors import DataError
from unalike.serve.store import Store, TaskRecord
from unalike.serve.store.records import FAILED, utc_now
from unalike.serve.store.tasks import LEASE_S, MAX_ATTEMPTS, STOPPED

KIND, KINDS = "inspector.fit", ("inspector.fit",)
LATER = timedelta(seconds=LEASE_S + 1)


def test_tasks_are_done_in_their_order_and_their_progress_is_read_back(store: Store) -> None:
    tasks = store.tasks
    assert tasks.claim(KINDS) is None
    first = tasks.add(KIND, "a", {"images": [1, 2]}, actor="ann", request_id="r")
    second = tasks.add(KIND, "b", {})
    assert tasks.find_open(KIND, "a") == [first] and tasks.find_open(KIND, "c") == []
    assert tasks.get(first.id) == first and first.state == "waiting" and not first.is_over
    record = tasks.claim(KINDS)
    assert record is not None and record.id == first.id and record.options == {"images": [1, 2]}
    assert record == tasks.get(first.id) and record.attempts == 1 and record.started is not None
    assert tasks.claim(("other",)) is None and tasks.is_open(KIND, "a") and not tasks.is_open(KIND, "c")
    assert tasks.report(record, "sampling", 3, 20)
    now = tasks.get(first.id)
    assert now is not None and (now.state, now.step, now.count, now.total) == ("running", "sampling", 3, 20)
    assert tasks.claim(KINDS) is None  # one at a time
    assert tasks.keep_result(record, {"file": "x"})
    assert [entry.id for entry in tasks.find_open(KIND, "a")] == [first.id]
    assert (
        tasks.finish(record)
        and tasks.find_open(KIND, "a") == []
        and not tasks.finish(record)
        and not tasks.report(record)
    )
    assert not tasks.keep_result(record, {})
    other = tasks.claim(KINDS)
    assert other is not None and other.id == second.id
    assert tasks.finish(other, FAILED, error="no images")
    ended = tasks.find(KINDS).items
    assert [(entry.id, entry.state, entry.error) for entry in ended] == [
        (second.id, "failed", "no images"),
        (first.id, "done", ""),
    ]
    assert all(entry.is_over and entry.finished is not None for entry in ended) and ended[1].result == {"file": "x"}
    with pytest.raises(DataError, match="state"):
        tasks.finish(record, "waiting")
    with pytest.raises(DataError, match="state is 'asleep'"):
        TaskRecord(KIND, "a", state="asleep")


def test_they_are_listed_by_kind_and_resource_in_pages(store: Store) -> None:
    records = [store.tasks.add(kind, name, {}) for kind in ("train", "compare") for name in ("shop", "line", "shop")]
    page = store.tasks.find(("train",), limit=2)
    assert [record.id for record in page.items] == [records[2].id, records[1].id] and page.next == records[1].id
    rest = store.tasks.find(("train",), page.next, 2)
    assert [record.id for record in rest.items] == [records[0].id] and rest.next is None
    assert len(store.tasks.find(resource="shop").items) == 4 and len(store.tasks.find().items) == 6
    assert store.tasks.find(()).items == []


def test_kinds_and_resources_are_done_apart(store: Store) -> None:
    tasks = store.tasks
    for kind in ("train", KIND):
        for name in ("shop", "line"):
            tasks.add(kind, name, {})
    shop = tasks.claim(("train", "compare"), ("shop", "else"))
    assert shop is not None and (shop.kind, shop.resource) == ("train", "shop")
    assert tasks.claim(("train", "compare"), ("shop", "else")) is None
    fit = tasks.claim(KINDS)
    assert fit is not None and fit.kind == KIND
    line = tasks.claim(("train",), ("line",))
    assert line is not None and line.resource == "line" and tasks.claim(("train",), ()) is None


def test_of_several_processes_one_takes_a_task(store: Store) -> None:
    for name in "abc":
        store.tasks.add(KIND, name, {})
    with ThreadPoolExecutor(8) as pool:
        records = [record for record in pool.map(lambda _: store.tasks.claim(KINDS), range(16)) if record]
    assert [record.resource for record in records] == ["a"]


def test_a_task_of_a_process_that_ended_is_begun_again_a_few_times(store: Store) -> None:
    tasks = store.tasks
    tasks.add(KIND, "a", {})
    now = utc_now()
    lost = tasks.claim(KINDS, now=now)
    assert lost is not None and tasks.claim(KINDS, now=now) is None
    assert tasks.report(lost, "late", 1, 2, now=now + LATER) and tasks.claim(KINDS, now=now + LATER) is None
    now += LATER
    for attempt in range(2, MAX_ATTEMPTS + 1):
        now += LATER
        record = tasks.claim(KINDS, now=now)
        assert record is not None and record.attempts == attempt and not tasks.report(lost, "late", 1, 1)
        assert (record.step, record.count) == ("", 0) and not tasks.finish(lost)
        lost = record
    last = tasks.claim(KINDS, now=now + LATER)
    assert last is not None and last.is_over and last == tasks.get(lost.id)
    assert last.state == "failed" and f"ended {MAX_ATTEMPTS} times" in last.error
    assert tasks.claim(KINDS, now=now + LATER) is None


def test_what_may_be_begun_once_fails_when_its_process_ends(store: Store) -> None:
    tasks, now = store.tasks, utc_now()
    for _ in range(2):
        tasks.add("promote", "shop", {}, max_attempts=1)
    first = tasks.claim(("promote",), now=now)
    assert first is not None and tasks.release(first)
    record = tasks.get(first.id)
    assert record is not None and (record.state, record.error) == ("failed", STOPPED)
    assert tasks.claim(("promote",), now=now) is not None
    killed = tasks.claim(("promote",), now=now + LATER)
    assert killed is not None and (killed.state, killed.error) == ("failed", "the process that did it ended")


def test_a_task_is_given_back_and_canceled(store: Store) -> None:
    tasks = store.tasks
    record = tasks.add(KIND, "a", {})
    for _ in range(MAX_ATTEMPTS + 2):  # giving it back does not count
        running = tasks.claim(KINDS)
        assert running is not None and running.attempts == 1 and tasks.release(running)
        assert tasks.get(record.id) == replace(record, token=running.token)
    running = tasks.claim(KINDS)
    assert (
        running is not None
        and tasks.cancel(record.id, error="why")
        and not tasks.cancel(record.id)
        and not tasks.cancel("none")
    )
    assert not tasks.report(running, "", 1, 2) and not tasks.finish(running) and tasks.claim(KINDS) is None
    ended = tasks.get(record.id)
    assert ended is not None and (ended.state, ended.error) == ("canceled", "why") and not tasks.is_open(KIND, "a")
    assert not tasks.release(running) and tasks.get(record.id) == ended


def test_all_of_a_kind_are_canceled(store: Store) -> None:
    tasks = store.tasks
    over = tasks.add("train", "shop", {})
    running = tasks.claim(("train",))
    assert running is not None and tasks.finish(running)
    others = [tasks.add("train", name, {}) for name in ("shop", "line")]
    compare = tasks.add("compare", "shop", {})
    assert tasks.claim(("train",)) is not None
    tasks.cancel_all("train", error="purged")
    states = [(tasks.get(task.id) or task).state for task in (over, *others, compare)]
    assert states == ["done", "canceled", "canceled", "waiting"]
