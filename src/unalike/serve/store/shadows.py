"""Shadows of galleries: a candidate answers a sampled share of the traffic too, and what it says is kept beside the decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from unalike.data.class_names import normalize_class_name
from unalike.recognition.decision import LABEL
from unalike.serve.store.database import Database
from unalike.serve.store.records import TEACHING, Page, Record, check_choice, check_page, new_id, utc_now
from unalike.serve.store.tables import decisions, shadow_answers, shadows

PREPARING, RUNNING, ENDED = "preparing", "running", "ended"
SHADOW_STATES = (PREPARING, RUNNING, ENDED)


@dataclass(frozen=True)
class ShadowRecord(Record):
    """A candidate that answers a share of the traffic of a gallery beside the model in service.

    Attributes:
        gallery: name of the gallery.
        model: id of the candidate.
        share: of the decisions, 0 to 1.
        former: key of the network in service; another one ends the shadow.
        actor: who began it.
        state: one of ``SHADOW_STATES``.
        message: what it is at, why it ended, or why the candidate cannot answer.
        reference_count: references that the candidate embedded; None before it did.
        left_out: references without a picture, which it could not embed.
        dropped: number of sampled images that were not computed.
        ended: when, in UTC; None while it runs.
        time: when it was begun.
        id: sorts by time.
    """

    gallery: str
    model: str
    share: float
    former: str
    actor: str = ""
    state: str = PREPARING
    message: str = ""
    reference_count: int | None = None
    left_out: int = 0
    dropped: int = 0
    ended: datetime | None = None
    time: datetime = field(default_factory=utc_now)
    id: str = field(default_factory=new_id)

    def __post_init__(self) -> None:
        check_choice(self.state, SHADOW_STATES, "state")


@dataclass(frozen=True)
class ShadowAnswer(Record):
    """What a candidate would have answered in place of a decision.

    Attributes:
        shadow_id, decision_id: of which shadow and which decision.
        decision: ``label``, ``ambiguous`` or ``unknown``.
        label: the class where that is ``label``; None else.
        nearest: the best class whatever the decision.
        score: cosine of the best class.
        threshold: lowest score of a known image; None without a calibration.
        time: when, in UTC.
    """

    shadow_id: str
    decision_id: str
    decision: str
    label: str | None
    nearest: str
    score: float
    threshold: float | None = None
    time: datetime = field(default_factory=utc_now)


@dataclass(frozen=True)
class ShadowDifference(Record):
    """A decision about which the model in service and a candidate differ.

    Attributes:
        answer: of the candidate.
        decision, label, nearest, score: of the model in service.
        image: content hash of the picture; None where it is not kept.
        verdict, right_label: what people said of the decision; None where nobody did.
    """

    answer: ShadowAnswer
    decision: str
    label: str | None
    nearest: str | None
    score: float | None
    image: str | None
    verdict: str | None
    right_label: str | None


@dataclass(frozen=True)
class ShadowSummary:
    """What became of a shadow.

    Attributes:
        sampled: number of decisions with an answer of the candidate.
        same: of these, how many both decide alike: the same class, both ambiguous, or both unknown.
        corrected: how many people gave or confirmed a class of.
        right: of the corrected ones, how many the model in service labels with that class.
        candidate_right: likewise for the candidate.
    """

    sampled: int
    same: int
    corrected: int
    right: int
    candidate_right: int


class Shadows:
    """The shadows of a store.

    Args:
        database: where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, record: ShadowRecord, *, connection: sa.Connection | None = None) -> bool:
        """Add a shadow; False where one of the gallery runs."""
        with self._database.writing(connection) as open_connection:
            values = {column.name: getattr(record, column.name) for column in shadows.columns}
            insert = self._database.insert(shadows).values(values).on_conflict_do_nothing().returning(shadows.c.id)
            return open_connection.execute(insert).first() is not None

    def active(self, gallery: str | None = None) -> list[ShadowRecord]:
        """The shadows that run, of one gallery or of all."""
        with self._database.reading() as connection:
            return self._read(connection, _is_active(gallery))

    def get(self, shadow_id: str, *, connection: sa.Connection | None = None) -> ShadowRecord | None:
        """The shadow of an id; None where there is none."""
        with self._database.reading(connection) as open_connection:
            records = self._read(open_connection, shadows.c.id == shadow_id)
        return records[0] if records else None

    def latest(self, gallery: str) -> ShadowRecord | None:
        """The shadow of a gallery that was begun last; None where there was none."""
        query = shadows.select().where(shadows.c.gallery == gallery).order_by(shadows.c.id.desc()).limit(1)
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else ShadowRecord(**row)

    def change(self, shadow_id: str, *, connection: sa.Connection | None = None, **values: Any) -> bool:
        """Change columns of a shadow that runs; False where it does not run."""
        is_one = sa.and_(shadows.c.id == shadow_id, shadows.c.ended.is_(None))
        with self._database.writing(connection) as open_connection:
            return open_connection.execute(shadows.update().where(is_one).values(**values)).rowcount == 1

    def end(self, shadow_id: str, message: str = "", *, connection: sa.Connection | None = None) -> bool:
        """End a shadow; what it recorded stays. False where it does not run."""
        return self.change(shadow_id, state=ENDED, message=message, ended=utc_now(), connection=connection)

    def add_dropped(self, shadow_id: str, count: int) -> None:
        """Count sampled images that were not computed."""
        change = shadows.update().where(shadows.c.id == shadow_id).values(dropped=shadows.c.dropped + count)
        with self._database.writing(sync=False) as connection:
            connection.execute(change)

    def add_answer(self, answer: ShadowAnswer) -> bool:
        """Keep an answer of a candidate, which therefore runs; False where its decision or its shadow is gone, or has ended."""
        with self._database.writing(sync=False) as connection:
            # Locked, so that a purge cannot take it away in between.
            query = sa.select(decisions.c.decision, decisions.c.label).where(decisions.c.id == answer.decision_id)
            decision = connection.execute(query.with_for_update(read=True)).first()
            is_one = sa.and_(shadows.c.id == answer.shadow_id, shadows.c.ended.is_(None))
            active = self._read(connection, is_one)
            if decision is None or not active:
                return False
            if active[0].state != RUNNING:  # another process of the service failed meanwhile
                self.change(answer.shadow_id, state=RUNNING, message="", connection=connection)
            agrees = answer.decision == decision.decision and (
                answer.decision != LABEL or answer.label == decision.label
            )
            values = {**vars(answer), "agrees": agrees}
            connection.execute(shadow_answers.insert(), values)
            return True

    # ---- what became of it ----

    def results(
        self, shadow_id: str, after: str | None = None, limit: int = 100
    ) -> tuple[ShadowSummary, Page[ShadowDifference]]:
        """Numbers of a shadow, and a page of ``differences``, of one state: an answer counted in one is counted in both."""
        check_page(after, limit)
        with self._database.reading() as connection:
            page = self.differences(shadow_id, after, limit, connection=connection)
            return self.summary(shadow_id, connection=connection), page

    def summary(self, shadow_id: str, *, connection: sa.Connection | None = None) -> ShadowSummary:
        """Numbers of a shadow."""
        of_shadow = shadow_answers.c.shadow_id == shadow_id
        count = sa.select(sa.func.count(), sa.func.sum(sa.cast(shadow_answers.c.agrees, sa.Integer))).where(of_shadow)
        correction_query = sa.select(
            decisions.c.verdict, decisions.c.right_label, decisions.c.label, shadow_answers.c.label.label("candidate_label")
        ).select_from(_joined()).where(of_shadow, decisions.c.verdict.in_(TEACHING))  # fmt: skip
        with self._database.reading(connection) as open_connection:
            sampled, same = open_connection.execute(count).one()
            rows = open_connection.execute(correction_query).all()
        triples = [
            (right, row.label, row.candidate_label)
            for row in rows
            if (right := _right_class(row.verdict, row.right_label, row.label)) is not None
        ]
        return ShadowSummary(
            sampled, same or 0, len(triples), sum(label == right for right, label, _ in triples),
            sum(label == right for right, _, label in triples),
        )  # fmt: skip

    def differences(
        self, shadow_id: str, after: str | None = None, limit: int = 100, *, connection: sa.Connection | None = None
    ) -> Page[ShadowDifference]:
        """List decisions about which the two models differ, the newest first.

        Args:
            shadow_id: which shadow.
            after: ``next`` of the page before.
            limit: decisions a page, 1 to 1000.
            connection: of a transaction that is open already.

        Raises:
            DataError: ``after`` or ``limit`` is not valid.
        """
        check_page(after, limit)
        names = ("decision", "label", "nearest", "score", "image", "verdict", "right_label")
        columns = [decisions.c[name].label(f"own_{name}") for name in names]
        answer_names = [column.name for column in shadow_answers.columns if column.name != "agrees"]
        query = (
            sa.select(*columns, *(shadow_answers.c[name] for name in answer_names)).select_from(_joined())
            .where(shadow_answers.c.shadow_id == shadow_id, shadow_answers.c.agrees.is_(False))
            .order_by(shadow_answers.c.decision_id.desc()).limit(limit + 1)
        )  # fmt: skip
        if after is not None:
            query = query.where(shadow_answers.c.decision_id < after)
        with self._database.reading(connection) as open_connection:
            rows = open_connection.execute(query).mappings().all()
        items = [
            ShadowDifference(
                ShadowAnswer(**{name: row[name] for name in answer_names}), *(row[f"own_{name}"] for name in names)
            )
            for row in rows[:limit]
        ]
        return Page(items, items[-1].answer.decision_id if len(rows) > limit else None)

    def _read(self, connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[ShadowRecord]:
        rows: Sequence[Any] = (
            connection.execute(shadows.select().where(condition).order_by(shadows.c.id)).mappings().all()
        )
        return [ShadowRecord(**row) for row in rows]


def _is_active(gallery: str | None) -> sa.ColumnElement[bool]:
    is_active = shadows.c.ended.is_(None)
    return is_active if gallery is None else sa.and_(is_active, shadows.c.gallery == gallery)


def _joined() -> sa.Join:
    return sa.join(shadow_answers, decisions, shadow_answers.c.decision_id == decisions.c.id)


def _right_class(verdict: str, right_label: str | None, label: str | None) -> str | None:
    """The class that people gave an image or confirmed; None where they gave none."""
    right = label if verdict == "confirmed" else right_label
    return None if right is None else normalize_class_name(right) or None
