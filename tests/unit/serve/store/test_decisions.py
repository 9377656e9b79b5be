"""Decisions are written all or none, found by every filter, and paged while others write."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from unalike.errors import DataError, StoreError
from unalike.serve.store import DecisionFilter, DecisionRecord, Feedback, Store
from unalike.serve.store import decisions as module

START = datetime(2026, 1, 1, tzinfo=UTC)


def records(count: int) -> list[DecisionRecord]:
    labels = itertools.cycle(("apple", "pear", None))
    return [
        DecisionRecord(
            "identify" if step % 2 else "inspect", f"gallery{step % 4}", "label" if step % 3 else "unknown",
            label=next(labels), nearest="apple", score=step / count, image=f"{step % 5:064x}", file=None if step % 2 else f"{step} ä\0.png", actor=f"till{step % 2}",
            request_id=f"request{step}", time=START + timedelta(seconds=step), calibrated=True, stale=False, model="net",
            result={"step": step},
        )
        for step in range(count)
    ]  # fmt: skip


def test_a_decision_comes_back_as_it_was(store: Store) -> None:
    entries = records(3)
    store.decisions.add(entries)
    expected = [replace(entry, file=entry.file and entry.file.replace("\0", "\\x00")) for entry in entries]
    assert [store.decisions.get(entry.id) for entry in entries] == expected
    assert store.decisions.get("no such id") is None


def test_pages_hold_every_decision_once_newest_first_while_others_are_made(store: Store) -> None:
    entries = records(25)
    store.decisions.add(entries)
    ids, cursor = [], None
    while True:
        page = store.decisions.find(after=cursor, limit=10)
        ids += [entry.id for entry in page.items]
        store.decisions.add(records(1))  # newer ones change no later page
        cursor = page.next
        if cursor is None:
            break
    assert ids == sorted((entry.id for entry in entries), reverse=True)


def test_a_last_page_that_is_full_has_no_next(store: Store) -> None:
    store.decisions.add(records(10))
    assert store.decisions.find(limit=10).next is None
    assert store.decisions.find(limit=9).next is not None


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "inspect"}, {"resource": "gallery2"}, {"decision": "unknown"}, {"label": "pear"}, {"nearest": "apple"},
        {"image": f"{3:064x}"}, {"request_id": "request7"}, {"actor": "till1"}, {"since": START + timedelta(seconds=20)},
        {"until": START + timedelta(seconds=20)}, {"min_score": 0.5}, {"max_score": 0.5},
        {"min_score": 0.2, "max_score": 0.4, "label": "pear"}, {"verdict": "wrong"}, {"verdict": "none"},
        {"label": "no such"},
    ],
)  # fmt: skip
def test_filters_choose_as_a_plain_loop_does(store: Store, values: dict[str, object]) -> None:
    entries = records(40)
    store.decisions.add(entries)
    for entry, verdict in zip(entries[::7], itertools.cycle(("wrong", "confirmed")), strict=False):
        assert store.decisions.give_feedback(entry.id, Feedback(verdict))
    current = [entry for entry in (store.decisions.get(entry.id) for entry in entries) if entry]

    def matches(entry: DecisionRecord) -> bool:
        tests = {
            "since": lambda value: entry.time >= value,
            "until": lambda value: entry.time < value,
            "min_score": lambda value: entry.score >= value,
            "max_score": lambda value: entry.score <= value,
            "verdict": lambda value: (entry.feedback[-1].verdict if entry.feedback else "none") == value,
        }
        return all(tests.get(n, lambda v, n=n: getattr(entry, n) == v)(value) for n, value in values.items())

    expected = [entry for entry in current if matches(entry)]
    selection = DecisionFilter(**values)  # type: ignore[arg-type]
    assert sorted(entry.id for entry in store.decisions.find(selection, limit=1000).items) == sorted(
        entry.id for entry in expected
    )
    assert store.decisions.count(selection) == len(expected)
    assert bool(expected) == (values != {"label": "no such"})


def test_of_a_batch_all_are_written_or_none(store: Store) -> None:
    first, second = records(2)
    store.decisions.add([first])
    with pytest.raises(StoreError):
        store.decisions.add([second, first])
    assert store.decisions.count() == 1


def test_feedback_is_kept_and_the_latest_counts(store: Store) -> None:
    (entry,) = records(1)
    store.decisions.add([entry])
    store.decisions.give_feedback(entry.id, Feedback("confirmed", actor="ann"))
    changed = store.decisions.give_feedback(entry.id, Feedback("wrong", "pear", "a pear, surely", "bob"))
    assert changed is not None and [one.verdict for one in changed.feedback] == ["confirmed", "wrong"]
    assert (changed.feedback[1].label, changed.feedback[1].note, changed.feedback[1].actor) == (
        "pear",
        "a pear, surely",
        "bob",
    )
    assert store.decisions.get(entry.id) == changed
    assert store.decisions.count(DecisionFilter(verdict="wrong")) == 1
    assert store.decisions.count(DecisionFilter(verdict="confirmed")) == 0


def test_feedback_on_no_decision_is_none_and_changes_nothing(store: Store) -> None:
    assert store.decisions.give_feedback("01a226f2-346b-7e49-847c-685ba1c23caf", Feedback("confirmed")) is None


def test_feedback_on_one_decision_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FEEDBACK", 2)
    (entry,) = records(1)
    store.decisions.add([entry])
    for _ in range(2):
        store.decisions.give_feedback(entry.id, Feedback("confirmed"))
    with pytest.raises(DataError, match="has feedback 2 times; expected at most 2"):
        store.decisions.give_feedback(entry.id, Feedback("unusable"))
    assert store.decisions.count(DecisionFilter(verdict="confirmed")) == 1  # the refused one left no trace


def test_more_decisions_than_a_statement_takes_parameters(sqlite_store: Store) -> None:
    entries = records(1001)
    sqlite_store.decisions.add(entries)
    sqlite_store.decisions.give_feedback(entries[0].id, Feedback("confirmed"))
    page = sqlite_store.decisions.find(limit=1000)
    assert len(page.items) == 1000 and page.next
    (last,) = sqlite_store.decisions.find(after=page.next).items
    assert last.id == min(entry.id for entry in entries)
