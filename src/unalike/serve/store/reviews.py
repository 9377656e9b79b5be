"""Answers to what was asked in a review: each decision, reference or pair is answered once; and the decisions that may be asked about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from unalike.recognition.decision import AMBIGUOUS, LABEL, UNKNOWN
from unalike.serve.store.database import Database
from unalike.serve.store.records import Page, Record, check_choice, check_page, new_id, utc_now
from unalike.serve.store.tables import decisions, review_items, reviews
from unalike.storage.digests import text_sha256

# What is asked: a decision that may be wrong, images of what may be a new class, a reference that may have the wrong class, two
# references that are nearly one picture, a picture that is like nothing that is enrolled.
DOUBTFUL, NEW_CLASS, WRONG_LABEL, DUPLICATE, DRIFTED = "doubtful", "new class", "wrong label", "duplicate", "drifted"
REVIEW_KINDS = (NEW_CLASS, DOUBTFUL, WRONG_LABEL, DUPLICATE, DRIFTED)
CONFIRMED, LABELED, REMOVED, UNUSABLE, DISMISSED = "confirmed", "labeled", "removed", "unusable", "dismissed"
ACTIONS = (CONFIRMED, LABELED, REMOVED, UNUSABLE, DISMISSED)
# An answer can be taken back for so long; what that needs (vectors of removed references) is kept no longer.
UNDO_TIME = timedelta(hours=24)
# So many of the latest decisions are looked at.
LOOKED_AT = 100_000
_ROWS = 500  # parameters of one statement


@dataclass(frozen=True)
class Review(Record):
    """One answer.

    Attributes:
        kind: one of ``REVIEW_KINDS``.
        resource: the gallery.
        action: one of ``ACTIONS``.
        label: the class that was named.
        actor: who answered.
        items: names of what was answered (``decision_item``, ``reference_item``, ``pair_item``).
        undo: what takes it back; None where that time is over.
        time: when, in UTC.
        id: its id.
    """

    kind: str
    resource: str
    action: str
    label: str | None = None
    actor: str = ""
    items: tuple[str, ...] = ()
    undo: Mapping[str, Any] | None = None
    time: datetime = field(default_factory=utc_now)
    id: str = field(default_factory=new_id)

    def __post_init__(self) -> None:
        check_choice(self.kind, REVIEW_KINDS, "kind")
        check_choice(self.action, ACTIONS, "action")

    def to_dict(self) -> dict[str, Any]:
        """As plain data, without what an undo needs."""
        values = super().to_dict()
        values["can_undo"] = values.pop("undo") is not None
        return values


@dataclass(frozen=True)
class Candidate:
    """A decision that may be asked about.

    Attributes:
        id, decision, nearest, score, threshold, margin, image: as of ``DecisionRecord``.
    """

    id: str
    decision: str
    nearest: str | None
    score: float | None
    threshold: float | None
    margin: float | None
    image: str | None


_CANDIDATE_COLUMNS = [decisions.c[f.name] for f in fields(Candidate)]
_COLUMNS = [column for column in reviews.columns]


def decision_item(decision_id: str) -> str:
    """The name of a decision among what was answered."""
    return f"decision {decision_id}"


def reference_item(id: int, label: str, name: str) -> str:
    """The name of a reference; another one with its number, as in a gallery that was built anew, has another name."""
    return f"reference {id} {text_sha256(f'{label}{chr(0)}{name}')[:32]}"


def pair_item(low: tuple[int, str], high: tuple[int, str]) -> str:
    """The name of a pair of references, each with its number and name; the lower number first."""
    return f"pair {low[0]} {high[0]} {text_sha256(f'{low[1]}{chr(0)}{high[1]}')[:32]}"


class Reviews:
    """The answers of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def candidates(
        self, resource: str, *, near: float, margin: float, limit: int = 1000, model: str | None = None
    ) -> tuple[list[Candidate], list[Candidate]]:
        """Decisions of a gallery that nobody has said anything about, the newest first, of the ``LOOKED_AT`` latest ones.

        Of decisions about one picture, by content, the newest stands for all; an answer to one is an answer to all.

        Args:
            resource: the gallery.
            near: distance of a score from the threshold, or of a margin from the smallest one, that makes a label doubtful.
            margin: the smallest margin of a label.
            limit: most of each kind.
            model: key of the network that decided; None for any.

        Returns:
            (unknown images, ambiguous images and doubtful labels).
        """
        columns = decisions.c
        is_answered = sa.select(review_items.c.item).where(
            review_items.c.resource == resource, review_items.c.item == sa.literal("decision ").concat(columns.id)
        )
        is_open = sa.and_(columns.kind == "identify", columns.resource == resource, columns.verdict.is_(None))
        is_open = sa.and_(is_open, sa.or_(columns.image.is_(None), columns.image.not_in(_answered_images(resource))))
        # Where no reference passed a filter, the image was compared with nothing.
        is_open = sa.and_(is_open, columns.nearest.is_distinct_from(""))
        if model is not None:
            is_open = sa.and_(is_open, columns.model == model)
        is_near = sa.or_(columns.score - columns.threshold < near, columns.margin < margin + near)
        is_doubtful = sa.or_(columns.decision == AMBIGUOUS, sa.and_(columns.decision == LABEL, is_near))
        with self._database.reading() as connection:
            oldest = connection.execute(
                sa.select(columns.id).order_by(columns.id.desc()).limit(1).offset(LOOKED_AT)
            ).scalar()
            is_open = sa.and_(is_open, sa.not_(is_answered.exists()))
            if oldest is not None:
                is_open = sa.and_(is_open, columns.id > oldest)
            lists = []
            for condition in (columns.decision == UNKNOWN, is_doubtful):
                query = (
                    sa.select(*_CANDIDATE_COLUMNS).where(is_open, condition).order_by(columns.id.desc()).limit(limit)
                )
                lists.append([Candidate(**row) for row in connection.execute(query).mappings()])
        newest: dict[str, str] = {}
        for one in (*lists[0], *lists[1]):
            if one.image is not None:
                newest[one.image] = max(one.id, newest.get(one.image, one.id))
        unknown, doubtful = (
            [one for one in each if one.image is None or newest[one.image] == one.id] for each in lists
        )
        return unknown, doubtful

    def answered(self, resource: str, items: Iterable[str]) -> set[str]:
        """Those of some items that have an answer."""
        names = sorted(set(items))
        result: set[str] = set()
        with self._database.reading() as connection:
            for first in range(0, len(names), _ROWS):
                is_one = review_items.c.item.in_(names[first : first + _ROWS])
                query = sa.select(review_items.c.item).where(review_items.c.resource == resource, is_one)
                result.update(connection.execute(query).scalars())
        return result

    def add(self, review: Review, *, connection: sa.Connection | None = None) -> None:
        """Write an answer; items that somebody answered at the same moment stay his."""
        row = {column.name: getattr(review, column.name) for column in _COLUMNS}
        items = [{"resource": review.resource, "item": item, "review_id": review.id} for item in review.items]
        with self._database.writing(connection) as open_connection:
            open_connection.execute(reviews.insert(), row)
            if items:
                open_connection.execute(self._database.insert(review_items).on_conflict_do_nothing(), items)

    def get(self, review_id: str) -> Review | None:
        """The answer of an id; None where there is none."""
        with self._database.reading() as connection:
            answers = self._read(connection, sa.select(*_COLUMNS).where(reviews.c.id == review_id))
        return answers[0] if answers else None

    def remove(self, review_id: str, *, connection: sa.Connection | None = None) -> bool:
        """Take an answer out: what it was about is asked again. Whether there was one."""
        with self._database.writing(connection) as open_connection:
            return open_connection.execute(reviews.delete().where(reviews.c.id == review_id)).rowcount == 1

    def find(self, resource: str, after: str | None = None, limit: int = 100) -> Page[Review]:
        """List answers, the newest first. Raises DataError: ``after`` or ``limit`` is not valid."""
        check_page(after, limit)
        query = sa.select(*_COLUMNS).where(reviews.c.resource == resource)
        if after is not None:
            query = query.where(reviews.c.id < after)
        with self._database.reading() as connection:
            answers = self._read(connection, query.order_by(reviews.c.id.desc()).limit(limit + 1))
        return Page(answers[:limit], answers[limit - 1].id if len(answers) > limit else None)

    def count_since(self, resource: str, since: datetime) -> int:
        """Number of answers from a time on."""
        query = sa.select(sa.func.count()).where(reviews.c.resource == resource, reviews.c.time >= since)
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def _read(self, connection: sa.Connection, query: sa.Select[Any]) -> list[Review]:
        rows = connection.execute(query).mappings().all()
        items: dict[str, list[str]] = {}
        for first in range(0, len(rows), _ROWS):
            ids = [row["id"] for row in rows[first : first + _ROWS]]
            of_page = sa.select(review_items.c.review_id, review_items.c.item).where(review_items.c.review_id.in_(ids))
            for review_id, item in connection.execute(of_page.order_by(review_items.c.item)):
                items.setdefault(review_id, []).append(item)
        return [Review(**row, items=tuple(items.get(row["id"], ()))) for row in rows]


def _answered_images(resource: str) -> sa.Select[Any]:
    """Content hashes of the pictures of a gallery's decisions about which somebody has said something."""
    others = decisions.alias("others").c
    item = sa.literal("decision ").concat(others.id)
    is_answered = sa.select(review_items.c.item).where(review_items.c.resource == resource, review_items.c.item == item)
    return sa.select(others.image).where(
        others.kind == "identify", others.resource == resource, others.image.is_not(None),
        sa.or_(others.verdict.is_not(None), is_answered.exists()),
    )  # fmt: skip
