"""A request under a key is carried out once, answered as before, and taken over when its process died."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from unalike.errors import DataError
from unalike.serve.store import Conflict, InProgress, New, Replay, Store

DIGEST, OTHER = "a" * 64, "b" * 64


def test_the_first_answer_is_replayed(store: Store) -> None:
    claim = store.idempotency.claim("key", "ann", DIGEST)
    assert isinstance(claim, New) and not claim.is_retry
    assert store.idempotency.complete(claim, 201, '{"label": "pe\\u0000ar"}')
    assert store.idempotency.claim("key", "ann", DIGEST) == Replay(201, '{"label": "pe\\u0000ar"}')
    assert not store.idempotency.complete(claim, 500, "{}")  # an answer that was given stays
    assert store.idempotency.claim("key", "ann", DIGEST) == Replay(201, '{"label": "pe\\u0000ar"}')


def test_another_request_under_the_key_conflicts_and_another_actor_does_not(store: Store) -> None:
    claim = store.idempotency.claim("key", "ann", DIGEST)
    assert isinstance(claim, New)
    assert store.idempotency.claim("key", "ann", OTHER) == Conflict()
    assert isinstance(store.idempotency.claim("key", "bob", OTHER), New)
    store.idempotency.complete(claim, 200, "{}")
    assert store.idempotency.claim("key", "ann", OTHER) == Conflict()


def test_who_comes_second_waits_and_takes_over_when_the_claim_ends(store: Store) -> None:
    first = store.idempotency.claim("key", "ann", DIGEST)
    waiting = store.idempotency.claim("key", "ann", DIGEST)
    assert isinstance(first, New) and isinstance(waiting, InProgress) and 50 < waiting.retry_after <= 60
    ended = store.idempotency.claim("late", "ann", DIGEST, lease_s=-1)
    second = store.idempotency.claim("late", "ann", DIGEST)
    assert isinstance(ended, New) and isinstance(second, New) and second.is_retry
    assert not store.idempotency.complete(ended, 200, "{}") and not store.idempotency.release(ended)
    assert store.idempotency.complete(second, 200, "{}")


def test_a_claim_ends_although_the_clock_is_set_back(store: Store) -> None:
    """It then seems to end in hours."""
    assert isinstance(store.idempotency.claim("key", "ann", DIGEST, lease_s=7200), New)
    again = store.idempotency.claim("key", "ann", DIGEST)
    assert isinstance(again, New) and again.is_retry


def test_a_released_key_is_free(store: Store) -> None:
    claim = store.idempotency.claim("key", "ann", DIGEST)
    assert isinstance(claim, New) and store.idempotency.release(claim)
    again = store.idempotency.claim("key", "ann", OTHER)
    assert isinstance(again, New) and not again.is_retry


def test_of_many_at_once_one_carries_it_out(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: store.idempotency.claim("key", "ann", DIGEST), range(24)))
        assert sum(isinstance(claim, New) for claim in claims) == 1
        assert sum(isinstance(claim, InProgress) for claim in claims) == 23
        store.idempotency.claim("late", "ann", DIGEST, lease_s=-1)
        claims = list(pool.map(lambda _: store.idempotency.claim("late", "ann", DIGEST), range(24)))
    assert sum(isinstance(claim, New) for claim in claims) == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_keys_are_bounded(sqlite_store: Store, key: str) -> None:
    with pytest.raises(DataError, match="expected 1 to 255"):
        sqlite_store.idempotency.claim(key, "ann", DIGEST)


def test_the_longest_key_and_actor_fit_an_index(store: Store) -> None:
    assert isinstance(store.idempotency.claim("😀" * 255, "😀" * 200, DIGEST), New)


def test_answers_are_bounded(sqlite_store: Store) -> None:
    claim = sqlite_store.idempotency.claim("key", "ann", DIGEST)
    assert isinstance(claim, New)
    with pytest.raises(DataError, match="expected at most 1048576"):
        sqlite_store.idempotency.complete(claim, 200, "x" * (2**20 + 1))


def test_audit_and_answer_are_one_transaction(store: Store) -> None:
    claim = store.idempotency.claim("key", "ann", DIGEST)
    entry_id = store.audit.begin("ann", "references.add", "shop")
    assert isinstance(claim, New)
    with pytest.raises(ZeroDivisionError), store.transaction() as connection:
        store.audit.finish(entry_id, connection=connection)
        store.idempotency.complete(claim, 201, "{}", connection=connection)
        raise ZeroDivisionError
    assert isinstance(store.idempotency.claim("key", "ann", DIGEST), InProgress)
    with store.transaction() as connection:
        store.audit.finish(entry_id, connection=connection)
        store.idempotency.complete(claim, 201, "{}", connection=connection)
    assert store.idempotency.claim("key", "ann", DIGEST) == Replay(201, "{}")
    assert store.audit.find().items[0].outcome == "done"
