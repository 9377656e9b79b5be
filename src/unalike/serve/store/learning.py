"""Models of galleries, comparisons of models and promotions: what was trained, and what is in service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from unalike.serve.store.database import Database
from unalike.serve.store.records import Record, new_id, utc_now
from unalike.serve.store.tables import comparisons, models, promotions

TRAIN, COMPARE, PROMOTE, ROLL_BACK = "train", "compare", "promote", "rollback"
# Kinds of the tasks of a gallery.
LEARNING_KINDS = (TRAIN, COMPARE, PROMOTE, ROLL_BACK)


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
