"""Decisions of the service and the feedback on them: written in batches, listed by filters in pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from unalike.errors import DataError
from unalike.serve.store.database import Database
from unalike.serve.store.records import (
    NO_FEEDBACK,
    WITHDRAWN,
    DecisionFilter,
    DecisionRecord,
    Feedback,
    Page,
    check_page,
)
from unalike.serve.store.tables import decisions, feedback

MAX_FEEDBACK = 100  # a decision
_EQUAL = ("kind", "resource", "decision", "label", "nearest", "image", "request_id", "actor")
_COLUMNS = [column for column in decisions.columns if column.name not in ("verdict", "right_label")]
_NAMES = [column.name for column in _COLUMNS]


class Decisions:
    """The decisions of a store.

    Args:
        database: where they are.
        sync: whether a decision also survives a loss of power (``Database.writing``). It always survives a kill.
    """

    def __init__(self, database: Database, *, sync: bool = False) -> None:
        self._database, self.sync = database, sync

    def add(self, records: Sequence[DecisionRecord]) -> None:
        """Write decisions, all or none, in one transaction; they are committed when this returns.

        Measured 2026-11-29 (SQLite, ext4 on a virtual disk, see docs/experiments/service.md): what costs is the
        transaction, so write the decisions of a batch together.
        """
        if records:
            rows = [[getattr(record, name) for name in _NAMES] for record in records]
            self._database.append(_COLUMNS, rows, sync=self.sync)

    def get(self, decision_id: str) -> DecisionRecord | None:
        """The decision of an id, with its feedback; None where there is none."""
        with self._database.reading() as connection:
            records = self._read(connection, sa.select(*_COLUMNS).where(decisions.c.id == decision_id))
        return records[0] if records else None

    def get_many(self, decision_ids: Sequence[str]) -> dict[str, DecisionRecord]:
        """The decisions of some ids, with their feedback, by id; those that do not exist are left out."""
        records: list[DecisionRecord] = []
        with self._database.reading() as connection:
            for first in range(0, len(decision_ids), 500):
                is_one = decisions.c.id.in_(decision_ids[first : first + 500])
                records += self._read(connection, sa.select(*_COLUMNS).where(is_one))
        return {record.id: record for record in records}

    def find(
        self, selection: DecisionFilter | None = None, after: str | None = None, limit: int = 100
    ) -> Page[DecisionRecord]:
        """List decisions, the newest first.

        Args:
            selection: which ones; all by default.
            after: ``next`` of the page before; decisions that are made meanwhile change no later page.
            limit: decisions a page, 1 to 1000.

        Raises:
            DataError: ``after`` or ``limit`` is not valid.
        """
        check_page(after, limit)
        query = sa.select(*_COLUMNS).where(*_conditions(selection or DecisionFilter()))
        if after is not None:
            query = query.where(decisions.c.id < after)
        query = query.order_by(decisions.c.id.desc()).limit(limit + 1)
        with self._database.reading() as connection:
            records = self._read(connection, query)
        return Page(records[:limit], records[limit - 1].id if len(records) > limit else None)

    def count(self, selection: DecisionFilter | None = None) -> int:
        """Number of decisions."""
        query = sa.select(sa.func.count()).select_from(decisions).where(*_conditions(selection or DecisionFilter()))
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def give_feedback(
        self, decision_id: str, remark: Feedback, *, connection: sa.Connection | None = None
    ) -> DecisionRecord | None:
        """Add feedback to a decision; the latest counts, earlier ones stay. ``withdrawn`` takes back what was said.

        Returns:
            The decision with all of its feedback; None where there is no such decision.

        Raises:
            DataError: the decision has ``MAX_FEEDBACK`` entries already.
        """
        with self._database.writing(connection) as open_connection:
            change = decisions.update().where(decisions.c.id == decision_id)
            # This locks the row, so that of two at once the one that is committed last is the latest in both tables.
            verdict = None if remark.verdict == WITHDRAWN else remark.verdict
            if not open_connection.execute(change.values(verdict=verdict, right_label=remark.label)).rowcount:
                return None
            of_decision = feedback.c.decision_id == decision_id
            count = open_connection.execute(sa.select(sa.func.count()).where(of_decision)).scalar_one()
            if count >= MAX_FEEDBACK:
                raise DataError(
                    f"decision {decision_id} has feedback {count} times", expected=f"at most {MAX_FEEDBACK}"
                )
            row = {"id": remark.id, "decision_id": decision_id, "time": remark.time, "verdict": remark.verdict,
                   "label": remark.label, "note": remark.note, "actor": remark.actor}  # fmt: skip
            open_connection.execute(feedback.insert(), row)
            return self._read(open_connection, sa.select(*_COLUMNS).where(decisions.c.id == decision_id))[0]

    def _read(self, connection: sa.Connection, query: sa.Select[Any]) -> list[DecisionRecord]:
        rows = connection.execute(query).mappings().all()
        remarks: dict[str, list[Feedback]] = {}
        for first in range(0, len(rows), 500):  # SQLite takes a bounded number of parameters
            ids = [row["id"] for row in rows[first : first + 500]]
            remarks_of_page = feedback.select().where(feedback.c.decision_id.in_(ids)).order_by(feedback.c.id)
            for row in connection.execute(remarks_of_page).mappings():
                remarks.setdefault(row["decision_id"], []).append(_to_feedback(row))
        return [DecisionRecord(**row, feedback=tuple(remarks.get(row["id"], ()))) for row in rows]


def _to_feedback(row: Mapping[Any, Any]) -> Feedback:
    return Feedback(**{name: row[name] for name in ("verdict", "label", "note", "actor", "time", "id")})


def _conditions(selection: DecisionFilter) -> list[sa.ColumnElement[bool]]:
    columns = decisions.c
    conditions = [columns[name] == getattr(selection, name) for name in _EQUAL if getattr(selection, name) is not None]
    bounds = [(columns.time, selection.since, ">="), (columns.time, selection.until, "<"),
              (columns.score, selection.min_score, ">="), (columns.score, selection.max_score, "<=")]  # fmt: skip
    conditions += [column.op(sign, is_comparison=True)(value) for column, value, sign in bounds if value is not None]
    if selection.verdict == NO_FEEDBACK:
        conditions.append(columns.verdict.is_(None))
    elif selection.verdict is not None:
        conditions.append(columns.verdict == selection.verdict)
    return conditions
