"""Statistics of decisions, computed by the database: counts by time, histograms of scores, what the latest ones were."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from unalike.serve.store.database import Database
from unalike.serve.store.tables import decisions

BINS = 40  # of scores, from -1 to 1
_WIDTH = 2 / BINS


class Statistics:
    """Statistics of the decisions of a store; no row is read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count_by_time(
        self, since: datetime, until: datetime, bucket_s: int, *, resource: str | None = None
    ) -> list[tuple[datetime, str, str, str, int]]:
        """Count decisions by time, kind, resource and what was decided.

        Args:
            since, until: times, from and before.
            bucket_s: width of a bucket in seconds; buckets begin at multiples of it.
            resource: the identifications of this gallery alone.

        Returns:
            (begin of the bucket, kind, resource, decision, number) of those that occurred, in order.
        """
        columns = decisions.c
        bucket = self._floor(self._epoch(columns.time), bucket_s).label("bucket")
        keys = (bucket, columns.kind, columns.resource, columns.decision)
        query = sa.select(*keys, sa.func.count()).where(columns.time >= since, columns.time < until)
        if resource is not None:
            query = query.where(columns.kind == "identify", columns.resource == resource)
        with self._database.reading() as connection:
            rows = connection.execute(query.group_by(*keys).order_by(*keys)).all()
        return [
            (datetime.fromtimestamp(int(row[0]) * bucket_s, UTC), row[1], row[2], row[3], int(row[4])) for row in rows
        ]

    def score_histogram(self, resource: str, decision: str, since: datetime, until: datetime) -> list[int]:
        """Number of identifications of a gallery by score, ``BINS`` bins from -1 to 1; 1 is in the last one."""
        columns = decisions.c
        place = self._floor((columns.score + 1) / _WIDTH + 1e-9, 1).label("place")
        query = sa.select(place, sa.func.count()).where(
            columns.kind == "identify", columns.resource == resource, columns.decision == decision, columns.time >= since,
            columns.time < until, columns.score.is_not(None),
        )  # fmt: skip
        counts = [0] * BINS
        with self._database.reading() as connection:
            for number, count in connection.execute(query.group_by(place)):
                counts[min(max(int(number), 0), BINS - 1)] += int(count)
        return counts

    def count_below(
        self, resource: str, decision: str, since: datetime, until: datetime, score: float
    ) -> tuple[int, int]:
        """Number of identifications of a gallery whose score is below one, and of all that have a score."""
        columns = decisions.c
        query = sa.select(sa.func.coalesce(sa.func.sum(sa.case((columns.score < score, 1), else_=0)), 0), sa.func.count()).where(
            columns.kind == "identify", columns.resource == resource, columns.decision == decision, columns.time >= since,
            columns.time < until, columns.score.is_not(None),
        )  # fmt: skip
        with self._database.reading() as connection:
            below, count = connection.execute(query).one()
        return int(below), int(count)

    def latest(self, resource: str, since: datetime, count: int) -> dict[str, int]:
        """What the latest identifications of a gallery were: decision -> number.

        Args:
            resource: the gallery.
            since: none before this time.
            count: most decisions.
        """
        columns = decisions.c
        is_own = sa.and_(columns.kind == "identify", columns.resource == resource, columns.time >= since)
        last = sa.select(columns.decision).where(is_own).order_by(columns.time.desc()).limit(count).subquery()
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(last.c.decision, sa.func.count()).group_by(last.c.decision)).all()
        return {row[0]: int(row[1]) for row in rows}

    def count_verdicts(self, resource: str, since: datetime, until: datetime) -> dict[str, int]:
        """What was said about the identifications of a gallery: verdict -> number; those about which nothing was said are left out."""
        columns = decisions.c
        query = sa.select(columns.verdict, sa.func.count()).where(
            columns.kind == "identify", columns.resource == resource, columns.time >= since, columns.time < until,
            columns.verdict.is_not(None),
        )  # fmt: skip
        with self._database.reading() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(query.group_by(columns.verdict))}

    def _epoch(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Seconds since 1970."""
        if self._database.is_sqlite:
            return sa.cast(sa.func.strftime("%s", column), sa.Integer)
        return sa.extract("epoch", column)

    def _floor(self, value: sa.ColumnElement[Any], width: int) -> sa.ColumnElement[Any]:
        """How often a width of seconds, or of bins, goes into a value that is not negative."""
        if self._database.is_sqlite:  # a cast cuts the fraction off; PostgreSQL's rounds
            return sa.cast(value / sa.literal_column(str(width)), sa.Integer)
        return sa.cast(sa.func.floor(value / sa.literal_column(str(width))), sa.BigInteger)
