"""Idempotency keys: a request that is repeated under its key is carried out once, and answered as before.

A claim has an end, so that a request whose process was killed can be repeated. The repeated one learns that (``is_retry``): what
the first one did may have been applied, and is found by the names that follow from the key.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

import sqlalchemy as sa

from unalike.errors import DataError
from unalike.serve.store.database import Database
from unalike.serve.store.records import Claim, Conflict, InProgress, New, Replay, utc_now
from unalike.serve.store.tables import idempotency

MAX_KEY, MAX_BODY = 255, 2**20
LEASE_S = 60.0
# A claim was made by another clock, or after this caller looked at its own and waited for the row.
CLOCK_TOLERANCE_S = 60.0


class Idempotency:
    """The idempotency keys of a store; each actor has its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, key: str, actor: str, request_digest: str, *, lease_s: float = LEASE_S) -> Claim:
        """Ask to carry out a request.

        Args:
            key: the client's key, 1 to 255 characters.
            actor: who asks.
            request_digest: SHA-256 of what is asked, in hex digits: method, path, content.
            lease_s: seconds that the caller may take.

        Returns:
            ``New``: carry it out, then ``complete`` or ``release`` it. ``Replay``: the answer of the first time.
            ``InProgress``: another caller carries it out. ``Conflict``: the key belongs to another request.

        Raises:
            DataError: the key is empty or too long.
        """
        if not 0 < len(key) <= MAX_KEY:
            raise DataError(f"an idempotency key of {len(key)} characters", expected=f"1 to {MAX_KEY}")
        now, token = utc_now(), secrets.token_hex(16)
        lease_end = now + timedelta(seconds=lease_s)
        row = {
            "key": key,
            "actor": actor,
            "digest": request_digest,
            "token": token,
            "created": now,
            "lease_end": lease_end,
        }
        own = self._is_of(key, actor)
        insert = self._database.insert
        with self._database.writing() as connection:
            new_row = insert(idempotency).values(row).on_conflict_do_nothing().returning(idempotency.c.token)
            if connection.execute(new_row).first():
                return New(key, actor, token)
            # Under the lock of the row: of two that find an ended claim, one takes it over.
            old = connection.execute(idempotency.select().where(own).with_for_update()).mappings().first()
            if old is None:  # released in between
                return InProgress(0.0)
            if old["digest"] != request_digest:
                return Conflict()
            if old["status"] is not None:
                return Replay(old["status"], old["body"])
            remaining_s = (old["lease_end"] - now).total_seconds()
            if 0 < remaining_s <= max(lease_s, LEASE_S) + CLOCK_TOLERANCE_S:  # more: the clock was set back since
                return InProgress(remaining_s)
            connection.execute(idempotency.update().where(own).values(token=token, lease_end=lease_end))
            return New(key, actor, token, is_retry=True)

    def complete(self, claim: New, status: int, body: str, *, connection: sa.Connection | None = None) -> bool:
        """Store the answer of a request for those who repeat it.

        Args:
            claim: as ``claim`` returned it.
            status: the HTTP status.
            body: the JSON text, at most 1 MiB.
            connection: a transaction that this becomes part of, such as that of the audit entry.

        Returns:
            False where the claim had ended and another caller took it over.

        Raises:
            DataError: the body is too large.
        """
        if len(body) > MAX_BODY:
            raise DataError(f"an answer of {len(body)} characters", expected=f"at most {MAX_BODY}")
        change = idempotency.update().where(self._is_own(claim)).values(status=status, body=body)
        with self._database.writing(connection) as open_connection:
            return open_connection.execute(change).rowcount == 1

    def release(self, claim: New, *, connection: sa.Connection | None = None) -> bool:
        """Give a claim back after a failure that changed nothing: whoever repeats the request carries it out."""
        with self._database.writing(connection) as open_connection:
            return open_connection.execute(idempotency.delete().where(self._is_own(claim))).rowcount == 1

    def _is_own(self, claim: New) -> sa.ColumnElement[bool]:
        is_open = sa.and_(idempotency.c.token == claim.token, idempotency.c.status.is_(None))
        return sa.and_(self._is_of(claim.key, claim.actor), is_open)

    @staticmethod
    def _is_of(key: str, actor: str) -> sa.ColumnElement[bool]:
        return sa.and_(idempotency.c.key == key, idempotency.c.actor == actor)
