"""Settings that were changed are kept with an entry of the audit log, and their start options hold again without them."""

from __future__ import annotations

import pytest

from unalike.serve.store import Store


def test_settings_are_kept_changed_and_given_back(store: Store) -> None:
    assert store.service_settings.read() == {}
    store.service_settings.change({"retention_days": 7.5, "decision_days": 0}, actor="ann", request_id="r1")
    assert store.service_settings.read() == {"retention_days": 7.5, "decision_days": 0}
    store.service_settings.change({"retention_days": None}, actor="bob")
    assert store.service_settings.read() == {"decision_days": 0}
    entries = store.audit.find(action="settings.change").items
    assert [(entry.actor, entry.outcome) for entry in entries] == [("bob", "done"), ("ann", "done")]
    assert entries[0].details == {"retention_days": {"before": 7.5, "after": None}} and entries[1].request_id == "r1"


def test_all_are_changed_or_none(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction() as connection:
        store.service_settings.change({"retention_days": 1}, connection=connection)
        raise ZeroDivisionError
    assert store.service_settings.read() == {} and not store.audit.find().items
