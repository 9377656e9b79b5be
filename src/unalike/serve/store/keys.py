"""API keys: created with a secret that is shown once, looked up by it, revoked.

A secret is 256 random bits. The store holds their SHA-256 alone. A slow password hash would add nothing: it protects what people
think up, of which an attacker who has the hashes can try the likely ones; nobody tries 2^256 values, at any speed.
"""

from __future__ import annotations

import hmac
import re
import secrets
import threading
import time
from dataclasses import fields, replace
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from unalike.errors import DataError, LastAdmin, closest
from unalike.serve.store.audit import Audit
from unalike.serve.store.database import Database
from unalike.serve.store.records import ROLES, KeyRecord, check_choice, check_text, utc_now
from unalike.serve.store.tables import keys
from unalike.storage.digests import text_sha256

PREFIX = "unalike"
# A key that was looked up is valid for so long without another look: revoking takes effect within it, in every process.
CACHE_S = 1.0
MAX_NAME = 200
_USE_INTERVAL = timedelta(minutes=1)
_CACHE_SIZE = 1024
_SECRET = re.compile(rf"{PREFIX}_([0-9a-f]{{8}})_([A-Za-z0-9_-]{{43}})")
_NO_DIGEST = "0" * 64
_COLUMNS = [keys.c[f.name] for f in fields(KeyRecord)]


def _is_chief(record: KeyRecord) -> bool:
    """Whether a key may all."""
    return record.role == ROLES[-1] and record.gallery is None


class Keys:
    """The API keys of a store."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._database, self._audit = database, audit
        self._cache: dict[str, tuple[float, KeyRecord]] = {}
        self._lock = threading.Lock()

    def add(
        self, name: str, role: str, gallery: str | None = None, *, actor: str = "", request_id: str = "",
        needs_admin: bool = False, connection: sa.Connection | None = None,
    ) -> tuple[KeyRecord, str]:  # fmt: skip
        """Create a key; the audit log has an entry about it.

        Args:
            name: what it is called; no two valid keys have one name.
            role: ``view``, ``operate`` or ``admin``.
            gallery: the one gallery that it is for; None for all.
            actor: who creates it.
            request_id: the request that asked.
            needs_admin: whether a key that may less than all is refused while there is none that may all: with a key, nobody
                without one may do anything any more.
            connection: a transaction that this becomes part of.

        Returns:
            The key, and its secret, which cannot be read again.

        Raises:
            DataError: the name is empty, too long or taken, or there is no such role.
            LastAdmin: as of ``needs_admin``.
        """
        check_choice(role, ROLES, "role")
        check_text(name, "name", MAX_NAME)
        name = name.strip()
        if not name:
            raise DataError("a key without a name", expected="a name that says who uses it, such as till-3")
        record = KeyRecord(secrets.token_hex(4), name, role, gallery or None, utc_now())
        secret = f"{PREFIX}_{record.id}_{secrets.token_urlsafe(32)}"
        row = {f.name: getattr(record, f.name) for f in fields(record)} | {"digest": text_sha256(secret)}
        with self._database.writing(connection) as open_connection:
            if needs_admin and not _is_chief(record) and not self._chiefs(open_connection):
                raise LastAdmin(f"a key of the role {role}{' for one gallery' if gallery else ''}, and no admin key for all galleries",
                                expected="first a key of the role admin for all galleries")  # fmt: skip
            try:
                open_connection.execute(keys.insert(), row)
            except IntegrityError as error:
                raise DataError(f"there is a key named {name!r}", expected="another name",
                                remedy="revoke that key first, or choose another name") from error  # fmt: skip
            details = {"id": record.id, "role": role, "gallery": record.gallery}
            self._note_change(open_connection, actor, "keys.add", name, details, request_id)
        return record, secret

    def list(self) -> list[KeyRecord]:
        """All keys, those that were revoked too, the oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(*_COLUMNS).order_by(keys.c.created, keys.c.id)).mappings().all()
        return [KeyRecord(**row) for row in rows]

    def digests(self) -> frozenset[str]:
        """SHA-256 of the secrets of all valid keys."""
        with self._database.reading() as connection:
            return frozenset(connection.execute(sa.select(keys.c.digest).where(keys.c.revoked.is_(None))).scalars())

    def revoke(
        self, key: str, *, actor: str = "", request_id: str = "", keeps_admin: bool = False,
        connection: sa.Connection | None = None,
    ) -> KeyRecord:  # fmt: skip
        """Revoke a key for ever; the audit log has an entry about it.

        Args:
            key: its id, or the name of a valid key.
            actor: who revokes it.
            request_id: the request that asked.
            keeps_admin: whether the last key that may all is refused to be revoked.
            connection: a transaction that this becomes part of.

        Raises:
            DataError: there is no such key, or it was revoked before.
            LastAdmin: as of ``keeps_admin``.
        """
        now = utc_now()
        with self._database.writing(connection) as open_connection:
            chiefs = self._chiefs(open_connection) if keeps_admin else ()
            is_valid = keys.c.revoked.is_(None)
            is_chosen = sa.or_(keys.c.id == key, keys.c.name == key)
            row = open_connection.execute(sa.select(*_COLUMNS).where(is_chosen, is_valid)).mappings().first()
            if row is None:
                if open_connection.execute(sa.select(keys.c.id).where(is_chosen)).first():
                    raise DataError(f"key {key!r} was revoked before", expected="a valid key")
                names = [name for (name,) in open_connection.execute(sa.select(keys.c.name).where(is_valid))]
                raise DataError(f"no key {key!r}", remedy=closest(key, names) or "see: unalike serve keys list")
            if chiefs == (row["id"],):
                raise LastAdmin(f"key {row['name']!r} is the only admin key for all galleries", expected="another key of the role admin",
                                remedy="make another one first (on the service's machine the command unalike serve keys revokes any key)")  # fmt: skip
            open_connection.execute(keys.update().where(keys.c.id == row["id"]).values(revoked=now))
            self._note_change(open_connection, actor, "keys.revoke", row["name"], {"id": row["id"]}, request_id)
        with self._lock:
            self._cache.clear()
        return replace(KeyRecord(**row), revoked=now)

    def authenticate(self, secret: str) -> KeyRecord | None:
        """The valid key of a secret, or None. Takes the same time for a wrong secret as for a right one."""
        match = _SECRET.fullmatch(secret)
        digest = text_sha256(secret)
        with self._lock:
            end, record = self._cache.get(digest, (0.0, None))
        if record is not None and time.monotonic() < end:
            return record
        with self._database.reading() as connection:
            query = sa.select(keys.c.digest, *_COLUMNS).where(keys.c.id == (match[1] if match else ""))
            row = connection.execute(query).mappings().first()
        is_equal = hmac.compare_digest(digest, row["digest"] if row else _NO_DIGEST)
        if row is None or not is_equal or row["revoked"] is not None:
            return None
        record = KeyRecord(**{f.name: row[f.name] for f in fields(KeyRecord)})
        self._note_use(record, utc_now())
        with self._lock:
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            self._cache[digest] = time.monotonic() + CACHE_S, record
        return record

    def _chiefs(self, connection: sa.Connection) -> tuple[str, ...]:
        """Ids of the valid keys that may all; they are locked, so that of two at once one waits for the other."""
        is_chief = sa.and_(keys.c.revoked.is_(None), keys.c.role == ROLES[-1], keys.c.gallery.is_(None))
        return tuple(connection.execute(sa.select(keys.c.id).where(is_chief).with_for_update()).scalars())

    def _note_change(
        self, connection: sa.Connection, actor: str, action: str, name: str, details: dict[str, str | None],
        request_id: str,
    ) -> None:  # fmt: skip
        entry_id = self._audit.begin(actor, action, name, details, request_id=request_id, connection=connection)
        self._audit.finish(entry_id, connection=connection)

    def _note_use(self, record: KeyRecord, now: datetime) -> None:
        """Write down when it was used, at most once a minute."""
        limit = now - _USE_INTERVAL
        if record.last_used is None or record.last_used < limit:
            is_older = sa.or_(keys.c.last_used.is_(None), keys.c.last_used < limit)
            with self._database.writing(sync=False) as connection:
                connection.execute(keys.update().where(keys.c.id == record.id, is_older).values(last_used=now))
