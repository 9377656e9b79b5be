"""Sessions of browsers: a random token in a cookie, of which the store holds the hash, stands for the key that signed in."""

from __future__ import annotations

import secrets
from dataclasses import fields
from datetime import datetime, timedelta

import sqlalchemy as sa

from unalike.serve.store.audit import Audit
from unalike.serve.store.database import Database
from unalike.serve.store.records import KeyRecord, SessionRecord, utc_now
from unalike.serve.store.tables import keys, sessions
from unalike.storage.digests import text_sha256

SESSION_TIME = timedelta(hours=12)
MAX_TOKEN = 200  # characters of a cookie that are looked at
_KEY_COLUMNS = [keys.c[f.name].label(f"key_{f.name}") for f in fields(KeyRecord)]


class Sessions:
    """The sessions of a store. One ends with its time, when it is closed, and with its key."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._database, self._audit = database, audit

    def open(self, key: KeyRecord, *, now: datetime | None = None) -> tuple[SessionRecord, str]:
        """Begin a session of a key; sessions whose time is over are removed.

        Returns:
            The session, and its token, which cannot be read again.
        """
        now, token = now or utc_now(), secrets.token_urlsafe(32)
        record = SessionRecord(key, now, now + SESSION_TIME)
        with self._database.writing() as connection:
            connection.execute(sessions.delete().where(sessions.c.expires <= now))
            row = {"digest": text_sha256(token), "key_id": key.id, "created": now, "expires": record.expires}
            connection.execute(sessions.insert(), row)
            self._note(connection, key, "sessions.open")
        return record, token

    def find(self, token: str, *, now: datetime | None = None) -> SessionRecord | None:
        """The session of a token; None where there is none, its time is over, or its key was revoked."""
        if not token or len(token) > MAX_TOKEN:
            return None
        query = sa.select(sessions.c.created, sessions.c.expires, *_KEY_COLUMNS).join(keys).where(
            sessions.c.digest == text_sha256(token), sessions.c.expires > (now or utc_now()), keys.c.revoked.is_(None)
        )  # fmt: skip
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            return None
        key = KeyRecord(**{f.name: row[f"key_{f.name}"] for f in fields(KeyRecord)})
        return SessionRecord(key, row["created"], row["expires"])

    def close(self, token: str) -> bool:
        """End a session; whether there was one."""
        record = self.find(token)
        with self._database.writing() as connection:
            count = connection.execute(sessions.delete().where(sessions.c.digest == text_sha256(token))).rowcount
            if record is not None and count:
                self._note(connection, record.key, "sessions.close")
        return bool(count)

    def _note(self, connection: sa.Connection, key: KeyRecord, action: str) -> None:
        entry = self._audit.begin(key.name, action, key.name, {"id": key.id}, connection=connection)
        self._audit.finish(entry, connection=connection)
