"""Keys: the secret is shown once and stored hashed; a revoked key is refused, everywhere within a second."""

from __future__ import annotations

import hmac
import re
import sqlite3
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from unalike.errors import DataError, LastAdmin
from unalike.serve.store import Store, open_store
from unalike.serve.store import keys as module


def test_a_secret_opens_and_another_does_not(store: Store) -> None:
    record, secret = store.keys.add("till-3", "operate", gallery="shop")
    assert re.fullmatch(r"unalike_[0-9a-f]{8}_[\w-]{43}", secret) and secret.split("_")[1] == record.id
    key = store.keys.authenticate(secret)
    assert key is not None and (key.id, key.role, key.gallery, key.name) == (record.id, "operate", "shop", "till-3")
    changed = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    for wrong in (changed, "", "unalike", secret + "A", secret[:-1], "unalike_00000000_" + "A" * 43, "\0", "caf\udce9"):
        assert store.keys.authenticate(wrong) is None


def test_the_store_holds_no_secret(tmp_path: Path) -> None:
    with open_store(None, tmp_path) as store:
        _, secret = store.keys.add("till", "view")
        store.keys.authenticate(secret)
    content = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
    assert b"till" in content and secret.split("_", 2)[2].encode() not in content


def test_secrets_are_compared_in_constant_time_for_unknown_keys_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def compare(first: str, second: str) -> bool:
        calls.append((len(first), len(second)))
        return hmac.compare_digest(first, second)

    monkeypatch.setattr(module, "hmac", SimpleNamespace(compare_digest=compare))
    _, secret = store.keys.add("till", "view")
    assert store.keys.authenticate(secret) and not store.keys.authenticate("unalike_00000000_" + "A" * 43)
    assert calls == [(64, 64), (64, 64)]


def test_a_revoked_key_is_refused_at_once_here_and_within_the_cache_elsewhere(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, secret = store.keys.add("till", "view")
    other = module.Keys(store.database, store.audit)  # as in another process
    assert store.keys.authenticate(secret) and other.authenticate(secret)
    revoked = store.keys.revoke("till")
    assert revoked.id == record.id and revoked.revoked is not None
    assert store.keys.authenticate(secret) is None
    later = time.monotonic() + module.CACHE_S
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: later))
    assert other.authenticate(secret) is None


def test_a_name_is_free_again_when_its_key_was_revoked(store: Store) -> None:
    first, _ = store.keys.add("till", "view")
    with pytest.raises(DataError, match="there is a key named 'till'"):
        store.keys.add(" till ", "admin")
    store.keys.revoke(first.id)
    second, _ = store.keys.add("till", "admin")
    assert [(key.id, key.role, key.revoked is None) for key in store.keys.list()] == [
        (first.id, "view", False), (second.id, "admin", True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "role", "message"),
    [
        ("", "view", "a key without a name"),
        ("x" * 201, "view", "201 characters"),
        ("a", "viewer", "did you mean 'view'"),
    ],
)
def test_keys_that_cannot_be(sqlite_store: Store, name: str, role: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        sqlite_store.keys.add(name, role)


def test_revoking_what_is_not_there_says_what_is(sqlite_store: Store) -> None:
    key, _ = sqlite_store.keys.add("till-3", "view")
    with pytest.raises(DataError, match="no key 'till-4'; did you mean 'till-3'"):
        sqlite_store.keys.revoke("till-4")
    sqlite_store.keys.revoke(key.id)
    with pytest.raises(DataError, match="was revoked before"):
        sqlite_store.keys.revoke(key.id)


def test_use_is_written_down_once_a_minute(sqlite_store: Store) -> None:
    _, secret = sqlite_store.keys.add("till", "view")
    assert sqlite_store.keys.list()[0].last_used is None
    sqlite_store.keys.authenticate(secret)
    first = sqlite_store.keys.list()[0].last_used
    module.Keys(sqlite_store.database, sqlite_store.audit).authenticate(secret)
    assert first is not None and sqlite_store.keys.list()[0].last_used == first


def test_the_cache_is_bounded(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CACHE_SIZE", 2)
    secrets = [sqlite_store.keys.add(f"till{number}", "view")[1] for number in range(5)]
    assert all(sqlite_store.keys.authenticate(secret) for secret in secrets)
    assert len(sqlite_store.keys._cache) <= 2


def test_the_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    with open_store(None, tmp_path) as store:
        store.keys.add("till", "view")
        modes = {path.stat().st_mode & 0o777 for path in tmp_path.glob("store.db*")}
    assert modes == {0o600}
    assert sqlite3.connect(tmp_path / "store.db").execute("SELECT count(*) FROM keys").fetchone() == (1,)


def test_changes_of_keys_are_in_the_audit_log(store: Store) -> None:
    key, secret = store.keys.add("till", "view", actor="ann")
    with pytest.raises(DataError):
        store.keys.add("till", "view", actor="bob")
    store.keys.revoke("till", actor="eve")
    revoked, created = store.audit.find().items
    assert (created.actor, created.action, created.resource, created.outcome) == ("ann", "keys.add", "till", "done")
    assert created.details == {"id": key.id, "role": "view", "gallery": None}
    assert (revoked.actor, revoked.action, revoked.details) == ("eve", "keys.revoke", {"id": key.id})
    assert secret not in repr((created, revoked, key))


def test_the_last_key_that_may_all_is_kept_where_that_is_asked(store: Store) -> None:
    for role, gallery in (("view", None), ("operate", None), ("admin", "shop")):
        with pytest.raises(LastAdmin, match="no admin key for all galleries"):
            store.keys.add("first", role, gallery, needs_admin=True)
    assert store.keys.list() == [] and not store.audit.find().items
    chief, _ = store.keys.add("chief", "admin", needs_admin=True)
    till, _ = store.keys.add("till", "operate", needs_admin=True)
    store.keys.add("shop chief", "admin", "shop")
    with pytest.raises(LastAdmin, match="the only admin key for all galleries"):
        store.keys.revoke(chief.id, keeps_admin=True)
    store.keys.revoke(till.id, keeps_admin=True)
    second, _ = store.keys.add("second", "admin")
    store.keys.revoke(chief.id, keeps_admin=True)
    with pytest.raises(LastAdmin):
        store.keys.revoke(second.id, keeps_admin=True)
    store.keys.revoke(second.id)  # the command line may
    assert [key.name for key in store.keys.list() if key.revoked is None] == ["shop chief"]


def test_of_two_chiefs_that_revoke_each_other_at_once_one_stays(store: Store) -> None:
    for _ in range(5):
        ids = [store.keys.add(name, "admin")[0].id for name in ("ann", "bob")]
        barrier, refusals = threading.Barrier(2), []

        def revoke(id: str, barrier: threading.Barrier = barrier, refusals: list[str] = refusals) -> None:
            barrier.wait()
            try:
                store.keys.revoke(id, keeps_admin=True)
            except LastAdmin:
                refusals.append(id)

        threads = [threading.Thread(target=revoke, args=(id,)) for id in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        valid = [key.id for key in store.keys.list() if key.revoked is None]
        assert len(refusals) == 1 and valid == refusals
        store.keys.revoke(valid[0])


def test_a_key_that_is_made_in_a_transaction_that_fails_does_not_exist(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction() as connection:
        store.keys.add("chief", "admin", connection=connection)
        raise ZeroDivisionError
    assert store.keys.list() == [] and not store.audit.find().items
