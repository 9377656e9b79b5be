"""Settings that the service keeps: thresholds and ignored regions of inspectors, named sets of regions; by kind and name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from unalike.serve.store.database import Database
from unalike.serve.store.records import utc_now
from unalike.serve.store.tables import settings, short_name


class Settings:
    """The settings of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """Name -> content of all settings of a kind, by name."""
        query = sa.select(settings.c.name, settings.c.content).where(settings.c.kind == kind).order_by(settings.c.name)
        with self._database.reading() as connection:
            return {name: content for name, content in connection.execute(query)}

    def get(self, kind: str, name: str, *, connection: sa.Connection | None = None) -> dict[str, Any] | None:
        """The content of one; None where there is none."""
        query = sa.select(settings.c.content).where(self._is(kind, name))
        if connection is not None:
            return connection.execute(query).scalar()
        with self._database.reading() as new_connection:
            return new_connection.execute(query).scalar()

    def set(
        self, kind: str, name: str, content: Mapping[str, Any] | None, actor: str, *, connection: sa.Connection | None = None
    ) -> dict[str, Any] | None:  # fmt: skip
        """Set the content of one, or remove it.

        Args:
            kind, name: which one.
            content: plain data; None removes it.
            actor: who sets it.
            connection: a transaction that this becomes part of.

        Returns:
            What it was before; None where there was none.
        """
        with self._database.writing(connection) as open_connection:
            former: dict[str, Any] | None = open_connection.execute(
                sa.select(settings.c.content).where(self._is(kind, name)).with_for_update()
            ).scalar()
            if content is None:
                open_connection.execute(settings.delete().where(self._is(kind, name)))
                return former
            values = {"content": dict(content), "actor": actor, "updated": utc_now()}
            if former is None:
                open_connection.execute(settings.insert(), {"kind": kind, "name": name, **values})
            else:
                open_connection.execute(settings.update().where(self._is(kind, name)).values(values))
        return former

    @staticmethod
    def _is(kind: str, name: str) -> sa.ColumnElement[bool]:
        return sa.and_(settings.c.kind == kind, settings.c.name == short_name(name))
