"""The tables of the store, as SQLAlchemy describes them; ``migrations`` creates them in a database.

Types are chosen so that SQLite and PostgreSQL hold and compare the same: times in UTC, JSON as text in ASCII, texts without
what one of the two cannot hold (NUL, bytes of file names that are not UTF-8), numbers that are finite.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator

from unalike.sanitize import valid_unicode
from unalike.storage.digests import text_sha256

# PostgreSQL refuses rows of an index of more than 2,704 bytes; a character has up to four.
NAME_CHARACTERS = 500
_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def plain_text(value: str) -> str:
    """A text that any database holds: NUL and halves of surrogate pairs as escapes."""
    return str(valid_unicode(value)).replace("\0", "\\x00")


def short_name(value: str) -> str:
    """A name as an index holds it: a longer one ends in its digest, so that two of them stay apart."""
    value = plain_text(value)
    return value if len(value) <= NAME_CHARACTERS else f"{value[: NAME_CHARACTERS - 65]}…{text_sha256(value)}"


def json_text(value: Any) -> str:
    """Plain data as JSON in ASCII; numbers that are not finite, which JSON lacks, become null."""
    try:
        return _encode(value)
    except ValueError:  # such a number
        return _encode(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC, with microseconds."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """In UTC; a time without a zone is in UTC already."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """SQLite keeps no zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Word(TypeDecorator[str]):
    """A text of at most so many characters that the service writes; what a client looks for is escaped (``plain_text``)."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        """The text as any database holds it."""
        return None if value is None else plain_text(value)


class PlainText(TypeDecorator[str]):
    """A text of any length (``plain_text``)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        """The text as any database holds it."""
        return None if value is None else plain_text(value)


class Name(TypeDecorator[str]):
    """A name that is searched for (``short_name``)."""

    impl = String(NAME_CHARACTERS)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        """The name as an index holds it."""
        return None if value is None else short_name(value)


class Json(TypeDecorator[Any]):
    """Plain data as text (``json_text``)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str:
        """Data to text."""
        return json_text(value)

    def process_result_value(self, value: str | None, dialect: Any) -> Any:
        """Text to data."""
        return None if value is None else json.loads(value)


class Finite(TypeDecorator[float]):
    """A number; what is not finite becomes NULL."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Any) -> float | None:
        """A plain float, of numpy's too."""
        return None if value is None or not math.isfinite(value) else float(value)


ID = Word(36)
metadata = MetaData()

decisions = Table(
    "decisions", metadata,
    Column("id", ID, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("kind", Word(16), nullable=False),
    Column("resource", Name, nullable=False),
    Column("decision", Name, nullable=False),
    Column("label", Name),
    Column("nearest", Name),
    Column("score", Finite),
    Column("threshold", Finite),
    Column("margin", Finite),
    Column("calibrated", Boolean),
    Column("stale", Boolean),
    Column("model", Name, nullable=False),
    Column("image", Word(64)),
    Column("file", Name),  # as the client calls it, without a folder
    Column("request_id", Name, nullable=False),
    Column("actor", Name, nullable=False),
    Column("result", Json, nullable=False),
    Column("verdict", Word(16)),  # of the latest feedback, with its class: they are searched for
    Column("right_label", Name),
    Index("decisions_by_time", "time"),
    Index("decisions_by_label", "label", "id"),
    Index("decisions_by_image", "image"),
)  # fmt: skip

feedback = Table(
    "feedback", metadata,
    Column("id", ID, primary_key=True),
    Column("decision_id", ID, ForeignKey("decisions.id", ondelete="CASCADE"), nullable=False),
    Column("time", UtcTime, nullable=False),
    Column("verdict", Word(16), nullable=False),
    Column("label", PlainText),
    Column("note", PlainText, nullable=False),
    Column("actor", Name, nullable=False),
    Index("feedback_by_decision", "decision_id"),
)  # fmt: skip

keys = Table(
    "keys", metadata,
    Column("id", Word(8), primary_key=True),
    Column("name", Name, nullable=False),
    Column("role", Word(16), nullable=False),
    Column("gallery", Name),
    Column("digest", Word(64), nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("last_used", UtcTime),
    Column("revoked", UtcTime),
    # Of valid keys, no two have one name. As the migration creates it for PostgreSQL too; named here, its dialect would be loaded
    # at every start.
    Index("keys_by_name", "name", unique=True, sqlite_where=text("revoked IS NULL")),
)  # fmt: skip

idempotency = Table(
    "idempotency", metadata,
    Column("key", Name, primary_key=True),
    Column("actor", Name, primary_key=True),
    Column("digest", Word(64), nullable=False),
    Column("token", Word(32), nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("lease_end", UtcTime, nullable=False),
    Column("status", Integer),  # NULL until the request is answered
    Column("body", PlainText),
    Index("idempotency_by_created", "created"),
)  # fmt: skip

audit = Table(
    "audit", metadata,
    Column("id", ID, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("actor", Name, nullable=False),
    Column("action", Name, nullable=False),
    Column("resource", Name, nullable=False),
    Column("details", Json, nullable=False),
    Column("request_id", Name, nullable=False),
    Column("outcome", Word(16), nullable=False),
    Column("error", PlainText, nullable=False),
    Column("finished", UtcTime),
    Index("audit_by_resource", "resource", "id"),
)  # fmt: skip

galleries = Table(
    "galleries", metadata,
    Column("key", Name, primary_key=True),  # the address, as an index holds it
    Column("name", Name, nullable=False),
    Column("address", PlainText, nullable=False),
    Column("registered", UtcTime, nullable=False),
)  # fmt: skip

sessions = Table(
    "sessions", metadata,
    Column("digest", Word(64), primary_key=True),  # of the token in the cookie
    Column("key_id", Word(8), ForeignKey("keys.id", ondelete="CASCADE"), nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("expires", UtcTime, nullable=False),
    Index("sessions_by_expires", "expires"),
)  # fmt: skip

# What is set for a thing that is served, or kept under a name: one row a thing.
settings = Table(
    "settings", metadata,
    Column("kind", Word(16), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("content", Json, nullable=False),
    Column("actor", Name, nullable=False),
    Column("updated", UtcTime, nullable=False),
)  # fmt: skip

tasks = Table(
    "tasks", metadata,
    Column("id", ID, primary_key=True),
    Column("kind", Word(32), nullable=False),
    Column("resource", Name, nullable=False),
    Column("options", Json, nullable=False),
    Column("actor", Name, nullable=False),
    Column("request_id", Name, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("state", Word(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("token", Word(32), nullable=False),  # of the process that does it
    Column("lease_end", UtcTime),
    Column("step", PlainText, nullable=False),
    Column("count", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("started", UtcTime),
    Column("finished", UtcTime),
    Column("result", Json, nullable=False),
    Column("error", PlainText, nullable=False),
    Index("tasks_by_state", "state", "kind"),
)  # fmt: skip

reviews = Table(
    "reviews", metadata,
    Column("id", ID, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("resource", Name, nullable=False),
    Column("kind", Word(16), nullable=False),
    Column("action", Word(16), nullable=False),
    Column("label", Name),
    Column("actor", Name, nullable=False),
    Column("undo", Json, nullable=False),  # what takes it back; null where it can no longer be taken back
    Index("reviews_by_resource", "resource", "time"),
)  # fmt: skip

# What was answered: a decision, a reference or a pair of them has one answer at most.
review_items = Table(
    "review_items", metadata,
    Column("resource", Name, primary_key=True),
    Column("item", Word(120), primary_key=True),
    Column("review_id", ID, ForeignKey("reviews.id", ondelete="CASCADE"), nullable=False),
    Index("review_items_by_review", "review_id"),
)  # fmt: skip

service_settings = Table(
    "service_settings", metadata,
    Column("key", Name, primary_key=True),
    Column("value", Json, nullable=False),
    Column("changed", UtcTime, nullable=False),
    Column("actor", Name, nullable=False),
)  # fmt: skip

models = Table(
    "models", metadata,
    Column("id", ID, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("gallery", Name, nullable=False),  # the name of the gallery that it is a candidate for
    Column("name", Name, nullable=False),
    Column("file", PlainText, nullable=False),  # below the folder of the service
    Column("sha256", Word(64), nullable=False),
    Column("network", Name, nullable=False),
    Column("task", ID),  # the training that made it
    Column("facts", Json, nullable=False),
    Index("models_by_gallery", "gallery", "id"),
)  # fmt: skip

comparisons = Table(
    "comparisons", metadata,
    Column("id", ID, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("model", ID, ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("former", Name, nullable=False),  # key of the network in service
    Column("result", Json, nullable=False),
    Index("comparisons_by_model", "model", "id"),
)  # fmt: skip

promotions = Table(
    "promotions", metadata,
    Column("id", ID, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("kind", Word(16), nullable=False),
    Column("gallery", Name, nullable=False),
    Column("model", ID),  # NULL: a model that the service was started with
    Column("file", PlainText, nullable=False),  # the model now in service
    Column("former", PlainText, nullable=False),  # the one before
    Column("actor", Name, nullable=False),
    Column("details", Json, nullable=False),
    Index("promotions_by_gallery", "gallery", "id"),
)  # fmt: skip

shadows = Table(
    "shadows", metadata,
    Column("id", ID, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("gallery", Name, nullable=False),
    Column("model", ID, ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("share", Finite, nullable=False),
    Column("former", Name, nullable=False),  # key of the network in service
    Column("actor", Name, nullable=False),
    Column("state", Word(16), nullable=False),
    Column("message", PlainText, nullable=False),
    Column("reference_count", Integer),
    Column("left_out", Integer, nullable=False),
    Column("dropped", Integer, nullable=False),
    Column("ended", UtcTime),  # NULL while it runs
    Index("shadows_by_gallery", "gallery", "id"),
    # Of a gallery, one runs at most.
    Index("shadows_that_run", "gallery", unique=True, sqlite_where=text("ended IS NULL")),
)  # fmt: skip

# What a candidate would have answered; it goes with its decision.
shadow_answers = Table(
    "shadow_answers", metadata,
    Column("shadow_id", ID, ForeignKey("shadows.id", ondelete="CASCADE"), primary_key=True),
    Column("decision_id", ID, ForeignKey("decisions.id", ondelete="CASCADE"), primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("decision", Word(16), nullable=False),
    Column("label", Name),
    Column("nearest", Name, nullable=False),
    Column("score", Finite),
    Column("threshold", Finite),
    Column("agrees", Boolean, nullable=False),
    Index("shadow_answers_by_decision", "decision_id"),
)  # fmt: skip
