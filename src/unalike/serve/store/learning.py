"""Models of galleries, tasks of learning, comparisons of models and promotions: what was trained, and what is in service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from unalike.serve.store.database import Database
from unalike.serve.store.records import Page, Record, check_choice, check_page, new_id, utc_now
from unalike.serve.store.tables import comparisons, models, promotions, tasks

TRAIN, COMPARE, PROMOTE, ROLL_BACK = "train", "compare", "promote", "rollback"
TASK_KINDS = (TRAIN, COMPARE, PROMOTE, ROLL_BACK)
QUEUED, RUNNING, DONE, FAILED, CANCELLED, ENDED = "queued", "running", "done", "failed", "cancelled", "ended"
STATES = (QUEUED, RUNNING, DONE, FAILED, CANCELLED, ENDED)
# The process that runs a task says so every few seconds; one that was silent for so long is gone.
SILENCE_S = 60.0


@dataclass(frozen=True)
class ModelRecord(Record):
    """A model that may serve a gallery.

    Attributes:
        gallery: name of the gallery that it is a candidate for.
        name: what people call it.
        file: its file, below the folder of the service.
        sha256: of that file.
        network: key of the network.
        task: the training that made it; None for one that came from elsewhere.
        facts: plain data: figures, classes, counts of images, when its data was collected.
        time: when it was added, in UTC.
        id: sorts by time.
    """

    gallery: str
    name: str
    file: str
    sha256: str
    network: str
    task: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    time: datetime = field(default_factory=utc_now)
    id: str = field(default_factory=new_id)


@dataclass(frozen=True)
class TaskRecord(Record):
    """A task of learning: a training, a comparison, a promotion, a return to the former model.

    Attributes:
        kind: one of ``TASK_KINDS``.
        gallery: name of the gallery.
        options: what was asked for, plain data.
        actor, request_id: who asked.
        state: one of ``STATES``; ``ended`` says that the process that ran it is gone.
        started, finished: times in UTC.
        beat: when that process said last that it runs it.
        owner: that process.
        message: why it failed, or what it is at.
        result: plain data.
        time: when it was asked for.
        id: sorts by time.
    """

    kind: str
    gallery: str
    options: Mapping[str, Any] = field(default_factory=dict)
    actor: str = ""
    request_id: str = ""
    state: str = QUEUED
    started: datetime | None = None
    finished: datetime | None = None
    beat: datetime | None = None
    owner: Any = None
    message: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    time: datetime = field(default_factory=utc_now)
    id: str = field(default_factory=new_id)

    def __post_init__(self) -> None:
        check_choice(self.kind, TASK_KINDS, "kind")
        check_choice(self.state, STATES, "state")

    @property
    def is_over(self) -> bool:
        """Whether it neither waits nor runs."""
        return self.state not in (QUEUED, RUNNING)


@dataclass(frozen=True)
class ComparisonRecord(Record):
    """A comparison of a candidate with the model in service.

    Attributes:
        model: id of the candidate.
        former: key of the network in service.
        result: figures, verdict and the images that change sides, plain data.
    """

    model: str
    former: str
    result: Mapping[str, Any]
    time: datetime = field(default_factory=utc_now)
    id: str = field(default_factory=new_id)


@dataclass(frozen=True)
class PromotionRecord(Record):
    """A change of the model in service.

    Attributes:
        kind: ``promote`` or ``rollback``.
        gallery: name of the gallery.
        model: id of the model now in service; None for one that the service was started with.
        file, former: files of the model now in service and of the one before.
        actor: who did it.
        details: verdict, override and its reason, plain data.
    """

    kind: str
    gallery: str
    model: str | None
    file: str
    former: str
    actor: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    time: datetime = field(default_factory=utc_now)
    id: str = field(default_factory=new_id)


class Learning:
    """The tables of learning of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ---- models ----

    def add_model(self, record: ModelRecord) -> None:
        """Add a model, whose file is on the disk."""
        self._insert(models, record)

    def model(self, model_id: str) -> ModelRecord | None:
        """The model of an id; None where there is none."""
        rows = self._rows(models.select().where(models.c.id == model_id))
        return ModelRecord(**rows[0]) if rows else None

    def models(self, gallery: str | None = None) -> list[ModelRecord]:
        """The models of a gallery, or all, the newest first."""
        query = models.select().order_by(models.c.id.desc())
        if gallery is not None:
            query = query.where(models.c.gallery == gallery)
        return [ModelRecord(**row) for row in self._rows(query)]

    # ---- tasks ----

    def add_task(self, record: TaskRecord) -> None:
        """Add a task."""
        self._insert(tasks, record)

    def task(self, task_id: str) -> TaskRecord | None:
        """The task of an id; None where there is none."""
        rows = self._rows(tasks.select().where(tasks.c.id == task_id))
        return TaskRecord(**rows[0]) if rows else None

    def tasks(
        self, kind: str | None = None, gallery: str | None = None, after: str | None = None, limit: int = 100
    ) -> Page[TaskRecord]:
        """List tasks, the newest first. Raises DataError for a wrong ``after`` or ``limit``."""
        check_page(after, limit)
        query = tasks.select().order_by(tasks.c.id.desc()).limit(limit + 1)
        for column, value in ((tasks.c.kind, kind), (tasks.c.gallery, gallery)):
            query = query if value is None else query.where(column == value)
        if after is not None:
            query = query.where(tasks.c.id < after)
        records = [TaskRecord(**row) for row in self._rows(query)]
        return Page(records[:limit], records[limit - 1].id if len(records) > limit else None)

    def change_task(self, task_id: str, *, only: tuple[str, ...] = STATES, **values: Any) -> bool:
        """Change columns of a task whose state is one of ``only``; False where there is no such task."""
        if "state" in values:
            check_choice(values["state"], STATES, "state")
        condition = sa.and_(tasks.c.id == task_id, tasks.c.state.in_(only))
        with self._database.writing() as connection:
            return connection.execute(tasks.update().where(condition).values(**values)).rowcount == 1

    def unfinished(self) -> list[TaskRecord]:
        """Tasks that wait or run, the oldest first."""
        query = tasks.select().where(tasks.c.state.in_((QUEUED, RUNNING))).order_by(tasks.c.id)
        return [TaskRecord(**row) for row in self._rows(query)]

    # ---- comparisons and promotions ----

    def add_comparison(self, record: ComparisonRecord) -> None:
        """Add a comparison."""
        self._insert(comparisons, record)

    def comparison(self, model_id: str, former: str | None = None) -> ComparisonRecord | None:
        """The latest comparison of a model, with the network ``former`` where that is given; None where there is none."""
        query = comparisons.select().where(comparisons.c.model == model_id).order_by(comparisons.c.id.desc()).limit(1)
        if former is not None:
            query = query.where(comparisons.c.former == former)
        rows = self._rows(query)
        return ComparisonRecord(**rows[0]) if rows else None

    def add_promotion(self, record: PromotionRecord, *, connection: sa.Connection | None = None) -> None:
        """Add a change of the model in service."""
        self._insert(promotions, record, connection)

    def remove_promotion(self, promotion_id: str) -> None:
        """Remove a change that did not come about."""
        with self._database.writing() as connection:
            connection.execute(promotions.delete().where(promotions.c.id == promotion_id))

    def promotions(self, gallery: str) -> list[PromotionRecord]:
        """Changes of the model of a gallery, the newest first."""
        query = promotions.select().where(promotions.c.gallery == gallery).order_by(promotions.c.id.desc())
        return [PromotionRecord(**row) for row in self._rows(query)]

    def standing_promotion(self, gallery: str) -> PromotionRecord | None:
        """The latest promotion that was not taken back; None where the service's first model is in service."""
        standing: list[PromotionRecord] = []
        for record in reversed(self.promotions(gallery)):
            if record.kind == PROMOTE:
                standing.append(record)
            elif standing:
                standing.pop()
        return standing[-1] if standing else None

    def _insert(self, table: sa.Table, record: Record, connection: sa.Connection | None = None) -> None:
        row = {column.name: getattr(record, column.name) for column in table.columns}
        with self._database.writing(connection) as open_connection:
            open_connection.execute(table.insert(), row)

    def _rows(self, query: Any) -> list[dict[str, Any]]:
        with self._database.reading() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def is_silent(record: TaskRecord, now: datetime) -> bool:
    """Whether the process that runs a task has said nothing for too long."""
    last = record.beat or record.time
    return now - last > timedelta(seconds=SILENCE_S)
