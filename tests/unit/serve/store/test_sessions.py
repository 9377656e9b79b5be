"""Sessions: found by their token alone, and ended by time, by signing out and by revoking the key."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import sqlalchemy as sa

from unalike.serve.store import Store
from unalike.serve.store.records import utc_now
from unalike.serve.store.sessions import MAX_TOKEN, SESSION_TIME
from unalike.serve.store.tables import sessions


def test_a_session_is_found_by_its_token_and_the_store_holds_its_hash_alone(store: Store) -> None:
    key, secret = store.keys.add("till", "operate", "shop")
    record, token = store.sessions.open(key)
    assert store.sessions.find(token) == record and record.key.id == key.id and record.key.gallery == "shop"
    assert record.expires - record.created == SESSION_TIME
    with store.database.reading() as connection:
        row = dict(connection.execute(sa.select(sessions)).mappings().one())
    assert token not in str(row) and secret not in str(row)
    assert row["digest"] == hashlib.sha256(token.encode()).hexdigest()
    for other in ("", token[:-1], token + "x", row["digest"], "x" * (MAX_TOKEN + 1)):
        assert store.sessions.find(other) is None


def test_a_session_ends_with_its_time_and_is_removed_by_the_next(store: Store) -> None:
    key = store.keys.add("till", "view")[0]
    start = utc_now() - SESSION_TIME - timedelta(seconds=1)
    token = store.sessions.open(key, now=start)[1]
    assert store.sessions.find(token, now=start + SESSION_TIME - timedelta(seconds=1)) is not None
    assert store.sessions.find(token) is None
    store.sessions.open(key)
    with store.database.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(sessions)).scalar_one() == 1


def test_a_session_ends_with_its_key(store: Store) -> None:
    key = store.keys.add("till", "view")[0]
    token, other = store.sessions.open(key)[1], store.sessions.open(store.keys.add("door", "view")[0])[1]
    store.keys.revoke("till")
    assert store.sessions.find(token) is None and store.sessions.find(other) is not None


def test_signing_in_and_out_stands_in_the_audit_log(store: Store) -> None:
    token = store.sessions.open(store.keys.add("till", "view")[0])[1]
    assert store.sessions.close(token) and store.sessions.find(token) is None and not store.sessions.close(token)
    entries = store.audit.find().items
    assert [(e.action, e.actor, e.outcome) for e in entries[:2]] == [
        ("sessions.close", "till", "done"), ("sessions.open", "till", "done"),
    ]  # fmt: skip
