"""Models, tasks, comparisons and promotions: what goes in comes out, on SQLite and PostgreSQL; states change once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from unalike.errors import DataError
from unalike.serve.store import Store
from unalike.serve.store.learning import (
    CANCELLED,
    COMPARE,
    DONE,
    PROMOTE,
    QUEUED,
    ROLL_BACK,
    RUNNING,
    SILENCE_S,
    TRAIN,
    ComparisonRecord,
    ModelRecord,
    PromotionRecord,
    TaskRecord,
    is_silent,
)
from unalike.serve.store.records import utc_now


def model(gallery: str = "shop", name: str = "first") -> ModelRecord:
    return ModelRecord(gallery, name, "models/x/model.onnx", "0" * 64, "weights 1", None, {"figures": {"R@1": 0.9}})


def test_models_are_listed_by_gallery_the_newest_first(store: Store) -> None:
    first, second, other = model(), model(name="<b>second"), model("line")
    for record in (first, second, other):
        store.learning.add_model(record)
    assert [record.id for record in store.learning.models("shop")] == [second.id, first.id]
    assert len(store.learning.models()) == 3 and store.learning.model("nothing") is None
    assert store.learning.model(first.id) == first and first.to_dict()["facts"] == {"figures": {"R@1": 0.9}}


def test_a_task_changes_its_state_only_from_those_that_are_named(store: Store) -> None:
    task = TaskRecord(TRAIN, "shop", {"minutes": 1.5}, "chief", "r1", owner=["boot", 7, "3"])
    store.learning.add_task(task)
    assert store.learning.task(task.id) == task and not task.is_over
    assert store.learning.unfinished() == [task]
    now = utc_now()
    assert store.learning.change_task(task.id, only=(QUEUED,), state=RUNNING, started=now, beat=now)
    assert not store.learning.change_task(task.id, only=(QUEUED,), state=RUNNING)
    assert store.learning.change_task(task.id, only=(QUEUED, RUNNING), state=CANCELLED, finished=now)
    assert not store.learning.change_task(task.id, only=(QUEUED, RUNNING), state=DONE)
    final = store.learning.task(task.id)
    assert final is not None and final.state == CANCELLED and final.is_over and final.started == now
    assert store.learning.unfinished() == []
    with pytest.raises(DataError, match="state is 'asleep'"):
        store.learning.change_task(task.id, state="asleep")
    with pytest.raises(DataError, match="kind is 'dream'"):
        TaskRecord("dream", "shop")


def test_tasks_come_in_pages_by_kind_and_gallery(store: Store) -> None:
    records = [TaskRecord(kind, gallery) for kind in (TRAIN, COMPARE) for gallery in ("shop", "line", "shop")]
    for record in records:
        store.learning.add_task(record)
    page = store.learning.tasks(TRAIN, limit=2)
    assert [record.id for record in page.items] == [records[2].id, records[1].id] and page.next == records[1].id
    rest = store.learning.tasks(TRAIN, after=page.next, limit=2)
    assert [record.id for record in rest.items] == [records[0].id] and rest.next is None
    assert len(store.learning.tasks(gallery="shop").items) == 4


def test_the_latest_comparison_with_a_network_counts(store: Store) -> None:
    candidate = model()
    store.learning.add_model(candidate)
    for former, value in (("weights 1", 1), ("weights 2", 2), ("weights 1", 3)):
        store.learning.add_comparison(ComparisonRecord(candidate.id, former, {"value": value}))
    latest = store.learning.comparison(candidate.id)
    assert latest is not None and latest.result == {"value": 3}
    second = store.learning.comparison(candidate.id, "weights 2")
    assert second is not None and second.result == {"value": 2}
    assert store.learning.comparison(candidate.id, "weights 9") is None


def test_each_return_takes_back_one_promotion(store: Store) -> None:
    learning = store.learning

    def promote(kind: str, file: str, former: str) -> PromotionRecord:
        record = PromotionRecord(kind, "shop", None, file, former, "chief")
        learning.add_promotion(record)
        return record

    assert learning.standing_promotion("shop") is None
    first, second = promote(PROMOTE, "b", "a"), promote(PROMOTE, "c", "b")
    assert learning.standing_promotion("shop") == second
    promote(ROLL_BACK, "b", "c")
    assert learning.standing_promotion("shop") == first
    third = promote(PROMOTE, "d", "b")
    promote(ROLL_BACK, "b", "d")
    last = promote(ROLL_BACK, "a", "b")
    assert learning.standing_promotion("shop") is None and learning.standing_promotion("line") is None
    learning.remove_promotion(last.id)
    assert learning.standing_promotion("shop") == first
    assert [record.file for record in learning.promotions("shop")] == ["b", "d", "b", "c", "b"]
    assert third.to_dict()["kind"] == PROMOTE


def test_a_silent_process_is_noticed() -> None:
    task, now = TaskRecord(TRAIN, "shop"), utc_now()
    assert not is_silent(task, now)
    assert is_silent(task, now + timedelta(seconds=SILENCE_S + 1))
    beating = replace(task, beat=now + timedelta(seconds=SILENCE_S))
    assert not is_silent(beating, now + timedelta(seconds=SILENCE_S + 1))
