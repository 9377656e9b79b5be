"""The audit log: begun before a change, finished after it, listed by who, what and when."""

from __future__ import annotations

from datetime import timedelta

import pytest

from unalike.errors import DataError
from unalike.serve.store import Store
from unalike.serve.store.records import utc_now


def test_an_entry_is_begun_then_finished_once(store: Store) -> None:
    entry_id = store.audit.begin("ann", "references.add", "shop", {"label": "pear", "images": 3}, request_id="r1")
    (begun,) = store.audit.find(outcome="begun").items
    assert (begun.id, begun.actor, begun.details, begun.finished) == (
        entry_id,
        "ann",
        {"label": "pear", "images": 3},
        None,
    )
    assert store.audit.finish(entry_id, "failed", "the disk is full")
    assert not store.audit.finish(entry_id, "done")  # what is finished stays as it is
    (entry,) = store.audit.find().items
    assert (entry.outcome, entry.error, entry.request_id) == ("failed", "the disk is full", "r1")
    assert entry.finished is not None and entry.finished >= entry.time


def test_an_outcome_is_one_that_ends_a_change(store: Store) -> None:
    entry_id = store.audit.begin("ann", "keys.add", "till")
    with pytest.raises(DataError, match="outcome is 'begun'; expected one of done, failed"):
        store.audit.finish(entry_id, "begun")


def test_entries_are_found_and_paged(store: Store) -> None:
    for number in range(7):
        store.audit.begin("ann" if number % 2 else "bob", f"action{number % 3}", "shop")
    assert len(store.audit.find(actor="ann").items) == 3
    assert len(store.audit.find(action="action0").items) == 3
    assert not store.audit.find(resource="other").items
    assert not store.audit.find(since=utc_now() + timedelta(minutes=1)).items
    assert len(store.audit.find(until=utc_now() + timedelta(minutes=1)).items) == 7
    first = store.audit.find(limit=4)
    second = store.audit.find(limit=4, after=first.next)
    ids = [entry.id for entry in [*first.items, *second.items]]
    assert ids == sorted(set(ids), reverse=True) and len(ids) == 7 and second.next is None


def test_a_transaction_that_fails_leaves_the_entry_begun(store: Store) -> None:
    entry_id = store.audit.begin("ann", "references.add", "shop")
    with pytest.raises(ZeroDivisionError), store.transaction() as connection:
        store.audit.finish(entry_id, connection=connection)
        raise ZeroDivisionError
    assert store.audit.find().items[0].outcome == "begun"
