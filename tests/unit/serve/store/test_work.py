"""Work: taken by one process, renewed, taken over after a lost one, given back, canceled, and ended once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from unalike.errors import DataError
from unalike.serve.store import Store
from unalike.serve.store.records import FAILED, utc_now
from unalike.serve.store.work import LEASE_S, MAX_ATTEMPTS

KIND = "inspector.fit"
LATER = timedelta(seconds=LEASE_S + 1)


def test_work_is_done_in_its_order_and_its_progress_is_read_back(store: Store) -> None:
    work = store.work
    assert work.claim(KIND) is None
    first = work.add(KIND, "a", {"images": [1, 2]}, actor="ann", request_id="r")
    second = work.add(KIND, "b", {})
    assert work.get(first.id) == first and first.state == "waiting" and not first.is_over
    record = work.claim(KIND)
    assert (
        record is not None and record.id == first.id and record.options == {"images": [1, 2]} and record.attempts == 1
    )
    assert work.claim("other") is None and work.is_open(KIND, "a") and not work.is_open(KIND, "c")
    assert work.report(record, "sampling", 3, 20)
    now = work.get(first.id)
    assert now is not None and (now.state, now.step, now.count, now.total) == ("running", "sampling", 3, 20)
    other = work.claim(KIND)
    assert other is not None and other.id == second.id and work.claim(KIND) is None
    assert work.finish(record, result={"file": "x"}) and not work.finish(record) and not work.report(record, "", 0, 0)
    assert work.finish(other, FAILED, error="no images")
    ended = work.find(KIND).items
    assert [(entry.id, entry.state, entry.error) for entry in ended] == [
        (second.id, "failed", "no images"),
        (first.id, "done", ""),
    ]
    assert all(entry.is_over and entry.finished is not None for entry in ended)
    assert (
        [entry.id for entry in work.find(KIND, second.id).items]
        == [first.id]
        == [e.id for e in work.find(resource="a").items]
    )
    with pytest.raises(DataError, match="state"):
        work.finish(record, "waiting")


def test_work_of_a_process_that_ended_is_begun_again_a_few_times(store: Store) -> None:
    work = store.work
    work.add(KIND, "a", {})
    now = utc_now()
    lost = work.claim(KIND, now=now)
    assert lost is not None and work.claim(KIND, now=now) is None
    for attempt in range(2, MAX_ATTEMPTS + 1):
        now += LATER
        record = work.claim(KIND, now=now)
        assert record is not None and record.attempts == attempt and not work.report(lost, "late", 1, 1)
        assert not work.finish(lost)
        lost = record
    assert work.claim(KIND, now=now + LATER) is None
    ended = work.get(lost.id)
    assert ended is not None and ended.state == "failed" and f"ended {MAX_ATTEMPTS} times" in ended.error


def test_work_is_given_back_and_canceled(store: Store) -> None:
    work = store.work
    record = work.add(KIND, "a", {})
    for _ in range(MAX_ATTEMPTS + 2):  # giving it back does not count
        claimed = work.claim(KIND)
        assert claimed is not None and claimed.attempts == 1
        work.release(claimed)
    claimed = work.claim(KIND)
    assert claimed is not None and work.cancel(record.id) and not work.cancel(record.id) and not work.cancel("none")
    assert not work.report(claimed, "", 1, 2) and not work.finish(claimed) and work.claim(KIND) is None
    assert work.get(record.id).state == "canceled" and not work.is_open(KIND, "a")  # type: ignore[union-attr]
    work.release(claimed)
    assert work.get(record.id).state == "canceled"  # type: ignore[union-attr]
